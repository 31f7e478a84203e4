//! Which groups have been silent for so long that requests to them are refused at once: the rule alone, events in and decisions out.
//!
//! A request to a group without a majority would keep its place in this gateway until its own deadline, and a few users of one such
//! group would leave none for the users of all others. So once requests have been under way to a group for `SILENT_AFTER` without a
//! break and without an answer, further ones are refused, but for one at a time that finds out whether the group is back.
//! Invariants: an answer ends a silence at once; requests that are under way are never ended; a group is kept in mind only while
//! requests to it are under way or it is silent.
//! Not here: what counts as an answer (`metadata_client`), who gives a place back (`passage`).

use model::id::GroupId;
use std::collections::BTreeMap;
use std::time::Duration;

/// An election is over after 1.7 s where replicas are near each other, and within 5 s where they are far: who comes in the middle of
/// one is not refused. A third of what a request waits in all, so the requests of one group fill no more than these seconds can.
const SILENT_AFTER: Duration = Duration::from_secs(5);

/// How a request was let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// As any other.
    Ordinary,
    /// As the only one that comes to a silent group meanwhile.
    Probe,
}

#[derive(Debug)]
struct Unanswered {
    /// The last answer, or the first request after none was under way.
    since: Duration,
    under_way: usize,
    is_probed: bool,
}

impl Unanswered {
    fn is_silent(&self, now: Duration) -> bool {
        now.saturating_sub(self.since) >= SILENT_AFTER
    }
}

/// The groups with requests under way, and those that are silent.
#[derive(Debug, Default)]
pub(super) struct Silences {
    groups: BTreeMap<GroupId, Unanswered>,
}

impl Silences {
    /// A request to `group` comes; `None` when it is refused. Whoever was let through says when it is done, in whatever way.
    pub(super) fn enter(&mut self, group: GroupId, now: Duration) -> Option<Entry> {
        let unanswered = self.groups.entry(group).or_insert(Unanswered {
            since: now,
            under_way: 0,
            is_probed: false,
        });
        let is_silent = unanswered.is_silent(now);
        if is_silent && unanswered.is_probed {
            return None;
        }
        unanswered.under_way += 1;
        if !is_silent {
            return Some(Entry::Ordinary);
        }
        unanswered.is_probed = true;
        Some(Entry::Probe)
    }

    /// The group answered one of the requests that are under way.
    pub(super) fn note_answer(&mut self, group: GroupId, now: Duration) {
        if let Some(unanswered) = self.groups.get_mut(&group) {
            unanswered.since = now;
        }
    }

    /// A request that was let through is done, or nobody waits for it any more.
    pub(super) fn leave(&mut self, group: GroupId, entry: Entry, now: Duration) {
        let Some(unanswered) = self.groups.get_mut(&group) else {
            return;
        };
        unanswered.under_way = unanswered.under_way.saturating_sub(1);
        unanswered.is_probed &= entry != Entry::Probe;
        // Clients that left sooner have proven nothing.
        if unanswered.under_way == 0 && !unanswered.is_silent(now) {
            self.groups.remove(&group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Entry, SILENT_AFTER, Silences};
    use model::id::GroupId;
    use std::time::Duration;

    const GROUP: GroupId = GroupId(1);
    const OTHER: GroupId = GroupId(2);

    /// What happens to a group.
    #[derive(Clone, Copy, Debug)]
    enum Event {
        /// A request comes, and this becomes of it.
        Asks(Option<Entry>),
        Answers,
        Leaves(Entry),
    }
    use Entry::{Ordinary, Probe};
    use Event::{Answers, Asks, Leaves};

    /// Events with the millisecond of each; returns what is kept in mind afterwards.
    fn check(events: &[(u64, GroupId, Event)]) -> Vec<GroupId> {
        let mut silences = Silences::default();
        for (at, (ms, group, event)) in events.iter().enumerate() {
            let now = Duration::from_millis(*ms);
            match *event {
                Asks(expected) => assert_eq!(silences.enter(*group, now), expected, "event {at} of {events:?}"),
                Answers => silences.note_answer(*group, now),
                Leaves(entry) => silences.leave(*group, entry, now),
            }
        }
        silences.groups.into_keys().collect()
    }

    /// A request that comes at zero and stays, then these.
    fn after_the_first(events: &[(u64, Event)]) -> Vec<GroupId> {
        let mut all = vec![(0, GROUP, Asks(Some(Ordinary)))];
        all.extend(events.iter().map(|(ms, event)| (*ms, GROUP, *event)));
        check(&all)
    }

    #[test]
    fn a_failover_of_four_seconds_refuses_nobody() {
        let mut events: Vec<(u64, Event)> = (1..=40).map(|step| (step * 100, Asks(Some(Ordinary)))).collect();
        events.push((4_000, Answers));
        // Those who waited are answered one after the other.
        events.extend((0..40).flat_map(|step| {
            let ms = 4_010 + step * 100;
            [(ms, Answers), (ms, Leaves(Ordinary)), (ms, Asks(Some(Ordinary)))]
        }));
        assert_eq!(after_the_first(&events), [GROUP]);
    }

    #[test]
    fn a_silent_group_is_asked_by_one_at_a_time_until_it_answers() {
        let kept = after_the_first(&[
            (4_999, Asks(Some(Ordinary))),
            (5_000, Asks(Some(Probe))),
            (5_000, Asks(None)),
            // Others that give up free no place of the probe.
            (15_000, Leaves(Ordinary)),
            (15_000, Asks(None)),
            // The probe's client has gone.
            (15_100, Leaves(Probe)),
            (15_200, Asks(Some(Probe))),
            (15_200, Asks(None)),
            (19_999, Leaves(Ordinary)),
            (19_999, Asks(None)),
            (20_000, Answers),
            (20_000, Asks(Some(Ordinary))),
            (20_000, Leaves(Probe)),
            (20_000, Asks(Some(Ordinary))),
            (20_000, Leaves(Ordinary)),
            (20_001, Answers),
            (20_001, Leaves(Ordinary)),
        ]);
        assert!(kept.is_empty(), "nothing is under way");
    }

    #[test]
    fn a_silence_lasts_while_nobody_asks_and_the_next_one_is_the_probe() {
        let kept = after_the_first(&[
            (5_000, Leaves(Ordinary)),
            (3_600_000, Asks(Some(Probe))),
            (3_600_000, Asks(None)),
            (3_600_010, Answers),
            (3_600_010, Leaves(Probe)),
            (3_600_010, Asks(Some(Ordinary))),
        ]);
        assert_eq!(kept, [GROUP]);
    }

    #[test]
    fn a_client_that_left_soon_and_a_long_rest_are_no_silence() {
        let kept = after_the_first(&[
            (10, Leaves(Ordinary)),
            (60_000, Asks(Some(Ordinary))),
            (60_000, Asks(Some(Ordinary))),
            (60_010, Answers),
            (60_010, Leaves(Ordinary)),
            (60_010, Answers),
            (60_010, Leaves(Ordinary)),
        ]);
        assert!(kept.is_empty());
    }

    #[test]
    fn impatient_clients_that_follow_each_other_without_a_break_are_one_silence() {
        let mut events = Vec::new();
        for step in 1..10 {
            events.extend([(step * 500, Asks(Some(Ordinary))), (step * 500, Leaves(Ordinary))]);
        }
        events.extend([(5_000, Asks(Some(Probe))), (5_000, Asks(None))]);
        assert_eq!(after_the_first(&events), [GROUP]);
    }

    #[test]
    fn an_answer_lets_those_who_still_wait_begin_anew() {
        after_the_first(&[
            (0, Asks(Some(Ordinary))),
            (4_000, Answers),
            (4_000, Leaves(Ordinary)),
            (8_999, Asks(Some(Ordinary))),
            (9_000, Asks(Some(Probe))),
            (9_000, Asks(None)),
        ]);
    }

    #[test]
    fn groups_do_not_touch_each_other() {
        let late = u64::try_from(SILENT_AFTER.as_millis()).unwrap();
        let kept = check(&[
            (0, GROUP, Asks(Some(Ordinary))),
            (late, GROUP, Asks(Some(Probe))),
            (late, GROUP, Asks(None)),
            (late, OTHER, Asks(Some(Ordinary))),
            (late, OTHER, Asks(Some(Ordinary))),
            (late, OTHER, Answers),
            (late, GROUP, Asks(None)),
            (late, OTHER, Leaves(Ordinary)),
            (late, OTHER, Leaves(Ordinary)),
        ]);
        assert_eq!(kept, [GROUP]);
    }
}
