//! Which groups have been silent for so long that requests to them are refused at once: the rule alone, events in and decisions out.
//!
//! A request to a group without a majority would keep its place in this gateway until its own deadline, and a few users of one such
//! group would leave none for the users of all others. So once requests have been under way to a group for `SILENT_AFTER` without a
//! break and without an answer, further ones are refused, but for a scout now and then that finds out whether the group is back.
//! Invariants: an answer ends a silence at once, and so does a span as long without any request: it says nothing of now; requests that
//! are under way are never ended; of those who ask, one a `SCOUT_EVERY` is let through at least.
//! Not here: what counts as an answer (`metadata_client`), who gives a place back (`passage`).

use model::id::GroupId;
use std::collections::BTreeMap;
use std::time::Duration;

/// An election is over after 1.7 s where replicas are near each other, and within 5 s where they are far: who comes in the middle of
/// one is not refused. A third of what a request waits in all, so the requests of one group fill no more than these seconds can.
const SILENT_AFTER: Duration = Duration::from_secs(5);
/// A scout that has been away for so long may be at a replica that answers nobody while another leads: then the next one may go. A
/// guess; fifteen of them at most are under way.
const SCOUT_EVERY: Duration = Duration::from_secs(1);

/// A request's leave to go to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    /// As any other.
    Ordinary,
    /// To a silent group, to see whether it is back.
    Scout,
}

#[derive(Debug)]
struct Unanswered {
    /// The last answer, or the first request after none was under way.
    since: Duration,
    under_way: usize,
    scouts: usize,
    /// When the last scout went.
    scouted: Duration,
    /// Since when nothing is under way.
    left: Option<Duration>,
}

impl Unanswered {
    fn is_silent(&self, now: Duration) -> bool {
        let is_long_ago = |then: Duration| now.saturating_sub(then) >= SILENT_AFTER;
        is_long_ago(self.since) && !self.left.is_some_and(is_long_ago)
    }
}

/// The groups with requests under way, and those that are silent.
#[derive(Debug, Default)]
pub(super) struct Silences {
    groups: BTreeMap<GroupId, Unanswered>,
}

impl Silences {
    /// A request to `group` comes; `None` when it is refused. Whoever was let through says when it is done, in whatever way.
    pub(super) fn enter(&mut self, group: GroupId, now: Duration) -> Option<Leave> {
        let unanswered = self.groups.entry(group).or_insert(Unanswered {
            since: now,
            under_way: 0,
            scouts: 0,
            scouted: now,
            left: None,
        });
        let is_silent = unanswered.is_silent(now);
        if is_silent && unanswered.scouts > 0 && now.saturating_sub(unanswered.scouted) < SCOUT_EVERY {
            return None;
        }
        if unanswered.under_way == 0 && !is_silent {
            unanswered.since = now;
        }
        unanswered.left = None;
        unanswered.under_way += 1;
        if !is_silent {
            return Some(Leave::Ordinary);
        }
        unanswered.scouts += 1;
        unanswered.scouted = now;
        Some(Leave::Scout)
    }

    /// The group answered one of the requests that are under way.
    pub(super) fn note_answer(&mut self, group: GroupId, now: Duration) {
        let unanswered = self.groups.get_mut(&group);
        unanswered
            .expect("a group with requests under way is kept in mind")
            .since = now;
    }

    /// A request that was let through is done, or nobody waits for it any more.
    pub(super) fn end(&mut self, group: GroupId, leave: Leave, now: Duration) {
        let unanswered = self.groups.get_mut(&group);
        let unanswered = unanswered.expect("a group with requests under way is kept in mind");
        assert!(unanswered.under_way > 0, "whoever ends was let through");
        unanswered.under_way -= 1;
        if leave == Leave::Scout {
            unanswered.scouts -= 1;
        }
        if unanswered.under_way > 0 {
            return;
        }
        if unanswered.is_silent(now) {
            unanswered.left = Some(now);
        } else {
            // Clients that left sooner have proven nothing.
            self.groups.remove(&group);
        }
    }

    /// How many groups are silent.
    pub(super) fn silent(&self, now: Duration) -> usize {
        let silent = self.groups.values().filter(|unanswered| unanswered.is_silent(now));
        silent.count()
    }
}

#[cfg(test)]
mod tests {
    use super::{Leave, SILENT_AFTER, Silences};
    use model::id::GroupId;
    use std::time::Duration;

    const GROUP: GroupId = GroupId(1);
    const OTHER: GroupId = GroupId(2);

    /// What happens to a group.
    #[derive(Clone, Copy, Debug)]
    enum Event {
        /// A request comes, and this becomes of it.
        Asks(Option<Leave>),
        Answers,
        Ends(Leave),
        /// So many groups are silent, this one or others.
        Silent(usize),
    }
    use Event::{Answers, Asks, Ends, Silent};
    use Leave::{Ordinary, Scout};

    impl Silences {
        fn check(&self, now: Duration) {
            for (group, unanswered) in &self.groups {
                assert!(unanswered.since <= now, "{group:?}: {unanswered:?}");
                assert!(unanswered.scouts <= unanswered.under_way, "{group:?}: {unanswered:?}");
                assert_eq!(
                    unanswered.left.is_some(),
                    unanswered.under_way == 0,
                    "{group:?}: {unanswered:?}"
                );
            }
        }
    }

    /// Events with the millisecond of each; returns what is kept in mind afterwards.
    fn check(events: &[(u64, GroupId, Event)]) -> Vec<GroupId> {
        let mut silences = Silences::default();
        for (at, (ms, group, event)) in events.iter().enumerate() {
            let now = Duration::from_millis(*ms);
            match *event {
                Asks(expected) => assert_eq!(silences.enter(*group, now), expected, "event {at} of {events:?}"),
                Answers => silences.note_answer(*group, now),
                Ends(leave) => silences.end(*group, leave, now),
                Silent(expected) => assert_eq!(silences.silent(now), expected, "event {at} of {events:?}"),
            }
            silences.check(now);
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
            [(ms, Answers), (ms, Ends(Ordinary)), (ms, Asks(Some(Ordinary)))]
        }));
        assert_eq!(after_the_first(&events), [GROUP]);
    }

    #[test]
    fn a_silent_group_is_asked_by_scouts_alone_until_it_answers() {
        let kept = after_the_first(&[
            (4_999, Asks(Some(Ordinary))),
            (4_999, Silent(0)),
            (5_000, Silent(1)),
            (5_000, Asks(Some(Scout))),
            (5_000, Asks(None)),
            // Others that give up make no room for a scout.
            (5_900, Ends(Ordinary)),
            (5_900, Asks(None)),
            // The scout's client has gone.
            (5_910, Ends(Scout)),
            (5_920, Asks(Some(Scout))),
            (6_919, Asks(None)),
            // It may be somewhere where nobody answers.
            (6_920, Asks(Some(Scout))),
            (6_920, Asks(None)),
            (7_000, Ends(Scout)),
            (7_000, Asks(None)),
            (19_500, Asks(Some(Scout))),
            (19_500, Ends(Scout)),
            (19_999, Ends(Ordinary)),
            (19_999, Asks(None)),
            (20_000, Silent(1)),
            (20_000, Answers),
            (20_000, Silent(0)),
            (20_000, Asks(Some(Ordinary))),
            (20_000, Ends(Scout)),
            (20_000, Asks(Some(Ordinary))),
            (20_000, Ends(Ordinary)),
            (20_001, Answers),
            (20_001, Ends(Ordinary)),
        ]);
        assert!(kept.is_empty(), "nothing is under way");
    }

    #[test]
    fn while_nobody_asks_a_silence_lasts_a_while_and_no_longer() {
        let kept = after_the_first(&[
            (6_000, Ends(Ordinary)),
            (10_999, Silent(1)),
            (10_999, Asks(Some(Scout))),
            (10_999, Asks(None)),
            (11_500, Ends(Scout)),
            (16_499, Silent(1)),
            (16_500, Silent(0)),
            // Those of the next morning.
            (16_500, Asks(Some(Ordinary))),
            (16_500, Asks(Some(Ordinary))),
            (21_499, Asks(Some(Ordinary))),
            (21_500, Asks(Some(Scout))),
            (21_500, Asks(None)),
        ]);
        assert_eq!(kept, [GROUP]);
    }

    #[test]
    fn a_client_that_left_soon_and_a_long_rest_are_no_silence() {
        let kept = after_the_first(&[
            (10, Ends(Ordinary)),
            (60_000, Silent(0)),
            (60_000, Asks(Some(Ordinary))),
            (60_000, Asks(Some(Ordinary))),
            (60_010, Answers),
            (60_010, Ends(Ordinary)),
            (60_010, Answers),
            (60_010, Ends(Ordinary)),
        ]);
        assert!(kept.is_empty());
    }

    #[test]
    fn impatient_clients_that_follow_each_other_without_a_break_are_one_silence() {
        let mut events = Vec::new();
        for step in 1..10 {
            events.extend([(step * 500, Asks(Some(Ordinary))), (step * 500, Ends(Ordinary))]);
        }
        events.extend([(5_000, Asks(Some(Scout))), (5_000, Asks(None))]);
        assert_eq!(after_the_first(&events), [GROUP]);
    }

    #[test]
    fn an_answer_lets_those_who_still_wait_begin_anew() {
        after_the_first(&[
            (0, Asks(Some(Ordinary))),
            (4_000, Answers),
            (4_000, Ends(Ordinary)),
            (8_999, Asks(Some(Ordinary))),
            (9_000, Asks(Some(Scout))),
            (9_000, Asks(None)),
        ]);
    }

    #[test]
    fn groups_do_not_touch_each_other() {
        let late = u64::try_from(SILENT_AFTER.as_millis()).unwrap();
        let kept = check(&[
            (0, GROUP, Asks(Some(Ordinary))),
            (late, GROUP, Asks(Some(Scout))),
            (late, GROUP, Asks(None)),
            (late, OTHER, Asks(Some(Ordinary))),
            (late, OTHER, Asks(Some(Ordinary))),
            (late, OTHER, Answers),
            (late, OTHER, Silent(1)),
            (late, GROUP, Asks(None)),
            (late, OTHER, Ends(Ordinary)),
            (late, OTHER, Ends(Ordinary)),
        ]);
        assert_eq!(kept, [GROUP]);
    }
}
