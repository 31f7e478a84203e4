//! Workers of a metadata process: founding, time, layout, settings of groups, sweeps, log, space, who leads.
//!
//! Each does bounded steps and only where this replica leads, so that of all replicas one works. Two that both believe to lead
//! do no harm: every command is checked again when it is applied.

pub mod age;
pub mod bell;
pub mod control_reader;
pub mod founder;
pub mod group_keeper;
pub mod layout;
pub mod leader_spread;
pub mod log_keeper;
pub mod space_keeper;
pub mod sweep;

use crate::group::{Group, GroupError};
use crate::service;
use daemon::clock::Clock;
use protocol::frame::encode;
use protocol::metadata::{Command, CommandAnswer, Envelope, Query, QueryAnswer, Reply};
use protocol::wire_error::Failure;
use rpc::transport::RpcError;
use std::sync::Arc;
use thiserror::Error;

/// Why a worker's step failed; the worker shows it and tries again.
#[derive(Debug, Error)]
pub enum WorkError {
    /// The group could not be asked or commanded.
    #[error("ask group: {0}")]
    Group(#[from] GroupError),
    /// The group refused.
    #[error("group refused: {0}")]
    Refused(#[from] Failure),
    /// The control group's leader, another replica, could not be asked.
    #[error("ask control group: {0}")]
    Call(#[from] RpcError),
    /// Rows cannot be planned.
    #[error("plan rows: {0}")]
    Plan(String),
}

/// Commands `group`, which must lead here.
pub(crate) async fn command(group: &Group, clock: &dyn Clock, command: Command) -> Result<CommandAnswer, WorkError> {
    let envelope = encode(&Envelope {
        request_id: None,
        wall: clock.wall(),
        command,
    })?;
    let answer = group.propose(envelope).await?;
    Ok(Reply::<CommandAnswer>::from_bytes(&answer)?.result?)
}

/// Asks `group` after a read-index.
pub(crate) async fn query(group: &Arc<Group>, query: &Query) -> Result<QueryAnswer, WorkError> {
    let reply = service::ask(group, &encode(query)?).await?;
    Ok(Reply::<QueryAnswer>::from_bytes(&reply)?.result?)
}

#[cfg(test)]
pub(crate) mod tests;
