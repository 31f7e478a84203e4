//! Asks the nodes of spared disks whether they are back.
//!
//! Invariant: a node is asked once a while, however many requests would have liked to use it.
//! Not here: which disks are spared (`sparing`).

use crate::drive::Core;
use crate::drive::directory::Known;
use futures_util::future::join_all;
use model::id::NodeId;
use protocol::node::{DiskState, NodeStatusAnswer};
use std::collections::BTreeSet;
use std::time::Duration;

/// The least time between two looks whether a disk is due, and between two questions to a node that was just started.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long a node that was just started may stay silent: its breaker lets a call through each second, and then it answers.
const START_PATIENCE: Duration = Duration::from_secs(5);

impl Core {
    /// Runs until it is dropped.
    pub async fn keep_probing(&self) {
        loop {
            let rest = self.directory.sparing().rests_for(self.seams.clock.monotonic());
            self.seams.clock.sleep(rest.max(LOOK_EVERY)).await;
            let due = self.directory.sparing().due(self.seams.clock.monotonic());
            let Some(known) = self.directory.last_known() else {
                continue;
            };
            let nodes: BTreeSet<NodeId> = due.into_iter().filter_map(|disk| known.map.node_of(disk)).collect();
            join_all(nodes.into_iter().map(|node| self.ask_node(&known, node, 0))).await;
        }
    }

    /// Asks a node that was just started until it answers, or has been silent for too long. May be dropped midway.
    pub(crate) async fn await_node(&self, known: &Known, node: NodeId, trace: u128) {
        let until = self.seams.clock.monotonic() + START_PATIENCE;
        while self.ask_node(known, node, trace).await.is_none() && self.seams.clock.monotonic() < until {
            self.seams.clock.sleep(LOOK_EVERY).await;
        }
    }

    /// A node told about itself: its disks that work are used again.
    pub(crate) fn hear_of(&self, told: &NodeStatusAnswer) {
        let mut sparing = self.directory.sparing();
        for status in &told.disks {
            match status.state {
                DiskState::Ready | DiskState::Full | DiskState::ReadOnly(_) => sparing.welcome(status.disk),
                DiskState::Missing(_) => {}
            }
        }
    }
}
