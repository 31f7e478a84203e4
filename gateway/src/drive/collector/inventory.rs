//! Compares what groups count on with what disks hold, first by sums, then by names where the sums differ.
//!
//! A group tells sums of its stripes of closed birth epochs; the rows say what that makes on each disk (`expected`); each disk tells the
//! sums of what it holds of the same slots up to the same epochs. Of a cell that differs the names are taken from both sides. What a disk
//! has and the group did not name may be an orphan, which the group is asked once more (`orphans`); what the group names and no disk has
//! where it should is missing, which is counted and told, and repaired by nobody yet.
//! Invariants: only closed epochs are compared, so nothing in flight; nothing is removed and nothing is called missing by a sum; a disk
//! that does not answer lacks nothing. Any gateway may do this at any time, also several at once: it changes nothing but orphans.
//! Not here: which stripes may be removed (the group's state), repair.

use super::expected::{Expected, Told, places};
use super::{CALL_DEADLINE, Silent, node_in_use};
use crate::drive::Core;
use crate::drive::directory::{Known, node_peer};
use crate::drive::metadata_client::unexpected;
use crate::metrics;
use futures_util::stream::{self, StreamExt};
use model::id::{DiskId, GroupId, Slot};
use model::layout::Layout;
use model::profile::ProfileId;
use model::stripe::{FragmentName, StripeId};
use model::time::BirthEpoch;
use protocol::frame::Method;
use protocol::metadata::inventory::{ListStripes, ListedStripe, PgSum, StripeSums, SumStripes};
use protocol::metadata::{Query, QueryAnswer};
use protocol::node::{CellFragments, FragmentRead, FragmentSums, ListCells, ReadFragment, SumFragments, code};
use protocol::wire_error::Failure;
use rpc::transport::RpcError;
use rpc::typed::{self, CallOptions};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Sums of a group that are compared together: some ten megabytes with what they make on each disk. Guess.
const SUMS_AT_ONCE: usize = 16_384;
/// Disks that are asked side by side.
const DISKS_AT_ONCE: usize = 8;
/// Differences whose names are looked at side by side, and how long each waits before: they take a small share of the disks. Guess.
const LOOKS_AT_ONCE: usize = 8;
const PAUSE: Duration = Duration::from_millis(10);
/// Fragments that are asked for by name before they are called missing; more are counted without, since then a disk has lost much.
const LOOKED_FOR_MAX: u64 = 1000;

/// Slots, each with the epoch up to which it is compared.
type Slots = BTreeMap<Slot, BirthEpoch>;

/// Names by the disks that told them.
type Held = BTreeMap<DiskId, BTreeSet<FragmentName>>;

/// What an inventory found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Every group told its sums; else the numbers are of a part.
    pub is_whole: bool,
    /// Cells of disks that hold what they should.
    pub equal: u64,
    /// Cells whose names were looked at.
    pub differing: u64,
    /// Fragments that groups count on and that lie on no disk where they may.
    pub missing: u64,
    /// Stripes that were removed from a node as orphans.
    pub orphans: u64,
    /// Disks in use that did not answer; what they lack is not counted.
    pub silent_disks: u64,
}

/// An inventory that is being taken.
pub(super) struct Round {
    pub(super) known: Known,
    pub(super) silent: Silent,
    found: Inventory,
    silent_disks: BTreeSet<DiskId>,
    looked_for: AtomicU64,
}

/// What names said.
#[derive(Default)]
struct Seen {
    silent_disks: BTreeSet<DiskId>,
    missing: u64,
    orphans: u64,
}

/// Stripes of a profile whose ids begin with the same bits, where disks hold something else than they should.
#[derive(Default)]
struct Difference {
    slots: Slots,
    disks: BTreeSet<DiskId>,
}

impl Core {
    /// Compares all groups with all disks once, removes the orphans that it finds and shows the rest in the metrics.
    ///
    /// May be dropped at any moment: what it did not come to is found by the next one.
    /// Errors: the control group does not answer; all other failures leave out a part and are told by `is_whole` and `silent_disks`.
    pub async fn take_inventory(&self) -> Result<Inventory, Failure> {
        let mut round = Round {
            known: self.directory.refresh(0).await?,
            silent: Silent::default(),
            found: Inventory {
                is_whole: true,
                ..Inventory::default()
            },
            silent_disks: BTreeSet::new(),
            looked_for: AtomicU64::new(0),
        };
        for group in self.metadata.drive_groups() {
            if let Err(failure) = self.compare_group(&mut round, group).await {
                tracing::debug!(%group, %failure, "a group was not compared with what disks hold");
                round.found.is_whole = false;
            }
        }
        round.found.silent_disks = round.silent_disks.len() as u64;
        self.show_inventory(&round.found);
        Ok(round.found)
    }

    fn show_inventory(&self, found: &Inventory) {
        let set = |definition, value: u64| {
            let gauge = self.seams.metrics.gauge(definition).with_label_values::<&str>(&[]);
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&metrics::INVENTORY_SILENT_DISKS, found.silent_disks);
        let cells = self.seams.metrics.counter(&metrics::INVENTORY_CELLS);
        cells.with_label_values(&["equal"]).inc_by(found.equal);
        cells.with_label_values(&["differing"]).inc_by(found.differing);
        // A part of them would look as if the others had come back.
        if found.is_whole {
            set(&metrics::MISSING_FRAGMENTS, found.missing);
            let taken = self.seams.metrics.counter(&metrics::INVENTORIES);
            taken.with_label_values::<&str>(&[]).inc();
        }
        if found.missing > 0 {
            tracing::info!(missing = found.missing, "fragments are missing that groups count on");
        }
    }

    /// Compares the slots of a group, some at a time; one that the count is in the middle of waits for its rest.
    async fn compare_group(&self, round: &mut Round, group: GroupId) -> Result<(), Failure> {
        let mut ask = SumStripes {
            pg_bits: sizes(&round.known.layout),
            after: None,
        };
        let (mut slots, mut sums): (Slots, Vec<PgSum>) = (Slots::new(), Vec::new());
        loop {
            let part = self.sums_of_group(group, &ask).await?;
            slots.extend(part.slots);
            sums.extend(part.sums);
            ask.after = part.next;
            if ask.after.is_some() && sums.len() < SUMS_AT_ONCE {
                continue;
            }
            let open = ask.after.map(|after| after.stripe.slot());
            let (rest, whole): (Vec<PgSum>, Vec<PgSum>) = sums.drain(..).partition(|sum| Some(sum.slot) == open);
            let (open_slots, whole_slots): (Slots, Slots) =
                slots.into_iter().partition(|(slot, _)| Some(*slot) == open);
            (slots, sums) = (open_slots, rest);
            self.compare_sums(round, group, &whole_slots, &whole).await?;
            if open.is_none() {
                return Ok(());
            }
        }
    }

    async fn sums_of_group(&self, group: GroupId, ask: &SumStripes) -> Result<StripeSums, Failure> {
        let query = Query::SumStripes(ask.clone());
        match self.metadata.query_group(group, &query, 0).await? {
            QueryAnswer::StripeSums(sums) => Ok(sums),
            _ => Err(unexpected()),
        }
    }

    async fn compare_sums(&self, round: &mut Round, group: GroupId, slots: &Slots, sums: &[PgSum]) -> Result<(), Failure> {
        if slots.is_empty() {
            return Ok(());
        }
        let mut expected = Expected::default();
        for sum in sums {
            expected.add(&round.known.layout, sum);
        }
        // One that is out of the cluster may still be in a row: it holds nothing any more.
        let disks: BTreeSet<DiskId> = round.known.map.disks.keys().copied().chain(expected.disks()).collect();
        let asking: &Round = round;
        let told = disks.iter().map(|disk| self.sums_of_disk(asking, *disk, slots));
        let told: Vec<_> = told.collect();
        let told: Vec<Option<Told>> = stream::iter(told).buffered(DISKS_AT_ONCE).collect().await;
        let mut differences: BTreeMap<(ProfileId, u8), Difference> = BTreeMap::new();
        for (disk, told) in disks.into_iter().zip(told) {
            let Some(told) = told else {
                round.silent_disks.insert(disk);
                continue;
            };
            let (differing, equal) = expected.differing(disk, &told);
            round.found.equal += equal as u64;
            round.found.differing += differing.len() as u64;
            for cell in differing {
                let Some(born_by) = slots.get(&cell.slot) else {
                    continue;
                };
                let difference = differences.entry((cell.profile, cell.leading)).or_default();
                difference.disks.insert(disk);
                difference.slots.insert(cell.slot, *born_by);
            }
        }
        let asking: &Round = round;
        let looks = differences.iter();
        let looks = looks.map(|(cells, difference)| self.look_into(asking, group, *cells, difference));
        let looks: Vec<_> = looks.collect();
        let seen: Vec<Result<Seen, Failure>> = stream::iter(looks).buffered(LOOKS_AT_ONCE).collect().await;
        for seen in seen {
            let seen = seen?;
            round.silent_disks.extend(seen.silent_disks);
            round.found.missing += seen.missing;
            round.found.orphans += seen.orphans;
        }
        Ok(())
    }

    /// Names decide. The disks are asked first, so that a stripe which the group then names was there before.
    async fn look_into(
        &self,
        round: &Round,
        group: GroupId,
        (profile, leading): (ProfileId, u8),
        difference: &Difference,
    ) -> Result<Seen, Failure> {
        self.seams.clock.sleep(PAUSE).await;
        let mut seen = Seen {
            silent_disks: round.silent_disks.clone(),
            ..Seen::default()
        };
        let mut held = Held::new();
        for disk in &difference.disks {
            let request = ListCells {
                disk: *disk,
                profile,
                leading,
                slots: difference.slots.iter().map(|(slot, by)| (*slot, *by)).collect(),
                after: None,
            };
            match self.names_on_disk(round, request).await {
                Some(names) => {
                    held.insert(*disk, names);
                }
                None => {
                    seen.silent_disks.insert(*disk);
                }
            }
        }
        let ask = ListStripes {
            profile,
            leading,
            slots: difference.slots.iter().map(|(slot, by)| (*slot, *by)).collect(),
            after: None,
        };
        let stripes = self.stripes_of_group(group, ask).await?;
        let known: BTreeSet<StripeId> = stripes.iter().map(|listed| listed.stripe).collect();
        let mut unnamed = BTreeSet::new();
        for (disk, names) in &held {
            if let Some(node) = node_in_use(&round.known.map, *disk) {
                let strays = names.iter().filter(|name| !known.contains(&name.stripe));
                unnamed.extend(strays.map(|name| (node, (profile, name.stripe))));
            }
        }
        seen.orphans = self.remove_orphans(round, group, &unnamed).await?;
        for listed in &stripes {
            seen.missing += self
                .look_for(round, profile, listed, (&held, &seen.silent_disks))
                .await?;
        }
        Ok(seen)
    }

    /// How many fragments of a stripe lie nowhere, as far as disks have told.
    async fn look_for(
        &self,
        round: &Round,
        profile: ProfileId,
        listed: &ListedStripe,
        (held, silent): (&Held, &BTreeSet<DiskId>),
    ) -> Result<u64, Failure> {
        let mut missing = 0;
        for index in 0..profile.profile().fragments() as u8 {
            let stripe = listed.stripe;
            let name = FragmentName { profile, stripe, index };
            let Some(row) = round.known.layout.row(profile, stripe) else {
                continue;
            };
            let at = places(row, &listed.astray, index);
            // Where nothing differs everything lies that is counted there, and it is counted at its first place.
            let lies = |(number, disk): (usize, &DiskId)| match held.get(disk) {
                Some(names) => names.contains(&name),
                None => number == 0 || silent.contains(disk),
            };
            if at.is_empty() || at.iter().enumerate().any(lies) {
                continue;
            }
            if round.looked_for.fetch_add(1, Ordering::Relaxed) < LOOKED_FOR_MAX {
                let (_, newest) = self.directory.row(profile, stripe, 0).await?;
                if self.may_lie(round, name, &places(&newest, &listed.astray, index)).await {
                    continue;
                }
            }
            tracing::debug!(%stripe, index, "a fragment is missing");
            missing += 1;
        }
        Ok(missing)
    }

    /// Whether one of these disks has the fragment by now, or cannot say.
    async fn may_lie(&self, round: &Round, name: FragmentName, at: &[DiskId]) -> bool {
        for disk in at {
            if node_in_use(&round.known.map, *disk).is_none() {
                continue;
            }
            let request = ReadFragment {
                name,
                disk: *disk,
                ranges: Vec::new(),
            };
            let read = self.call_disk::<FragmentRead>(round, *disk, Method::ReadFragment, &request);
            match read.await {
                Some(Err(failure)) if failure.code == code::NO_FRAGMENT => {}
                _ => return true,
            }
        }
        false
    }

    /// The sums of a disk; none for one that is out, `None` when it does not answer.
    async fn sums_of_disk(&self, round: &Round, disk: DiskId, slots: &Slots) -> Option<Told> {
        let mut told = Told::new();
        if node_in_use(&round.known.map, disk).is_none() {
            return Some(told);
        }
        let mut request = SumFragments {
            disk,
            slots: slots.iter().map(|(slot, by)| (*slot, *by)).collect(),
            after: None,
        };
        loop {
            let part = self.call_disk::<FragmentSums>(round, disk, Method::SumFragments, &request);
            let part = part.await?.ok()?;
            told.extend(part.sums.iter().map(|sum| (sum.cell, sum.sum)));
            request.after = part.next;
            if request.after.is_none() {
                return Some(told);
            }
        }
    }

    /// As `sums_of_disk`, of names.
    async fn names_on_disk(&self, round: &Round, mut request: ListCells) -> Option<BTreeSet<FragmentName>> {
        let mut names = BTreeSet::new();
        if node_in_use(&round.known.map, request.disk).is_none() {
            return Some(names);
        }
        loop {
            let part = self.call_disk::<CellFragments>(round, request.disk, Method::ListCells, &request);
            let part = part.await?.ok()?;
            names.extend(part.names);
            request.after = part.next;
            if request.after.is_none() {
                return Some(names);
            }
        }
    }

    async fn stripes_of_group(&self, group: GroupId, mut ask: ListStripes) -> Result<Vec<ListedStripe>, Failure> {
        let mut stripes = Vec::new();
        loop {
            let query = Query::ListStripes(ask.clone());
            let QueryAnswer::ListedStripes(part) = self.metadata.query_group(group, &query, 0).await? else {
                return Err(unexpected());
            };
            stripes.extend(part.stripes);
            ask.after = part.next;
            if ask.after.is_none() {
                return Ok(stripes);
            }
        }
    }

    /// What a disk's node answers or refuses; `None` when it says nothing, and is then not asked again.
    async fn call_disk<T: DeserializeOwned>(
        &self,
        round: &Round,
        disk: DiskId,
        method: Method,
        request: &(impl Serialize + Sync),
    ) -> Option<Result<T, Failure>> {
        let node = node_in_use(&round.known.map, disk)?;
        if round.silent.has(node) {
            return None;
        }
        let peer = node_peer(node, round.known.map.nodes.get(&node)?.address);
        let (transport, options) = (self.seams.transport.as_ref(), CallOptions::within(CALL_DEADLINE));
        match typed::ask::<T>(transport, &peer, method, request, options).await {
            Ok((answer, _)) => Some(Ok(answer)),
            Err(RpcError::Refused(failure)) => Some(Err(failure)),
            Err(error) => {
                tracing::debug!(%node, %disk, %error, "a disk was not compared with what groups count on");
                round.silent.note(node);
                None
            }
        }
    }
}

/// How many bits name a placement group, by profile.
fn sizes(layout: &Layout) -> Vec<(ProfileId, u8)> {
    let tables = layout.tables.iter();
    tables.map(|(profile, table)| (*profile, table.pg_bits)).collect()
}
