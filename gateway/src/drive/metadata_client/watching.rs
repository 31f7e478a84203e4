//! The standing call that waits until feeds of a group go on.
//!
//! Invariants: one call at a time for each group, whoever waits; it ends early when another leader becomes known.
//! A standing call holds no place of a request, so it goes also to silent groups and says nothing about their silence.
//! Not here: who waits for what (`drive::notices`).

use super::{CALL_DEADLINE, MetadataClient, Target, Try};
use crate::codes;
use crate::metrics;
use bytes::Bytes;
use daemon::clock::until_multiple;
use model::id::{GroupId, Slot};
use protocol::frame::{Call, Method, decode, encode};
use protocol::metadata::watch::{WatchAnswer, WatchRequest};
use protocol::wire_error::Failure;
use rpc::transport::Peer;
use std::time::Duration;

/// How often, at least, it is looked whether other calls have met another leader: a look at a map, for all groups at the same moment.
const LEADER_LOOK_EVERY: Duration = Duration::from_millis(500);

impl MetadataClient {
    /// The group that serves a slot.
    ///
    /// Errors: `metadata_unreachable`.
    pub async fn group_serving(&self, slot: Slot, trace: u128) -> Result<GroupId, Failure> {
        let group = self.group_for(&Target::Slot(slot), trace).await?;
        group.ok_or_else(|| codes::METADATA_UNREACHABLE.because("no group serves the slot yet"))
    }

    /// Asks the leader of `group` what moved behind `after`, and waits for it; one try with each replica.
    ///
    /// Errors: `metadata_unreachable`; the caller pauses and asks again.
    pub async fn watch_feed(&self, group: GroupId, after: Option<u64>, wait: Duration) -> Result<WatchAnswer, Failure> {
        let request = WatchRequest {
            group,
            after,
            wait_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX),
        };
        let message = encode(&request)?;
        let tries = self.peers(group, Method::WatchFeed).len() + 1;
        for turn in 0..tries {
            // Anew each time: who was asked may have named the leader, which is the first then.
            let peers = self.peers(group, Method::WatchFeed);
            let known = self.leader_of(group).is_some();
            let at = if known { 0 } else { turn % peers.len().max(1) };
            let Some(peer) = peers.get(at) else { break };
            match self.watch_at(group, peer, message.clone(), wait).await {
                Ok(answer) => return Ok(answer),
                Err(Try::Final(failure) | Try::Busy(failure)) => return Err(failure),
                Err(Try::Again { .. }) => {}
            }
        }
        Err(codes::METADATA_UNREACHABLE.failure())
    }

    async fn watch_at(&self, group: GroupId, peer: &Peer, message: Bytes, wait: Duration) -> Result<WatchAnswer, Try> {
        let call = Call {
            method: Method::WatchFeed,
            request_id: 0,
            message,
            payload: Bytes::new(),
        };
        let calls = self.seams.metrics.counter(&metrics::FEED_WATCH_CALLS);
        calls.with_label_values::<&str>(&[]).inc();
        let outcome = tokio::select! {
            outcome = self.seams.transport.call(peer, call, wait + CALL_DEADLINE) => outcome,
            () = self.another_leads(group, peer) => return Err(Try::Again {
                reason: "other_leader",
                next: super::Next::Leader,
                unknown: false,
            }),
        };
        match outcome {
            Ok(answer) => {
                let told: WatchAnswer = decode(&answer.message).map_err(Try::Final)?;
                self.note(group, peer, Method::WatchFeed, told.index);
                Ok(told)
            }
            Err(error) => Err(self.judge(group, peer, Method::WatchFeed, error)),
        }
    }

    /// Returns once another replica than `peer` is known to lead.
    async fn another_leads(&self, group: GroupId, peer: &Peer) {
        loop {
            let clock = &self.seams.clock;
            clock.sleep(until_multiple(clock.wall(), LEADER_LOOK_EVERY)).await;
            if self
                .leader_of(group)
                .is_some_and(|leader| leader != peer.process.number)
            {
                return;
            }
        }
    }
}
