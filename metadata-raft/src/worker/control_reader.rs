//! Reading the control group from a process that may not lead it.
//!
//! The leader of a drive group is told by the control group what to serve, and the two are often led by different replicas: then the
//! control group's leader is asked over the transport, since only there a read-index can be taken.
//! Invariant: an answer is linearizable, whoever gave it; a process asks the control group alone in this way.

use super::{WorkError, query};
use crate::group::{Group, GroupError};
use model::id::{CONTROL_GROUP, RaftId};
use model::process::{ProcessId, Role};
use protocol::frame::{Method, encode};
use protocol::metadata::query::ControlQuery;
use protocol::metadata::{GroupReply, Query, QueryAnswer, QueryRequest, Reply};
use rpc::transport::{Peer, Transport};
use rpc::typed::{CallOptions, ask};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Longer than a slow fsync, shorter than a worker's step may take.
const ASK_DEADLINE: Duration = Duration::from_secs(1);

/// Asks the control group where it is led.
#[derive(Clone)]
pub struct ControlReader {
    control: Arc<Group>,
    transport: Arc<dyn Transport>,
    replicas: BTreeMap<RaftId, SocketAddr>,
}

impl ControlReader {
    /// Reads `control`, this process's replica, or asks the one of `replicas` that leads.
    pub fn new(control: Arc<Group>, transport: Arc<dyn Transport>, replicas: &[(RaftId, SocketAddr)]) -> Self {
        Self {
            control,
            transport,
            replicas: replicas.iter().copied().collect(),
        }
    }

    /// The control group's answer.
    pub(super) async fn ask(&self, what: ControlQuery) -> Result<QueryAnswer, WorkError> {
        let asked = Query::Control(what);
        match query(&self.control, &asked).await {
            Err(WorkError::Group(GroupError::NotLeader {
                leader: Some((leader, _)),
                group,
            })) => match self.replicas.get(&leader) {
                Some(address) => self.ask_at(leader, *address, &asked).await,
                None => Err(GroupError::NotLeader { group, leader: None }.into()),
            },
            other => other,
        }
    }

    async fn ask_at(&self, leader: RaftId, address: SocketAddr, asked: &Query) -> Result<QueryAnswer, WorkError> {
        let process = ProcessId {
            role: Role::Metadata,
            number: leader.0,
        };
        let request = QueryRequest {
            group: CONTROL_GROUP,
            query: encode(asked)?,
        };
        let (peer, options) = (Peer { process, address }, CallOptions::within(ASK_DEADLINE));
        let (answer, _) = ask::<GroupReply>(self.transport.as_ref(), &peer, Method::Query, &request, options).await?;
        Ok(Reply::<QueryAnswer>::from_bytes(&answer.reply)?.result?)
    }
}
