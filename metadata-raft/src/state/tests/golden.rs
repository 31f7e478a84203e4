//! Golden bytes of every stored record: metadata-raft/golden/{records,control}.hex hold what this release writes, for ever readable.
//!
//! After a new table or record: the failing test prints the whole text; lines that are there are never changed.

use super::{Bench, row};
use crate::state::age;
use crate::state::keys;
use crate::state::waiting::{self, AT_ONCE, Sweep};
use bytes::Bytes;
use kv::overlay::Overlay;
use kv::seam::Kv;

const GOLDEN: &str = include_str!("../../../golden/records.hex");
const CONTROL_GOLDEN: &str = include_str!("../../../golden/control.hex");
const FORMAT_PAGE: &str = include_str!("../../../../docs/format/metadata-keys.md");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A state with at least one row in every table of a drive group.
fn furnished() -> Bench {
    let mut bench = Bench::new(1 << 30);
    super::sessions::furnish(&mut bench);
    super::users::furnish(&mut bench);
    let a = bench.mkdir("/a").unwrap();
    bench.mkdir("/a/b").unwrap();
    bench.put("/a/f", None, &[row("x", 10), row("y", 20)]).unwrap();
    let g = bench.put("/g", None, &[row("z", 7)]).unwrap().view.entry.id;
    let c = bench.mkdir("/c").unwrap();
    super::contents::furnish(&mut bench);
    bench.trash(c).unwrap();
    bench.purge(g).unwrap();
    bench.purge(a).unwrap();
    super::staging::furnish(&mut bench);
    enter_at_zero(&bench);
    bench
}

/// Enters what is due at once as earlier releases did, which did not keep when it came.
fn enter_at_zero(bench: &Bench) {
    let slot = bench.drive.slot();
    let now = age::of_slot(&bench.kv, slot).unwrap();
    let mut tx = Overlay::new(&bench.kv);
    for (work, _) in waiting::of_slot(&bench.kv, slot)
        .unwrap()
        .into_iter()
        .filter(|(_, row)| row.due <= now)
    {
        waiting::settle(&mut tx, work, None).unwrap();
        waiting::note(&mut tx, work, AT_ONCE).unwrap();
    }
    let batch = tx.into_batch();
    bench.kv.write(batch).unwrap();
}

/// The rows of a job by when it came, of a bench of its own for the same reason.
fn waiting_rows() -> Vec<(Bytes, Bytes)> {
    let mut bench = Bench::new(1 << 30);
    let a = bench.mkdir("/a").unwrap();
    bench.mkdir("/a/b").unwrap();
    bench.advance(300);
    bench.purge(a).unwrap();
    bench.sound();
    let mut rows = bench.everything();
    let is_job = |key: &[u8]| key[key.len() - 9] == Sweep::Job as u8;
    rows.retain(|(key, _)| [keys::WAITING, keys::DUE].contains(&key[2]) && is_job(key));
    rows
}

/// The row of a stripe that died later than its epoch was closed, of a bench of its own for the same reason.
fn late_rows() -> Vec<(Bytes, Bytes)> {
    let mut bench = Bench::new(1 << 30);
    super::collection::furnish_late(&mut bench);
    bench.sound();
    let mut rows = bench.everything();
    rows.retain(|(key, _)| key[2] == keys::REMOVABLE);
    rows
}

/// The rows beside resumable sessions, of a bench of their own: the lines of all others were written before there were any.
fn resumable_rows() -> Vec<(Bytes, Bytes)> {
    let mut bench = Bench::new(1 << 30);
    super::sessions::furnish_resumable(&mut bench);
    bench.sound();
    let mut rows = bench.everything();
    rows.retain(|(key, _)| key[2] == keys::SESSION_RESUMABLE);
    rows
}

/// The rows of old versions, of a bench of their own for the same reason.
fn version_rows() -> Vec<(Bytes, Bytes)> {
    let mut bench = Bench::new(1 << 30);
    super::versions::furnish(&mut bench);
    bench.sound();
    let mut rows = bench.everything();
    let tables = [
        keys::RETENTION,
        keys::OLD_VERSION,
        keys::OLD_SINCE,
        keys::DROPPED_VERSION,
    ];
    rows.retain(|(key, _)| tables.contains(&key[2]));
    rows
}

/// The rows of a lease and of a disk that must be told, of a bench of their own for the same reason.
fn collection_rows() -> Vec<(Bytes, Bytes)> {
    let mut bench = Bench::new(1 << 30);
    super::collection::furnish(&mut bench);
    bench.sound();
    let mut rows = bench.everything();
    rows.retain(|(key, _)| [keys::LEASE, keys::UNTOLD].contains(&key[2]));
    rows
}

/// The row of a stripe that is to be repacked, of a bench of its own for the same reason.
fn repacking_rows() -> Vec<(Bytes, Bytes)> {
    let mut bench = Bench::new(1 << 30);
    super::repacking::thin(&mut bench);
    bench.sound();
    let mut rows = bench.everything();
    rows.retain(|(key, _)| key[2] == keys::REPACKABLE);
    rows
}

/// The rows of how far dying stripes were queued, of a bench of their own, which is in the middle of it.
fn half_queued_rows() -> Vec<(Bytes, Bytes)> {
    let mut rows = super::collection::half_queued().everything();
    rows.retain(|(key, _)| key[2] == keys::COLLECTION_FILLED);
    rows
}

/// The row of how far inline blocks were entered, of a bench of their own, which is in the middle of it.
fn half_filled_rows() -> Vec<(Bytes, Bytes)> {
    let mut rows = super::packing::half_filled().everything();
    rows.retain(|(key, _)| key[2] == keys::PACKING_FILLED);
    rows
}

/// The rows of these tables as text, against what stands in `golden`.
fn compare(rows: &[(Bytes, Bytes)], is_ours: impl Fn(u8) -> bool, golden: &str) {
    let mut text = String::new();
    for (name, number) in keys::TABLES.iter().filter(|(_, number)| is_ours(*number)) {
        text.push_str(&format!("# {name}\n"));
        let before = text.len();
        for (key, value) in rows.iter().filter(|(key, _)| key[2] == *number) {
            text.push_str(&format!("{} {}\n", hex(key), hex(value)));
        }
        assert!(text.len() > before, "no record in {name}");
    }
    for (wrote, golden) in text.lines().zip(golden.lines()) {
        assert_eq!(
            wrote, golden,
            "a stored format is never edited, only followed; all that was written:\n{text}"
        );
    }
    assert_eq!(
        text.lines().count(),
        golden.lines().count(),
        "all that was written:\n{text}"
    );
}

#[test]
fn stored_records_have_their_golden_bytes() {
    let bench = furnished();
    bench.sound();
    let mut rows = bench.everything();
    rows.extend(resumable_rows());
    rows.extend(version_rows());
    rows.extend(collection_rows());
    rows.extend(repacking_rows());
    rows.extend(half_queued_rows());
    rows.extend(half_filled_rows());
    rows.extend(waiting_rows());
    rows.extend(late_rows());
    // The hours of the bench above are its own: those of an aged feed come behind them.
    rows.extend(super::feed::aged_rows());
    // So are the jobs of the bench above.
    rows.extend(super::rewinds::furnished());
    rows.extend(super::copy_jobs::furnished());
    compare(&rows, |table| table < keys::CLUSTER, GOLDEN);
}

#[test]
fn stored_records_of_the_control_group_have_their_golden_bytes() {
    compare(
        &super::control::furnished(),
        |table| table >= keys::CLUSTER,
        CONTROL_GOLDEN,
    );
}

#[test]
fn every_table_has_a_row_in_the_format_page() {
    for (name, number) in keys::TABLES {
        let row = format!("| {number:#04x} | `{name}` |");
        assert!(
            FORMAT_PAGE.contains(&row),
            "{name} is not in docs/format/metadata-keys.md"
        );
    }
}
