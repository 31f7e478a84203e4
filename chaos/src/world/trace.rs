//! The trace of a run: every message, sync and state, hashed in the order in which they happened.
//!
//! Two runs of one seed have equal hashes, or something in the world does not follow its seed.
//! Not here: what users did (`history`).

use model::process::ProcessId;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// What a line of the trace is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A message left, or was lost on its way out.
    Message,
    /// A disk made bytes durable.
    Sync,
    /// A replica's state changed.
    State,
    /// The nemesis did something.
    Fault,
}

/// How many lines of each kind there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    /// Messages sent.
    pub messages: u64,
    /// Syncs of files.
    pub syncs: u64,
    /// Batches written to states.
    pub states: u64,
    /// Acts of the nemesis.
    pub faults: u64,
}

/// The trace of one run; clones are the same.
#[derive(Clone, Default)]
pub struct Trace {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    hasher: blake3::Hasher,
    counts: Counts,
    file: Option<BufWriter<File>>,
}

impl Trace {
    /// A trace whose lines also go to `file`, to compare two runs that should be equal.
    #[must_use]
    pub fn into_file(file: File) -> Self {
        let inner = Inner {
            file: Some(BufWriter::new(file)),
            ..Inner::default()
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    /// Notes what `process` did, now.
    pub fn note(&self, kind: Kind, process: ProcessId, what: std::fmt::Arguments<'_>) {
        let now = turmoil::sim_elapsed().unwrap_or_default();
        let line = format!("{} {kind:?} {process} {what}\n", now.as_micros());
        // One whole line at a time, so a panic elsewhere leaves nothing half done.
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.hasher.update(line.as_bytes());
        let counts = &mut inner.counts;
        match kind {
            Kind::Message => counts.messages += 1,
            Kind::Sync => counts.syncs += 1,
            Kind::State => counts.states += 1,
            Kind::Fault => counts.faults += 1,
        }
        if let Some(file) = &mut inner.file {
            file.write_all(line.as_bytes()).expect("the trace file takes its lines");
        }
    }

    /// The hash of everything noted so far, and how much that was.
    #[must_use]
    pub fn read(&self) -> (String, Counts) {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        (inner.hasher.finalize().to_hex()[..32].to_owned(), inner.counts)
    }
}

/// A short name of bytes in a line.
#[must_use]
pub fn short(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..12].to_owned()
}
