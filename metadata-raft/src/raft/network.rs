//! The calls between replicas: openraft's messages with the group they mean, over the transport seam.
//!
//! A follower's entries go out as a pipeline: a run is sent before the last one is answered, and the receiver puts them in order
//! (`append_order`), so that a link's round trip is waited for once, whatever is on its way already.
//! Invariants: every call has a deadline: openraft's own, cut by a quarter, or an election's silence for entries, which wait for a
//! disk; a part of a snapshot is answered only once written; one snapshot a group is received at a time, a newer transfer ends an
//! older one; the address of a replica is looked up for each call.
//! Not here: openraft's rules; resuming a broken snapshot transfer.

use crate::raft::address_book::AddressBook;
use crate::raft::append_order::{AppendOrder, Turn};
use crate::raft::snapshot::{Part, SnapshotData, Staging, meta_of, read_parts};
use crate::raft::state_machine::GroupState;
use crate::raft::types::{ReplicaInfo, TypeConfig, Vote};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, poll, stream};
use model::error_kind::ErrorKind;
use model::id::{GroupId, RaftId};
use model::process::{ProcessId, Role};
use openraft::base::{BoxFuture, BoxStream};
use openraft::error::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::SnapshotOf;
use openraft::{OptionalSend, Raft};
use protocol::frame::{Answer, Call, Method, decode, encode};
use protocol::wire_error::Failure;
use rpc::transport::{Peer, Transport};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;

/// A replica as openraft runs it.
pub type GroupRaft = Raft<TypeConfig, GroupState>;

/// Appends to a follower that are on their way at once, each of up to 512 entries or 2 MiB. A guess: a long link is filled, and a
/// follower that is stopped holds little of its leader's memory.
const APPENDS_IN_FLIGHT: usize = 8;

/// Before each message: which group it means, and where its sender listens. The variant is the version of the form.
#[derive(Debug, Serialize, Deserialize)]
enum Envelope {
    /// The first form.
    V1 {
        /// The group that is meant.
        group: u32,
        /// Where the sending replica is reached.
        sender: SocketAddr,
    },
}

/// An append as it travels.
#[derive(Serialize, Deserialize)]
enum Append {
    /// Its turn comes when it arrives.
    Alone(AppendEntriesRequest<TypeConfig>),
    /// Its turn comes after that of the one before it.
    InOrder {
        /// Counts the connections of this leader.
        connection: u64,
        /// Counts the streams of this leader.
        stream: u64,
        /// Counts the appends of the stream from 0.
        number: u64,
        request: AppendEntriesRequest<TypeConfig>,
    },
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
    addresses: Arc<AddressBook>,
    group: GroupId,
    transfers: Arc<AtomicU64>,
    /// A restarted process leads in a later term, so these two may begin anew with it.
    connections: Arc<AtomicU64>,
    streams: Arc<AtomicU64>,
    append_deadline: Duration,
}

impl GroupNetwork {
    /// Calls for `group` over `transport`, to where `addresses` says. `first_transfer` is random, so that transfers of two lives of a
    /// process differ. Entries may take `append_deadline` to be durable at the other end.
    #[must_use]
    pub fn new(
        transport: Arc<dyn Transport>,
        addresses: Arc<AddressBook>,
        group: GroupId,
        first_transfer: u64,
        append_deadline: Duration,
    ) -> Self {
        Self {
            transport,
            addresses,
            group,
            transfers: Arc::new(AtomicU64::new(first_transfer)),
            connections: Arc::default(),
            streams: Arc::default(),
            append_deadline,
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for GroupNetwork {
    type Network = ReplicaConnection;

    async fn new_client(&mut self, target: u64, node: &ReplicaInfo) -> ReplicaConnection {
        ReplicaConnection {
            network: self.clone(),
            target: RaftId(target),
            number: self.connections.fetch_add(1, Ordering::Relaxed),
            hint: node.address,
        }
    }
}

/// Calls to one replica.
pub struct ReplicaConnection {
    network: GroupNetwork,
    target: RaftId,
    /// Counts the connections of this process.
    number: u64,
    /// Where it was when it became a member.
    hint: SocketAddr,
}

/// Encodes a message for the group it means.
///
/// # Errors
/// `Bug` when it cannot be encoded.
fn message_of<T: Serialize>(group: GroupId, sender: SocketAddr, message: &T) -> Result<Bytes, Failure> {
    let envelope = Envelope::V1 { group: group.0, sender };
    encode(&(envelope, message))
}

impl ReplicaConnection {
    fn peer(&self) -> Peer {
        Peer {
            process: ProcessId {
                role: Role::Metadata,
                number: self.target.0,
            },
            address: self.network.addresses.address_of(self.target).unwrap_or(self.hint),
        }
    }

    async fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        method: Method,
        request: &Q,
        deadline: Duration,
    ) -> Result<A, RPCError<TypeConfig>> {
        // The payload may be longer than a head, and a run of entries is.
        let payload = message_of(self.network.group, self.network.addresses.own(), request)
            .map_err(|error| RPCError::Network(NetworkError::new(&error)))?;
        let call = Call {
            method,
            request_id: 0,
            message: Bytes::new(),
            payload,
        };
        match self.network.transport.call(&self.peer(), call, deadline).await {
            Ok(answer) => decode(&answer.payload).map_err(|error| RPCError::Network(NetworkError::new(&error))),
            // All of them wait before the next try: a peer that refuses or is gone is not helped by haste.
            Err(error) => Err(RPCError::Unreachable(Unreachable::new(&error))),
        }
    }

    async fn append(
        &self,
        stream: u64,
        number: u64,
        request: AppendEntriesRequest<TypeConfig>,
    ) -> Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>> {
        let (prev, last) = (request.prev_log_id, request.entries.last().map(|entry| entry.log_id));
        let append = Append::InOrder {
            connection: self.number,
            stream,
            number,
            request,
        };
        let answer: AppendEntriesResponse<TypeConfig> = self
            .call(Method::RaftAppend, &append, self.network.append_deadline)
            .await?;
        Ok(answer.into_stream_result(prev, last.or(prev)))
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

/// What a pipeline of appends is answered, in order.
type Answers<'s> = BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>;

impl RaftNetworkV2<TypeConfig> for ReplicaConnection {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call(Method::RaftAppend, &Append::Alone(rpc), option.soft_ttl())
            .await
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<Answers<'s>, RPCError<TypeConfig>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let connection = &*self;
        let stream = connection.network.streams.fetch_add(1, Ordering::Relaxed);
        let answers = input
            .zip(stream::iter(0_u64..))
            .map(move |(request, number)| connection.append(stream, number, request))
            .buffered(APPENDS_IN_FLIGHT);
        // The first that is not a success ends the stream: those behind it were built on it.
        let answers = answers.scan(false, |has_ended, answer| {
            let was_ended = *has_ended;
            *has_ended = !matches!(answer, Ok(Ok(_)));
            std::future::ready((!was_ended).then_some(answer))
        });
        Box::pin(async move { Ok(Box::pin(answers) as Answers<'s>) })
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
    addresses: Arc<AddressBook>,
    order: AppendOrder,
    incoming: Mutex<Option<Incoming>>,
}

/// The group that a call between replicas means.
///
/// # Errors
/// `Invalid` when it names none.
pub fn group_of(call: &Call) -> Result<GroupId, Failure> {
    match postcard::take_from_bytes::<Envelope>(&call.payload) {
        Ok((Envelope::V1 { group, .. }, _)) => Ok(GroupId(group)),
        Err(error) => Err(Failure::new(ErrorKind::Invalid, "malformed_message", error.to_string())),
    }
}

fn request_of<T: DeserializeOwned>(call: &Call) -> Result<(SocketAddr, T), Failure> {
    decode::<(Envelope, T)>(&call.payload).map(|(Envelope::V1 { sender, .. }, request)| (sender, request))
}

fn answer_of<T: Serialize>(answer: &T) -> Result<Answer, Failure> {
    Ok(Answer {
        message: Bytes::new(),
        payload: encode(answer)?,
    })
}

fn stale() -> Failure {
    Failure::new(
        ErrorKind::Conflict,
        "stale_transfer",
        "another transfer took this one's place",
    )
}

fn refused(error: impl std::fmt::Display) -> Failure {
    Failure::new(ErrorKind::Unavailable, "replica_stopped", error.to_string())
}

impl Receiver {
    /// Answers calls for one replica.
    #[must_use]
    pub fn new(raft: GroupRaft, state: GroupState, group: GroupId, addresses: Arc<AddressBook>) -> Self {
        Self {
            raft,
            state,
            group,
            addresses,
            order: AppendOrder::default(),
            incoming: Mutex::new(None),
        }
    }

    /// Answers a call between replicas, whose sender's certificate says that it is `caller`. Once openraft has the message it acts on
    /// it even when this future is dropped.
    ///
    /// # Errors
    /// `Invalid` for what is no such message, `Unavailable` when the replica has stopped.
    pub async fn handle(&self, caller: RaftId, call: &Call) -> Result<Answer, Failure> {
        match call.method {
            Method::RaftAppend => answer_of(&self.take_append(self.take(caller, call)?).await?),
            Method::RaftVote => {
                let request = self.take(caller, call)?;
                answer_of(&self.raft.vote(request).await.map_err(refused)?)
            }
            Method::RaftPreVote => {
                let request = self.take(caller, call)?;
                answer_of(&self.raft.pre_vote(request).await.map_err(refused)?)
            }
            Method::RaftTransfer => {
                let request = self.take(caller, call)?;
                answer_of(&self.raft.handle_transfer_leader(request).await.map_err(refused)?)
            }
            Method::RaftSnapshot => answer_of(&self.take_part(self.take(caller, call)?).await?),
            _ => Err(Failure::new(
                ErrorKind::Invalid,
                "not_a_raft_call",
                "this call is not one between replicas",
            )),
        }
    }

    /// The request of a call; its sender's address is noted.
    fn take<T: DeserializeOwned>(&self, caller: RaftId, call: &Call) -> Result<T, Failure> {
        let (sender, request) = request_of(call)?;
        self.addresses.learn(caller, sender);
        Ok(request)
    }

    async fn take_append(&self, append: Append) -> Result<AppendEntriesResponse<TypeConfig>, Failure> {
        let (connection, stream, number, request) = match append {
            Append::Alone(request) => return self.raft.append_entries(request).await.map_err(refused),
            Append::InOrder {
                connection,
                stream,
                number,
                request,
            } => (connection, stream, number, request),
        };
        let turn = Turn {
            term: request.vote.leader_id.term,
            connection,
            stream,
            number,
        };
        let pass = self.order.wait(turn).await.ok_or_else(stale)?;
        let mut appended = pin!(self.raft.append_entries(request));
        // The first poll hands the request over to openraft; from then on the next one comes behind it. Where openraft's queue were
        // full it could overtake, which a follower refuses and its leader repeats.
        let first = poll!(appended.as_mut());
        pass.passed();
        match first {
            std::task::Poll::Ready(answer) => answer.map_err(refused),
            std::task::Poll::Pending => appended.await.map_err(refused),
        }
    }

    async fn take_part(&self, message: SnapshotPart) -> Result<SnapshotAnswer, Failure> {
        // Held to the end of the installation: another transfer would clear the rows that are being switched to.
        let mut incoming = self.incoming.lock().await;
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
