//! What a million entries and many small files take while nobody asks for them: disk, CPU and reading.
//!
//! What may be read follows from the fragments that there are: a scrub's share of them, and a small allowance for all else; so whoever
//! goes over contents beside the scrub, or ten times as often, is found. The linear model that the bytes of an entry belong to is
//! docs/scale.md. Not here: an empty cluster at rest (`bench::idle`).

use crate::dev_cluster::DevCluster;
use crate::meter;
use crate::proc::{cpu_s, read_bytes};
use anyhow::{Context, ensure};
use client_sdk::client::Client;
use std::path::Path;
use std::time::{Duration, Instant};

/// What N12 asks: of the machine.
const CPU_PERCENT_MAX: f64 = 1.0;
/// In which a scrub reads every fragment once, as `holdfast dev` tells its nodes.
const SCRUB_PERIOD: Duration = Duration::from_secs(7 * 24 * 3600);
/// A disk with few fragments checks one so often all the same, to notice new ones.
const SCRUB_PAUSE_MAX: Duration = Duration::from_secs(600);
/// What everything but the scrub may read: rows of the metadata that no cache holds, and what is left of merges. An empty cluster reads
/// next to nothing. A guess, and below what a scrub ten times as fast reads of twelve disks with fragments of a MiB.
const OTHER_READ_BYTES_S_MAX: f64 = (64 << 10) as f64;
/// Merges and the worker's clean-up after what was done before. A guess.
const SETTLE: Duration = Duration::from_secs(60);

/// From so many entries on what is there once, such as the log's segments, is lost among them.
const ENTRIES_JUDGED: usize = 1_000_000;
/// On the disk of one replica. 326 were measured of a million folders; docs/scale.md counts with this bound.
const ENTRY_BYTES_MAX: f64 = 500.0;

/// Prints what `entries` take of each replica's disk, and judges it of many. `make wide-folder-10m` runs it on ten million.
///
/// shows: NF-scale-1 scale=1000000/10000000
pub(super) fn disk(data_dir: &Path, entries: usize) -> anyhow::Result<()> {
    let mut replicas = 0;
    let mut bytes = 0;
    for folder in std::fs::read_dir(data_dir)? {
        let folder = folder?;
        if folder.file_name().to_string_lossy().starts_with("metadata-") {
            replicas += 1;
            bytes += bytes_below(&folder.path())?;
        }
    }
    ensure!(replicas > 0, "no replica keeps its data below {}", data_dir.display());
    let each = bytes as f64 / f64::from(replicas);
    println!(
        "metadata: {:.1} MiB a replica, {:.0} bytes an entry, log and change feed with it",
        each / f64::from(1 << 20),
        each / entries as f64
    );
    judge(each, entries)
}

fn judge(replica_bytes: f64, entries: usize) -> anyhow::Result<()> {
    let of_entry = replica_bytes / entries as f64;
    ensure!(
        entries < ENTRIES_JUDGED || of_entry <= ENTRY_BYTES_MAX,
        "a replica keeps {of_entry:.0} bytes an entry, {ENTRY_BYTES_MAX:.0} are counted with"
    );
    Ok(())
}

/// Bytes of all files below a folder, which may change meanwhile.
pub(crate) fn bytes_below(folder: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for inside in std::fs::read_dir(folder)? {
        let inside = inside?;
        let about = match inside.metadata() {
            Ok(about) => about,
            // Merged away meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error.into()),
        };
        bytes += if about.is_dir() {
            bytes_below(&inside.path())?
        } else {
            about.len()
        };
    }
    Ok(bytes)
}

/// What nodes tell of their fragments.
#[derive(Clone, Debug)]
struct Fragments {
    /// Of each disk.
    of_disks: Vec<f64>,
    /// All of them together.
    bytes: f64,
    /// That scrubs have checked since the start.
    scrubbed: f64,
}

impl Fragments {
    /// Asks the cluster, whose roles share one process and one page.
    async fn look(cluster: &DevCluster) -> anyhow::Result<Self> {
        let page = Client::new(&cluster.facts.url)?.text("/metrics").await?;
        let found = Self {
            of_disks: meter::values(&page, "node_fragments"),
            bytes: meter::sum(&page, "metadata_content_bytes{kind=\"stored\"}").context("groups tell no bytes")?,
            scrubbed: meter::sum(&page, "node_fragments_scrubbed_total").context("nodes tell no scrubs")?,
        };
        ensure!(
            found.count() > 0.0,
            "no disk holds a fragment, so there is nothing to scrub"
        );
        Ok(found)
    }

    fn count(&self) -> f64 {
        self.of_disks.iter().sum()
    }

    /// How many of them all scrubs may check in `watch`: the first of each disk may be due at once.
    fn due(&self, watch: Duration) -> f64 {
        let of_disk = |fragments: &f64| {
            if *fragments < 1.0 {
                return 0.0;
            }
            let each_s = (SCRUB_PERIOD.as_secs_f64() / fragments).min(SCRUB_PAUSE_MAX.as_secs_f64());
            (watch.as_secs_f64() / each_s).floor() + 1.0
        };
        self.of_disks.iter().map(of_disk).sum()
    }

    /// The most that may be read in `watch`.
    fn read_bytes_max(&self, watch: Duration) -> f64 {
        self.due(watch) * self.bytes / self.count() + OTHER_READ_BYTES_S_MAX * watch.as_secs_f64()
    }

    /// An error where in `watch` more was scrubbed or read than these ask for.
    fn judge(&self, watch: Duration, scrubbed: f64, read_bytes: f64) -> anyhow::Result<()> {
        let (due, most) = (self.due(watch), self.read_bytes_max(watch));
        ensure!(
            scrubbed <= due,
            "scrubs have checked {scrubbed} fragments in {watch:.0?}, {due} of {} were due",
            self.count()
        );
        ensure!(
            read_bytes <= most,
            "an idle cluster has read {read_bytes:.0} bytes in {watch:.0?}, at most {most:.0} are explained"
        );
        Ok(())
    }
}

/// Watches the cluster for `watch` while nothing is asked of it.
///
/// shows: N12 scale=120/600
pub(super) async fn idle(cluster: &DevCluster, watch: Duration) -> anyhow::Result<()> {
    tokio::time::sleep(SETTLE).await;
    let pid = cluster.pid();
    let fragments = Fragments::look(cluster).await?;
    let (cpu, read, begun) = (cpu_s(pid)?, read_bytes(pid)?, Instant::now());
    tokio::time::sleep(watch).await;
    let took = begun.elapsed();
    let core_percent = (cpu_s(pid)? - cpu) / took.as_secs_f64() * 100.0;
    let read = (read_bytes(pid)? - read) as f64;
    let scrubbed = Fragments::look(cluster).await?.scrubbed - fragments.scrubbed;
    let cores = std::thread::available_parallelism()?.get() as f64;
    let percent = core_percent / cores;
    println!(
        "idle for {took:.0?}: {core_percent:.2} % of a core, {percent:.2} % of the machine, {:.0} bytes/s read, {:.0} may be; {scrubbed} \
         fragments scrubbed, {} of {} were due",
        read / took.as_secs_f64(),
        fragments.read_bytes_max(took) / took.as_secs_f64(),
        fragments.due(took),
        fragments.count()
    );
    ensure!(
        percent < CPU_PERCENT_MAX,
        "an idle cluster takes {percent:.2} % of the machine"
    );
    fragments.judge(took, scrubbed, read)
}

#[cfg(test)]
mod tests {
    use super::{Fragments, judge};
    use std::time::Duration;

    #[test]
    fn bytes_of_an_entry_are_judged_from_a_million_entries_on() {
        let check = |replica_bytes: f64, entries: usize| judge(replica_bytes, entries).is_ok();
        assert!(check(326e6, 1_000_000) && check(500e6, 1_000_000) && check(3.26e9, 10_000_000));
        assert!(!check(501e6, 1_000_000) && !check(5.1e9, 10_000_000));
        assert!(check(64e6, 10_000), "the log alone");
    }

    const MIB: f64 = (1 << 20) as f64;

    /// Twelve disks with so many fragments of a MiB each, watched for so long while so many MiB were scrubbed, and read beside those.
    fn check(of_disk: f64, watch_s: u64, scrubbed: f64, other_mib: f64, expected: &str) {
        let fragments = Fragments {
            of_disks: vec![of_disk; 12],
            bytes: 12.0 * of_disk * MIB,
            scrubbed: 0.0,
        };
        let read_bytes = (scrubbed + other_mib) * MIB;
        let judged = fragments.judge(Duration::from_secs(watch_s), scrubbed, read_bytes);
        let said = judged.map_or_else(|error| error.to_string(), |()| String::new());
        assert!(
            said.starts_with(expected) && said.is_empty() == expected.is_empty(),
            "{said}"
        );
    }

    #[test]
    fn a_scrub_that_keeps_its_period_passes_and_one_of_ten_times_that_does_not() {
        let often = "scrubs have checked";
        // Few fragments: one a disk in ten minutes.
        check(75.0, 600, 12.0, 1.0, "");
        check(75.0, 600, 24.0, 1.0, "");
        check(75.0, 600, 120.0, 1.0, often);
        check(75.0, 120, 12.0, 1.0, "");
        check(75.0, 120, 24.0, 1.0, often);
        // Many: each once a week, which is ten a disk in ten minutes.
        check(10_080.0, 600, 120.0, 1.0, "");
        check(10_080.0, 600, 1_200.0, 1.0, often);
        // Nobody has asked for a fragment of a disk that has none.
        check(0.5, 600, 1.0, 0.0, often);
    }

    #[test]
    fn a_scanner_beside_the_scrub_that_counts_nothing_is_found_by_what_it_reads() {
        let read = "an idle cluster has read";
        check(75.0, 600, 12.0, 37.0, "");
        // Ten times the scrub.
        check(75.0, 600, 12.0, 120.0, read);
        check(75.0, 600, 0.0, 120.0, read);
        check(10_080.0, 600, 120.0, 1_200.0, read);
    }
}
