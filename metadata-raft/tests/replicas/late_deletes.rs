//! A leader that was cut off while it was told to delete: nothing goes, neither then nor once it is back.
//!
//! The product's own deletes (into the trash, and for good from the tree and from the trash) through the whole replica: its log, its
//! disk, its state machine.
//! Not here: reads of such a leader (`group/tests/reads.rs`); removal on storage nodes, which goes by leases (`state/collection.rs`).

use crate::drive::{Drive, GROUP, names};
use crate::world::{PATIENCE, Wires, World, propose};
use model::error_kind::ErrorKind;
use model::id::EntryId;
use model::name::EntryName;
use protocol::metadata::drive::{DriveCommand, PatchTo};
use protocol::metadata::{Command, CommandAnswer, QueryAnswer, RequestKey, RequestLife};
use protocol::wire_error::Failure;
use std::time::Duration;

const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The folder of this number, as `Drive::folder` makes it.
fn entry(drive: &Drive, number: u64) -> EntryId {
    EntryId {
        drive: drive.drive,
        number: number + 1_000,
    }
}

fn trash(drive: &Drive, number: u64) -> Command {
    Command::Drive(DriveCommand::TrashEntry {
        principal: drive.principal,
        entry: entry(drive, number),
        base_revision: None,
    })
}

fn purge(drive: &Drive, number: u64) -> Command {
    Command::Drive(DriveCommand::PurgeEntry {
        principal: drive.principal,
        entry: entry(drive, number),
        base_revision: None,
        job: number,
    })
}

/// Done once, however often it is asked for.
fn key(id: u128) -> Option<RequestKey> {
    Some(RequestKey {
        source: 1,
        id,
        asked: [7; 32],
        life: RequestLife::Hour,
        made_hour: None,
    })
}

/// Commands the other replicas until one of them has done it as the new leader.
async fn succeeded(world: &World, old: u64, id: u128, command: &Command) {
    let done = async {
        loop {
            for number in world.numbers().into_iter().filter(|number| *number != old) {
                let service = world.replica(number).service.clone();
                if propose(&service, GROUP, key(id), command).await.is_ok() {
                    return;
                }
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    tokio::time::timeout(PATIENCE, done).await.unwrap();
}

/// The root's names as one replica shows them.
async fn names_at(world: &World, drive: &Drive, number: u64) -> Vec<String> {
    let asked = async {
        loop {
            // Who has just heard of another leader may refuse; what it answers is complete.
            if let Ok(QueryAnswer::Listing(listing)) = world.query_at(number, GROUP, &drive.listing()).await {
                let names = listing.entries.into_iter().map(|entry| entry.name);
                return names.collect::<Vec<String>>();
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap()
}

/// Whether a delete was refused only after it had come into the old leader's log, from where it may have gone on for all that one
/// knows; anything else was refused at once.
fn came_into_log(answer: Result<CommandAnswer, Failure>) -> bool {
    let failure = answer.expect_err("no majority can have confirmed it");
    assert!(
        matches!(failure.kind, ErrorKind::Ambiguous | ErrorKind::Unavailable),
        "{failure}"
    );
    failure.kind == ErrorKind::Ambiguous
}

/// shows: F11
#[tokio::test(flavor = "multi_thread")]
async fn deletes_at_a_leader_that_was_cut_off_are_refused_and_nothing_is_gone() {
    let world = World::up(Wires::memory(), 3, 1).await;
    let drive = Drive::create(&world).await;
    drive.make(&world, 0..5).await;
    world.command(GROUP, key(1), &trash(&drive, 4)).await.unwrap();
    assert_eq!(drive.names(&world).await, names(0..4));

    // Told while it still believes to lead: they come into its log and no further.
    let old = world.leader(GROUP).await;
    let service = world.replica(old).service.clone();
    let before = service.groups()[&GROUP].status();
    world.cut(old);
    let early: Vec<_> = [trash(&drive, 0), purge(&drive, 1), purge(&drive, 4)]
        .into_iter()
        .map(|command| {
            let service = service.clone();
            tokio::spawn(async move { propose(&service, GROUP, None, &command).await })
        })
        .collect();
    let rename = Command::Drive(DriveCommand::PatchEntry {
        principal: drive.principal,
        entry: entry(&drive, 0),
        base_revision: None,
        to: PatchTo::Parts {
            name: Some(EntryName::new("kept").unwrap()),
            parent: None,
        },
    });
    succeeded(&world, old, 2, &rename).await;
    // And when there is a new one of a later term already.
    let late = propose(&service, GROUP, None, &purge(&drive, 2)).await;
    let written = service.groups()[&GROUP].status().last_index;
    assert!(written > before.last_index, "{before:?}, then {written:?}");
    world.mend();

    let mut in_log = usize::from(came_into_log(late));
    for told in early {
        in_log += usize::from(came_into_log(told.await.unwrap()));
    }
    assert!(in_log > 0, "no delete came into the log of the old leader");
    for number in world.numbers() {
        world.settle(number).await;
        assert!(!world.is_stopped(number), "replica {number} was ended");
        let mut expected = names(1..4);
        expected.push("kept".to_owned());
        assert_eq!(names_at(&world, &drive, number).await, expected, "replica {number}");
    }
    let restore = Command::Drive(DriveCommand::RestoreEntry {
        principal: drive.principal,
        entry: entry(&drive, 4),
        parent: None,
        name: None,
    });
    let restored = world.command(GROUP, key(3), &restore).await.unwrap();
    assert!(matches!(restored, CommandAnswer::Entry(_)), "{restored:?}");
    // The same delete at whoever leads now, so that it is the term and not the command which was refused.
    world.command(GROUP, key(4), &purge(&drive, 2)).await.unwrap();
    let mut expected = names(1..5);
    expected.remove(1);
    expected.push("kept".to_owned());
    assert_eq!(drive.names(&world).await, expected);
}
