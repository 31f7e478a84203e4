//! Stopping and starting single storage nodes of a dev cluster in one process.
//!
//! Invariant: a stopped node's transport is closed, so that others see what they would see of a dead process; its disks stay.

use crate::identity_files::AuthorityFiles;
use crate::one_line::one_line;
use crate::registration::{self, Registration, Site};
use crate::roles::{self, Base, NodeRole};
use anyhow::Context;
use async_trait::async_trait;
use futures_util::future::join_all;
use gateway::drive::metadata_client::MetadataClient;
use gateway::http::NodeSwitch;
use model::process::{ProcessId, Role};
use node::config::Config as NodeConfig;
use protocol::wire_error::Failure;
use rpc::transport::Peer;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::sync::Mutex;

/// What a node needs to be started again.
pub(crate) struct NodePlan {
    pub(crate) site: Site,
    pub(crate) config: NodeConfig,
}

/// All storage nodes of the cluster, running or not.
pub(crate) struct DevNodes {
    pub(crate) base: Base,
    pub(crate) authority: Arc<AuthorityFiles>,
    pub(crate) metadata: Arc<MetadataClient>,
    pub(crate) seeds: Vec<Peer>,
    pub(crate) plans: BTreeMap<u32, NodePlan>,
    pub(crate) running: Mutex<BTreeMap<u32, NodeRole>>,
}

impl DevNodes {
    /// Starts a node that is not running; false when there is no such node.
    pub(crate) async fn start_node(&self, number: u32) -> anyhow::Result<bool> {
        let Some(plan) = self.plans.get(&number) else {
            return Ok(false);
        };
        let mut running = self.running.lock().await;
        if running.contains_key(&number) {
            return Ok(true);
        }
        let process = ProcessId {
            role: Role::Node,
            number: u64::from(number),
        };
        let identity = self
            .authority
            .identity(process, self.base.clock.wall(), &self.base.random)?;
        let bound = roles::bind(identity, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), &self.base)?;
        let refused = registration::refused_disks(&self.metadata, &plan.config.disks).await;
        let node = NodeRole::start(bound, &plan.config, &self.base, self.seeds.clone(), refused).await?;
        let NodePlan { site, config } = plan;
        let registration = Registration::Node {
            node: config.node,
            address: node.address(),
            site: site.clone(),
            disks: registration::running_disks(&node.disks().0, &config.disks)?,
        };
        registration.say(&self.metadata).await.context("register the node")?;
        running.insert(number, node);
        Ok(true)
    }

    /// Stops every node.
    pub(crate) async fn stop_all(&self) {
        let all = std::mem::take(&mut *self.running.lock().await);
        join_all(all.into_values().map(NodeRole::stop)).await;
    }
}

#[async_trait]
impl NodeSwitch for DevNodes {
    async fn stop(&self, node: u32) -> bool {
        let found = self.running.lock().await.remove(&node);
        if let Some(found) = found {
            found.stop().await;
        }
        self.plans.contains_key(&node)
    }

    async fn start(&self, node: u32) -> Result<bool, Failure> {
        // Logged where the failure is answered.
        self.start_node(node)
            .await
            .map_err(|error| Failure::bug(format!("start node {node}: {}", one_line(&error))))
    }
}
