//! Bodies that are cut, stall, or are dropped midway: nothing is committed, and sessions do not outlive them. Bodies whose token ends, or
//! of whose token nobody can be asked.

use super::wire::{Line, Reply, chunk, noise};
use super::world::{DEADLINE, Wishes, World};
use crate::drive::tree;
use crate::drive::upload::UploadOrder;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use model::limits::BODY_PATIENCE;
use protocol::metadata::upload::UploadTarget;
use std::time::Duration;

const MIB: usize = 1 << 20;
const LINE: &str = "POST /api/v1/files/upload?uploadType=media&path=/f";

/// Moves the clock until the answer is there: at most a few patiences, since a body may be asked for just before a move.
async fn wait_out(world: &World, sender: &mut Line) -> Vec<u8> {
    let read = sender.some();
    tokio::pin!(read);
    for _ in 0..200 {
        if let Ok(bytes) = tokio::time::timeout(Duration::from_millis(50), &mut read).await {
            return bytes;
        }
        world.clock.advance(BODY_PATIENCE / 2);
    }
    panic!("a stalled body was waited for without end");
}

#[tokio::test]
async fn a_sender_that_falls_silent_is_refused_wherever_it_stopped() {
    let world = World::start().await;
    let content = noise(1, 20 * MIB);
    // Before the first byte, in the first block, between stripes, and when a session holds rows already.
    for sent in [0, 1000, 5 * MIB, 18 * MIB] {
        let mut sender = Line::open(world.address()).await;
        let declared = format!("Content-Length: {}\r\n", content.len());
        sender.send(&world.with_token(LINE, &declared, &content[..sent])).await;
        Reply::read(&wait_out(&world, &mut sender).await).refused(408, "body_stalled");
        assert!(!world.has("/f").await, "{sent} bytes were committed");
        assert_eq!(world.usage().await.charged_bytes, 0, "after {sent} bytes");
    }
    assert!(world.commands().contains(&"AbortSession"));
    assert!(!world.commands().contains(&"CommitUpload"));
}

/// What is known of a token is a second old at most; a little later the upload has ended, silent or not.
#[tokio::test]
async fn an_upload_ends_soon_after_the_revocation_of_its_token() {
    let world = World::start().await;
    let content = noise(3, 20 * MIB);
    for is_silent in [true, false] {
        let token = world.token_for(Duration::from_secs(3600)).await;
        let mut sender = Line::open(world.address()).await;
        let length = content.len();
        let head = format!(
            "{LINE} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n"
        );
        let sessions = |commands: &[&str], name| commands.iter().filter(|command| **command == name).count();
        let appended = sessions(&world.commands(), "AppendRows");
        sender.send(&[head.as_bytes(), &content[..18 * MIB]].concat()).await;
        world
            .until(|commands| sessions(commands, "AppendRows") > appended)
            .await;
        // As long as it lives the upload goes on, whatever the clock says.
        world.clock.advance(Duration::from_secs(2));
        sender.send(&content[18 * MIB..18 * MIB + 1000]).await;
        world.revoke(&token);
        if !is_silent {
            for at in 0..12 {
                world.clock.advance(Duration::from_millis(125));
                let from = 18 * MIB + 1000 * (at + 1);
                sender.send_what_goes(&content[from..from + 1000]).await;
            }
        }
        // Who talks has moved the clock already.
        let span = Duration::from_millis(if is_silent { 1500 } else { 0 });
        let answer = world.within(span, sender.some()).await;
        Reply::read(&answer).refused(401, "token_unknown");
        let ended = usize::from(!is_silent) + 1;
        world
            .until(|commands| sessions(commands, "AbortSession") == ended)
            .await;
        assert!(!world.has("/f").await);
        assert_eq!(world.usage().await.charged_bytes, 0);
    }
}

#[tokio::test]
async fn an_upload_that_takes_longer_than_the_hour_of_its_token_goes_on() {
    let world = World::start().await;
    let content = noise(5, 20 * MIB);
    let token = world.token_for(Duration::from_secs(3)).await;
    let mut sender = Line::open(world.address()).await;
    let length = content.len();
    let head = format!(
        "{LINE} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n"
    );
    sender.send(&[head.as_bytes(), &content[..18 * MIB]].concat()).await;
    world.until(|commands| commands.contains(&"AppendRows")).await;
    // Looks before its end, at it and behind it.
    for at in 0..40 {
        world.clock.advance(Duration::from_millis(250));
        let from = 18 * MIB + 1000 * at;
        sender.send(&content[from..from + 1000]).await;
    }
    sender.send(&content[18 * MIB + 40_000..]).await;
    let reply = Reply::read(&sender.rest().await);
    assert_eq!(reply.status, 201);
    assert!(world.has("/f").await);
}

/// What is known of a token is old soon, and asking takes as long as it may: a piece waits for a part of that, those behind it do not.
#[tokio::test]
async fn a_download_goes_on_when_nobody_can_be_asked_about_its_token() {
    // More than sockets hold.
    let content = noise(4, 32 * MIB);
    let world = World::start().await;
    let declared = format!("Content-Length: {}\r\n", content.len());
    let made = world.request(LINE, &declared, &content).await;
    let made: serde_json::Value = serde_json::from_slice(&made.body).unwrap();
    let line = format!("GET /api/v1/files/{}/content", made["entry"]["id"].as_str().unwrap());
    let mut receiver = Line::open(world.address()).await;
    receiver.send(&world.with_token(&line, "", b"")).await;
    let mut received = receiver.some().await;
    world.cut_metadata();
    world.clock.advance(Duration::from_secs(2));
    let rest = receiver.rest();
    tokio::pin!(rest);
    let mut came = None;
    // In all a third of the time after which a question to a group is given up.
    for _ in 0..20 {
        if let Ok(bytes) = tokio::time::timeout(Duration::from_millis(50), &mut rest).await {
            came = Some(bytes);
            break;
        }
        world.clock.advance(Duration::from_millis(250));
    }
    received.extend(match came {
        Some(bytes) => bytes,
        None => rest.await,
    });
    assert!(received.starts_with(b"HTTP/1.1 200 ") && received.ends_with(&content));
}

#[tokio::test]
async fn a_form_and_a_json_body_that_stall_are_refused_too() {
    let world = World::start().await;
    let mut sender = Line::open(world.address()).await;
    let headers = "Content-Type: application/json\r\nContent-Length: 50\r\n";
    sender
        .send(&world.with_token("POST /api/v1/metadata", headers, b"{\"type\":"))
        .await;
    Reply::read(&wait_out(&world, &mut sender).await).refused(408, "body_stalled");
    let mut sender = Line::open(world.address()).await;
    let headers = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 50\r\n";
    sender
        .send(&world.with_token("POST /api/v1/auth/token", headers, b"grant_type="))
        .await;
    let reply = Reply::read(&wait_out(&world, &mut sender).await);
    let problem: api::problem::TokenProblem = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!((reply.status, problem.error.as_str()), (408, "invalid_request"));
}

#[tokio::test]
async fn a_connection_that_is_reset_in_a_session_leaves_nothing() {
    let world = World::start().await;
    let content = noise(2, 20 * MIB);
    let mut sender = Line::open(world.address()).await;
    let declared = format!("Content-Length: {}\r\n", content.len());
    sender
        .send(&world.with_token(LINE, &declared, &content[..18 * MIB]))
        .await;
    world.until(|commands| commands.contains(&"AppendRows")).await;
    assert!(world.usage().await.charged_bytes > 0, "what a session holds counts");
    sender.reset();
    world.until(|commands| commands.contains(&"AbortSession")).await;
    assert_eq!(world.usage().await.charged_bytes, 0);
    assert!(!world.has("/f").await);
    let again = world.request(LINE, &declared, &content).await;
    assert_eq!(again.status, 201, "the same upload works right after");
    assert_eq!(world.usage().await.charged_bytes, content.len() as u64);
}

/// Of a new file `/f`, of unknown length.
pub(super) fn order() -> UploadOrder {
    UploadOrder {
        target: UploadTarget::Place {
            place: tree::place(Some("/f"), None, None).unwrap(),
            with_parents: false,
        },
        base_version: None,
        declared_bytes: None,
        is_body_held_back: false,
        content_type: None,
        key: None,
    }
}

/// An upload of 20 MiB, more than is written without a session, whose body then has no end.
async fn endless(world: &World) {
    let core = world.core();
    let content = stream::iter((0..20).map(|seed| Ok(Bytes::from(noise(seed, MIB)))));
    let body = content.chain(stream::pending()).boxed();
    let admitted = core.admit(None).unwrap();
    drop(core.upload(&world.caller, admitted, order(), body).await);
    panic!("the body has no end");
}

/// An HTTP/2 stream that is reset drops its request wherever that stands.
#[tokio::test]
async fn an_upload_that_is_dropped_ends_its_session_behind_it() {
    let world = World::start().await;
    tokio::select! {
        () = endless(&world) => {}
        () = world.until(|commands| commands.contains(&"AppendRows")) => {}
    }
    world.until(|commands| commands.last() == Some(&"AbortSession")).await;
    assert_eq!(world.usage().await.charged_bytes, 0);
}

/// An end that overtook the opening would find no session, and what opens behind it would hold its quota for its whole age.
#[tokio::test]
async fn an_upload_that_is_dropped_while_its_session_opens_ends_it_behind_the_opening() {
    let world = World::start().await;
    let held = world.hold_opening().await;
    tokio::select! {
        () = endless(&world) => {}
        () = world.opening() => {}
    }
    // Long enough for an end that waits for nothing: it shows as the first command below.
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(held);
    world.until(|commands| commands.contains(&"OpenSession")).await;
    world.until(|commands| commands.last() == Some(&"AbortSession")).await;
    let commands = world.commands();
    let ends = commands.iter().filter(|command| **command == "AbortSession").count();
    assert_eq!((commands[0], ends), ("OpenSession", 1), "{commands:?}");
    assert_eq!(world.usage().await.charged_bytes, 0);
}

/// The budget's first share is given back with the request, however it ends.
#[tokio::test]
async fn without_budget_an_upload_is_refused_before_its_body_and_told_when_to_come_again() {
    let world = World::start_with(Wishes {
        upload_budget_bytes: 16 << 20,
        ..Wishes::default()
    })
    .await;
    let mut first = Line::open(world.address()).await;
    first
        .send(&world.with_token(LINE, "Transfer-Encoding: chunked\r\n", &chunk(b"x")))
        .await;
    let head = world.with_token(LINE, "Transfer-Encoding: chunked\r\n", b"");
    let refused = async {
        loop {
            let mut second = Line::open(world.address()).await;
            second.send(&head).await;
            // Until the first was admitted, this one is, and then waits for its body.
            if let Ok(bytes) = tokio::time::timeout(Duration::from_millis(100), second.some()).await {
                return Reply::read(&bytes);
            }
            second.reset();
        }
    };
    let refused = tokio::time::timeout(DEADLINE, refused).await.unwrap();
    refused.refused(503, "too_busy");
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=3).contains(&seconds), "{seconds}");
    first.reset();
    let taken = async {
        loop {
            let reply = world.request(LINE, "Content-Length: 1\r\n", b"x").await;
            if reply.status == 201 {
                return;
            }
            reply.refused(503, "too_busy");
        }
    };
    tokio::time::timeout(DEADLINE, taken).await.unwrap();
}

/// Closing at once would reset the connection, and the answer on its way would be lost with it.
#[tokio::test]
async fn a_sender_that_reads_only_when_it_has_sent_all_still_gets_its_refusal() {
    let world = World::start().await;
    let body = noise(5, 32 * MIB);
    let head = format!(
        "{LINE} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer no.token\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    for _ in 0..5 {
        let mut sender = Line::open(world.address()).await;
        sender.send(head.as_bytes()).await;
        // Most clients give up where a write fails, and never look for an answer.
        sender.send(&body).await;
        let reply = Reply::read(&sender.rest().await);
        reply.refused(401, "token_malformed");
        assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
    }
}

#[tokio::test]
async fn who_waits_to_be_asked_for_a_body_is_asked_only_when_it_is_wanted() {
    let world = World::start().await;
    let headers = "Content-Length: 5\r\nExpect: 100-continue\r\n";
    let mut sender = Line::open(world.address()).await;
    sender.send(&world.with_token(LINE, headers, b"")).await;
    assert_eq!(sender.some().await, b"HTTP/1.1 100 Continue\r\n\r\n");
    sender.send(b"hello").await;
    assert_eq!(Reply::read(&sender.rest().await).status, 201);
    // The name is taken now, which is said instead of asking for the body.
    let mut sender = Line::open(world.address()).await;
    sender.send(&world.with_token(LINE, headers, b"")).await;
    let answer = sender.rest().await;
    assert!(
        answer.starts_with(b"HTTP/1.1 409 "),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    assert!(
        Reply::read(&answer)
            .refused(409, "name_taken")
            .fields
            .contains_key("existing")
    );
}
