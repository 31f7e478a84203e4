//! What a poll was promised to be: how long it waits by each of its forms, what it answers, and who is sent away.
//!
//! The clock is moved by hand, so that a span is exact on any machine. Not here: what wakes a poll (`polls`).

use super::polls::{changes, make, waiting};
use super::wire::{Reply, exchange};
use super::world::{DEADLINE, World};
use daemon::clock::Clock;
use futures_util::future::join;
use serde_json::{Value, json};
use std::time::Duration;

const NAMES: [&str; 2] = ["/api/v1/notifications/poll", "/api/v1/events"];
const STEP: Duration = Duration::from_millis(100);

/// Where a request says how long it waits.
#[derive(Clone, Copy, Debug)]
enum Form {
    Query,
    Header,
    Body,
}

/// Sends a poll of this form.
async fn poll(world: &World, name: &str, form: Form, cursor: &str, seconds: u64) -> Reply {
    match form {
        Form::Query => {
            let line = format!("GET {name}?cursor={cursor}&timeout={seconds}");
            world.request(&line, "", b"").await
        }
        Form::Header => {
            let line = format!("GET {name}?cursor={cursor}");
            world.request(&line, &format!("Timeout: {seconds}\r\n"), b"").await
        }
        Form::Body => {
            let body = json!({"cursor": cursor, "timeout": seconds}).to_string();
            let headers = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
            world.request(&format!("POST {name}"), &headers, body.as_bytes()).await
        }
    }
}

/// Moves the clock by a span in steps that the gateway can follow.
async fn pass(world: &World, span: Duration) {
    let end = world.clock.monotonic() + span;
    while world.clock.monotonic() < end {
        world.clock.advance(STEP);
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
}

fn answer(reply: &Reply) -> Value {
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    serde_json::from_slice(&reply.body).unwrap()
}

/// A poll still waits a step before its end, and at its end it answers without a moment more.
async fn lasts(world: &World, name: &str, form: Form, cursor: &str, seconds: u64) {
    let time = async {
        waiting(world, 1).await;
        pass(world, Duration::from_secs(seconds) - STEP).await;
        let page = world.core().seams.metrics.encode();
        assert!(
            page.contains("gateway_polls_waiting 1\n"),
            "{name} {form:?} ended before {seconds} s"
        );
        world.clock.advance(STEP);
    };
    let both = join(poll(world, name, form, cursor, seconds), time);
    let (reply, ()) = tokio::time::timeout(DEADLINE, both)
        .await
        .unwrap_or_else(|_| panic!("{name} {form:?} waits for longer than {seconds} s"));
    let told = answer(&reply);
    assert_eq!((&told["changes"], &told["cursor"]), (&json!(false), &json!(cursor)));
    for absent in ["event_type", "file_id", "timestamp"] {
        assert!(told.get(absent).is_none(), "{told}");
    }
}

/// shows: I-04, H-API-3
#[tokio::test]
async fn a_poll_waits_exactly_as_long_as_it_was_told_and_then_says_what_came_or_nothing() {
    let world = World::start().await;
    let cursor = changes(&world, "").await.cursor;
    for name in NAMES {
        for form in [Form::Query, Form::Header, Form::Body] {
            for seconds in [1, 60] {
                lasts(&world, name, form, &cursor, seconds).await;
            }
        }
    }
    lasts(&world, NAMES[0], Form::Header, &cursor, 480).await;

    // An event ends it at once, while the clock stands still; fields besides the three that were asked for are allowed.
    let event = async {
        waiting(&world, 1).await;
        make(&world, "/made").await;
    };
    let both = join(poll(&world, NAMES[0], Form::Header, &cursor, 60), event);
    let (reply, ()) = tokio::time::timeout(DEADLINE, both).await.unwrap();
    let told = answer(&reply);
    assert_eq!(told["event_type"], "created");
    assert_eq!(told["file_id"], told["events"][0]["entry"]["id"]);
    let timestamp = told["timestamp"].as_str().unwrap();
    assert!(timestamp.len() >= 20 && timestamp.ends_with('Z'), "{timestamp}");
}

/// shows: I-04
#[tokio::test]
async fn a_poll_without_a_token_that_lives_is_sent_away_at_once_under_either_name() {
    let world = World::start().await;
    let cursor = changes(&world, "").await.cursor;
    let dead = world.token_for(Duration::from_secs(1)).await;
    world.clock.advance(Duration::from_secs(2));
    let mut altered = world.token.clone();
    let last = altered.pop().unwrap();
    altered.push(if last == 'A' { 'B' } else { 'A' });
    let headers = [
        String::new(),
        "Authorization: Bearer\r\n".to_owned(),
        "Authorization: Bearer x\r\n".to_owned(),
        format!("Authorization: Basic {}\r\n", world.token),
        format!("Authorization: Bearer {dead}\r\n"),
        format!("Authorization: Bearer {altered}\r\n"),
    ];
    for name in NAMES {
        for header in &headers {
            let line = format!("GET {name}?cursor={cursor}&timeout=480 HTTP/1.1");
            let head = format!("{line}\r\nHost: x\r\nConnection: close\r\n{header}\r\n");
            // The clock stands still: whoever waited would never be answered.
            let reply = exchange(world.address(), head.as_bytes()).await;
            assert_eq!(
                reply.status,
                401,
                "{name} {header}: {}",
                String::from_utf8_lossy(&reply.body)
            );
            assert!(
                !String::from_utf8_lossy(&reply.body).contains("cursor"),
                "{name} {header}"
            );
        }
    }
}
