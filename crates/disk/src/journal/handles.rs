//! What a journal and its readers share: the segments, their open files, and the health.
//!
//! Invariants: `synced_bytes` of a segment only grows and never runs ahead of the disk; at most `OPEN_FILES_MAX` files are open.
//! Not here: who changes it (`append`, `recover`, `limbo`).

use crate::journal::segment::{file_name, limbo_dir};
use crate::journal::types::{JournalError, JournalHealth, SegmentInfo, SegmentNumber};
use crate::seam::{Disk, DiskError, DiskFile};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// Files of one journal that are open at a time; half of the usual limit of 1,024 per process, shared by few journals (guess).
const OPEN_FILES_MAX: usize = 128;

/// A segment as readers need it.
#[derive(Clone, Copy, Debug)]
pub(super) struct SegmentState {
    pub(super) info: SegmentInfo,
    /// `None` when the header is damaged and no record gave the salt back: nothing in it can be read.
    pub(super) salt: Option<u64>,
}

/// Open files with the order in which they were opened.
type OpenFiles = BTreeMap<SegmentNumber, (u64, Arc<dyn DiskFile>)>;

pub(super) struct Shared {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: String,
    segments: RwLock<BTreeMap<SegmentNumber, SegmentState>>,
    open: Mutex<OpenFiles>,
    health: RwLock<JournalHealth>,
}

impl Shared {
    pub(super) fn new(disk: Arc<dyn Disk>, dir: &str) -> Self {
        Self {
            disk,
            dir: dir.to_owned(),
            segments: RwLock::default(),
            open: Mutex::default(),
            health: RwLock::new(JournalHealth::Writable),
        }
    }

    pub(super) fn segments(&self) -> Vec<SegmentState> {
        self.segments
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .copied()
            .collect()
    }

    pub(super) fn segment(&self, number: SegmentNumber) -> Option<SegmentState> {
        self.segments
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&number)
            .copied()
    }

    pub(super) fn insert(&self, state: SegmentState) {
        self.segments
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(state.info.number, state);
    }

    pub(super) fn forget(&self, number: SegmentNumber) {
        self.segments
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&number);
        self.open_files().remove(&number);
    }

    /// Changes one segment's state; nothing happens when it is unknown.
    pub(super) fn update(&self, number: SegmentNumber, change: impl FnOnce(&mut SegmentInfo)) {
        if let Some(state) = self
            .segments
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .get_mut(&number)
        {
            change(&mut state.info);
        }
    }

    pub(super) fn health(&self) -> JournalHealth {
        self.health.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn check_writable(&self) -> Result<(), JournalError> {
        match self.health() {
            JournalHealth::Writable => Ok(()),
            JournalHealth::ReadOnly { segment, .. } => Err(JournalError::ReadOnly { segment }),
        }
    }

    /// Makes the journal read-only for good and answers the error of whoever met the failure.
    pub(super) fn poison(&self, segment: SegmentNumber, cause: DiskError) -> JournalError {
        tracing::error!(%segment, %cause, "journal is read-only");
        *self.health.write().unwrap_or_else(PoisonError::into_inner) = JournalHealth::ReadOnly {
            segment,
            cause: cause.clone(),
        };
        JournalError::Failed { segment, cause }
    }

    /// The open file of a segment, wherever it lies now.
    pub(super) fn file(&self, number: SegmentNumber) -> Result<Arc<dyn DiskFile>, JournalError> {
        if let Some((_, file)) = self.open_files().get(&number) {
            return Ok(Arc::clone(file));
        }
        // A segment moves to limbo and never back, so looking there second misses none that is being moved.
        let file = match self.disk.open(&file_name(&self.dir, number)) {
            Err(DiskError::NotFound(_)) => self.disk.open(&file_name(&limbo_dir(&self.dir), number)),
            answer => answer,
        };
        let file: Arc<dyn DiskFile> = match file {
            Ok(file) => file.into(),
            Err(DiskError::NotFound(_)) => {
                return Err(JournalError::NotFound {
                    segment: number,
                    offset: 0,
                });
            }
            Err(error) => return Err(error.into()),
        };
        self.keep_open(number, Arc::clone(&file));
        Ok(file)
    }

    /// Remembers an open file; the one that was opened first goes when there are too many.
    pub(super) fn keep_open(&self, number: SegmentNumber, file: Arc<dyn DiskFile>) {
        let mut open = self.open_files();
        let order = open.values().map(|(order, _)| order + 1).max().unwrap_or(0);
        open.insert(number, (order, file));
        if open.len() > OPEN_FILES_MAX
            && let Some(oldest) = open
                .iter()
                .min_by_key(|(_, (order, _))| *order)
                .map(|(number, _)| *number)
        {
            open.remove(&oldest);
        }
    }

    fn open_files(&self) -> MutexGuard<'_, OpenFiles> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
