//! Bugs planted on purpose, each at a seam: what an oracle must catch before it is trusted (docs/testing.md).
//!
//! Nothing here can reach production: each stands in front of a seam that only the simulated world hands in. Two are the users' own
//! (`workload`): what they see then proves too little.
//! Not here: bugs of collection (`collection`) and of logs (`entries`).

pub mod collection;
pub mod entries;

use crate::world::plant::entries::{Listening, Proposed};
use async_trait::async_trait;
use bytes::Bytes;
use disk::judged::{Io, Verdict};
use kv::seam::KvError;
use metadata_raft::raft::record::{LogChange, LogRecord};
use metadata_raft::service::MetadataService;
use metadata_raft::state::State;
use model::id::{GroupId, RaftId};
use model::process::ProcessId;
use protocol::frame::{Answer, Call, Method, decode, encode};
use protocol::metadata::{GroupReply, QueryRequest};
use protocol::node::{StoreAnswer, StoreFragment, Stored};
use protocol::wire_error::Failure;
use rpc::transport::{Handler, Peer, RpcError, Transport};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::timeout;

/// Who has not answered after this has failed, and is counted.
const COUNTED_AFTER: Duration = Duration::from_millis(300);

/// Which bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// A leader answers reads before it has applied what was committed under its predecessors.
    ServesBeforeRecovery,
    /// A vote is answered before it is synced.
    VoteUnsynced,
    /// A fragment whose writer failed is counted as stored.
    CountsFailedWriter,
    /// A follower answers reads without asking its leader up to where it must have applied.
    FollowerReadsAlone,
    /// Of a world of collection: a page that a copy holds too is counted once.
    CountsSharedOnce,
    /// Of a world of collection: what is purged is removed from the disks at once, without counts and without grace.
    PurgeRemovesAtOnce,
    /// Of a world of collection: nodes are said to have removed what nobody told them to.
    RemovesNothing,
    /// A leader sends one of its followers another command than it has itself.
    AltersEntries,
    /// Of the proof: one user does everything, so that nothing overlaps.
    OneAtATime,
    /// Of the proof: users do not hear many of their answers.
    LosesAnswers,
}

impl Plant {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::ServesBeforeRecovery,
        Self::VoteUnsynced,
        Self::CountsFailedWriter,
        Self::FollowerReadsAlone,
        Self::CountsSharedOnce,
        Self::PurgeRemovesAtOnce,
        Self::RemovesNothing,
        Self::AltersEntries,
        Self::OneAtATime,
        Self::LosesAnswers,
    ];

    /// As the command line writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ServesBeforeRecovery => "serves-before-recovery",
            Self::VoteUnsynced => "vote-unsynced",
            Self::CountsFailedWriter => "counts-failed-writer",
            Self::FollowerReadsAlone => "follower-reads-alone",
            Self::CountsSharedOnce => "counts-shared-once",
            Self::PurgeRemovesAtOnce => "purge-removes-at-once",
            Self::RemovesNothing => "removes-nothing",
            Self::AltersEntries => "alters-entries",
            Self::OneAtATime => "one-at-a-time",
            Self::LosesAnswers => "loses-answers",
        }
    }
}

impl FromStr for Plant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|plant| plant.as_str() == text);
        found.ok_or_else(|| format!("take one of {}", Self::ALL.map(Self::as_str).join(", ")))
    }
}

/// A replica's disk that says of votes that they are synced, and does it with the next thing that is not a vote.
#[derive(Default)]
pub struct VoteLiar {
    has_other: AtomicBool,
}

impl VoteLiar {
    /// What becomes of an I/O.
    #[must_use]
    pub fn judge(&self, io: Io<'_>) -> Verdict {
        match io {
            Io::Write(_, _, parts) => {
                if !parts.iter().any(|part| is_vote(part)) {
                    self.has_other.store(true, Ordering::Relaxed);
                }
                Verdict::Pass
            }
            Io::Sync(_) if !self.has_other.swap(false, Ordering::Relaxed) => Verdict::Pretend,
            _ => Verdict::Pass,
        }
    }
}

fn is_vote(part: &[u8]) -> bool {
    let is_vote = |change: &LogChange| matches!(change, LogChange::Vote(vote) if !vote.is_committed);
    LogRecord::decode(part).is_ok_and(|(_, change)| is_vote(&change))
}

/// A replica's service with a bug in front of it.
pub struct PlantedReplica {
    service: Arc<MetadataService>,
    replica: RaftId,
    plant: Plant,
}

impl PlantedReplica {
    /// `service`, or the same behind a bug of replicas; what is proposed there goes into `proposed`.
    #[must_use]
    pub fn around(
        service: Arc<MetadataService>,
        replica: RaftId,
        plant: Option<Plant>,
        proposed: Proposed,
    ) -> Arc<dyn Handler> {
        match plant {
            Some(Plant::AltersEntries) => Listening::around(service, proposed),
            Some(plant @ (Plant::ServesBeforeRecovery | Plant::FollowerReadsAlone)) => Arc::new(Self {
                service,
                replica,
                plant,
            }),
            _ => service,
        }
    }

    fn answers_alone(&self, group: GroupId) -> bool {
        match self.plant {
            Plant::FollowerReadsAlone => true,
            _ => self.service.groups().get(&group).is_some_and(|replica| {
                let status = replica.status();
                status.leader == Some(self.replica) && status.applied_index < status.last_index
            }),
        }
    }

    fn read(&self, request: &QueryRequest) -> Result<Bytes, KvError> {
        let group = &self.service.groups()[&request.group];
        group.read(|kv| State::new(request.group).query(kv, &request.query))
    }
}

#[async_trait]
impl Handler for PlantedReplica {
    async fn handle(&self, caller: ProcessId, call: Call) -> Result<Answer, Failure> {
        if matches!(call.method, Method::Query | Method::QueryReplica) {
            let request: QueryRequest = decode(&call.message)?;
            if self.answers_alone(request.group)
                && let Ok(reply) = self.read(&request)
            {
                return Ok(Answer {
                    message: encode(&GroupReply { log_index: 0, reply })?,
                    payload: Bytes::new(),
                });
            }
        }
        self.service.handle(caller, call).await
    }
}

/// A gateway's transport that says of every fragment that it was stored.
pub struct CountingFailed {
    inner: Arc<dyn Transport>,
}

impl CountingFailed {
    /// `transport`, or the same with the bug in front of it.
    #[must_use]
    pub fn around(inner: Arc<dyn Transport>, plant: Option<Plant>) -> Arc<dyn Transport> {
        match plant {
            Some(Plant::CountsFailedWriter) => Arc::new(Self { inner }),
            _ => inner,
        }
    }
}

#[async_trait]
impl Transport for CountingFailed {
    async fn call(&self, peer: &Peer, call: Call, deadline: Duration) -> Result<Answer, RpcError> {
        let stored: Option<StoreFragment> = match call.method {
            Method::StoreFragment => decode(&call.message).ok(),
            _ => None,
        };
        let Some(asked) = stored else {
            return self.inner.call(peer, call, deadline).await;
        };
        // Sooner than the gateway would take another disk in its place.
        match timeout(COUNTED_AFTER, self.inner.call(peer, call, deadline)).await {
            Err(_) | Ok(Err(RpcError::DeadlineMissed { .. } | RpcError::BreakerOpen { .. })) => {
                let stored = Stored {
                    disk: asked.disk,
                    row_version: asked.row_version,
                };
                Ok(Answer {
                    message: encode(&StoreAnswer::Stored(stored)).map_err(RpcError::Refused)?,
                    payload: Bytes::new(),
                })
            }
            Ok(answered) => answered,
        }
    }
}
