//! Reads a run of bytes of a stripe, rebuilding it from any k fragments when it must.
//!
//! Invariants: the machine (`gather`) decides, this file only calls and decodes; a decoded stripe is answered only when its hash
//! is right; bytes taken directly from data fragments are checked by whoever opens the blocks in them.
//! Not here: opening blocks (`download`).

use crate::codes;
use crate::drive::Core;
use crate::drive::directory::{Known, peer_of};
use crate::drive::gather::{Event, Gather, Piece, Progress, Read, ReadFault};
use crate::metrics;
use bytes::{Bytes, BytesMut};
use daemon::pool::Urgency;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use model::entry::PlacedStripe;
use model::error_kind::ErrorKind;
use model::stripe::{FragmentName, StripeForm};
use protocol::frame::{Call, Method, decode, encode};
use protocol::node::{ByteRange, FragmentRead, ReadFragment};
use protocol::wire_error::Failure;
use std::mem;
use std::time::Duration;

/// A fragment that has not come by then is rebuilt from others beside waiting for it: ten times a cold disk's seek.
const HEDGE_AFTER: Duration = Duration::from_millis(250);
const CALL_DEADLINE: Duration = Duration::from_secs(4);
/// A read gives up by then.
const WHOLE_DEADLINE: Duration = Duration::from_secs(15);

/// How bytes were come by.
pub enum Found {
    /// Straight from data fragments, unchecked but for the disks' own checksums.
    Direct(Bytes),
    /// Cut from the whole stripe, whose hash is right.
    Decoded(Bytes),
}

/// A reading of one run of a stripe; `next` may be asked again when the bytes turn out wrong.
pub struct StripeReading<'a> {
    core: &'a Core,
    stripe: &'a PlacedStripe,
    run: (u32, u32),
    known: Known,
    gather: Gather,
    is_direct_refused: bool,
    trace: u128,
    started_at: Duration,
}

impl<'a> StripeReading<'a> {
    /// Prepares to read `run` (first byte, length of at least 1), which lies inside the stripe.
    pub async fn new(core: &'a Core, stripe: &'a PlacedStripe, run: (u32, u32), trace: u128) -> Result<Self, Failure> {
        let (known, places) = core.directory.places(stripe, trace).await?;
        let now = core.seams.clock.monotonic();
        let scheme = stripe.profile.profile();
        let is_sane = run.1 > 0
            && u64::from(run.0) + u64::from(run.1) <= u64::from(stripe.form.stripe_bytes)
            && (stripe.form.k, stripe.form.m) == (scheme.k, scheme.m);
        if !is_sane {
            return Err(Failure::bug("the metadata names bytes outside of a stripe"));
        }
        let avoid = core.directory.sparing().for_reads();
        let gather = Gather::new(stripe.form, places, run, &avoid, HEDGE_AFTER);
        Ok(Self {
            core,
            stripe,
            run,
            known,
            gather,
            is_direct_refused: false,
            trace,
            started_at: now,
        })
    }

    /// The bytes of the run.
    ///
    /// Errors: `content_unreadable` when fewer than k fragments can be read at present, `content_corrupt` when some fail their checks and
    /// those that are away could not make up for them.
    pub async fn next(&mut self) -> Result<Found, Failure> {
        let mut event = if mem::take(&mut self.is_direct_refused) {
            Event::DirectWrong
        } else {
            Event::Tick
        };
        let core = self.core;
        let mut flights = FuturesUnordered::new();
        loop {
            let now = core.seams.clock.monotonic();
            if matches!(event, Event::Tick) {
                // Their calls are dropped when others complete the read, so this is the only notice that the next read gets.
                let mut sparing = core.directory.sparing();
                for disk in self.gather.late(now) {
                    sparing.note_late(disk, now);
                }
            }
            for read in self.gather.handle(now, event) {
                flights.push(read_fragment(core, &self.known, self.stripe, read, self.trace));
            }
            match self.gather.progress() {
                Progress::Direct(pieces) => return Ok(Found::Direct(join(pieces))),
                Progress::Rebuild(pieces) => match self.decode(pieces).await {
                    Some(bytes) => {
                        let metrics = &core.seams.metrics;
                        metrics
                            .counter(&metrics::REBUILT_READS)
                            .with_label_values::<&str>(&[])
                            .inc();
                        return Ok(Found::Decoded(bytes));
                    }
                    None => {
                        // Each round finds one wrong fragment more among those that agree with their own checksums.
                        count_corrupt(core);
                        event = Event::OtherStripe;
                        continue;
                    }
                },
                Progress::Short => return Err(self.short()),
                Progress::Reading => {}
            }
            let give_up_at = self.started_at + WHOLE_DEADLINE;
            if now >= give_up_at {
                return Err(self.short());
            }
            let wait = self
                .gather
                .wake_at(now)
                .unwrap_or(give_up_at)
                .min(give_up_at)
                .saturating_sub(now);
            event = tokio::select! {
                Some(answered) = flights.next() => answered,
                () = core.seams.clock.sleep(wait) => Event::Tick,
            };
        }
    }

    /// Says that directly read bytes were wrong: `next` gives them from a decoded stripe only.
    pub fn refuse_direct(&mut self) {
        self.is_direct_refused = true;
    }

    /// How many wrong answers were met.
    pub fn corrupt(&self) -> u32 {
        self.gather.corrupt()
    }

    async fn decode(&self, pieces: Vec<Piece>) -> Option<Bytes> {
        let (form, run) = (self.stripe.form, self.run);
        let work = move || decode_any(&form, &pieces);
        let stripe = self.core.seams.pool.run(Urgency::Foreground, work).await?;
        Some(stripe.slice(run.0 as usize..(run.0 + run.1) as usize))
    }

    fn short(&self) -> Failure {
        // As long as those that are away may have what is missing, nobody has to look.
        let code = if self.gather.corrupt() > 0 && !self.gather.may_return() {
            codes::CONTENT_CORRUPT
        } else {
            codes::CONTENT_UNREADABLE
        };
        code.failure().with("stripe", self.stripe.id)
    }
}

/// Decodes the stripe from the first k of the pieces that give its hash; tries every choice of k.
fn decode_any(form: &StripeForm, pieces: &[Piece]) -> Option<Bytes> {
    let (k, count) = (usize::from(form.k), usize::from(form.k) + usize::from(form.m));
    let choices = (0_u32..1 << pieces.len()).filter(|choice| choice.count_ones() as usize == k);
    for choice in choices {
        let mut fragments = vec![None; count];
        for (_, piece) in pieces.iter().enumerate().filter(|(at, _)| choice >> at & 1 == 1) {
            fragments[usize::from(piece.index)] = Some(piece.bytes.clone());
        }
        if let Ok(stripe) = codec::erasure::decode(form, &fragments) {
            return Some(stripe);
        }
    }
    None
}

fn join(mut pieces: Vec<Piece>) -> Bytes {
    if pieces.len() == 1 {
        return pieces.remove(0).bytes;
    }
    // A copy: blocks cross the edges of fragments and are opened in one piece.
    let mut bytes = BytesMut::with_capacity(pieces.iter().map(|piece| piece.bytes.len()).sum());
    for piece in &pieces {
        bytes.extend_from_slice(&piece.bytes);
    }
    bytes.freeze()
}

fn count_corrupt(core: &Core) {
    let metrics = &core.seams.metrics;
    metrics
        .counter(&metrics::CORRUPT_READS)
        .with_label_values::<&str>(&[])
        .inc();
}

async fn read_fragment(core: &Core, known: &Known, stripe: &PlacedStripe, read: Read, trace: u128) -> Event {
    let request = read.request;
    let away = Event::Failed {
        request,
        fault: ReadFault::Away,
    };
    let name = FragmentName {
        profile: stripe.profile,
        stripe: stripe.id,
        index: read.index,
    };
    let ranges = vec![ByteRange {
        offset: read.window.start,
        len: read.window.len_bytes(),
    }];
    let (Some(peer), Ok(message)) = (
        peer_of(&known.map, read.disk),
        encode(&ReadFragment {
            name,
            disk: read.disk,
            ranges,
        }),
    ) else {
        return away;
    };
    let call = Call {
        method: Method::ReadFragment,
        request_id: trace,
        message,
        payload: Bytes::new(),
    };
    let corrupt = || {
        count_corrupt(core);
        Event::Failed {
            request,
            fault: ReadFault::Corrupt,
        }
    };
    match core.seams.transport.call(&peer, call, CALL_DEADLINE).await {
        Ok(answer) => {
            core.directory.sparing().note_read(read.disk);
            match decode::<FragmentRead>(&answer.message) {
                Ok(found) => Event::Read {
                    request,
                    form: found.form,
                    bytes: answer.payload,
                },
                Err(_) => corrupt(),
            }
        }
        Err(error) => match error.refusal().map(|failure| failure.kind) {
            Some(ErrorKind::Corrupt) => corrupt(),
            Some(ErrorKind::NotFound) => Event::Failed {
                request,
                fault: ReadFault::Missing,
            },
            _ => {
                let now = core.seams.clock.monotonic();
                core.directory.sparing().note_failed(read.disk, now);
                away
            }
        },
    }
}
