//! Reports that stay: a JSON file for each run, named after the second in which it was made.
//!
//! Not here: what stands in one, and whether a run passed (each attack says it itself).

use anyhow::Context;
use serde::Serialize;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds of Unix time.
pub(crate) fn unix_s() -> anyhow::Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}

/// Writes the report of a run to a file in `folder`, which is made when it is not there, and prints where it is.
pub(crate) fn write(folder: &Path, at_unix_s: u64, report: &impl Serialize) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    let path = folder.join(format!("{at_unix_s}.json"));
    std::fs::write(&path, serde_json::to_vec_pretty(report)?).with_context(|| format!("write {}", path.display()))?;
    println!("report: {}", path.display());
    Ok(())
}
