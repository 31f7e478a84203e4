//! Reading fragments, from as many threads as like to.
//!
//! Invariants: no byte is returned that did not pass its 64 KiB checksum; the header on the disk must say what the index says.
//! A place may move while it is read (compaction), so a segment that is gone is looked up once more.
//! Not here: putting damage on the list (the writer does, so that it cannot list a fragment that was just replaced).

use super::StoreError;
use super::core::{Core, SCAN_ROWS};
use super::place_row::{self, Held, PlaceRow};
use bytes::{Bytes, BytesMut};
use codec::fragment::FragmentHeader;
use disk::{JournalError, JournalReader, Place};
use kv::seam::{Kv, Scan};
use model::id::Slot;
use model::inventory;
use model::profile::ProfileId;
use model::stripe::{FragmentName, StripeForm, StripeId};
use model::time::BirthEpoch;
use protocol::node::{ByteRange, CellFragments, Damage, FRAGMENTS_LISTED_MAX, ListCells, PayloadHash};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Times that a place is looked up when its segment is gone: compaction moved it in between, and cannot twice in one read.
const LOOKUPS_MAX: usize = 3;
/// Pages of the index that one answer with names of cells looks through: some tens of milliseconds. Guess.
const LISTED_PAGES_MAX: usize = 16;

/// What a read found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FragmentBytes {
    /// What the fragment says of its stripe.
    pub form: StripeForm,
    /// BLAKE3 of its whole payload.
    pub payload_hash: PayloadHash,
    /// The ranges, end to end in the order asked.
    pub payload: Bytes,
}

/// Why a read gave nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReadFault {
    /// Not the fragment's fault.
    Store(StoreError),
    /// What lies at `place` is not what was written.
    Damaged {
        /// Where.
        place: Place,
        /// How.
        damage: Damage,
    },
}

impl From<StoreError> for ReadFault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The reading side of a store.
#[derive(Clone)]
pub(crate) struct Reader {
    index: Arc<dyn Kv>,
    journal: JournalReader,
    /// `LOOKUPS_MAX`; fewer only where a test plants a reader that does not look again.
    pub(super) lookups_max: usize,
}

impl Core {
    /// A reader of this disk; stays valid while the core writes.
    pub(crate) fn reader(&self) -> Reader {
        Reader {
            index: Arc::clone(&self.index),
            journal: self.view.clone(),
            lookups_max: LOOKUPS_MAX,
        }
    }
}

impl Reader {
    fn row(&self, name: &FragmentName) -> Result<Option<PlaceRow>, StoreError> {
        self.index
            .get(&place_row::fragment_key(name))?
            .map(|bytes| place_row::decode(&bytes))
            .transpose()
    }

    /// See `FragmentStore::confirm`.
    pub(crate) fn confirm(&self, name: &FragmentName) -> Result<Option<StripeForm>, StoreError> {
        match self.row(name)? {
            Some(PlaceRow {
                held: Held::Fragment { form, .. },
                ..
            }) => Ok(self.index.get(&place_row::damaged_key(name))?.is_none().then_some(form)),
            _ => Ok(None),
        }
    }

    /// See `FragmentStore::fragments_of`.
    pub(crate) fn fragments_of(&self, profile: ProfileId, stripe: StripeId) -> Result<Vec<FragmentName>, StoreError> {
        let rows = self
            .index
            .scan(&Scan::prefix(&place_row::stripe_prefix(profile, stripe), 256))?;
        living_names(&rows)
    }

    /// See `FragmentStore::names_after`.
    pub(crate) fn names_after(
        &self,
        after: Option<&FragmentName>,
        rows_max: usize,
    ) -> Result<Vec<FragmentName>, StoreError> {
        let mut scan = Scan::prefix(place_row::fragment_prefix(), rows_max.min(SCAN_ROWS));
        if let Some(name) = after {
            scan = scan.after(&place_row::fragment_key(name));
        }
        loop {
            let rows = self.index.scan(&scan)?;
            let names = living_names(&rows)?;
            match rows.last() {
                // A whole page of tombstones is not the end.
                Some((key, _)) if names.is_empty() => scan = scan.after(key),
                _ => return Ok(names),
            }
        }
    }

    /// See `FragmentStore::list_cells`.
    pub(crate) fn list_cells(&self, ask: &ListCells) -> Result<CellFragments, StoreError> {
        let mut scan = Scan::prefix(&place_row::leading_prefix(ask.profile, ask.leading), SCAN_ROWS);
        if let Some(name) = &ask.after {
            if (name.profile, inventory::leading(name.stripe)) != (ask.profile, ask.leading) {
                return Err(StoreError::BadRange);
            }
            scan = scan.after(&place_row::fragment_key(name));
        }
        let slots: BTreeMap<Slot, BirthEpoch> = ask.slots.iter().copied().collect();
        let is_asked_for = |stripe: StripeId| slots.get(&stripe.slot()).is_some_and(|by| stripe.born() <= *by);
        let mut told = CellFragments {
            names: Vec::new(),
            next: None,
        };
        for _ in 0..LISTED_PAGES_MAX {
            let rows = self.index.scan(&scan)?;
            for name in living_names(&rows)? {
                if is_asked_for(name.stripe) {
                    told.names.push(name);
                    if told.names.len() == FRAGMENTS_LISTED_MAX {
                        told.next = Some(name);
                        return Ok(told);
                    }
                }
            }
            let Some((key, _)) = rows.last().filter(|_| rows.len() == SCAN_ROWS) else {
                told.next = None;
                return Ok(told);
            };
            told.next = place_row::name_of(key);
            scan = scan.after(key);
        }
        Ok(told)
    }

    /// Bytes of all segments.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.journal.segments().iter().map(|segment| segment.synced_bytes).sum()
    }

    /// Reads `ranges` of a fragment.
    pub(crate) fn read(&self, name: &FragmentName, ranges: &[ByteRange]) -> Result<FragmentBytes, ReadFault> {
        self.with_place(name, |place, form, payload_hash| {
            let fragment_bytes = form.fragment_bytes() as u64;
            let fits =
                |range: &ByteRange| range.len > 0 && u64::from(range.offset) + u64::from(range.len) <= fragment_bytes;
            if !ranges.iter().all(fits) {
                return Err(Fault::Other(StoreError::BadRange));
            }
            let header = self.header(name, place, &form, &payload_hash)?;
            let mut parts = Vec::with_capacity(ranges.len());
            for range in ranges {
                parts.push(self.checked_part(place, &header, range)?);
            }
            let payload = match parts.len() {
                1 => parts.swap_remove(0),
                // Several ranges travel as one payload, so they are copied together: they are blocks of one stripe, few and small.
                _ => {
                    let mut joined = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
                    parts.iter().for_each(|part| joined.extend_from_slice(part));
                    joined.freeze()
                }
            };
            Ok(FragmentBytes {
                form,
                payload_hash,
                payload,
            })
        })
    }

    /// Reads and checks everything of a fragment; its place when it is whole, `None` when it is not there (any more).
    pub(crate) fn check_whole(&self, name: &FragmentName) -> Result<Option<Place>, ReadFault> {
        let checked = self.with_place(name, |place, form, payload_hash| {
            let header = self.header(name, place, &form, &payload_hash)?;
            let content = self
                .journal
                .payload_range(*place, header.header_bytes() as u32..place.len_bytes)?;
            header.verify(&content).map_err(|_| Fault::Damaged(Damage::Payload))?;
            Ok(*place)
        });
        match checked {
            Ok(place) => Ok(Some(place)),
            Err(ReadFault::Store(StoreError::NotFound)) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    fn with_place<T>(
        &self,
        name: &FragmentName,
        mut attempt: impl FnMut(&Place, StripeForm, PayloadHash) -> Result<T, Fault>,
    ) -> Result<T, ReadFault> {
        let mut last = None;
        for _ in 0..self.lookups_max {
            let Some(PlaceRow {
                place,
                held: Held::Fragment { form, payload_hash },
                ..
            }) = self.row(name)?
            else {
                return Err(StoreError::NotFound.into());
            };
            if last == Some(place) {
                // The same place twice: it did not move, it is gone.
                return Err(ReadFault::Damaged {
                    place,
                    damage: Damage::Unreadable,
                });
            }
            match attempt(&place, form, payload_hash) {
                Ok(value) => return Ok(value),
                Err(Fault::Gone) => last = Some(place),
                Err(Fault::Damaged(damage)) => return Err(ReadFault::Damaged { place, damage }),
                Err(Fault::Other(error)) => return Err(error.into()),
            }
        }
        Err(StoreError::Fault("the fragment moved with every look".to_owned()).into())
    }

    fn header(
        &self,
        name: &FragmentName,
        place: &Place,
        form: &StripeForm,
        payload_hash: &PayloadHash,
    ) -> Result<FragmentHeader, Fault> {
        let front_bytes = (place.len_bytes as usize)
            .checked_sub(form.fragment_bytes())
            .ok_or(Fault::Damaged(Damage::Header))?;
        let front = self.journal.payload_range(*place, 0..front_bytes as u32)?;
        let header = FragmentHeader::from_bytes(&front).map_err(|_| Fault::Damaged(Damage::Header))?;
        let is_the_one = header.name() == *name && header.form() == form && header.payload_hash() == &payload_hash.0;
        if is_the_one {
            Ok(header)
        } else {
            Err(Fault::Damaged(Damage::Header))
        }
    }

    fn checked_part(&self, place: &Place, header: &FragmentHeader, range: &ByteRange) -> Result<Bytes, Fault> {
        let wanted = range.offset as usize..range.offset as usize + range.len as usize;
        let edges = header.checked_range(wanted.clone());
        let front_bytes = header.header_bytes();
        let bytes = self.journal.payload_range(
            *place,
            (front_bytes + edges.start) as u32..(front_bytes + edges.end) as u32,
        )?;
        header
            .verify_range(edges.clone(), &bytes)
            .map_err(|_| Fault::Damaged(Damage::Payload))?;
        Ok(bytes.slice(wanted.start - edges.start..wanted.end - edges.start))
    }
}

enum Fault {
    Gone,
    Damaged(Damage),
    Other(StoreError),
}

impl From<JournalError> for Fault {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::NotFound { .. } => Self::Gone,
            JournalError::Corrupt { .. } => Self::Damaged(Damage::Header),
            JournalError::Disk(disk::DiskError::ShortRead { .. }) => Self::Damaged(Damage::Header),
            // The device refuses these very bytes, or everything: the list is for what a repair should look at.
            JournalError::Disk(disk::DiskError::Io(_)) => Self::Damaged(Damage::Unreadable),
            other => Self::Other(other.into()),
        }
    }
}

fn living_names(rows: &[(Bytes, Bytes)]) -> Result<Vec<FragmentName>, StoreError> {
    let mut names = Vec::with_capacity(rows.len());
    for (key, value) in rows {
        let row: PlaceRow = place_row::decode(value)?;
        if matches!(row.held, Held::Fragment { .. }) {
            let name = place_row::name_of(key)
                .ok_or_else(|| StoreError::IndexDamaged("key of a fragment does not read".to_owned()))?;
            names.push(name);
        }
    }
    Ok(names)
}
