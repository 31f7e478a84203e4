//! A mix as people have it: few large files are most of the bytes, many small ones most of the calls.
//!
//! All of it goes in at once, and comes out at once, so that each kind meets the other. A figure has calls and bytes a second; its
//! median is of small files, since most are.
//! Not here: files of one size (`load`), small ones in batches (`file_batches`), what the mix takes on disks (`delta::mix`).

use super::figure::Figure;
use super::load::{self, Content};
use super::watch::ClusterWatch;
use anyhow::{Context, ensure};
use client_sdk::client::Client;

const FOLDER: &str = "/bench/mix";
const AT_ONCE: usize = 16;
/// At most so long is small, at least so long is large.
const SMALL_BYTES_MAX: u64 = 64 << 10;
const LARGE_BYTES_MIN: u64 = 64 << 20;
const MIDDLE_BYTES_MIN: u64 = 256 << 10;
/// Of all files are small, and of all bytes lie in large ones.
const SMALL_PERCENT_MIN: f64 = 90.0;
const LARGE_PERCENT_MIN: f64 = 80.0;
/// Files, and large ones among them.
pub(crate) const FULL: (u64, u64) = (1_000, 8);
const QUICK: (u64, u64) = (100, 1);
/// Of so many files one is neither small nor large.
const MIDDLE_EACH: u64 = 12;

/// Puts the mix and fetches it, each reported by calls and by bytes a second. Run by `make bench`.
///
/// shows: A-2
pub(super) async fn run(client: &Client, watch: &ClusterWatch, quick: bool, seed: u64) -> anyhow::Result<[Figure; 2]> {
    let lengths = lengths(if quick { QUICK } else { FULL });
    let (small, large) = shares(&lengths);
    println!("mix: {small:.0} % of the files are small, {large:.0} % of the bytes are of large ones");
    ensure!(
        small >= SMALL_PERCENT_MIN && large >= LARGE_PERCENT_MIN,
        "the mix is not of {SMALL_PERCENT_MIN} % small files and {LARGE_PERCENT_MIN} % of the bytes in large ones"
    );
    client.make_folder(FOLDER).await.context("make the folder of the mix")?;
    let contents = tokio::task::spawn_blocking(move || contents(&lengths, seed)).await?;
    let (put, stored) = load::store_as(client, watch, "mix, PUT".to_owned(), AT_ONCE, contents).await?;
    let get = load::fetch_as(client, watch, "mix, GET".to_owned(), AT_ONCE, stored).await?;
    Ok([put, get])
}

/// The lengths of all files, large ones spread evenly.
pub(crate) fn lengths((files, large): (u64, u64)) -> Vec<u64> {
    let length = |number: u64| {
        if number.is_multiple_of(files / large) {
            LARGE_BYTES_MIN
        } else if number % MIDDLE_EACH == MIDDLE_EACH / 2 {
            MIDDLE_BYTES_MIN << (number / MIDDLE_EACH % 4)
        } else {
            // From 1 KiB on, each length as often as the others.
            SMALL_BYTES_MAX >> (number % 7)
        }
    };
    (0..files).map(length).collect()
}

/// Small ones of all files, and bytes of large ones of all bytes, in percent.
fn shares(lengths: &[u64]) -> (f64, f64) {
    let small = lengths.iter().filter(|length| **length <= SMALL_BYTES_MAX).count();
    let large: u64 = lengths.iter().filter(|length| **length >= LARGE_BYTES_MIN).sum();
    let all: u64 = lengths.iter().sum();
    (
        small as f64 * 100.0 / lengths.len() as f64,
        large as f64 * 100.0 / all as f64,
    )
}

fn contents(lengths: &[u64], seed: u64) -> Vec<Content> {
    let contents = (0_u64..).zip(lengths).map(|(number, length)| {
        let path = format!("{FOLDER}/{number:05}");
        load::content(path, *length, seed.wrapping_add(number))
    });
    contents.collect()
}

#[cfg(test)]
mod tests {
    use super::{FULL, LARGE_PERCENT_MIN, QUICK, SMALL_PERCENT_MIN, lengths, shares};

    #[test]
    fn nine_of_ten_files_are_small_and_four_fifths_of_the_bytes_are_of_large_ones() {
        for sizes in [FULL, QUICK] {
            let lengths = lengths(sizes);
            assert_eq!(lengths.len() as u64, sizes.0);
            let (small, large) = shares(&lengths);
            assert!(
                small >= SMALL_PERCENT_MIN && large >= LARGE_PERCENT_MIN,
                "{small} {large}"
            );
        }
    }

    #[test]
    fn shares_are_of_files_and_of_bytes() {
        assert_eq!(shares(&[64 << 20, 64 << 10, 64 << 10, 65 << 10]).0, 50.0);
        assert_eq!(shares(&[64 << 20, 64 << 20]), (0.0, 100.0));
        let (small, large) = shares(&[1 << 20, (64 << 20) - 1]);
        assert_eq!((small, large), (0.0, 0.0));
    }
}
