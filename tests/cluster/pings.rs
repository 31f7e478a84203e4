//! Polls as a bare sign that something changed: the client asks for the rest, and no content comes to who has not asked for it.
//!
//! What a connection carries is read byte for byte and frame for frame, so that nothing a client library would hide is missed.
//! Not here: what polls carry besides, and whom they wake (`feed`, `pushes`).

use crate::feed::{Replica, change_much};
use crate::search::hex;
use crate::wire::{Sender, head, read, token_of};
use crate::world::World;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use client_sdk::client::Client;
use reqwest::Method;
use serde_json::Value;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const POLL: &str = "/api/v1/notifications/poll";
const PAGE: usize = 5;
/// Ends a test that waits for what never comes.
const GIVE_UP: Duration = Duration::from_secs(60);
const PHRASE: &str = "a content that nobody has asked for yet";

/// Whether anything changed behind the cursor; all else of the answer is thrown away.
async fn ping(world: &World, cursor: &str, timeout_s: u64) -> bool {
    let path = format!("{POLL}?cursor={cursor}&timeout={timeout_s}");
    let answer = world.call(Method::GET, &path, None).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["changes"].as_bool().unwrap()
}

/// shows: ADR-001
#[tokio::test]
async fn who_hears_only_that_something_changed_and_asks_what_misses_nothing() {
    let world = World::start().await;
    let root = world.call(Method::GET, "/api/v1/metadata", None).await.json()["entry"]["id"].clone();
    let root = root.as_str().unwrap();
    let start = world.client.changes(None, 1, true).await.unwrap().cursor;
    let follow = async {
        let (mut replica, mut cursor, mut sequences) = (Replica::default(), start.clone(), Vec::new());
        loop {
            if !ping(&world, &cursor, 60).await {
                continue;
            }
            // A sign takes nothing away: it is given again until the client has gone on.
            assert!(ping(&world, &cursor, 60).await);
            let mut is_end = false;
            loop {
                let page = world.client.changes(Some(&cursor), PAGE, false).await.unwrap();
                for change in &page.changes {
                    sequences.push(change.sequence);
                    replica.take(change);
                    is_end |= change.entry.as_ref().is_some_and(|entry| entry.name == "end");
                }
                cursor = page.cursor;
                if !page.has_more {
                    break;
                }
            }
            if is_end {
                return (replica, cursor, sequences);
            }
        }
    };
    let change = async {
        change_much(&world).await;
        world.client.make_folder("/end").await.unwrap();
    };
    let ((replica, cursor, sequences), ()) = tokio::join!(follow, change);
    assert_eq!(replica.tree(root), world.tree().await);
    let first = sequences[0];
    let wanted: Vec<u64> = (first..first + sequences.len() as u64).collect();
    assert_eq!(sequences, wanted, "each change once and in order");
    let whole = world.client.changes(Some(&start), 1000, false).await.unwrap();
    assert_eq!(whole.changes.len(), sequences.len());
    // Behind the last page nothing is left to tell, so nothing is told until the time is over.
    assert!(!ping(&world, &cursor, 1).await);
}

/// Spellings in which bytes could stand in an answer.
fn spellings(phrase: &str) -> Vec<String> {
    let mut all = vec![
        phrase.to_owned(),
        hex(phrase.as_bytes()),
        hex(phrase.as_bytes()).to_uppercase(),
    ];
    // Wherever it begins in what was encoded; the letters at the ends hold bits of what stands before and behind.
    for offset in 0..3 {
        let text = STANDARD_NO_PAD.encode([&[0_u8; 3][..offset], phrase.as_bytes()].concat());
        all.push(text[4..text.len() - 2].to_owned());
    }
    all
}

/// Asserts that nothing of the content is there.
#[track_caller]
fn holds_no_content(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for spelling in spellings(PHRASE) {
        assert!(!text.contains(&spelling), "a content came unasked: {text}");
    }
}

/// One that lies in its entry, and one of stripes.
async fn put_some(world: &World, name: &str) -> String {
    world
        .put(&format!("/{name} large"), PHRASE.repeat(20_000).as_bytes())
        .await;
    let small = world.put(&format!("/{name} small"), PHRASE.repeat(10).as_bytes()).await;
    small.entry.id
}

/// shows: H-P3
#[tokio::test]
async fn no_content_comes_over_a_connection_before_it_is_asked_for() {
    let world = World::start().await;
    let cursor = world.client.changes(None, 1, true).await.unwrap().cursor;
    let idle = Sender::open(&world).await;
    let mut polling = Sender::open(&world).await;
    let line = format!("GET {POLL}?cursor={cursor}&timeout=60");
    polling.send(&head(&world.client, &line, "connection: close\r\n")).await;
    let id = put_some(&world, "one").await;
    let bytes = polling.rest().await;
    let answer = read(&bytes);
    assert_eq!(
        (answer.status.as_u16(), answer.json()["changes"].as_bool()),
        (200, Some(true))
    );
    assert!(bytes.ends_with(&answer.body), "something came behind the answer");
    holds_no_content(&bytes);
    // Pages and listings tell of contents without giving them.
    for path in [
        format!("/api/v1/changes/list?since_token={cursor}"),
        format!("/api/v1/changes?pageToken={cursor}"),
        "/api/v1/metadata?path=/".to_owned(),
    ] {
        let answer = world.call(Method::GET, &path, None).await;
        assert_eq!(answer.status, 200);
        assert!(
            String::from_utf8_lossy(&answer.body).contains(&id),
            "{path} tells nothing of the file"
        );
        holds_no_content(&answer.body);
    }
    assert_eq!(
        idle.cut_silently().await,
        b"",
        "a connection without a request was spoken on"
    );
    let whole = world.content(&id, &[]).await;
    assert_eq!(whole.body, PHRASE.repeat(10).as_bytes(), "and who asks is given it");
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
/// SETTINGS_ENABLE_PUSH (RFC 9113, section 6.5.2).
const ENABLE_PUSH: [u8; 6] = [0, 2, 0, 0, 0, 1];

/// A frame of HTTP/2 (RFC 9113, section 4.1).
#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// A connection of HTTP/2 that allows a server to push.
struct Frames(TcpStream);

impl Frames {
    async fn open(world: &World) -> Self {
        let mut frames = Self(world.connect().await);
        frames.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        frames.write(SETTINGS, 0, 0, &ENABLE_PUSH).await;
        frames
    }

    async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.0.write_all(&frame).await.unwrap();
    }

    /// Sends a GET with the client's token on a stream.
    async fn get(&mut self, client: &Client, stream: u32, path: &str) {
        // Method GET and scheme http by their place in the static table, the others as literals with the table's names.
        let mut block = vec![0x82, 0x86];
        block.push(0x04);
        literal(&mut block, path);
        block.push(0x01);
        literal(&mut block, "h");
        block.extend([0x0f, 23 - 15]);
        literal(&mut block, &format!("Bearer {}", token_of(client)));
        self.write(HEADERS, END_STREAM | END_HEADERS, stream, &block).await;
    }

    /// Reads frames until one is `last`; all of them, with settings acknowledged.
    async fn until(&mut self, last: impl Fn(&Frame) -> bool) -> Vec<Frame> {
        let mut all = Vec::new();
        loop {
            let frame = tokio::time::timeout(GIVE_UP, self.read())
                .await
                .expect("the frame never comes");
            if frame.kind == SETTINGS && frame.flags & ACK == 0 {
                self.write(SETTINGS, ACK, 0, &[]).await;
            }
            let is_last = last(&frame);
            all.push(frame);
            if is_last {
                return all;
            }
        }
    }

    async fn read(&mut self) -> Frame {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload).await.unwrap();
        Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
            payload,
        }
    }
}

/// A string literal of HPACK that is not compressed (RFC 7541, section 5.2).
fn literal(block: &mut Vec<u8>, text: &str) {
    match text.len().checked_sub(0x7f) {
        None => block.push(text.len() as u8),
        Some(mut more) => {
            block.push(0x7f);
            while more >= 0x80 {
                block.push(more as u8 | 0x80);
                more >>= 7;
            }
            block.push(more as u8);
        }
    }
    block.extend(text.as_bytes());
}

/// shows: H-P3
#[tokio::test]
async fn no_stream_is_promised_to_a_client_that_allows_it() {
    let world = World::start().await;
    let cursor = world.client.changes(None, 1, true).await.unwrap().cursor;
    let mut frames = Frames::open(&world).await;
    let path = format!("{POLL}?cursor={cursor}&timeout=60");
    frames.get(&world.client, 1, &path).await;
    put_some(&world, "one").await;
    let ends = |frame: &Frame| matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0;
    let mut all = frames.until(ends).await;
    let body = all.iter().filter(|frame| frame.kind == DATA);
    let body: Vec<u8> = body.flat_map(|frame| frame.payload.clone()).collect();
    let told: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(told["changes"], true);
    // What else there was to say would have come before the answer to this.
    put_some(&world, "two").await;
    frames.write(PING, 0, 0, b"holdfast").await;
    all.extend(frames.until(|frame| frame.kind == PING && frame.flags & ACK != 0).await);
    for frame in &all {
        assert_ne!(frame.kind, PUSH_PROMISE, "a stream was promised");
        let is_asked = !matches!(frame.kind, DATA | HEADERS) || frame.stream == 1;
        assert!(is_asked, "a stream that was not asked for: {frame:?}");
        holds_no_content(&frame.payload);
    }
}
