//! Disks under logs that fill up and are given room again while the replicas run.
//!
//! What a disk shows as free is the test's to say; writing works all the same, so that a replica which wrote on in spite of it
//! would be seen by its applied index. A replica keeps what it shows as free above what it may write before its next look, so with
//! room again it goes on by itself, and that is shown here. Not here: a write that fails all the same, since something else took the last
//! bytes: that ends the process's replicas as any failure does, and it is started again with room (docs/operations/full-disk.md); what
//! somebody sees of full disks over HTTP (`tests/cluster/metadata_full.rs`).

use crate::drive::{Drive, GROUP, names};
use crate::world::{PATIENCE, Wires, World, call};
use daemon::clock::{Clock, SystemClock};
use disk::ShownSpace;
use model::error_kind::ErrorKind;
use model::id::CONTROL_GROUP;
use protocol::frame::{Method, encode};
use protocol::metadata::{CommandAnswer, Envelope, ProposeRequest, Reply};
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
/// With segments of 8 MiB a replica gives up leading below 88 MiB and lets writing wait below 80 MiB.
const SHORT: u64 = 84 * MIB;
const NONE: u64 = 10 * MIB;
const ROOM: u64 = 10 << 30;
/// A folder that is made again and again: all but the first time its name is taken, which is as good as an entry of the log.
const PROBE: u64 = 900;

/// Waits until `is_so` holds.
async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < PATIENCE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn applied(world: &World, number: u64) -> Option<u64> {
    world.replica(number).service.groups()[&GROUP].applied_index()
}

/// What the replica that leads the drive's group answers to the command that makes this folder.
async fn answered(world: &World, drive: &Drive, number: u64) -> Result<(), (ErrorKind, String)> {
    let envelope = Envelope {
        request_id: None,
        wall: SystemClock::new().wall(),
        command: drive.folder(number),
    };
    let message = ProposeRequest {
        group: GROUP,
        envelope: encode(&envelope).unwrap(),
    };
    let leader = world.replica(world.leader(GROUP).await);
    let answer = call(&leader.service, Method::Propose, encode(&message).unwrap()).await;
    let answer = answer.and_then(|answer| Reply::<CommandAnswer>::from_bytes(&answer.reply)?.result);
    answer
        .map(drop)
        .map_err(|failure| (failure.kind, failure.code.to_string()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_disk_fills_up_steps_down_falls_behind_and_catches_up_once_there_is_room() {
    let mut world = World::new(Wires::memory(), 3, 1);
    let all = world.numbers();
    let shown: Vec<ShownSpace> = all.iter().map(|_| ShownSpace::all()).collect();
    shown.iter().for_each(|shown| shown.set(ROOM));
    for number in &all {
        let shown = shown[*number as usize - 1].clone();
        world.lay_over(*number, Box::new(move |disk| shown.over(disk)));
    }
    world.start(&all).await;
    let drive = Drive::create(&world).await;
    drive.make(&world, 0..10).await;

    // One fills up: it leads nothing any more, and nobody notices.
    let first = world.leader(GROUP).await;
    shown[first as usize - 1].set(SHORT);
    until("the full one leads nothing", async || {
        world.leader(GROUP).await != first && world.leader(CONTROL_GROUP).await != first
    })
    .await;
    drive.make(&world, 10..20).await;
    world.settle(first).await;

    // With nothing left it writes nothing, and the others go on without it.
    shown[first as usize - 1].set(NONE);
    let others = world.leader(GROUP).await;
    until("the full one falls behind", async || {
        let made = answered(&world, &drive, PROBE).await;
        assert!(made.is_ok() || made.is_err_and(|(kind, _)| kind != ErrorKind::Exhausted));
        applied(&world, first) < applied(&world, others)
    })
    .await;
    drive.make(&world, 20..40).await;
    assert!(applied(&world, first) < applied(&world, others));
    assert!(!world.is_stopped(first), "it waits and does not end");
    shown[first as usize - 1].set(ROOM);
    world.settle(first).await;

    // All fill up: commands are refused by type, reads go on.
    shown.iter().for_each(|shown| shown.set(SHORT));
    let refused = (ErrorKind::Exhausted, "metadata_full".to_owned());
    until("commands are refused", async || {
        answered(&world, &drive, PROBE).await == Err(refused.clone())
    })
    .await;
    let probe = names(PROBE..PROBE + 1);
    assert_eq!(drive.names(&world).await, [names(0..40), probe.clone()].concat());

    // One is given room, then all.
    shown[first as usize - 1].set(ROOM);
    until("one with room leads", async || {
        matches!(answered(&world, &drive, PROBE).await, Err((ErrorKind::Exists, _)))
    })
    .await;
    shown.iter().for_each(|shown| shown.set(ROOM));
    drive.make(&world, 40..50).await;
    for number in &all {
        world.settle(*number).await;
        assert!(!world.is_stopped(*number), "{number}");
    }
    assert_eq!(drive.names(&world).await, [names(0..50), probe].concat());
}
