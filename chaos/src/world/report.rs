//! What a run says of itself: a line of a table for people, one of JSON for the campaign that started it.

use crate::oracle::raft::LogEnds;
use crate::world::trace::Counts;
use crate::world::wear::Worn;
use serde::{Deserialize, Serialize};

/// What collection came to in a world of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    /// Files that were there in the end.
    pub files: usize,
    /// Dead stripes that were removed.
    pub stripes_removed: u64,
    /// Times that a node was told to remove what was never named.
    pub orphans_removed: u64,
    /// Stripes less than half alive whose blocks were moved.
    pub stripes_repacked: u64,
    /// Bytes that lived on disks in the end.
    pub living_bytes: u64,
    /// Of these, bytes of stripes that nobody knew.
    pub leaked_bytes: u64,
}

/// The outcome of one seed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// What decided everything.
    pub seed: u64,
    /// What sort of world it was.
    pub kind: String,
    /// The planted bug.
    pub plant: Option<String>,
    /// Over messages, syncs, states and faults in their order.
    pub trace_hash: String,
    /// How many of each.
    pub counts: Counts,
    /// What was worn out.
    pub worn: Worn,
    /// What users asked.
    pub operations: usize,
    /// Of these, whose outcome nobody knows.
    pub unknown: usize,
    /// How many overlapped at most.
    pub concurrency: usize,
    /// How many began beside enough others (`proof`).
    pub overlapping: usize,
    /// Versions that were acknowledged and had to be read back.
    pub acknowledged: usize,
    /// Terms that had a leader, of all groups.
    pub terms: usize,
    /// States that were compared at an index.
    pub states_compared: u64,
    /// Entries that were compared with those of another log.
    pub entries_compared: u64,
    /// How often logs came to their ends.
    pub log_ends: LogEnds,
    /// Time that passed in the world.
    pub simulated_ms: u64,
    /// Of a world of collection that came to its end.
    pub collected: Option<Collected>,
    /// What was violated; empty when all held.
    pub violations: Vec<String>,
}

impl Report {
    /// The titles of `line`.
    pub const TITLES: &str = "  seed trace             ops  unknown  acked  terms  states  entries  marks  purges  installs  messages\
        \x20   syncs  faults  simulated  verdict";

    /// Random steps: what users asked and what the nemesis did.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.operations as u64 + self.counts.faults
    }

    /// The row of a table.
    #[must_use]
    pub fn line(&self) -> String {
        let collected = self.collected.map_or_else(String::new, |collected| {
            format!(
                "; {} files, {} stripes and {} orphans removed, {} repacked, {} of {} bytes nobody's",
                collected.files,
                collected.stripes_removed,
                collected.orphans_removed,
                collected.stripes_repacked,
                collected.leaked_bytes,
                collected.living_bytes
            )
        });
        let verdict = match self.violations.len() {
            0 => "holds".to_owned(),
            count => format!("{count} VIOLATED"),
        };
        format!(
            "{:>6} {} {:>4} {:>8} {:>6} {:>6} {:>7} {:>8} {:>6} {:>7} {:>9} {:>9} {:>8} {:>7} {:>8} s  {verdict}{collected}",
            self.seed,
            &self.trace_hash[..16],
            self.operations,
            self.unknown,
            self.acknowledged,
            self.terms,
            self.states_compared,
            self.entries_compared,
            self.log_ends.marks,
            self.log_ends.purges,
            self.log_ends.installs,
            self.counts.messages,
            self.counts.syncs,
            self.counts.faults,
            self.simulated_ms / 1000,
        )
    }
}

/// Logs what `HOLDFAST_LOG` asks for, and nothing unless it does: a world under attack warns all the time.
///
/// Errors: the filter does not parse.
pub fn start_log() -> anyhow::Result<()> {
    daemon::log::init(daemon::log::LogFormat::Human, "off").map_err(|error| anyhow::anyhow!(error.to_string()))
}
