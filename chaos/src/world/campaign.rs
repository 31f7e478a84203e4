//! Many seeds, each a process of its own, as many at once as the machine has cores.
//!
//! Not here: what one seed does (`world::run`).

use crate::world::Orders;
use crate::world::kind::Kind;
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
    /// What each world is told beside its seed: its sort, its bug, and how many operations it lasts.
    pub orders: Orders,
}

/// Runs one seed in a process of its own, as `orders` say of seed, sort, bug and operations.
///
/// Errors: the process does not start, or ends without a report, as by a panic; what it said is in the error.
pub fn run_one(binary: &Path, orders: &Orders) -> anyhow::Result<Report> {
    let seed = orders.seed;
    let mut command = Command::new(binary);
    command.args(["--json", "--seed", &seed.to_string(), "--kind", orders.kind.as_str()]);
    if let Some(plant) = orders.plant {
        command.args(["--plant", plant.as_str()]);
    }
    if let Some(operations) = orders.operations {
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
                        let report = run_one(&self.binary, &self.orders.of(seed));
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

impl Orders {
    /// The same for another seed.
    #[must_use]
    pub fn of(&self, seed: u64) -> Self {
        Self { seed, ..self.clone() }
    }
}

/// The command that runs a seed again.
#[must_use]
pub fn replay(orders: &Orders) -> String {
    let kind = match orders.kind {
        Kind::Names => String::new(),
        kind => format!(" KIND={}", kind.as_str()),
    };
    let plant = orders.plant.map(Plant::as_str);
    let plant = plant.map_or_else(String::new, |plant| format!(" PLANT={plant}"));
    let operations = orders.operations;
    let operations = operations.map_or_else(String::new, |operations| format!(" OPERATIONS={operations}"));
    format!("make sim SEED={}{kind}{plant}{operations}", orders.seed)
}
