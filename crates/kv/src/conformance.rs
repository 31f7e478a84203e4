//! What every store behind the seam must do, checked alike on RocksDB and on memory.
//!
//! Panics with what was expected; for tests only. Durability is each implementation's own test, since only memory can be cut off.

use crate::seam::{Batch, Change, Kv, KvRead, Scan};
use bytes::Bytes;
use std::ops::Bound;

/// Runs every case, each on a fresh and empty store from `open`.
///
/// # Panics
/// When a case fails.
pub fn check_all(open: &mut dyn FnMut() -> Box<dyn Kv>) {
    a_batch_applies_in_order(open().as_ref());
    bounds_and_directions_are_kept(open().as_ref());
    an_empty_range_has_no_rows(open().as_ref());
    a_removed_range_spares_its_end(open().as_ref());
    a_snapshot_does_not_move(open().as_ref());
    keys_are_ordered_as_bytes(open().as_ref());
}

fn put(key: &[u8], value: &[u8]) -> Change {
    Change::Put(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value))
}

fn filled(store: &dyn Kv, keys: &[&[u8]]) {
    let batch: Batch = keys.iter().map(|key| put(key, key)).collect();
    let written = store.write(batch);
    assert!(written.is_ok(), "write: {written:?}");
    let synced = store.sync();
    assert!(synced.is_ok(), "sync: {synced:?}");
}

fn keys(store: &dyn KvRead, scan: &Scan) -> Vec<Vec<u8>> {
    let rows = store.scan(scan);
    assert!(rows.is_ok(), "scan: {rows:?}");
    rows.into_iter().flatten().map(|(key, _)| key.to_vec()).collect()
}

fn value(store: &dyn KvRead, key: &[u8]) -> Option<Vec<u8>> {
    let value = store.get(key);
    assert!(value.is_ok(), "get: {value:?}");
    value.ok().flatten().map(|value| value.to_vec())
}

fn a_batch_applies_in_order(store: &dyn Kv) {
    let batch = vec![
        put(b"a", b"1"),
        put(b"a", b"2"),
        put(b"b", b"1"),
        Change::Delete(Bytes::from_static(b"b")),
    ];
    assert!(store.write(batch).is_ok());
    assert_eq!(value(store, b"a").as_deref(), Some(b"2".as_slice()));
    assert_eq!(value(store, b"b"), None);
    assert!(store.write(vec![put(b"e", b"")]).is_ok());
    assert_eq!(
        value(store, b"e").as_deref(),
        Some(b"".as_slice()),
        "an empty value is a value"
    );
    assert!(store.write(vec![Change::Delete(Bytes::from_static(b"absent"))]).is_ok());
}

fn bounds_and_directions_are_kept(store: &dyn Kv) {
    filled(store, &[b"a", b"b", b"c", b"d"]);
    let key = Bytes::from_static;
    let cases: [(Bound<Bytes>, Bound<Bytes>, &str); 6] = [
        (Bound::Unbounded, Bound::Unbounded, "abcd"),
        (Bound::Included(key(b"b")), Bound::Included(key(b"c")), "bc"),
        (Bound::Excluded(key(b"b")), Bound::Included(key(b"c")), "c"),
        (Bound::Included(key(b"b")), Bound::Excluded(key(b"c")), "b"),
        (Bound::Excluded(key(b"a")), Bound::Unbounded, "bcd"),
        (Bound::Unbounded, Bound::Excluded(key(b"bb")), "ab"),
    ];
    for (from, to, expected) in cases {
        for rows_max in 0..5 {
            let scan = Scan {
                from: from.clone(),
                to: to.clone(),
                is_reverse: false,
                rows_max,
            };
            let upwards: Vec<Vec<u8>> = expected.bytes().take(rows_max).map(|byte| vec![byte]).collect();
            assert_eq!(keys(store, &scan), upwards, "{scan:?}");
            let downwards: Vec<Vec<u8>> = expected.bytes().rev().take(rows_max).map(|byte| vec![byte]).collect();
            assert_eq!(keys(store, &scan.clone().reversed()), downwards, "{scan:?} reversed");
        }
    }
    assert_eq!(keys(store, &Scan::prefix(b"", 9).after(b"b")), [b"c", b"d"]);
}

fn an_empty_range_has_no_rows(store: &dyn Kv) {
    filled(store, &[b"a", b"b"]);
    let key = Bytes::from_static;
    for (from, to) in [
        (Bound::Included(key(b"b")), Bound::Excluded(key(b"a"))),
        (Bound::Excluded(key(b"a")), Bound::Excluded(key(b"a"))),
        (Bound::Included(key(b"b")), Bound::Included(key(b"a"))),
        (Bound::Unbounded, Bound::Excluded(key(b""))),
    ] {
        for is_reverse in [false, true] {
            let scan = Scan {
                from: from.clone(),
                to: to.clone(),
                is_reverse,
                rows_max: 9,
            };
            assert!(keys(store, &scan).is_empty(), "{scan:?}");
        }
    }
}

fn a_removed_range_spares_its_end(store: &dyn Kv) {
    filled(store, &[b"a", b"b", b"c", b"d"]);
    let range = Change::DeleteRange(Bytes::from_static(b"b"), Bytes::from_static(b"d"));
    assert!(store.write(vec![range, put(b"c", b"again")]).is_ok());
    assert_eq!(keys(store, &Scan::prefix(b"", 9)), [b"a", b"c", b"d"]);
    let backwards = Change::DeleteRange(Bytes::from_static(b"d"), Bytes::from_static(b"a"));
    assert!(
        store.write(vec![backwards]).is_ok(),
        "a range that ends before it begins removes nothing"
    );
    assert_eq!(keys(store, &Scan::prefix(b"", 9)).len(), 3);
}

fn a_snapshot_does_not_move(store: &dyn Kv) {
    filled(store, &[b"a", b"b"]);
    let snapshot = store.snapshot();
    assert!(
        store
            .write(vec![put(b"c", b""), Change::Delete(Bytes::from_static(b"a"))])
            .is_ok()
    );
    assert_eq!(keys(snapshot.as_ref(), &Scan::prefix(b"", 9)), [b"a", b"b"]);
    assert_eq!(value(snapshot.as_ref(), b"c"), None);
    assert_eq!(keys(store, &Scan::prefix(b"", 9)), [b"b", b"c"]);
}

fn keys_are_ordered_as_bytes(store: &dyn Kv) {
    filled(store, &[&[0xff, 0xff], &[0], &[0x7f], &[0xff], &[0, 0], &[0x80]]);
    let expected: [&[u8]; 6] = [&[0], &[0, 0], &[0x7f], &[0x80], &[0xff], &[0xff, 0xff]];
    assert_eq!(keys(store, &Scan::prefix(b"", 9)), expected);
    assert_eq!(keys(store, &Scan::prefix(&[0xff], 9)), [&[0xff_u8][..], &[0xff, 0xff]]);
}
