//! The promise that an acknowledged version is never lost: it reads back byte for byte, after every fault (decision 0019).
//!
//! A failed or unanswered write is unknown and never assumed absent; what is read of it must be whole all the same.
//! Not here: reading (the world does it once its faults have ended).

use crate::world::history::{Answer, Ask, Done, Tag};
use model::id::EntryId;
use std::collections::BTreeMap;

/// Every version that was acknowledged, with the content that it must have.
#[must_use]
pub fn acknowledged(done: &[Done]) -> BTreeMap<(EntryId, u64), Tag> {
    let acknowledged = done.iter().filter_map(|event| match &event.operation {
        (Ask::Create(_, tag) | Ask::Write(_, _, tag), Answer::Wrote(entry, version)) => {
            Some(((*entry, *version), *tag))
        }
        _ => None,
    });
    acknowledged.collect()
}

/// What became of an acknowledged version: the content that was read whole, or why none was.
pub type Found = Result<Tag, String>;

/// What is violated, given what was found of each version that `acknowledged` names.
#[must_use]
pub fn violations(
    acknowledged: &BTreeMap<(EntryId, u64), Tag>,
    found: &BTreeMap<(EntryId, u64), Found>,
) -> Vec<String> {
    let check = |((entry, version), tag): (&(EntryId, u64), &Tag)| match found.get(&(*entry, *version)) {
        Some(Ok(read)) if read == tag => None,
        Some(Ok(read)) => Some(format!(
            "entry {entry} version {version}: content {read} instead of {tag}"
        )),
        Some(Err(why)) => Some(format!(
            "entry {entry} version {version} (content {tag}) is lost: {why}"
        )),
        None => Some(format!("entry {entry} version {version}: never read back")),
    };
    acknowledged.iter().filter_map(check).collect()
}

#[cfg(test)]
mod tests {
    use super::{acknowledged, violations};
    use crate::oracle::linearizability::Event;
    use crate::world::history::{Answer, Ask};
    use model::id::{DriveId, EntryId};
    use std::collections::BTreeMap;

    #[test]
    fn a_version_that_is_lost_or_another_is_seen_and_an_unknown_one_is_not_asked_for() {
        let entry = EntryId {
            drive: DriveId(1),
            number: 5,
        };
        let write = |answer| Event {
            called: 1,
            returned: Some(2),
            operation: (Ask::Write(entry, 1, 7), answer),
        };
        assert!(acknowledged(&[write(Answer::Unknown)]).is_empty());
        let known = acknowledged(&[write(Answer::Wrote(entry, 2))]);
        let found = |found| violations(&known, &BTreeMap::from([((entry, 2), found)])).len();
        assert_eq!(found(Ok(7)), 0);
        assert_eq!((found(Ok(8)), found(Err("gone".to_owned()))), (1, 1));
        assert_eq!(violations(&known, &BTreeMap::new()).len(), 1);
    }
}
