//! In which order damaged stripes are repaired.
//!
//! A bounded queue that holds each stripe once: fewest fragments to spare first, then first come.
//! Invariants: the two indices always agree; a stripe that can no longer be decoded waits behind all that can, since every
//! repair begun before it may still save something; what the full queue turns away is named, never dropped silently.
//! Not here: how a fragment is rebuilt (node, codec) and how stripes in need are found (groups, scrub).

use model::profile::ProfileId;
use model::stripe::StripeId;
use std::collections::BTreeMap;

/// A stripe that lacks fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepairTask {
    /// Its scheme.
    pub profile: ProfileId,
    /// The stripe.
    pub stripe: StripeId,
    /// Distinct fragments that are durable in their place.
    pub surviving: u8,
}

/// What became of an offered stripe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// It is queued; `turned_away` is the least urgent stripe, which had to leave because the queue was full.
    Queued {
        /// To be found again by the next scan.
        turned_away: Option<RepairTask>,
    },
    /// It was queued before; its place follows the newer count.
    Moved,
    /// The queue is full of stripes at least as urgent; to be found again by the next scan.
    TurnedAway,
}

/// How urgent a task is; the smallest is taken first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Urgency {
    is_undecodable: bool,
    spare: u8,
    arrived: u64,
}

/// Stripes that wait for repair, the most endangered first.
#[derive(Clone, Debug)]
pub struct RepairQueue {
    tasks_max: usize,
    arrivals: u64,
    by_urgency: BTreeMap<Urgency, RepairTask>,
    by_stripe: BTreeMap<(ProfileId, StripeId), Urgency>,
}

impl RepairQueue {
    /// An empty queue of at most `tasks_max` stripes (at least one).
    #[must_use]
    pub fn new(tasks_max: usize) -> Self {
        Self {
            tasks_max: tasks_max.max(1),
            arrivals: 0,
            by_urgency: BTreeMap::new(),
            by_stripe: BTreeMap::new(),
        }
    }

    /// Queues a stripe, or moves it when its count changed. A stripe that is queued keeps its turn among equals.
    pub fn offer(&mut self, task: RepairTask) -> Offered {
        let key = (task.profile, task.stripe);
        if let Some(before) = self.by_stripe.get(&key).copied() {
            self.by_urgency.remove(&before);
            self.insert(key, urgency(&task, before.arrived), task);
            return Offered::Moved;
        }
        let urgency = urgency(&task, self.arrivals);
        self.arrivals += 1;
        let mut turned_away = None;
        if self.by_urgency.len() >= self.tasks_max {
            let Some((last, _)) = self.by_urgency.last_key_value() else {
                return Offered::TurnedAway;
            };
            if *last < urgency {
                return Offered::TurnedAway;
            }
            turned_away = self.by_urgency.pop_last().map(|(_, task)| task);
        }
        if let Some(task) = turned_away {
            self.by_stripe.remove(&(task.profile, task.stripe));
        }
        self.insert(key, urgency, task);
        Offered::Queued { turned_away }
    }

    /// Takes the most urgent stripe. A repair that comes to nothing must offer it again.
    pub fn take(&mut self) -> Option<RepairTask> {
        let (_, task) = self.by_urgency.pop_first()?;
        self.by_stripe.remove(&(task.profile, task.stripe));
        Some(task)
    }

    /// Forgets a stripe that is whole again or dead; false when it was not queued.
    pub fn forget(&mut self, profile: ProfileId, stripe: StripeId) -> bool {
        match self.by_stripe.remove(&(profile, stripe)) {
            Some(urgency) => self.by_urgency.remove(&urgency).is_some(),
            None => false,
        }
    }

    /// Stripes that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_urgency.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_urgency.is_empty()
    }

    fn insert(&mut self, key: (ProfileId, StripeId), urgency: Urgency, task: RepairTask) {
        self.by_urgency.insert(urgency, task);
        self.by_stripe.insert(key, urgency);
    }
}

/// Fragments to spare, not fragments: of two schemes with different k the one nearer to loss goes first.
fn urgency(task: &RepairTask, arrived: u64) -> Urgency {
    let k = task.profile.profile().k;
    Urgency {
        is_undecodable: task.surviving < k,
        spare: task.surviving.saturating_sub(k),
        arrived,
    }
}

#[cfg(test)]
mod tests {
    use super::{Offered, RepairQueue, RepairTask};
    use model::profile::ProfileId;
    use model::stripe::StripeId;
    use proptest::prelude::{any, prop, proptest};

    fn task(stripe: u128, surviving: u8) -> RepairTask {
        RepairTask {
            profile: ProfileId::Standard,
            stripe: StripeId(stripe),
            surviving,
        }
    }

    #[test]
    fn the_stripe_with_the_fewest_fragments_to_spare_goes_first() {
        let mut queue = RepairQueue::new(10);
        for task in [task(1, 8), task(2, 5), task(3, 4), task(4, 6), task(5, 5)] {
            assert_eq!(queue.offer(task), Offered::Queued { turned_away: None });
        }
        let dev = RepairTask {
            profile: ProfileId::Dev,
            stripe: StripeId(9),
            surviving: 4,
        };
        queue.offer(dev);
        let order: Vec<u128> = std::iter::from_fn(|| queue.take()).map(|task| task.stripe.0).collect();
        assert_eq!(order, [2, 5, 9, 4, 1, 3]);
    }

    #[test]
    fn a_full_queue_names_what_it_turns_away() {
        let mut queue = RepairQueue::new(2);
        queue.offer(task(1, 8));
        queue.offer(task(2, 7));
        assert_eq!(queue.offer(task(3, 8)), Offered::TurnedAway);
        assert_eq!(
            queue.offer(task(4, 5)),
            Offered::Queued {
                turned_away: Some(task(1, 8))
            }
        );
        assert_eq!(queue.offer(task(2, 4)), Offered::Moved);
        assert!(queue.forget(ProfileId::Standard, StripeId(4)));
        assert!(!queue.forget(ProfileId::Standard, StripeId(4)));
        assert_eq!((queue.take(), queue.take()), (Some(task(2, 4)), None));
    }

    proptest! {
        /// The naive twin is a list that is searched from the front.
        #[test]
        fn the_queue_agrees_with_a_searched_list(offers in prop::collection::vec((0_u128..12, 5_u8..9, any::<bool>()), 0..60)) {
            let mut queue = RepairQueue::new(100);
            let mut list: Vec<RepairTask> = Vec::new();
            for (stripe, surviving, is_take) in offers {
                if is_take {
                    let first = list.iter().map(|task| task.surviving).min();
                    let expected = first.and_then(|least| list.iter().position(|task| task.surviving == least));
                    assert_eq!(queue.take(), expected.map(|at| list.remove(at)));
                } else {
                    queue.offer(task(stripe, surviving));
                    match list.iter_mut().find(|task| task.stripe.0 == stripe) {
                        Some(known) => known.surviving = surviving,
                        None => list.push(task(stripe, surviving)),
                    }
                }
                assert_eq!((queue.len(), queue.is_empty()), (list.len(), list.is_empty()));
            }
        }
    }
}
