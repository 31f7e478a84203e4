//! The power is cut after every prefix of the I/O of a script: what comes back must be a state that the script passed through, no
//! older than the last acknowledged one. So votes never go back, no acknowledged entry is lost, no hole and no conflict remains.

use crate::raft::journal_stream::JournalStream;
use crate::raft::log_store::RaftLog;
use crate::raft::tests::{entry, log_id, options, vote};
use disk::judged::{Io, Verdict};
use disk::sim::{Faults, Survivors};
use disk::{Disk, JournalOptions, JudgedDisk, SimDisk};
use model::id::GroupId;
use openraft::RaftLogReader;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
    // A purge point that is behind by more than a segment: some segments begin with one whose next entries lie in an older segment.
    for step in 0..12 {
        let upto = 10 + step;
        let term = match upto {
            ..=14 => 1,
            15..=18 => 2,
            _ => 4,
        };
        ops.extend([(0, Op::Append(4, 21 + step, 22 + step)), (0, Op::Purge(term, upto))]);
    }
    ops.extend([(0, Op::Purge(4, 30)), (0, Op::Append(4, 33, 34)), (0, Op::Release)]);
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

/// A mistake made on purpose, in the disk below, so that the suite can show that it would see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plant {
    None,
    /// No sync is done.
    NothingSynced,
    /// The sync of a batch that carries a vote and nothing else is not done.
    VotesUnsynced,
}

/// A batch without records is its mark in three parts, a segment's header is one.
const PARTS_WITHOUT_RECORDS: usize = 3;

/// `disk` with the plant in front of it; the switch says whether what is written now is a vote.
fn planted(disk: &SimDisk, plant: Plant) -> (Arc<dyn Disk>, Arc<AtomicBool>) {
    let (is_vote, carries_records) = (Arc::new(AtomicBool::new(false)), AtomicBool::new(false));
    let writes_vote = Arc::clone(&is_vote);
    let judge = move |io: Io<'_>| {
        if let Io::Write(_, _, parts) = io {
            carries_records.store(parts.len() > PARTS_WITHOUT_RECORDS, Ordering::Relaxed);
        }
        let is_vote_alone = writes_vote.load(Ordering::Relaxed) && carries_records.load(Ordering::Relaxed);
        match (plant, io) {
            (Plant::NothingSynced, Io::Sync(_)) => Verdict::Pretend,
            (Plant::VotesUnsynced, Io::Sync(_)) if is_vote_alone => Verdict::Pretend,
            _ => Verdict::Pass,
        }
    };
    (
        Arc::new(JudgedDisk::new(Arc::new(disk.clone()), Arc::new(judge))),
        is_vote,
    )
}

async fn run(disk: &SimDisk, plant: Plant) -> Run {
    let (disk, is_vote) = planted(disk, plant);
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
        // Each operation is awaited, so none shares its batch with another.
        is_vote.store(matches!(op, Op::Vote(..)), Ordering::Relaxed);
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

/// Cuts the script after each of its I/Os; how many of the cuts had something to lose, or the first promise that was broken.
async fn check_every_cut(plant: Plant) -> Result<usize, String> {
    let whole = SimDisk::new(CAPACITY_BYTES);
    let finished = run(&whole, plant).await;
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
        let run = run(&disk, plant).await;
        cuts_with_loss += usize::from(disk.unsynced().count() > 0);
        let survivors = [
            Survivors::None,
            Survivors::All,
            Survivors::Seed(cut),
            Survivors::Seed(!cut),
        ];
        for survivors in survivors {
            let kept = is_kept(&run, disk.crash(survivors)).await;
            kept.map_err(|lost| format!("cut after I/O {cut}, {survivors:?}: {lost}"))?;
        }
    }
    Ok(cuts_with_loss)
}

/// shows: F7
#[tokio::test(flavor = "multi_thread")]
async fn after_any_power_cut_the_log_is_one_it_was_and_nothing_acknowledged_is_missing() {
    let checked = check_every_cut(Plant::None).await;
    let cuts_with_loss = checked.unwrap_or_else(|lost| panic!("{lost}"));
    assert!(cuts_with_loss > 0, "some cut must have had something to lose");
}

#[tokio::test(flavor = "multi_thread")]
async fn old_segments_go_and_what_they_held_of_idle_groups_is_carried_forward() {
    let disk = SimDisk::new(CAPACITY_BYTES);
    let run = run(&disk, Plant::None).await;
    let segments = disk.list("raft").unwrap();
    let trace = disk.trace();
    assert!(
        trace.iter().any(|line| line.contains("remove")),
        "segments went: {segments:?}"
    );
    assert_eq!(is_kept(&run, disk.crash(Survivors::None)).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_catches_votes_and_entries_that_were_not_synced() {
    let disk = SimDisk::new(CAPACITY_BYTES);
    let run = run(&disk, Plant::NothingSynced).await;
    assert!(run.acknowledged > 0);
    assert!(
        is_kept(&run, disk.crash(Survivors::None)).await.is_err(),
        "the planted bug must be seen"
    );
}

/// Whatever follows a vote in its file syncs it too, so only cuts right behind a vote can show this one.
#[tokio::test(flavor = "multi_thread")]
async fn the_suite_catches_votes_alone_that_were_not_synced() {
    let whole = SimDisk::new(CAPACITY_BYTES);
    let finished = run(&whole, Plant::VotesUnsynced).await;
    assert_eq!(
        is_kept(&finished, whole.crash(Survivors::None)).await,
        Ok(()),
        "at the end of the script nothing is missing"
    );
    let caught = check_every_cut(Plant::VotesUnsynced).await;
    let lost = caught.expect_err("the planted bug must be seen");
    assert!(lost.contains("acknowledged"), "{lost}");
}
