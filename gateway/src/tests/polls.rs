//! Polls on a clock that the test moves: what wakes them, what they cost, and what they meet.

use super::wire::{Line, Reply};
use super::world::{Wishes, World};
use crate::auth::token;
use crate::config::{AdmissionLimits, Limits};
use crate::drive::account::TOKEN_REMEMBERED;
use crate::drive::notices::PollLimits;
use crate::metrics;
use api::change::{ChangeKind, ChangesPage, PollAnswer};
use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::id::GroupId;
use model::limits::POLL_WAIT_MAX;
use protocol::frame::Method;
use std::pin::Pin;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const FOLDER: &str = "POST /api/v1/metadata";

pub(super) async fn make(world: &World, path: &str) {
    let body = format!("{{\"type\":\"folder\",\"path\":\"{path}\"}}");
    let headers = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    let reply = world.request(FOLDER, &headers, body.as_bytes()).await;
    assert_eq!(reply.status, 201, "{}", String::from_utf8_lossy(&reply.body));
}

pub(super) async fn changes(world: &World, query: &str) -> ChangesPage {
    let reply = world
        .request(&format!("GET /api/v1/changes/list{query}"), "", b"")
        .await;
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    serde_json::from_slice(&reply.body).unwrap()
}

pub(super) async fn poll(world: &World, cursor: &str, timeout_s: u64) -> Reply {
    let line = format!("GET /api/v1/notifications/poll?cursor={cursor}&timeout={timeout_s}");
    world.request(&line, "", b"").await
}

pub(super) fn told(reply: &Reply) -> PollAnswer {
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    serde_json::from_slice(&reply.body).unwrap()
}

/// Waits until so many polls wait.
pub(super) async fn waiting(world: &World, polls: usize) {
    shown(world, &format!("gateway_polls_waiting {polls}")).await;
}

/// Waits until the metrics have this line.
pub(super) async fn shown(world: &World, line: &str) {
    let wanted = format!("{line}\n");
    let wait = async {
        while !world.core().seams.metrics.encode().contains(&wanted) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let waited = tokio::time::timeout(super::world::DEADLINE, wait).await;
    waited.unwrap_or_else(|_| panic!("`{line}` never comes"));
}

/// shows: US-3.3 side=wakes scale=1/6
#[tokio::test]
async fn a_waiting_poll_is_told_what_changed_and_goes_on_from_there() {
    let world = World::start().await;
    let start = changes(&world, "").await;
    assert!(start.changes.is_empty() && !start.has_more);
    assert_eq!(start.new_start_page_token.as_ref(), Some(&start.cursor));
    let (reply, ()) = world
        .while_time_passes(futures_util::future::join(poll(&world, &start.cursor, 480), async {
            waiting(&world, 1).await;
            make(&world, "/a").await;
        }))
        .await;
    let first = told(&reply);
    assert!(first.changes && first.events.len() == 1, "{first:?}");
    assert_eq!(first.event_type, Some(ChangeKind::Created));
    assert_eq!(first.events[0].entry.as_ref().unwrap().path, "/a");
    make(&world, "/b").await;
    // What came between two polls is there at once.
    let second = told(&world.while_time_passes(poll(&world, &first.cursor, 480)).await);
    let paths: Vec<_> = second
        .events
        .iter()
        .map(|event| event.entry.as_ref().unwrap().path.as_str())
        .collect();
    assert_eq!(paths, ["/b"]);
    // Who ignores events keeps the own cursor and asks by it.
    let all = changes(&world, &format!("?since_token={}", start.cursor)).await;
    assert_eq!(all.changes.len(), 2);
    assert_eq!(all.cursor, second.cursor);
}

/// What woke a poll runs until its answer; whoever comes behind a change that is known waits for nothing.
#[tokio::test]
async fn the_lag_of_a_poll_is_counted_from_the_news_of_a_change_to_the_answer() {
    let world = World::start().await;
    let start = changes(&world, "").await;
    make(&world, "/a").await;
    let first = told(&world.while_time_passes(poll(&world, &start.cursor, 480)).await);
    let lags = world.core().seams.metrics.histogram(&metrics::POLL_LAG);
    let lags = lags.with_label_values::<&str>(&[]);
    let before = lags.get_sample_count();
    let both = futures_util::future::join(poll(&world, &first.cursor, 480), async {
        waiting(&world, 1).await;
        make(&world, "/b").await;
    });
    let (reply, ()) = world.while_time_passes(both).await;
    assert!(told(&reply).changes);
    assert_eq!(lags.get_sample_count(), before + 1);
    let again = told(&world.while_time_passes(poll(&world, &first.cursor, 480)).await);
    assert!(again.changes);
    assert_eq!(lags.get_sample_count(), before + 1);
}

#[tokio::test]
async fn a_poll_that_nothing_wakes_says_so_when_its_time_is_over() {
    let world = World::start().await;
    let start = changes(&world, "").await;
    let begun = world.core().seams.clock.monotonic();
    let reply = world.while_time_passes(poll(&world, &start.cursor, 5)).await;
    let took = world.core().seams.clock.monotonic() - begun;
    let answer = told(&reply);
    assert!(!answer.changes && answer.events.is_empty());
    assert_eq!(answer.cursor, start.cursor);
    assert!(took >= Duration::from_secs(5), "{took:?}");
}

/// Subscribe, compare, wait: once they wait, they cost a call for their group now and then, however many they are. Of a connection there
/// are as many streams as a gateway allows.
///
/// shows: D-2.9 scale=1/2
#[tokio::test]
async fn a_thousand_idle_polls_cause_few_messages() {
    const CONNECTIONS: usize = 5;
    const STREAMS: usize = 200;
    let world = World::start().await;
    let start = changes(&world, "").await;
    // Compares, so that all others know at once that they have to wait.
    let silent = told(&world.while_time_passes(poll(&world, &start.cursor, 1)).await);
    assert!(!silent.changes);
    let (mut answers, mut polls) = (JoinSet::new(), 0);
    for _ in 0..CONNECTIONS {
        let socket = TcpStream::connect(world.address()).await.unwrap();
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(socket))
            .await
            .unwrap();
        tokio::spawn(connection);
        for _ in 0..STREAMS {
            answers.spawn(poll_by_stream(sender.clone(), &world, &start.cursor));
            polls += 1;
            // No more at once than a user may have in service.
            if polls % 20 == 0 {
                waiting(&world, polls).await;
            }
        }
    }
    assert_eq!(polls, 1000);
    let before = world.asked().len();
    for _ in 0..600 {
        world.clock.advance(Duration::from_millis(100));
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
    assert!(answers.try_join_next().is_none(), "a poll was answered without news");
    // Those of the gateway itself too, which looks for the cluster each 5 s and has these without polls.
    let asked = world.asked().split_off(before);
    let of_polls = asked.iter().filter(|method| **method == Method::WatchFeed).count();
    assert!((1..=10).contains(&of_polls), "{of_polls} calls in a minute");
    let known = [Method::WatchFeed, Method::Query, Method::MetadataStatus];
    assert!(asked.iter().all(|method| known.contains(method)), "{asked:?}");
    assert!(asked.len() <= 60 * 5, "{} messages in a minute: {asked:?}", asked.len());
    waiting(&world, 1000).await;
    make(&world, "/a").await;
    for answer in world.while_time_passes(answers.join_all()).await {
        assert!(answer.changes && answer.events.len() == 1, "{answer:?}");
        assert!(answer.backoff.is_some_and(|backoff| (1..=60).contains(&backoff)));
    }
}

/// A poll of eight minutes; its answer.
fn poll_by_stream(
    mut sender: http2::SendRequest<Empty<Bytes>>,
    world: &World,
    cursor: &str,
) -> BoxFuture<'static, PollAnswer> {
    let address = world.address();
    let uri = format!("http://{address}/api/v1/notifications/poll?cursor={cursor}&timeout=480");
    let request = Request::get(uri)
        .header("host", address.to_string())
        .header("authorization", format!("Bearer {}", world.token))
        .body(Empty::new())
        .unwrap();
    Box::pin(async move {
        sender.ready().await.unwrap();
        let response = sender.send_request(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap()
    })
}

#[tokio::test]
async fn a_thousand_polls_that_are_woken_together_are_told_by_one_question() {
    let world = World::start().await;
    let core = world.core();
    let start = changes(&world, "").await;
    let mut polls = Vec::new();
    for _ in 0..1000 {
        polls.push(core.begin_poll(&world.caller, Some(&start.cursor)).await.unwrap());
    }
    for poll in &mut polls {
        poll.woken().await;
        assert!(core.look(&world.caller, poll).await.unwrap().is_none());
    }
    let woken = join_all(polls.iter_mut().map(|poll| poll.woken()));
    make(&world, "/a").await;
    world.while_time_passes(woken).await;
    let before = world.asked().len();
    for poll in &mut polls {
        let read = core.look(&world.caller, poll).await.unwrap().unwrap();
        assert_eq!(read.told.len(), 1);
        assert!(poll.backoff_s(core).is_some_and(|backoff| (1..=60).contains(&backoff)));
    }
    let asked = world.asked().split_off(before);
    assert!(asked.len() <= 10, "{asked:?}");
}

#[tokio::test]
async fn what_changes_while_the_group_cannot_be_heard_is_told_when_it_can() {
    let world = World::start().await;
    let core = world.core();
    let start = changes(&world, "").await;
    let mut poll = core.begin_poll(&world.caller, Some(&start.cursor)).await.unwrap();
    world.while_time_passes(poll.woken()).await;
    assert!(core.look(&world.caller, &mut poll).await.unwrap().is_none());
    for is_lost in [false, true] {
        make(&world, &format!("/cut-{is_lost}")).await;
        world.cut_metadata();
        if is_lost {
            // The replica has started anew meanwhile, and knows nothing of what moved before.
            world.feed().jumped(world.feed().index() + 10);
        }
        world.mend();
        world.while_time_passes(poll.woken()).await;
        let read = core.look(&world.caller, &mut poll).await.unwrap().unwrap();
        assert_eq!(read.told.len(), 1, "{is_lost}");
        let cursor = core.receipts.cursor(world.caller.principal.user, &read.places);
        poll = core.begin_poll(&world.caller, Some(&cursor)).await.unwrap();
    }
}

/// However few requests are held at once.
#[tokio::test]
async fn all_that_are_woken_together_are_told_and_none_is_sent_away() {
    const POLLS: usize = 60;
    let admission = AdmissionLimits {
        requests_in_service_max: 4,
        requests_held_max: 8,
        ..AdmissionLimits::default()
    };
    let world = World::start_with(Wishes {
        admission,
        ..Wishes::default()
    })
    .await;
    let start = changes(&world, "").await;
    let mut lines = Vec::new();
    for number in 1..=POLLS {
        let head = format!("GET /api/v1/events?cursor={}&timeout=480", start.cursor);
        let mut line = Line::open(world.address()).await;
        line.send(&world.with_token(&head, "", b"")).await;
        lines.push(line);
        waiting(&world, number).await;
    }
    make(&world, "/a").await;
    for answer in world
        .while_time_passes(join_all(lines.into_iter().map(Line::rest)))
        .await
    {
        assert!(told(&Reply::read(&answer)).changes);
    }
}

#[tokio::test]
async fn more_polls_than_a_user_or_the_gateway_may_have_are_told_to_come_again() {
    let polls = |polls_max, polls_per_user_max| Wishes {
        limits: Limits {
            polls: PollLimits {
                polls_max,
                polls_per_user_max,
            },
            ..Limits::default()
        },
        ..Wishes::default()
    };
    for (wishes, status, code) in [(polls(1, 9), 503, "too_busy"), (polls(9, 1), 429, "rate_exceeded")] {
        let world = World::start_with(wishes).await;
        let start = changes(&world, "").await;
        let _first = world
            .core()
            .begin_poll(&world.caller, Some(&start.cursor))
            .await
            .unwrap();
        let refused = poll(&world, &start.cursor, 1).await;
        refused.refused(status, code);
        assert!(refused.header("retry-after").is_some());
    }
}

#[tokio::test]
async fn a_token_that_ended_while_its_poll_waited_is_told_nothing() {
    let world = World::start().await;
    let start = changes(&world, "").await;
    let token = world.token_for(Duration::from_secs(30)).await;
    let line = format!("GET /api/v1/events?cursor={}&timeout=480 HTTP/1.1", start.cursor);
    let head = format!("{line}\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n");
    let waited = super::wire::exchange(world.address(), head.as_bytes());
    let work = futures_util::future::join(waited, async {
        waiting(&world, 1).await;
        world.clock.advance(Duration::from_secs(40));
        make(&world, "/secret").await;
    });
    let (reply, ()) = world.while_time_passes(work).await;
    let problem = reply.refused(401, "token_expired");
    assert!(!problem.detail.contains("secret"));
}

/// A poll of the bearer of `token`.
async fn poll_with(world: &World, token: &str, timeout_s: u64) -> Reply {
    let cursor = changes(world, "").await.cursor;
    let line = format!("GET /api/v1/events?cursor={cursor}&timeout={timeout_s} HTTP/1.1");
    let head = format!("{line}\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n");
    super::wire::exchange(world.address(), head.as_bytes()).await
}

/// The same, of eight minutes, which waits by now.
async fn waits_with<'a>(world: &'a World, token: &'a str) -> Pin<Box<impl Future<Output = Reply> + use<'a>>> {
    let mut reply = Box::pin(poll_with(world, token, 480));
    tokio::select! {
        reply = &mut reply => panic!("{reply:?}"),
        () = waiting(world, 1) => {}
    }
    reply
}

#[tokio::test]
async fn a_poll_ends_within_a_second_of_the_revocation_of_its_token() {
    let world = World::start().await;
    // The second is told when nothing is new to this gateway any more.
    for _ in 0..2 {
        let token = world.token_for(Duration::from_secs(3600)).await;
        let mut reply = waits_with(&world, &token).await;
        let other = world.token_for(Duration::from_secs(3600)).await;
        world.revoke(&other);
        world.revoke(&token);
        world
            .within(Duration::from_secs(1), &mut reply)
            .await
            .refused(401, "token_unknown");
    }
}

/// Another token of the same user is no reason: the poll looks and waits on.
#[tokio::test]
async fn a_poll_waits_on_when_another_token_ends_and_when_what_was_told_is_lost() {
    let world = World::start().await;
    let token = world.token_for(Duration::from_secs(3600)).await;
    let mut reply = waits_with(&world, &token).await;
    let other = world.token_for(Duration::from_secs(3600)).await;
    world.revoke(&other);
    world.feed().jumped(world.feed().index() + 10);
    for _ in 0..20 {
        world.clock.advance(Duration::from_millis(100));
        let waits_on = tokio::time::timeout(Duration::from_millis(2), &mut reply).await;
        assert!(waits_on.is_err(), "{waits_on:?}");
    }
    // And is still told of its own, also when it is not told so in so many words.
    world.revoke_unheard(&token);
    world.feed().jumped(world.feed().index() + 10);
    world.while_time_passes(reply).await.refused(401, "token_unknown");
}

#[tokio::test]
async fn a_poll_ends_when_its_token_expires_though_nothing_happens() {
    let world = World::start().await;
    let token = world.token_for(Duration::from_secs(30)).await;
    let reply = world.while_time_passes(poll_with(&world, &token, 480)).await;
    reply.refused(401, "token_expired");
}

/// Polls with a token until the gateway knows it and its group tells of its end.
async fn known(world: &World, life: Duration) -> String {
    let token = world.token_for(life).await;
    // By the first the group is watched, by the second the token is known.
    for timeout_s in [5, 1] {
        let silent = told(&world.while_time_passes(poll_with(world, &token, timeout_s)).await);
        assert!(!silent.changes && world.core().notices.is_told(GroupId(1)));
    }
    token
}

/// Nobody is asked for each poll, and nobody is told more than that nothing came who was not looked at anew.
#[tokio::test]
async fn a_known_token_begins_polls_unasked_and_is_looked_at_before_anything_is_told() {
    let world = World::start().await;
    let token = known(&world, Duration::from_secs(3600)).await;
    world.revoke_unheard(&token);
    world.clock.advance(TOKEN_REMEMBERED);
    let silent = told(&world.while_time_passes(poll_with(&world, &token, 1)).await);
    assert!(!silent.changes && silent.events.is_empty());
    // Without a cursor it would be told where the feed stands.
    let line = "GET /api/v1/events?timeout=1 HTTP/1.1";
    let head = format!("{line}\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n");
    let nowhere = super::wire::exchange(world.address(), head.as_bytes());
    world.while_time_passes(nowhere).await.refused(401, "token_unknown");
    // Refused once, it begins nothing any more.
    let again = world.while_time_passes(poll_with(&world, &token, 1)).await;
    again.refused(401, "token_unknown");

    let token = known(&world, Duration::from_secs(3600)).await;
    world.revoke_unheard(&token);
    world.clock.advance(TOKEN_REMEMBERED);
    let reply = waits_with(&world, &token).await;
    make(&world, "/secret").await;
    let problem = world.while_time_passes(reply).await.refused(401, "token_unknown");
    assert!(!problem.detail.contains("secret"));
}

#[tokio::test]
async fn a_known_token_begins_no_poll_once_its_end_was_told_or_its_time_is_over() {
    let world = World::start().await;
    let token = known(&world, Duration::from_secs(3600)).await;
    world.revoke(&token);
    let reply = world.within(Duration::from_secs(1), poll_with(&world, &token, 480));
    reply.await.refused(401, "token_unknown");

    // What was told of it is lost.
    let token = known(&world, Duration::from_secs(3600)).await;
    world.revoke_unheard(&token);
    world.feed().jumped(world.feed().index() + 10);
    let reply = world.while_time_passes(poll_with(&world, &token, 480)).await;
    reply.refused(401, "token_unknown");

    let token = known(&world, Duration::from_secs(60)).await;
    world.clock.advance(Duration::from_secs(60));
    let reply = world.while_time_passes(poll_with(&world, &token, 480)).await;
    reply.refused(401, "token_expired");
}

#[tokio::test]
async fn a_gateway_that_stops_answers_its_polls_at_once() {
    let world = World::start().await;
    let start = changes(&world, "").await;
    let wait_s = POLL_WAIT_MAX.as_secs();
    let work = futures_util::future::join(poll(&world, &start.cursor, wait_s), async {
        waiting(&world, 1).await;
        world.stop();
    });
    // The clock stands still.
    let (reply, ()) = tokio::time::timeout(super::world::DEADLINE, work).await.unwrap();
    assert!(!told(&reply).changes);
}

#[tokio::test]
async fn a_known_token_is_asked_for_when_its_group_can_no_longer_tell() {
    let world = World::start().await;
    let (user, hash) = token::read(&known(&world, Duration::from_secs(3600)).await).unwrap();
    let ask = || world.core().poll_token_facts(user, hash, 0);
    world.cut_metadata();
    world.clock.advance(TOKEN_REMEMBERED);
    // Nobody is asked, since nobody would answer while the clock stands still.
    assert_eq!(ask().await.unwrap().principal.user, user);
    // The standing call that is under way is not cut; the next one is.
    let longer_than_a_call = world.core().seams.clock.sleep(Duration::from_secs(40));
    world.while_time_passes(longer_than_a_call).await;
    world.while_time_passes(ask()).await.unwrap_err();
}
