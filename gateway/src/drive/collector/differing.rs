//! Where sums differ names are taken from both sides: what a disk has beside may be an orphan, what no disk has may be missing.
//!
//! What a disk has and the group did not name is brought before the group once more (`orphans`). What the group names and no disk named
//! where it should lie is asked for by name where it may lie by the newest rows, and then of the group a second time; only what is left
//! is missing, which is counted and told, and repaired by nobody yet.
//! Invariants: only names of the cells that were asked for count; what nobody can say of, or nobody came to, is not missing; a failure
//! leaves out one difference.
//! Not here: which cells differ (`inventory`), which stripes are orphans (the group's state), repair.

use super::expected::places;
use super::inventory::{Compared, Round, Slots, going_on};
use super::node_in_use;
use crate::drive::Core;
use crate::drive::directory::Known;
use crate::drive::metadata_client::unexpected;
use futures_util::stream::{self, StreamExt};
use model::error_kind::ErrorKind;
use model::id::{DiskId, GroupId, Slot};
use model::inventory::leading;
use model::profile::ProfileId;
use model::stripe::{FragmentName, StripeId};
use model::time::BirthEpoch;
use protocol::frame::Method;
use protocol::metadata::inventory::{ListStripes, ListedStripe};
use protocol::metadata::{Query, QueryAnswer};
use protocol::node::{CellFragments, FragmentRead, ListCells, ReadFragment, code};
use protocol::wire_error::Failure;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Differences of a group that are looked at side by side, and how long each waits before: they take a small share of the disks. Guess.
const LOOKS_AT_ONCE: usize = 4;
const PAUSE: Duration = Duration::from_millis(10);
/// Disks that are asked for the names of one difference side by side.
const DISKS_AT_ONCE: usize = 8;
/// Disks whose questions are made ready together.
const DISKS_READY: usize = 16 * DISKS_AT_ONCE;
/// Stripes whose names are held together, where they are of several slots: some ten megabytes. Guess.
const STRIPES_AT_ONCE: u64 = 20_000;
/// Names of disks that are listed side by side by all groups of an inventory: about one list for each disk, never fewer than the first
/// and never more than the second. Each reads a part of a disk's index. Guess.
const LISTS_MIN: usize = 8;
const LISTS_MAX: usize = 256;
/// Fragments that an inventory asks for by name of each group, each a look into an index; of more it says that it is not whole. Guess.
const LOOKED_FOR_MAX: u64 = 100_000;

/// How many lists of names may run side by side in a cluster of so many disks.
pub(super) fn lists_at_once(disks: usize) -> usize {
    disks.clamp(LISTS_MIN, LISTS_MAX)
}

/// Stripes of a profile whose ids begin with the same bits, where disks hold something else than they should.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// Each with the epoch up to which it is compared, and how many stripes are of it.
    pub(super) slots: BTreeMap<Slot, (BirthEpoch, u64)>,
    pub(super) disks: BTreeSet<DiskId>,
}

impl Difference {
    /// Its slots in parts of so many stripes together, or of one slot.
    fn parts(&self, stripes_max: u64) -> Vec<Slots> {
        let (mut parts, mut part, mut held) = (Vec::new(), Slots::new(), 0_u64);
        for (slot, (born_by, stripes)) in &self.slots {
            if !part.is_empty() && held.saturating_add(*stripes) > stripes_max {
                parts.push(std::mem::take(&mut part));
                held = 0;
            }
            part.insert(*slot, *born_by);
            held = held.saturating_add(*stripes);
        }
        if !part.is_empty() {
            parts.push(part);
        }
        parts
    }
}

/// A part of a difference that is looked at.
struct Look<'a> {
    profile: ProfileId,
    leading: u8,
    slots: Slots,
    disks: &'a BTreeSet<DiskId>,
}

impl Look<'_> {
    fn is_of(&self, name: &FragmentName) -> bool {
        let born_by = self.slots.get(&name.stripe.slot());
        (name.profile, leading(name.stripe)) == (self.profile, self.leading)
            && born_by.is_some_and(|born_by| name.stripe.born() <= *born_by)
    }

    /// The question for the stripes of those of its slots.
    fn stripes_of(&self, is_asked: impl Fn(Slot) -> bool) -> ListStripes {
        let slots = self.slots.iter().filter(|(slot, _)| is_asked(**slot));
        ListStripes {
            profile: self.profile,
            leading: self.leading,
            slots: slots.map(|(slot, by)| (*slot, *by)).collect(),
            after: None,
        }
    }
}

/// Names by the disks that told them.
#[derive(Default)]
struct Held {
    names: BTreeMap<DiskId, BTreeSet<FragmentName>>,
    /// Disks that did not answer.
    silent: BTreeSet<DiskId>,
}

impl Held {
    /// The disks that a fragment has to be asked for by name; `None` when it lies where it may, or when one of its disks cannot say.
    ///
    /// `compared` is where it may lie by the rows that sums were compared by, `newest` where by the newest ones.
    fn looks(
        &self,
        name: &FragmentName,
        compared: &[DiskId],
        newest: &[DiskId],
        is_known: impl Fn(DiskId) -> bool,
    ) -> Option<BTreeSet<DiskId>> {
        // Where nothing differs everything lies that is counted there, and it is counted at its first place.
        let first = compared.first()?;
        if !self.names.contains_key(first) {
            return None;
        }
        let at: BTreeSet<DiskId> = compared.iter().chain(newest).copied().collect();
        let has = |disk: &DiskId| self.names.get(disk).is_some_and(|names| names.contains(name));
        let may_lie = |disk: &DiskId| has(disk) || self.silent.contains(disk) || !is_known(*disk);
        (!at.iter().any(may_lie)).then_some(at)
    }
}

/// What names said.
struct Seen {
    is_whole: bool,
    silent_disks: BTreeSet<DiskId>,
    missing: u64,
    orphans: u64,
}

impl Core {
    /// Looks at all differences of a group and notes what they were.
    pub(super) async fn look_at_differences(&self, round: &Round, group: GroupId, compared: &mut Compared) {
        let differences = std::mem::take(&mut compared.differences);
        let away = compared.silent_disks.clone();
        let mut looks = Vec::new();
        for ((profile, leading), difference) in &differences {
            for slots in difference.parts(STRIPES_AT_ONCE) {
                looks.push(Look {
                    profile: *profile,
                    leading: *leading,
                    slots,
                    disks: &difference.disks,
                });
            }
        }
        let seen = looks.iter().map(|look| self.look_into(round, group, look, &away));
        let seen: Vec<_> = seen.collect();
        let mut seen = stream::iter(seen).buffer_unordered(LOOKS_AT_ONCE);
        while let Some(seen) = seen.next().await {
            match seen {
                Ok(seen) => {
                    compared.found.is_whole &= seen.is_whole;
                    compared.found.missing += seen.missing;
                    compared.found.orphans += seen.orphans;
                    compared.silent_disks.extend(seen.silent_disks);
                }
                Err(failure) => {
                    tracing::debug!(%group, %failure, "a difference was not looked at");
                    compared.found.is_whole = false;
                }
            }
        }
    }

    /// Names decide. The disks are asked first, so that a stripe which the group then names was there before.
    async fn look_into(
        &self,
        round: &Round,
        group: GroupId,
        look: &Look<'_>,
        away: &BTreeSet<DiskId>,
    ) -> Result<Seen, Failure> {
        self.seams.clock.sleep(PAUSE).await;
        let held = self.names_on_disks(round, look, away).await;
        let stripes = self.stripes_of_group(group, look.stripes_of(|_| true)).await?;
        let (missing, is_whole) = self
            .count_missing(round, group, look, (stripes.as_slice(), &held))
            .await;
        let mut seen = Seen {
            is_whole,
            silent_disks: BTreeSet::new(),
            missing,
            orphans: 0,
        };
        let known: BTreeSet<StripeId> = stripes.iter().map(|listed| listed.stripe).collect();
        let mut unnamed = BTreeSet::new();
        for (disk, names) in &held.names {
            if let Some(node) = node_in_use(&round.known.map, *disk) {
                let strays = names.iter().filter(|name| !known.contains(&name.stripe));
                unnamed.extend(strays.map(|name| (node, (look.profile, name.stripe))));
            }
        }
        match self.remove_orphans(round, group, &unnamed).await {
            Ok(orphans) => seen.orphans = orphans,
            Err(failure) => {
                tracing::debug!(%group, %failure, "a group was not asked for orphans");
                seen.is_whole = false;
            }
        }
        seen.silent_disks = held.silent;
        Ok(seen)
    }

    async fn names_on_disks(&self, round: &Round, look: &Look<'_>, away: &BTreeSet<DiskId>) -> Held {
        let mut held = Held {
            silent: away.clone(),
            ..Held::default()
        };
        let disks: Vec<DiskId> = look.disks.iter().copied().collect();
        for ready in disks.chunks(DISKS_READY) {
            let asks = ready.iter().copied();
            let asks = asks.map(|disk| async move { (disk, self.names_on_disk(round, look, disk).await) });
            let asks: Vec<_> = asks.collect();
            let mut answers = stream::iter(asks).buffer_unordered(DISKS_AT_ONCE);
            while let Some((disk, names)) = answers.next().await {
                match names {
                    Some(names) => {
                        held.names.insert(disk, names);
                    }
                    None => {
                        held.silent.insert(disk);
                    }
                }
            }
        }
        held
    }

    /// The names on a disk; none for one that is out, `None` when it does not answer or is not known yet.
    async fn names_on_disk(&self, round: &Round, look: &Look<'_>, disk: DiskId) -> Option<BTreeSet<FragmentName>> {
        let mut names = BTreeSet::new();
        round.known.map.disks.get(&disk)?;
        if node_in_use(&round.known.map, disk).is_none() {
            return Some(names);
        }
        let _seat = round.lists.acquire().await.ok()?;
        let mut request = ListCells {
            disk,
            profile: look.profile,
            leading: look.leading,
            slots: look.slots.iter().map(|(slot, by)| (*slot, *by)).collect(),
            after: None,
        };
        loop {
            let (known, silent) = (&round.known, &round.silent);
            let part = self.call_disk::<CellFragments>((known, silent), disk, Method::ListCells, &request);
            let part = part.await?.ok()?;
            names.extend(part.names.into_iter().filter(|name| look.is_of(name)));
            request.after = going_on(request.after.as_ref(), part.next, |name| *name).ok()?;
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
            ask.after = going_on(ask.after.as_ref(), part.next, |id| (id.slot(), *id))?;
            if ask.after.is_none() {
                return Ok(stripes);
            }
        }
    }

    /// How many fragments of these stripes are missing, and whether all of them were looked for.
    async fn count_missing(
        &self,
        round: &Round,
        group: GroupId,
        look: &Look<'_>,
        (stripes, held): (&[ListedStripe], &Held),
    ) -> (u64, bool) {
        let (mut lacking, mut is_whole) = (Vec::new(), true);
        for listed in stripes {
            let (missing, is_looked_for) = self.look_for(round, look.profile, listed, held).await;
            is_whole &= is_looked_for;
            if missing > 0 {
                lacking.push((listed, missing));
            }
        }
        if lacking.is_empty() {
            return (0, is_whole);
        }
        // Since the list was made a stripe may have died, or a fragment of it may have been noted elsewhere.
        let slots: BTreeSet<Slot> = lacking.iter().map(|(listed, _)| listed.stripe.slot()).collect();
        let ask = look.stripes_of(|slot| slots.contains(&slot));
        let still = match self.stripes_of_group(group, ask).await {
            Ok(still) => still,
            Err(failure) => {
                tracing::debug!(%group, %failure, "a group was not asked again for stripes that lack fragments");
                return (0, false);
            }
        };
        (still_missing(&lacking, &still), is_whole)
    }

    /// How many fragments of a stripe lie nowhere, as far as disks have told, and whether all of them were looked for.
    async fn look_for(&self, round: &Round, profile: ProfileId, listed: &ListedStripe, held: &Held) -> (u64, bool) {
        let stripe = listed.stripe;
        let Some(row) = round.known.layout.row(profile, stripe) else {
            return (0, true);
        };
        // Fragments may have moved since the sums were made.
        let (newest, newest_row) = match self.directory.row(profile, stripe, 0).await {
            Ok(newest) => newest,
            Err(failure) => {
                tracing::debug!(%stripe, %failure, "a stripe has no row");
                return (0, false);
            }
        };
        let (mut missing, mut is_whole) = (0, true);
        for index in 0..profile.profile().fragments() as u8 {
            let name = FragmentName { profile, stripe, index };
            let compared = places(row, &listed.astray, index);
            let by_now = places(&newest_row, &listed.astray, index);
            let is_known = |disk: DiskId| newest.map.disks.contains_key(&disk);
            let Some(at) = held.looks(&name, &compared, &by_now, is_known) else {
                continue;
            };
            match self.may_lie(round, &newest, name, &at).await {
                Some(true) => {}
                Some(false) => {
                    tracing::debug!(%stripe, index, "a fragment is missing");
                    missing += 1;
                }
                None => is_whole = false,
            }
        }
        (missing, is_whole)
    }

    /// Whether one of these disks has the fragment by now; `None` when too many were asked for, or when none has it and one says nothing.
    async fn may_lie(&self, round: &Round, newest: &Known, name: FragmentName, at: &BTreeSet<DiskId>) -> Option<bool> {
        let in_use = |disk: &&DiskId| node_in_use(&newest.map, **disk).is_some();
        let at: Vec<DiskId> = at.iter().filter(in_use).copied().collect();
        if !at.is_empty() && round.looked_for.fetch_add(1, Ordering::Relaxed) >= LOOKED_FOR_MAX {
            return None;
        }
        let mut all_say = true;
        for disk in at {
            let request = ReadFragment {
                name,
                disk,
                ranges: Vec::new(),
            };
            let read = self.call_disk::<FragmentRead>((newest, &round.silent), disk, Method::ReadFragment, &request);
            match has_it(&read.await) {
                Some(true) => return Some(true),
                Some(false) => {}
                None => all_say = false,
            }
        }
        all_say.then_some(false)
    }
}

/// Whether a disk has the fragment that was read of it, also a damaged one; `None` when it says nothing of it.
fn has_it<T>(read: &Option<Result<T, Failure>>) -> Option<bool> {
    match read {
        None => None,
        Some(Ok(_)) => Some(true),
        Some(Err(failure)) if failure.code == code::NO_FRAGMENT => Some(false),
        Some(Err(failure)) => (failure.kind == ErrorKind::Corrupt).then_some(true),
    }
}

/// How many of these fragments are of stripes that are listed as they were.
fn still_missing(lacking: &[(&ListedStripe, u64)], still: &[ListedStripe]) -> u64 {
    let still: BTreeMap<StripeId, &ListedStripe> = still.iter().map(|listed| (listed.stripe, listed)).collect();
    let counted = lacking
        .iter()
        .filter(|(listed, _)| still.get(&listed.stripe) == Some(listed));
    counted.map(|(_, missing)| missing).sum()
}

#[cfg(test)]
mod tests {
    use super::{Difference, ErrorKind, Held, LISTS_MAX, LISTS_MIN, has_it, lists_at_once, still_missing};
    use model::id::{DiskId, Slot};
    use model::profile::ProfileId;
    use model::stripe::{Astray, FragmentName, StripeId};
    use model::time::BirthEpoch;
    use protocol::metadata::inventory::ListedStripe;
    use protocol::node::code;
    use protocol::wire_error::Failure;
    use std::collections::{BTreeMap, BTreeSet};

    const NAME: FragmentName = FragmentName {
        profile: ProfileId::Single,
        stripe: StripeId(1 << 100),
        index: 1,
    };

    /// Disks 1 to 3 named nothing, 4 named the fragment, 5 is silent; the map knows those below 9.
    fn looks(compared: &[u32], newest: &[u32]) -> Option<Vec<u32>> {
        let held = Held {
            names: BTreeMap::from([
                (DiskId(1), BTreeSet::new()),
                (DiskId(2), BTreeSet::new()),
                (DiskId(3), BTreeSet::new()),
                (DiskId(4), BTreeSet::from([NAME])),
            ]),
            silent: BTreeSet::from([DiskId(5)]),
        };
        let disks = |numbers: &[u32]| numbers.iter().copied().map(DiskId).collect::<Vec<_>>();
        let looks = held.looks(&NAME, &disks(compared), &disks(newest), |disk| disk.0 < 9);
        looks.map(|looks| looks.iter().map(|disk| disk.0).collect())
    }

    #[test]
    fn only_what_all_disks_may_have_and_none_named_is_asked_for_by_name() {
        assert_eq!(looks(&[1], &[1]), Some(vec![1]));
        // A row that changed since: a disk that was never listed is asked, as one that was.
        assert_eq!(looks(&[1, 2], &[6, 1]), Some(vec![1, 2, 6]));
        assert_eq!(looks(&[6, 1], &[1]), None, "its first place does not differ");
        assert_eq!(looks(&[1, 4], &[1]), None, "it lies where the row is filled from");
        assert_eq!(looks(&[1], &[4]), None, "it lies by the newest row");
        assert_eq!(looks(&[5], &[1]), None, "its disk is silent");
        assert_eq!(looks(&[1], &[2, 5]), None, "its new disk is silent");
        assert_eq!(looks(&[1], &[9]), None, "its new disk is not known yet");
        assert_eq!(looks(&[], &[1]), None, "it is known to be missing");
    }

    #[test]
    fn a_disk_that_says_nothing_neither_has_a_fragment_nor_lacks_it() {
        let refused = |kind, code: &str| has_it::<()>(&Some(Err(Failure::new(kind, code, "no"))));
        assert_eq!(has_it(&Some(Ok(()))), Some(true));
        assert_eq!(has_it::<()>(&None), None);
        assert_eq!(refused(ErrorKind::NotFound, code::NO_FRAGMENT), Some(false));
        assert_eq!(
            refused(ErrorKind::Corrupt, code::DAMAGED),
            Some(true),
            "what is damaged lies there"
        );
        assert_eq!(refused(ErrorKind::Unavailable, code::DISK_MISSING), None);
        assert_eq!(refused(ErrorKind::NotFound, code::UNKNOWN_DISK), None);
        assert_eq!(refused(ErrorKind::Busy, code::DISK_BUSY), None);
    }

    #[test]
    fn about_one_list_runs_for_each_disk_of_a_cluster() {
        let lists = [0, 3, LISTS_MIN, 60, LISTS_MAX, 100_000].map(lists_at_once);
        assert_eq!(lists, [LISTS_MIN, LISTS_MIN, LISTS_MIN, 60, LISTS_MAX, LISTS_MAX]);
    }

    #[test]
    fn what_died_or_was_noted_elsewhere_behind_a_list_is_not_missing() {
        let listed = |stripe, astray: Option<u32>| ListedStripe {
            stripe: StripeId(stripe),
            astray: astray
                .map(|disk| Astray {
                    index: 1,
                    disk: Some(DiskId(disk)),
                })
                .into_iter()
                .collect(),
        };
        let (kept, died, moved) = (listed(1, None), listed(2, None), listed(3, None));
        let lacking = [(&kept, 2), (&died, 1), (&moved, 1)];
        assert_eq!(still_missing(&lacking, &[listed(1, None), listed(3, Some(7))]), 2);
        assert_eq!(still_missing(&lacking, &[]), 0);
    }

    #[test]
    fn a_difference_is_looked_at_in_parts_of_whole_slots() {
        let slot = |number| Slot::new(number).unwrap();
        let stripes = [(1, 5), (2, 6), (3, 40), (4, 1), (5, 9)];
        let slots = stripes.map(|(number, stripes)| (slot(number), (BirthEpoch(3), stripes)));
        let difference = Difference {
            slots: BTreeMap::from(slots),
            disks: BTreeSet::new(),
        };
        let parts = difference.parts(11).into_iter();
        let parts: Vec<Vec<Slot>> = parts.map(|part| part.into_keys().collect()).collect();
        let expected = [&[1, 2][..], &[3], &[4, 5]];
        let expected = expected.map(|numbers| numbers.iter().copied().map(slot).collect::<Vec<_>>());
        assert_eq!(parts, expected);
        assert!(Difference::default().parts(11).is_empty());
    }
}
