//! Removes stripes that nobody wants any more: tombstones to whoever holds a fragment, then word to the group.
//!
//! A group names dead stripes whose birth epoch is closed; whichever gateway holds its lease has them removed. The lease only saves
//! work: each step may be repeated by anybody, and a gateway that dies between two leaves what the next one does again. A stripe is
//! told to the disks of its row, to those that the row is filled from, and to those where fragments lie astray; those that could not
//! be told are named to the group and told when they are back.
//! Invariants: nothing is removed but what the group's present owner says is dead, after a read-index; the group forgets a stripe
//! only after everybody was told or noted.
//! Not here: which stripes are dead (the group's state), what disks hold that groups do not count on and the reverse (`inventory`),
//! fragments of stripes that were never named (`orphans`), stripes that live in part (`repacking`), small contents that move from the
//! metadata into stripes under the same lease (`packing`).

mod differing;
mod expected;
pub mod inventory;
mod orphans;
mod packing;
mod repacking;

use crate::codes;
use crate::drive::Core;
use crate::drive::directory::{Known, node_peer};
use crate::drive::metadata_client::unexpected;
use crate::metrics;
use futures_util::stream::{self, StreamExt};
use model::cluster::{ClusterMap, Membership};
use model::id::{DiskId, GroupId, NodeId};
use model::profile::ProfileId;
use model::stripe::StripeId;
use protocol::codes as group_codes;
use protocol::frame::Method;
use protocol::metadata::group::{ForgottenStripe, GroupCommand, Lease};
use protocol::metadata::query::{COLLECTION_DISKS_MAX, COLLECTION_STRIPES_MAX, StripeFacts};
use protocol::metadata::upload::{NewStripe, Survival};
use protocol::metadata::{Query, QueryAnswer};
use protocol::node::{RemoveStripe, StripeRemoved};
use protocol::wire_error::Failure;
use rpc::typed::{self, CallOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Looks for work come once in so many birth epochs: what waits there has waited for 24.
const LOOK_EPOCHS: u32 = 5;
const LOOK_EVERY_MIN: Duration = Duration::from_secs(1);
const LOOK_EVERY_MAX: Duration = Duration::from_secs(60);
/// For so many looks nothing is repacked or packed in a group after a stripe was kept worse than its profile wants. Guess.
const REST_LOOKS: u32 = 5;
/// No stripe is begun later than so long behind the beginning of a look.
const WRITING_MAX: Duration = Duration::from_secs(30);
/// A dead gateway's work is taken over after this, by the group's counter, which lags the clock and never outruns it.
const LEASE: Duration = Duration::from_secs(30);
/// Groups that are looked at side by side.
const GROUPS_AT_ONCE: usize = 8;
/// Stripes that are told side by side: the tombstones of a disk share its syncs.
const STRIPES_AT_ONCE: usize = 16;
/// Stripes of one command: with a row, what fills it and astray places of the widest profile together under its sub-operations.
const FORGOTTEN_AT_ONCE: usize = 16;
/// As for a store.
const CALL_DEADLINE: Duration = Duration::from_secs(4);

/// A stripe by its profile and id.
type StripeName = (ProfileId, StripeId);

/// What this gateway knows of its work in one group.
#[derive(Default)]
struct Turn {
    /// The lease and until when it is surely this gateway's, by the monotonic clock.
    lease: Option<(u64, Duration)>,
    /// Whether the group said last that the lease is another gateway's: then it is not asked to describe what there is to repack.
    is_others: bool,
    /// Where disks that must still be told are gone on with.
    after: Option<DiskId>,
    /// Behind which stripe of the queue repacking goes on; from its beginning after its end.
    behind: Option<StripeName>,
    /// Until when no stripe is written, by the monotonic clock: one would have been kept worse than its profile wants.
    rests_until: Duration,
    /// When the present look writes no more stripes: the looks of other groups wait for its end.
    look_ends: Duration,
}

/// Nodes that did not answer in this round: of many stripes only the first waits for them.
#[derive(Default)]
struct Silent(Mutex<BTreeSet<NodeId>>);

impl Silent {
    fn has(&self, node: NodeId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&node)
    }

    fn note(&self, node: NodeId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(node);
    }
}

impl Core {
    /// Runs until it is dropped, at any moment: a step that was cut off is done again.
    pub async fn keep_collecting(&self) {
        let mut turns: BTreeMap<GroupId, Turn> = BTreeMap::new();
        loop {
            let Some(pause) = self.look_every() else {
                // A gateway that has just started would not look for a minute, however short the cluster's epochs are.
                self.seams.clock.sleep(LOOK_EVERY_MIN).await;
                continue;
            };
            self.seams.clock.sleep(pause).await;
            for group in self.metadata.drive_groups() {
                turns.entry(group).or_default();
            }
            let looks = turns.iter_mut().map(|(group, turn)| self.look_after(*group, turn));
            let looks: Vec<_> = looks.collect();
            stream::iter(looks)
                .for_each_concurrent(GROUPS_AT_ONCE, |look| look)
                .await;
        }
    }

    /// Between two looks; `None` until the cluster's epochs are known.
    fn look_every(&self) -> Option<Duration> {
        let epochs = self.birth_epoch()?.saturating_mul(LOOK_EPOCHS);
        Some(epochs.clamp(LOOK_EVERY_MIN, LOOK_EVERY_MAX))
    }

    /// Disks are away or full: whatever is written now would have to be written again.
    fn rest(&self, turn: &mut Turn) {
        turn.rests_until = self.seams.clock.monotonic() + self.look_every().unwrap_or(LOOK_EVERY_MAX) * REST_LOOKS;
    }

    /// A stripe that was written, when it is kept as its profile wants; `None` when disks are away or full.
    ///
    /// Errors: all others of the write.
    fn kept_well(&self, written: Result<(NewStripe, Survival), Failure>) -> Result<Option<NewStripe>, Failure> {
        match written {
            Ok((named, survival)) if !survival.is_degraded => return Ok(Some(named)),
            Err(failure) if !codes::TOO_FEW_DISKS.is(&failure) && !codes::STORAGE_FULL.is(&failure) => {
                return Err(failure);
            }
            Ok(_) | Err(_) => {}
        }
        self.add(&metrics::STRIPES_PUT_OFF, 1);
        Ok(None)
    }

    fn birth_epoch(&self) -> Option<Duration> {
        let known = self.directory.last_known()?;
        Some(Duration::from_millis(known.settings.birth_epoch_ms))
    }

    /// Packing comes second: its stripes are bounded, and what it leaves is gone on with at the next look.
    async fn look_after(&self, group: GroupId, turn: &mut Turn) {
        turn.look_ends = self.seams.clock.monotonic() + WRITING_MAX;
        self.collect(group, turn).await;
        self.pack(group, turn).await;
    }

    /// Works off what a group names, until there is no more or something fails; then the next look begins anew.
    async fn collect(&self, group: GroupId, turn: &mut Turn) {
        if let Err(failure) = self.work_off(group, turn).await {
            // The lease is another's by now, or the group is away: either way it is looked at again later.
            tracing::debug!(%group, %failure, "removal or repacking of stripes stopped");
            turn.lease = None;
        }
    }

    async fn work_off(&self, group: GroupId, turn: &mut Turn) -> Result<(), Failure> {
        while self.collect_once(group, turn).await? {}
        if turn.is_others {
            turn.lease = None;
            return Ok(());
        }
        self.repack(group, turn).await
    }

    /// One round; answers whether there is more to do at once.
    async fn collect_once(&self, group: GroupId, turn: &mut Turn) -> Result<bool, Failure> {
        let (known, now) = (self.directory.known(0).await?, self.seams.clock.monotonic());
        let asked = Query::Collection(turn.after);
        let QueryAnswer::Collection(found) = self.metadata.query_group(group, &asked, 0).await? else {
            return Err(unexpected());
        };
        turn.is_others = self.is_others(found.lease.as_ref());
        turn.after = found.untold.last().map(|(disk, _)| *disk);
        if found.removable.is_empty() && found.untold.is_empty() {
            return Ok(false);
        }
        let Some(lease) = self.hold_lease(group, turn, found.lease, now).await? else {
            return Ok(false);
        };
        let silent = Silent::default();
        let has_more_untold = self.tell_untold(group, lease, &known, &found.untold, &silent).await?;
        if let Some(disk) = has_more_untold {
            // From this one on again.
            turn.after = disk.0.checked_sub(1).map(DiskId);
        }
        let stripes = self.remove_all(&known, &found.removable, &silent).await?;
        let is_full = stripes.len() == COLLECTION_STRIPES_MAX || found.untold.len() == COLLECTION_DISKS_MAX;
        if !stripes.is_empty() {
            self.forget(group, lease, stripes).await?;
        }
        Ok(is_full || has_more_untold.is_some())
    }

    fn is_others(&self, lease: Option<&Lease>) -> bool {
        lease.is_some_and(|lease| lease.holder != self.metadata.source() && lease.left_ms > 0)
    }

    /// The lease under which this gateway works on the group; `None` while it is another's.
    async fn hold_lease(
        &self,
        group: GroupId,
        turn: &mut Turn,
        found: Option<Lease>,
        now: Duration,
    ) -> Result<Option<u64>, Failure> {
        if self.is_others(found.as_ref()) {
            turn.lease = None;
            return Ok(None);
        }
        if let Some((lease, until)) = turn.lease
            && now + LEASE / 2 < until
        {
            return Ok(Some(lease));
        }
        let lease = turn.lease.map_or_else(|| self.seams.random.u64(), |(lease, _)| lease);
        let take = GroupCommand::TakeLease {
            holder: self.metadata.source(),
            lease,
            span_ms: u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX),
        };
        match self.metadata.command_group(group, take).await {
            Ok(()) => {
                turn.lease = Some((lease, now + LEASE));
                Ok(Some(lease))
            }
            Err(failure) if group_codes::LEASE_TAKEN.is(&failure) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Has all of these removed wherever somebody can be told.
    async fn remove_all(
        &self,
        known: &Known,
        stripes: &[StripeFacts],
        silent: &Silent,
    ) -> Result<Vec<ForgottenStripe>, Failure> {
        let removals = stripes.iter().map(|facts| self.remove(known, facts, silent));
        let removals: Vec<_> = removals.collect();
        let removed = stream::iter(removals).buffered(STRIPES_AT_ONCE);
        let removed: Vec<Result<ForgottenStripe, Failure>> = removed.collect().await;
        removed.into_iter().collect()
    }

    async fn remove(&self, known: &Known, facts: &StripeFacts, silent: &Silent) -> Result<ForgottenStripe, Failure> {
        let (_, row) = self.directory.row(facts.profile, facts.id, 0).await?;
        let astray = facts.astray.iter().filter_map(|astray| astray.disk);
        let disks = row.disks.iter().chain(row.filling_from.values()).copied().chain(astray);
        let mut by_node: BTreeMap<NodeId, BTreeSet<DiskId>> = BTreeMap::new();
        for disk in disks {
            if let Some(node) = node_in_use(&known.map, disk) {
                by_node.entry(node).or_default().insert(disk);
            }
        }
        let mut untold = Vec::new();
        for (node, disks) in by_node {
            let failed = self.tell_removed(known, node, (facts.profile, facts.id), silent).await;
            untold.extend(disks.into_iter().filter(|disk| match &failed {
                Some(failed) => failed.contains(disk),
                None => true,
            }));
        }
        Ok(ForgottenStripe {
            profile: facts.profile,
            stripe: facts.id,
            untold,
        })
    }

    /// Tells a node to remove a stripe; answers its disks that failed, or `None` when nobody answered.
    async fn tell_removed(
        &self,
        known: &Known,
        node: NodeId,
        (profile, stripe): StripeName,
        silent: &Silent,
    ) -> Option<Vec<DiskId>> {
        if silent.has(node) {
            return None;
        }
        let peer = node_peer(node, known.map.nodes.get(&node)?.address);
        let request = RemoveStripe { profile, stripe };
        let transport = self.seams.transport.as_ref();
        let options = CallOptions::within(CALL_DEADLINE);
        match typed::ask::<StripeRemoved>(transport, &peer, Method::RemoveStripe, &request, options).await {
            Ok((removed, _)) => Some(removed.disks_failed),
            Err(error) => {
                tracing::debug!(%node, %stripe, %error, "a node was not told of a removed stripe");
                silent.note(node);
                None
            }
        }
    }

    async fn forget(&self, group: GroupId, lease: u64, stripes: Vec<ForgottenStripe>) -> Result<(), Failure> {
        for part in stripes.chunks(FORGOTTEN_AT_ONCE) {
            let stripes = part.to_vec();
            let forget = GroupCommand::ForgetStripes { lease, stripes };
            self.metadata.command_group(group, forget).await?;
            self.add(&metrics::STRIPES_REMOVED, part.len());
            let untold = part.iter().map(|stripe| stripe.untold.len()).sum();
            self.add(&metrics::REMOVALS_UNTOLD, untold);
        }
        Ok(())
    }

    /// Tells disks what they could not be told before; answers the first of them that may have to be told more.
    async fn tell_untold(
        &self,
        group: GroupId,
        lease: u64,
        known: &Known,
        untold: &[(DiskId, Vec<StripeName>)],
        silent: &Silent,
    ) -> Result<Option<DiskId>, Failure> {
        let mut has_more = None;
        for (disk, stripes) in untold {
            let told = match node_in_use(&known.map, *disk) {
                // A disk that is out never comes back, so nobody needs to tell it anything.
                None => stripes.clone(),
                Some(node) => self.tell_disk(known, (node, *disk), stripes, silent).await,
            };
            if told.len() == COLLECTION_STRIPES_MAX {
                has_more = has_more.or(Some(*disk));
            }
            if !told.is_empty() {
                let forget = GroupCommand::ForgetUntold {
                    lease,
                    disk: *disk,
                    stripes: told,
                };
                self.metadata.command_group(group, forget).await?;
            }
        }
        Ok(has_more)
    }

    /// Those of `stripes` that a disk was told of.
    async fn tell_disk(
        &self,
        known: &Known,
        (node, disk): (NodeId, DiskId),
        stripes: &[StripeName],
        silent: &Silent,
    ) -> Vec<StripeName> {
        let tell = |name: StripeName| async move {
            let failed = self.tell_removed(known, node, name, silent).await?;
            (!failed.contains(&disk)).then_some(name)
        };
        // The first shows whether the node is there at all.
        let Some((first, rest)) = stripes.split_first() else {
            return Vec::new();
        };
        let Some(first) = tell(*first).await else {
            return Vec::new();
        };
        let rest: Vec<_> = rest.iter().map(|name| tell(*name)).collect();
        let rest: Vec<Option<StripeName>> = stream::iter(rest).buffered(STRIPES_AT_ONCE).collect().await;
        std::iter::once(first).chain(rest.into_iter().flatten()).collect()
    }

    fn add(&self, definition: &daemon::metrics::Definition, count: usize) {
        let counter = self.seams.metrics.counter(definition).with_label_values::<&str>(&[]);
        counter.inc_by(count as u64);
    }
}

/// The node of a disk that is or may come back; `None` for one that is out.
fn node_in_use(map: &ClusterMap, disk: DiskId) -> Option<NodeId> {
    let info = map.disks.get(&disk)?;
    let node = map.nodes.get(&info.node)?;
    let is_out = info.membership == Membership::Out || node.membership == Membership::Out;
    (!is_out).then_some(info.node)
}
