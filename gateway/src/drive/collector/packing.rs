//! Packs small contents: what has lain in the metadata for a day is laid into stripes as it is sealed, and its group is told.
//!
//! A group names the drive whose contents have waited longest. Whoever holds its lease reads a stripe full of them, writes it as an
//! upload would, and has the group move those that are still as they were read. No key is needed: a sealed block does not depend on
//! where it lies.
//! Invariants: bytes leave the metadata only by the command that names a stripe with all of its fragments where the profile wants
//! them, so nothing survives less than before for want of a disk; a step that is cut off leaves at most a stripe that nobody named.
//! Not here: which contents are due, and what moves (the group's state); removal of stripes that nobody named (`orphans`).

use super::Turn;
use crate::drive::Core;
use crate::drive::metadata_client::unexpected;
use crate::metrics;
use bytes::Bytes;
use codec::stripe::{ClosedStripe, StripeBuilder, StripeError};
use daemon::pool::Urgency;
use model::entry::BlockRow;
use model::id::{DriveId, GroupId};
use model::limits::COPIES_BYTES_MAX;
use model::stripe::{STRIPE_BLOCKS_MAX, STRIPE_TARGET_BYTES};
use protocol::metadata::query::{DriveFacts, Packing, PackingAsk};
use protocol::metadata::upload::{NewBlock, NewStripe, PackedContents, UploadCommand};
use protocol::metadata::{Command, CommandAnswer, Query, QueryAnswer};
use protocol::wire_error::Failure;

/// Stripes of a group that one look packs: 16,000 contents a minute at most, so that removal has its turn. Guess.
const STRIPES_A_LOOK: usize = 16;

impl Core {
    /// Packs what is due in a group, a bounded part of it.
    pub(super) async fn pack(&self, group: GroupId, turn: &mut Turn) {
        for _ in 0..STRIPES_A_LOOK {
            if self.seams.clock.monotonic() > turn.look_ends {
                return;
            }
            match self.pack_once(group, turn).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(failure) => {
                    // Another gateway's turn, a row that changed, or a group that is away: the next look begins anew.
                    tracing::debug!(%group, %failure, "packing stopped");
                    turn.lease = None;
                    return;
                }
            }
        }
    }

    /// One stripe of one drive; answers whether to look for another one at once.
    async fn pack_once(&self, group: GroupId, turn: &mut Turn) -> Result<bool, Failure> {
        let now = self.seams.clock.monotonic();
        if now < turn.rests_until {
            return Ok(false);
        }
        let found = self.ask_packing(group, None).await?;
        let Some(facts) = found.drive else {
            return Ok(false);
        };
        let Some(lease) = self.hold_lease(group, turn, found.lease, now).await? else {
            return Ok(false);
        };
        // Uploads come first.
        let Some(_share) = self.budget.extend_idle() else {
            return Ok(false);
        };
        let drive = facts.drive;
        let stripe = match self.laid_and_written(group, &facts, turn).await {
            Err(failure) if !failure.kind.is_retryable() => {
                // Without this every look would begin and end with the same drive.
                tracing::warn!(%group, %drive, %failure, "small contents cannot be packed; others come first");
                None
            }
            written => written?,
        };
        let order = PackedContents { drive, lease, stripe };
        let command = Command::Upload(UploadCommand::PackInline(order));
        let CommandAnswer::Swept(done) = self.metadata.command(command, None, 0).await?.0 else {
            return Err(unexpected());
        };
        let packed = self.seams.metrics.counter(&metrics::CONTENTS_PACKED);
        packed.with_label_values::<&str>(&[]).inc_by(u64::from(done.operations));
        Ok(true)
    }

    /// A stripe of what is due of a drive, written as its profile wants; `None` when there is too little for one, or disks are away.
    async fn laid_and_written(
        &self,
        group: GroupId,
        facts: &DriveFacts,
        turn: &mut Turn,
    ) -> Result<Option<NewStripe>, Failure> {
        let Some(closed) = self.lay_due(group, facts.drive).await? else {
            return Ok(None);
        };
        let written = self.write_packed(facts, closed).await?;
        if written.is_none() {
            self.rest(turn);
        }
        Ok(written)
    }

    async fn ask_packing(&self, group: GroupId, ask: Option<PackingAsk>) -> Result<Packing, Failure> {
        match self.metadata.query_group(group, &Query::Packing(ask), 0).await? {
            QueryAnswer::Packing(packing) => Ok(packing),
            _ => Err(unexpected()),
        }
    }

    /// A stripe of what is due of a drive; `None` when that is too little for one.
    async fn lay_due(&self, group: GroupId, drive: DriveId) -> Result<Option<ClosedStripe<BlockRow>>, Failure> {
        let mut blocks: Vec<(BlockRow, Bytes)> = Vec::new();
        let (mut bytes, mut after) = (0, None);
        'pages: loop {
            let found = self.ask_packing(group, Some(PackingAsk { drive, after })).await?;
            for block in found.contents {
                bytes += block.sealed.len();
                if bytes > STRIPE_TARGET_BYTES || blocks.len() == STRIPE_BLOCKS_MAX {
                    break 'pages;
                }
                blocks.push((block.row, block.sealed));
            }
            after = found.next;
            if after.is_none() {
                break;
            }
        }
        let work = move || {
            let mut builder = StripeBuilder::new();
            for (row, sealed) in blocks {
                builder.push(row, sealed)?;
            }
            Ok::<_, StripeError>(builder.close())
        };
        let closed = self.seams.pool.run(Urgency::Background, work).await;
        let closed = closed.map_err(|error| Failure::bug(error.to_string()))?;
        // The same rule by which the group counts a drive's contents as worth a stripe.
        Ok(closed.filter(|closed| closed.bytes.len() > COPIES_BYTES_MAX || closed.blocks.len() == STRIPE_BLOCKS_MAX))
    }

    /// Writes a stripe; `None` when it would be kept worse than its profile wants, for then its contents lie better where they are.
    async fn write_packed(
        &self,
        facts: &DriveFacts,
        closed: ClosedStripe<BlockRow>,
    ) -> Result<Option<NewStripe>, Failure> {
        let profile = self.profile_for(facts, closed.bytes.len(), 0).await?;
        let coded = self.code_stripe_as(Urgency::Background, closed.bytes, profile).await?;
        let blocks = closed.blocks.iter().map(|(row, place)| NewBlock {
            row: *row,
            offset: place.offset,
            sealed_bytes: place.sealed_bytes,
        });
        let written = self.write_named(facts, &coded, blocks.collect(), (None, None), 0).await;
        self.kept_well(written)
    }
}
