//! Compares what groups count on with what disks hold, by sums; where they differ names decide (`differing`).
//!
//! A group tells sums of its stripes of closed birth epochs; the rows say what that makes on each disk (`expected`); each disk tells the
//! sums of what it holds of the same slots up to the same epochs. Cells that differ are kept until the group is through and then looked
//! at together, so that a disk's index is read once for them.
//! Invariants: only closed epochs are compared, so nothing in flight; nothing is removed and nothing is called missing by a sum; a disk
//! that does not answer, or that the map does not know yet, lacks nothing. Any gateway may do this at any time, also several at once: it
//! changes nothing but orphans. What fails leaves out itself and nothing else.
//! Not here: names (`differing`), which stripes may be removed (the group's state), repair.

use super::differing::{Difference, lists_at_once};
use super::expected::{Expected, Told};
use super::{CALL_DEADLINE, GROUPS_AT_ONCE, Silent, node_in_use};
use crate::drive::Core;
use crate::drive::directory::{Known, node_peer};
use crate::drive::metadata_client::unexpected;
use crate::metrics;
use futures_util::stream::{self, StreamExt};
use model::id::{DiskId, GroupId, Slot};
use model::layout::Layout;
use model::profile::ProfileId;
use model::stripe::StripeId;
use model::time::BirthEpoch;
use protocol::frame::Method;
use protocol::metadata::inventory::{PgSum, StripeSums, SumStripes, SummedTo};
use protocol::metadata::{Query, QueryAnswer};
use protocol::node::{FragmentSums, SumFragments, code};
use protocol::wire_error::Failure;
use rpc::transport::RpcError;
use rpc::typed::{self, CallOptions};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Sums of whole slots that are compared together: some ten megabytes with what they make on each disk. Guess.
const SUMS_AT_ONCE: usize = 16_384;
/// Disks that are asked side by side.
const DISKS_AT_ONCE: usize = 64;
/// Disks whose questions are made ready together: each takes a kilobyte or two while it waits.
const DISKS_READY: usize = 16 * DISKS_AT_ONCE;
/// Between two parts of a group's sums: users' questions go first. Guess.
const PART_PAUSE: Duration = Duration::from_millis(2);
/// Sums that are added up before other work gets its turn: tens of microseconds. Guess.
const SUMS_AT_A_TIME: usize = 256;
/// How often a group is asked for a part that fails, and how long is waited between: a leader is elected in less.
const ASKED_MAX: u32 = 4;
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Slots, each with the epoch up to which it is compared.
pub(super) type Slots = BTreeMap<Slot, BirthEpoch>;

/// What an inventory found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Every group told its sums and the names of all that differs; else the numbers are of a part.
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

/// The comparison of one group.
pub(super) struct Round {
    pub(super) known: Known,
    pub(super) silent: Silent,
    /// Fragments of the group that were asked for by name.
    pub(super) looked_for: AtomicU64,
    /// Seats of those who list the names of a disk, for all groups of the inventory together.
    pub(super) lists: Arc<Semaphore>,
}

/// What the comparison of one group has come to.
#[derive(Default)]
pub(super) struct Compared {
    pub(super) found: Inventory,
    pub(super) silent_disks: BTreeSet<DiskId>,
    pub(super) differences: BTreeMap<(ProfileId, u8), Difference>,
}

impl Compared {
    fn note(&mut self, disk: DiskId, expected: &Expected, told: &Told, slots: &Slots) {
        let (differing, equal) = expected.differing(disk, told);
        self.found.equal += equal as u64;
        self.found.differing += differing.len() as u64;
        for cell in differing {
            if let Some(born_by) = slots.get(&cell.slot) {
                let difference = self.differences.entry((cell.profile, cell.leading)).or_default();
                difference.disks.insert(disk);
                // A disk may name more than groups count on: an old fragment of each stripe, or nothing but orphans.
                let held = told.get(&cell).copied().flatten().map_or(0, |sum| sum.count);
                let (_, stripes) = difference.slots.entry(cell.slot).or_insert((*born_by, 0));
                *stripes = expected.stripes(&cell).max(held).max(*stripes);
            }
        }
    }
}

impl Core {
    /// Compares all groups with all disks once, removes the orphans that it finds and shows the rest in the metrics.
    ///
    /// May be dropped at any moment: what it did not come to is found by the next one.
    /// Errors: the control group does not answer; all other failures leave out a part and are told by `is_whole` and `silent_disks`.
    pub async fn take_inventory(&self) -> Result<Inventory, Failure> {
        let known = self.freshly_known().await?;
        let lists = Arc::new(Semaphore::new(lists_at_once(known.map.disks.len())));
        let mut groups = self.metadata.drive_groups();
        // Turns that are often cut off come to the last groups as often as to the first.
        let first = self.seams.random.below(groups.len() as u64) as usize;
        groups.rotate_left(first);
        let groups = groups.into_iter();
        let groups = groups.map(|group| self.compare_group(group, Arc::clone(&lists)));
        let groups: Vec<_> = groups.collect();
        let mut groups = stream::iter(groups).buffer_unordered(GROUPS_AT_ONCE);
        let mut found = Inventory {
            is_whole: true,
            ..Inventory::default()
        };
        let mut silent_disks: BTreeSet<DiskId> = BTreeSet::new();
        while let Some(compared) = groups.next().await {
            found.is_whole &= compared.found.is_whole;
            found.equal += compared.found.equal;
            found.differing += compared.found.differing;
            found.missing += compared.found.missing;
            found.orphans += compared.found.orphans;
            silent_disks.extend(compared.silent_disks);
        }
        found.silent_disks = silent_disks.len() as u64;
        self.show_inventory(&found);
        Ok(found)
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
        if found.is_whole {
            let taken = self.seams.metrics.counter(&metrics::INVENTORIES);
            taken.with_label_values::<&str>(&[]).inc();
        }
        let missing = self.seams.metrics.gauge(&metrics::MISSING_FRAGMENTS);
        let missing = missing.with_label_values::<&str>(&[]);
        missing.set(shown_missing(missing.get(), found));
        if found.missing > 0 {
            tracing::info!(missing = found.missing, "fragments are missing that groups count on");
        }
    }

    /// With a map and rows of its own: a turn over all groups may take days.
    async fn compare_group(&self, group: GroupId, lists: Arc<Semaphore>) -> Compared {
        let mut compared = Compared::default();
        let known = match self.freshly_known().await {
            Ok(known) => known,
            Err(failure) => {
                tracing::debug!(%group, %failure, "a group was not compared with what disks hold");
                return compared;
            }
        };
        let round = Round {
            known,
            silent: Silent::default(),
            looked_for: AtomicU64::new(0),
            lists,
        };
        match self.compare_slots(&round, group, &mut compared).await {
            Ok(()) => compared.found.is_whole = true,
            Err(failure) => tracing::debug!(%group, %failure, "a group was compared in part with what disks hold"),
        }
        self.look_at_differences(&round, group, &mut compared).await;
        compared
    }

    /// Map and rows as they are now, asked for again where that fails: a group would be left out until the next turn.
    async fn freshly_known(&self) -> Result<Known, Failure> {
        let mut asked = 1;
        loop {
            match self.directory.refresh(0).await {
                Ok(known) => return Ok(known),
                Err(failure) if asked == ASKED_MAX => return Err(failure),
                Err(_) => {
                    asked += 1;
                    self.seams.clock.sleep(ASK_AGAIN).await;
                }
            }
        }
    }

    /// Compares the slots of a group, some at a time; one that the count is in the middle of waits for its rest.
    async fn compare_slots(&self, round: &Round, group: GroupId, compared: &mut Compared) -> Result<(), Failure> {
        let mut ask = SumStripes {
            pg_bits: sizes(&round.known.layout),
            after: None,
        };
        let (mut slots, mut sums): (Slots, Vec<PgSum>) = (Slots::new(), Vec::new());
        loop {
            let part = self.sums_of_group(group, &ask).await?;
            slots.extend(part.slots);
            for sum in part.sums {
                add_up(&mut sums, sum);
            }
            ask.after = going_on(ask.after.as_ref(), part.next, order_of_sums)?;
            let open = ask.after.map(|after| after.stripe.slot());
            let whole = sums.partition_point(|sum| open.is_none_or(|open| sum.slot < open));
            if open.is_none() || whole >= SUMS_AT_ONCE {
                let open_sums = sums.split_off(whole);
                let open_slots = open.map(|open| slots.split_off(&open)).unwrap_or_default();
                self.compare_sums(round, &slots, &sums, compared).await;
                (slots, sums) = (open_slots, open_sums);
            }
            if open.is_none() {
                return Ok(());
            }
            self.seams.clock.sleep(PART_PAUSE).await;
        }
    }

    /// One part, asked for again where it fails: what was counted before it would be lost.
    async fn sums_of_group(&self, group: GroupId, ask: &SumStripes) -> Result<StripeSums, Failure> {
        let query = Query::SumStripes(ask.clone());
        let mut asked = 1;
        loop {
            match self.metadata.query_group(group, &query, 0).await {
                Ok(QueryAnswer::StripeSums(sums)) => return Ok(sums),
                Ok(_) => return Err(unexpected()),
                Err(failure) if asked == ASKED_MAX => return Err(failure),
                Err(_) => {
                    asked += 1;
                    self.seams.clock.sleep(ASK_AGAIN).await;
                }
            }
        }
    }

    async fn compare_sums(&self, round: &Round, slots: &Slots, sums: &[PgSum], compared: &mut Compared) {
        if slots.is_empty() {
            return;
        }
        let mut expected = Expected::default();
        for part in sums.chunks(SUMS_AT_A_TIME) {
            for sum in part {
                expected.add(&round.known.layout, sum);
            }
            tokio::task::yield_now().await;
        }
        // One that is out of the cluster may still be in a row: it holds nothing any more.
        let disks: BTreeSet<DiskId> = round.known.map.disks.keys().copied().chain(expected.disks()).collect();
        let disks: Vec<DiskId> = disks.into_iter().collect();
        for ready in disks.chunks(DISKS_READY) {
            let asks = ready.iter().copied();
            let asks = asks.map(|disk| async move { (disk, self.sums_of_disk(round, disk, slots).await) });
            let asks: Vec<_> = asks.collect();
            let mut answers = stream::iter(asks).buffer_unordered(DISKS_AT_ONCE);
            while let Some((disk, told)) = answers.next().await {
                match told {
                    Some(told) => compared.note(disk, &expected, &told, slots),
                    None => {
                        compared.silent_disks.insert(disk);
                    }
                }
            }
        }
    }

    /// The sums of a disk; none for one that is out, `None` when it does not answer or is not known yet.
    async fn sums_of_disk(&self, round: &Round, disk: DiskId, slots: &Slots) -> Option<Told> {
        let mut told = Told::new();
        round.known.map.disks.get(&disk)?;
        if node_in_use(&round.known.map, disk).is_none() {
            return Some(told);
        }
        let mut request = SumFragments {
            disk,
            slots: slots.iter().map(|(slot, by)| (*slot, *by)).collect(),
            after: None,
        };
        loop {
            let (known, silent) = (&round.known, &round.silent);
            let part = self.call_disk::<FragmentSums>((known, silent), disk, Method::SumFragments, &request);
            let part = part.await?.ok()?;
            told.extend(part.sums.iter().map(|sum| (sum.cell, sum.sum)));
            request.after = going_on(request.after.as_ref(), part.next, |cell| *cell).ok()?;
            if request.after.is_none() {
                return Some(told);
            }
        }
    }

    /// What a disk's node answers or refuses; `None` when it says nothing twice, and is then not asked again.
    pub(super) async fn call_disk<T: DeserializeOwned>(
        &self,
        (known, silent): (&Known, &Silent),
        disk: DiskId,
        method: Method,
        request: &(impl Serialize + Sync),
    ) -> Option<Result<T, Failure>> {
        let node = node_in_use(&known.map, disk)?;
        let peer = node_peer(node, known.map.nodes.get(&node)?.address);
        let transport = self.seams.transport.as_ref();
        let mut is_last = false;
        loop {
            // Another call may have found out while this one waited.
            if silent.has(node) {
                return None;
            }
            let options = CallOptions::within(CALL_DEADLINE);
            match typed::ask::<T>(transport, &peer, method, request, options).await {
                Ok((answer, _)) => return Some(Ok(answer)),
                Err(RpcError::Refused(failure)) if is_last || !may_pass(&failure) => return Some(Err(failure)),
                Err(RpcError::Refused(_)) => {}
                Err(error) if is_last => {
                    tracing::debug!(%node, %disk, %error, "a disk was not compared with what groups count on");
                    silent.note(node);
                    return None;
                }
                Err(_) => {}
            }
            is_last = true;
            self.seams.clock.sleep(ASK_AGAIN).await;
        }
    }
}

/// Whether a node may answer in a moment what it refuses now; a disk that is missing is so until a restart.
fn may_pass(refusal: &Failure) -> bool {
    refusal.kind.is_retryable() && refusal.code != code::DISK_MISSING
}

/// What the gauge of missing fragments becomes. A count of a part is a bound from below: it never makes the gauge fall, since that would
/// look as if what the part left out had come back.
fn shown_missing(shown: i64, found: &Inventory) -> i64 {
    let missing = i64::try_from(found.missing).unwrap_or(i64::MAX);
    if found.is_whole && found.silent_disks == 0 {
        return missing;
    }
    shown.max(missing)
}

/// Where a list goes on. Errors: not behind where it ended last, so that it would never end.
pub(super) fn going_on<T, K: Ord>(
    after: Option<&T>,
    next: Option<T>,
    order: impl Fn(&T) -> K,
) -> Result<Option<T>, Failure> {
    match (after, &next) {
        (Some(after), Some(next)) if order(next) <= order(after) => Err(unexpected()),
        _ => Ok(next),
    }
}

fn order_of_sums(to: &SummedTo) -> (Slot, u8, StripeId) {
    (to.stripe.slot(), to.profile.number(), to.stripe)
}

/// Adds a sum to the last one, which the part before may have ended in, or puts it behind it.
fn add_up(sums: &mut Vec<PgSum>, sum: PgSum) {
    let is_same = |last: &&mut PgSum| (last.slot, last.profile, last.pg) == (sum.slot, sum.profile, sum.pg);
    match sums.last_mut().filter(is_same) {
        Some(last) => {
            last.all = last.all.plus(sum.all);
            last.astray.extend(sum.astray);
        }
        None => sums.push(sum),
    }
}

/// How many bits name a placement group, by profile.
fn sizes(layout: &Layout) -> Vec<(ProfileId, u8)> {
    let tables = layout.tables.iter();
    tables.map(|(profile, table)| (*profile, table.pg_bits)).collect()
}

#[cfg(test)]
mod tests {
    use super::{Compared, Expected, Inventory, Slots, Told, add_up, going_on, may_pass, order_of_sums, shown_missing};
    use model::error_kind::ErrorKind;
    use model::id::{DiskId, Slot};
    use model::inventory::{CellName, IdSum};
    use model::profile::ProfileId;
    use model::stripe::StripeId;
    use model::time::BirthEpoch;
    use protocol::metadata::inventory::{AstraySum, PgSum, SummedTo};
    use protocol::node::code;
    use protocol::wire_error::Failure;

    fn to(slot: u16, profile: ProfileId, random: u128) -> SummedTo {
        SummedTo {
            born_by: BirthEpoch(3),
            profile,
            stripe: StripeId::new(random, Slot::new(slot).unwrap(), BirthEpoch(1)),
        }
    }

    #[test]
    fn a_count_that_does_not_go_on_ends_as_a_failure() {
        let (dev, copies) = (ProfileId::Dev, ProfileId::Copies);
        let steps = [to(1, dev, 9), to(1, copies, 2), to(1, copies, 3), to(2, dev, 1)];
        for pair in steps.windows(2) {
            let (one, other) = (pair[0], pair[1]);
            assert_eq!(going_on(None, Some(one), order_of_sums), Ok(Some(one)));
            assert_eq!(going_on(Some(&one), Some(other), order_of_sums), Ok(Some(other)));
            assert_eq!(going_on(Some(&one), None, order_of_sums), Ok(None));
            assert!(going_on(Some(&one), Some(one), order_of_sums).is_err());
            assert!(going_on(Some(&other), Some(one), order_of_sums).is_err());
        }
    }

    #[test]
    fn what_is_missing_of_a_part_raises_the_gauge_and_only_the_whole_lets_it_fall() {
        let shown = |shown, is_whole, silent_disks, missing| {
            let found = Inventory {
                is_whole,
                silent_disks,
                missing,
                ..Inventory::default()
            };
            shown_missing(shown, &found)
        };
        for shown_before in [0, 4, 9] {
            assert_eq!(shown(shown_before, true, 0, 4), 4);
        }
        for (is_whole, silent_disks) in [(true, 1), (false, 0), (false, 1)] {
            assert_eq!(shown(0, is_whole, silent_disks, 0), 0);
            assert_eq!(
                shown(0, is_whole, silent_disks, 4),
                4,
                "a disk is lost while another is silent"
            );
            assert_eq!(
                shown(9, is_whole, silent_disks, 4),
                9,
                "a part looks as if fragments had come back"
            );
            assert_eq!(shown(9, is_whole, silent_disks, u64::MAX), i64::MAX);
        }
    }

    #[test]
    fn a_node_that_is_busy_is_asked_again_and_one_that_is_without_its_disk_is_not() {
        let refused = |kind, code: &str| may_pass(&Failure::new(kind, code, "later"));
        assert!(refused(ErrorKind::Busy, code::DISK_BUSY));
        assert!(refused(ErrorKind::Unavailable, code::DISK_FAULT));
        assert!(!refused(ErrorKind::Unavailable, code::DISK_MISSING));
        assert!(!refused(ErrorKind::NotFound, code::NO_FRAGMENT));
    }

    #[test]
    fn a_difference_is_as_long_as_the_longest_list_of_its_names() {
        let cell = |index| CellName {
            slot: Slot::new(1).unwrap(),
            profile: ProfileId::Dev,
            leading: 3,
            index,
        };
        let slots = Slots::from([(cell(0).slot, BirthEpoch(3))]);
        let mut compared = Compared::default();
        for (disk, index, count) in [(1, 0, Some(5)), (2, 1, Some(40)), (3, 2, Some(6)), (4, 3, None)] {
            let told = Told::from([(cell(index), count.map(|count| IdSum { count, sum: 7 }))]);
            compared.note(DiskId(disk), &Expected::default(), &told, &slots);
        }
        let difference = compared.differences.remove(&(ProfileId::Dev, 3)).unwrap();
        assert_eq!(difference.slots[&cell(0).slot], (BirthEpoch(3), 40));
        assert_eq!(difference.disks.len(), 4);
    }

    #[test]
    fn parts_of_a_placement_group_become_one_sum() {
        let part = |pg, id| PgSum {
            slot: Slot::new(1).unwrap(),
            profile: ProfileId::Dev,
            pg,
            all: IdSum::of(StripeId(id)),
            astray: vec![AstraySum {
                index: 2,
                disk: Some(DiskId(7)),
                sum: IdSum::of(StripeId(id)),
            }],
        };
        let mut sums = Vec::new();
        for (pg, id) in [(4, 1), (4, 2), (5, 3)] {
            add_up(&mut sums, part(pg, id));
        }
        let both = IdSum::of(StripeId(1)).plus(IdSum::of(StripeId(2)));
        let told: Vec<_> = sums.iter().map(|sum| (sum.pg, sum.all, sum.astray.len())).collect();
        assert_eq!(told, [(4, both, 2), (5, IdSum::of(StripeId(3)), 1)]);
    }
}
