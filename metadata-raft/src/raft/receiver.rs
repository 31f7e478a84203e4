//! The calls of other replicas: handed to openraft, the appends of a leader in its order.
//!
//! Invariants: a pipeline's appends come to openraft in their order, and none behind one that is missing (`append_order`); whoever
//! calls is known by its certificate, and where it listens is noted; entries have a place in the room until they are synced.
//! Not here: openraft's rules; how calls are made (`network`); what becomes of a snapshot's parts (`incoming`).

use crate::raft::address_book::AddressBook;
use crate::raft::append_order::{AppendOrder, Pass, Turn};
use crate::raft::election_clock::ElectionClock;
use crate::raft::incoming::Incoming;
use crate::raft::lease::{Lease, OldPromise};
use crate::raft::network::{Append, Envelope, GroupRaft};
use crate::raft::read_rounds::is_majority;
use crate::raft::types::{Entry, TypeConfig};
use crate::room::Room;
use bytes::Bytes;
use futures_util::poll;
use model::error_kind::ErrorKind;
use model::id::{GroupId, RaftId};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest};
use openraft::{EntryPayload, LinearizerOption, ReadPolicy};
use protocol::codes;
use protocol::frame::{Answer, Call, Method, decode, encode};
use protocol::wire_error::Failure;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::time::timeout;

/// How long entries wait for their place before they are refused: longer than their leader waits for the answer.
const PLACE_WITHIN: Duration = Duration::from_secs(3);
/// What an entry takes beside its command, in bytes: more than it takes in a record.
const ENTRY_BYTES: usize = 64;

/// The receiving side of one group.
pub struct Receiver {
    raft: GroupRaft,
    clock: Arc<ElectionClock>,
    addresses: Arc<AddressBook>,
    order: AppendOrder,
    incoming: Incoming,
    promise: OldPromise,
    lease: Option<Arc<Lease>>,
    room: Arc<Room>,
}

/// What entries take in the log, in bytes, about and not less.
fn bytes_of(entries: &[Entry]) -> usize {
    let of_payload = |entry: &Entry| match &entry.payload {
        EntryPayload::Blank => 0,
        EntryPayload::Normal(command) => command.0.len(),
        EntryPayload::Membership(members) => members.nodes().count() * ENTRY_BYTES,
    };
    entries.iter().map(|entry| ENTRY_BYTES + of_payload(entry)).sum()
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

pub(crate) fn stale() -> Failure {
    Failure::new(
        ErrorKind::Conflict,
        "stale_transfer",
        "another transfer took this one's place",
    )
}

fn promised() -> Failure {
    Failure::new(
        ErrorKind::Unavailable,
        "just_started",
        "the replica has just started and may have promised a leader not to vote",
    )
}

pub(crate) fn refused(error: impl std::fmt::Display) -> Failure {
    Failure::new(ErrorKind::Unavailable, "replica_stopped", error.to_string())
}

impl Receiver {
    /// Answers calls for one replica, which votes for nobody while `promise` binds it; what a follower reads up to it tells under
    /// `lease` where there is one. `clock` is told of leaders.
    #[must_use]
    pub fn new(
        raft: GroupRaft,
        clock: Arc<ElectionClock>,
        incoming: Incoming,
        addresses: Arc<AddressBook>,
        promise: OldPromise,
        lease: Option<Arc<Lease>>,
        room: Arc<Room>,
    ) -> Self {
        Self {
            raft,
            clock,
            addresses,
            order: AppendOrder::default(),
            incoming,
            promise,
            lease,
            room,
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
                let request: VoteRequest<TypeConfig> = self.take(caller, call)?;
                // Whom the leader itself names may be voted for: it serves nothing any more.
                if self.promise.binds() && !request.leadership_transfer {
                    return Err(promised());
                }
                answer_of(&self.raft.vote(request).await.map_err(refused)?)
            }
            Method::RaftPreVote => {
                let request = self.take(caller, call)?;
                if self.promise.binds() {
                    return Err(promised());
                }
                answer_of(&self.raft.pre_vote(request).await.map_err(refused)?)
            }
            Method::RaftTransfer => {
                let request = self.take(caller, call)?;
                answer_of(&self.raft.handle_transfer_leader(request).await.map_err(refused)?)
            }
            Method::RaftSnapshot => answer_of(&self.incoming.take(self.take(caller, call)?).await?),
            Method::RaftReadIndex => {
                // Behind the first form of the question, which tells no term, comes one that does.
                let term = match self.take(caller, call) {
                    Ok(term) => Some(term),
                    Err(_) => self.take::<()>(caller, call).map(|()| None)?,
                };
                answer_of(&self.read_index(caller, term).await?)
            }
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
            Append::Alone(request) => return self.hand_over(request, None).await,
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
        self.hand_over(request, Some(pass)).await
    }

    /// Gives an append to openraft once its entries have a place. Dropped before that nothing was done; dropped later openraft acts on
    /// it, and the place is kept until it has.
    async fn hand_over(
        &self,
        request: AppendEntriesRequest<TypeConfig>,
        pass: Option<Pass>,
    ) -> Result<AppendEntriesResponse<TypeConfig>, Failure> {
        // Signs of life take no place: they must not wait behind entries that a slow disk holds up.
        let place = match bytes_of(&request.entries) {
            0 => None,
            bytes => {
                let entered = timeout(PLACE_WITHIN, self.room.enter_append(bytes)).await;
                Some(entered.map_err(|_| codes::OVERLOADED.failure())?)
            }
        };
        let (raft, arrival) = (self.raft.clone(), self.clock.arrival());
        let mut appended = Box::pin(async move { raft.append_entries(request).await });
        // The first poll hands the request over to openraft; from then on the next one comes behind it. Where openraft's queue were
        // full it could overtake, which a follower refuses and its leader repeats.
        let first = poll!(appended.as_mut());
        if let Some(pass) = pass {
            pass.passed();
        }
        let answer = match (first, place) {
            (Poll::Ready(answer), _) => answer,
            (Poll::Pending, None) => appended.await,
            (Poll::Pending, Some(place)) => {
                // Its own task: entries that nobody waits for any more still take their place until they are synced.
                let synced = tokio::spawn(async move {
                    let answer = appended.await;
                    drop(place);
                    answer
                });
                synced.await.map_err(refused)?
            }
        };
        let answer = answer.map_err(refused)?;
        // Whoever has a lower vote leads nobody any more.
        if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
            self.clock.heard(arrival);
        }
        Ok(answer)
    }

    /// Answers one sign of life of many; its sender's address was noted with the message.
    ///
    /// # Errors
    /// As `handle`.
    pub async fn take_beat(&self, append: &Bytes) -> Result<Bytes, Failure> {
        encode(&self.take_append(decode(append)?).await?)
    }

    /// Up to where `follower` must have applied that reads from now on; only a leader that a majority follows knows. Where it says so, it
    /// has voted in no later term than `term`.
    async fn read_index(&self, follower: RaftId, term: Option<u64>) -> Result<u64, Failure> {
        if let Some(lease) = &self.lease
            && let Some(index) = lease.read_index().await
        {
            return Ok(index);
        }
        if let Some(term) = term
            && self.is_majority_with(follower, term).await?
        {
            // openraft tells it at once where a majority was heard from not long ago. How long is not what is relied on.
            let option = LinearizerOption::new(None, false).with_wait_timeout(Duration::ZERO);
            if let Ok(told) = self.raft.get_read_linearizer(option).await {
                return Ok(told.read_log_id().index());
            }
        }
        let confirmed = self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await;
        let confirmed = confirmed.map_err(refused)?;
        Ok(confirmed.read_log_id().index())
    }

    /// Whether a follower that says `term` is all that this replica has to hear from, if it leads behind this call.
    async fn is_majority_with(&self, follower: RaftId, term: u64) -> Result<bool, Failure> {
        let own = RaftId(self.raft.metrics().borrow_watched().id);
        let looked = self.raft.with_raft_state(move |state| {
            let voters = state.membership_state.effective().get_joint_config();
            term <= state.vote_ref().leader_id.term && is_majority([own, follower], voters)
        });
        looked.await.map_err(refused)
    }
}
