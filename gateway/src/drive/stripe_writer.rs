//! Makes one stripe durable: cuts it into fragments and carries out the fan-out.
//!
//! Invariants: the machine (`fanout`) decides, this file only calls; every fragment travels as a slice of the stripe; when the
//! outcome is there, calls still under way are dropped.
//! Not here: which blocks lie in the stripe (`upload`).

use crate::codes;
use crate::drive::Core;
use crate::drive::directory::{Known, peer_of};
use crate::drive::fanout::{Durable, Event, Fanout, Outcome, Patience, Send, StoreFault};
use crate::metrics;
use bytes::Bytes;
use daemon::pool::Urgency;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use model::error_kind::ErrorKind;
use model::id::DiskId;
use model::profile::ProfileId;
use model::stripe::{FragmentName, StripeForm, StripeId};
use protocol::frame::{Call, Method, decode, encode};
use protocol::node::{ConfirmAnswer, ConfirmFragment, PayloadHash, StoreAnswer, StoreFragment, code};
use protocol::wire_error::Failure;
use rpc::transport::RpcError;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// A disk that takes longer than this for a fragment is replaced: a hundred times a slow fdatasync.
const DISK_PATIENCE: Duration = Duration::from_secs(2);
/// A write ends by then, one way or the other.
const WHOLE_PATIENCE: Duration = Duration::from_secs(12);
/// The deadline of one call; behind the disk's patience, so that a late success still counts.
const CALL_DEADLINE: Duration = Duration::from_secs(6);

/// A stripe ready to be sent.
pub struct Coded {
    /// Its scheme.
    pub profile: ProfileId,
    /// Lengths and hash.
    pub form: StripeForm,
    /// k+m fragments of equal length, each with its hash.
    pub fragments: Arc<Vec<(Bytes, PayloadHash)>>,
}

impl Core {
    /// Cuts `stripe` into fragments of `profile`, on the CPU pool.
    pub async fn code_stripe(&self, stripe: Bytes, profile: ProfileId) -> Result<Coded, Failure> {
        self.code_stripe_as(Urgency::Foreground, stripe, profile).await
    }

    /// The same before or behind what others have the pool do.
    pub async fn code_stripe_as(&self, urgency: Urgency, stripe: Bytes, profile: ProfileId) -> Result<Coded, Failure> {
        self.seams
            .pool
            .run(urgency, move || cut_and_code(&stripe, profile))
            .await
    }

    /// Writes a stripe's fragments and answers what is durable by the ack rule; `None` when the name is taken by other bytes.
    ///
    /// Errors: below the floor `storage_full` when room is what lacks, else `too_few_disks`. May be dropped midway: fragments
    /// already stored become orphans.
    pub async fn write_stripe(&self, id: StripeId, coded: &Coded, trace: u128) -> Result<Option<Durable>, Failure> {
        let (known, row) = self.directory.row(coded.profile, id, trace).await?;
        let clock = &self.seams.clock;
        let patience = Patience {
            disk: DISK_PATIENCE,
            whole: WHOLE_PATIENCE,
        };
        let spared = self.directory.sparing().for_writes(clock.monotonic());
        let version = row.version;
        let mut fanout = Fanout::new(
            id,
            coded.profile.profile(),
            (Arc::clone(&known.map), row),
            spared,
            patience,
            clock.monotonic(),
        );
        let mut flights = FuturesUnordered::new();
        let mut event = Event::Tick;
        loop {
            let has_waited = matches!(event, Event::Tick);
            for send in fanout.handle(clock.monotonic(), event) {
                flights.push(self.send_fragment(&known, id, coded, send, trace));
            }
            if has_waited {
                // Their calls may be dropped before they fail, so this is the only notice that the next write gets.
                self.spare(fanout.silent());
            }
            if let Some(outcome) = fanout.outcome() {
                if fanout.row().version > version {
                    self.directory.learn(coded.profile, id, fanout.row());
                }
                return self.note_outcome(outcome.clone());
            }
            let wait = fanout.wake_at().saturating_sub(clock.monotonic());
            event = tokio::select! {
                Some(answered) = flights.next() => answered,
                () = clock.sleep(wait) => Event::Tick,
            };
        }
    }

    fn spare(&self, disks: BTreeSet<DiskId>) {
        let now = self.seams.clock.monotonic();
        let mut sparing = self.directory.sparing();
        for disk in disks {
            sparing.note_failed(disk, now);
        }
    }

    fn note_outcome(&self, outcome: Outcome) -> Result<Option<Durable>, Failure> {
        let metrics = &self.seams.metrics;
        match outcome {
            Outcome::Durable(durable) => {
                let degraded = if durable.survival.is_degraded { "true" } else { "false" };
                metrics
                    .counter(&metrics::STRIPES_WRITTEN)
                    .with_label_values(&[degraded])
                    .inc();
                let hand_offs = metrics.counter(&metrics::HAND_OFFS).with_label_values::<&str>(&[]);
                hand_offs.inc_by(u64::from(durable.hand_offs));
                Ok(Some(durable))
            }
            Outcome::BelowFloor { stored, is_full } => {
                metrics
                    .counter(&metrics::WRITES_REFUSED)
                    .with_label_values::<&str>(&[])
                    .inc();
                let code = match is_full {
                    true => codes::STORAGE_FULL,
                    false => codes::TOO_FEW_DISKS,
                };
                Err(code.failure().with("stored", stored))
            }
            Outcome::NameTaken => Ok(None),
        }
    }

    async fn send_fragment(&self, known: &Known, id: StripeId, coded: &Coded, send: Send, trace: u128) -> Event {
        let Some(peer) = peer_of(&known.map, send.disk) else {
            return Event::Failed(send.request, StoreFault::Refused);
        };
        let Ok(call) = fragment_call(id, coded, send, trace) else {
            return Event::Failed(send.request, StoreFault::Refused);
        };
        let answer = self.seams.transport.call(&peer, call, CALL_DEADLINE).await;
        let event = match answer {
            Ok(answer) if send.is_confirmation => confirmed(send.request, &answer.message),
            Ok(answer) => stored(send.request, &answer.message),
            Err(error) => {
                let (fault, now) = (fault_of(&error), self.seams.clock.monotonic());
                let mut sparing = self.directory.sparing();
                match fault {
                    StoreFault::Refused | StoreFault::Unreachable | StoreFault::Unanswered => {
                        sparing.note_failed(send.disk, now);
                    }
                    StoreFault::Full => sparing.note_full(send.disk, now),
                    StoreFault::Damaged | StoreFault::OtherContent => {}
                }
                return Event::Failed(send.request, fault);
            }
        };
        self.directory.sparing().welcome(send.disk);
        event
    }
}

/// Cuts `stripe` into fragments of `profile` and hashes each: work for the CPU pool.
///
/// Errors: a `bug` for a stripe that is longer than any.
pub fn cut_and_code(stripe: &Bytes, profile: ProfileId) -> Result<Coded, Failure> {
    let scheme = profile.profile();
    let (form, fragments) = codec::erasure::encode(stripe, scheme.k, scheme.m)
        .map_err(|error| Failure::bug(format!("code stripe: {error}")))?;
    let hashed = fragments.into_iter().map(|bytes| {
        // With one data fragment each fragment is the stripe itself, whose hash is known; only an empty stripe is padded.
        let is_stripe = form.k == 1 && bytes.len() == stripe.len();
        let hash = if is_stripe {
            form.stripe_hash
        } else {
            codec::digest::stripe_hash(&bytes)
        };
        (bytes, PayloadHash(hash.0))
    });
    Ok(Coded {
        profile,
        form,
        fragments: Arc::new(hashed.collect()),
    })
}

fn fragment_call(id: StripeId, coded: &Coded, send: Send, trace: u128) -> Result<Call, Failure> {
    let name = FragmentName {
        profile: coded.profile,
        stripe: id,
        index: send.index,
    };
    let (payload, payload_hash) = coded.fragments[usize::from(send.index)].clone();
    let (disk, row_version, form) = (send.disk, send.row_version, coded.form);
    let (method, message, payload) = if send.is_confirmation {
        (
            Method::ConfirmFragment,
            encode(&ConfirmFragment {
                name,
                form,
                disk,
                row_version,
            })?,
            Bytes::new(),
        )
    } else {
        (
            Method::StoreFragment,
            encode(&StoreFragment {
                name,
                form,
                payload_hash,
                disk,
                row_version,
            })?,
            payload,
        )
    };
    Ok(Call {
        method,
        request_id: trace,
        message,
        payload,
    })
}

fn stored(request: u32, message: &[u8]) -> Event {
    match decode(message) {
        Ok(StoreAnswer::Stored(_)) => Event::Stored(request),
        Ok(StoreAnswer::StaleRow(known)) => Event::Stale(request, known.row),
        Err(_) => Event::Failed(request, StoreFault::Unanswered),
    }
}

fn confirmed(request: u32, message: &[u8]) -> Event {
    match decode(message) {
        Ok(ConfirmAnswer::Held(_)) => Event::Stored(request),
        Ok(ConfirmAnswer::Absent) => Event::Absent(request),
        Ok(ConfirmAnswer::StaleRow(known)) => Event::Stale(request, known.row),
        Err(_) => Event::Failed(request, StoreFault::Unanswered),
    }
}

fn fault_of(error: &RpcError) -> StoreFault {
    match error.refusal() {
        Some(failure) if failure.code == code::OTHER_CONTENT => StoreFault::OtherContent,
        Some(failure) if failure.code == code::PAYLOAD_MISMATCH => StoreFault::Damaged,
        Some(failure) if failure.code == code::DISK_FULL => StoreFault::Full,
        Some(failure) if failure.kind == ErrorKind::Ambiguous => StoreFault::Unanswered,
        Some(_) => StoreFault::Refused,
        None if error.is_surely_not_executed() => StoreFault::Unreachable,
        None => StoreFault::Unanswered,
    }
}

#[cfg(test)]
mod tests {
    use super::cut_and_code;
    use bytes::Bytes;
    use model::profile::ProfileId;

    #[test]
    fn every_fragment_has_the_hash_of_its_own_bytes() {
        for profile in ProfileId::ALL {
            for length in [0, 1, 2, 4_099, 16 << 10, 100_003] {
                let stripe: Bytes = (0..length).map(|at: u32| (at % 251) as u8).collect();
                let coded = cut_and_code(&stripe, profile).unwrap();
                assert_eq!(coded.fragments.len(), profile.profile().fragments());
                for (bytes, hash) in coded.fragments.iter() {
                    let own = codec::digest::stripe_hash(bytes);
                    assert_eq!(hash.0, own.0, "{profile}, {length} bytes");
                }
            }
        }
    }
}
