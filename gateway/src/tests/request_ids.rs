//! Ids of requests over the wire: in time a repeat gets the first answer, too late it is refused, and never is it done again.
//!
//! Not here: how long a row lives to the hour (metadata-raft), repeats after lost answers (`drive::metadata_client::tests`).

use super::polls::make;
use super::wire::{Reply, noise};
use super::world::World;
use super::world::age::Leader;
use crate::drive::metadata_client::MetadataClient;
use model::error_kind::ErrorKind;
use protocol::metadata::Command;
use protocol::metadata::drive::DriveCommand;
use serde_json::{Value, json};
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3_600);
const FOLDER: &str = "POST /api/v1/metadata";
const UPLOAD: &str = "POST /api/v1/files/upload?uploadType=media&path=/f";

/// A folder under these headers.
async fn create(world: &World, headers: &str, path: &str) -> Reply {
    let body = json!({"type": "folder", "path": path}).to_string();
    let headers = format!(
        "Content-Type: application/json\r\nContent-Length: {}\r\n{headers}",
        body.len()
    );
    world.request(FOLDER, &headers, body.as_bytes()).await
}

async fn upload(world: &World, headers: &str, content: &[u8]) -> Reply {
    let headers = format!("Content-Length: {}\r\n{headers}", content.len());
    world.request(UPLOAD, &headers, content).await
}

/// Puts what an answer shows into the trash: its name is free then, and a second try would succeed.
async fn trash(world: &World, made: &Reply) {
    let json: Value = serde_json::from_slice(&made.body).unwrap();
    let entry = json.get("entry").unwrap_or(&json);
    let line = format!("DELETE /api/v1/metadata/{}", entry["id"].as_str().unwrap());
    let gone = world.request(&line, "", b"").await;
    assert!((200..300).contains(&gone.status), "{gone:?}");
}

fn hour_told(reply: &Reply) -> Option<&str> {
    reply.header("holdfast-age-hour")
}

#[tokio::test]
async fn a_repeat_whose_row_has_gone_is_refused_and_not_done_again() {
    let world = World::start().await;
    let mut leader = Leader::of(&world);
    leader.lead(HOUR / 2);
    let before = world.request("GET /api/v1/me", "", b"").await;
    assert_eq!(hour_told(&before), Some("0"), "{before:?}");
    let (folder, file) = (
        "Idempotency-Key: folder\r\nHoldfast-Age-Hour: 0\r\n",
        "Idempotency-Key: file\r\nHoldfast-Age-Hour: 0\r\n",
    );
    let made = create(&world, folder, "/x").await;
    assert_eq!(made.status, 201, "{made:?}");
    let content = noise(1, 300_000);
    let put = upload(&world, file, &content).await;
    assert_eq!(put.status, 201, "{put:?}");
    leader.lead(24 * HOUR);
    leader.sweep();
    for (first, again) in [
        (&made, create(&world, folder, "/x").await),
        (&put, upload(&world, file, &content).await),
    ] {
        assert_eq!((again.status, &again.body), (first.status, &first.body));
        trash(&world, first).await;
    }

    leader.lead(HOUR);
    leader.sweep();
    let commits = world.commands().iter().filter(|name| **name == "CommitUpload").count();
    let late = create(&world, folder, "/x").await;
    late.refused(504, "outcome_unknown");
    assert_eq!(hour_told(&late), Some("25"), "a refusal tells the hour as well");
    upload(&world, file, &content).await.refused(504, "outcome_unknown");
    assert!(!world.has("/x").await && !world.has("/f").await);
    let now = world.commands().iter().filter(|name| **name == "CommitUpload").count();
    assert_eq!(now, commits, "the content is refused before it is read");

    // Whoever does not say when the key was made is as a new one then, which is what the hour is for.
    let foreign = create(&world, "Idempotency-Key: folder\r\n", "/x").await;
    assert_eq!(foreign.status, 201, "{foreign:?}");
    assert_ne!(foreign.body, made.body);
}

#[tokio::test]
async fn an_hour_that_nobody_told_is_refused_by_type() {
    let world = World::start().await;
    let ahead = create(&world, "Idempotency-Key: k\r\nHoldfast-Age-Hour: 1\r\n", "/x").await;
    ahead.refused(504, "outcome_unknown");
    for bad in ["", "-1", "1.5", "soon", "4294967296"] {
        let headers = format!("Idempotency-Key: k\r\nHoldfast-Age-Hour: {bad}\r\n");
        create(&world, &headers, "/x").await.refused(400, "bad_header");
        upload(&world, &headers, b"f").await.refused(400, "bad_header");
    }
    assert!(!world.has("/x").await && !world.has("/f").await);
    let sound = create(&world, "Idempotency-Key: k\r\nHoldfast-Age-Hour: 0\r\n", "/x").await;
    assert_eq!(sound.status, 201, "what was refused left the key free: {sound:?}");
    // Without a key there is nothing that could have been made in an hour.
    assert_eq!(create(&world, "Holdfast-Age-Hour: soon\r\n", "/y").await.status, 201);
}

/// Who is not known is told nothing of a drive, and a poll tells of it in its body.
#[tokio::test]
async fn the_hour_is_told_to_whoever_has_the_drive() {
    let world = World::start().await;
    let line = |token: &str| format!("GET /api/v1/me HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{token}\r\n");
    let wrong = format!(
        "Authorization: Bearer {}\r\n",
        world.token.replace(['a', 'b', 'c'], "d")
    );
    for token in ["", wrong.as_str()] {
        let reply = super::wire::exchange(world.address(), line(token).as_bytes()).await;
        assert_eq!((reply.status, hour_told(&reply)), (401, None), "{reply:?}");
    }
    assert_eq!(hour_told(&world.request("GET /readyz", "", b"").await), None);
    let missing = world.request("GET /api/v1/metadata?path=/none", "", b"").await;
    assert_eq!((missing.status, hour_told(&missing)), (404, Some("0")));
    make(&world, "/x").await;
    let listing = world.request("GET /api/v1/metadata", "", b"").await;
    assert_eq!((listing.status, hour_told(&listing)), (200, Some("0")));
}

fn folder(world: &World, name: &str) -> Command {
    let place = crate::drive::tree::place(Some(name), None, None).unwrap();
    Command::Drive(DriveCommand::CreateFolder {
        principal: world.caller.principal,
        drive: world.caller.home,
        place,
        with_parents: false,
        fresh: world.core().fresh(1),
    })
}

/// A gateway's own ids: one that knows no hour yet works, one that knows an old one goes on by itself, and what arrives too late is
/// not done again.
#[tokio::test]
async fn a_gateways_own_ids_tell_the_hour_that_was_told_last() {
    let world = World::start().await;
    let mut leader = Leader::of(&world);
    let metadata = &world.core().metadata;
    let fresh = MetadataClient::new(world.core().seams.clone(), 7, metadata.replicas());
    let slot = world.caller.home.slot();
    leader.lead(5 * HOUR);
    let command = folder(&world, "/first");
    assert_eq!(
        (fresh.age_hour(slot), fresh.own_key(&command).unwrap().made_hour),
        (None, None)
    );
    fresh.command(command.clone(), None, 0).await.unwrap();
    assert_eq!(fresh.age_hour(slot), Some(5));
    assert_eq!(fresh.own_key(&command).unwrap().made_hour, Some(5));

    // Nobody told it of the three hours that pass.
    let command = folder(&world, "/second");
    let early = fresh.own_key(&command).unwrap();
    fresh.command(command.clone(), Some(early), 0).await.unwrap();
    leader.lead(3 * HOUR);
    leader.sweep();
    assert_eq!(fresh.age_hour(slot), Some(5));
    fresh.command(folder(&world, "/third"), None, 0).await.unwrap();
    assert_eq!(fresh.age_hour(slot), Some(8));

    let listed = world.request("GET /api/v1/metadata?path=/second", "", b"").await;
    trash(&world, &listed).await;
    let late = fresh.command(command, Some(early), 0).await.unwrap_err();
    assert_eq!(
        (late.code.as_str(), late.kind),
        ("outcome_unknown", ErrorKind::Ambiguous)
    );
    assert!(!world.has("/second").await && world.has("/third").await);
}
