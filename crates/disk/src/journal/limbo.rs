//! Letting segments go: into limbo, and out of the world.
//!
//! Place in the picture: a compaction moves the old segment to limbo after its copies are synced and the index is swapped; after
//! a day of running, or when space is short, the owner unlinks it.
//! Invariants: the active segment never goes; names are durable on return; a crash between leaves the segment on one of both
//! sides, where recovery finds it.
//! Not here: when a segment may go; its owner knows what points there.

use crate::journal::append::Journal;
use crate::journal::segment::{file_name, limbo_dir};
use crate::journal::types::{JournalError, SegmentNumber};

impl Journal {
    /// Moves a closed segment to limbo; its records stay readable. Doing it again is no error. `Active`, `NotFound`.
    pub fn move_to_limbo(&mut self, number: SegmentNumber) -> Result<(), JournalError> {
        if self.closed(number)? {
            return Ok(());
        }
        let limbo = limbo_dir(&self.shared.dir);
        // The new name is synced before the old one's absence: at no time is the segment nowhere.
        self.shared
            .disk
            .rename(&file_name(&self.shared.dir, number), &file_name(&limbo, number))?;
        self.shared.update(number, |info| info.is_in_limbo = true);
        self.shared.disk.sync_dir(&limbo)?;
        self.shared.disk.sync_dir(&self.shared.dir)?;
        Ok(())
    }

    /// Unlinks a closed segment, in limbo or not. Its records are gone; the unlink is durable on return. `Active`, `NotFound`.
    ///
    /// `Full` only where the disk sets no space aside and the last roll met its end: the segment may be the only one that tells
    /// where older ones end.
    pub fn unlink(&mut self, number: SegmentNumber) -> Result<(), JournalError> {
        let is_in_limbo = self.closed(number)?;
        self.tell_ends()?;
        let dir = if is_in_limbo {
            limbo_dir(&self.shared.dir)
        } else {
            self.shared.dir.clone()
        };
        self.shared.disk.remove(&file_name(&dir, number))?;
        self.shared.forget(number);
        self.shared.disk.sync_dir(&dir)?;
        Ok(())
    }

    /// Whether a closed segment lies in limbo.
    fn closed(&self, number: SegmentNumber) -> Result<bool, JournalError> {
        let state = self.shared.segment(number).ok_or(JournalError::NotFound {
            segment: number,
            offset: 0,
        })?;
        if state.info.is_active {
            Err(JournalError::Active { segment: number })
        } else {
            Ok(state.info.is_in_limbo)
        }
    }
}
