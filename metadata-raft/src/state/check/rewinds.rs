//! The rewinds' part of the check: a job while one is under way, an end from then on, a list without holes.

use super::{Complaints, expect, first_u64, rows, table};
use crate::state::job::{JobKind, JobRecord};
use crate::state::keys;
use crate::state::rewind;
use crate::state::store::Outcome;
use kv::seam::KvRead;
use model::id::DriveId;
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn check(kv: &dyn KvRead, drive: DriveId, complaints: &mut Complaints) -> Outcome<()> {
    let jobs: BTreeSet<u64> = table::<JobRecord>(kv, drive, keys::JOB)?
        .iter()
        .filter(|(_, job)| job.kind == JobKind::Rewind)
        .map(|(key, _)| keys::last_u64(key))
        .collect();
    let ended: Vec<u64> = rows(kv, drive, keys::REWIND_END)?
        .iter()
        .map(|key| keys::last_u64(key))
        .collect();
    let mut listed: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for key in rows(kv, drive, keys::REWIND_ITEM)? {
        listed.entry(first_u64(&key)).or_default().push(keys::last_u64(&key));
    }
    let known: BTreeMap<u64, _> = rewind::all(kv, drive)?.into_iter().collect();
    for (job, record) in &known {
        let ends = ended.iter().filter(|ended| *ended == job).count();
        let is_sound = record.is_under_way() == jobs.contains(job) && record.is_under_way() == (ends == 0) && ends <= 1;
        expect(complaints, is_sound, || {
            format!("rewind {job} of drive {drive} is neither under way nor ended")
        });
        let items = listed.remove(job).unwrap_or_default();
        expect(complaints, items.into_iter().eq(0..record.counts.listed), || {
            format!("the list of rewind {job} of drive {drive} has a hole")
        });
    }
    expect(complaints, jobs.iter().all(|job| known.contains_key(job)), || {
        format!("drive {drive} has a job of a rewind that is none")
    });
    expect(complaints, listed.keys().all(|job| ended.contains(job)), || {
        format!("drive {drive} keeps the list of a rewind that is none")
    });
    Ok(())
}
