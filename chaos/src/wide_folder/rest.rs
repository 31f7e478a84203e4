//! What a million entries and many small files take while nobody asks for them: disk, CPU and reading.
//!
//! The linear model that the bytes of an entry belong to is docs/scale.md. Not here: an empty cluster at rest (`bench::idle`).

use crate::dev_cluster::DevCluster;
use crate::proc::{cpu_s, read_bytes};
use anyhow::ensure;
use std::path::Path;
use std::time::{Duration, Instant};

/// What N12 asks: of the machine.
const CPU_PERCENT_MAX: f64 = 1.0;
/// What may be read: a scrub reads every fragment once a week, and one a disk in ten minutes at least, which is 20 KiB a second of the
/// twelve disks at a MiB a fragment; merges of what was written before come on top. A guess.
const READ_BYTES_S_MAX: f64 = (1 << 20) as f64;
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

/// Watches the cluster for `watch` while nothing is asked of it.
///
/// shows: N12 scale=120/600
pub(super) async fn idle(cluster: &DevCluster, watch: Duration) -> anyhow::Result<()> {
    tokio::time::sleep(SETTLE).await;
    let pid = cluster.pid();
    let (cpu, read, begun) = (cpu_s(pid)?, read_bytes(pid)?, Instant::now());
    tokio::time::sleep(watch).await;
    let took = begun.elapsed().as_secs_f64();
    let core_percent = (cpu_s(pid)? - cpu) / took * 100.0;
    let read_s = (read_bytes(pid)? - read) as f64 / took;
    let cores = std::thread::available_parallelism()?.get() as f64;
    let percent = core_percent / cores;
    println!(
        "idle for {took:.0} s: {core_percent:.2} % of a core, {percent:.2} % of the machine, {read_s:.0} bytes/s read"
    );
    ensure!(
        percent < CPU_PERCENT_MAX,
        "an idle cluster takes {percent:.2} % of the machine"
    );
    ensure!(
        read_s < READ_BYTES_S_MAX,
        "an idle cluster reads {read_s:.0} bytes a second"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::judge;

    #[test]
    fn bytes_of_an_entry_are_judged_from_a_million_entries_on() {
        let check = |replica_bytes: f64, entries: usize| judge(replica_bytes, entries).is_ok();
        assert!(check(326e6, 1_000_000) && check(500e6, 1_000_000) && check(3.26e9, 10_000_000));
        assert!(!check(501e6, 1_000_000) && !check(5.1e9, 10_000_000));
        assert!(check(64e6, 10_000), "the log alone");
    }
}
