//! Whether this process can serve its groups now, for `/readyz` and for the status of the cluster.
//!
//! A group is served here when this replica holds everything that was committed before it started, and a majority of the voters
//! follows one leader now: this replica, or another whose word it asks for. What a replica remembers of a leader is not enough:
//! without a majority a follower remembers the last one for as long as it likes.
//! Not here: serving (service.rs); who is asked by operators (the gateway's status).

use crate::group::{Group, GroupError};
use crate::service::MetadataService;
use async_trait::async_trait;
use daemon::status_port::Readiness;
use futures_util::future::join_all;
use model::id::{GroupId, RaftId};
use model::process::{ProcessId, Role};
use protocol::frame::{Call, Method, decode};
use protocol::status::MetadataStatus;
use rpc::transport::{Peer, Transport};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::timeout;

/// How long a majority may take to confirm its leader; an order above a heartbeat over a long distance.
pub(crate) const CONFIRM_DEADLINE: Duration = Duration::from_secs(1);
/// A leader asks its majority within that, and its answer has to come back.
const LEADER_DEADLINE: Duration = Duration::from_millis(1500);
/// A replica that has caught up says so at once, unless an entry is just on its way.
const CATCH_UP_LOOK: Duration = Duration::from_millis(300);

/// The readiness of a metadata process.
pub struct MetadataReadiness {
    service: Arc<MetadataService>,
    transport: Arc<dyn Transport>,
    /// Groups that have caught up since the start; they stay so.
    recovered: Mutex<BTreeSet<GroupId>>,
}

/// Where a group stands as seen from here.
enum Standing {
    Led,
    LedBy(RaftId, SocketAddr),
    Not(String),
}

impl MetadataReadiness {
    /// Looks at the groups of `service` and asks other leaders over `transport`.
    #[must_use]
    pub fn new(service: Arc<MetadataService>, transport: Arc<dyn Transport>) -> Self {
        Self {
            service,
            transport,
            recovered: Mutex::default(),
        }
    }

    async fn standing(&self, id: GroupId, group: &Group) -> Standing {
        if let Some(fault) = group.status().fault {
            return Standing::Not(format!("its replica stopped: {fault}"));
        }
        let recovered = || self.recovered.lock().unwrap_or_else(PoisonError::into_inner);
        let has_recovered = recovered().contains(&id);
        if !has_recovered {
            if group.caught_up(CATCH_UP_LOOK).await.is_err() {
                return Standing::Not("it has not caught up with its group".to_owned());
            }
            recovered().insert(id);
        }
        match timeout(CONFIRM_DEADLINE, group.linearize_as_leader()).await {
            Ok(Ok(())) => Standing::Led,
            Ok(Err(GroupError::NotLeader {
                leader: Some((leader, info)),
                ..
            })) => Standing::LedBy(leader, info.address),
            Ok(Err(GroupError::NotLeader { leader: None, .. })) => Standing::Not("nobody leads it".to_owned()),
            Ok(Err(error)) => Standing::Not(error.to_string()),
            Err(_) => Standing::Not("no majority of its voters answers".to_owned()),
        }
    }

    /// The groups that `leader` leads with a majority; empty when it does not answer.
    async fn led_by(&self, leader: RaftId, address: SocketAddr) -> BTreeSet<GroupId> {
        let peer = Peer {
            process: ProcessId {
                role: Role::Metadata,
                number: leader.0,
            },
            address,
        };
        let call = Call {
            method: Method::MetadataStatus,
            request_id: 0,
            message: bytes::Bytes::new(),
            payload: bytes::Bytes::new(),
        };
        let Ok(answer) = self.transport.call(&peer, call, LEADER_DEADLINE).await else {
            return BTreeSet::new();
        };
        let Ok(status) = decode::<MetadataStatus>(&answer.message) else {
            return BTreeSet::new();
        };
        let led = status.groups.into_iter().filter(|group| group.has_quorum);
        led.map(|group| group.group).collect()
    }
}

#[async_trait]
impl Readiness for MetadataReadiness {
    async fn ready(&self) -> Result<String, String> {
        let asked = self
            .service
            .groups()
            .iter()
            .map(|(id, group)| async { (*id, self.standing(*id, group).await) });
        let standings = join_all(asked).await;
        let leaders: BTreeMap<RaftId, SocketAddr> = standings
            .iter()
            .filter_map(|(_, standing)| match standing {
                Standing::LedBy(leader, address) => Some((*leader, *address)),
                _ => None,
            })
            .collect();
        let asked = leaders
            .into_iter()
            .map(|(leader, address)| async move { (leader, self.led_by(leader, address).await) });
        let led: BTreeMap<RaftId, BTreeSet<GroupId>> = join_all(asked).await.into_iter().collect();
        let complaints: Vec<String> = standings
            .into_iter()
            .filter_map(|(id, standing)| match standing {
                Standing::Led => None,
                Standing::LedBy(leader, _) if led.get(&leader).is_some_and(|groups| groups.contains(&id)) => None,
                Standing::LedBy(leader, _) => Some(format!(
                    "group {id}: replica {leader}, which led it last, has no majority or does not answer"
                )),
                Standing::Not(why) => Some(format!("group {id}: {why}")),
            })
            .collect();
        if complaints.is_empty() {
            Ok(String::new())
        } else {
            Err(complaints.join("; "))
        }
    }
}
