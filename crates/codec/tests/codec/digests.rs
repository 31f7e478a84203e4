//! Digests: what they depend on, that the forms are apart, and where pages end.

use crate::samples::{drive_seal, noise};
use codec::digest::{
    FileDigest, Page, PageCutter, block_digest, page_digest, page_ends, request_digest, secret_hash, stripe_hash,
};
use codec::keys::{DigestKey, DriveKey};
use model::digest::Digest;
use model::entry::BlockRow;
use model::limits::{PAGE_BLOCKS_MAX, PAGE_BLOCKS_MIN};
use proptest::prelude::{any, prop, proptest};

fn rows(seed: u64, count: usize) -> Vec<BlockRow> {
    let names = noise(seed, count * 32);
    let row = |(at, name): (usize, &[u8])| BlockRow {
        digest: Digest(name.try_into().unwrap()),
        size: u32::try_from(at).unwrap() + 1,
    };
    names.chunks(32).enumerate().map(row).collect()
}

fn pages(key: &DigestKey, rows: &[BlockRow]) -> Vec<Page> {
    let mut cutter = PageCutter::new(key);
    let mut pages: Vec<Page> = rows.iter().filter_map(|row| cutter.push(*row)).collect();
    pages.extend(cutter.finish());
    pages
}

/// shows: H-P2
/// shows: DM-6
#[test]
fn a_block_is_named_by_its_plaintext_and_its_drive_alone() {
    let seal = drive_seal();
    let other = DriveKey::new([9; 32]).digest_key();
    let plain = noise(1, 1000);
    assert_eq!(seal.digest(&plain), block_digest(seal.digest_key(), &plain));
    assert_ne!(
        seal.digest(&plain),
        block_digest(&other, &plain),
        "another drive's name for the same bytes is another"
    );
    assert_ne!(seal.digest(&plain), seal.digest(&plain[1..]));
    assert_ne!(
        seal.digest(&plain).0,
        *blake3::hash(&plain).as_bytes(),
        "the name does not tell who has a known file"
    );
}

#[test]
fn the_three_keyed_forms_never_name_the_same_bytes_alike() {
    let key = DigestKey::new([3; 32]);
    let rows = rows(1, 1);
    let input = [&rows[0].digest.0[..], &rows[0].size.to_be_bytes()].concat();
    let block = block_digest(&key, &input);
    let page = page_digest(&key, &rows);
    assert_ne!(block, page);
    let mut file = FileDigest::new(&key);
    file.push(&rows[0].digest);
    assert_ne!(file.finish(), block_digest(&key, &rows[0].digest.0));
    let mut of_page = FileDigest::new(&key);
    of_page.push(&page);
    assert_ne!(of_page.finish(), page, "a file of one page is not that page");
    assert_ne!(FileDigest::new(&key).finish(), block_digest(&key, b""));
    assert_ne!(secret_hash(b"x"), request_digest(b"x"));
    assert_ne!(secret_hash(b"x"), stripe_hash(b"x").0);
}

proptest! {
    #[test]
    fn pages_end_where_the_rule_says_and_hold_all_rows(seed in any::<u64>(), count in 0_usize..2500) {
        let key = DigestKey::new([3; 32]);
        let rows = rows(seed, count);
        let pages = pages(&key, &rows);
        assert_eq!(pages.iter().flat_map(|page| page.rows.clone()).collect::<Vec<_>>(), rows);
        for (at, page) in pages.iter().enumerate() {
            assert_eq!(page.digest, page_digest(&key, &page.rows));
            let ends = |upto: usize| {
                let low_bits = u16::from_be_bytes(page.rows[upto - 1].digest.0[30..].try_into().unwrap()) % 128;
                upto == PAGE_BLOCKS_MAX || (upto >= PAGE_BLOCKS_MIN && low_bits == 0)
            };
            assert!((1..page.rows.len()).all(|upto| !ends(upto)), "a page goes on until its first end");
            assert!(at + 1 == pages.len() || ends(page.rows.len()));
        }
    }

    #[test]
    fn a_page_resumed_anywhere_ends_as_if_never_stopped(seed in any::<u64>(), stops in prop::collection::vec(0_usize..900, 0..5)) {
        let key = DigestKey::new([3; 32]);
        let rows = rows(seed, 900);
        let mut cutter = PageCutter::new(&key);
        let mut seen = Vec::new();
        for (at, row) in rows.iter().enumerate() {
            if stops.contains(&at) {
                cutter = PageCutter::resume(&key, cutter.open_rows().to_vec());
            }
            seen.extend(cutter.push(*row));
        }
        seen.extend(cutter.finish());
        assert_eq!(seen, pages(&key, &rows));
    }
}

#[test]
fn an_insertion_in_front_shares_all_later_pages() {
    let key = DigestKey::new([3; 32]);
    let old = rows(8, 4000);
    let new = [&rows(9, 1)[..], &old].concat();
    let (old, new) = (pages(&key, &old), pages(&key, &new));
    let shared = new.iter().filter(|page| old.contains(page)).count();
    assert!(shared + 3 >= old.len(), "{shared} of {} pages are shared", old.len());
}

#[test]
fn a_page_of_the_greatest_length_ends_whatever_the_digest() {
    let odd = Digest([0xff; 32]);
    let zero = Digest([0; 32]);
    assert!(!page_ends(PAGE_BLOCKS_MAX - 1, &odd) && page_ends(PAGE_BLOCKS_MAX, &odd));
    assert!(!page_ends(PAGE_BLOCKS_MIN - 1, &zero) && page_ends(PAGE_BLOCKS_MIN, &zero));
    let mut top_bit = zero;
    top_bit.0[31] = 0x80;
    assert!(page_ends(PAGE_BLOCKS_MIN, &top_bit), "only seven bits are looked at");
    top_bit.0[31] = 0x40;
    assert!(!page_ends(PAGE_BLOCKS_MIN, &top_bit));
}
