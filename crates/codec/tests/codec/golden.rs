//! Golden bytes: what was ever written stays readable, and is written the same (crates/codec/golden/README.md).
//!
//! A difference here means that a stored form changed: it needs a new version byte and a reader of the old form.

use crate::samples::{DRIVE, counting, drive_key, drive_seal, noise};
use bytes::Bytes;
use codec::cut::Cutter;
use codec::digest::{FileDigest, PageCutter, page_digest, stripe_hash};
use codec::erasure::encode;
use codec::fragment::FragmentHeader;
use codec::keys::{Kek, WrappedKey};
use codec::seal::RecordId;
use model::digest::Digest;
use model::entry::BlockRow;
use model::profile::ProfileId;
use model::stripe::{FragmentName, StripeId};
use std::fmt::Write;

const PLAIN: &[u8] = b"Holdfast keeps what it was given.";

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(32) {
        for byte in line {
            write!(text, "{byte:02x}").unwrap();
        }
        text.push('\n');
    }
    text
}

fn unhex(text: &str) -> Vec<u8> {
    let letters: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let digit = |letter: u8| u8::try_from(char::from(letter).to_digit(16).unwrap()).unwrap();
    letters
        .chunks(2)
        .map(|pair| digit(pair[0]) << 4 | digit(pair[1]))
        .collect()
}

fn check(name: &str, written: &str, golden: &str) {
    assert_eq!(written, golden, "golden/{name} differs");
}

fn kek() -> Kek {
    Kek::new(std::array::from_fn(|at| 0x80 + u8::try_from(at).unwrap()))
}

#[test]
fn a_wrapped_drive_key_and_a_kek_file_are_pinned() {
    let golden = include_str!("../../golden/wrapped_drive_key.hex");
    check(
        "wrapped_drive_key.hex",
        &hex(&kek().wrap(DRIVE, &drive_key(), &mut counting()).to_bytes()),
        golden,
    );
    let wrapped = WrappedKey::from_bytes(&unhex(golden)).unwrap();
    assert!(kek().unwrap(DRIVE, &wrapped).unwrap().equals(&drive_key()));
    let golden = include_str!("../../golden/kek_file.txt");
    check("kek_file.txt", &kek().to_file_text(), golden);
    assert_eq!(Kek::from_file_text(golden).unwrap().id(), kek().id());
}

#[test]
fn a_sealed_block_is_pinned() {
    let seal = drive_seal();
    let row = BlockRow {
        digest: seal.digest(PLAIN),
        size: u32::try_from(PLAIN.len()).unwrap(),
    };
    let golden = include_str!("../../golden/sealed_block.hex");
    check(
        "sealed_block.hex",
        &hex(&seal.seal_block(&row.digest, PLAIN, &mut counting())),
        golden,
    );
    assert_eq!(seal.open_block(&row, &unhex(golden)).unwrap(), PLAIN);
}

#[test]
fn a_compressed_block_of_an_earlier_release_opens() {
    // Only opened: another zstd may compress otherwise, and its frames stay readable.
    let seal = drive_seal();
    let plain = PLAIN.repeat(100);
    let row = BlockRow {
        digest: seal.digest(&plain),
        size: u32::try_from(plain.len()).unwrap(),
    };
    let golden = include_str!("../../golden/sealed_block_zstd.hex");
    assert_eq!(unhex(golden)[1], 1, "it is a compressed one");
    assert_eq!(seal.open_block(&row, &unhex(golden)).unwrap(), plain);
}

#[test]
fn a_sealed_tail_is_pinned() {
    let seal = drive_seal();
    let golden = include_str!("../../golden/sealed_tail.hex");
    let (record, sealed) = seal.seal_tail(PLAIN, &mut counting());
    assert_eq!(record, RecordId(std::array::from_fn(|at| u8::try_from(at).unwrap())));
    check("sealed_tail.hex", &hex(&sealed), golden);
    assert_eq!(
        seal.open_tail(&record, u32::try_from(PLAIN.len()).unwrap(), &unhex(golden))
            .unwrap(),
        PLAIN
    );
}

#[test]
fn a_fragment_header_is_pinned() {
    let (form, fragments) = encode(&noise(1, 400_000), 4, 2).unwrap();
    let stripe = StripeId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);
    let name = FragmentName {
        profile: ProfileId::Dev,
        stripe,
        index: 4,
    };
    let golden = include_str!("../../golden/fragment_header.hex");
    let header = FragmentHeader::describe(name, form, &fragments[4]).unwrap();
    check("fragment_header.hex", &hex(&header.to_bytes()), golden);
    assert_eq!(FragmentHeader::from_bytes(&unhex(golden)).unwrap(), header);
    header.verify(&fragments[4]).unwrap();
}

#[test]
fn digests_are_pinned() {
    let seal = drive_seal();
    let key = seal.digest_key();
    let rows = [PLAIN, b"", b"x"].map(|plain| BlockRow {
        digest: seal.digest(plain),
        size: u32::try_from(plain.len()).unwrap(),
    });
    let page = page_digest(key, &rows);
    let mut file = FileDigest::new(key);
    let empty = file.finish();
    file.push(&page);
    file.push(&page_digest(key, &rows[..1]));
    let lines = [
        ("digest key", Digest(*key.expose())),
        ("block", rows[0].digest),
        ("block empty", rows[1].digest),
        ("block x", rows[2].digest),
        ("page", page),
        ("file", file.finish()),
        ("file empty", empty),
        ("stripe hash", Digest(stripe_hash(PLAIN).0)),
    ];
    let written: String = lines
        .iter()
        .map(|(name, digest)| format!("{name} = {}\n", digest.to_hex()))
        .collect();
    check("digests.txt", &written, include_str!("../../golden/digests.txt"));
}

#[test]
fn cut_points_and_page_ends_of_a_seeded_input_are_pinned() {
    let mut cutter = Cutter::new();
    let mut blocks = cutter.push(noise(42, 24 << 20));
    blocks.extend(cutter.finish());
    let mut written = String::new();
    for block in &blocks {
        writeln!(written, "block {}", block.len()).unwrap();
    }
    let seal = drive_seal();
    let mut pages = PageCutter::new(seal.digest_key());
    let rows = (0..1000_u32).map(|size| BlockRow {
        digest: seal.digest(&size.to_be_bytes()),
        size,
    });
    let mut ended: Vec<_> = rows.filter_map(|row| pages.push(row)).collect();
    ended.extend(pages.finish());
    for page in ended {
        writeln!(written, "page {} {}", page.rows.len(), page.digest.to_hex()).unwrap();
    }
    check("cut_points.txt", &written, include_str!("../../golden/cut_points.txt"));
}

#[test]
fn fragments_of_a_short_stripe_are_pinned_for_every_profile() {
    let stripe = Bytes::from_static(b"0123456789");
    let mut written = String::new();
    for profile in ProfileId::ALL.map(ProfileId::profile) {
        let (_, fragments) = encode(&stripe, profile.k, profile.m).unwrap();
        for (index, fragment) in fragments.iter().enumerate() {
            write!(written, "{} {index} {}", profile.id, hex(fragment)).unwrap();
        }
    }
    check("fragments.txt", &written, include_str!("../../golden/fragments.txt"));
}

#[test]
fn the_worked_examples_of_docs_format_are_the_golden_bytes() {
    let pages = [
        include_str!("../../../../docs/format/sealed.md"),
        include_str!("../../../../docs/format/digests.md"),
        include_str!("../../../../docs/format/stripe.md"),
        include_str!("../../../../docs/format/fragment.md"),
    ]
    .concat();
    let letters = |text: &str| {
        text.chars()
            .filter(|letter| !letter.is_ascii_whitespace())
            .collect::<String>()
    };
    let pages = letters(&pages);
    let digests = include_str!("../../golden/digests.txt");
    let dev = include_str!("../../golden/fragments.txt")
        .lines()
        .filter(|line| line.starts_with("dev"));
    let shown = digests
        .lines()
        .filter_map(|line| line.split_once(" = "))
        .map(|(_, digest)| digest)
        .chain(dev)
        .chain([
            include_str!("../../golden/sealed_block.hex"),
            include_str!("../../golden/sealed_tail.hex"),
            include_str!("../../golden/wrapped_drive_key.hex"),
            include_str!("../../golden/fragment_header.hex"),
        ]);
    for golden in shown {
        assert!(pages.contains(&letters(golden)), "docs/format does not show {golden}");
    }
}
