//! Plans rows when the cluster map has changed, and tells them to the nodes.
//!
//! Runs where the control group is led. The plan is a pure function of map and present table (`placement::layout`), so two
//! leaders in a row plan the same; the state refuses a plan made from another map than the present one.
//! Not here: moving fragments to their new rows (repair).

use super::{WorkError, command, query};
use crate::group::Group;
use async_trait::async_trait;
use bytes::Bytes;
use daemon::clock::Clock;
use daemon::shutdown::Shutdown;
use daemon::worker::{Next, StepError, Worker};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use model::cluster::{ClusterMap, Membership, NodeInfo};
use model::id::{MapVersion, NodeId};
use model::layout::{Layout, LayoutTable};
use model::process::{ProcessId, Role};
use model::profile::ProfileId;
use placement::layout::LayoutPlan;
use protocol::frame::{Call, Method, decode, encode};
use protocol::metadata::control::{ClusterState, ControlCommand};
use protocol::metadata::query::ControlQuery;
use protocol::metadata::{Command, Query, QueryAnswer};
use protocol::node::{PUSH_ROWS_MAX, PushRows, RowsTaken, RowsUpdate};
use protocol::wire_error::Failure;
use rpc::transport::{Peer, Transport};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked whether this replica leads and something was applied; the map and the rows are read only then, and while
/// a node has not taken its rows.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const PUSH_DEADLINE: Duration = Duration::from_secs(3);
/// How many nodes are told rows in one step. What they are told is encoded once for all of them; only a connection has it once more.
const PUSHES_AT_ONCE: usize = 32;

/// What tells one state of a table from another: the sum of its rows' versions, which only grow.
type Sums = BTreeMap<ProfileId, u64>;

/// Plans and pushes rows.
pub struct LayoutWorker {
    control: Arc<Group>,
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    shutdown: Shutdown,
    nodes_expected: usize,
    told: BTreeMap<NodeId, Sums>,
    /// The node that was asked last; the next step begins behind it, so that nodes that are away hold up no other.
    asked_last: Option<NodeId>,
    /// Up to where the control group's entries are planned for and told to everybody.
    done: Option<u64>,
    /// The map, the default profile and the tables on which the last plan moved no row: planning them again would move none.
    settled: Option<(MapVersion, ProfileId, Sums)>,
    /// The map of which it was told last that rows wait.
    waits_told: Option<MapVersion>,
}

/// A table as nodes are told it.
struct Telling {
    profile: ProfileId,
    sum: u64,
    /// The request; none for a table that no push may hold, which nodes fetch themselves.
    request: Option<Bytes>,
}

impl LayoutWorker {
    /// Plans for the first time once `nodes_expected` nodes have registered disks; tells nobody anything after `shutdown`.
    pub fn new(
        control: Arc<Group>,
        transport: Arc<dyn Transport>,
        clock: Arc<dyn Clock>,
        shutdown: Shutdown,
        nodes_expected: usize,
    ) -> Self {
        Self {
            control,
            transport,
            clock,
            shutdown,
            nodes_expected,
            told: BTreeMap::new(),
            asked_last: None,
            done: None,
            settled: None,
            waits_told: None,
        }
    }

    async fn cluster(&self) -> Result<Option<(ClusterState, Layout)>, WorkError> {
        let cluster = match query(&self.control, &Query::Control(ControlQuery::Cluster)).await {
            Ok(QueryAnswer::Cluster(cluster)) => cluster,
            // Before the cluster is made there is nothing to plan.
            Err(WorkError::Refused(_)) => return Ok(None),
            Ok(_) => return Err(Failure::bug("asked for the cluster, was answered something else").into()),
            Err(error) => return Err(error),
        };
        match query(&self.control, &Query::Control(ControlQuery::Layout(None))).await? {
            QueryAnswer::Layout(layout) => Ok(Some((cluster, layout))),
            _ => Err(Failure::bug("asked for the layout, was answered something else").into()),
        }
    }

    /// Answers whether a table is another one now.
    async fn plan(&mut self, cluster: &ClusterState, layout: &Layout) -> Result<bool, WorkError> {
        let ready = cluster
            .map
            .nodes
            .keys()
            .filter(|node| cluster.map.disks_of(**node).next().is_some())
            .count();
        let version = cluster.map.version;
        let present = (version, cluster.settings.default_profile, sums(layout));
        if ready < self.nodes_expected || self.settled.as_ref() == Some(&present) {
            return Ok(false);
        }
        let (mut has_changed, mut is_waiting) = (false, false);
        for profile in [cluster.settings.default_profile, ProfileId::Copies] {
            let before = layout.tables.get(&profile);
            let LayoutPlan {
                table,
                is_waiting: waits,
                ..
            } = match plan_table(&cluster.map, before, profile) {
                Ok(plan) => plan,
                // A cluster too small for three copies keeps its small stripes under the default profile.
                Err(_) if profile == ProfileId::Copies => continue,
                Err(error) => return Err(WorkError::Plan(error)),
            };
            is_waiting |= waits;
            if before == Some(&table) {
                continue;
            }
            let planned_from = version;
            command(
                &self.control,
                self.clock.as_ref(),
                Command::Control(ControlCommand::SetTable { planned_from, table }),
            )
            .await?;
            has_changed = true;
        }
        if !has_changed {
            self.settled = Some(present);
            if is_waiting && self.waits_told.replace(version) != Some(version) {
                let rows = layout.tables.values().flat_map(|table| &table.rows);
                let filling = rows.filter(|row| !row.filling_from.is_empty()).count();
                tracing::info!(
                    map_version = version.0,
                    rows = filling,
                    "the layout waits until its rows are filled"
                );
            }
        }
        Ok(has_changed)
    }

    /// Tells the present rows to the next of the nodes that lack them, all at once, and answers whether every node has its rows.
    async fn push(&mut self, map: &ClusterMap, layout: &Layout) -> Result<bool, WorkError> {
        let present = sums(layout);
        let mut lacking: Vec<(NodeId, &NodeInfo)> = map
            .nodes
            .iter()
            .filter(|(id, node)| node.membership != Membership::Out && self.told.get(id) != Some(&present))
            .map(|(id, node)| (*id, node))
            .collect();
        if lacking.is_empty() {
            return Ok(true);
        }
        let tables = tellings(layout, &present)?;
        let behind_last = lacking.partition_point(|(id, _)| Some(*id) <= self.asked_last);
        lacking.rotate_left(behind_last);
        let count = lacking.len();
        lacking.truncate(PUSHES_AT_ONCE);
        self.asked_last = lacking.last().map(|(id, _)| *id);
        let (transport, tables) = (self.transport.as_ref(), tables.as_slice());
        let mut pushes = FuturesUnordered::new();
        for (id, node) in lacking {
            let known = self.told.get(&id).cloned().unwrap_or_default();
            pushes.push(async move { (id, push_tables(transport, id, node, known, tables).await) });
        }
        let mut told = 0;
        loop {
            tokio::select! {
                pushed = pushes.next() => match pushed {
                    Some((id, taken)) => {
                        told += usize::from(taken == present);
                        self.told.insert(id, taken);
                    }
                    None => return Ok(told == count),
                },
                () = self.shutdown.requested() => return Ok(false),
            }
        }
    }
}

fn sums(layout: &Layout) -> Sums {
    let sum = |table: &LayoutTable| table.rows.iter().map(|row| row.version.0).fold(0, u64::saturating_add);
    layout
        .tables
        .iter()
        .map(|(profile, table)| (*profile, sum(table)))
        .collect()
}

fn plan_table(map: &ClusterMap, before: Option<&LayoutTable>, profile: ProfileId) -> Result<LayoutPlan, String> {
    placement::layout::plan(map, before, profile).map_err(|error| error.to_string())
}

/// The tables as they are told, in the order of profiles; `present` are their sums.
fn tellings(layout: &Layout, present: &Sums) -> Result<Vec<Telling>, Failure> {
    let mut tables = Vec::new();
    for (profile, sum) in present {
        let Some(table) = layout.tables.get(profile) else {
            continue;
        };
        let request = if table.rows.len() <= PUSH_ROWS_MAX {
            Some(encode(&PushRows {
                updates: vec![RowsUpdate {
                    profile: table.profile,
                    pg_bits: table.pg_bits,
                    rows: (0_u32..).zip(table.rows.iter().cloned()).collect(),
                }],
            })?)
        } else {
            None
        };
        tables.push(Telling {
            profile: *profile,
            sum: *sum,
            request,
        });
    }
    Ok(tables)
}

/// Tells a node each table that it does not know yet, and answers what it knows then. A table that it does not take keeps no other
/// from it. A node that is away asks for rows itself when it meets a newer version.
async fn push_tables(transport: &dyn Transport, id: NodeId, node: &NodeInfo, known: Sums, tables: &[Telling]) -> Sums {
    let peer = Peer {
        process: ProcessId {
            role: Role::Node,
            number: u64::from(id.0),
        },
        address: node.address,
    };
    let mut taken = Sums::new();
    for Telling { profile, sum, request } in tables {
        let is_known = known.get(profile) == Some(sum)
            || match request {
                Some(request) => push_table(transport, &peer, request).await,
                None => true,
            };
        if is_known {
            taken.insert(*profile, *sum);
        }
    }
    taken
}

/// True when the node took the whole table.
async fn push_table(transport: &dyn Transport, peer: &Peer, request: &Bytes) -> bool {
    let call = Call {
        method: Method::PushRows,
        request_id: 0,
        message: request.clone(),
        payload: Bytes::new(),
    };
    match transport.call(peer, call, PUSH_DEADLINE).await {
        Ok(answer) => decode::<RowsTaken>(&answer.message).is_ok(),
        Err(_) => false,
    }
}

#[async_trait]
impl Worker for LayoutWorker {
    fn name(&self) -> String {
        "layout".to_owned()
    }

    fn backlog(&self) -> u64 {
        0
    }

    async fn step(&mut self) -> Result<Next, StepError> {
        if !self.control.is_leader() {
            self.told.clear();
            self.done = None;
            self.settled = None;
            self.waits_told = None;
            return Ok(Next::Together(LOOK_EVERY));
        }
        let applied = self.control.applied_index();
        if self.done.is_some() && self.done == applied {
            return Ok(Next::Together(LOOK_EVERY));
        }
        let Some((cluster, layout)) = self.cluster().await? else {
            return Ok(Next::Together(LOOK_EVERY));
        };
        if self.plan(&cluster, &layout).await? {
            return Ok(Next::Now);
        }
        let has_all = self.push(&cluster.map, &layout).await?;
        self.done = applied.filter(|_| has_all);
        Ok(Next::Together(LOOK_EVERY))
    }
}
