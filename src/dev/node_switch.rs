//! Stopping and starting single storage nodes of a dev cluster in one process.
//!
//! Invariant: a stopped node's transport is closed, so that others see what they would see of a dead process; its disks stay.

use crate::bootstrap;
use crate::identity_files::AuthorityFiles;
use crate::roles::{self, Base, NodeRole};
use anyhow::Context;
use async_trait::async_trait;
use gateway::drive::metadata_client::MetadataClient;
use gateway::http::NodeSwitch;
use model::cluster::{Membership, NodeInfo};
use model::process::{ProcessId, Role};
use node::config::Config as NodeConfig;
use rpc::transport::Peer;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::sync::Mutex;

/// What a node needs to be started again.
pub(crate) struct NodePlan {
    pub(crate) install: u128,
    pub(crate) region: String,
    pub(crate) zone: String,
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
        let info = NodeInfo {
            region: plan.region.clone(),
            zone: plan.zone.clone(),
            address: bound.address,
            membership: Membership::Active,
        };
        let node = NodeRole::start(bound, &plan.config, &self.base, self.seeds.clone()).await?;
        bootstrap::register_node(&self.metadata, plan.install, info)
            .await
            .context("tell the node's address")?;
        running.insert(number, node);
        Ok(true)
    }

    /// Stops every node.
    pub(crate) async fn stop_all(&self) {
        let all = std::mem::take(&mut *self.running.lock().await);
        for node in all.into_values() {
            node.stop().await;
        }
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

    async fn start(&self, node: u32) -> bool {
        match self.start_node(node).await {
            Ok(is_known) => is_known,
            Err(error) => {
                tracing::error!(node, error = format!("{error:#}"), "node does not start");
                false
            }
        }
    }
}
