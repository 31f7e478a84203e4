//! A gate with its waits: on a clock that the tests move, on one thread.

use super::{BURST_WAIT_MAX, CALM_AFTER, FRESH, Gate, Patience, STANDS_AFTER};
use crate::admission::Who;
use crate::admission::places::{Refusal, Sizes};
use crate::metrics;
use daemon::clock::ManualClock;
use daemon::metrics::Metrics;
use futures_util::FutureExt;
use model::id::UserId;
use model::time::WallTime;
use std::sync::Arc;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(1);

fn gate(in_service_max: usize, held_max: usize) -> (Gate, ManualClock, Metrics) {
    let (clock, registry) = (ManualClock::new(WallTime(0)), Metrics::new());
    registry.define(metrics::ALL);
    let sizes = Sizes {
        in_service_max,
        held_max,
        is_service_shared: true,
    };
    let patience = Patience {
        wait_max: PATIENCE,
        service_target: Some(Duration::from_millis(200)),
    };
    let gate = Gate::new("requests", sizes, patience, Arc::new(clock.clone()), &registry);
    (gate, clock, registry)
}

fn user(number: u64) -> Who {
    Who::User(UserId(number))
}

#[tokio::test]
async fn who_waits_is_let_in_when_somebody_leaves() {
    let (gate, _, registry) = gate(1, 4);
    let first = gate.enter(user(1)).await.ok().unwrap();
    let mut second = std::pin::pin!(gate.enter(user(2)));
    assert!(second.as_mut().now_or_never().is_none());
    let shown = registry.encode();
    assert!(
        shown.contains("gateway_requests_waiting{gate=\"requests\"} 1"),
        "{shown}"
    );
    drop(first);
    let second = second.now_or_never().unwrap().ok().unwrap();
    let shown = registry.encode();
    assert!(
        shown.contains("gateway_requests_in_service{gate=\"requests\"} 1"),
        "{shown}"
    );
    assert!(
        shown.contains("gateway_requests_admitted_total{gate=\"requests\"} 2"),
        "{shown}"
    );
    drop(second);
    assert!(
        registry
            .encode()
            .contains("gateway_requests_in_service{gate=\"requests\"} 0")
    );
}

#[tokio::test]
async fn who_waits_too_long_is_sent_away_and_takes_no_place_later() {
    let (gate, clock, _) = gate(1, 4);
    let first = gate.enter(user(1)).await.ok().unwrap();
    let mut second = std::pin::pin!(gate.enter(user(2)));
    assert!(second.as_mut().now_or_never().is_none());
    clock.advance(PATIENCE);
    assert_eq!(second.now_or_never().unwrap().err(), Some(Refusal::Late));
    drop(first);
    assert!(gate.enter(user(3)).now_or_never().unwrap().is_ok());
}

/// In the order of arrival each would be served shortly before its client gives up, and all of it would be for nothing.
#[tokio::test]
async fn in_a_queue_that_stands_only_those_are_served_who_came_just_now() {
    let (gate, clock, _) = gate(1, 8);
    let first = gate.enter(user(1)).await.ok().unwrap();
    let mut old = std::pin::pin!(gate.enter(user(2)));
    assert!(old.as_mut().now_or_never().is_none());
    clock.advance(BURST_WAIT_MAX - FRESH);
    let mut late = std::pin::pin!(gate.enter(user(3)));
    assert!(late.as_mut().now_or_never().is_none());
    clock.advance(FRESH);
    // Nobody has waited for too long yet.
    let mut fresh = std::pin::pin!(gate.enter(user(4)));
    assert!(fresh.as_mut().now_or_never().is_none());
    assert!(old.as_mut().now_or_never().is_none());
    clock.advance(FRESH);
    drop(first);
    assert_eq!(old.now_or_never().unwrap().err(), Some(Refusal::Late));
    assert_eq!(late.now_or_never().unwrap().err(), Some(Refusal::Late));
    let fresh = fresh.now_or_never().unwrap().ok().unwrap();
    // The queue was empty for a moment, and not for long: what comes now waits for a shorter time.
    let mut next = std::pin::pin!(gate.enter(user(5)));
    assert!(next.as_mut().now_or_never().is_none());
    clock.advance(STANDS_AFTER);
    drop(fresh);
    let next = next.now_or_never().unwrap().ok().unwrap();
    let mut after_it = std::pin::pin!(gate.enter(user(6)));
    assert!(after_it.as_mut().now_or_never().is_none());
    clock.advance(STANDS_AFTER + FRESH);
    drop(next);
    assert_eq!(after_it.now_or_never().unwrap().err(), Some(Refusal::Late));
}

/// A flush of the stores behind keeps everything back for a moment: whoever is sent away then is denied for nothing.
#[tokio::test]
async fn a_burst_is_waited_out_and_again_when_nobody_was_sent_away_for_a_while() {
    let (gate, clock, _) = gate(1, 8);
    for _ in 0..2 {
        let first = gate.enter(user(1)).now_or_never().unwrap().ok().unwrap();
        let mut burst = std::pin::pin!(gate.enter(user(2)));
        assert!(burst.as_mut().now_or_never().is_none());
        clock.advance(BURST_WAIT_MAX);
        drop(first);
        let first = burst.now_or_never().unwrap().ok().unwrap();
        let mut too_long = std::pin::pin!(gate.enter(user(3)));
        assert!(too_long.as_mut().now_or_never().is_none());
        clock.advance(BURST_WAIT_MAX + FRESH);
        drop(first);
        assert_eq!(too_long.now_or_never().unwrap().err(), Some(Refusal::Late));
        clock.advance(CALM_AFTER);
    }
}

#[tokio::test]
async fn in_a_queue_that_stands_no_more_wait_than_will_be_served_in_time() {
    let (gate, clock, _) = gate(1, 64);
    // A hundred a second, so two in `FRESH`.
    for _ in 0..16 {
        let place = gate.enter(user(1)).now_or_never().unwrap().ok().unwrap();
        clock.advance(Duration::from_millis(10));
        drop(place);
    }
    let first = gate.enter(user(1)).now_or_never().unwrap().ok().unwrap();
    let mut burst: Vec<_> = (2..10).map(|number| Box::pin(gate.enter(user(number)))).collect();
    assert!(burst.iter_mut().all(|wait| wait.as_mut().now_or_never().is_none()));
    clock.advance(BURST_WAIT_MAX + Duration::from_millis(1));
    let mut second = std::pin::pin!(gate.enter(user(10)));
    assert!(second.as_mut().now_or_never().is_none());
    for wait in burst {
        assert_eq!(wait.now_or_never().unwrap().err(), Some(Refusal::Late));
    }
    let mut third = std::pin::pin!(gate.enter(user(11)));
    assert!(third.as_mut().now_or_never().is_none());
    let fourth = gate.enter(user(12)).now_or_never();
    assert_eq!(fourth.unwrap().err(), Some(Refusal::Full));
    drop(first);
    let second = second.now_or_never().unwrap().ok().unwrap();
    drop(second);
    assert!(third.now_or_never().unwrap().is_ok());
}

#[tokio::test]
async fn fewer_are_served_at_once_when_it_takes_too_long_and_the_page_shows_how_many() {
    let (gate, clock, registry) = gate(200, 800);
    for _ in 0..40 {
        let mut held = Vec::new();
        // One more than can be served.
        for number in 0..201 {
            held.extend(gate.enter(user(number)).now_or_never().and_then(Result::ok));
        }
        clock.advance(Duration::from_secs(1));
        drop(held);
    }
    let shown = registry.encode();
    assert!(
        shown.contains("gateway_requests_in_service_max{gate=\"requests\"} 64"),
        "{shown}"
    );
}

#[tokio::test]
async fn a_wait_that_is_dropped_gives_back_what_it_was_given_meanwhile() {
    let (gate, _, _) = gate(1, 8);
    let first = gate.enter(user(1)).await.ok().unwrap();
    {
        let mut dropped_early = std::pin::pin!(gate.enter(user(2)));
        assert!(dropped_early.as_mut().now_or_never().is_none());
    }
    let mut third = std::pin::pin!(gate.enter(user(3)));
    {
        let mut called_and_dropped = std::pin::pin!(gate.enter(user(4)));
        assert!(called_and_dropped.as_mut().now_or_never().is_none());
        assert!(third.as_mut().now_or_never().is_none());
        drop(first);
    }
    assert!(third.now_or_never().unwrap().is_ok());
}

#[tokio::test]
async fn a_seat_is_lent_and_taken_back_and_nothing_more_after_its_place_was_left() {
    let (gate, _, _) = gate(1, 8);
    let first = gate.enter(user(1)).await.ok().unwrap();
    let seat = first.seat();
    seat.lend();
    seat.lend();
    let second = gate.enter(user(2)).now_or_never().unwrap().ok().unwrap();
    seat.resume();
    assert!(gate.enter_now(user(3)).is_err(), "two are in service, one too many");
    drop(second);
    assert!(gate.enter_now(user(3)).is_err());
    drop(first);
    seat.lend();
    seat.resume();
    let third = gate.enter_now(user(3)).ok().unwrap();
    assert_eq!(gate.enter_now(user(3)).err(), Some(Refusal::Full));
    drop(third);
}

#[test]
fn a_share_is_429_and_all_else_503() {
    let status = |refusal: Refusal| crate::http::problem::status_of(&refusal.failure()).as_u16();
    assert_eq!(status(Refusal::Share), 429);
    assert_eq!(status(Refusal::Full), 503);
    assert_eq!(status(Refusal::Late), 503);
}
