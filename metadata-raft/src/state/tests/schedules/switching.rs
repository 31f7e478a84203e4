//! A store that lets the other threads of a schedule run before each of its calls, with bugs that can be planted.
//!
//! Not here: what must hold under them (`schedules`).

use bytes::Bytes;
use kv::memory::MemoryKv;
use kv::seam::{Batch, Kv, KvError, KvRead, Scan};
use shuttle::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

/// A bug made on purpose, so that the suite can show that it would see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plant {
    None,
    /// Whoever reads sees what is written meanwhile.
    LiveView,
    /// A batch is written in two parts.
    TornBatch,
    /// The store answers a sync without doing it.
    AnswerBeforeSync,
    /// A collector takes each stripe for an orphan that no file holds yet, however young.
    YoungOrphans,
}

/// Another thread may run here. Not a yield: to a scheduler of priorities that would mean that this thread wants to come last.
pub(super) fn switch() {
    AtomicBool::new(false).load(Ordering::SeqCst);
}

/// A store in memory with a switch before every call.
pub(super) struct SwitchingKv {
    inner: Arc<MemoryKv>,
    plant: Plant,
}

impl SwitchingKv {
    pub(super) fn new(inner: Arc<MemoryKv>, plant: Plant) -> Self {
        Self { inner, plant }
    }
}

impl KvRead for SwitchingKv {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        switch();
        self.inner.get(key)
    }

    fn scan(&self, scan: &Scan) -> Result<Vec<(Bytes, Bytes)>, KvError> {
        switch();
        self.inner.scan(scan)
    }
}

impl Kv for SwitchingKv {
    fn write(&self, mut batch: Batch) -> Result<(), KvError> {
        switch();
        if self.plant == Plant::TornBatch {
            let rest = batch.split_off(batch.len() / 2);
            self.inner.write(batch)?;
            switch();
            return self.inner.write(rest);
        }
        self.inner.write(batch)
    }

    fn sync(&self) -> Result<(), KvError> {
        switch();
        match self.plant {
            Plant::AnswerBeforeSync => Ok(()),
            _ => self.inner.sync(),
        }
    }

    fn snapshot(&self) -> Box<dyn KvRead + '_> {
        switch();
        match self.plant {
            Plant::LiveView => Box::new(View(Box::new(Live(self)))),
            _ => Box::new(View(self.inner.snapshot())),
        }
    }
}

/// The store as it is at each call.
struct Live<'a>(&'a SwitchingKv);

impl KvRead for Live<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        self.0.inner.get(key)
    }

    fn scan(&self, scan: &Scan) -> Result<Vec<(Bytes, Bytes)>, KvError> {
        self.0.inner.scan(scan)
    }
}

/// What a reader sees, with a switch before every call.
struct View<'a>(Box<dyn KvRead + 'a>);

impl KvRead for View<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        switch();
        self.0.get(key)
    }

    fn scan(&self, scan: &Scan) -> Result<Vec<(Bytes, Bytes)>, KvError> {
        switch();
        self.0.scan(scan)
    }
}
