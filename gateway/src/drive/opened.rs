//! Opened blocks that are kept, so that a small content that many read is fetched and opened once a minute.
//!
//! A block never changes, so one that was opened is right for as long as it is kept; whether somebody may read it is said by the
//! manifest that names it, which the drive's group has given or confirmed for this very request.
//! Invariants: a block is given to the user for whom it was opened and to nobody else; plaintext stays for at most `OPENED_LIFE` after
//! it was opened and until the next look at what is old, `LET_GO_EVERY` later at the latest, however often it is read; what was removed
//! or erased is named by no manifest from then on, and leaves memory with the same bound.
//! Not here: how much is kept (`kept`), which reads are kept (`download`).

use crate::drive::kept::{Kept, Shown};
use crate::drive::{Caller, Core};
use crate::seams::Seams;
use bytes::Bytes;
use daemon::clock::Clock;
use model::digest::Digest;
use model::id::{DriveId, UserId};
use protocol::metadata::query::ManifestBlock;
use std::sync::Arc;
use std::time::Duration;

/// How long an opened block is kept at most. Long enough for what is read every second, short enough to be no second place where
/// contents lie.
pub const OPENED_LIFE: Duration = Duration::from_secs(60);
/// How often what is too old is looked for.
const LET_GO_EVERY: Duration = Duration::from_secs(10);

/// The opened blocks of one gateway.
pub struct Opened {
    clock: Arc<dyn Clock>,
    kept: Kept<(UserId, DriveId, Digest), Bytes>,
}

impl Opened {
    /// Keeps blocks of `bytes_max` in all.
    pub fn new(seams: &Seams, bytes_max: u64) -> Self {
        let shown = Shown::new(&seams.metrics, "blocks");
        Self {
            clock: Arc::clone(&seams.clock),
            kept: Kept::new(bytes_max, OPENED_LIFE, shown),
        }
    }

    /// These blocks in their order, if all of them are kept for this user.
    pub fn find(&self, user: UserId, drive: DriveId, blocks: &[ManifestBlock]) -> Option<Vec<Bytes>> {
        if !self.kept.is_on() {
            return None;
        }
        let now = self.clock.monotonic();
        let get = |block: &ManifestBlock| self.kept.get(&(user, drive, block.block.row.digest), now);
        let found = blocks.iter().map(get).collect::<Option<Vec<Bytes>>>();
        self.kept.count(found.is_some());
        found
    }

    /// Keeps what was opened and compared with its digest, `plain` in the order of `blocks`.
    pub fn keep(&self, user: UserId, drive: DriveId, blocks: &[ManifestBlock], plain: &[Bytes]) {
        if !self.kept.is_on() {
            return;
        }
        let now = self.clock.monotonic();
        for (block, plain) in blocks.iter().zip(plain) {
            let key = (user, drive, block.block.row.digest);
            self.kept.put(key, plain.clone(), plain.len(), now);
        }
    }

    /// Lets go of what is too old.
    pub fn let_go(&self) {
        self.kept.let_go(self.clock.monotonic());
    }
}

impl Core {
    /// Looks from time to time for what was kept for long enough. Never ends.
    pub async fn keep_letting_go(&self) {
        loop {
            self.seams.clock.sleep(LET_GO_EVERY).await;
            self.answers.let_go();
            self.opened.let_go();
        }
    }

    /// As `Opened::find`, for a read that is `is_kept`.
    pub(super) fn find_opened(
        &self,
        caller: &Caller,
        drive: DriveId,
        is_kept: bool,
        blocks: &[ManifestBlock],
    ) -> Option<Vec<Bytes>> {
        is_kept
            .then(|| self.opened.find(caller.principal.user, drive, blocks))
            .flatten()
    }
}
