//! Gives a content out: the manifest with its places, then the blocks of the wanted range, checked, with read-ahead.
//!
//! Invariants: no byte leaves that does not belong to a block whose digest was checked; a range moves at most the range and two
//! blocks, unless fragments have to be rebuilt; memory is at most `READ_AHEAD` runs of a stripe each; who misses a stripe asks once
//! again for the places of its blocks.
//! Not here: headers and conditions (`http::content`), what is kept for the next reader (`answers`, `opened`).

use crate::codes;
use crate::drive::stripe_reader::{Found, StripeReading};
use crate::drive::{Caller, Core, expect};
use crate::metrics;
use bytes::Bytes;
use codec::seal::DriveSeal;
use daemon::pool::Urgency;
use futures_util::future::{Either, FutureExt};
use futures_util::stream::{self, BoxStream, StreamExt};
use model::entry::{BlockPlace, PlacedStripe};
use model::id::EntryId;
use model::stripe::StripeId;
use protocol::metadata::QueryAnswer;
use protocol::metadata::query::{DriveAsk, Manifest, ManifestBlock};
use protocol::wire_error::Failure;
use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

/// Blocks of a longer read are not kept when they were opened: one backup that is fetched would push out everything else.
const KEPT_READ_BYTES_MAX: u64 = 4 << 20;
/// A run of no more sealed bytes is opened where it is asked for. A guess: some 50 us, and the way to a thread of the pool and back
/// costs more than opening 4 KiB.
const OPENED_HERE_BYTES_MAX: usize = 32 << 10;
/// Runs that are fetched beside the one that is being sent.
const READ_AHEAD: usize = 2;

/// The bytes of a range, in order.
pub type Bits = BoxStream<'static, Result<Bytes, Failure>>;

/// The stripes of a manifest.
type Stripes = BTreeMap<StripeId, PlacedStripe>;

/// Blocks that lie side by side in one stripe, or one inline block.
struct Run {
    blocks: Vec<ManifestBlock>,
    stripe: Option<StripeId>,
}

impl Core {
    /// The manifest of `range` of a version; `None` for all of it. Authorises.
    pub async fn manifest(
        &self,
        caller: &Caller,
        entry: EntryId,
        version: Option<u64>,
        range: Option<(u64, u64)>,
    ) -> Result<Manifest, Failure> {
        match self
            .ask_kept(caller, entry.drive, DriveAsk::ReadManifest { entry, version, range })
            .await?
        {
            QueryAnswer::Manifest(manifest) => Ok(manifest),
            _ => expect(None),
        }
    }

    /// Streams `range` of the version that `first` was read from; further pages of the manifest are asked for as they are needed.
    pub fn stream(self: &Arc<Self>, caller: Caller, entry: EntryId, first: Manifest, range: Range<u64>) -> Bits {
        if first.next_offset.is_none_or(|offset| offset >= range.end) {
            return Arc::clone(self).page(caller, first, range);
        }
        let core = Arc::clone(self);
        let version = first.version.number;
        let pages = stream::unfold(Some(Ok(first)), move |page| {
            let (core, end) = (Arc::clone(&core), range.end);
            async move {
                let manifest = match page? {
                    Ok(manifest) => manifest,
                    Err(failure) => return Some((Err(failure), None)),
                };
                let next = match manifest.next_offset.filter(|offset| *offset < end) {
                    Some(offset) => Some(core.manifest(&caller, entry, Some(version), Some((offset, end))).await),
                    None => None,
                };
                Some((Ok(manifest), next))
            }
        });
        let core = Arc::clone(self);
        let (start, end) = (range.start, range.end);
        pages
            .flat_map(move |page| {
                let core = Arc::clone(&core);
                match page {
                    Err(failure) => stream::once(async move { Err(failure) }).boxed(),
                    Ok(manifest) => core.page(caller, manifest, start..end),
                }
            })
            .boxed()
    }

    fn page(self: Arc<Self>, caller: Caller, manifest: Manifest, range: Range<u64>) -> Bits {
        let seal = match self.seals.of(&manifest.drive) {
            Ok(seal) => seal,
            Err(failure) => return stream::once(async move { Err(failure) }).boxed(),
        };
        let content = (manifest.view.entry.id, manifest.version.number);
        let stripes = by_id(manifest.stripes);
        let (drive, is_kept) = (manifest.drive.drive, range.end - range.start <= KEPT_READ_BYTES_MAX);
        let (stripes, sent) = (
            Arc::new(stripes),
            self.seams.metrics.counter(&metrics::DOWNLOADED_BYTES),
        );
        let sent = sent.with_label_values::<&str>(&[]);
        let runs = runs(manifest.blocks);
        // There is nothing to be fetched beside it.
        let is_alone = runs.len() == 1;
        stream::iter(runs)
            .map(move |run| {
                let (core, stripes, seal) = (Arc::clone(&self), Arc::clone(&stripes), Arc::clone(&seal));
                let read = async move {
                    if let Some(plain) = core.find_opened(&caller, drive, is_kept, &run.blocks) {
                        return Ok((run, plain));
                    }
                    let plain = core.read_where_it_lies(&caller, content, &run, &stripes, &seal).await?;
                    if is_kept {
                        core.opened.keep(caller.principal.user, drive, &run.blocks, &plain);
                    }
                    Ok::<_, Failure>((run, plain))
                };
                if is_alone {
                    let read = AssertUnwindSafe(read).catch_unwind();
                    return Either::Left(
                        async {
                            read.await
                                .unwrap_or_else(|_| Err(Failure::bug("the reading of a run panicked")))
                        }
                        .boxed(),
                    );
                }
                // A task of its own goes on while the client is slow to take what is there; it ends with the download.
                let task = AbortOnDropHandle::new(tokio::spawn(read.in_current_span()));
                Either::Right(async move {
                    let read = task.await;
                    read.unwrap_or_else(|error| Err(Failure::bug(format!("read a run: {error}"))))
                })
            })
            .buffered(READ_AHEAD)
            .flat_map(move |read| {
                let pieces = match read {
                    Ok((run, plain)) => cut(&run, plain, &range).into_iter().map(Ok).collect(),
                    Err(failure) => vec![Err(failure)],
                };
                stream::iter(pieces)
            })
            .inspect(move |piece| {
                if let Ok(bytes) = piece {
                    sent.inc_by(bytes.len() as u64);
                }
            })
            .boxed()
    }

    /// Reads a run of a version (`content`: its file and number). Where its stripe is missed, the run is read at the places that the
    /// drive's group tells then: since the manifest was made, the blocks may have been switched to another stripe and the old one
    /// removed. They are asked for once.
    async fn read_where_it_lies(
        &self,
        caller: &Caller,
        (entry, version): (EntryId, u64),
        run: &Run,
        stripes: &Stripes,
        seal: &Arc<DriveSeal>,
    ) -> Result<Vec<Bytes>, Failure> {
        let missed = match self.read_run(caller, run, stripes, seal).await {
            Err(failure) if is_missed(&failure) => failure,
            read => return read,
        };
        let (Some(first), Some(last)) = (run.blocks.first(), run.blocks.last()) else {
            return Err(missed);
        };
        let end = last.offset.saturating_add(u64::from(last.block.row.size));
        let range = Some((first.offset, end));
        let manifest = self.manifest(caller, entry, Some(version), range).await?;
        if !has_moved(&run.blocks, &manifest.blocks) {
            return Err(missed);
        }
        let stripes = by_id(manifest.stripes);
        let mut plain = Vec::with_capacity(run.blocks.len());
        for run in runs(manifest.blocks) {
            plain.extend(self.read_run(caller, &run, &stripes, seal).await?);
        }
        Ok(plain)
    }

    async fn read_run(
        &self,
        caller: &Caller,
        run: &Run,
        stripes: &Stripes,
        seal: &Arc<DriveSeal>,
    ) -> Result<Vec<Bytes>, Failure> {
        let Some(id) = run.stripe else {
            let sealed = run.blocks.iter().filter_map(inline_bytes).collect();
            return self
                .open(run, sealed, seal)
                .await
                .ok_or_else(|| codes::CONTENT_CORRUPT.failure());
        };
        let stripe = stripes
            .get(&id)
            .ok_or_else(|| Failure::bug("the manifest lacks a stripe that a block names"))?;
        let places = || run.blocks.iter().filter_map(stripe_place);
        let start = places().map(|(offset, _)| offset).min().unwrap_or(0);
        let end = places()
            .map(|(offset, len)| u64::from(offset) + u64::from(len))
            .max()
            .unwrap_or(0);
        let len = u32::try_from(end - u64::from(start)).map_err(|_| Failure::bug("a run passes its stripe"))?;
        let mut reading = StripeReading::new(self, stripe, (start, len), caller.trace).await?;
        loop {
            let found = reading.next().await?;
            let (bytes, is_direct) = match found {
                Found::Direct(bytes) => (bytes, true),
                Found::Decoded(bytes) => (bytes, false),
            };
            let slice =
                |(offset, len): (u32, u32)| bytes.slice((offset - start) as usize..(offset - start + len) as usize);
            if let Some(plain) = self.open(run, places().map(slice).collect(), seal).await {
                return Ok(plain);
            }
            if !is_direct {
                let corrupt = self.seams.metrics.counter(&metrics::CORRUPT_READS);
                corrupt.with_label_values::<&str>(&[]).inc();
                // The stripe's own hash is right, so no other fragment can tell anything else.
                return Err(codes::CONTENT_CORRUPT.failure().with("stripe", id));
            }
            tracing::warn!(stripe = %id, "bytes of a stripe fail their digest; reading elsewhere");
            reading.refuse_direct();
        }
    }

    /// Opens every block of the run; `None` when one is not what its row says.
    async fn open(&self, run: &Run, sealed: Vec<Bytes>, seal: &Arc<DriveSeal>) -> Option<Vec<Bytes>> {
        let rows: Vec<_> = run.blocks.iter().map(|block| block.block.row).collect();
        if rows.len() != sealed.len() {
            return None;
        }
        let sealed_bytes: usize = sealed.iter().map(Bytes::len).sum();
        let seal = Arc::clone(seal);
        let work = move || {
            let blocks = rows.iter().zip(&sealed);
            blocks
                .map(|(row, sealed)| seal.open_block(row, sealed).ok())
                .collect::<Option<Vec<Bytes>>>()
        };
        if sealed_bytes <= OPENED_HERE_BYTES_MAX {
            return work();
        }
        self.seams.pool.run(Urgency::Foreground, work).await
    }
}

fn by_id(stripes: Vec<PlacedStripe>) -> Stripes {
    stripes.into_iter().map(|stripe| (stripe.id, stripe)).collect()
}

/// Whether a read ended because too little of a stripe is there.
fn is_missed(failure: &Failure) -> bool {
    codes::CONTENT_UNREADABLE.is(failure) || codes::CONTENT_CORRUPT.is(failure)
}

/// Whether these are the same blocks of a content, and one of them lies elsewhere.
fn has_moved(before: &[ManifestBlock], after: &[ManifestBlock]) -> bool {
    let is_same = |(before, after): (&ManifestBlock, &ManifestBlock)| {
        before.offset == after.offset && before.block.row == after.block.row
    };
    before.len() == after.len() && before != after && before.iter().zip(after).all(is_same)
}

fn inline_bytes(block: &ManifestBlock) -> Option<Bytes> {
    match &block.block.place {
        BlockPlace::Inline(sealed) => Some(sealed.clone()),
        BlockPlace::Stripe { .. } => None,
    }
}

fn stripe_place(block: &ManifestBlock) -> Option<(u32, u32)> {
    match &block.block.place {
        BlockPlace::Inline(_) => None,
        BlockPlace::Stripe {
            offset, sealed_bytes, ..
        } => Some((*offset, *sealed_bytes)),
    }
}

/// Joins blocks that follow each other both in the content and in one stripe.
fn runs(blocks: Vec<ManifestBlock>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for block in blocks {
        let stripe = match &block.block.place {
            BlockPlace::Inline(_) => None,
            BlockPlace::Stripe { stripe, .. } => Some(*stripe),
        };
        let follows = runs.last().is_some_and(|run| {
            stripe.is_some()
                && run.stripe == stripe
                && run
                    .blocks
                    .last()
                    .and_then(stripe_place)
                    .map(|(offset, len)| u64::from(offset) + u64::from(len))
                    == stripe_place(&block).map(|(offset, _)| u64::from(offset))
        });
        match runs.last_mut() {
            Some(run) if follows => run.blocks.push(block),
            _ => runs.push(Run {
                blocks: vec![block],
                stripe,
            }),
        }
    }
    runs
}

/// The parts of the blocks that lie in `range`.
fn cut(run: &Run, plain: Vec<Bytes>, range: &Range<u64>) -> Vec<Bytes> {
    let parts = run.blocks.iter().zip(plain).map(|(block, plain)| {
        let len = plain.len() as u64;
        let from = range.start.saturating_sub(block.offset).min(len);
        let to = range.end.saturating_sub(block.offset).min(len);
        plain.slice(from as usize..to.max(from) as usize)
    });
    parts.filter(|part| !part.is_empty()).collect()
}
