//! A move into another folder under another name is one command: after whichever of its I/Os the power is cut, and whatever of the
//! state goes with it, it is found done or not begun, and done once it was acknowledged.

use super::{GROUP, Group, World, linearized, voters};
use crate::founding::{founding, user};
use crate::serve::StateApply;
use crate::state::check::check;
use crate::worker::tests::folder;
use crate::worker::{command, query};
use daemon::clock::SystemClock;
use disk::SimDisk;
use disk::sim::{Faults, Survivors};
use kv::memory::MemoryKv;
use model::id::EntryId;
use model::name::EntryName;
use protocol::metadata::drive::{DriveCommand, EntryRef, PatchTo};
use protocol::metadata::query::{DriveAsk, DriveQuery};
use protocol::metadata::{Command, Query, QueryAnswer};
use std::sync::Arc;

/// Two folders, and a third that is moved from the first to the second.
const FROM: u64 = 100;
const TO: u64 = 101;
const MOVED: u64 = 102;
/// More than any commands here take.
const IOS_MAX: u64 = 100;

/// The names in the first and the second folder.
type Names = [Vec<String>; 2];

fn not_begun() -> Names {
    [vec![format!("folder {MOVED}")], vec![]]
}

fn done() -> Names {
    [vec![], vec!["moved".to_owned()]]
}

fn entry(number: u64) -> EntryId {
    EntryId {
        drive: user("ada").1,
        number,
    }
}

/// Gives what is moved another name, another folder or both.
fn patch(name: Option<&str>, parent: Option<u64>) -> Command {
    Command::Drive(DriveCommand::PatchEntry {
        principal: user("ada").0,
        entry: entry(MOVED),
        base_revision: None,
        to: PatchTo::Parts {
            name: name.map(|name| EntryName::new(name).unwrap()),
            parent: parent.map(entry),
        },
    })
}

/// The only replica of a group, on this log and state, once it leads.
async fn started(disk: SimDisk, kv: MemoryKv, is_new: bool) -> (World, Arc<Group>) {
    let mut world = World::new(1);
    let machine = world.machines.get_mut(&1).unwrap();
    machine.disk = disk;
    machine.kv = Arc::new(kv);
    let mut parts = world.parts(1).unwrap();
    parts.apply = Arc::new(StateApply::new(GROUP, Arc::default()));
    let group = world.run(Group::start(parts).await.unwrap());
    if is_new {
        group.bootstrap(voters(1)).await.unwrap();
    }
    // At once, and not when it next looks whether an election is due.
    group.raft.trigger().elect(false).await.unwrap();
    let leader = linearized(&world).await;
    (world, leader)
}

/// As `started`, with the folders.
async fn founded() -> (World, Arc<Group>) {
    let (world, leader) = started(SimDisk::new(1 << 30), MemoryKv::new(), true).await;
    let (owner, drive) = user("ada");
    let folders = [(drive.root(), FROM), (drive.root(), TO), (entry(FROM), MOVED)];
    let folders = folders.map(|(parent, number)| folder(owner, parent, number));
    for what in founding("ada").into_iter().chain(folders) {
        command(&leader, &SystemClock::new(), what).await.unwrap();
    }
    (world, leader)
}

/// Ends the replica; after a cut it does not end well.
async fn end(mut world: World) {
    let group = world.network.replicas.lock().unwrap().remove(&1).unwrap();
    drop(group.raft.shutdown().await);
    let stream = world.machines.get_mut(&1).unwrap().stream.take();
    drop(stream.map(|stream| stream.stop()));
}

async fn names(group: &Arc<Group>, folder: u64) -> Vec<String> {
    let (owner, drive) = user("ada");
    let ask = DriveAsk::List {
        folder: EntryRef::Id(entry(folder)),
        limit: 10,
        page_token: None,
    };
    let asked = Query::Drive(DriveQuery {
        drive,
        principal: Some(owner),
        ask,
    });
    match query(group, &asked).await.unwrap() {
        QueryAnswer::Listing(listing) => listing.entries.into_iter().map(|entry| entry.name).collect(),
        other => panic!("{other:?}"),
    }
}

/// What a replica that starts on these shows, and what in its state does not agree.
async fn found(disk: SimDisk, kv: MemoryKv) -> (Names, Vec<String>) {
    let (world, leader) = started(disk, kv, false).await;
    let names = [names(&leader, FROM).await, names(&leader, TO).await];
    let complaints = leader.read(check).unwrap();
    end(world).await;
    (names, complaints)
}

/// Cuts the power after each I/O of these commands. Answers how often none and how often all of them were found, or what else was.
async fn check_every_cut(commands: &[Command]) -> Result<[usize; 2], String> {
    let mut seen = [0, 0];
    for cut in 0..IOS_MAX {
        let (world, leader) = founded().await;
        let (disk, kv) = (world.machines[&1].disk.clone(), world.machines[&1].kv.clone());
        disk.set_faults(Faults {
            cut_after_io: Some(disk.io_count() + cut),
            ..Faults::default()
        });
        let mut acknowledged = 0;
        for what in commands {
            if command(&leader, &SystemClock::new(), what.clone()).await.is_err() {
                break;
            }
            acknowledged += 1;
        }
        let is_done = acknowledged == commands.len();
        let written = kv.unsynced_batches();
        let survivors = [Survivors::None, Survivors::All, Survivors::Seed(cut)];
        let disks = survivors.map(|survivors| disk.crash(survivors));
        end(world).await;
        for (survivors, disk) in survivors.iter().zip(&disks) {
            for kept in [0, written.saturating_sub(1), written] {
                // Copies of its own: a replica that starts writes.
                let (names, complaints) = found(disk.crash(Survivors::All), kv.crash(kept)).await;
                let is_after = names == done();
                if !complaints.is_empty() || !(is_after || (names == not_begun() && !is_done)) {
                    return Err(format!(
                        "cut after I/O {cut}, {survivors:?}, {kept} of {written} batches: found {names:?} {complaints:?}, \
                         {acknowledged} acknowledged"
                    ));
                }
                seen[usize::from(is_after)] += 1;
            }
        }
        if is_done {
            return Ok(seen);
        }
    }
    Err(format!("more than {IOS_MAX} I/Os"))
}

/// A folder is shared by no command yet, so the third part of such a commit is a side of its own.
///
/// shows: QAS-015 side=move-rename
#[tokio::test(flavor = "multi_thread")]
async fn after_any_power_cut_a_move_with_a_rename_is_done_or_not_begun() {
    let seen = check_every_cut(&[patch(Some("moved"), Some(TO))]).await;
    let [nothing, all] = seen.unwrap_or_else(|broken| panic!("{broken}"));
    assert!(
        nothing > 0 && all > 0,
        "not begun after {nothing} cuts, done after {all}"
    );
}

/// The planted bug: a move in two commands. The check above must see the state between them.
#[tokio::test(flavor = "multi_thread")]
async fn a_move_in_two_commands_is_caught_half_done() {
    let halves = [patch(None, Some(TO)), patch(Some("moved"), None)];
    let caught = check_every_cut(&halves).await.unwrap_err();
    assert!(caught.contains(r#"[[], ["folder 102"]]"#), "{caught}");
}
