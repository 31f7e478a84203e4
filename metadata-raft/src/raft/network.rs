//! The calls to other replicas: openraft's messages with the group they mean, over the transport seam.
//!
//! A follower's entries go out as a pipeline: a run is sent before the last one is answered, and the receiver puts them in order
//! (`append_order`), so that a link's round trip is waited for once, whatever is on its way already.
//! Invariants: every call has a deadline: openraft's own, cut by a quarter, or an election's silence for entries, which wait for a
//! disk; a snapshot that breaks goes on where its receiver is; the address of a replica is looked up for each call.
//! Signs of life carry no entry and go out together with those of other groups (`heartbeats`).
//! Not here: openraft's rules; what a call does at its other end (`receiver`); which parts a snapshot is sent in (`outgoing`).

use crate::raft::address_book::AddressBook;
use crate::raft::heartbeats::Heartbeats;
use crate::raft::incoming::{PartAnswer, SnapshotPart};
use crate::raft::outgoing::{Outgoing, View};
use crate::raft::record::StoredLogId;
use crate::raft::snapshot::{Part, SnapshotData};
use crate::raft::state_machine::GroupState;
use crate::raft::stored_state::Applied;
use crate::raft::types::{ReplicaInfo, SnapshotMeta, TypeConfig, Vote};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use kv::seam::KvError;
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
use rpc::transport::{Peer, RpcError, Transport};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A replica as openraft runs it.
pub type GroupRaft = Raft<TypeConfig, GroupState>;

/// Appends to a follower that are on their way at once, each of up to 512 entries or 2 MiB. A guess: a long link is filled, and a
/// follower that is stopped holds little of its leader's memory.
const APPENDS_IN_FLIGHT: usize = 8;
/// For a part of a snapshot, which is written on the other side; for the last one all of it is synced. A guess: a slow disk.
const PART_DEADLINE: Duration = Duration::from_secs(10);
const LAST_PART_DEADLINE: Duration = Duration::from_secs(60);

/// Before each message: which group it means, and where its sender listens. The variant is the version of the form.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Envelope {
    /// The first form.
    V1 {
        /// The group that is meant.
        group: u32,
        /// Where the sending replica is reached.
        sender: SocketAddr,
    },
}

/// An append as it travels.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Append {
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

/// Makes openraft's connections to other replicas of one group.
#[derive(Clone)]
pub struct GroupNetwork {
    /// Not held: whoever handles calls is held by the transport, and holds the group that this belongs to.
    transport: Weak<dyn Transport>,
    addresses: Arc<AddressBook>,
    group: GroupId,
    outgoing: Arc<Outgoing>,
    heartbeats: Arc<Heartbeats>,
    /// A restarted process leads in a later term, so these two may begin anew with it.
    connections: Arc<AtomicU64>,
    streams: Arc<AtomicU64>,
    append_deadline: Duration,
}

impl GroupNetwork {
    /// Calls for `group` over `transport`, to where `addresses` says. Entries may take `append_deadline` to be durable at the other
    /// end; those without go out with `heartbeats`.
    #[must_use]
    pub fn new(
        transport: &Arc<dyn Transport>,
        addresses: Arc<AddressBook>,
        group: GroupId,
        outgoing: Arc<Outgoing>,
        heartbeats: Arc<Heartbeats>,
        append_deadline: Duration,
    ) -> Self {
        Self {
            transport: Arc::downgrade(transport),
            addresses,
            group,
            outgoing,
            heartbeats,
            connections: Arc::default(),
            streams: Arc::default(),
            append_deadline,
        }
    }

    /// Asks `leader` up to which entry a state must have been applied that is read from now on. This replica has voted in no later
    /// term than `term`.
    ///
    /// # Errors
    /// The leader's refusal, or what became of the call.
    pub async fn read_index(
        &self,
        leader: RaftId,
        hint: SocketAddr,
        term: u64,
        deadline: Duration,
    ) -> Result<u64, RpcError> {
        let payload = message_of(self.group, self.addresses.own(), &term).map_err(RpcError::Refused)?;
        let call = Call {
            method: Method::RaftReadIndex,
            request_id: 0,
            message: Bytes::new(),
            payload,
        };
        let peer = peer_of(&self.addresses, leader, hint);
        let answer = call_by(&self.transport, &peer, call, deadline).await?;
        decode(&answer.payload).map_err(RpcError::Refused)
    }
}

/// Calls while there is a transport.
///
/// # Errors
/// As the transport's, and `Unreachable` once it is gone.
pub(crate) async fn call_by(
    transport: &Weak<dyn Transport>,
    peer: &Peer,
    call: Call,
    deadline: Duration,
) -> Result<Answer, RpcError> {
    match transport.upgrade() {
        Some(transport) => transport.call(peer, call, deadline).await,
        None => Err(RpcError::Unreachable {
            peer: peer.process,
            detail: "this process is ending".to_owned(),
        }),
    }
}

/// A replica as the transport calls it: where it was last heard of, or else at `hint`.
fn peer_of(addresses: &AddressBook, replica: RaftId, hint: SocketAddr) -> Peer {
    Peer {
        process: ProcessId {
            role: Role::Metadata,
            number: replica.0,
        },
        address: addresses.address_of(replica).unwrap_or(hint),
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
        peer_of(&self.network.addresses, self.target, self.hint)
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
        match call_by(&self.network.transport, &self.peer(), call, deadline).await {
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
        // The first of a stream waits for no other, so it may go with those of other groups; openraft's heartbeats are such.
        let is_beat = number == 0 && request.entries.is_empty();
        let append = Append::InOrder {
            connection: self.number,
            stream,
            number,
            request,
        };
        let deadline = self.network.append_deadline;
        let answer: AppendEntriesResponse<TypeConfig> = if is_beat {
            self.beat(&append, deadline).await?
        } else {
            self.call(Method::RaftAppend, &append, deadline).await?
        };
        Ok(answer.into_stream_result(prev, last.or(prev)))
    }

    /// Sends an append without entries together with those of other groups.
    async fn beat(
        &self,
        append: &Append,
        deadline: Duration,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let broken = |error: Failure| RPCError::Network(NetworkError::new(&error));
        let (network, message) = (&self.network, encode(append).map_err(broken)?);
        match network
            .heartbeats
            .send(self.peer(), network.group, message, deadline)
            .await
        {
            Ok(answer) => decode(&answer).map_err(broken),
            Err(error) => Err(RPCError::Unreachable(Unreachable::new(&error))),
        }
    }

    async fn send_part(
        &self,
        vote: Vote,
        view: &View,
        part: Part,
        deadline: Duration,
    ) -> Result<PartAnswer, RPCError<TypeConfig>> {
        let message = SnapshotPart {
            vote,
            transfer: view.transfer,
            part,
        };
        self.call(Method::RaftSnapshot, &message, deadline).await
    }

    /// Sends the state that `data` is, at least as new as `meta`, from where the receiver is.
    async fn send_snapshot(
        &self,
        vote: Vote,
        meta: &SnapshotMeta,
        data: SnapshotData,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let SnapshotData::Live { kv, group } = data else {
            let error = ReplicationClosed::new("a staged snapshot is not sent on");
            return Err(StreamingError::Closed(error));
        };
        let wanted = Applied {
            last: meta.last_log_id.map(StoredLogId::from),
            ..Applied::default()
        };
        let failed = |error: KvError| StreamingError::Network(NetworkError::new(&error));
        let (outgoing, target) = (&self.network.outgoing, self.target);
        let view = outgoing.view_for(target, kv, group, &wanted).await.map_err(failed)?;
        let begin = Part::Begin(view.applied.clone());
        let mut answer = self.send_part(vote, &view, begin, PART_DEADLINE).await?;
        if let PartAnswer::Continue { after } = answer {
            let after = self.send_rows(vote, &view, after).await?;
            answer = self
                .send_part(vote, &view, Part::End { after }, LAST_PART_DEADLINE)
                .await?;
        }
        outgoing.finished(target);
        match answer {
            PartAnswer::Installed(installed) => {
                tracing::info!(%group, receiver = %target, state = ?view.applied.last, "snapshot installed by its receiver");
                Ok(installed)
            }
            PartAnswer::Continue { .. } => {
                let error = Failure::bug("the last part of a snapshot was answered as if it were not");
                Err(StreamingError::Network(NetworkError::new(&error)))
            }
        }
    }

    /// Sends the rows behind `after`; returns the last key.
    async fn send_rows(
        &self,
        vote: Vote,
        view: &View,
        mut after: Option<Bytes>,
    ) -> Result<Option<Bytes>, StreamingError<TypeConfig>> {
        let mut next = view.rows_after(after.clone());
        loop {
            let rows = next
                .await
                .unwrap_or_else(|_| Err(KvError::Io("the view has ended".to_owned())));
            let rows = rows.map_err(|error| StreamingError::Network(NetworkError::new(&error)))?;
            let Some((last, _)) = rows.last() else { return Ok(after) };
            let last = last.clone();
            // The next rows are read while these are on their way.
            next = view.rows_after(Some(last.clone()));
            self.send_part(vote, view, Part::Rows { after, rows }, PART_DEADLINE)
                .await?;
            view.progressed();
            after = Some(last);
        }
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
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = self.send_snapshot(vote, &snapshot.meta, snapshot.snapshot) => sent,
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call(Method::RaftTransfer, &req, option.soft_ttl()).await
    }
}
