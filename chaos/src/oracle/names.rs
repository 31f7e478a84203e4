//! The promise that what happens to a name is linearizable: at each moment one entry has it, or nobody (decision 0013).
//!
//! Operations on several names (renames, listings) are looked at once for each of them, which misses that the parts happen
//! together and never accuses what is right. A removal names an entry, not a name: it takes whichever name the entry has.
//! Not here: contents (`entries`).

use crate::oracle::linearizability::{Event, Model, Verdict, check, select, told};
use crate::world::history::{Answer, Ask, Done, NameNumber, Refusal};
use model::id::EntryId;
use std::collections::{BTreeMap, BTreeSet};

/// Who has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// Nobody.
    Nobody,
    /// This entry.
    Entry(EntryId),
    /// What a creation made whose answer nobody got: an entry that no other creation was answered with.
    Unanswered,
}

/// What happens to one name.
#[derive(Clone, Debug)]
pub enum Step {
    /// An entry takes it, free or its own.
    Take(EntryId),
    /// A creation takes it whose answer nobody got.
    TakeUnanswered,
    /// It was taken when somebody wanted it.
    WasTaken,
    /// The entry leaves it, if it has it.
    Leave(EntryId),
    /// This entry has it; `is_of_known` when a creation was answered with it.
    Seen(Option<EntryId>, bool),
}

struct Name;

impl Model for Name {
    type State = Holder;
    type Operation = Step;

    fn step(state: &Holder, step: &Step) -> Vec<Holder> {
        match (state, step) {
            (Holder::Nobody, Step::Take(entry)) => vec![Holder::Entry(*entry)],
            (Holder::Entry(own), Step::Take(entry)) if own == entry => vec![*state],
            // Perhaps it is the very entry.
            (Holder::Unanswered, Step::Take(entry)) => vec![Holder::Entry(*entry)],
            (Holder::Nobody, Step::TakeUnanswered) => vec![Holder::Unanswered],
            (Holder::Entry(_) | Holder::Unanswered, Step::WasTaken) => vec![*state],
            (Holder::Entry(own), Step::Leave(entry)) if own == entry => vec![Holder::Nobody],
            // Perhaps it is the very entry, perhaps another.
            (Holder::Unanswered, Step::Leave(_)) => vec![Holder::Nobody, *state],
            (Holder::Nobody | Holder::Entry(_), Step::Leave(_)) => vec![*state],
            (Holder::Nobody, Step::Seen(None, _)) => vec![*state],
            (Holder::Entry(own), Step::Seen(Some(entry), _)) if own == entry => vec![*state],
            (Holder::Unanswered, Step::Seen(Some(entry), false)) => vec![Holder::Entry(*entry)],
            _ => Vec::new(),
        }
    }
}

/// The names of each folder, by number.
pub type Folders = Vec<Vec<NameNumber>>;

/// Checks every name of `folders`, all free in the beginning; answers what is violated, and what could not be decided.
#[must_use]
pub fn violations(done: &[Done], folders: &Folders) -> Vec<String> {
    let known = known_entries(done);
    let visited = visited_names(done);
    let names = folders.iter().flatten();
    let check_name = |name: &NameNumber| {
        let events = events_of(*name, done, folders, &known, &visited);
        match check::<Name>(Holder::Nobody, &events) {
            Verdict::Linearizable => None,
            Verdict::Violated => Some(format!("name {name}: no order explains {}", told(&events))),
            Verdict::TooLong => Some(format!("name {name}: undecided")),
        }
    };
    names.filter_map(check_name).collect()
}

/// Entries that a creation was answered with.
fn known_entries(done: &[Done]) -> BTreeSet<EntryId> {
    let made = done.iter().filter_map(|event| match &event.operation {
        (Ask::Create(..), Answer::Wrote(entry, _)) => Some(*entry),
        _ => None,
    });
    made.collect()
}

/// The names that each entry may ever have had.
fn visited_names(done: &[Done]) -> BTreeMap<EntryId, BTreeSet<NameNumber>> {
    let mut visited: BTreeMap<EntryId, BTreeSet<NameNumber>> = BTreeMap::new();
    for event in done {
        let pairs: Vec<(EntryId, NameNumber)> = match &event.operation {
            (Ask::Create(name, _), Answer::Wrote(entry, _)) => vec![(*entry, *name)],
            (Ask::Rename(entry, name), _) => vec![(*entry, *name)],
            (Ask::Look(name), Answer::Has(Some(entry))) => vec![(*entry, *name)],
            (Ask::List(_), Answer::Names(found)) => found.iter().map(|(name, entry)| (*entry, *name)).collect(),
            _ => Vec::new(),
        };
        for (entry, name) in pairs {
            visited.entry(entry).or_default().insert(name);
        }
    }
    visited
}

fn events_of(
    name: NameNumber,
    done: &[Done],
    folders: &Folders,
    known: &BTreeSet<EntryId>,
    visited: &BTreeMap<EntryId, BTreeSet<NameNumber>>,
) -> Vec<Event<Step>> {
    let seen = |entry: Option<EntryId>| Step::Seen(entry, entry.is_some_and(|entry| known.contains(&entry)));
    let was_here = |entry: &EntryId| visited.get(entry).is_some_and(|names| names.contains(&name));
    let step_of = |event: &Done| match &event.operation {
        (Ask::Create(at, _), answer) if *at == name => match answer {
            Answer::Wrote(entry, _) => Some(Step::Take(*entry)),
            Answer::Refused(Refusal::NameTaken) => Some(Step::WasTaken),
            Answer::Unknown => Some(Step::TakeUnanswered),
            _ => None,
        },
        (Ask::Look(at), Answer::Has(entry)) if *at == name => Some(seen(*entry)),
        (Ask::List(folder), Answer::Names(found)) if folders[*folder].contains(&name) => {
            let here = found.iter().find(|(at, _)| *at == name);
            Some(seen(here.map(|(_, entry)| *entry)))
        }
        (Ask::Rename(entry, to), Answer::Done | Answer::Unknown) if *to == name => Some(Step::Take(*entry)),
        (Ask::Rename(_, to), Answer::Refused(Refusal::NameTaken)) if *to == name => Some(Step::WasTaken),
        (Ask::Rename(entry, _) | Ask::Trash(entry), Answer::Done | Answer::Unknown) if was_here(entry) => {
            Some(Step::Leave(*entry))
        }
        _ => None,
    };
    select(done, step_of)
}

#[cfg(test)]
mod tests {
    use super::violations;
    use crate::world::history::{Answer, Ask, Refusal, done};
    use model::id::{DriveId, EntryId};

    fn entry(number: u64) -> EntryId {
        EntryId {
            drive: DriveId(1),
            number,
        }
    }

    #[test]
    fn a_name_that_two_take_one_after_the_other_is_violated() {
        let made = |at, number| done(at, at + 1, Ask::Create(0, number), Answer::Wrote(entry(number), 1));
        let folders = vec![vec![0, 1]];
        assert_eq!(violations(&[made(1, 5), made(3, 6)], &folders).len(), 1);
        let trashed = done(3, 4, Ask::Trash(entry(5)), Answer::Done);
        assert!(violations(&[made(1, 5), trashed, made(5, 6)], &folders).is_empty());
    }

    #[test]
    fn a_stale_look_is_violated_and_an_unanswered_creation_explains_what_is_found() {
        let folders = vec![vec![0, 1]];
        let look = |at, found: Option<u64>| done(at, at + 1, Ask::Look(0), Answer::Has(found.map(entry)));
        let made = done(1, 2, Ask::Create(0, 1), Answer::Wrote(entry(5), 1));
        let moved = done(3, 4, Ask::Rename(entry(5), 1), Answer::Done);
        assert!(violations(&[made.clone(), moved.clone(), look(5, None)], &folders).is_empty());
        assert_eq!(violations(&[made, moved, look(5, Some(5))], &folders).len(), 1);
        let unanswered = done(1, 2, Ask::Create(0, 1), Answer::Unknown);
        let taken = done(7, 8, Ask::Create(0, 2), Answer::Refused(Refusal::NameTaken));
        assert!(violations(&[unanswered.clone(), look(3, None), look(5, Some(9)), taken], &folders).is_empty());
        assert_eq!(
            violations(&[unanswered, look(3, Some(9)), look(5, None)], &folders).len(),
            1
        );
    }
}
