//! Metadata replicas that are too few, or that come back too late: nothing is written that could be lost, and nothing old is read.
//!
//! Not here: the same among replicas alone, with cut networks and wrong clocks (`metadata-raft/tests/replicas`), how soon a new leader
//! serves (`make kills`).

use crate::insider::Insider;
use crate::served::eventually;
use crate::world::{World, answer, tree_of};
use bytes::Bytes;
use chaos::process_attack::{self, DRIVE_GROUP};
use client_sdk::client::Target;
use model::authorize::Principal;
use model::id::{EntryId, GroupId, UserId};
use model::process::{ProcessId, Role};
use protocol::frame::{Call, Method, decode, encode};
use protocol::metadata::query::{DriveAsk, DriveQuery};
use protocol::metadata::{GroupReply, Query, QueryAnswer, QueryRequest, Reply};
use reqwest::Method as Verb;
use rpc::transport::{Peer, Transport as _};
use rustix::process::Signal;
use serde_json::json;
use std::time::{Duration, Instant};

/// A call to one replica.
const CALL_DEADLINE: Duration = Duration::from_secs(2);
/// How long the one that woke up is asked: an election and more.
const ASKED_FOR: Duration = Duration::from_secs(3);

/// shows: D-2.8
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_writes_are_refused_nothing_old_is_read_and_all_comes_back() {
    let world = World::start_with(&["--processes", "--groups", "1"]).await;
    let file = world.put("/f", b"first").await.entry.id;
    let client = &world.client;
    for victim in ["metadata-1", "metadata-2"] {
        process_attack::kill(&world.cluster, victim).await.unwrap();
    }
    let (metadata, renamed) = (format!("/api/v1/metadata/{file}"), json!({"name": "g"}));
    let (list, content) = ("/api/v1/metadata?path=/", format!("/api/v1/files/{file}/content"));
    let upload = "/api/v1/files/upload?uploadType=media&path=/new";
    // Each of them waits for a majority for a while, so all at once.
    let refused = tokio::join!(
        answer(client.request(Verb::POST, upload).body("new")),
        answer(client.request(Verb::PATCH, &metadata).json(&renamed)),
        answer(client.request(Verb::GET, list)),
        answer(client.request(Verb::GET, &content)),
    );
    for write in [refused.0, refused.1] {
        // A leader that was left alone has the command in its log, and nobody knows what becomes of it.
        match write.status.as_u16() {
            504 => write.refused(504, "outcome_unknown"),
            _ => write.refused(503, "metadata_unreachable"),
        };
    }
    for read in [refused.2, refused.3] {
        read.refused(503, "metadata_unreachable");
    }

    for victim in ["metadata-1", "metadata-2"] {
        process_attack::start(&world.cluster, victim).await.unwrap();
    }
    eventually("the listing", async || client.list("/", 10, None).await).await;
    // Who was refused does not know whether it was done; it is whole or not at all.
    let tree = tree_of(client).await;
    let names: Vec<&str> = tree.iter().map(String::as_str).filter(|name| *name != "/new").collect();
    assert!(names == ["/f"] || names == ["/g"], "{tree:?}");
    assert_eq!(world.content(&file, &[]).await.body, b"first");
    if tree.iter().any(|name| name == "/new") {
        let listed = client.list("/", 10, None).await.unwrap().entries;
        let new = listed.iter().find(|entry| entry.name == "new").unwrap();
        assert_eq!(world.content(&new.id, &[]).await.body, b"new");
    }
    world.put("/after", b"after").await;
}

/// The number of a file's newest version as one replica says, asked as a leader; `None` while it refuses.
async fn newest_at(insider: &Insider, replica: &Peer, entry: EntryId, owner: UserId) -> Option<u64> {
    let principal = Principal {
        user: owner,
        device: None,
        is_admin: false,
    };
    let query = Query::Drive(DriveQuery {
        drive: entry.drive,
        principal: Some(principal),
        ask: DriveAsk::Versions { entry, before: None },
    });
    let request = QueryRequest {
        group: GroupId(DRIVE_GROUP),
        query: encode(&query).unwrap(),
    };
    let call = Call {
        method: Method::Query,
        request_id: 0,
        message: encode(&request).unwrap(),
        payload: Bytes::new(),
    };
    let answered = insider.transport.call(replica, call, CALL_DEADLINE).await.ok()?;
    let answered: GroupReply = decode(&answered.message).unwrap();
    match Reply::<QueryAnswer>::from_bytes(&answered.reply).unwrap().result.ok()? {
        QueryAnswer::Versions(versions) => Some(versions[0].number),
        other => panic!("asked for versions, was answered {other:?}"),
    }
}

/// shows: D-3.4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_slept_through_its_succession_answers_nothing_old_when_it_wakes() {
    let world = World::start_with(&["--processes", "--groups", "1"]).await;
    let file = world.put("/f", b"version 1").await.entry.id;
    let owner = UserId::parse(&world.client.me().await.unwrap().id).unwrap();
    let entry = EntryId::parse(&file).unwrap();
    let insider = Insider::of_dev(&world.data_dir(), "gateway-1");
    let sleeper = process_attack::leader(&world.cluster).await.unwrap();
    let number: u64 = sleeper.strip_prefix("metadata-").unwrap().parse().unwrap();
    let process = ProcessId {
        role: Role::Metadata,
        number,
    };
    let replica = *insider.metadata.iter().find(|peer| peer.process == process).unwrap();
    assert_eq!(newest_at(&insider, &replica, entry, owner).await, Some(1));

    process_attack::signal(&world.cluster, &sleeper, Signal::STOP).unwrap();
    let target = Target {
        base_version: Some(1),
        ..Target::new_file("/f")
    };
    let second = async || match world.client.put(&target, Bytes::from_static(b"version 2")).await {
        Ok(_) => Ok(()),
        // An earlier try was done, and its answer was lost.
        Err(error) => match world.client.get(&file, None).await?.bytes().await? {
            now if now == "version 2" => Ok(()),
            _ => Err(error),
        },
    };
    eventually("a write without the sleeper", second).await;
    process_attack::signal(&world.cluster, &sleeper, Signal::CONT).unwrap();
    let (begun, mut refused) = (Instant::now(), 0);
    // From the first moment on: it may refuse, or lead again and know all.
    while begun.elapsed() < ASKED_FOR {
        match newest_at(&insider, &replica, entry, owner).await {
            Some(newest) => assert_eq!(newest, 2, "the woken leader serves what was overtaken"),
            None => refused += 1,
        }
    }
    assert!(refused > 0 || process_attack::leader(&world.cluster).await.unwrap() == sleeper);
    assert_eq!(world.content(&file, &[]).await.body, b"version 2");
}
