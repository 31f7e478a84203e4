//! What a metadata process does with each call: propose, query, Raft traffic, status.
//!
//! Place in the picture: between the transport and the groups. Commands and queries are only decoded by the state machine.
//! Invariants: a query is answered after a read-index, so never from the past; a replica that does not lead names the leader
//! and does nothing; a group that this process has no replica of is answered `not_mine`.
//! Not here: which slot belongs to which group (state), repeating and following leaders (the callers' client).

use crate::group::{Group, GroupError};
use crate::metrics;
use crate::raft::network::group_of;
use crate::state::State;
use crate::volume;
use async_trait::async_trait;
use bytes::Bytes;
use daemon::metrics::Metrics;
use model::error_kind::ErrorKind;
use model::id::{CONTROL_GROUP, GroupId, RaftId};
use model::process::{ProcessId, Role};
use protocol::codes;
use protocol::frame::{Answer, Call, Method, decode, encode};
use protocol::metadata::{GroupReply, ProposeRequest, QueryRequest};
use protocol::status::{GroupStatus, MetadataStatus};
use protocol::wire_error::Failure;
use rpc::transport::Handler;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// The groups of a process behind their calls.
pub struct MetadataService {
    replica: RaftId,
    data_dir: PathBuf,
    groups: BTreeMap<GroupId, Arc<Group>>,
    metrics: Metrics,
}

impl MetadataService {
    /// Serves `groups` as `replica`, whose files lie below `data_dir`.
    pub fn new(replica: RaftId, data_dir: PathBuf, groups: BTreeMap<GroupId, Arc<Group>>, metrics: Metrics) -> Self {
        Self {
            replica,
            data_dir,
            groups,
            metrics,
        }
    }

    fn group(&self, group: GroupId) -> Result<&Arc<Group>, Failure> {
        self.groups
            .get(&group)
            .ok_or_else(|| codes::NOT_MINE.because(format!("no replica of group {group} runs here; fetch the routes")))
    }

    async fn propose(&self, caller: ProcessId, call: &Call) -> Result<Answer, Failure> {
        let request: ProposeRequest = decode(&call.message)?;
        // A storage node asks; only whoever acts for users or operators commands.
        if caller.role == Role::Node {
            return Err(codes::DENIED.because("a storage node proposes nothing"));
        }
        let group = self.group(request.group)?;
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

    async fn query(&self, caller: ProcessId, call: &Call) -> Result<Answer, Failure> {
        let request: QueryRequest = decode(&call.message)?;
        if caller.role == Role::Node && request.group != CONTROL_GROUP {
            return Err(codes::DENIED.because("a storage node asks the control group alone"));
        }
        let group = self.group(request.group)?;
        let timer = self
            .metrics
            .histogram(&metrics::QUERY_SECONDS)
            .with_label_values(&[kind_of(request.group)])
            .start_timer();
        let reply = ask(request.group, group, &request.query)
            .await
            .map_err(|error| refusal(&error))?;
        timer.observe_duration();
        message(&GroupReply {
            log_index: applied_index(group),
            reply,
        })
    }

    fn status(&self) -> MetadataStatus {
        MetadataStatus {
            replica: self.replica,
            groups: self.groups.iter().map(|(id, group)| status_of(*id, group)).collect(),
            is_volume_encrypted: volume::is_encrypted(&self.data_dir),
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
            Method::Query => self.query(caller, &call).await,
            Method::MetadataStatus => message(&self.status()),
            Method::RaftAppend
            | Method::RaftVote
            | Method::RaftPreVote
            | Method::RaftTransfer
            | Method::RaftSnapshot => self.group(group_of(&call)?)?.handle_raft(&call).await,
            _ => Err(Failure::new(
                ErrorKind::Invalid,
                "wrong_role",
                "a metadata process does not serve this call",
            )),
        }
    }
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
        other => Failure::new(other.kind(), "replica_unavailable", other.to_string()),
    }
}

/// Answers `query` by the state of `group` after a read-index. The read itself runs off the async threads.
pub async fn ask(id: GroupId, group: &Arc<Group>, query: &Bytes) -> Result<Bytes, GroupError> {
    group.linearize().await?;
    let (group, query) = (Arc::clone(group), query.clone());
    let read = tokio::task::spawn_blocking(move || group.read(|kv| State::new(id).query(kv, &query))).await;
    Ok(read.map_err(|panic| GroupError::Bug {
        group: id,
        detail: panic.to_string(),
    })??)
}

fn applied_index(group: &Group) -> u64 {
    group.status().applied_index.unwrap_or(0)
}

fn status_of(id: GroupId, group: &Group) -> GroupStatus {
    let status = group.status();
    GroupStatus {
        group: id,
        leader: status.leader,
        term: status.term,
        applied_index: status.applied_index.unwrap_or(0),
        voters: status.voters,
        stopped: status.fault,
    }
}
