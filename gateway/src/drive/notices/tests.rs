//! Who is woken by what, and what is bounded.

use super::{LINGER, Notices, PollLimits, Ticket, WakeUp};
use daemon::metrics::Metrics;
use futures_util::FutureExt;
use model::id::{DriveId, GroupId, Incarnation, UserId};
use protocol::metadata::drive::FeedPosition;
use protocol::metadata::watch::MovedScope;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

const GROUP: GroupId = GroupId(1);
const NOW: Duration = Duration::from_secs(7);

fn place(drive: u64, sequence: u64) -> FeedPosition {
    FeedPosition {
        scope: DriveId(drive).root(),
        incarnation: Incarnation(1),
        sequence,
    }
}

fn at(drive: u64, sequence: u64) -> [(FeedPosition, GroupId); 1] {
    [(place(drive, sequence), GROUP)]
}

fn moved(drive: u64, sequence: u64) -> MovedScope {
    let scope = DriveId(drive).root();
    MovedScope { scope, sequence }
}

fn notices(polls_max: usize, polls_per_user_max: usize) -> (Arc<Notices>, Metrics) {
    let metrics = Metrics::new();
    let limits = PollLimits {
        polls_max,
        polls_per_user_max,
    };
    (Arc::new(Notices::new(limits, &metrics)), metrics)
}

#[test]
fn a_poll_is_woken_by_what_moves_its_scope_past_its_place_and_by_nothing_else() {
    let (notices, _) = notices(10, 10);
    let ticket = notices.enter((UserId(1), GROUP), &at(1, 5)).unwrap();
    assert_eq!(ticket.woken().now_or_never(), None);
    notices.moved(&[moved(2, 9), moved(1, 5)], NOW);
    assert_eq!(ticket.woken().now_or_never(), None);
    notices.moved(&[moved(1, 6)], NOW);
    let told = WakeUp {
        crowd: 1,
        at: Some(NOW),
    };
    assert_eq!(ticket.woken().now_or_never(), Some(told));
    // Before it is armed again it stays woken, so that a wake-up between two looks is not lost.
    assert_eq!(ticket.woken().now_or_never(), Some(told));
    ticket.arm(&[place(1, 6)]);
    assert_eq!(ticket.woken().now_or_never(), None);
    ticket.arm(&[place(1, 5)]);
    assert_eq!(
        ticket.woken().now_or_never(),
        None,
        "nothing was compared, so the end is not known"
    );
    notices.compared(&[place(1, 6)], NOW);
    assert_eq!(ticket.woken().now_or_never(), Some(told));
}

#[test]
fn who_enters_behind_a_known_end_is_woken_at_once() {
    let (notices, _) = notices(10, 10);
    let first = notices.enter((UserId(1), GROUP), &at(1, 5)).unwrap();
    notices.compared(&[place(1, 5)], NOW);
    assert_eq!(first.end_of(DriveId(1).root()), Some((Incarnation(1), 5)));
    notices.moved(&[moved(1, 7)], NOW);
    notices.compared(&[place(1, 6)], NOW);
    assert_eq!(
        first.end_of(DriveId(1).root()),
        Some((Incarnation(1), 7)),
        "an end never goes back"
    );
    let late = notices.enter((UserId(1), GROUP), &at(1, 6)).unwrap();
    let known_before = WakeUp { crowd: 1, at: None };
    assert_eq!(late.woken().now_or_never(), Some(known_before));
    let present = notices.enter((UserId(1), GROUP), &at(1, 7)).unwrap();
    assert_eq!(present.woken().now_or_never(), None);
}

#[test]
fn a_poll_of_many_scopes_is_woken_by_any_of_them_and_leaves_all() {
    let (notices, metrics) = notices(1_000, 10);
    let places: Vec<_> = (1..=128).map(|drive| (place(drive, 5), GROUP)).collect();
    let ticket = notices.enter((UserId(1), GROUP), &places).unwrap();
    let other = notices.enter((UserId(2), GROUP), &at(77, 5)).unwrap();
    notices.moved(&[moved(77, 6)], NOW);
    let crowd = |ticket: &Ticket| ticket.woken().now_or_never().map(|told| told.crowd);
    assert_eq!(crowd(&ticket), Some(2), "both were woken together");
    assert_eq!(crowd(&other), Some(2));
    drop(ticket);
    let after = notices.enter((UserId(3), GROUP), &at(1, 5)).unwrap();
    notices.moved(&[moved(1, 6)], NOW);
    assert_eq!(
        crowd(&after),
        Some(1),
        "the row is used again and belongs to nobody else"
    );
    drop((other, after));
    assert!(
        metrics.encode().contains("gateway_polls_waiting 0"),
        "{}",
        metrics.encode()
    );
}

#[test]
fn a_poll_is_woken_when_its_users_tokens_may_have_ended_until_it_trusts_again() {
    let (notices, _) = notices(10, 10);
    let own = notices.enter((UserId(1), GROUP), &at(1, 5)).unwrap();
    let second = notices.enter((UserId(1), GROUP), &at(2, 5)).unwrap();
    let elsewhere = notices.enter((UserId(2), GroupId(2)), &at(1, 5)).unwrap();
    let woken = |ticket: &Ticket| ticket.woken().now_or_never();
    let doubted = WakeUp { crowd: 1, at: None };
    notices.doubt(&BTreeSet::from([UserId(1), UserId(3)]));
    assert_eq!(
        [woken(&own), woken(&second), woken(&elsewhere)],
        [Some(doubted), Some(doubted), None]
    );
    // To look at the feed is not to look at the token.
    own.arm(&[place(1, 5)]);
    assert_eq!(woken(&own), Some(doubted));
    own.trust();
    assert_eq!(woken(&own), None);
    notices.doubt_all(GroupId(2));
    assert_eq!((woken(&own), woken(&elsewhere)), (None, Some(doubted)));
    // A row that was doubted is nobody else's doubt.
    drop((second, elsewhere));
    let next = notices.enter((UserId(4), GROUP), &at(1, 5)).unwrap();
    assert_eq!(woken(&next), None);
}

#[tokio::test]
async fn the_group_of_a_users_tokens_is_watched_as_well() {
    let (notices, _) = notices(10, 10);
    let tokens = GroupId(2);
    let ticket = notices.enter((UserId(1), tokens), &at(1, 5)).unwrap();
    assert_eq!(
        [notices.next_group().await, notices.next_group().await],
        [GROUP, tokens]
    );
    notices.cover(GROUP, true);
    assert!(!ticket.is_covered() && ticket.covered().now_or_never().is_none());
    assert_eq!([GROUP, tokens].map(|group| notices.is_told(group)), [true, false]);
    notices.cover(tokens, true);
    assert!(ticket.is_covered() && notices.is_told(tokens));
    assert!(!notices.prune(tokens, NOW));
    drop(ticket);
    assert!(notices.prune(tokens, NOW));
    assert!(!notices.is_told(tokens), "nobody watches it any more");
}

#[test]
fn polls_are_bounded_in_all_and_for_each_user() {
    let (notices, _) = notices(3, 2);
    let own = [(); 2].map(|()| notices.enter((UserId(1), GROUP), &at(1, 0)).unwrap());
    let refused = |user| {
        notices
            .enter((UserId(user), GROUP), &at(1, 0))
            .err()
            .map(|failure| failure.code)
    };
    assert_eq!(refused(1).as_deref(), Some("rate_exceeded"));
    let other = notices.enter((UserId(2), GROUP), &at(1, 0)).unwrap();
    assert_eq!(refused(3).as_deref(), Some("too_busy"));
    drop(other);
    assert_eq!(refused(3), None);
    drop(own);
    assert_eq!(refused(1), None);
}

#[tokio::test]
async fn a_group_is_watched_while_it_has_scopes_and_a_while_longer() {
    let (notices, _) = notices(10, 10);
    assert_eq!(notices.next_group().now_or_never(), None);
    let ticket = notices.enter((UserId(1), GROUP), &at(1, 5)).unwrap();
    assert_eq!(notices.next_group().await, GROUP);
    assert_eq!(notices.next_group().now_or_never(), None, "somebody does already");
    assert_eq!(ticket.covered().now_or_never(), None);
    notices.cover(GROUP, true);
    ticket.covered().await;
    let later = |seconds: u64| Duration::from_secs(1_000 + seconds);
    assert!(!notices.prune(GROUP, later(0)));
    drop(ticket);
    assert!(!notices.prune(GROUP, later(1)));
    assert_eq!(notices.scopes_of(GROUP), [DriveId(1).root()]);
    assert!(!notices.prune(GROUP, later(1) + LINGER / 2));
    drop(notices.enter((UserId(1), GROUP), &at(1, 5)).unwrap());
    assert!(!notices.prune(GROUP, later(1) + LINGER), "it was waited for meanwhile");
    assert!(notices.prune(GROUP, later(1) + 2 * LINGER));
    let again = notices.enter((UserId(1), GROUP), &at(1, 5)).unwrap();
    assert_eq!(
        again.end_of(DriveId(1).root()),
        None,
        "what moved meanwhile is not known"
    );
    assert_eq!(notices.next_group().await, GROUP);
}
