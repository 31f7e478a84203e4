//! The promise of Raft (Ongaro and Ousterhout 2014, figure 3; decision 0011): one leader a term; what is applied at an index is the
//! same at every replica and in all of its lives, so committed entries never change; the state there is equal too.
//!
//! Not here: whether somebody always leads in the end (the world's liveness phase).

use model::id::{GroupId, RaftId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Watches all groups of a world; clones are the same.
#[derive(Clone, Default)]
pub struct RaftOracle {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    leaders: BTreeMap<(GroupId, u64), RaftId>,
    states: BTreeMap<(GroupId, u64), State>,
    compared: u64,
    violations: Vec<String>,
}

struct State {
    term: u64,
    hash: u128,
    replica: RaftId,
}

impl RaftOracle {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Single operations on maps and lists.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `replica` leads `group` in `term`; true when that is news.
    pub fn leads(&self, group: GroupId, replica: RaftId, term: u64) -> bool {
        let mut inner = self.inner();
        let known = inner.leaders.get(&(group, term)).copied();
        if known.is_some_and(|other| other != replica) {
            let other = known.unwrap_or(replica);
            let violation = format!("group {group}: replicas {other} and {replica} both lead term {term}");
            if inner.violations.last() != Some(&violation) {
                inner.violations.push(violation);
            }
            return false;
        }
        inner.leaders.insert((group, term), replica);
        known.is_none()
    }

    /// `replica` has applied `group` up to (term, index), and its state hashes to `hash`.
    pub fn applied(&self, group: GroupId, replica: RaftId, (term, index): (u64, u64), hash: u128) {
        let mut inner = self.inner();
        inner.compared += 1;
        let state = State { term, hash, replica };
        let Some(known) = inner.states.get(&(group, index)) else {
            inner.states.insert((group, index), state);
            return;
        };
        if known.term != term || known.hash != hash {
            let violation = format!(
                "group {group} at index {index}: replica {} has term {} and state {:032x}, replica {replica} term {term} and {hash:032x}",
                known.replica, known.term, known.hash
            );
            inner.violations.push(violation);
        }
    }

    /// Something that must never be, seen elsewhere.
    pub fn accuse(&self, violation: String) {
        self.inner().violations.push(violation);
    }

    /// What was violated so far, in order.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.inner().violations.clone()
    }

    /// Terms that had a leader, and states that were compared.
    #[must_use]
    pub fn seen(&self) -> (usize, u64) {
        let inner = self.inner();
        (inner.leaders.len(), inner.compared)
    }
}

#[cfg(test)]
mod tests {
    use super::RaftOracle;
    use model::id::{GroupId, RaftId};

    #[test]
    fn two_leaders_of_a_term_and_two_states_of_an_index_are_seen() {
        let oracle = RaftOracle::default();
        assert!(oracle.leads(GroupId(1), RaftId(1), 3));
        assert!(!oracle.leads(GroupId(1), RaftId(1), 3));
        assert!(oracle.leads(GroupId(2), RaftId(2), 3));
        oracle.applied(GroupId(1), RaftId(1), (3, 7), 5);
        oracle.applied(GroupId(1), RaftId(2), (3, 7), 5);
        assert_eq!(oracle.violations(), Vec::<String>::new());
        oracle.leads(GroupId(1), RaftId(2), 3);
        oracle.applied(GroupId(1), RaftId(3), (3, 7), 6);
        oracle.applied(GroupId(1), RaftId(3), (4, 7), 5);
        assert_eq!(oracle.violations().len(), 3);
    }
}
