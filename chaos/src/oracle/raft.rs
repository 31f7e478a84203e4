//! The promise of Raft (Ongaro and Ousterhout 2014, figure 3; decision 0011): one leader a term; logs match, so that an index and a term
//! name one entry in every log and in all lives of it; what is applied at an index is the same at every replica and in all of its
//! lives, so committed entries never change; the state there is equal too.
//!
//! Beside them it counts how often logs came to their ends: a world in which none did says nothing of marks, purges and snapshots.
//! Not here: whether somebody always leads in the end (the world's liveness phase).

use model::id::{GroupId, RaftId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::iter::Sum;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How often the logs of a world came to their ends, over all groups, replicas and lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEnds {
    /// Marks that were made.
    pub marks: u64,
    /// Times that the beginning of a log was purged.
    pub purges: u64,
    /// Snapshots that a replica installed.
    pub installs: u64,
}

impl LogEnds {
    /// Each of them with its name.
    #[must_use]
    pub fn named(self) -> [(&'static str, u64); 3] {
        [
            ("marks were made", self.marks),
            ("logs were purged", self.purges),
            ("snapshots were installed", self.installs),
        ]
    }
}

impl Sum for LogEnds {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, ends| Self {
            marks: sum.marks + ends.marks,
            purges: sum.purges + ends.purges,
            installs: sum.installs + ends.installs,
        })
    }
}

/// What was watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Terms that had a leader.
    pub terms: usize,
    /// States that were compared.
    pub states_compared: u64,
    /// Entries that were in another log before, or written to one once more.
    pub entries_compared: u64,
    /// How often logs came to their ends.
    pub ends: LogEnds,
}

/// Watches all groups of a world; clones are the same.
#[derive(Clone, Default)]
pub struct RaftOracle {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    leaders: BTreeMap<(GroupId, u64), RaftId>,
    states: BTreeMap<(GroupId, u64), State>,
    entries: BTreeMap<(GroupId, u64, u64), (RaftId, u128)>,
    purged: BTreeMap<(GroupId, RaftId), u64>,
    states_compared: u64,
    entries_compared: u64,
    ends: LogEnds,
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
        inner.states_compared += 1;
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

    /// `replica` writes an entry of `group` at (term, index) to its log, whose content hashes to `digest`; committed or not.
    pub fn logged(&self, group: GroupId, replica: RaftId, (term, index): (u64, u64), digest: u128) {
        let mut inner = self.inner();
        let Some((other, known)) = inner.entries.get(&(group, index, term)).copied() else {
            inner.entries.insert((group, index, term), (replica, digest));
            return;
        };
        inner.entries_compared += 1;
        if known != digest {
            let violation = format!(
                "group {group} at index {index} of term {term}: the logs of {other} and {replica} hold two entries, {known:032x} and {digest:032x}"
            );
            inner.violations.push(violation);
        }
    }

    /// A replica has made a mark.
    pub fn marked(&self) {
        self.inner().ends.marks += 1;
    }

    /// A replica has installed a snapshot.
    pub fn installed(&self) {
        self.inner().ends.installs += 1;
    }

    /// The log of `replica` is purged up to `index`. A life that does not know of it any more is no news.
    pub fn purged(&self, group: GroupId, replica: RaftId, index: u64) {
        let mut inner = self.inner();
        let known = inner.purged.get(&(group, replica)).copied();
        if known.is_none_or(|known| known < index) {
            inner.purged.insert((group, replica), index);
            inner.ends.purges += 1;
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

    /// What was watched so far.
    #[must_use]
    pub fn seen(&self) -> Seen {
        let inner = self.inner();
        Seen {
            terms: inner.leaders.len(),
            states_compared: inner.states_compared,
            entries_compared: inner.entries_compared,
            ends: inner.ends,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{LogEnds, RaftOracle};
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

    #[test]
    fn two_entries_of_an_index_and_a_term_are_seen_and_those_of_two_terms_are_none() {
        let oracle = RaftOracle::default();
        oracle.logged(GroupId(1), RaftId(1), (3, 7), 5);
        oracle.logged(GroupId(1), RaftId(1), (3, 7), 5);
        oracle.logged(GroupId(1), RaftId(2), (3, 7), 5);
        oracle.logged(GroupId(1), RaftId(2), (4, 7), 6);
        oracle.logged(GroupId(2), RaftId(1), (3, 7), 6);
        assert_eq!((oracle.violations(), oracle.seen().entries_compared), (Vec::new(), 2));
        oracle.logged(GroupId(1), RaftId(3), (3, 7), 6);
        let violations = oracle.violations();
        assert!(
            violations.len() == 1 && violations[0].contains("two entries"),
            "{violations:?}"
        );
    }

    #[test]
    fn a_purge_that_a_power_cut_took_back_counts_once() {
        let oracle = RaftOracle::default();
        for index in [8, 8, 3, 8, 9] {
            oracle.purged(GroupId(1), RaftId(1), index);
        }
        oracle.purged(GroupId(1), RaftId(2), 0);
        oracle.marked();
        let ends = LogEnds {
            marks: 1,
            purges: 3,
            installs: 0,
        };
        assert_eq!(oracle.seen().ends, ends);
    }
}
