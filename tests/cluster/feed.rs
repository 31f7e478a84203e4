//! The change feed and polls, as followers of a drive use them.
//!
//! Not here: polls that wait for minutes and thousands at once (gateway, on a clock that the test moves), what a feed drops for its age
//! (metadata-raft), followers while processes are killed (`followers`).

use crate::entries::make_folder;
use crate::world::{Answer, World, tree_of};
use api::change::{Change, ChangeKind, ChangesPage, PollAnswer};
use client_sdk::client::Client;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const LIST: &str = "/api/v1/changes/list";
const POLL: &str = "/api/v1/notifications/poll";
const METADATA: &str = "/api/v1/metadata";

/// The present end of the demo user's drive.
async fn end(world: &World) -> String {
    let answer = world.call(Method::GET, LIST, None).await;
    let page: ChangesPage = serde_json::from_slice(&answer.body).unwrap();
    assert!(page.changes.is_empty() && !page.has_more);
    page.cursor
}

async fn page(world: &World, query: &str) -> ChangesPage {
    let answer = world.call(Method::GET, &format!("{LIST}?{query}"), None).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let page: ChangesPage = serde_json::from_slice(&answer.body).unwrap();
    assert_ne!(page.next_page_token.is_some(), page.new_start_page_token.is_some());
    assert_eq!(page.has_more, page.next_page_token.is_some());
    page
}

fn told(answer: &Answer) -> PollAnswer {
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_slice(&answer.body).unwrap()
}

/// A tree as a follower knows it: what lies where under which name.
#[derive(Default)]
pub(crate) struct Replica(BTreeMap<String, (Option<String>, String)>);

impl Replica {
    pub(crate) fn take(&mut self, change: &Change) {
        match &change.entry {
            Some(entry) if entry.trashed_at.is_none() => {
                let place = (entry.parent.clone(), entry.name.clone());
                self.0.insert(change.file_id.clone(), place);
            }
            _ => {
                self.0.remove(&change.file_id);
            }
        }
    }

    /// The paths of what hangs in the root.
    pub(crate) fn tree(&self, root: &str) -> Vec<String> {
        let path = |id: &String| {
            let mut names = Vec::new();
            let mut at = id;
            loop {
                let (parent, name) = self.0.get(at)?;
                names.push(name.as_str());
                match parent {
                    Some(parent) if parent == root => break,
                    Some(parent) => at = parent,
                    None => return None,
                }
            }
            names.reverse();
            Some(format!("/{}", names.join("/")))
        };
        let mut paths: Vec<String> = self.0.keys().filter_map(path).collect();
        paths.sort();
        paths
    }
}

pub(crate) async fn change_much(world: &World) {
    let a = make_folder(world, "/a").await.id;
    let b = make_folder(world, "/a/b").await.id;
    for number in 0..6 {
        world
            .put(&format!("/a/b/{number}"), format!("{number}").as_bytes())
            .await;
    }
    let file = world.put("/f", b"one").await.entry;
    let patch = async |id: &str, body: Value| {
        let changed = world
            .call(Method::PATCH, &format!("{METADATA}/{id}"), Some(&body))
            .await;
        assert_eq!(changed.status, 200, "{changed:?}");
    };
    let delete = async |id: &str, query: &str| {
        let deleted = world
            .call(Method::DELETE, &format!("{METADATA}/{id}{query}"), None)
            .await;
        assert_eq!(deleted.status, 204, "{deleted:?}");
    };
    patch(&b, json!({"path": "/c"})).await;
    patch(&file.id, json!({"name": "g", "parent": b})).await;
    delete(&a, "").await;
    let again = world.call(Method::POST, &format!("{METADATA}/{a}/restore"), None).await;
    assert_eq!(again.status, 200, "{again:?}");
    let gone = world.put("/c/gone", b"gone").await.entry.id;
    delete(&gone, "?permanent=true").await;
    let trashed = world.put("/c/trashed", b"trashed").await.entry.id;
    delete(&trashed, "").await;
}

/// shows: I-06 side=paging, N1 scale=1/2
#[tokio::test]
async fn a_follower_rebuilds_the_tree_from_pages_and_polls() {
    let world = World::start().await;
    let root = world.call(Method::GET, METADATA, None).await.json()["entry"]["id"].clone();
    let root = root.as_str().unwrap();
    let start = end(&world).await;
    let follow = async {
        // By polls alone, while the changes are made.
        let (mut replica, mut cursor, mut last) = (Replica::default(), start.clone(), 0);
        let mut seen = Vec::new();
        loop {
            let told = world.client.poll(&cursor, Duration::from_secs(5)).await.unwrap();
            for event in &told.events {
                assert!(event.sequence > last, "out of order");
                last = event.sequence;
                replica.take(event);
                seen.push(event.file_id.clone());
            }
            cursor = told.cursor;
            let is_end = told
                .events
                .iter()
                .any(|event| event.entry.as_ref().is_some_and(|entry| entry.name == "end"));
            if is_end {
                return (replica, cursor);
            }
        }
    };
    let change = async {
        change_much(&world).await;
        make_folder(&world, "/end").await;
    };
    let ((replica, cursor), ()) = tokio::join!(follow, change);
    let expected = world.tree().await;
    assert_eq!(replica.tree(root), expected);

    // By small pages, behind it: each sequence once.
    let (mut replica, mut token, mut sequences) = (Replica::default(), start.clone(), Vec::new());
    loop {
        let page = page(&world, &format!("since_token={token}&limit=4&fold=false")).await;
        assert!(page.changes.len() <= 4);
        for change in &page.changes {
            sequences.push(change.sequence);
            assert_eq!(change.scope, root);
            replica.take(change);
        }
        token.clone_from(&page.cursor);
        if !page.has_more {
            break;
        }
    }
    let first = sequences[0];
    assert_eq!(sequences, (first..first + sequences.len() as u64).collect::<Vec<_>>());
    assert_eq!(token, cursor, "both ways end in one place");
    assert_eq!(replica.tree(root), expected);
    let whole = page(&world, &format!("since_token={start}&limit=1000")).await;
    let mut ids: Vec<&str> = whole.changes.iter().map(|change| change.file_id.as_str()).collect();
    let folded = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((ids.len(), folded < sequences.len()), (folded, true), "each entry once");
    let kinds: Vec<ChangeKind> = whole.changes.iter().map(|change| change.kind).collect();
    for kind in [
        ChangeKind::Restored,
        ChangeKind::Deleted,
        ChangeKind::Trashed,
        ChangeKind::Moved,
    ] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
}

/// shows: I-06 side=concurrent
#[tokio::test]
async fn pages_leave_nothing_out_and_tell_nothing_twice_while_many_write() {
    const WRITERS: usize = 8;
    const EACH: usize = 25;
    let world = World::start().await;
    let mut token = end(&world).await;
    let write = |writer: usize| {
        let world = &world;
        async move {
            for number in 0..EACH {
                make_folder(world, &format!("/{writer}-{number}")).await;
            }
        }
    };
    let read = async {
        let mut told = Vec::new();
        while told.len() < WRITERS * EACH {
            let page = page(&world, &format!("since_token={token}&limit=7&fold=false")).await;
            assert!(page.changes.len() <= 7);
            told.extend(page.changes);
            token.clone_from(&page.cursor);
        }
        told
    };
    let (told, _) = tokio::join!(read, join_all((0..WRITERS).map(write)));
    let first = told[0].sequence;
    let sequences = told.iter().map(|change| change.sequence);
    assert!(sequences.eq(first..first + (WRITERS * EACH) as u64));
    let mut names: Vec<&str> = told
        .iter()
        .map(|change| change.entry.as_ref().unwrap().name.as_str())
        .collect();
    // Each writer's own changes are in the order in which they were answered.
    for writer in 0..WRITERS {
        let own = names.iter().filter_map(|name| name.strip_prefix(&format!("{writer}-")));
        assert!(own.eq((0..EACH).map(|number| number.to_string())), "of writer {writer}");
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), WRITERS * EACH);
    assert!(page(&world, &format!("since_token={token}")).await.changes.is_empty());
}

/// shows: I-06 side=paging
#[tokio::test]
async fn the_feed_is_there_in_the_shapes_of_googles_drive() {
    let world = World::start().await;
    let start = world
        .call(Method::GET, "/api/v1/changes/startPageToken", None)
        .await
        .json();
    assert_eq!(start["kind"], "drive#startPageToken");
    let token = start["startPageToken"].as_str().unwrap().to_owned();
    change_much(&world).await;
    let (mut token, mut seen, mut pages) = (token, Vec::new(), 0);
    let last = loop {
        let path = format!("/api/v1/changes?pageToken={token}&pageSize=5&includeRemoved=true&spaces=drive");
        let list = world.call(Method::GET, &path, None).await.json();
        pages += 1;
        seen.extend(list["changes"].as_array().unwrap().clone());
        match list["nextPageToken"].as_str() {
            Some(next) => token = next.to_owned(),
            None => break list["newStartPageToken"].as_str().unwrap().to_owned(),
        }
    };
    assert!(pages > 2, "{pages}");
    assert!(
        seen.iter()
            .any(|change| change["removed"] == true && change["file"].is_null())
    );
    assert!(seen.iter().any(|change| change["file"]["trashed"] == true));
    assert!(seen.iter().all(|change| change["changeType"] == "file"));
    let behind = world
        .call(Method::GET, &format!("/api/v1/changes?pageToken={last}"), None)
        .await
        .json();
    assert_eq!(behind["changes"], json!([]));
    assert_eq!(behind["newStartPageToken"], last);
    // One token serves both dialects.
    assert!(page(&world, &format!("since_token={last}")).await.changes.is_empty());
    world
        .call(Method::GET, "/api/v1/changes", None)
        .await
        .refused(400, "bad_query");
}

/// shows: I-04 scale=1/2, H-API-3, C-1 side=both-versions scale=1/2
#[tokio::test]
async fn a_poll_waits_as_long_as_it_is_told_by_query_body_or_header_under_either_name() {
    let world = World::start().await;
    let cursor = end(&world).await;
    let body = json!({"cursor": cursor, "timeout": 1});
    for path in [POLL, "/api/v1/events"] {
        let by_query = world
            .client
            .request(Method::GET, &format!("{path}?cursor={cursor}&timeout=1"));
        let by_header = world.client.request(Method::GET, &format!("{path}?cursor={cursor}"));
        let by_body = world.client.request(Method::POST, path).json(&body);
        // Nothing is upgraded, whatever is asked.
        let by_query = by_query.header("upgrade", "websocket").header("connection", "upgrade");
        for request in [by_query, by_header.header("timeout", "1"), by_body] {
            let begun = Instant::now();
            let answer = told(&world.send(request).await);
            assert!(begun.elapsed() >= Duration::from_secs(1), "it came too soon");
            assert!(!answer.changes && answer.events.is_empty());
            assert_eq!(answer.cursor, cursor);
        }
    }
    let wrong = world.client.request(Method::GET, &format!("{POLL}?cursor={cursor}"));
    world
        .send(wrong.header("timeout", "soon"))
        .await
        .refused(400, "bad_header");
    let wrong = format!("{POLL}?cursor={cursor}&timeout=soon");
    world.call(Method::GET, &wrong, None).await.refused(400, "bad_query");

    // Without a cursor from the present end on, and each sort of change wakes.
    let waiting = async |cursor: Option<&str>| {
        let query = cursor.map(|cursor| format!("?cursor={cursor}")).unwrap_or_default();
        let request = world.client.request(Method::GET, &format!("{POLL}{query}"));
        told(&world.send(request.header("Timeout", "60")).await)
    };
    let file = world.put("/f", b"one").await.entry;
    let begun = async {
        let until = Instant::now() + Duration::from_secs(60);
        while world.metric("gateway_polls_waiting").await < 1.0 {
            assert!(Instant::now() < until, "the poll never waits");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let renamed = json!({"name": "g"});
        let path = format!("{METADATA}/{}", file.id);
        assert_eq!(world.call(Method::PATCH, &path, Some(&renamed)).await.status, 200);
    };
    let (answer, ()) = tokio::join!(waiting(None), begun);
    assert_eq!(answer.event_type, Some(ChangeKind::Moved));
    assert_eq!(answer.file_id.as_ref(), Some(&file.id));
    assert!(answer.timestamp.is_some() && answer.backoff.is_none());
    assert!(world.client.trash(&file.id).await.is_ok());
    let answer = waiting(Some(&answer.cursor)).await;
    assert_eq!(answer.event_type, Some(ChangeKind::Trashed));
}

/// shows: N2 scale=1/3
#[tokio::test]
async fn a_cursor_that_is_not_the_callers_as_it_was_given_is_refused() {
    let world = World::start().await;
    let receipt = world.put("/f", b"one").await.receipt;
    let cursor = end(&world).await;
    assert_eq!(receipt.cursor, cursor, "a receipt's cursor stands behind its commit");
    let (other, _) = world.user("other", 1 << 20).await;
    let mut altered = cursor.clone();
    let last = altered.pop().unwrap();
    altered.push(if last == 'A' { 'B' } else { 'A' });
    let middle = format!("{}{}", &cursor[..20], &cursor[21..]);
    let refuse = async |client: &Client, cursor: &str| {
        for path in [
            format!("{LIST}?since_token={cursor}"),
            format!("/api/v1/changes?pageToken={cursor}"),
            format!("{POLL}?cursor={cursor}&timeout=1"),
            format!("/api/v1/events?cursor={cursor}&timeout=1"),
        ] {
            let answer = world.call_as(client, Method::GET, &path, None).await;
            answer.refused(400, "cursor_invalid");
        }
    };
    for wrong in [altered.as_str(), &middle, "x", "", &"A".repeat(4_000)] {
        refuse(&world.client, wrong).await;
    }
    refuse(&other, &cursor).await;
    for limit in ["0", "1001"] {
        let path = format!("{LIST}?limit={limit}");
        world.call(Method::GET, &path, None).await.refused(400, "bad_limit");
    }
    world
        .call(Method::GET, &format!("{LIST}?since={cursor}"), None)
        .await
        .refused(400, "bad_query");
    // Nobody is woken by, or sees, what another does.
    let theirs = other.changes(None, 100, true).await.unwrap().cursor;
    make_folder(&world, "/mine").await;
    let silent = other.poll(&theirs, Duration::from_secs(1)).await.unwrap();
    assert!(!silent.changes);
    other.make_folder("/theirs").await.unwrap();
    assert_eq!(tree_of(&other).await, ["/theirs"]);
    assert_eq!(
        other.poll(&theirs, Duration::from_secs(60)).await.unwrap().events.len(),
        1
    );
}

/// shows: D-2.4 side=nothing-missed scale=1/2
#[tokio::test]
async fn a_cursor_goes_on_behind_a_crash_of_the_whole_cluster() {
    let mut world = World::start().await;
    let cursor = end(&world).await;
    make_folder(&world, "/before").await;
    world.kill_and_restart().await;
    make_folder(&world, "/after").await;
    let answer = world.client.poll(&cursor, Duration::from_secs(60)).await.unwrap();
    let names = answer
        .events
        .iter()
        .map(|event| event.entry.as_ref().unwrap().name.as_str());
    let mut names: Vec<&str> = names.collect();
    let mut cursor = answer.cursor;
    let second;
    if names.len() == 1 {
        second = world.client.poll(&cursor, Duration::from_secs(60)).await.unwrap();
        names.extend(
            second
                .events
                .iter()
                .map(|event| event.entry.as_ref().unwrap().name.as_str()),
        );
        cursor.clone_from(&second.cursor);
    }
    assert_eq!(names, ["before", "after"]);
    assert!(
        !world
            .client
            .poll(&cursor, Duration::from_secs(1))
            .await
            .unwrap()
            .changes
    );
}
