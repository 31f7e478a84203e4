//! What the client asks of groups as a whole and tells them, and which groups there are.
//!
//! Not here: how a call finds its leader and is repeated (`metadata_client`).

use super::{MetadataClient, Target};
use model::id::{CONTROL_GROUP, GroupId, RaftId};
use model::process::Role;
use protocol::metadata::group::GroupCommand;
use protocol::metadata::{Command, Query, QueryAnswer};
use protocol::wire_error::Failure;
use rpc::transport::Peer;
use std::collections::BTreeMap;

impl MetadataClient {
    /// Commands one group as a whole. Such a command is applied once for each time that it arrives, so it must be repeatable.
    ///
    /// Errors: as `command`.
    pub async fn command_group(&self, group: GroupId, command: GroupCommand) -> Result<(), Failure> {
        let command = Command::Group(command);
        self.propose(&Target::Group(group), command, None, 0).await.map(drop)
    }

    /// Asks one group as a whole, also one of which no slot is known.
    ///
    /// Errors: as `query`.
    pub async fn query_group(&self, group: GroupId, query: &Query, trace: u128) -> Result<QueryAnswer, Failure> {
        self.query_at(&Target::Group(group), query, trace).await?.result
    }

    /// The groups and their voters, by id, as last fetched.
    pub fn groups(&self) -> BTreeMap<GroupId, Vec<RaftId>> {
        let routes = self.routes();
        let voters = |peers: &Vec<Peer>| peers.iter().map(|peer| RaftId(peer.process.number)).collect();
        routes
            .groups
            .iter()
            .map(|(group, peers)| (*group, voters(peers)))
            .collect()
    }

    /// The groups that serve drives, as last fetched.
    pub fn drive_groups(&self) -> Vec<GroupId> {
        let groups = self.routes().groups.keys().copied().collect::<Vec<_>>();
        groups.into_iter().filter(|group| *group != CONTROL_GROUP).collect()
    }

    /// How many gateways are registered, as last fetched; at least this one.
    pub fn gateways(&self) -> usize {
        let routes = self.routes();
        let gateways = routes
            .processes
            .iter()
            .filter(|process| process.id.role == Role::Gateway);
        gateways.count().max(1)
    }
}
