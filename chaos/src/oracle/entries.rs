//! The promise that what happens to a file's content is linearizable: the first commit behind a base version wins, the others are
//! told, and whoever reads sees the newest (decision 0006).
//!
//! Not here: names (`names`), versions that are not the newest (`durability`).

use crate::oracle::linearizability::{Event, Model, Verdict, check, select, told};
use crate::world::history::{Answer, Ask, Done, Refusal, Tag};
use model::id::EntryId;
use std::collections::{BTreeMap, BTreeSet};

/// The newest version and its content; `None` while nobody has said what it is.
type Newest = Option<(u64, Tag)>;

/// What happens to one entry.
#[derive(Clone, Debug)]
enum Step {
    /// A version of this content behind that one.
    Write(u64, Tag),
    /// Another version was the newest.
    WasOther(u64),
    /// This is the newest.
    Seen(u64, Tag),
}

struct Content;

impl Model for Content {
    type State = Newest;
    type Operation = Step;

    fn step(state: &Newest, step: &Step) -> Vec<Newest> {
        match (state, step) {
            (None, Step::Write(base, tag)) => vec![Some((base + 1, *tag))],
            (None, Step::WasOther(_)) => vec![None],
            (None, Step::Seen(version, tag)) => vec![Some((*version, *tag))],
            (Some((version, _)), Step::Write(base, tag)) if version == base => vec![Some((base + 1, *tag))],
            (Some((version, _)), Step::WasOther(base)) if version != base => vec![*state],
            (Some(newest), Step::Seen(version, tag)) if *newest == (*version, *tag) => vec![*state],
            _ => Vec::new(),
        }
    }
}

/// Checks every entry that was named; answers what is violated, and what could not be decided.
#[must_use]
pub fn violations(done: &[Done]) -> Vec<String> {
    let (mut made, mut entries) = (BTreeMap::new(), BTreeSet::new());
    for event in done {
        match &event.operation {
            (Ask::Create(_, tag), Answer::Wrote(entry, _)) => drop(made.insert(*entry, *tag)),
            (Ask::Write(entry, ..) | Ask::Read(entry), _) => drop(entries.insert(*entry)),
            _ => {}
        }
    }
    let check_entry = |entry: &EntryId| {
        let events = events_of(*entry, done);
        let start = made.get(entry).map(|tag| (1, *tag));
        match check::<Content>(start, &events) {
            Verdict::Linearizable => None,
            Verdict::Violated => Some(format!("entry {entry}: no order explains {start:?}{}", told(&events))),
            Verdict::TooLong => Some(format!("entry {entry}: undecided")),
        }
    };
    entries.iter().filter_map(check_entry).collect()
}

fn events_of(entry: EntryId, done: &[Done]) -> Vec<Event<Step>> {
    let step_of = |event: &Done| match &event.operation {
        (Ask::Write(of, base, tag), answer) if *of == entry => match answer {
            Answer::Wrote(..) | Answer::Unknown => Some(Step::Write(*base, *tag)),
            Answer::Refused(Refusal::OtherVersion) => Some(Step::WasOther(*base)),
            _ => None,
        },
        (Ask::Read(of), Answer::Content(version, tag)) if *of == entry => Some(Step::Seen(*version, *tag)),
        _ => None,
    };
    select(done, step_of)
}

#[cfg(test)]
mod tests {
    use super::violations;
    use crate::world::history::{Answer, Ask, Refusal, done};
    use model::id::{DriveId, EntryId};

    const ENTRY: EntryId = EntryId {
        drive: DriveId(1),
        number: 5,
    };

    #[test]
    fn two_winners_of_one_base_version_and_a_stale_read_are_seen() {
        let made = done(1, 2, Ask::Create(0, 10), Answer::Wrote(ENTRY, 1));
        let write = |called, tag| done(called, 8, Ask::Write(ENTRY, 1, tag), Answer::Wrote(ENTRY, 2));
        let lost = done(4, 9, Ask::Write(ENTRY, 1, 12), Answer::Refused(Refusal::OtherVersion));
        let read = |version, tag| done(20, 21, Ask::Read(ENTRY), Answer::Content(version, tag));
        assert!(violations(&[made.clone(), write(3, 11), lost, read(2, 11)]).is_empty());
        assert_eq!(violations(&[made.clone(), write(3, 11), write(4, 12)]).len(), 1);
        assert_eq!(violations(&[made, write(3, 11), read(1, 10)]).len(), 1);
    }
}
