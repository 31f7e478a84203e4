//! One entry as a register: changed only from the revision that was read, by many, under partitions and wrong clocks.
//!
//! The register is linearizable when each revision is followed by exactly one change that succeeded, and no read is older than what
//! anybody was told before it began. Outcomes are never unknown here: each change is repeated under its request id until answered.

use crate::drive::{Drive, GROUP};
use crate::world::{Wires, World};
use model::id::EntryId;
use model::name::EntryName;
use model::time::WallTime;
use protocol::metadata::drive::{DriveCommand, EntryRef, PatchTo};
use protocol::metadata::query::{DriveAsk, DriveQuery};
use protocol::metadata::{Command, CommandAnswer, Query, QueryAnswer, RequestKey, RequestLife};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const CLIENTS: u64 = 6;
const CHANGES: u64 = 20;
const DAY_MS: u64 = 86_400_000;
/// Some time in 2026.
const NOW_MS: u64 = 1_795_000_000_000;

struct Register {
    world: World,
    drive: Drive,
    entry: EntryId,
    /// The greatest revision that anybody was told.
    told: AtomicU64,
    /// Revisions that a change succeeded to.
    made: Mutex<BTreeSet<u64>>,
    conflicts: AtomicU64,
    followers_asked: AtomicU64,
}

impl Register {
    /// The present revision, from the replica of this number if it answers, else from whoever does.
    async fn read(&self, at: u64) -> u64 {
        let before = self.told.load(Ordering::SeqCst);
        let query = Query::Drive(DriveQuery {
            drive: self.drive.drive,
            principal: Some(self.drive.principal),
            ask: DriveAsk::Get(EntryRef::Id(self.entry)),
        });
        let near = tokio::time::timeout(Duration::from_millis(300), self.world.query_at(at, GROUP, &query)).await;
        let answer = match near {
            Ok(Ok(answer)) => {
                self.followers_asked.fetch_add(1, Ordering::Relaxed);
                answer
            }
            _ => self.world.query(GROUP, &query).await.unwrap(),
        };
        let QueryAnswer::Entry(view) = answer else {
            panic!("{answer:?}")
        };
        let revision = view.entry.revision;
        assert!(
            revision >= before,
            "read {revision} at replica {at} after {before} was told"
        );
        self.told.fetch_max(revision, Ordering::SeqCst);
        revision
    }

    async fn change(&self, client: u64, number: u64, base: u64) {
        let command = Command::Drive(DriveCommand::PatchEntry {
            principal: self.drive.principal,
            entry: self.entry,
            base_revision: Some(base),
            to: PatchTo::Parts {
                name: Some(EntryName::new(&format!("by {client} {number}")).unwrap()),
                parent: None,
            },
        });
        let key = RequestKey {
            source: client,
            id: u128::from(number),
            asked: [7; 32],
            life: RequestLife::Hour,
            made_hour: None,
        };
        // A day or sixty too early or too late, by client.
        let days = [0, 1, 60][client as usize % 3] * DAY_MS;
        let wall = WallTime(if number.is_multiple_of(2) {
            NOW_MS - days
        } else {
            NOW_MS + days
        });
        match self.world.command_at(wall, GROUP, Some(key), &command).await {
            Ok(CommandAnswer::Entry(changed)) => {
                let revision = changed.view.entry.revision;
                assert_eq!(revision, base + 1);
                assert!(
                    self.made.lock().unwrap().insert(revision),
                    "two changed revision {base}"
                );
                self.told.fetch_max(revision, Ordering::SeqCst);
            }
            Err(failure) if failure.code == "revision_conflict" => {
                self.conflicts.fetch_add(1, Ordering::Relaxed);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Cuts replicas off, one after the other, until it is over; answers how often.
async fn cut_and_mend(register: Arc<Register>, is_over: Arc<AtomicBool>) -> u64 {
    let mut cuts = 0;
    while !is_over.load(Ordering::Relaxed) {
        // In turn whoever leads, and any.
        let away = match cuts % 2 {
            0 => register.world.leader(GROUP).await,
            _ => cuts % 3 + 1,
        };
        register.world.cut(away);
        tokio::time::sleep(Duration::from_millis(900)).await;
        register.world.mend();
        tokio::time::sleep(Duration::from_millis(600)).await;
        cuts += 1;
    }
    cuts
}

/// shows: F9
/// shows: F10 side=clocks
/// shows: D-2.8 scale=1/2
#[tokio::test(flavor = "multi_thread")]
async fn a_register_changed_under_partitions_and_wrong_clocks_is_linearizable() {
    let world = World::up(Wires::memory(), 3, 1).await;
    let drive = Drive::create(&world).await;
    drive.make(&world, 0..1).await;
    let register = Arc::new(Register {
        entry: EntryId {
            drive: drive.drive,
            number: 1_000,
        },
        world,
        drive,
        told: AtomicU64::new(0),
        made: Mutex::default(),
        conflicts: AtomicU64::new(0),
        followers_asked: AtomicU64::new(0),
    });
    let first = register.read(1).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let nemesis = tokio::spawn(cut_and_mend(register.clone(), is_over.clone()));
    let clients: Vec<_> = (1..=CLIENTS)
        .map(|client| {
            let register = register.clone();
            tokio::spawn(async move {
                for number in 0..CHANGES {
                    let base = register.read((client + number) % 3 + 1).await;
                    register.change(client, number, base).await;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    is_over.store(true, Ordering::Relaxed);
    let cuts = nemesis.await.unwrap();
    let last = register.read(2).await;
    let made = register.made.lock().unwrap().clone();
    assert_eq!(
        made,
        (first + 1..=last).collect(),
        "each revision was made by one change"
    );
    let (conflicts, near) = (
        register.conflicts.load(Ordering::Relaxed),
        register.followers_asked.load(Ordering::Relaxed),
    );
    assert_eq!(made.len() as u64 + conflicts, CLIENTS * CHANGES);
    assert!(
        cuts >= 2 && conflicts > 0 && made.len() > 20 && near > 30,
        "{cuts} cuts, {conflicts} conflicts, {near} reads"
    );
}
