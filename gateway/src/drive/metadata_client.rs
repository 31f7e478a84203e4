//! Asks and commands metadata groups: finds the leader, repeats what may be repeated, and says honestly when the outcome is unknown.
//!
//! Invariants: every call has a deadline, and so has the whole; a command is repeated after an unknown outcome only under the
//! same request id, so it is applied once, also when a try of it arrives hours later (decision 0052); pauses grow and are jittered;
//! queries go to the leader, or by option to the replica that stands nearest, which is as fresh; a group that has been silent for long
//! is asked by scouts alone.
//! Not here: what is asked of groups as a whole (`groups`); who leads instead of a replica that does not answer (`doubt`); which group
//! serves a slot (`routes`, which `directory` keeps current); when a group is silent (`silence`).

mod groups;
mod passage;
mod routes;
mod silence;
mod watching;

use crate::codes;
use crate::config::MetadataReads;
use crate::drive::doubt::Doubts;
use crate::drive::metadata_client::passage::Passage;
use crate::drive::metadata_client::routes::Routes;
use crate::drive::metadata_client::silence::Silences;
use crate::metrics;
use crate::seams::Seams;
use bytes::Bytes;
use model::error_kind::ErrorKind;
use model::id::{CONTROL_GROUP, GroupId, Slot};
use protocol::codes as group_codes;
use protocol::frame::{Answer, Call, Method, decode, encode};
use protocol::metadata::{
    Command, CommandAnswer, Envelope, GroupReply, ProposeRequest, Query, QueryAnswer, QueryRequest, Reply, RequestKey,
    RequestLife, SlotTime,
};
use protocol::wire_error::Failure;
use rpc::transport::{Peer, RpcError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// One call; longer than a slow fsync, shorter than an election.
const CALL_DEADLINE: Duration = Duration::from_secs(3);
/// All tries of one request; two elections of the slowest timing fit.
const WHOLE_DEADLINE: Duration = Duration::from_secs(15);
/// Leaders that are followed one after the other before there is a pause.
const HOPS_MAX: u32 = 2;
/// Times that one request is brought before whoever has too much to do: repeats are load, and the client is told when to come again.
const BUSY_TRIES_MAX: u32 = 3;
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// A failure code of replicas that do not lead; the field `leader` has the leader's number when it is known.
pub const NOT_LEADER: &str = "not_leader";

/// The client; shared by everything in a gateway.
pub struct MetadataClient {
    seams: Seams,
    source: u64,
    seeds: Vec<Peer>,
    routes: Mutex<Routes>,
    doubts: Doubts,
    silences: Arc<Mutex<Silences>>,
    reads: MetadataReads,
}

enum Target {
    Group(GroupId),
    Slot(Slot),
}

impl MetadataClient {
    /// Starts from `seeds`, replicas of the control group; `source` is the gateway's own number.
    pub fn new(seams: Seams, source: u64, seeds: Vec<Peer>) -> Self {
        Self {
            seams,
            source,
            seeds,
            routes: Mutex::new(Routes::default()),
            doubts: Doubts::new(),
            silences: Arc::default(),
            reads: MetadataReads::default(),
        }
    }

    /// The same client with its queries going to these replicas.
    #[must_use]
    pub fn reading(self, reads: MetadataReads) -> Self {
        Self { reads, ..self }
    }

    fn query_method(&self) -> Method {
        match self.reads {
            MetadataReads::Leader => Method::Query,
            MetadataReads::Nearest => Method::QueryReplica,
        }
    }

    /// The gateway's own number.
    pub fn source(&self) -> u64 {
        self.source
    }

    /// A fresh key for this gateway's own retries of `command`, made in the slot's aged hour as the last answer told it, if any did.
    pub fn own_key(&self, command: &Command) -> Result<RequestKey, Failure> {
        let asked = codec::digest::request_digest(&encode(command)?);
        Ok(RequestKey {
            source: self.source,
            id: self.seams.random.u128(),
            asked,
            life: RequestLife::Hour,
            made_hour: command.slot().and_then(|slot| self.age_hour(slot)),
        })
    }

    /// Commands the group of the command's slot, or the control group.
    ///
    /// Errors: the group's refusal; `metadata_unreachable` when it surely did not happen; `outcome_unknown` when it perhaps did.
    pub async fn command(
        &self,
        command: Command,
        key: Option<RequestKey>,
        trace: u128,
    ) -> Result<(CommandAnswer, Option<SlotTime>), Failure> {
        let target = command.slot().map_or(Target::Group(CONTROL_GROUP), Target::Slot);
        self.propose(&target, command, key, trace).await
    }

    async fn propose(
        &self,
        target: &Target,
        command: Command,
        key: Option<RequestKey>,
        trace: u128,
    ) -> Result<(CommandAnswer, Option<SlotTime>), Failure> {
        let is_own = key.is_none();
        let key = match key {
            Some(key) => key,
            None => self.own_key(&command)?,
        };
        let mut envelope = Envelope {
            request_id: Some(key),
            wall: self.seams.clock.wall(),
            command,
        };
        let mut asked = self.propose_once(target, &envelope, trace).await?;
        if is_own && asked.is_too_old() {
            // Nothing was told of the slot for hours, so the hour in the id was an old one; the refusal has told the present one.
            envelope.request_id = Some(self.own_key(&envelope.command)?);
            asked = self.propose_once(target, &envelope, trace).await?;
        }
        let Reply { time, result } = asked.reply;
        result.map(|answer| (answer, time))
    }

    /// One request under one id, in as many tries as it takes.
    async fn propose_once(
        &self,
        target: &Target,
        envelope: &Envelope,
        trace: u128,
    ) -> Result<Asked<CommandAnswer>, Failure> {
        let envelope = encode(envelope)?;
        self.ask(target, Method::Propose, trace, |group| {
            encode(&ProposeRequest {
                group,
                envelope: envelope.clone(),
            })
        })
        .await
    }

    /// Asks the group of the query's slot, or the control group.
    ///
    /// Errors: the group's refusal; `metadata_unreachable`.
    pub async fn query(&self, query: &Query, trace: u128) -> Result<(QueryAnswer, Option<SlotTime>), Failure> {
        let target = query.slot().map_or(Target::Group(CONTROL_GROUP), Target::Slot);
        let reply = self.query_at(&target, query, trace).await?;
        reply.result.map(|answer| (answer, reply.time))
    }

    async fn query_at(&self, target: &Target, query: &Query, trace: u128) -> Result<Reply<QueryAnswer>, Failure> {
        let query = encode(query)?;
        let asked = self.ask(target, self.query_method(), trace, |group| {
            encode(&QueryRequest {
                group,
                query: query.clone(),
            })
        });
        Ok(asked.await?.reply)
    }

    async fn ask<T: Serialize + DeserializeOwned>(
        &self,
        target: &Target,
        method: Method,
        trace: u128,
        message: impl Fn(GroupId) -> Result<Bytes, Failure>,
    ) -> Result<Asked<T>, Failure> {
        let started = self.seams.clock.monotonic();
        // Counts from the leader as far as one is known; a leader that has just been named is asked next.
        let (mut turn, mut hops, mut busy, mut pause) = (0_usize, 0, 0, PAUSE_MIN);
        let mut asking = Asking {
            target,
            method,
            trace,
            passage: None,
            is_unknown: false,
        };
        loop {
            let left = WHOLE_DEADLINE.saturating_sub(self.seams.clock.monotonic() - started);
            if left.is_zero() {
                return Err(given_up(method, asking.is_unknown));
            }
            // Boxed: whoever calls, and may wait for long afterwards, is not as large as all that a try takes.
            let outcome = Box::pin(self.try_once::<T>(&mut asking, &message, turn, left.min(CALL_DEADLINE)));
            match outcome.await {
                Ok(reply) => {
                    return Ok(Asked {
                        reply,
                        is_unknown: asking.is_unknown,
                    });
                }
                Err(Try::Final(failure)) => return Err(failure),
                Err(Try::Busy(failure)) => {
                    busy += 1;
                    self.count("overloaded");
                    if busy == BUSY_TRIES_MAX {
                        return Err(if asking.is_unknown {
                            given_up(method, true)
                        } else {
                            failure
                        });
                    }
                    // A leader that has too much to do is still the leader; of equals another may have less.
                    turn += usize::from(method == Method::QueryReplica);
                    self.wait(&mut pause).await;
                }
                Err(Try::Again { reason, next, unknown }) => {
                    asking.is_unknown |= unknown;
                    self.count(reason);
                    // Two replicas that name each other would play us back and forth without a pause.
                    if next == Next::Leader && hops < HOPS_MAX {
                        (turn, hops) = (0, hops + 1);
                        continue;
                    }
                    (turn, hops) = (turn + 1, 0);
                    if next != Next::Other {
                        self.wait(&mut pause).await;
                    }
                }
            }
        }
    }

    fn count(&self, reason: &str) {
        let retries = self.seams.metrics.counter(&metrics::METADATA_RETRIES);
        retries.with_label_values(&[reason]).inc();
    }

    async fn wait(&self, pause: &mut Duration) {
        let span = *pause / 2 + self.seams.random.up_to(*pause / 2);
        self.seams.clock.sleep(span).await;
        *pause = (*pause * 2).min(PAUSE_MAX);
    }

    async fn try_once<T: Serialize + DeserializeOwned>(
        &self,
        asking: &mut Asking<'_>,
        message: &impl Fn(GroupId) -> Result<Bytes, Failure>,
        turn: usize,
        deadline: Duration,
    ) -> Result<Reply<T>, Try> {
        let (target, method, trace) = (asking.target, asking.method, asking.trace);
        let again = |reason, next, unknown| Try::Again { reason, next, unknown };
        let Some(group) = self.group_for(target, trace).await.map_err(Try::Final)? else {
            return Err(again("no_group", Next::Later, false));
        };
        if !self.admits(&mut asking.passage, group) {
            // Nothing was sent to it this time.
            return Err(Try::Final(given_up(method, asking.is_unknown)));
        }
        let peers = self.peers(group, method);
        let Some(peer) = peers.get(turn % peers.len().max(1)) else {
            return Err(again("no_peer", Next::Later, false));
        };
        let message = message(group).map_err(Try::Final)?;
        let call = Call {
            method,
            request_id: trace,
            message,
            payload: Bytes::new(),
        };
        let outcome = tokio::select! {
            outcome = self.seams.transport.call(peer, call, deadline) => outcome,
            leader = self.doubts.another_leads(&self.seams, group, peer.process, &peers) => {
                self.routes().leaders.insert(group, leader);
                // It may have been taken before the other one lost its lead; the new leader knows the request by its id.
                let next = match method {
                    Method::QueryReplica => Next::Other,
                    _ => Next::Leader,
                };
                return Err(again("other_leader", next, method == Method::Propose));
            }
        };
        match outcome {
            Ok(answer) => {
                let reply = self.take::<T>(asking, group, peer, &answer).map_err(Try::Final)?;
                match &reply.result {
                    Err(failure) if group_codes::NOT_MINE.is(failure) => {
                        self.refresh_routes(trace).await.map_err(Try::Final)?;
                        Err(again("not_mine", Next::Later, false))
                    }
                    Err(failure) if group_codes::NOT_CONFIGURED.is(failure) => {
                        Err(again("not_configured", Next::Later, false))
                    }
                    _ => Ok(reply),
                }
            }
            // Says nothing of a silence: a replica refuses so before it knows whether anybody leads.
            Err(RpcError::Refused(failure)) if group_codes::OVERLOADED.is(&failure) => Err(Try::Busy(failure)),
            // Another replica is as good, and each is tried once before a pause.
            Err(error) if method == Method::QueryReplica && is_away(&error) => {
                let is_tried = turn + 1 >= peers.len();
                Err(again(
                    "unreachable",
                    if is_tried { Next::Later } else { Next::Other },
                    false,
                ))
            }
            Err(error) => Err(asking.noting(self.judge(group, peer, method, error))),
        }
    }

    /// Reads what a group answered, and notes what else it tells.
    fn take<T: Serialize + DeserializeOwned>(
        &self,
        asking: &Asking<'_>,
        group: GroupId,
        peer: &Peer,
        answer: &Answer,
    ) -> Result<Reply<T>, Failure> {
        let answered: GroupReply = decode(&answer.message)?;
        let reply = Reply::<T>::from_bytes(&answered.reply)?;
        asking.note_answer();
        self.note(group, peer, asking.method, answered.log_index);
        self.note_time(asking.target, reply.time);
        Ok(reply)
    }

    fn judge(&self, group: GroupId, peer: &Peer, method: Method, error: RpcError) -> Try {
        if let Some(failure) = error.refusal() {
            if failure.code == NOT_LEADER {
                return Try::Again {
                    reason: "not_leader",
                    next: if self.follow(group, peer, failure) {
                        Next::Leader
                    } else {
                        Next::Later
                    },
                    unknown: false,
                };
            }
            if !matches!(
                failure.kind,
                ErrorKind::Unavailable | ErrorKind::Busy | ErrorKind::Ambiguous
            ) {
                return Try::Final(error.into_failure());
            }
        }
        let mut routes = self.routes();
        if routes
            .leaders
            .get(&group)
            .is_some_and(|leader| leader.process == peer.process)
        {
            routes.leaders.remove(&group);
        }
        // A query is read again; a command carries its request id, so it is applied once however often it is sent.
        let unknown = method == Method::Propose && error.kind() == ErrorKind::Ambiguous;
        Try::Again {
            reason: if unknown { "outcome_unknown" } else { "unreachable" },
            next: Next::Later,
            unknown,
        }
    }

    /// Notes the leader that a follower named; false when it named none that we know.
    fn follow(&self, group: GroupId, peer: &Peer, failure: &Failure) -> bool {
        let mut routes = self.routes();
        let named = failure
            .fields
            .get("leader")
            .and_then(|number| number.parse::<u64>().ok());
        let all = routes.groups.get(&group).into_iter().flatten().chain(&self.seeds);
        let leader = named.filter(|number| *number != peer.process.number);
        match leader.and_then(|number| all.into_iter().find(|peer| peer.process.number == number).copied()) {
            Some(leader) => {
                // When the named one also sends us on, the two would play us back and forth without a pause.
                let is_news = routes
                    .leaders
                    .get(&group)
                    .is_none_or(|known| known.process != leader.process);
                routes.leaders.insert(group, leader);
                is_news
            }
            None => {
                routes.leaders.remove(&group);
                false
            }
        }
    }
}

/// A request from its first try to its last.
struct Asking<'a> {
    target: &'a Target,
    method: Method,
    trace: u128,
    /// For the group that was tried last.
    passage: Option<Passage>,
    /// Whether the outcome of a try before was not told.
    is_unknown: bool,
}

impl Asking<'_> {
    /// Whoever leads the group said what becomes of the request, be it a refusal for good.
    fn note_answer(&self) {
        if let Some(passage) = &self.passage {
            passage.note_answer();
        }
    }

    /// The same outcome of a try, noted: a refusal for good is an answer too.
    fn noting(&self, outcome: Try) -> Try {
        if matches!(outcome, Try::Final(_)) {
            self.note_answer();
        }
        outcome
    }
}

/// What came of a request in the end.
struct Asked<T> {
    reply: Reply<T>,
    /// Whether the outcome of a try before was not told.
    is_unknown: bool,
}

impl<T> Asked<T> {
    /// Whether the request was refused because of the age of its id, and no try of it can have been done or be done yet.
    fn is_too_old(&self) -> bool {
        let refusal = self.reply.result.as_ref().err();
        !self.is_unknown && refusal.is_some_and(|failure| group_codes::OUTCOME_UNKNOWN.is(failure))
    }
}

/// Who is asked after an answer that was none.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// The leader, at once: it is another one by now.
    Leader,
    /// The next replica, at once.
    Other,
    /// The next replica, after a pause.
    Later,
}

enum Try {
    Final(Failure),
    /// Too many wait there, and it was surely not done.
    Busy(Failure),
    Again {
        reason: &'static str,
        next: Next,
        unknown: bool,
    },
}

/// Whether a query may be answered by another replica.
fn is_away(error: &RpcError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unavailable | ErrorKind::Busy | ErrorKind::Ambiguous
    )
}

fn given_up(method: Method, is_unknown: bool) -> Failure {
    if is_unknown && method == Method::Propose {
        return group_codes::OUTCOME_UNKNOWN
            .because("no leader confirmed the request in time; read before trying again");
    }
    codes::METADATA_UNREACHABLE.failure()
}

/// An answer of another type than the question's: a mismatch of releases or a bug.
pub fn unexpected() -> Failure {
    Failure::bug("a metadata group answered with another type than was asked for")
}

#[cfg(test)]
mod tests;
