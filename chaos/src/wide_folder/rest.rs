//! What a million entries take while nobody asks for them: disk, CPU and reading.
//!
//! Not here: an empty cluster at rest (`bench::idle`).

use crate::dev_cluster::DevCluster;
use crate::proc::{cpu_s, read_bytes};
use anyhow::ensure;
use std::path::Path;
use std::time::{Duration, Instant};

/// What N12 asks: of the machine.
const CPU_PERCENT_MAX: f64 = 1.0;
/// Nothing is scrubbed yet, so all that is read is a handful of small files. A guess.
const READ_BYTES_S_MAX: f64 = (1 << 20) as f64;
/// Merges and the worker's clean-up after what was done before. A guess.
const SETTLE: Duration = Duration::from_secs(60);

/// Prints what `entries` take of each replica's disk.
///
/// shows: NF-scale-1 scale=1/10
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
    Ok(())
}

fn bytes_below(folder: &Path) -> anyhow::Result<u64> {
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
/// shows: N12 scale=1/2
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
