//! How what an edit transfers, and what the server computes for it, grows with the file around it (QAS-010, D-2.3).
//!
//! The same megabytes are edited in files of all sizes: a core with a file's own bytes around it, at a place that a seed decides. So
//! the blocks around an edit are cut alike wherever it lies, and what differs between sizes is what the size costs; edits of
//! unrelated contents would differ by more than that by chance alone. Each size has a drive of its own: a drive that has the blocks of an
//! edit from another size would not be sent them.
//! Not here: how an edit is made and compared (`edit`).

use super::edit::{EditedFile, Link};
use super::finding::{Finding, median};
use super::patched::{Content, Patch};
use crate::content::SeededContent;
use crate::dev_cluster::DevCluster;
use crate::open_loop::senders;
use crate::table;
use anyhow::ensure;
use bytes::{Bytes, BytesMut};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

const MB: u64 = 1_000_000;
const FOLDER: &str = "/growth";
/// Of the files: from the least to the largest of QAS-010.
pub(super) const SIZES_MB: [u64; 4] = [10, 50, 200, 1_000];
/// Edits of each file.
pub(super) const SEEDS: u64 = 50;
/// The smallest file is nothing but the core.
const CORE_BYTES: u64 = SIZES_MB[0] * MB;
const EDIT_BYTES: u64 = MB;
/// Where in the core edits begin: some blocks before and behind them lie in the core too.
const EDITS_FROM: u64 = 3 * MB;
const EDITS_UNTIL: u64 = 6 * MB + MB / 2;
/// QAS-010: 10^-4 of a byte for each byte.
const GROWTH_BYTES_PER_MB_MAX: f64 = 100.0;
/// D-2.3 asks for none; a hundred times the file has a hundred times the rows to tell pages of, and CPU time is counted in ticks.
const CPU_GROWTH_MAX: f64 = 1.5;

/// One direction: its name, and what it moved.
type Way = (&'static str, fn(&Mean) -> f64);

/// What edits of a file of one size transfer on average.
#[derive(Clone, Copy, Debug)]
struct Mean {
    file_bytes: f64,
    sent_bytes: f64,
    fetched_bytes: f64,
    median_ms: f64,
    /// Of the cluster, for what is sent.
    cpu_ms: f64,
}

/// Makes `seeds` edits of a file of each size.
///
/// Run by `make delta`.
pub(super) async fn measure(
    cluster: &DevCluster,
    sizes_mb: &[u64],
    seeds: u64,
    seed: u64,
) -> anyhow::Result<Vec<Finding>> {
    let tokens = senders::sign_up(cluster, sizes_mb.len(), FOLDER).await?;
    let core = bytes(seed, CORE_BYTES);
    let mut means = Vec::new();
    for (size_mb, token) in sizes_mb.iter().zip(&tokens) {
        let link = Link::of(cluster, token).await?;
        let mean = of_size(&link, &core, size_mb * MB, seeds).await?;
        println!(
            "{seeds} edits of {size_mb} MB: {} sent, {} fetched on average, {:.0} ms, {:.0} ms of the cluster's CPU time",
            table::bytes(mean.sent_bytes as u64),
            table::bytes(mean.fetched_bytes as u64),
            mean.median_ms,
            mean.cpu_ms
        );
        means.push(mean);
    }
    Ok(judge(&means))
}

async fn of_size(link: &Link, core: &Bytes, file_bytes: u64, seeds: u64) -> anyhow::Result<Mean> {
    // The bytes around the core are of this file alone.
    let mut places = ChaCha8Rng::seed_from_u64(file_bytes);
    let room = file_bytes.saturating_sub(CORE_BYTES);
    let content = Content {
        seed: file_bytes,
        seeded_bytes: file_bytes,
        patches: vec![Patch {
            at: places.next_u64() % (room + 1),
            removed: CORE_BYTES,
            put: core.clone(),
        }],
    };
    let mut file = EditedFile::put(link, &format!("{FOLDER}/{file_bytes}.bin"), content).await?;
    let (mut sent, mut fetched, mut took_ms, mut cpu_s) = (0, 0, Vec::new(), 0.0);
    for seed in 0..seeds {
        let mut edited = file.content().clone();
        if let Some(patch) = edited.patches.first_mut() {
            patch.put = edited_core(core, seed);
        }
        let edit = file.edit(link, &edited).await?;
        ensure!(
            edit.sent.block_bytes >= EDIT_BYTES && edit.fetched.block_bytes >= EDIT_BYTES,
            "less than the edit has travelled: {edit:?}"
        );
        sent += edit.sent.wire_bytes;
        fetched += edit.fetched.wire_bytes;
        took_ms.push(edit.took.as_secs_f64() * 1e3);
        cpu_s += edit.cpu_s;
    }
    Ok(Mean {
        file_bytes: file_bytes as f64,
        sent_bytes: sent as f64 / seeds as f64,
        fetched_bytes: fetched as f64 / seeds as f64,
        median_ms: median(took_ms),
        cpu_ms: cpu_s * 1e3 / seeds as f64,
    })
}

/// The core with a megabyte replaced; place and bytes follow from `seed` alone, so they are the same in files of all sizes.
fn edited_core(core: &Bytes, seed: u64) -> Bytes {
    let place = EDITS_FROM + ChaCha8Rng::seed_from_u64(seed).next_u64() % (EDITS_UNTIL - EDITS_FROM);
    let first = usize::try_from(place).unwrap_or(usize::MAX);
    let put = bytes(!seed, EDIT_BYTES);
    let mut edited = BytesMut::from(&core[..]);
    edited[first..first + put.len()].copy_from_slice(&put);
    edited.freeze()
}

fn bytes(seed: u64, count: u64) -> Bytes {
    let mut content = SeededContent::new(seed, count);
    let mut bytes = BytesMut::new();
    while let Some(part) = content.next_part() {
        bytes.extend_from_slice(&part);
    }
    bytes.freeze()
}

fn judge(means: &[Mean]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let ways: [Way; 2] = [("sent", |mean| mean.sent_bytes), ("fetched", |mean| mean.fetched_bytes)];
    for (way, of) in ways {
        let points: Vec<(f64, f64)> = means.iter().map(|mean| (mean.file_bytes, of(mean))).collect();
        findings.push(Finding::at_most(
            format!("a megabyte edited: {way}, growth with the file"),
            slope(&points) * MB as f64,
            "bytes a MB",
            GROWTH_BYTES_PER_MB_MAX,
        ));
    }
    // Files of one size show nothing, and no number says so.
    let ends = means.first().zip(means.last());
    let ends = ends.filter(|(first, last)| first.file_bytes < last.file_bytes);
    findings.push(Finding::at_most(
        "a megabyte edited: server's CPU time, the last file's of the first's",
        ends.map_or(f64::NAN, |(first, last)| last.cpu_ms / first.cpu_ms),
        "times",
        CPU_GROWTH_MAX,
    ));
    for mean in means {
        let what = format!("a megabyte edited in {:.0} MB", mean.file_bytes / MB as f64);
        findings.push(Finding::told(
            format!("{what}: sent, mean"),
            mean.sent_bytes / MB as f64,
            "MB",
        ));
        findings.push(Finding::told(
            format!("{what}: committed within, median"),
            mean.median_ms,
            "ms",
        ));
    }
    findings
}

/// How much y grows with x: the slope of the straight line with the least squares. No number where all x are the same.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (mean_x, mean_y) = (mean(|point| point.0), mean(|point| point.1));
    let moments = points.iter().map(|(x, y)| {
        let from_mean = x - mean_x;
        (from_mean * (y - mean_y), from_mean * from_mean)
    });
    let (mixed, square) = moments.fold((0.0, 0.0), |sum, moment| (sum.0 + moment.0, sum.1 + moment.1));
    mixed / square
}

#[cfg(test)]
mod tests {
    use super::super::finding::tests::missed;
    use super::{CORE_BYTES, EDIT_BYTES, MB, Mean, SIZES_MB, bytes, edited_core, judge, slope};

    /// Means of files of all sizes that transfer `sent` and `fetched` by their lengths.
    fn check(sent: fn(f64) -> f64, fetched: fn(f64) -> f64, expected: usize) {
        let mean = |size_mb: &u64| {
            let file_bytes = (size_mb * MB) as f64;
            Mean {
                file_bytes,
                sent_bytes: sent(file_bytes),
                fetched_bytes: fetched(file_bytes),
                median_ms: 20.0,
                cpu_ms: 15.0,
            }
        };
        let means: Vec<Mean> = SIZES_MB.iter().map(mean).collect();
        assert_eq!(missed(&judge(&means)).len(), expected);
    }

    #[test]
    fn what_grows_with_the_file_is_missed_and_a_digest_for_each_block_is_just_allowed() {
        let same = |_: f64| 2.5e6;
        check(same, same, 0);
        // 67 bytes of JSON for a block of a MiB.
        check(|bytes| 2.5e6 + bytes * 67.0 / 1_048_576.0, same, 0);
        check(|bytes| 2.5e6 + bytes * 1.1e-4, same, 1);
        check(same, |bytes| bytes, 1);
        check(|bytes| bytes, |bytes| bytes, 2);
    }

    #[test]
    fn files_of_one_size_and_no_files_show_no_growth_and_are_missed() {
        let mean = Mean {
            file_bytes: 1e7,
            sent_bytes: 2.5e6,
            fetched_bytes: 2.5e6,
            median_ms: 20.0,
            cpu_ms: 15.0,
        };
        assert_eq!(missed(&judge(&[mean, mean])).len(), 3);
        assert_eq!(missed(&judge(&[])).len(), 3);
    }

    #[test]
    fn work_of_the_server_that_grows_with_the_file_is_missed() {
        let mean = |file_bytes: f64, cpu_ms: f64| Mean {
            file_bytes,
            sent_bytes: 2.5e6,
            fetched_bytes: 2.5e6,
            median_ms: 20.0,
            cpu_ms,
        };
        let check = |last_ms| missed(&judge(&[mean(1e7, 15.0), mean(1e9, last_ms)])).len();
        assert_eq!(check(15.0), 0);
        assert_eq!(check(22.5), 0);
        assert_eq!(check(23.0), 1);
        assert_eq!(check(1_500.0), 1);
    }

    #[test]
    fn the_slope_is_that_of_the_line_through_the_points() {
        assert_eq!(slope(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]), 2.0);
        assert_eq!(slope(&[(0.0, 1.0), (4.0, 1.0)]), 0.0);
        assert!(slope(&[]).is_nan());
    }

    #[test]
    fn an_edit_replaces_a_megabyte_of_the_core_and_leaves_its_ends() {
        let core = bytes(1, CORE_BYTES);
        for seed in 0..5 {
            let edited = edited_core(&core, seed);
            assert_eq!(edited.len(), core.len());
            let differing = edited.iter().zip(&core).filter(|(one, other)| one != other).count();
            let least = EDIT_BYTES as usize * 99 / 100;
            assert!((least..=EDIT_BYTES as usize).contains(&differing), "{differing}");
            assert!(edited[..3_000_000] == core[..3_000_000] && edited[7_500_000..] == core[7_500_000..]);
            assert_eq!(edited, edited_core(&core, seed));
        }
        assert_ne!(edited_core(&core, 1), edited_core(&core, 2));
    }
}
