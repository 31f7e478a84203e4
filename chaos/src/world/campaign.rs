//! Many seeds, each a process of its own, as many at once as the machine has cores.
//!
//! Not here: what one seed does (`world::run`).

use crate::world::plant::Plant;
use crate::world::report::Report;
use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// The binary that runs one seed with `--seed N --json`.
    pub binary: PathBuf,
    /// The seeds.
    pub seeds: Vec<u64>,
    /// A bug in every world.
    pub plant: Option<Plant>,
    /// How many operations each world lasts, where it is not its usual time.
    pub operations: Option<usize>,
}

/// Runs one seed in a process of its own.
///
/// Errors: the process does not start, or ends without a report, as by a panic; what it said is in the error.
pub fn run_one(binary: &Path, seed: u64, plant: Option<Plant>, operations: Option<usize>) -> anyhow::Result<Report> {
    let mut command = Command::new(binary);
    command.args(["--json", "--seed", &seed.to_string()]);
    if let Some(plant) = plant {
        command.args(["--plant", plant.as_str()]);
    }
    if let Some(operations) = operations {
        command.args(["--operations", &operations.to_string()]);
    }
    let ended = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {}", binary.display()))?;
    let text = String::from_utf8_lossy(&ended.stdout);
    match serde_json::from_str(text.trim()) {
        Ok(report) => Ok(report),
        Err(_) => bail!(
            "seed {seed} left no report:\n{}",
            String::from_utf8_lossy(&ended.stderr)
        ),
    }
}

impl Campaign {
    /// Runs every seed; `told` hears of each as it ends, in whatever order that is. The reports are in the order of the seeds.
    pub fn run(&self, mut told: impl FnMut(u64, &anyhow::Result<Report>)) -> Vec<(u64, anyhow::Result<Report>)> {
        let waiting = Arc::new(Mutex::new(self.seeds.clone().into_iter()));
        let (sender, receiver) = mpsc::channel();
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let mut ended: Vec<(u64, anyhow::Result<Report>)> = std::thread::scope(|scope| {
            for _ in 0..cores {
                let (waiting, sender) = (Arc::clone(&waiting), sender.clone());
                scope.spawn(move || {
                    loop {
                        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
                        let Some(seed) = next else { return };
                        let report = run_one(&self.binary, seed, self.plant, self.operations);
                        if sender.send((seed, report)).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(sender);
            let mut ended = Vec::new();
            for (seed, report) in receiver {
                told(seed, &report);
                ended.push((seed, report));
            }
            ended
        });
        ended.sort_by_key(|(seed, _)| *seed);
        ended
    }
}

/// The command that runs a seed again.
#[must_use]
pub fn replay(seed: u64, plant: Option<Plant>, operations: Option<usize>) -> String {
    let plant = plant.map_or_else(String::new, |plant| format!(" PLANT={}", plant.as_str()));
    let operations = operations.map_or_else(String::new, |operations| format!(" OPERATIONS={operations}"));
    format!("make sim SEED={seed}{plant}{operations}")
}
