//! What a gateway keeps of what it was told: asked for each time, shared by who asks at once, for nobody else, and for a minute.
//!
//! Not here: bounds (`drive::kept`), which commands touch a drive (metadata-raft), two gateways (tests/cluster/caches.rs).

use super::wire::Reply;
use super::world::{DEADLINE, World};
use crate::drive::Caller;
use futures_util::FutureExt;
use futures_util::future::join_all;
use model::authorize::Principal;
use model::id::{DeviceId, UserId};
use protocol::metadata::drive::{EntryRef, Place};
use std::time::Duration;

async fn folder(world: &World, path: &str) -> EntryRef {
    let place = Place::Path(crate::drive::tree::path(path).unwrap());
    let made = world.core().create_folder(&world.caller, place, false, None).await;
    EntryRef::Id(made.unwrap().entry.id)
}

/// Of the page, summed over nothing: one series.
fn value(page: &str, name: &str, what: &str) -> u64 {
    let wanted = format!("what=\"{what}\"");
    let mut lines = page
        .lines()
        .filter(|line| line.starts_with(name) && line.contains(&wanted));
    let line = lines.next().unwrap_or_else(|| panic!("no {name} of {what}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

/// Bytes, hits and misses.
async fn counted(world: &World, what: &str) -> (u64, u64, u64) {
    let page = world.request("GET /metrics", "", b"").await;
    let page = String::from_utf8(page.body).unwrap();
    let value = |name| value(&page, name, what);
    (
        value("gateway_kept_bytes{"),
        value("gateway_kept_hits_total{"),
        value("gateway_kept_misses_total{"),
    )
}

#[tokio::test]
async fn a_kept_answer_is_confirmed_each_time_and_ends_with_the_next_change_of_the_drive() {
    let world = World::start().await;
    let at = folder(&world, "/a").await;
    let list = async || world.core().list(&world.caller, at.clone(), 100, None).await.unwrap();
    let first = list().await;
    assert_eq!(list().await, first);
    let (bytes, hits, misses) = counted(&world, "answers").await;
    assert!(bytes > 0 && (hits, misses) == (1, 1), "{bytes} {hits} {misses}");
    folder(&world, "/a/b").await;
    assert_eq!(list().await.entries.len(), 1);
    let (_, hits, misses) = counted(&world, "answers").await;
    assert_eq!((hits, misses), (1, 2));
}

/// The first of them makes a call; the others have all come before the next one looks, so they share that.
#[tokio::test]
async fn readers_of_the_same_who_come_before_a_call_begins_share_it() {
    let world = World::start().await;
    let at = folder(&world, "/a").await;
    let all = join_all((0..24).map(|_| world.core().entry(&world.caller, at.clone()))).await;
    let first = all[0].as_ref().unwrap().clone();
    assert!(all.into_iter().all(|view| view.unwrap() == first));
    let (_, hits, misses) = counted(&world, "answers").await;
    assert_eq!(hits + misses, 2, "one call for the first, and one for all others");
    assert_eq!(world.core().answers.under_way(), 0);
    world.cut_metadata();
    let asked = world.while_time_passes(world.core().entry(&world.caller, at)).await;
    assert_eq!(
        asked.unwrap_err().code,
        "metadata_unreachable",
        "what is kept is no answer by itself"
    );
}

#[tokio::test]
async fn a_reader_who_goes_away_takes_nobody_with_him() {
    let world = World::start().await;
    let at = folder(&world, "/a").await;
    let mut leaver = Box::pin(world.core().entry(&world.caller, at.clone()));
    assert!((&mut leaver).now_or_never().is_none());
    let mut stayer = Box::pin(world.core().entry(&world.caller, at.clone()));
    assert!((&mut stayer).now_or_never().is_none());
    drop(leaver);
    stayer.await.unwrap();
    world.core().entry(&world.caller, at.clone()).await.unwrap();

    // The one who asked alone and one of two who share the next call.
    let mut all = [(); 3].map(|()| Box::pin(world.core().entry(&world.caller, at.clone())));
    for asker in &mut all {
        assert!(asker.now_or_never().is_none());
    }
    let [alone, leaver, stayer] = all;
    drop((alone, leaver));
    stayer.await.unwrap();
    assert_eq!(world.core().answers.under_way(), 0);
}

/// A download whose client takes nothing is not asked to go on, and neither is the call that it makes.
#[tokio::test]
async fn who_asks_alone_and_stops_to_listen_holds_up_nobody() {
    let world = World::start().await;
    let at = folder(&world, "/a").await;
    let mut stalled = Box::pin(world.core().entry(&world.caller, at.clone()));
    assert!((&mut stalled).now_or_never().is_none());
    for _ in 0..2 {
        let asked = world.core().entry(&world.caller, at.clone());
        let asked = tokio::time::timeout(DEADLINE, asked).await;
        asked.expect("it waits for one who does not go on").unwrap();
    }
    stalled.await.unwrap();
}

/// With the group away a call would last for seconds; it ends with the last who waits for it.
#[tokio::test]
async fn a_call_that_nobody_waits_for_any_more_is_given_up() {
    let world = World::start().await;
    let at = folder(&world, "/a").await;
    world.cut_metadata();
    let mut leaver = Box::pin(world.core().entry(&world.caller, at.clone()));
    assert!((&mut leaver).now_or_never().is_none());
    let under_way = || world.core().answers.under_way();
    assert_eq!(under_way(), 1);
    drop(leaver);
    let ended = async {
        while under_way() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, ended)
        .await
        .expect("the clock stands still, and the call ends");
}

#[tokio::test]
async fn what_is_kept_for_one_is_given_to_no_other_user_or_device() {
    let world = World::start().await;
    let at = folder(&world, "/a").await;
    world.core().entry(&world.caller, at.clone()).await.unwrap();
    let as_principal = |principal| Caller {
        principal,
        ..world.caller
    };
    let own = world.caller.principal;
    let stranger = as_principal(Principal {
        user: UserId::new(own.user.slot(), 99),
        ..own
    });
    let refused = world.core().entry(&stranger, at.clone()).await.unwrap_err();
    assert_eq!(refused.code, "not_found");
    let device = as_principal(Principal {
        device: Some(DeviceId(5)),
        ..own
    });
    world.core().entry(&device, at).await.unwrap();
    let (_, hits, misses) = counted(&world, "answers").await;
    assert_eq!((hits, misses), (0, 2), "another device is another principal");
}

async fn put(world: &World, version: &str, bytes: &[u8]) -> Reply {
    let line = format!("POST /api/v1/files/upload?uploadType=media&path=/f{version}");
    let length = format!("Content-Length: {}\r\n", bytes.len());
    world.request(&line, &length, bytes).await
}

fn id_of(uploaded: &Reply) -> String {
    let answer: serde_json::Value = serde_json::from_slice(&uploaded.body).unwrap();
    answer["entry"]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_opened_block_is_used_again_while_a_manifest_names_it_and_leaves_memory_after_a_minute() {
    let world = World::start().await;
    let made = put(&world, "", b"the first content").await;
    assert_eq!(made.status, 201);
    let line = format!("GET /api/v1/files/{}/content", id_of(&made));
    let get = async || world.request(&line, "", b"").await;
    for _ in 0..2 {
        assert_eq!(get().await.body, b"the first content");
    }
    let (bytes, hits, misses) = counted(&world, "blocks").await;
    assert!(bytes > 0 && (hits, misses) == (1, 1), "{bytes} {hits} {misses}");
    put(&world, "&base_version=1", b"the second content").await;
    assert_eq!(get().await.body, b"the second content");

    // Removed for good: nobody is given its bytes from then on, and a minute later they are gone.
    let purge = format!("DELETE /api/v1/metadata/{}?permanent=true", id_of(&made));
    assert_eq!(world.request(&purge, "", b"").await.status, 204);
    assert_eq!(get().await.status, 404);
    assert!(counted(&world, "blocks").await.0 > 0);
    let gone = async {
        while counted(&world, "blocks").await.0 > 0 || counted(&world, "answers").await.0 > 0 {
            tokio::task::yield_now().await;
        }
    };
    let begun = world.core().seams.clock.monotonic();
    world.while_time_passes(gone).await;
    let took = world.core().seams.clock.monotonic() - begun;
    assert!(took >= Duration::from_secs(30), "a minute, not at once: {took:?}");
}
