//! Golden bytes of the answers of groups: what was sent by any release reads as the same value, and the value is written as the same
//! bytes.
//!
//! A line of golden/answers.txt is the bytes in hex, a tab, and the value as `Debug` shows it. The values were drawn once, from short
//! streams of small bytes, the longest that decodes for each sort of answer; a sort without a line fails with the line to add. Lines
//! are never changed. Not here: commands and queries (`command_golden`, `metadata_golden`).
#![allow(clippy::unwrap_used, reason = "the whole crate is a test")]

use bytes::Bytes;
use protocol::frame::{decode, decode_prefix, encode};
use protocol::metadata::{CommandAnswer, QueryAnswer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::fmt::Debug;

const GOLDEN: &str = include_str!("../golden/answers.txt");
const COMMAND_ANSWERS: u8 = 12;
const QUERY_ANSWERS: u8 = 45;
const STREAMS: u64 = 20_000;
const STREAM_BYTES: u64 = 500;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Bytes {
    let pairs = text.as_bytes().chunks_exact(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    pairs.map(byte).collect()
}

/// The longest value of this sort among `STREAMS` streams.
fn draw<T: Serialize + DeserializeOwned + Debug>(sort: u8) -> String {
    let small = |seed: u64, at: u64| {
        let hash = model::hash::stable_hash(&[seed.to_le_bytes(), at.to_le_bytes()].concat());
        let palette: &[u8] = [&[0, 1][..], &[0, 1, 2], &[0, 1, 1, 2, 3, b'a', b'7']][(seed % 3) as usize];
        palette[(hash % palette.len() as u64) as usize]
    };
    let drawn = (0..STREAMS).filter_map(|seed| {
        let stream = std::iter::once(sort).chain((0..STREAM_BYTES).map(|at| small(seed, at)));
        let (value, _) = decode_prefix::<T>(&stream.collect::<Bytes>()).ok()?;
        let bytes = encode(&value).ok()?;
        (bytes.len() < 400).then_some((bytes.len(), hex(&bytes), format!("{value:?}")))
    });
    let (_, bytes, shown) = drawn
        .max()
        .unwrap_or_else(|| panic!("no stream is an answer of sort {sort}"));
    format!("{bytes}\t{shown}")
}

fn check<T: Serialize + DeserializeOwned + Debug>(name: &str, sorts: u8) {
    let mut known = BTreeSet::new();
    for line in GOLDEN
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix('\t'))
    {
        let (bytes, shown) = line.split_once('\t').unwrap();
        let bytes = unhex(bytes);
        let value: T = decode(&bytes).unwrap_or_else(|error| panic!("{name} {shown}: {error:?}"));
        assert_eq!(format!("{value:?}"), shown, "the same bytes mean something else");
        assert_eq!(
            encode(&value).unwrap(),
            bytes,
            "the same value has other bytes: {shown}"
        );
        known.insert(bytes[0]);
    }
    let missing = (0..sorts).filter(|sort| !known.contains(sort));
    let lines: Vec<String> = missing.map(|sort| format!("{name}\t{}", draw::<T>(sort))).collect();
    assert!(
        lines.is_empty(),
        "golden/answers.txt lacks these lines:\n{}",
        lines.join("\n")
    );
}

#[test]
fn answers_have_their_golden_bytes_and_read_back() {
    check::<CommandAnswer>("command", COMMAND_ANSWERS);
    check::<QueryAnswer>("query", QUERY_ANSWERS);
    // A sort that was added behind the last one needs a line too.
    let stream = |sort: u8| Bytes::from([vec![sort], vec![0; 600]].concat());
    assert!(decode_prefix::<CommandAnswer>(&stream(COMMAND_ANSWERS)).is_err());
    assert!(decode_prefix::<QueryAnswer>(&stream(QUERY_ANSWERS)).is_err());
}
