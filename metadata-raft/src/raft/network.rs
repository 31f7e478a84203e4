//! The calls between replicas: openraft's messages with the group they mean, over the transport seam.
//!
//! Invariants: every call has a deadline, openraft's own, cut by a quarter; a part of a snapshot is answered only once written;
//! one snapshot a group is received at a time, a newer transfer ends an older one.
//! Not here: openraft's rules; resuming a broken snapshot transfer; appends in flight at once (one call carries many entries).

use crate::raft::snapshot::{Part, SnapshotData, Staging, meta_of, read_parts};
use crate::raft::state_machine::GroupState;
use crate::raft::types::{ReplicaInfo, TypeConfig, Vote};
use bytes::Bytes;
use model::error_kind::ErrorKind;
use model::id::GroupId;
use model::process::{ProcessId, Role};
use openraft::error::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::type_config::alias::SnapshotOf;
use openraft::{OptionalSend, Raft};
use protocol::frame::{Answer, Call, Method, decode, encode};
use protocol::wire_error::Failure;
use rpc::transport::{Peer, Transport};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;

/// A replica as openraft runs it.
pub type GroupRaft = Raft<TypeConfig, GroupState>;

/// Before each message: which group it means.
#[derive(Debug, Serialize, Deserialize)]
struct Envelope {
    group: u32,
}

/// One part of a snapshot on its way.
#[derive(Debug, Serialize, Deserialize)]
struct SnapshotPart {
    vote: Vote,
    /// Tells two transfers apart.
    transfer: u64,
    /// Counts the parts of a transfer from 0.
    number: u32,
    part: Part,
}

/// What a part is answered: `None` for all but the last.
type SnapshotAnswer = Option<SnapshotResponse<TypeConfig>>;

/// Makes openraft's connections to other replicas of one group.
#[derive(Clone)]
pub struct GroupNetwork {
    transport: Arc<dyn Transport>,
    group: GroupId,
    transfers: Arc<AtomicU64>,
}

impl GroupNetwork {
    /// Calls for `group` over `transport`. `first_transfer` is random, so that transfers of two lives of a process differ.
    #[must_use]
    pub fn new(transport: Arc<dyn Transport>, group: GroupId, first_transfer: u64) -> Self {
        Self {
            transport,
            group,
            transfers: Arc::new(AtomicU64::new(first_transfer)),
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for GroupNetwork {
    type Network = ReplicaConnection;

    async fn new_client(&mut self, target: u64, node: &ReplicaInfo) -> ReplicaConnection {
        let process = ProcessId {
            role: Role::Metadata,
            number: target,
        };
        ReplicaConnection {
            network: self.clone(),
            peer: Peer {
                process,
                address: node.address,
            },
        }
    }
}

/// Calls to one replica.
pub struct ReplicaConnection {
    network: GroupNetwork,
    peer: Peer,
}

/// Encodes a message for the group it means.
///
/// # Errors
/// `Bug` when it cannot be encoded.
fn message_of<T: Serialize>(group: GroupId, message: &T) -> Result<Bytes, Failure> {
    encode(&(Envelope { group: group.0 }, message))
}

impl ReplicaConnection {
    async fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        method: Method,
        request: &Q,
        deadline: Duration,
    ) -> Result<A, RPCError<TypeConfig>> {
        // The payload may be longer than a head, and a run of entries is.
        let payload =
            message_of(self.network.group, request).map_err(|error| RPCError::Network(NetworkError::new(&error)))?;
        let call = Call {
            method,
            request_id: 0,
            message: Bytes::new(),
            payload,
        };
        match self.network.transport.call(&self.peer, call, deadline).await {
            Ok(answer) => decode(&answer.payload).map_err(|error| RPCError::Network(NetworkError::new(&error))),
            // All of them wait before the next try: a peer that refuses or is gone is not helped by haste.
            Err(error) => Err(RPCError::Unreachable(Unreachable::new(&error))),
        }
    }

    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: SnapshotData,
        deadline: Duration,
    ) -> Result<SnapshotAnswer, StreamingError<TypeConfig>> {
        let SnapshotData::Live { kv, group } = snapshot else {
            return Err(StreamingError::Closed(ReplicationClosed::new(
                "a staged snapshot is not sent on",
            )));
        };
        let transfer = self.network.transfers.fetch_add(1, Ordering::Relaxed);
        let mut parts = read_parts(kv, group);
        let mut number = 0;
        let mut answer = None;
        while let Some(part) = parts.recv().await {
            let part = part.map_err(|error| StreamingError::Network(NetworkError::new(&error)))?;
            let message = SnapshotPart {
                vote,
                transfer,
                number,
                part,
            };
            answer = self
                .call::<_, SnapshotAnswer>(Method::RaftSnapshot, &message, deadline)
                .await?;
            number += 1;
        }
        Ok(answer)
    }
}

impl RaftNetworkV2<TypeConfig> for ReplicaConnection {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call(Method::RaftAppend, &rpc, option.soft_ttl()).await
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call(Method::RaftVote, &rpc, option.soft_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call(Method::RaftPreVote, &rpc, option.soft_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let sent = tokio::select! {
            closed = cancel => return Err(StreamingError::Closed(closed)),
            sent = self.send_snapshot(vote, snapshot.snapshot, option.soft_ttl()) => sent?,
        };
        let missing = Failure::bug("the last part of a snapshot was answered as if it were not");
        sent.ok_or_else(|| StreamingError::Network(NetworkError::new(&missing)))
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call(Method::RaftTransfer, &req, option.soft_ttl()).await
    }
}

struct Incoming {
    transfer: u64,
    next: u32,
    staging: Staging,
}

/// The receiving side of one group.
pub struct Receiver {
    raft: GroupRaft,
    state: GroupState,
    group: GroupId,
    incoming: Mutex<Option<Incoming>>,
}

/// The group that a call between replicas means.
///
/// # Errors
/// `Invalid` when it names none.
pub fn group_of(call: &Call) -> Result<GroupId, Failure> {
    match postcard::take_from_bytes::<Envelope>(&call.payload) {
        Ok((envelope, _)) => Ok(GroupId(envelope.group)),
        Err(error) => Err(Failure::new(ErrorKind::Invalid, "malformed_message", error.to_string())),
    }
}

fn request_of<T: DeserializeOwned>(call: &Call) -> Result<T, Failure> {
    decode::<(Envelope, T)>(&call.payload).map(|(_, request)| request)
}

fn answer_of<T: Serialize>(answer: &T) -> Result<Answer, Failure> {
    Ok(Answer {
        message: Bytes::new(),
        payload: encode(answer)?,
    })
}

fn refused(error: impl std::fmt::Display) -> Failure {
    Failure::new(ErrorKind::Unavailable, "replica_stopped", error.to_string())
}

impl Receiver {
    /// Answers calls for one replica.
    #[must_use]
    pub fn new(raft: GroupRaft, state: GroupState, group: GroupId) -> Self {
        Self {
            raft,
            state,
            group,
            incoming: Mutex::new(None),
        }
    }

    /// Answers a call between replicas. Once openraft has the message it acts on it even when this future is dropped.
    ///
    /// # Errors
    /// `Invalid` for what is no such message, `Unavailable` when the replica has stopped.
    pub async fn handle(&self, call: &Call) -> Result<Answer, Failure> {
        match call.method {
            Method::RaftAppend => answer_of(&self.raft.append_entries(request_of(call)?).await.map_err(refused)?),
            Method::RaftVote => answer_of(&self.raft.vote(request_of(call)?).await.map_err(refused)?),
            Method::RaftPreVote => answer_of(&self.raft.pre_vote(request_of(call)?).await.map_err(refused)?),
            Method::RaftTransfer => answer_of(
                &self
                    .raft
                    .handle_transfer_leader(request_of(call)?)
                    .await
                    .map_err(refused)?,
            ),
            Method::RaftSnapshot => answer_of(&self.take_part(request_of(call)?).await?),
            _ => Err(Failure::new(
                ErrorKind::Invalid,
                "not_a_raft_call",
                "this call is not one between replicas",
            )),
        }
    }

    async fn take_part(&self, message: SnapshotPart) -> Result<SnapshotAnswer, Failure> {
        // Held to the end of the installation: another transfer would clear the rows that are being switched to.
        let mut incoming = self.incoming.lock().await;
        let stale = || {
            Failure::new(
                ErrorKind::Conflict,
                "stale_transfer",
                "another transfer took this one's place",
            )
        };
        let SnapshotPart {
            vote,
            transfer,
            number,
            part,
        } = message;
        if let (Part::Begin(applied), 0) = (&part, number) {
            let (kv, group, applied) = (self.state.kv(), self.group, applied.clone());
            let staging = blocking(move || Staging::begin(kv, group, applied)).await?;
            *incoming = Some(Incoming {
                transfer,
                next: 1,
                staging,
            });
            return Ok(None);
        }
        let mut current = incoming.take().ok_or_else(stale)?;
        if current.transfer != transfer || current.next != number {
            *incoming = Some(current);
            return Err(stale());
        }
        match part {
            Part::Begin(_) => Err(Failure::new(
                ErrorKind::Invalid,
                "malformed_message",
                "a snapshot begins twice",
            )),
            Part::Rows(rows) => {
                current.next += 1;
                let pushed = blocking(move || current.staging.push(rows).map(|()| current)).await?;
                *incoming = Some(pushed);
                Ok(None)
            }
            Part::End { rows } => {
                let staged = blocking(move || current.staging.end(rows)).await?;
                let SnapshotData::Staged { applied, .. } = &staged else {
                    return Err(refused("nothing was staged"));
                };
                let snapshot = openraft::Snapshot {
                    meta: meta_of(applied).map_err(refused)?,
                    snapshot: staged,
                };
                let answer = self.raft.install_full_snapshot(vote, snapshot).await.map_err(refused)?;
                Ok(Some(answer))
            }
        }
    }
}

async fn blocking<T: Send + 'static, E: std::fmt::Display + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(refused)?
        .map_err(refused)
}
