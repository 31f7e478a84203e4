//! What a metadata process does with each call: propose, query, Raft traffic, status.
//!
//! Place in the picture: between the transport and the groups. Commands and queries are only decoded by the state machine.
//! Invariants: a query is answered after a read-index or under a lease, so never from the past; a replica that does not lead names the leader
//! and does nothing, but for queries that any replica may answer (`QueryReplica`); a group that this process has no replica of is answered `not_mine`.
//! Not here: which slot belongs to which group (state), repeating and following leaders (the callers' client).

use crate::group::{Group, GroupError, ReadBy, answer};
use crate::metrics;
use crate::raft::address_book::AddressBook;
use crate::raft::heartbeats::answer_beats;
use crate::raft::receiver::group_of;
use crate::readiness::CONFIRM_DEADLINE;
use crate::space::Space;
use crate::state::content_counts::{self, ContentCounts};
use crate::state::packing::{self, InlineCounts};
use crate::state::store::Outcome;
use crate::state::{collection, inline_bytes, stripe_counts};
use crate::volume;
use async_trait::async_trait;
use bytes::Bytes;
use daemon::clock::Clock;
use daemon::metrics::Metrics;
use futures_util::future::join_all;
use kv::seam::KvRead;
use model::error_kind::ErrorKind;
use model::id::{CONTROL_GROUP, GroupId, RaftId};
use model::process::{ProcessId, Role};
use prometheus::IntGauge;
use protocol::codes;
use protocol::frame::{Answer, Call, Method, decode, encode};
use protocol::metadata::control::ControlCommand;
use protocol::metadata::watch::WatchRequest;
use protocol::metadata::{Command, Envelope, GroupReply, ProposeRequest, QueryRequest};
use protocol::status::{GroupStatus, MetadataStatus};
use protocol::wire_error::Failure;
use rpc::transport::Handler;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// What the gauges of a group's contents are made from.
#[derive(Default)]
struct Shown {
    contents: ContentCounts,
    inline: InlineCounts,
    /// Sealed bytes of all blocks and tails that live, in stripes or inline; zero until all that an earlier release left is counted.
    sealed_bytes: u64,
    stripes_dying: u64,
    oldest_ms: u64,
}

impl Shown {
    fn of(kv: &dyn KvRead) -> Outcome<Self> {
        let contents = content_counts::of_group(kv)?;
        let inline_bytes = inline_bytes::of_group(kv)?;
        Ok(Self {
            contents,
            sealed_bytes: inline_bytes.map_or(0, |bytes| bytes.saturating_add(contents.living_bytes)),
            inline: packing::counts_of_group(kv)?,
            stripes_dying: stripe_counts::of_group(kv)?.dying,
            oldest_ms: collection::oldest_waiting_ms(kv)?,
        })
    }
}
/// Longest wait for a feed: a caller whose connection ended without a word is held no longer.
const WATCH_WAIT_MAX: Duration = Duration::from_secs(60);

/// The groups of a process behind their calls.
pub struct MetadataService {
    replica: RaftId,
    data_dir: PathBuf,
    groups: BTreeMap<GroupId, Arc<Group>>,
    addresses: Arc<AddressBook>,
    space: Arc<Space>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
}

/// Counts one who waits for a feed.
struct Waits(IntGauge);

impl Waits {
    fn new(waiting: IntGauge) -> Self {
        waiting.inc();
        Self(waiting)
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl MetadataService {
    /// Serves `groups` as `replica`, whose files lie below `data_dir`; what others say of where they are goes to `addresses`, and
    /// `space` says how much is left for the log.
    pub fn new(
        replica: RaftId,
        data_dir: PathBuf,
        groups: BTreeMap<GroupId, Arc<Group>>,
        addresses: Arc<AddressBook>,
        space: Arc<Space>,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Self {
        Self {
            replica,
            data_dir,
            groups,
            addresses,
            space,
            clock,
            metrics,
        }
    }

    /// Brings the gauges of the groups up to date.
    pub(crate) fn show(&self) {
        for (id, group) in &self.groups {
            let label = id.to_string();
            let applied = self.metrics.gauge(&metrics::APPLIED_INDEX);
            let index = i64::try_from(applied_index(group)).unwrap_or(i64::MAX);
            applied.with_label_values(&[&label]).set(index);
            let leading = self.metrics.gauge(&metrics::LEADING);
            leading.with_label_values(&[&label]).set(i64::from(group.is_leader()));
            if *id != CONTROL_GROUP {
                self.show_contents(&label, group);
            }
        }
    }

    /// Costs a look at each slot of a group that is led here; zero elsewhere, so that sums over replicas are right. A state that
    /// cannot be read shows what it did before; whoever applies to it says so.
    fn show_contents(&self, label: &str, group: &Group) {
        let shown = match group.is_leader() {
            true => group.read(Shown::of),
            false => Ok(Shown::default()),
        };
        let Ok(shown) = shown else {
            return;
        };
        let contents = shown.contents;
        let whole = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let bytes = self.metrics.gauge(&metrics::CONTENT_BYTES);
        for (kind, value) in [
            ("logical", contents.logical_bytes),
            ("charged", contents.charged_bytes),
            ("released", contents.released_bytes),
            ("living", contents.living_bytes),
            ("dead", contents.stripe_bytes.saturating_sub(contents.living_bytes)),
            ("stored", contents.stored_bytes),
            ("inline", shown.inline.sealed_bytes),
            ("sealed", shown.sealed_bytes),
        ] {
            bytes.with_label_values(&[label, kind]).set(whole(value));
        }
        let percent = contents.logical_bytes.saturating_mul(100);
        for (definition, value) in [
            (
                &metrics::DEDUPLICATION_PERCENT,
                percent.checked_div(contents.charged_bytes).unwrap_or_default(),
            ),
            (
                &metrics::COMPRESSION_PERCENT,
                contents.compression_percent(shown.sealed_bytes),
            ),
            (&metrics::INLINE_CONTENTS, shown.inline.contents),
            (&metrics::DYING_STRIPES, shown.stripes_dying),
            (&metrics::OLDEST_WAITING_SECONDS, shown.oldest_ms / 1000),
        ] {
            let gauge = self.metrics.gauge(definition);
            gauge.with_label_values(&[label]).set(whole(value));
        }
    }

    fn group(&self, group: GroupId) -> Result<&Arc<Group>, Failure> {
        self.groups
            .get(&group)
            .ok_or_else(|| codes::NOT_MINE.because(format!("no replica of group {group} runs here; fetch the routes")))
    }

    /// As `group`, unless the replica cannot answer: it waits for a full disk to take a vote, so another one leads or soon does.
    fn working_group(&self, id: GroupId) -> Result<&Arc<Group>, Failure> {
        let group = self.group(id)?;
        if self.space.is_held() && group.saves_vote() {
            let leader = None;
            return Err(refusal(&GroupError::NotLeader { group: id, leader }));
        }
        Ok(group)
    }

    async fn propose(&self, caller: ProcessId, call: &Call) -> Result<Answer, Failure> {
        let request: ProposeRequest = decode(&call.message)?;
        // A storage node asks and says where it is; only whoever acts for users or operators commands.
        if caller.role == Role::Node && !is_own_registration(caller, &request)? {
            return Err(codes::DENIED.because("a storage node proposes nothing but its own registration"));
        }
        let group = self.working_group(request.group)?;
        // A follower names the leader, which may have room.
        if self.space.refuses() && group.is_leader() {
            let refused = self.metrics.counter(&metrics::REFUSED);
            refused.with_label_values(&["disk_full"]).inc();
            return Err(refusal(&GroupError::Full { group: request.group }));
        }
        let timer = self
            .metrics
            .histogram(&metrics::PROPOSE_SECONDS)
            .with_label_values(&[kind_of(request.group)])
            .start_timer();
        let reply = group.propose(request.envelope).await.map_err(|error| refusal(&error))?;
        timer.observe_duration();
        message(&GroupReply {
            log_index: applied_index(group),
            reply,
        })
    }

    async fn query(&self, caller: ProcessId, call: &Call, at: ReadAt) -> Result<Answer, Failure> {
        let request: QueryRequest = decode(&call.message)?;
        if matches!(caller.role, Role::Node | Role::Metadata) && request.group != CONTROL_GROUP {
            return Err(codes::DENIED.because("nodes and replicas ask the control group alone"));
        }
        let group = self.working_group(request.group)?;
        let timer = self
            .metrics
            .histogram(&metrics::QUERY_SECONDS)
            .with_label_values(&[kind_of(request.group)])
            .start_timer();
        let (reply, by) = ask_at(at, group, &request.query)
            .await
            .map_err(|error| refusal(&error))?;
        timer.observe_duration();
        let counted = match by {
            ReadBy::Majority => None,
            ReadBy::Lease => Some(&metrics::LEASE_READS),
            ReadBy::Follower => Some(&metrics::FOLLOWER_READS),
        };
        if let Some(counted) = counted {
            let counter = self.metrics.counter(counted);
            counter.with_label_values(&[kind_of(request.group)]).inc();
        }
        message(&GroupReply {
            log_index: applied_index(group),
            reply,
        })
    }

    /// Waits without a place in the room: how many wait is bounded by calls of a connection, and nothing is read for them.
    async fn watch_feed(&self, call: &Call) -> Result<Answer, Failure> {
        let request: WatchRequest = decode(&call.message)?;
        let group = self.group(request.group)?;
        let wait = Duration::from_millis(u64::from(request.wait_ms)).min(WATCH_WAIT_MAX);
        let waiting = self
            .metrics
            .gauge(&metrics::FEED_WATCHES)
            .with_label_values::<&str>(&[]);
        let _waits = Waits::new(waiting);
        let told = group.watch_feed(self.clock.as_ref(), request.after, wait).await;
        message(&told.map_err(|error| refusal(&error))?)
    }

    /// The groups that this process has a replica of.
    #[must_use]
    pub fn groups(&self) -> &BTreeMap<GroupId, Arc<Group>> {
        &self.groups
    }

    /// Costs a read-index for each group that is led here.
    async fn status(&self) -> MetadataStatus {
        MetadataStatus {
            replica: self.replica,
            groups: join_all(self.groups.iter().map(|(id, group)| status_of(*id, group))).await,
            is_volume_encrypted: volume::protection(&self.data_dir).is_encrypted(),
        }
    }
}

#[async_trait]
impl Handler for MetadataService {
    async fn handle(&self, caller: ProcessId, call: Call) -> Result<Answer, Failure> {
        match call.method {
            Method::Ping => Ok(Answer {
                message: Bytes::new(),
                payload: Bytes::new(),
            }),
            Method::Propose => self.propose(caller, &call).await,
            Method::Query => self.query(caller, &call, ReadAt::Leader).await,
            Method::QueryReplica => self.query(caller, &call, ReadAt::Any).await,
            Method::WatchFeed => self.watch_feed(&call).await,
            Method::MetadataStatus => message(&self.status().await),
            // A store that fails to write ends the process; whoever sends a state comes again.
            Method::RaftSnapshot if self.space.is_held() => {
                let group = group_of(&call)?;
                Err(refusal(&GroupError::Full { group }))
            }
            Method::RaftAppend
            | Method::RaftVote
            | Method::RaftPreVote
            | Method::RaftTransfer
            | Method::RaftSnapshot
            | Method::RaftReadIndex => {
                let group = self.group(group_of(&call)?)?;
                group.handle_raft(RaftId(caller.number), &call).await
            }
            Method::RaftHeartbeats => {
                let noted = |address| self.addresses.learn(RaftId(caller.number), address);
                answer_beats(&call, noted, |group, append| async move {
                    self.group(group)?.handle_beat(&append).await
                })
                .await
            }
            _ => Err(codes::WRONG_ROLE.because("a metadata process does not serve this call")),
        }
    }
}

/// Whether a storage node registers itself and nobody else.
fn is_own_registration(caller: ProcessId, request: &ProposeRequest) -> Result<bool, Failure> {
    let envelope: Envelope = decode(&request.envelope)?;
    Ok(request.group == CONTROL_GROUP
        && matches!(
            envelope.command,
            Command::Control(ControlCommand::RegisterNode { node, .. }) if u64::from(node.0) == caller.number
        ))
}

fn kind_of(group: GroupId) -> &'static str {
    if group == CONTROL_GROUP { "control" } else { "drive" }
}

fn message(answer: &impl Serialize) -> Result<Answer, Failure> {
    Ok(Answer {
        message: encode(answer)?,
        payload: Bytes::new(),
    })
}

fn refusal(error: &GroupError) -> Failure {
    match error {
        GroupError::NotLeader { leader, .. } => {
            let failure = Failure::new(
                ErrorKind::Unavailable,
                "not_leader",
                "this replica does not lead the group; ask the one named",
            );
            match leader {
                Some((leader, _)) => failure.with("leader", leader),
                None => failure,
            }
        }
        GroupError::Ambiguous { .. } => {
            codes::OUTCOME_UNKNOWN.because("leadership was lost midway; send it again under the same request id")
        }
        GroupError::Recovering { .. } => codes::RECOVERING.failure(),
        GroupError::Overloaded { .. } => codes::OVERLOADED.failure(),
        GroupError::Full { .. } => Failure::new(
            ErrorKind::Exhausted,
            "metadata_full",
            "the disks of the metadata are nearly full; an administrator must make room",
        ),
        other => Failure::new(other.kind(), "replica_unavailable", other.to_string()),
    }
}

/// Which replicas answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadAt {
    /// The leader; a follower names it.
    Leader,
    /// Whichever is asked.
    Any,
}

/// Answers `query` by the state of `group` after a read-index, also where this replica follows. The read itself runs off the async
/// threads.
pub async fn ask(group: &Arc<Group>, query: &Bytes) -> Result<Bytes, GroupError> {
    ask_at(ReadAt::Any, group, query).await.map(|(answer, _)| answer)
}

async fn ask_at(at: ReadAt, group: &Arc<Group>, query: &Bytes) -> Result<(Bytes, ReadBy), GroupError> {
    if at == ReadAt::Leader {
        group.require_leading()?;
    }
    let (mut answers, by) = answer(group, vec![query.clone()]).await?;
    let answer = answers.pop().ok_or_else(|| GroupError::Bug {
        group: group.id(),
        detail: "a query has no answer".to_owned(),
    });
    Ok((answer?, by))
}

fn applied_index(group: &Group) -> u64 {
    group.applied_index().unwrap_or(0)
}

async fn status_of(id: GroupId, group: &Group) -> GroupStatus {
    let has_quorum = group.is_leader()
        && timeout(CONFIRM_DEADLINE, group.linearize_as_leader())
            .await
            .is_ok_and(|confirmed| confirmed.is_ok());
    let status = group.status();
    GroupStatus {
        group: id,
        leader: status.leader,
        term: status.term,
        applied_index: status.applied_index.unwrap_or(0),
        last_index: status.last_index.unwrap_or(0),
        has_quorum,
        voters: status.voters,
        stopped: status.fault,
    }
}
