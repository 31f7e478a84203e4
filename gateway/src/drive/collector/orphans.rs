//! Fragments of stripes that were written and never named: a gateway died, or gave up, before its command.
//!
//! Every disk is asked for the names of its fragments, piece by piece, and the groups of their slots which of these they do not know
//! and never can: a stripe whose birth epoch is closed cannot be named any more. Fragments that a tombstone missed go the same way.
//! Invariants: a fragment is removed only on the word of its slot's present owner, after a read-index, for a closed birth epoch; a
//! group that does not own the slot says nothing; a node that does not answer is passed by until the next turn.
//! Not here: stripes that a group knows to be dead (`collector`). Sums of ids that would spare equal ranges the listing
//! (decision 0040).

use super::{CALL_DEADLINE, STRIPES_AT_ONCE, Silent, StripeName, node_in_use};
use crate::drive::Core;
use crate::drive::directory::{Known, node_peer};
use crate::drive::metadata_client::unexpected;
use crate::metrics;
use futures_util::stream::{self, StreamExt};
use model::id::{DiskId, GroupId, NodeId};
use model::stripe::FragmentName;
use protocol::frame::Method;
use protocol::metadata::{Query, QueryAnswer};
use protocol::node::{FragmentNames, ListFragments};
use protocol::wire_error::Failure;
use rpc::typed::{self, CallOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A turn over all disks once in so many birth epochs, two days of production, whichever gateway makes it.
const TURN_EPOCHS: u32 = 48;
/// Between two pieces of a disk's list: it takes a small share of a disk. Guess.
const PAUSE: Duration = Duration::from_millis(50);
/// While nothing is known of the cluster.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Core {
    /// Runs until it is dropped, at any moment.
    pub async fn keep_looking_for_orphans(&self) {
        loop {
            let Some(epoch) = self.birth_epoch() else {
                self.seams.clock.sleep(LOOK_AGAIN).await;
                continue;
            };
            // Gateways take turns by chance, so that all together look as often as one would.
            let gateways = u32::try_from(self.metadata.gateways()).unwrap_or(u32::MAX);
            let turn = epoch.saturating_mul(TURN_EPOCHS).saturating_mul(gateways);
            self.seams.clock.sleep(turn / 2 + self.seams.random.up_to(turn)).await;
            let Some(known) = self.directory.last_known() else {
                continue;
            };
            for disk in known.map.disks.keys() {
                if let Some(node) = node_in_use(&known.map, *disk)
                    && let Err(failure) = self.clear(&known, node, *disk).await
                {
                    tracing::debug!(%disk, %failure, "a disk was not looked through for orphans");
                }
            }
        }
    }

    /// Removes the orphans of one disk.
    async fn clear(&self, known: &Known, node: NodeId, disk: DiskId) -> Result<(), Failure> {
        let mut after = None;
        loop {
            let names = self.names(known, node, ListFragments { disk, after }).await;
            let Some(last) = names.last().copied() else {
                return Ok(());
            };
            after = Some(last);
            let silent = Silent::default();
            let orphans = self.orphans(&names).await?;
            let removals = orphans
                .iter()
                .map(|name| self.tell_removed(known, node, *name, &silent));
            let removals: Vec<_> = removals.collect();
            let told: Vec<Option<Vec<DiskId>>> = stream::iter(removals).buffered(STRIPES_AT_ONCE).collect().await;
            let removed = self.seams.metrics.counter(&metrics::ORPHANS_REMOVED);
            let removed = removed.with_label_values::<&str>(&[]);
            removed.inc_by(told.into_iter().flatten().count() as u64);
            self.seams.clock.sleep(PAUSE).await;
        }
    }

    /// The next names of a disk; none at its end, or when its node does not answer.
    async fn names(&self, known: &Known, node: NodeId, request: ListFragments) -> Vec<FragmentName> {
        let Some(info) = known.map.nodes.get(&node) else {
            return Vec::new();
        };
        let (peer, transport) = (node_peer(node, info.address), self.seams.transport.as_ref());
        let options = CallOptions::within(CALL_DEADLINE);
        let listed = typed::ask::<FragmentNames>(transport, &peer, Method::ListFragments, &request, options).await;
        match listed {
            Ok((listed, _)) => listed.names,
            Err(error) => {
                tracing::debug!(%node, disk = %request.disk, %error, "a disk was not looked through for orphans");
                Vec::new()
            }
        }
    }

    /// Which of these are known to no group and never will be.
    async fn orphans(&self, names: &[FragmentName]) -> Result<Vec<StripeName>, Failure> {
        let mut by_group: BTreeMap<GroupId, BTreeSet<StripeName>> = BTreeMap::new();
        for name in names {
            // Without a group nobody can say that it is an orphan.
            if let Some(group) = self.metadata.group_of(name.stripe.slot()) {
                by_group.entry(group).or_default().insert((name.profile, name.stripe));
            }
        }
        let mut orphans = Vec::new();
        for (group, stripes) in by_group {
            let asked = Query::Orphans(stripes.into_iter().collect());
            match self.metadata.query_group(group, &asked, 0).await? {
                QueryAnswer::Orphans(told) => orphans.extend(told),
                _ => return Err(unexpected()),
            }
        }
        Ok(orphans)
    }
}
