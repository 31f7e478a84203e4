//! Fragments of stripes that were written and never named: a gateway died, or gave up, before its command.
//!
//! An inventory comes once in so many epochs and meets what disks hold and no group named (`inventory`). The group of its slot is asked
//! which of these it does not know and never can: a stripe whose birth epoch is closed cannot be named any more. Fragments that a
//! tombstone missed go the same way.
//! Invariants: a fragment is removed only on the word of its slot's present owner, after a read-index, for a closed birth epoch; a
//! group that does not own the slot says nothing; a node that does not answer is passed by until the next turn.
//! Not here: stripes that a group knows to be dead (`collector`).

use super::inventory::Round;
use super::{STRIPES_AT_ONCE, StripeName};
use crate::drive::Core;
use crate::drive::metadata_client::unexpected;
use crate::metrics;
use futures_util::stream::{self, StreamExt};
use model::id::{DiskId, GroupId, NodeId};
use protocol::metadata::query::ROWS_MAX;
use protocol::metadata::{Query, QueryAnswer};
use protocol::wire_error::Failure;
use std::collections::BTreeSet;
use std::time::Duration;

/// A turn over all disks about once in so many birth epochs, two days of production, whichever gateway makes it.
const TURN_EPOCHS: u64 = 48;
/// While nothing is known of the cluster.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Core {
    /// Runs until it is dropped, at any moment.
    pub async fn keep_looking_for_orphans(&self) {
        let mut passed = 0;
        loop {
            let Some(epoch) = self.birth_epoch() else {
                self.seams.clock.sleep(LOOK_AGAIN).await;
                continue;
            };
            self.seams.clock.sleep(epoch).await;
            passed += 1;
            // Gateways take turns by chance, so that all together look about as often as one would. The chance is the same in every
            // epoch, so that those that are often started anew look as often as others.
            let turn = TURN_EPOCHS.saturating_mul(self.metadata.gateways() as u64);
            if self.seams.random.below(turn) > 0 && passed < turn.saturating_add(turn / 2) {
                continue;
            }
            passed = 0;
            if let Err(failure) = self.take_inventory().await {
                tracing::debug!(%failure, "no inventory was taken");
            }
        }
    }

    /// Removes those of these stripes that are orphans, from the nodes that hold something of them; how many removals were done.
    pub(super) async fn remove_orphans(
        &self,
        round: &Round,
        group: GroupId,
        unnamed: &BTreeSet<(NodeId, StripeName)>,
    ) -> Result<u64, Failure> {
        let stripes: BTreeSet<StripeName> = unnamed.iter().map(|(_, name)| *name).collect();
        let stripes: Vec<StripeName> = stripes.into_iter().collect();
        let mut orphans: BTreeSet<StripeName> = BTreeSet::new();
        for part in stripes.chunks(ROWS_MAX) {
            let asked = Query::Orphans(part.to_vec());
            match self.metadata.query_group(group, &asked, 0).await? {
                QueryAnswer::Orphans(told) => orphans.extend(told),
                _ => return Err(unexpected()),
            }
        }
        let doomed = unnamed.iter().filter(|(_, name)| orphans.contains(name));
        let removals = doomed.map(|(node, name)| self.tell_removed(&round.known, *node, *name, &round.silent));
        let removals: Vec<_> = removals.collect();
        let told: Vec<Option<Vec<DiskId>>> = stream::iter(removals).buffered(STRIPES_AT_ONCE).collect().await;
        let removed = told.into_iter().flatten().count() as u64;
        let counter = self.seams.metrics.counter(&metrics::ORPHANS_REMOVED);
        counter.with_label_values::<&str>(&[]).inc_by(removed);
        Ok(removed)
    }
}
