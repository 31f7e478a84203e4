//! What a gateway knows of the cluster: map, rows, settings; and which disks it spares.
//!
//! Kept fresh by asking the control group: on a timer, and at once when somebody says that a row is old.
//! Invariants: a row is only ever replaced by a newer one; what is known is a whole, published at once. Answers come with the last entry
//! that the replica had applied, and no state is older than what was heard before it was asked for: so a timer asks one question as
//! long as nothing was decided since all of them were asked.
//! Not here: routes of metadata groups (`metadata_client`).

use crate::codes;
use crate::drive::metadata_client::{MetadataClient, unexpected};
use crate::drive::sparing::Sparing;
use model::cluster::ClusterMap;
use model::entry::PlacedStripe;
use model::id::{CONTROL_GROUP, DiskId, NodeId};
use model::layout::{Layout, Row};
use model::process::{ProcessId, Role};
use model::profile::ProfileId;
use model::stripe::StripeId;
use protocol::metadata::control::{ClusterSettings, ClusterState};
use protocol::metadata::query::ControlQuery;
use protocol::metadata::{Query, QueryAnswer};
use protocol::wire_error::Failure;
use rpc::transport::Peer;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Map, rows and settings as they were together at one moment.
#[derive(Clone, Debug)]
pub struct Known {
    /// Nodes and disks.
    pub map: Arc<ClusterMap>,
    /// Rows by profile.
    pub layout: Arc<Layout>,
    /// What new drives are made with.
    pub settings: ClusterSettings,
}

#[derive(Default)]
struct State {
    known: Option<Known>,
    /// `known` is as of this entry of the control group or a later one.
    as_of: u64,
    /// Rows met that are newer than the layout's, by profile and placement group.
    newer: BTreeMap<(ProfileId, u32), Row>,
}

/// The cached view of the cluster; shared by everything in a gateway.
pub struct Directory {
    client: Arc<MetadataClient>,
    state: Mutex<State>,
    sparing: Mutex<Sparing>,
}

impl Directory {
    /// Knows nothing yet; `refresh` asks.
    pub fn new(client: Arc<MetadataClient>) -> Self {
        Self {
            client,
            state: Mutex::new(State::default()),
            sparing: Mutex::new(Sparing::default()),
        }
    }

    /// Asks the control group for map, layout and settings, and for the routes.
    pub async fn refresh(&self, trace: u128) -> Result<Known, Failure> {
        // Heard before anything is asked: whatever is answered is at least as new.
        let as_of = self.client.applied_of(CONTROL_GROUP);
        self.client.refresh_routes(trace).await?;
        let cluster = self.ask_cluster(trace).await?;
        self.ask_layout(as_of, cluster, trace).await
    }

    /// As `refresh`, but asks one thing alone when that tells that the control group has decided nothing since all was asked.
    pub async fn keep_up(&self, trace: u128) -> Result<(), Failure> {
        if !self.is_ready() {
            return self.refresh(trace).await.map(drop);
        }
        let as_of = self.client.applied_of(CONTROL_GROUP);
        let cluster = self.ask_cluster(trace).await?;
        // Noted with the answer: nothing was committed behind this entry when it was asked for.
        let applied = self.client.applied_of(CONTROL_GROUP);
        if self.state().as_of == applied && self.client.routes_as_of() == Some(applied) {
            return Ok(());
        }
        self.client.refresh_routes(trace).await?;
        self.ask_layout(as_of, cluster, trace).await.map(drop)
    }

    async fn ask_cluster(&self, trace: u128) -> Result<ClusterState, Failure> {
        match self.client.query(&Query::Control(ControlQuery::Cluster), trace).await? {
            (QueryAnswer::Cluster(cluster), _) => Ok(cluster),
            _ => Err(unexpected()),
        }
    }

    /// Asks for the layout beside `cluster`, and keeps both unless something newer was kept meanwhile; both are as of `as_of` or later.
    async fn ask_layout(&self, as_of: u64, cluster: ClusterState, trace: u128) -> Result<Known, Failure> {
        let asked = Query::Control(ControlQuery::Layout(None));
        let (QueryAnswer::Layout(layout), _) = self.client.query(&asked, trace).await? else {
            return Err(unexpected());
        };
        let known = Known {
            map: Arc::new(cluster.map),
            layout: Arc::new(layout),
            settings: cluster.settings,
        };
        let mut state = self.state();
        if as_of >= state.as_of {
            state.known = Some(known.clone());
            state.as_of = as_of;
        }
        Ok(known)
    }

    /// What is known; asks when nothing is.
    pub async fn known(&self, trace: u128) -> Result<Known, Failure> {
        let known = self.state().known.clone();
        match known {
            Some(known) => Ok(known),
            None => self.refresh(trace).await,
        }
    }

    /// What is known, without asking.
    pub fn last_known(&self) -> Option<Known> {
        self.state().known.clone()
    }

    /// Whether anything is known yet.
    pub fn is_ready(&self) -> bool {
        self.state().known.is_some()
    }

    /// The newest row known of `stripe`; asks the control group once when the profile has none.
    pub async fn row(&self, profile: ProfileId, stripe: StripeId, trace: u128) -> Result<(Known, Row), Failure> {
        let mut known = self.known(trace).await?;
        if known.layout.row(profile, stripe).is_none() {
            known = self.refresh(trace).await?;
        }
        let no_row = || codes::TOO_FEW_DISKS.because("the profile has no layout yet; the cluster needs more disks");
        let table = known.layout.tables.get(&profile).ok_or_else(no_row)?;
        let planned = table.row(stripe).ok_or_else(no_row)?;
        let newer = self.state().newer.get(&(profile, stripe.pg(table.pg_bits))).cloned();
        let row = newer
            .filter(|row| row.version > planned.version)
            .unwrap_or_else(|| planned.clone());
        Ok((known, row))
    }

    /// Notes a row that somebody said is newer.
    pub fn learn(&self, profile: ProfileId, stripe: StripeId, row: &Row) {
        let mut state = self.state();
        let Some(bits) = state
            .known
            .as_ref()
            .and_then(|known| known.layout.tables.get(&profile))
            .map(|table| table.pg_bits)
        else {
            return;
        };
        let place = state
            .newer
            .entry((profile, stripe.pg(bits)))
            .or_insert_with(|| row.clone());
        if place.version < row.version {
            place.clone_from(row);
        }
    }

    /// Where each fragment of `stripe` may lie, the likeliest disk first.
    pub async fn places(&self, stripe: &PlacedStripe, trace: u128) -> Result<(Known, Vec<Vec<DiskId>>), Failure> {
        let (known, row) = self.row(stripe.profile, stripe.id, trace).await?;
        let places = (0..stripe.profile.profile().fragments() as u8).map(|index| {
            let astray = stripe
                .astray
                .iter()
                .find(|astray| astray.index == index)
                .and_then(|astray| astray.disk);
            // The row counts also for an index that is told to be astray: it may have been repaired since.
            let mut disks: Vec<DiskId> = Vec::new();
            let before = row.filling_from.get(&index).copied();
            for disk in astray
                .into_iter()
                .chain(row.disks.get(usize::from(index)).copied())
                .chain(before)
            {
                if !disks.contains(&disk) {
                    disks.push(disk);
                }
            }
            disks
        });
        let places = places.collect();
        Ok((known, places))
    }

    /// Which disks are left alone at present.
    pub fn sparing(&self) -> MutexGuard<'_, Sparing> {
        // As for the state.
        self.sparing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change under the lock is complete on its own, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The process that serves `disk`.
pub fn peer_of(map: &ClusterMap, disk: DiskId) -> Option<Peer> {
    let node = map.node_of(disk)?;
    Some(node_peer(node, map.nodes.get(&node)?.address))
}

/// The process of a storage node.
pub fn node_peer(node: NodeId, address: std::net::SocketAddr) -> Peer {
    Peer {
        process: ProcessId {
            role: Role::Node,
            number: u64::from(node.0),
        },
        address,
    }
}

#[cfg(test)]
mod tests;
