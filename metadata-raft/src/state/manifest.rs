//! Reading a manifest: a version's blocks with their places, for a byte range; or their names alone, by row.

use crate::state::block::{self, StoredPlace};
use crate::state::drive::DriveRecord;
use crate::state::entry;
use crate::state::page;
use crate::state::store::{Outcome, require};
use crate::state::stripe;
use crate::state::version;
use kv::seam::KvRead;
use model::entry::{BlockPlace, PlacedBlock, PlacedStripe};
use model::id::{BlockId, DriveId, EntryId};
use model::profile::ProfileId;
use model::stripe::StripeId;
use protocol::codes;
use protocol::metadata::query::{MANIFEST_BLOCKS_MAX, Manifest, ManifestBlock, VersionRows};
use protocol::metadata::upload::ANNOUNCED_ROWS_MAX;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

type Stripes = BTreeMap<(ProfileId, StripeId), PlacedStripe>;

/// The blocks of a version that overlap `range` (first byte and the one behind the last), at most `MANIFEST_BLOCKS_MAX`.
pub(crate) fn read(
    kv: &dyn KvRead,
    drive: &DriveRecord,
    entry: EntryId,
    number: Option<u64>,
    range: Option<(u64, u64)>,
) -> Outcome<Manifest> {
    let walk = entry::walk(kv, entry)?;
    require(!walk.record().is_folder(), &codes::NOT_A_FILE)?;
    let number = number.unwrap_or(walk.record().shown.version);
    let record = version::find(kv, drive.drive, entry.number, number)?.ok_or(&codes::VERSION_NOT_FOUND)?;
    let (from, to) = range.unwrap_or((0, record.size));
    require(from <= to && to <= record.size, &codes::BAD_RANGE)?;
    let mut stripes = Stripes::new();
    let mut blocks = Vec::new();
    let mut next_offset = None;
    let mut page_start = 0_u64;
    'pages: for page in &record.pages {
        let page_end = page_start.saturating_add(page.bytes);
        if page_end > from && page_start < to {
            let mut offset = page_start;
            for (block, size) in page::rows(kv, drive.drive, page.digest)? {
                let end = offset.saturating_add(u64::from(size));
                if end > from && offset < to {
                    if blocks.len() == MANIFEST_BLOCKS_MAX {
                        next_offset = Some(offset);
                        break 'pages;
                    }
                    blocks.push(ManifestBlock {
                        offset,
                        block: place(kv, drive.drive, block, &mut stripes)?,
                    });
                }
                offset = end;
            }
        }
        page_start = page_end;
    }
    Ok(Manifest {
        view: walk.view(),
        version: record.version(),
        drive: drive.facts(),
        blocks,
        stripes: stripes.into_values().collect(),
        next_offset,
    })
}

/// The rows of a version's list of blocks from the row `first` on, at most `ANNOUNCED_ROWS_MAX`.
pub(crate) fn rows(kv: &dyn KvRead, entry: EntryId, number: Option<u64>, first: u64) -> Outcome<VersionRows> {
    let walk = entry::walk(kv, entry)?;
    require(!walk.record().is_folder(), &codes::NOT_A_FILE)?;
    let number = number.unwrap_or(walk.record().shown.version);
    let record = version::find(kv, entry.drive, entry.number, number)?.ok_or(&codes::VERSION_NOT_FOUND)?;
    let mut rows = Vec::new();
    let mut count = 0_u64;
    for page in &record.pages {
        let before = count;
        count = count.saturating_add(u64::from(page.blocks));
        if count <= first || rows.len() >= ANNOUNCED_ROWS_MAX {
            continue;
        }
        let skipped = usize::try_from(first.saturating_sub(before)).unwrap_or(usize::MAX);
        let room = ANNOUNCED_ROWS_MAX - rows.len();
        for (block, _) in page::rows(kv, entry.drive, page.digest)?
            .into_iter()
            .skip(skipped)
            .take(room)
        {
            rows.push(block::get(kv, entry.drive, block)?.row);
        }
    }
    Ok(VersionRows {
        version: record.version(),
        count,
        rows,
    })
}

fn place(kv: &dyn KvRead, drive: DriveId, id: BlockId, stripes: &mut Stripes) -> Outcome<PlacedBlock> {
    let record = block::get(kv, drive, id)?;
    let place = match record.place {
        StoredPlace::Inline => BlockPlace::Inline(block::inline(kv, drive, id)?),
        StoredPlace::Stripe {
            profile,
            stripe,
            offset,
            sealed_bytes,
        } => {
            if let Entry::Vacant(vacant) = stripes.entry((profile, stripe)) {
                vacant.insert(stripe::get(kv, profile, stripe)?.placed(profile, stripe));
            }
            BlockPlace::Stripe {
                stripe,
                offset,
                sealed_bytes,
            }
        }
    };
    Ok(PlacedBlock {
        id,
        row: record.row,
        place,
    })
}
