//! The copies' part of the check: a job and a root of its own, out of sight, while one is under way; nothing of it else.

use super::{Complaints, expect, table};
use crate::state::copy_job;
use crate::state::entry::{self, Standing};
use crate::state::job::{JobKind, JobRecord};
use crate::state::keys;
use crate::state::query::all_entries;
use crate::state::store::Outcome;
use kv::seam::KvRead;
use model::id::DriveId;
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn check(kv: &dyn KvRead, drive: DriveId, complaints: &mut Complaints) -> Outcome<()> {
    let jobs: BTreeSet<u64> = table::<JobRecord>(kv, drive, keys::JOB)?
        .iter()
        .filter(|(_, job)| job.kind == JobKind::Copy)
        .map(|(key, _)| keys::last_u64(key))
        .collect();
    let known: BTreeMap<u64, _> = copy_job::all(kv, drive)?.into_iter().collect();
    for (job, record) in &known {
        expect(complaints, record.is_under_way() == jobs.contains(job), || {
            format!("copy {job} of drive {drive} is under way without a job, or has one beyond its end")
        });
        let root = entry::find(kv, drive, record.root)?;
        let is_hidden = root.is_some_and(|root| root.standing == Standing::Detached { job: *job });
        expect(complaints, is_hidden || !record.is_under_way(), || {
            format!("copy {job} of drive {drive} has no root of its own")
        });
    }
    expect(complaints, jobs.iter().all(|job| known.contains_key(job)), || {
        format!("drive {drive} has a job of a copy that is none")
    });
    let roots: BTreeSet<u64> = known.values().map(|record| record.root).collect();
    for record in all_entries(kv, drive)? {
        if let Standing::Detached { job } = record.standing {
            let number = record.shown.number;
            expect(complaints, !jobs.contains(&job) || roots.contains(&number), || {
                format!("entry {number} of drive {drive} is held by the copy {job} and is not its root")
            });
        }
    }
    Ok(())
}
