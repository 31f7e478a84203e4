//! The part of the check that looks at old versions: every one is there, is not the current one, and lies under the age since when.
//!
//! A version without a row is one of an earlier release; behind one that has a row there is none.

use super::{Complaints, expect, first_u64, rows, table};
use crate::state::entry;
use crate::state::keys;
use crate::state::store::Outcome;
use crate::state::version::VersionRecord;
use bytes::Bytes;
use kv::seam::KvRead;
use model::id::DriveId;
use model::time::Age;
use std::collections::{BTreeMap, BTreeSet};

/// Checks one drive's old versions.
pub(super) fn check(kv: &dyn KvRead, id: DriveId, complaints: &mut Complaints) -> Outcome<()> {
    let mut ages: BTreeMap<(u64, u64), Age> = BTreeMap::new();
    for (key, since) in table::<Age>(kv, id, keys::OLD_SINCE)? {
        ages.insert((first_u64(&key), keys::last_u64(&key)), since);
    }
    let by_age = ages
        .iter()
        .map(|((entry, number), since)| keys::old_version(id, since.0, *entry, *number));
    let (wanted, found): (BTreeSet<Bytes>, BTreeSet<Bytes>) =
        (by_age.collect(), rows(kv, id, keys::OLD_VERSION)?.into_iter().collect());
    expect(complaints, wanted == found, || {
        format!("old versions of drive {id} go otherwise than they grew old")
    });
    let mut last: Option<(u64, Age)> = None;
    for (key, _) in table::<VersionRecord>(kv, id, keys::VERSION)? {
        let (entry, number) = (first_u64(&key), keys::last_u64(&key));
        let current = entry::find(kv, id, entry)?.map_or(0, |record| record.shown.version);
        let before = last.filter(|(of, _)| *of == entry).map(|(_, since)| since);
        match ages.remove(&(entry, number)) {
            Some(since) => {
                let is_old = number < current && before.is_none_or(|before| before <= since);
                expect(complaints, is_old, || {
                    format!("version {number} of entry {entry} is not old or grew old out of turn")
                });
                last = Some((entry, since));
            }
            None => {
                let is_young = number == current || before.is_none();
                expect(complaints, is_young, || {
                    format!("version {number} of entry {entry} never grows old")
                });
            }
        }
    }
    expect(complaints, ages.is_empty(), || {
        format!("versions of drive {id} grow old that are not there: {ages:?}")
    });
    Ok(())
}
