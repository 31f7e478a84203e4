//! The power is cut after every prefix of the I/O of a script: what comes back must be a state that the script passed through, no
//! older than the last acknowledged one. So votes never go back, no acknowledged entry is lost, no hole and no conflict remains.

use crate::raft::journal_stream::JournalStream;
use crate::raft::log_store::RaftLog;
use crate::raft::tests::{entry, log_id, options, vote};
use bytes::Bytes;
use disk::sim::{Faults, Survivors};
use disk::{Disk, DiskError, DiskFile, JournalOptions, SimDisk, Space};
use model::id::GroupId;
use openraft::RaftLogReader;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use std::io;
use std::sync::Arc;

const CAPACITY_BYTES: u64 = 64 << 20;

#[derive(Clone, Copy, Debug)]
enum Op {
    Vote(u64, u64),
    Append(u64, u64, u64),
    TruncateAfter(u64, u64),
    Purge(u64, u64),
    Release,
}

/// Vote, purge point and entries as (term, index) of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct View {
    vote: Option<(u64, u64)>,
    purged: Option<u64>,
    entries: Vec<(u64, u64)>,
}

type Views = [View; 2];

fn change(view: &mut View, op: Op) {
    match op {
        Op::Vote(term, replica) => view.vote = Some((term, replica)),
        Op::Append(term, from, to) => view.entries.extend((from..to).map(|index| (term, index))),
        Op::TruncateAfter(_, last) => view.entries.retain(|(_, index)| *index <= last),
        Op::Purge(_, upto) => {
            view.purged = Some(upto);
            view.entries.retain(|(_, index)| *index > upto);
        }
        Op::Release => {}
    }
}

fn script() -> Vec<(usize, Op)> {
    let mut ops = vec![(0, Op::Vote(1, 1)), (1, Op::Vote(1, 2)), (1, Op::Append(1, 0, 3))];
    for step in 0..6 {
        ops.push((0, Op::Append(1, step * 3, step * 3 + 3)));
    }
    ops.extend([
        (0, Op::Vote(2, 3)),
        (0, Op::TruncateAfter(1, 14)),
        (0, Op::Append(2, 15, 20)),
        (0, Op::Purge(1, 9)),
        (1, Op::Vote(3, 1)),
        (0, Op::Release),
        (0, Op::Append(2, 20, 22)),
        (0, Op::TruncateAfter(2, 18)),
        (1, Op::Append(3, 3, 5)),
        (0, Op::Vote(4, 1)),
        (0, Op::Append(4, 19, 21)),
        (0, Op::Release),
        (1, Op::Append(3, 5, 6)),
    ]);
    ops
}

fn small_segments() -> JournalOptions {
    JournalOptions {
        segment_bytes: 32 << 10,
        ..options()
    }
}

async fn view_of(log: &Arc<RaftLog>) -> Views {
    let mut views = Views::default();
    for (group, view) in views.iter_mut().enumerate() {
        let mut store = log.store_of(GroupId(group as u32));
        view.vote = store
            .read_vote()
            .await
            .unwrap()
            .map(|vote| (vote.leader_id.term, vote.leader_id.voted_for));
        view.purged = store
            .get_log_state()
            .await
            .unwrap()
            .last_purged_log_id
            .map(|at| at.index);
        let entries = store.try_get_log_entries(..).await.unwrap();
        view.entries = entries
            .iter()
            .map(|entry| (entry.log_id.leader_id.term, entry.log_id.index))
            .collect();
    }
    views
}

/// Every state that the script passed through, and which of them was the last that was acknowledged as durable.
struct Run {
    states: Vec<Views>,
    acknowledged: usize,
}

async fn step(log: &Arc<RaftLog>, group: usize, op: Op) -> io::Result<bool> {
    let mut store = log.store_of(GroupId(group as u32));
    match op {
        Op::Vote(term, replica) => store.save_vote(&vote(term, replica)).await.map(|()| true),
        Op::Append(term, from, to) => {
            let appended = store.blocking_append((from..to).map(|index| entry(term, index))).await;
            appended.map(|()| true).map_err(io::Error::other)
        }
        Op::TruncateAfter(term, last) => store.truncate_after(Some(log_id(term, last))).await.map(|()| false),
        Op::Purge(term, upto) => store.purge(log_id(term, upto)).await.map(|()| false),
        Op::Release => log.release_segments(0).await.map(|_| false),
    }
}

async fn run(disk: Arc<dyn Disk>) -> Run {
    let mut run = Run {
        states: vec![Views::default()],
        acknowledged: 0,
    };
    let Ok((log, stream)) = JournalStream::open(disk, "raft", small_segments()) else {
        return run;
    };
    for (group, op) in script() {
        let mut next = run.states.last().cloned().unwrap_or_default();
        change(&mut next[group], op);
        run.states.push(next);
        match step(&log, group, op).await {
            Ok(true) => run.acknowledged = run.states.len() - 1,
            Ok(false) => {}
            Err(_) => break,
        }
    }
    // After a cut the stop fails too; the thread has ended either way.
    drop(stream.stop());
    run
}

/// Whether what `disk` holds is a state of `run` no older than the acknowledged one.
async fn is_kept(run: &Run, disk: SimDisk) -> Result<(), String> {
    let (log, stream) =
        JournalStream::open(Arc::new(disk), "raft", small_segments()).map_err(|error| format!("reopen: {error}"))?;
    let found = view_of(&log).await;
    drop(stream.stop());
    if run.states[run.acknowledged..].contains(&found) {
        return Ok(());
    }
    Err(format!(
        "found {found:?}, acknowledged {:?}",
        run.states[run.acknowledged]
    ))
}

/// shows: F7
#[tokio::test(flavor = "multi_thread")]
async fn after_any_power_cut_the_log_is_one_it_was_and_nothing_acknowledged_is_missing() {
    let whole = SimDisk::new(CAPACITY_BYTES);
    let finished = run(Arc::new(whole.clone())).await;
    assert_eq!(
        finished.states.len(),
        script().len() + 1,
        "without a fault the script runs to its end"
    );
    let mut cuts_with_loss = 0;
    for cut in 0..whole.io_count() {
        let disk = SimDisk::new(CAPACITY_BYTES);
        disk.set_faults(Faults {
            cut_after_io: Some(cut),
            ..Faults::default()
        });
        let run = run(Arc::new(disk.clone())).await;
        cuts_with_loss += usize::from(disk.unsynced().count() > 0);
        let survivors = [
            Survivors::None,
            Survivors::All,
            Survivors::Seed(cut),
            Survivors::Seed(!cut),
        ];
        for survivors in survivors {
            let kept = is_kept(&run, disk.crash(survivors)).await;
            assert_eq!(kept, Ok(()), "cut after I/O {cut}, {survivors:?}");
        }
    }
    assert!(cuts_with_loss > 0, "some cut must have had something to lose");
}

#[tokio::test(flavor = "multi_thread")]
async fn old_segments_go_and_what_they_held_of_idle_groups_is_carried_forward() {
    let disk = SimDisk::new(CAPACITY_BYTES);
    let run = run(Arc::new(disk.clone())).await;
    let segments = disk.list("raft").unwrap();
    let trace = disk.trace();
    assert!(
        trace.iter().any(|line| line.contains("remove")),
        "segments went: {segments:?}"
    );
    assert_eq!(is_kept(&run, disk.crash(Survivors::None)).await, Ok(()));
}

/// A disk whose file syncs do nothing.
struct LyingDisk(SimDisk);

struct LyingFile(Box<dyn DiskFile>);

impl Disk for LyingDisk {
    fn create(&self, name: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        Ok(Box::new(LyingFile(self.0.create(name)?)))
    }
    fn open(&self, name: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        Ok(Box::new(LyingFile(self.0.open(name)?)))
    }
    fn list(&self, dir: &str) -> Result<Vec<String>, DiskError> {
        self.0.list(dir)
    }
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.0.rename(from, to)
    }
    fn remove(&self, name: &str) -> Result<(), DiskError> {
        self.0.remove(name)
    }
    fn sync_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.0.sync_dir(dir)
    }
    fn make_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.0.make_dir(dir)
    }
    fn space(&self) -> Result<Space, DiskError> {
        self.0.space()
    }
}

impl DiskFile for LyingFile {
    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> Result<(), DiskError> {
        self.0.write_at(offset, parts)
    }
    fn read_at(&self, offset: u64, len_bytes: usize) -> Result<Bytes, DiskError> {
        self.0.read_at(offset, len_bytes)
    }
    fn sync(&self) -> Result<(), DiskError> {
        Ok(())
    }
    fn len_bytes(&self) -> Result<u64, DiskError> {
        self.0.len_bytes()
    }
    fn allocate(&self, len_bytes: u64) -> Result<(), DiskError> {
        self.0.allocate(len_bytes)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_catches_votes_and_entries_that_were_not_synced() {
    let disk = SimDisk::new(CAPACITY_BYTES);
    let run = run(Arc::new(LyingDisk(disk.clone()))).await;
    assert!(run.acknowledged > 0);
    assert!(
        is_kept(&run, disk.crash(Survivors::None)).await.is_err(),
        "the planted bug must be seen"
    );
}
