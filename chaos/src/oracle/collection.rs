//! The promise of collection (decisions 0018, 0040 and 0049): nothing that somebody may still want is removed, and what nobody wants is gone
//! after two graces, but for a thousandth of what is there.
//!
//! Given what users were told (`ledger`) and what a world at rest shows: every version that is listed reads back whole, with a
//! content that somebody wrote there; every file that nobody asked to remove is there with the versions that its drive keeps; what was
//! acknowledged as removed stays away; metadata agrees with itself, its queues are empty and disks hold nothing else.
//! Not here: reading and counting (`world::turnover`, `world::census`).

use crate::world::census::Census;
use crate::world::history::Tag;
use crate::world::ledger::{Fate, File};
use model::id::EntryId;
use std::collections::BTreeMap;

/// A version as it was read: whose content it is, or why it did not read.
pub type Found = Result<Tag, String>;

/// Of the bytes on disks one in so many may be nobody's.
const LEAK_PART: u64 = 1000;

/// What a world at rest shows.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Every file in the tree, in the trash or in the ledger that is there, with all versions that are listed.
    pub files: BTreeMap<EntryId, BTreeMap<u64, Found>>,
    /// Stripes, queues and fragments.
    pub census: Census,
}

/// What is violated. A drive keeps `versions_max` versions of each file.
#[must_use]
pub fn violations(promised: &BTreeMap<EntryId, File>, findings: &Findings, versions_max: u32) -> Vec<String> {
    let mut violations = Vec::new();
    for (entry, versions) in &findings.files {
        for (version, found) in versions {
            if let Err(why) = found {
                violations.push(format!("entry {entry} version {version} is lost: {why}"));
            }
        }
    }
    for (entry, file) in promised {
        let found = findings.files.get(entry);
        match (file.fate, found) {
            (Fate::Kept, None) => violations.push(format!("entry {entry} is lost: nobody removed it")),
            (Fate::Gone, Some(_)) => violations.push(format!("entry {entry} was removed for good and is there")),
            (_, Some(found)) => of_file(*entry, file, found, versions_max, &mut violations),
            (_, None) => {}
        }
    }
    of_rest(&findings.census, &mut violations);
    violations
}

fn of_file(entry: EntryId, file: &File, found: &BTreeMap<u64, Found>, versions_max: u32, violations: &mut Vec<String>) {
    let Some((newest, _)) = found.last_key_value() else {
        violations.push(format!("entry {entry} is lost: it has no version"));
        return;
    };
    for (version, tag) in &file.versions {
        let is_kept = version.saturating_add(u64::from(versions_max)) > *newest;
        match found.get(version) {
            Some(Ok(read)) if read != tag => {
                violations.push(format!(
                    "entry {entry} version {version} is lost: content {read} instead of {tag}"
                ));
            }
            None if is_kept => violations.push(format!("entry {entry} version {version} is lost: it is not listed")),
            _ => {}
        }
    }
    for (version, read) in found {
        if let Ok(read) = read
            && !file.tags.contains(read)
        {
            violations.push(format!(
                "entry {entry} version {version} reads as {read}, which nobody wrote there"
            ));
        }
    }
}

fn of_rest(census: &Census, violations: &mut Vec<String>) {
    violations.extend(census.complaints.iter().cloned());
    let waits = |what: &String| format!("waits for ever: {what} after two graces");
    violations.extend(census.waiting.iter().map(waits));
    if census.missing > 0 {
        let missing = census.missing;
        violations.push(format!("{missing} fragments that groups count on lie on no disk"));
    }
    if census.leaked_bytes.saturating_mul(LEAK_PART) > census.living_bytes {
        violations.push(format!(
            "leak: {} of {} bytes are nobody's after two graces: {}",
            census.leaked_bytes,
            census.living_bytes,
            census.leaks.join("; ")
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::{Findings, Found, violations};
    use crate::world::census::Census;
    use crate::world::ledger::{Fate, File};
    use model::id::{DriveId, EntryId};
    use std::collections::{BTreeMap, BTreeSet};

    const ENTRY: EntryId = EntryId {
        drive: DriveId(1),
        number: 5,
    };

    /// How many violations there are of a file with versions 1 to 3 of which two are kept, found as `versions`.
    fn count(fate: Fate, versions: Option<&[(u64, Found)]>) -> usize {
        let mut file = File::of(BTreeSet::from([11, 12, 13]));
        file.versions = BTreeMap::from([(1, 11), (2, 12), (3, 13)]);
        file.fate = fate;
        let found = versions.map(|versions| (ENTRY, versions.iter().cloned().collect()));
        let findings = Findings {
            files: found.into_iter().collect(),
            census: Census::default(),
        };
        violations(&BTreeMap::from([(ENTRY, file)]), &findings, 2).len()
    }

    #[test]
    fn a_version_that_is_lost_late_or_another_is_seen_and_one_that_may_be_gone_is_not_asked_for() {
        let whole: &[(u64, Found)] = &[(2, Ok(12)), (3, Ok(13))];
        assert_eq!(count(Fate::Kept, Some(whole)), 0);
        assert_eq!(count(Fate::Kept, None), 1);
        assert_eq!(count(Fate::Kept, Some(&[(3, Ok(13))])), 1);
        assert_eq!(count(Fate::Kept, Some(&[])), 1);
        assert_eq!(count(Fate::Kept, Some(&[(2, Err("gone".to_owned())), (3, Ok(13))])), 1);
        // Another's content is another than the acknowledged one, and one that nobody wrote there.
        assert_eq!(count(Fate::Kept, Some(&[(2, Ok(99)), (3, Ok(13))])), 2);
        assert_eq!((count(Fate::Doubtful, None), count(Fate::Gone, None)), (0, 0));
        assert_eq!(
            (count(Fate::Doubtful, Some(whole)), count(Fate::Gone, Some(whole))),
            (0, 1)
        );
    }

    #[test]
    fn more_than_a_thousandth_that_is_nobodys_is_a_leak_and_so_is_what_waits_for_ever() {
        let count = |census: Census| {
            let findings = Findings {
                census,
                ..Findings::default()
            };
            violations(&BTreeMap::new(), &findings, 2).len()
        };
        let leaked = |leaked_bytes| Census {
            living_bytes: 1_000_000,
            leaked_bytes,
            ..Census::default()
        };
        assert_eq!(
            (count(leaked(0)), count(leaked(1_000)), count(leaked(1_001))),
            (0, 0, 1)
        );
        let waiting = Census {
            waiting: vec!["group 1: 2 idle blocks".to_owned()],
            complaints: vec!["group 1: page is held 1 times, not 2".to_owned()],
            ..Census::default()
        };
        assert_eq!(count(waiting), 2);
        let missing = Census {
            missing: 1,
            ..Census::default()
        };
        assert_eq!(count(missing), 1);
    }
}
