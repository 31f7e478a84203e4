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
use protocol::codes;
use protocol::metadata::copy::CopyStage;
use std::collections::{BTreeMap, BTreeSet};

/// The jobs of copies that are under way.
pub(super) fn jobs(kv: &dyn KvRead, drive: DriveId) -> Outcome<BTreeSet<u64>> {
    let all = table::<JobRecord>(kv, drive, keys::JOB)?;
    let copies = all.iter().filter(|(_, job)| job.kind == JobKind::Copy);
    Ok(copies.map(|(key, _)| keys::last_u64(key)).collect())
}

pub(super) fn check(kv: &dyn KvRead, drive: DriveId, complaints: &mut Complaints) -> Outcome<()> {
    let jobs = jobs(kv, drive)?;
    let known: BTreeMap<u64, _> = copy_job::all(kv, drive)?.into_iter().collect();
    for (job, record) in &known {
        expect(complaints, record.is_under_way() == jobs.contains(job), || {
            format!("copy {job} of drive {drive} is under way without a job, or has one beyond its end")
        });
        let is_sound = record.stage != CopyStage::Stopped(codes::BUG.word.to_owned());
        expect(complaints, is_sound, || {
            format!("copy {job} of drive {drive} found what must not be: the log says what")
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
