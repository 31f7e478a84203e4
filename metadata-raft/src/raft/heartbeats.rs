//! Signs of life of all groups that a process leads, those for one peer in one message.
//!
//! openraft gives every group a timer of its own, and each of its ticks would be one call to each follower: with 64 groups some
//! hundred calls a second that say nothing. Here one ticker asks all groups at the same time, and what they want to say to a peer
//! within a moment goes as one call. A read-index is such a sign of life too: outside of the moment it goes at once, together with
//! what came while the runtime was busy. The ticker also looks whose elections' clocks may rest.
//! Invariants: each group's answer is its own: one that is slow or refuses costs the others nothing but a bounded wait; a message
//! that fails fails for all in it, as single calls would.
//! Not here: what an append means (`receiver`), the order of appends (`append_order`), why a clock rests (`election_clock`).

use crate::raft::election_clock::ElectionClock;
use crate::raft::network::{GroupRaft, call_by};
use bytes::Bytes;
use daemon::clock::{Clock, until_multiple};
use futures_util::FutureExt;
use futures_util::future::join_all;
use model::error_kind::ErrorKind;
use model::id::{GroupId, RaftId};
use openraft::async_runtime::watch::WatchReceiver;
use protocol::frame::{Answer, Call, Method, decode, encode};
use protocol::wire_error::Failure;
use rpc::transport::{Peer, RpcError, Transport};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};

/// How long the groups of a process may take to say what the ticker asked them for; the message goes when all have. Measured: 64
/// groups on two busy cores need one millisecond; a heartbeat is 180, so it costs none.
const MOMENT: Duration = Duration::from_millis(3);
/// How long the groups of a receiver may take before the others' answers go without theirs: a vote to be synced, and well below a
/// heartbeat's own patience. A guess.
const ANSWERS_WITHIN: Duration = Duration::from_millis(100);
/// Signs of life of one message. More than a process has groups; a bound for the receiver's sake.
const BEATS_MAX: usize = 1024;

/// The message. The variant is the version of the form.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Beats {
    V1 {
        /// Where the sending replica is reached.
        sender: SocketAddr,
        /// Groups with their appends, as `network` encodes them.
        beats: Vec<(u32, Bytes)>,
    },
}

/// The answer: for each of the message, in its order, what the group said; `None` when it took too long.
pub(super) type BeatAnswers = Vec<Option<Result<Bytes, Failure>>>;

struct Beat {
    group: GroupId,
    append: Bytes,
    answer: oneshot::Sender<Result<Bytes, RpcError>>,
}

#[derive(Default)]
struct Waiting {
    beats: Vec<Beat>,
    peer: Option<Peer>,
    deadline: Duration,
}

/// A replica of the process.
struct Member {
    raft: GroupRaft,
    clock: Arc<ElectionClock>,
}

/// The signs of life of one process.
pub struct Heartbeats {
    /// Not held, for the same reason as in `network`.
    transport: Weak<dyn Transport>,
    own: SocketAddr,
    replica: RaftId,
    groups: Mutex<BTreeMap<GroupId, Member>>,
    waiting: Mutex<BTreeMap<RaftId, Waiting>>,
    is_moment: AtomicBool,
    /// What is still to come in this moment, as far as that is known.
    missing: AtomicUsize,
    /// Rung when nothing is.
    complete: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Heartbeats {
    /// Those of `replica`, which others reach at `own`. A ticker asks its groups each `period` until this is dropped; needs a runtime.
    #[must_use]
    pub fn start(
        transport: &Arc<dyn Transport>,
        own: SocketAddr,
        replica: RaftId,
        clock: Arc<dyn Clock>,
        period: Duration,
    ) -> Arc<Self> {
        let heartbeats = Arc::new(Self {
            transport: Arc::downgrade(transport),
            own,
            replica,
            groups: Mutex::default(),
            waiting: Mutex::default(),
            is_moment: AtomicBool::new(false),
            missing: AtomicUsize::new(0),
            complete: Notify::new(),
        });
        tokio::spawn(tick(Arc::downgrade(&heartbeats), clock, period));
        heartbeats
    }

    /// Takes over the signs of life of a group, whose own timer for them rests from now on, and the looks whether its clock may, which
    /// is answered: it must be told of leaders.
    pub fn join(&self, group: GroupId, raft: GroupRaft) -> Arc<ElectionClock> {
        raft.runtime_config().heartbeat(false);
        let clock = Arc::new(ElectionClock::new(raft.clone()));
        let member = Member {
            raft,
            clock: Arc::clone(&clock),
        };
        lock(&self.groups).insert(group, member);
        clock
    }

    /// Lets a group go that has stopped.
    pub fn leave(&self, group: GroupId) {
        lock(&self.groups).remove(&group);
    }

    fn led(&self) -> Vec<GroupRaft> {
        let leads = |raft: &&GroupRaft| raft.metrics().borrow_watched().current_leader == Some(self.replica.0);
        let groups = lock(&self.groups);
        groups
            .values()
            .map(|member| &member.raft)
            .filter(leads)
            .cloned()
            .collect()
    }

    fn look(&self) {
        lock(&self.groups).values().for_each(|member| member.clock.look());
    }

    /// Asks all groups that are led here for a sign of life, and sends what they say.
    async fn beat(self: &Arc<Self>) {
        let led = self.led();
        if led.is_empty() {
            return;
        }
        self.missing
            .store(led.iter().map(voters_beside).sum(), Ordering::Release);
        // One of the last moment that came when that was over.
        let _ = self.complete.notified().now_or_never();
        self.is_moment.store(true, Ordering::Release);
        for raft in led {
            // One that has stopped says nothing any more, and one whose core waits for a full disk until its queue is full holds up
            // none of the others.
            drop(tokio::time::timeout(MOMENT, raft.trigger().heartbeat()).await);
        }
        // One that is late says it alone. Waiting for the time instead would wake an idle process once more each time.
        drop(tokio::time::timeout(MOMENT, self.complete.notified()).await);
        self.is_moment.store(false, Ordering::Release);
        let peers: Vec<RaftId> = lock(&self.waiting).keys().copied().collect();
        for peer in peers {
            tokio::spawn(Arc::clone(self).flush(peer));
        }
    }

    /// Sends `append` of `group` to `peer` together with what others have to say to it, and returns the group's answer.
    ///
    /// # Errors
    /// What became of the message, or the group's refusal.
    pub async fn send(
        self: &Arc<Self>,
        peer: Peer,
        group: GroupId,
        append: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, RpcError> {
        let (answer, answered) = oneshot::channel();
        let to = RaftId(peer.process.number);
        let is_first = {
            let mut waiting = lock(&self.waiting);
            let waiting = waiting.entry(to).or_default();
            waiting.peer = Some(peer);
            waiting.deadline = deadline;
            waiting.beats.push(Beat { group, append, answer });
            waiting.beats.len() == 1
        };
        if !self.is_moment.load(Ordering::Acquire) {
            if is_first {
                tokio::spawn(Arc::clone(self).flush(to));
            }
        } else if self.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.complete.notify_one();
        }
        answered.await.unwrap_or_else(|_| Err(missed(&peer)))
    }

    async fn flush(self: Arc<Self>, to: RaftId) {
        let Some(Waiting {
            beats,
            peer: Some(peer),
            deadline,
        }) = lock(&self.waiting).remove(&to)
        else {
            return;
        };
        let mut beats = beats.into_iter().peekable();
        while beats.peek().is_some() {
            let run: Vec<Beat> = beats.by_ref().take(BEATS_MAX).collect();
            self.exchange(&peer, run, deadline).await;
        }
    }

    async fn exchange(&self, peer: &Peer, run: Vec<Beat>, deadline: Duration) {
        let beats = run.iter().map(|beat| (beat.group.0, beat.append.clone())).collect();
        let message = encode(&Beats::V1 {
            sender: self.own,
            beats,
        })
        .map_err(RpcError::Refused);
        let answers = match message {
            Ok(payload) => {
                let call = Call {
                    method: Method::RaftHeartbeats,
                    request_id: 0,
                    message: Bytes::new(),
                    payload,
                };
                let answer = call_by(&self.transport, peer, call, deadline).await;
                answer.and_then(|answer| decode::<BeatAnswers>(&answer.payload).map_err(RpcError::Refused))
            }
            Err(error) => Err(error),
        };
        match answers {
            Ok(answers) => {
                let answers = answers.into_iter().chain(std::iter::repeat(None));
                for (beat, answer) in run.into_iter().zip(answers) {
                    let answer = answer.map_or_else(|| Err(missed(peer)), |said| said.map_err(RpcError::Refused));
                    // Nobody waits for a sign of life that came too late.
                    drop(beat.answer.send(answer));
                }
            }
            Err(error) => {
                for beat in run {
                    drop(beat.answer.send(Err(error.clone())));
                }
            }
        }
    }
}

/// How many a leader has to tell that it lives.
fn voters_beside(raft: &GroupRaft) -> usize {
    let watched = raft.metrics();
    let metrics = watched.borrow_watched();
    metrics.membership_config.voter_ids().count().saturating_sub(1)
}

fn missed(peer: &Peer) -> RpcError {
    RpcError::DeadlineMissed {
        peer: peer.process,
        was_sent: true,
    }
}

async fn tick(heartbeats: Weak<Heartbeats>, clock: Arc<dyn Clock>, period: Duration) {
    loop {
        tokio::time::sleep(until_multiple(clock.wall(), period)).await;
        let Some(heartbeats) = heartbeats.upgrade() else { return };
        // First: it waits for nobody.
        heartbeats.look();
        heartbeats.beat().await;
    }
}

/// Answers a message of signs of life: `take` hands each to its group. `noted` is told where the sender is reached.
///
/// # Errors
/// `Invalid` for what is no such message or too long.
pub async fn answer_beats<F>(
    call: &Call,
    noted: impl FnOnce(SocketAddr),
    take: impl Fn(GroupId, Bytes) -> F,
) -> Result<Answer, Failure>
where
    F: Future<Output = Result<Bytes, Failure>>,
{
    let Beats::V1 { sender, beats } = decode(&call.payload)?;
    if beats.len() > BEATS_MAX {
        return Err(Failure::new(
            ErrorKind::Invalid,
            "malformed_message",
            "too many signs of life in one message",
        ));
    }
    noted(sender);
    let answers = beats.into_iter().map(|(group, append)| {
        let taken = take(GroupId(group), append);
        async { tokio::time::timeout(ANSWERS_WITHIN, taken).await.ok() }
    });
    let answers: BeatAnswers = join_all(answers).await;
    Ok(Answer {
        message: Bytes::new(),
        payload: encode(&answers)?,
    })
}
