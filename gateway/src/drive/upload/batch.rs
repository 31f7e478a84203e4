//! One batch of an upload: at most a stripe's worth of blocks, from plaintext to durable.
//!
//! Digest all, ask the drive which it has, seal the others, lay them into a stripe, code it, write it. The plaintext is kept until
//! the rows are named, so that blocks which the drive loses meanwhile can be written after all.
//! Not here: the order of batches, rows and commits (`upload`).

use crate::drive::stripe_writer::{Coded, cut_and_code};
use crate::drive::upload::Stage;
use crate::drive::{Caller, Core, expect};
use crate::metrics;
use bytes::Bytes;
use codec::keys::RandomBytes;
use codec::seal::{DriveSeal, SEAL_BYTES};
use codec::stripe::{ClosedStripe, StripeBuilder, StripeError};
use daemon::pool::Urgency;
use model::digest::Digest;
use model::entry::BlockRow;
use model::limits::COPIES_BYTES_MAX;
use model::profile::{Domain, ProfileId};
use model::stripe::{STRIPE_BLOCKS_MAX, STRIPE_TARGET_BYTES, StripeId};
use placement::ack::{Ack, HeldFragment, TakenFragment, ack};
use protocol::metadata::query::{DriveAsk, DriveFacts, FoundBlocks, StripeFacts};
use protocol::metadata::upload::{NewBlock, NewStripe, Survival};
use protocol::metadata::{Query, QueryAnswer, SlotTime};
use protocol::wire_error::Failure;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A drawn name that is taken is next to impossible; a few tries rule out everything but a broken generator.
const NAMES_MAX: u32 = 4;

/// Blocks that will be stored together.
#[derive(Default)]
pub(super) struct Batch {
    blocks: Vec<Bytes>,
    sealed_bytes_max: usize,
}

/// A stripe that was written, with what is needed to write it again.
pub(super) struct Written {
    /// As the command names it.
    pub named: NewStripe,
    coded: Coded,
}

/// A batch whose blocks are durable or known to the drive.
pub(super) struct Done {
    /// Its blocks in the order of the content.
    pub rows: Vec<BlockRow>,
    /// Stripes to be named with them.
    pub stripes: Vec<Written>,
    /// The least that any of its blocks survives.
    pub survival: Survival,
    /// Plain bytes of its blocks.
    pub plain_bytes: usize,
    /// Plaintext by digest, those of known blocks too.
    plain: BTreeMap<Digest, Bytes>,
}

impl Batch {
    /// Adds a block; answers the batch before it when the block would not fit the same stripe.
    pub(super) fn push(&mut self, block: Bytes) -> Option<Self> {
        let sealed_bytes = block.len() + SEAL_BYTES;
        let is_full =
            self.sealed_bytes_max + sealed_bytes > STRIPE_TARGET_BYTES || self.blocks.len() == STRIPE_BLOCKS_MAX;
        let full = (is_full && !self.blocks.is_empty()).then(|| std::mem::take(self));
        self.blocks.push(block);
        self.sealed_bytes_max += sealed_bytes;
        full
    }

    pub(super) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    pub(super) fn plain_bytes(&self) -> usize {
        self.blocks.iter().map(Bytes::len).sum()
    }

    /// Makes every block of the batch durable, unless the drive has it.
    pub(super) async fn store(self, stage: &Stage) -> Result<Done, Failure> {
        let Stage {
            core, caller, facts, ..
        } = stage;
        let rows = digests(stage, self.blocks.clone()).await;
        let plain: BTreeMap<Digest, Bytes> = rows
            .iter()
            .map(|row| row.digest)
            .zip(self.blocks.iter().cloned())
            .collect();
        let wanted: Vec<Digest> = plain.keys().copied().collect();
        let asked = core.ask_with_time(caller, facts.drive, DriveAsk::FindBlocks(wanted));
        let (QueryAnswer::Blocks(found), time) = asked.await? else {
            return expect(None);
        };
        let known: BTreeSet<Digest> = found.found.iter().map(|block| block.row.digest).collect();
        let count = |definition, count: usize| {
            core.seams
                .metrics
                .counter(definition)
                .with_label_values::<&str>(&[])
                .inc_by(count as u64);
        };
        count(&metrics::BLOCKS_KNOWN, known.len());
        count(&metrics::BLOCKS_NEW, plain.len() - known.len());
        let mut survival = core.found_survival(caller, facts, &found).await?;
        let mut seen = known;
        let lacking: Vec<BlockRow> = rows.iter().filter(|row| seen.insert(row.digest)).copied().collect();
        let (stripes, written) = store_blocks(stage, time, &lacking, &plain).await?;
        survival = survival.least(written);
        let plain_bytes = rows.iter().map(|row| row.size as usize).sum();
        Ok(Done {
            rows,
            stripes,
            survival,
            plain_bytes,
            plain,
        })
    }
}

impl Done {
    /// Writes the stripes again: under the newest rows, and under new names when theirs are refused.
    pub(super) async fn write_again(&mut self, stage: &Stage, renames: bool) -> Result<(), Failure> {
        for written in &mut self.stripes {
            let name = (!renames).then_some(written.named.id);
            let blocks = written.named.blocks.clone();
            let (named, survival) = write_named(stage, &written.coded, blocks, (name, None)).await?;
            written.named = named;
            self.survival = self.survival.least(survival);
        }
        Ok(())
    }

    /// Writes those blocks that the drive was said to have and has no longer.
    pub(super) async fn write_known(&mut self, stage: &Stage) -> Result<(), Failure> {
        let Stage {
            core, caller, facts, ..
        } = stage;
        let wanted: Vec<Digest> = self.plain.keys().copied().collect();
        let asked = core.ask_with_time(caller, facts.drive, DriveAsk::FindBlocks(wanted));
        let (QueryAnswer::Blocks(found), time) = asked.await? else {
            return expect(None);
        };
        let mut has: BTreeSet<Digest> = found.found.iter().map(|block| block.row.digest).collect();
        has.extend(
            self.stripes
                .iter()
                .flat_map(|written| written.named.blocks.iter().map(|block| block.row.digest)),
        );
        let mut lacking: Vec<BlockRow> = self
            .rows
            .iter()
            .filter(|row| !has.contains(&row.digest))
            .copied()
            .collect();
        lacking.sort_by_key(|row| row.digest);
        lacking.dedup();
        let (stripes, survival) = store_blocks(stage, time, &lacking, &self.plain).await?;
        self.stripes.extend(stripes);
        self.survival = self.survival.least(survival);
        Ok(())
    }
}

/// What no block at all survives.
pub(in crate::drive) const NOTHING_LOST: Survival = Survival {
    survives: Domain::Region,
    is_degraded: false,
};

async fn digests(stage: &Stage, blocks: Vec<Bytes>) -> Vec<BlockRow> {
    let seal = Arc::clone(&stage.seal);
    let row = move |block: &Bytes| BlockRow {
        digest: seal.digest(block),
        size: block.len() as u32,
    };
    let len_bytes: usize = blocks.iter().map(Bytes::len).sum();
    let work = move || blocks.iter().map(row).collect::<Vec<BlockRow>>();
    let pool = &stage.core.seams.pool;
    pool.run_by_length(Urgency::Foreground, len_bytes, work).await
}

async fn store_blocks(
    stage: &Stage,
    time: Option<SlotTime>,
    lacking: &[BlockRow],
    plain: &BTreeMap<Digest, Bytes>,
) -> Result<(Vec<Written>, Survival), Failure> {
    let mut survival = NOTHING_LOST;
    let mut stripes = Vec::new();
    let blocks = lacking
        .iter()
        .filter_map(|row| Some((*row, plain.get(&row.digest)?.clone())))
        .collect();
    for (blocks, coded) in lay_and_code(stage, blocks).await? {
        let (named, durable) = write_named(stage, &coded, blocks, (None, time)).await?;
        survival = survival.least(durable);
        stripes.push(Written { named, coded });
    }
    Ok((stripes, survival))
}

/// Seals the blocks, lays them into stripes and codes these: one piece of work, since each way to the pool and back costs wake-ups.
async fn lay_and_code(stage: &Stage, blocks: Vec<(BlockRow, Bytes)>) -> Result<Vec<(Vec<NewBlock>, Coded)>, Failure> {
    if blocks.is_empty() {
        return Ok(Vec::new());
    }
    let Stage {
        core, caller, facts, ..
    } = stage;
    let (long, short) = (facts.profile, core.profile_for(facts, 0, caller.trace).await?);
    let (seal, random) = (Arc::clone(&stage.seal), core.seams.random.clone());
    let work = move || {
        let mut fill = |bytes: &mut [u8]| random.fill(bytes);
        let laid = lay(&seal, blocks, &mut fill).map_err(|error| Failure::bug(error.to_string()))?;
        let coded = laid.into_iter().map(|closed| {
            let is_long = closed.bytes.len() > COPIES_BYTES_MAX;
            let coded = cut_and_code(&closed.bytes, if is_long { long } else { short })?;
            let blocks = closed.blocks.iter().map(|(row, place)| NewBlock {
                row: *row,
                offset: place.offset,
                sealed_bytes: place.sealed_bytes,
            });
            Ok((blocks.collect(), coded))
        });
        coded.collect::<Result<Vec<(Vec<NewBlock>, Coded)>, Failure>>()
    };
    core.seams.pool.run(Urgency::Foreground, work).await
}

fn lay(
    seal: &DriveSeal,
    blocks: Vec<(BlockRow, Bytes)>,
    fill: &mut RandomBytes<'_>,
) -> Result<Vec<ClosedStripe<BlockRow>>, StripeError> {
    let mut builder = StripeBuilder::new();
    let mut closed = Vec::new();
    for (row, plain) in blocks {
        let sealed = seal.seal_block(&row.digest, &plain, fill);
        closed.extend(builder.push(row, sealed)?);
    }
    closed.extend(builder.close());
    Ok(closed)
}

/// As `Core::write_named`, for an upload.
pub(super) async fn write_named(
    stage: &Stage,
    coded: &Coded,
    blocks: Vec<NewBlock>,
    name: (Option<StripeId>, Option<SlotTime>),
) -> Result<(NewStripe, Survival), Failure> {
    let Stage {
        core, caller, facts, ..
    } = stage;
    core.write_named(facts, coded, blocks, name, caller.trace).await
}

impl Core {
    /// Writes a coded stripe under `name`, or under fresh ones until one is free; the first of them is born at the `time` that the
    /// group told a moment ago, if it did.
    pub(in crate::drive) async fn write_named(
        &self,
        facts: &DriveFacts,
        coded: &Coded,
        blocks: Vec<NewBlock>,
        (mut name, mut time): (Option<StripeId>, Option<SlotTime>),
        trace: u128,
    ) -> Result<(NewStripe, Survival), Failure> {
        for _ in 0..NAMES_MAX {
            let id = match name.take() {
                Some(id) => id,
                None => self.draw_stripe_id(facts, time.take(), trace).await?,
            };
            if let Some(durable) = self.write_stripe(id, coded, trace).await? {
                let (profile, form, row_version, astray) =
                    (coded.profile, coded.form, durable.row_version, durable.astray);
                let named = NewStripe {
                    id,
                    profile,
                    form,
                    row_version,
                    astray,
                    blocks,
                };
                return Ok((named, durable.survival));
            }
        }
        Err(Failure::bug("every drawn stripe id was taken"))
    }

    async fn draw_stripe_id(
        &self,
        facts: &DriveFacts,
        told: Option<SlotTime>,
        trace: u128,
    ) -> Result<StripeId, Failure> {
        let slot = facts.drive.slot();
        let time = match told {
            Some(time) => time,
            None => match self.metadata.query(&Query::Slot(slot), trace).await?.0 {
                QueryAnswer::Time(time) => time,
                _ => return expect(None),
            },
        };
        Ok(StripeId::new(self.seams.random.u128(), slot, time.birth_epoch))
    }

    /// `copies` for small stripes where the cluster has a table for it, else the drive's own profile.
    pub(in crate::drive) async fn profile_for(
        &self,
        facts: &DriveFacts,
        bytes: usize,
        trace: u128,
    ) -> Result<ProfileId, Failure> {
        if bytes > COPIES_BYTES_MAX {
            return Ok(facts.profile);
        }
        let known = self.directory.known(trace).await?;
        let has_copies = known.layout.tables.contains_key(&ProfileId::Copies);
        Ok(if has_copies { ProfileId::Copies } else { facts.profile })
    }

    /// What the blocks that a drive has already survive, by their stripes' rows and what lies astray.
    pub(in crate::drive) async fn found_survival(
        &self,
        caller: &Caller,
        facts: &DriveFacts,
        found: &FoundBlocks,
    ) -> Result<Survival, Failure> {
        let mut survival = NOTHING_LOST;
        if found.found.iter().any(|block| block.stripe.is_none()) {
            survival = survival.least(self.inline_survival(facts.drive.slot()));
        }
        for stripe in &found.stripes {
            survival = survival.least(self.stripe_survival(stripe, caller.trace).await?);
        }
        Ok(survival)
    }

    async fn stripe_survival(&self, stripe: &StripeFacts, trace: u128) -> Result<Survival, Failure> {
        let (known, row) = self.directory.row(stripe.profile, stripe.id, trace).await?;
        let profile = stripe.profile.profile();
        let taken: Vec<TakenFragment> = (0..profile.fragments() as u8)
            .filter_map(|index| {
                let astray = stripe.astray.iter().find(|astray| astray.index == index);
                // While a row is being filled, the fragment lies where it lay before.
                let planned = row
                    .filling_from
                    .get(&index)
                    .or_else(|| row.disks.get(usize::from(index)))
                    .copied();
                let disk = astray.map_or(planned, |astray| astray.disk)?;
                Some(TakenFragment {
                    fragment: HeldFragment { index, disk },
                    row_version: row.version,
                })
            })
            .collect();
        Ok(match ack(&taken, &row, profile, &known.map) {
            Ack::Acknowledged { survives, is_degraded } => Survival { survives, is_degraded },
            Ack::Refused => Survival {
                survives: Domain::Disk,
                is_degraded: true,
            },
        })
    }
}
