//! Disks under logs that fill up and are given room again while the replicas run.
//!
//! What a disk shows as free is the test's to say; writing works all the same, so that a replica which wrote on in spite of it
//! would be seen by its applied index. A replica keeps what it shows as free above what it may write before its next look, so with
//! room again it goes on by itself, and that is shown here; so does one whose writes fail for want of space whatever the disk shows.
//! A disk that fails otherwise is trusted with nothing more: the process says so, and goes on after a start. Not here: what somebody
//! sees of full disks over HTTP (`tests/cluster/metadata_full.rs`).

use crate::drive::{Drive, GROUP, names};
use crate::world::{OverDisk, PATIENCE, Wires, World, call};
use bytes::Bytes;
use daemon::clock::{Clock, SystemClock};
use disk::judged::{Io, Verdict};
use disk::{Disk, DiskError, JudgedDisk, ShownSpace};
use model::error_kind::ErrorKind;
use model::id::CONTROL_GROUP;
use model::process::{ProcessId, Role};
use protocol::frame::{Call, Method, encode};
use protocol::metadata::{CommandAnswer, Envelope, ProposeRequest, Reply};
use rpc::transport::Handler;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
    answered_by(world, world.leader(GROUP).await, drive, number).await
}

/// The same of a certain replica.
async fn answered_by(world: &World, replica: u64, drive: &Drive, number: u64) -> Result<(), (ErrorKind, String)> {
    let envelope = Envelope {
        request_id: None,
        wall: SystemClock::new().wall(),
        command: drive.folder(number),
    };
    let message = ProposeRequest {
        group: GROUP,
        envelope: encode(&envelope).unwrap(),
    };
    let replica = world.replica(replica);
    let answer = call(&replica.service, Method::Propose, encode(&message).unwrap()).await;
    let answer = answer.and_then(|answer| Reply::<CommandAnswer>::from_bytes(&answer.reply)?.result);
    answer
        .map(drop)
        .map_err(|failure| (failure.kind, failure.code.to_string()))
}

/// Why the replica refuses a part of a snapshot of the drive's group: one that it would not understand if it took it.
async fn sent_a_state(world: &World, replica: u64) -> (ErrorKind, String) {
    // The first form of the envelope: the group, and where the sender listens.
    let sender = SocketAddr::from(([127, 0, 0, 1], 9));
    let part = Call {
        method: Method::RaftSnapshot,
        request_id: 0,
        message: Bytes::new(),
        payload: encode(&(0_u32, GROUP.0, sender)).unwrap(),
    };
    let from = ProcessId {
        role: Role::Metadata,
        number: 9,
    };
    let failure = world.replica(replica).service.handle(from, part).await.unwrap_err();
    (failure.kind, failure.code)
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
    let refused = (ErrorKind::Exhausted, "metadata_full".to_owned());
    assert_eq!(sent_a_state(&world, first).await, refused);
    shown[first as usize - 1].set(ROOM);
    world.settle(first).await;

    // All fill up: commands are refused by type, reads go on.
    shown.iter().for_each(|shown| shown.set(SHORT));
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

/// A disk over another one that refuses, while the switch is on, what `is_refused` picks.
fn refusing(switch: &Arc<AtomicBool>, is_refused: fn(Io<'_>) -> Option<DiskError>) -> OverDisk {
    let switch = Arc::clone(switch);
    Box::new(move |disk| {
        let switch = Arc::clone(&switch);
        let judge = move |io: Io<'_>| match is_refused(io) {
            Some(error) if switch.load(Ordering::SeqCst) => Verdict::Refuse(error),
            _ => Verdict::Pass,
        };
        let over: Arc<dyn Disk> = Arc::new(JudgedDisk::new(disk, Arc::new(judge)));
        over
    })
}

fn switches(world: &mut World, is_refused: fn(Io<'_>) -> Option<DiskError>) -> Vec<Arc<AtomicBool>> {
    let switches: Vec<Arc<AtomicBool>> = world.numbers().iter().map(|_| Arc::default()).collect();
    for number in world.numbers() {
        world.lay_over(number, refusing(&switches[number as usize - 1], is_refused));
    }
    switches
}

fn turn(switches: &[Arc<AtomicBool>], is_on: bool) {
    switches.iter().for_each(|switch| switch.store(is_on, Ordering::SeqCst));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_full_disk_refuses_is_written_once_there_is_room_and_nothing_is_started_again() {
    let mut world = World::new(Wires::memory(), 3, 1);
    let all = world.numbers();
    let full = switches(&mut world, |io| match io {
        Io::Create(name) | Io::Write(name, ..) => Some(DiskError::Full(name.to_owned())),
        _ => None,
    });
    world.start(&all).await;
    let drive = Drive::create(&world).await;
    drive.make(&world, 0..10).await;

    // The leader's writes fail from one moment to the next, and what its disk shows as free is plenty.
    let first = world.leader(GROUP).await;
    turn(&full[first as usize - 1..first as usize], true);
    drive.make(&world, 10..20).await;
    let leads = |number: u64, group| world.replica(number).service.groups()[&group].is_leader();
    until("others lead", async || {
        let is_led = |group| !leads(first, group) && all.iter().any(|number| leads(*number, group));
        is_led(GROUP) && is_led(CONTROL_GROUP)
    })
    .await;
    drive.make(&world, 20..40).await;
    assert!(!world.is_stopped(first), "it waits and does not end");
    assert_eq!(drive.names(&world).await, names(0..40));
    turn(&full, false);
    world.settle(first).await;

    // The same of all: commands are refused by type.
    turn(&full, true);
    let refused = (ErrorKind::Exhausted, "metadata_full".to_owned());
    until("commands are refused", async || {
        for number in &all {
            let asked = answered_by(&world, *number, &drive, PROBE);
            if tokio::time::timeout(PATIENCE, asked).await.unwrap() == Err(refused.clone()) {
                return true;
            }
        }
        false
    })
    .await;
    turn(&full, false);
    drive.make(&world, 40..50).await;
    for number in &all {
        world.settle(*number).await;
        assert!(!world.is_stopped(*number), "{number}");
    }
    // What was proposed while the disks were full may have been written since.
    let mut found = drive.names(&world).await;
    found.retain(|name| *name != names(PROBE..PROBE + 1)[0]);
    assert_eq!(found, names(0..50));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_ends_its_process_which_goes_on_after_a_start() {
    let mut world = World::new(Wires::memory(), 3, 1);
    let all = world.numbers();
    let broken = switches(&mut world, |io| match io {
        Io::Sync(name) => Some(DiskError::Io(format!("sync {name}: refused"))),
        _ => None,
    });
    world.start(&all).await;
    let drive = Drive::create(&world).await;
    drive.make(&world, 0..10).await;
    let first = world.leader(GROUP).await;
    let failed = world.replica(first).process.failed(Arc::new(SystemClock::new()));
    turn(&broken[first as usize - 1..first as usize], true);
    drive.make(&world, 10..20).await;
    let reason = tokio::time::timeout(PATIENCE, failed).await.unwrap();
    assert!(reason.contains("write raft log"), "{reason}");
    turn(&broken, false);
    world.kill(first).await;
    world.start(&[first]).await;
    world.caught_up(&[first]).await;
    world.settle(first).await;
    assert!(!world.is_stopped(first));
    assert_eq!(drive.names(&world).await, names(0..20));
}
