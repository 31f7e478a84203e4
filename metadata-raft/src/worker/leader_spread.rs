//! Spreads the groups' leaders over the processes, and where that leaves a choice over the regions.
//!
//! Leading costs: every write and most reads of a group pass its leader. After a start, or the death of a process, the leaders lie
//! where elections put them. Here each process looks whether it leads more groups than another one could, and hands one over.
//! Invariants: a group moves only where the spread becomes more even, so it comes to rest; only a voter that answers lately is
//! handed to; one group at a time, and none while some group has lost its leader lately. One that has been without for long, as when
//! its majority is gone, is not counted and keeps no other from being spread.
//! Not here: handing over at a planned stop (`Group::stop`).

use crate::config::Config;
use crate::group::Group;
use async_trait::async_trait;
use daemon::worker::{Next, StepError, Worker};
use model::id::{GroupId, RaftId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Long enough for the others to see what was handed over. A guess: 64 groups that one process leads are spread in a minute.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// After a hand-over that did not come about: each costs its group a moment without a leader. A guess.
const AGAIN_AFTER: Duration = Duration::from_secs(30);

/// Looks in a row at which a group without a leader is taken for one that elects: whoever wins it counts, so the spread waits. An
/// election by the slowest timing takes two seconds, and its votes may be split once. A guess.
const LOOKS_OF_ELECTION: u32 = 5;

/// Hands leadership over where this process has more of it than others.
pub struct LeaderSpread {
    groups: BTreeMap<GroupId, Arc<Group>>,
    own: RaftId,
    regions: BTreeMap<RaftId, String>,
    leaderless: Leaderless,
}

/// Groups that had no leader at the last look, and at how many looks in a row.
#[derive(Default)]
struct Leaderless(BTreeMap<GroupId, u32>);

impl Leaderless {
    /// Takes in who leads each group, and answers the leaders of those that have one; `None` while one of the others elects.
    fn look(&mut self, seen: &[(GroupId, Option<RaftId>)]) -> Option<BTreeMap<GroupId, RaftId>> {
        let without = seen.iter().filter(|(_, leader)| leader.is_none());
        let looks = |id: &GroupId| self.0.get(id).map_or(1, |looks| looks.saturating_add(1));
        self.0 = without.map(|(id, _)| (*id, looks(id))).collect();
        let nobody_elects = self.0.values().all(|looks| *looks > LOOKS_OF_ELECTION);
        nobody_elects.then(|| seen.iter().filter_map(|(id, leader)| Some((*id, (*leader)?))).collect())
    }
}

impl LeaderSpread {
    /// For the groups of the process that `config` describes.
    pub fn new(groups: BTreeMap<GroupId, Arc<Group>>, config: &Config) -> Self {
        let ids = config.replicas.iter().map(|(id, _)| *id);
        let regions = ids.zip(config.sites.iter().map(|site| site.region.clone())).collect();
        Self {
            groups,
            own: config.replica,
            regions,
            leaderless: Leaderless::default(),
        }
    }

    fn choose(&mut self) -> Option<(GroupId, RaftId)> {
        let leader = |(id, group): (&GroupId, &Arc<Group>)| {
            let status = group.status();
            // A replica that was ended by a failure says who led until then.
            (*id, status.leader.filter(|_| status.fault.is_none()))
        };
        let seen: Vec<(GroupId, Option<RaftId>)> = self.groups.iter().map(leader).collect();
        let leaders = self.leaderless.look(&seen)?;
        let led = leaders.iter().filter(|(_, leader)| **leader == self.own);
        led.map(|(id, _)| *id).find_map(|id| {
            let successors = self.groups.get(&id)?.successors();
            Some((id, better_leader(self.own, &leaders, &successors, &self.regions)?))
        })
    }
}

/// Whom `own` should hand one of its groups to, of `successors`; `None` when that would make nothing more even.
fn better_leader(
    own: RaftId,
    leaders: &BTreeMap<GroupId, RaftId>,
    successors: &[RaftId],
    regions: &BTreeMap<RaftId, String>,
) -> Option<RaftId> {
    let led_by = |replica: RaftId| leaders.values().filter(|leader| **leader == replica).count();
    let led_in = |region: Option<&String>| leaders.values().filter(|leader| regions.get(leader) == region).count();
    let least = successors
        .iter()
        .min_by_key(|replica| (led_by(**replica), led_in(regions.get(replica)), **replica))?;
    (led_by(*least) + 2 <= led_by(own)).then_some(*least)
}

#[async_trait]
impl Worker for LeaderSpread {
    fn name(&self) -> String {
        "leader-spread".to_owned()
    }

    fn backlog(&self) -> u64 {
        0
    }

    async fn step(&mut self) -> Result<Next, StepError> {
        if let Some((id, successor)) = self.choose()
            && let Some(group) = self.groups.get(&id)
            && group.is_leader()
        {
            let is_done = group.hand_over(successor).await;
            tracing::info!(group = %id, %successor, is_done, "leadership handed over to spread it");
            if !is_done {
                return Ok(Next::After(AGAIN_AFTER));
            }
        }
        // Not all at the same moment: each would hand a group to the one that leads the fewest.
        Ok(Next::After(LOOK_EVERY))
    }
}

#[cfg(test)]
mod tests {
    use super::{LOOKS_OF_ELECTION, Leaderless, better_leader};
    use model::id::{GroupId, RaftId};
    use std::collections::BTreeMap;

    /// Regions of replicas 1, 2, and so on; leaders of groups 0, 1, and so on. Lets every process step in turn until all rest.
    fn check(regions: &[&str], leaders: &[u64], down: &[u64], wanted: &[usize]) {
        let sites: BTreeMap<RaftId, String> = (1..)
            .map(RaftId)
            .zip(regions.iter().map(|name| (*name).to_owned()))
            .collect();
        let mut leaders: BTreeMap<GroupId, RaftId> =
            (0..).map(GroupId).zip(leaders.iter().copied().map(RaftId)).collect();
        let mut moves = 0;
        loop {
            let before = moves;
            for own in sites.keys().filter(|own| !down.contains(&own.0)) {
                let others: Vec<RaftId> = sites
                    .keys()
                    .filter(|id| *id != own && !down.contains(&id.0))
                    .copied()
                    .collect();
                if let Some(to) = better_leader(*own, &leaders, &others, &sites) {
                    let group = *leaders.iter().find(|(_, leader)| *leader == own).unwrap().0;
                    leaders.insert(group, to);
                    moves += 1;
                }
            }
            if moves == before {
                break;
            }
            assert!(moves <= leaders.len(), "it comes to rest");
        }
        let counts: Vec<usize> = sites
            .keys()
            .map(|id| leaders.values().filter(|leader| *leader == id).count())
            .collect();
        assert_eq!(counts, wanted);
    }

    #[test]
    fn leaders_end_up_spread_over_processes() {
        check(&["a", "b", "c"], &[1; 9], &[], &[3, 3, 3]);
        check(&["a", "b", "c"], &[1; 65], &[], &[22, 22, 21]);
        check(&["a", "b", "c"], &[1, 1, 1, 1, 2], &[3], &[3, 2, 0]);
        check(&["a"], &[1; 5], &[], &[5]);
    }

    #[test]
    fn an_even_spread_is_left_alone() {
        check(&["a", "b", "c"], &[1, 2, 3, 1, 2], &[], &[2, 2, 1]);
        check(&["a", "b", "c"], &[1, 1, 2], &[], &[1, 1, 1]);
    }

    #[test]
    fn of_equal_processes_the_one_in_the_region_with_fewer_leaders_is_taken() {
        // Two of five stand in region a, and it leads most.
        check(&["a", "a", "b", "b", "c"], &[1, 1, 1], &[], &[1, 0, 1, 0, 1]);
    }

    #[test]
    fn a_group_that_has_lost_its_leader_for_good_keeps_no_other_from_being_spread() {
        let seen = |leaders: [Option<u64>; 4]| -> Vec<(GroupId, Option<RaftId>)> {
            (0..)
                .map(GroupId)
                .zip(leaders.map(|leader| leader.map(RaftId)))
                .collect()
        };
        let (lost, other) = (
            seen([Some(1), None, Some(1), Some(1)]),
            seen([Some(1), None, None, Some(1)]),
        );
        let mut leaderless = Leaderless::default();
        for _ in 0..LOOKS_OF_ELECTION {
            assert_eq!(leaderless.look(&lost), None, "it elects");
        }
        let leaders: BTreeMap<GroupId, RaftId> = [0, 2, 3].map(|id| (GroupId(id), RaftId(1))).into();
        assert_eq!(leaderless.look(&lost).as_ref(), Some(&leaders));
        let others = [RaftId(2), RaftId(3)];
        let next = better_leader(RaftId(1), &leaders, &others, &BTreeMap::new());
        assert_eq!(next, Some(RaftId(2)));

        // Another one elects while the first has no leader yet.
        assert_eq!(leaderless.look(&other), None);
        assert_eq!(leaderless.look(&lost).as_ref(), Some(&leaders));
        // Looks count in a row alone.
        assert!(
            leaderless
                .look(&seen([Some(1); 4]))
                .is_some_and(|leaders| leaders.len() == 4)
        );
        assert_eq!(leaderless.look(&lost), None);
    }
}
