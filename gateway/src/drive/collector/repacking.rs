//! Repacks stripes that are less than half alive: reads their living blocks, writes them into a new stripe, has the places switched.
//!
//! Sealed blocks move as they are: a seal is bound to its drive, digest and length, not to where it lies, so no key is needed. What a
//! stripe holds is believed only when the whole of it has its hash, since without the key no block can be compared with its digest.
//! A gateway that dies before the command leaves a stripe that nobody has named, which goes as every orphan does; behind the command
//! the old stripes have no living byte and are removed as such.
//! Invariants: at most one stripe's share of the upload budget is held, and only while another is left; a stripe that cannot be read
//! is passed by, and the next look goes on behind it until the queue has been gone through.
//! Not here: which stripes are repacked and what is switched (the group's state).

use super::{StripeName, Turn};
use crate::drive::Core;
use crate::drive::metadata_client::unexpected;
use crate::drive::stripe_reader::{Found, StripeReading};
use crate::metrics;
use bytes::Bytes;
use codec::digest::stripe_hash;
use codec::stripe::{ClosedStripe, StripeBuilder};
use daemon::pool::Urgency;
use model::entry::{BlockRow, PlacedStripe};
use model::id::{DriveId, GroupId};
use protocol::metadata::query::{DriveAsk, DriveQuery, StripeFacts};
use protocol::metadata::repacking::{OldPlace, Repacked, Repacking, SparseStripe};
use protocol::metadata::upload::{NewBlock, UploadCommand};
use protocol::metadata::{Command, CommandAnswer, Query, QueryAnswer};
use protocol::wire_error::Failure;
use std::collections::BTreeSet;
use std::time::Duration;

/// New stripes of one look at a group: removal is looked at again behind them.
const WRITTEN_MAX: usize = 32;
/// Between two of them: it takes a small share of disks and network. Guess.
const PAUSE: Duration = Duration::from_millis(200);

/// Blocks laid end to end, each with where it was read.
type Laid = ClosedStripe<(BlockRow, OldPlace)>;

impl Core {
    /// Works off what a group has to be repacked, a bounded part of it. May be dropped at any moment.
    pub(super) async fn repack(&self, group: GroupId, turn: &mut Turn) -> Result<(), Failure> {
        for _ in 0..WRITTEN_MAX {
            let now = self.seams.clock.monotonic();
            if now < turn.rests_until || now > turn.look_ends {
                return Ok(());
            }
            let asked = Query::Repackable(turn.behind);
            let QueryAnswer::Repackable(found) = self.metadata.query_group(group, &asked, 0).await? else {
                return Err(unexpected());
            };
            let Some(SparseStripe { facts: first, .. }) = found.stripes.first() else {
                turn.behind = None;
                return Ok(());
            };
            let Some(lease) = self.hold_lease(group, turn, found.lease, now).await? else {
                return Ok(());
            };
            let Some(share) = self.budget.extend_idle() else {
                return Ok(());
            };
            turn.behind = Some((first.profile, first.id));
            let (laid, all_read) = self.lay_living(&found.stripes).await?;
            if let Some(laid) = laid
                && !self.switch(first.drive, lease, laid).await?
            {
                self.rest(turn);
            }
            drop(share);
            if !all_read {
                // It took as long as a read that gives up, and removal waits behind this.
                return Ok(());
            }
            self.seams.clock.sleep(PAUSE).await;
        }
        Ok(())
    }

    /// The living blocks of these stripes, up to one that cannot be read, and whether there was none of those.
    async fn lay_living(&self, stripes: &[SparseStripe]) -> Result<(Option<Laid>, bool), Failure> {
        let mut builder = StripeBuilder::new();
        for SparseStripe { facts, blocks } in stripes {
            let bytes = match self.read_whole(facts).await {
                Ok(bytes) => bytes,
                Err(failure) => {
                    tracing::debug!(stripe = %facts.id, %failure, "a stripe was not repacked");
                    return Ok((builder.close(), false));
                }
            };
            for block in blocks {
                let (start, length) = (block.offset as usize, block.sealed_bytes as usize);
                let sealed = bytes
                    .get(start..start.saturating_add(length))
                    .ok_or_else(|| Failure::bug("the metadata names bytes outside of a stripe"))?;
                let old = OldPlace {
                    block: block.id,
                    profile: facts.profile,
                    stripe: facts.id,
                    offset: block.offset,
                };
                // A copy: a slice would keep the whole old stripe in memory.
                let sealed = Bytes::copy_from_slice(sealed);
                let closed = builder.push((block.row, old), sealed);
                if let Some(full) = closed.map_err(|error| Failure::bug(error.to_string()))? {
                    // The group tells no more than one stripe holds; what is left would be found by the next look.
                    return Ok((Some(full), true));
                }
            }
        }
        Ok((builder.close(), true))
    }

    /// All bytes of a stripe, as they were written.
    async fn read_whole(&self, facts: &StripeFacts) -> Result<Bytes, Failure> {
        let (form, id) = (facts.form, facts.id);
        let placed = PlacedStripe {
            id,
            profile: facts.profile,
            form,
            astray: facts.astray.clone(),
        };
        let mut reading = StripeReading::new(self, &placed, (0, form.stripe_bytes), 0).await?;
        loop {
            let bytes = match reading.next().await? {
                Found::Decoded(bytes) => return Ok(bytes),
                Found::Direct(bytes) => bytes,
            };
            let read = bytes.clone();
            let hashing = move || stripe_hash(&read);
            if self.seams.pool.run(Urgency::Background, hashing).await == form.stripe_hash {
                return Ok(bytes);
            }
            tracing::warn!(stripe = %id, "bytes of a stripe are not those that were written; reading elsewhere");
            reading.refuse_direct();
        }
    }

    /// Writes the new stripe and has the places of its blocks switched, unless it would be kept worse than its profile wants: nobody
    /// mends that yet, and the old stripes are perhaps whole. Answers whether it was not.
    async fn switch(&self, drive: DriveId, lease: u64, laid: Laid) -> Result<bool, Failure> {
        let asked = Query::Drive(DriveQuery {
            drive,
            principal: None,
            ask: DriveAsk::Facts,
        });
        let (QueryAnswer::Drive(facts), time) = self.metadata.query(&asked, 0).await? else {
            return Err(unexpected());
        };
        let blocks = laid.blocks.iter().map(|((row, _), place)| NewBlock {
            row: *row,
            offset: place.offset,
            sealed_bytes: place.sealed_bytes,
        });
        let blocks = blocks.collect();
        let from: Vec<OldPlace> = laid.blocks.iter().map(|((_, old), _)| *old).collect();
        let profile = self.profile_for(&facts, laid.bytes.len(), 0).await?;
        let coded = self.code_stripe_as(Urgency::Background, laid.bytes, profile).await?;
        let written = self.write_named(&facts, &coded, blocks, (None, time), 0).await;
        let Some(stripe) = self.kept_well(written)? else {
            return Ok(false);
        };
        let stripes: BTreeSet<StripeName> = from.iter().map(|old| (old.profile, old.stripe)).collect();
        let repacking = Repacking {
            drive,
            lease,
            stripe,
            from,
        };
        let command = Command::Upload(UploadCommand::RepackBlocks(repacking));
        let (CommandAnswer::Repacked(repacked), _) = self.metadata.command(command, None, 0).await? else {
            return Err(unexpected());
        };
        if repacked.blocks > 0 {
            self.note_repacked(stripes.len(), repacked);
        }
        Ok(true)
    }

    fn note_repacked(&self, stripes: usize, repacked: Repacked) {
        let registry = &self.seams.metrics;
        let counter = registry.counter(&metrics::STRIPES_REPACKED);
        counter.with_label_values::<&str>(&[]).inc_by(stripes as u64);
        let counter = registry.counter(&metrics::REPACKED_BYTES);
        counter.with_label_values::<&str>(&[]).inc_by(u64::from(repacked.bytes));
    }
}
