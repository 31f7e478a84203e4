//! Versions of files.
//!
//! Invariants: (entry, version) is unique; numbers count up from 1; a version holds each of its pages once for each time it names it.

use crate::state::keys;
use crate::state::store::{Outcome, load, save};
use kv::overlay::Overlay;
use kv::seam::{KvRead, Scan};
use model::digest::Digest;
use model::entry::Version;
use model::id::{DeviceId, DriveId, UserId};
use model::time::WallTime;
use serde::{Deserialize, Serialize};
use std::ops::Bound;

/// A page in a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PageRef {
    pub(crate) digest: Digest,
    pub(crate) blocks: u16,
    pub(crate) bytes: u64,
}

/// One content of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VersionRecord {
    pub(crate) number: u64,
    pub(crate) size: u64,
    pub(crate) digest: Digest,
    pub(crate) created_at: WallTime,
    pub(crate) created_by: UserId,
    pub(crate) device: Option<DeviceId>,
    pub(crate) pages: Vec<PageRef>,
}

impl VersionRecord {
    pub(crate) fn version(&self) -> Version {
        Version {
            number: self.number,
            size: self.size,
            digest: self.digest,
            created_at: self.created_at,
            created_by: self.created_by,
            device: self.device,
        }
    }
}

pub(crate) fn find(kv: &dyn KvRead, drive: DriveId, entry: u64, number: u64) -> Outcome<Option<VersionRecord>> {
    load(kv, &keys::version(drive, entry, number))
}

pub(crate) fn put(tx: &mut Overlay<'_>, drive: DriveId, entry: u64, record: &VersionRecord) -> Outcome<()> {
    save(tx, keys::version(drive, entry, record.number), record)
}

/// Versions below `before`, newest first.
pub(crate) fn newest_first(
    kv: &dyn KvRead,
    drive: DriveId,
    entry: u64,
    before: Option<u64>,
    rows_max: usize,
) -> Outcome<Vec<Version>> {
    let mut scan = Scan::prefix(&keys::versions(drive, entry).done(), rows_max);
    scan.is_reverse = true;
    if let Some(before) = before {
        scan.to = Bound::Excluded(keys::version(drive, entry, before));
    }
    let rows = kv.scan(&scan)?;
    rows.iter()
        .map(|(key, bytes)| Ok(crate::state::store::decode::<VersionRecord>(key, bytes)?.version()))
        .collect()
}
