//! The promise that a folder to which entries are only added is a set that only grows: what was added is in it, and reads agree in
//! which order it grew.
//!
//! For a set without removals that is linearizability itself: reads hold what was acknowledged or read before they began and nothing
//! that nobody had begun to add, and of any two the one is part of the other.
//! Not here: which entry has a name (`names`), what is in it (`durability`).

use crate::oracle::linearizability::Event;
use std::collections::BTreeSet;

/// What was done to the set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// This element was added; an event without a return is one of which nobody knows.
    Add(u64),
    /// All of it was read.
    Read(BTreeSet<u64>),
}

/// What is violated by what was done, a line each.
#[must_use]
pub fn violations(done: &[Event<Act>]) -> Vec<String> {
    let reads: Vec<(u64, u64, &BTreeSet<u64>)> = done
        .iter()
        .filter_map(|event| match (&event.operation, event.returned) {
            (Act::Read(found), Some(returned)) => Some((event.called, returned, found)),
            _ => None,
        })
        .collect();
    let mut violations = Vec::new();
    for (called, returned, found) in &reads {
        let is_before = |event: &&Event<Act>| event.returned.is_some_and(|returned| returned < *called);
        let mut known = BTreeSet::new();
        for event in done.iter().filter(is_before) {
            match &event.operation {
                Act::Add(element) => known.extend([*element]),
                Act::Read(seen) => known.extend(seen),
            }
        }
        let begun = done.iter().filter(|event| event.called < *returned);
        let begun: BTreeSet<u64> = begun
            .filter_map(|event| match event.operation {
                Act::Add(element) => Some(element),
                Act::Read(_) => None,
            })
            .collect();
        for missing in known.difference(found) {
            violations.push(format!(
                "element {missing} was known and is not in the read {called}..{returned}"
            ));
        }
        for unknown in found.difference(&begun) {
            violations.push(format!(
                "element {unknown}, which nobody added, is in the read {called}..{returned}"
            ));
        }
    }
    let mut by_size: Vec<&BTreeSet<u64>> = reads.iter().map(|(_, _, found)| *found).collect();
    by_size.sort_by_key(|found| found.len());
    for pair in by_size.windows(2) {
        if !pair[0].is_subset(pair[1]) {
            let only: Vec<&u64> = pair[0].difference(pair[1]).collect();
            violations.push(format!("one read has {only:?}, and a larger one has not"));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::{Act, violations};
    use crate::oracle::linearizability::Event;

    fn add(called: u64, returned: u64, element: u64) -> Event<Act> {
        Event {
            called,
            returned: (returned > 0).then_some(returned),
            operation: Act::Add(element),
        }
    }

    fn read(called: u64, returned: u64, found: &[u64]) -> Event<Act> {
        Event {
            called,
            returned: Some(returned),
            operation: Act::Read(found.iter().copied().collect()),
        }
    }

    /// How many lines there are.
    fn check(what: &str, done: &[Event<Act>], expected: usize) {
        let found = violations(done);
        assert_eq!(found.len(), expected, "{what}: {found:?}");
    }

    #[test]
    fn what_was_acknowledged_or_read_is_in_every_later_read_and_nothing_comes_from_nowhere() {
        check(
            "in order",
            &[add(1, 2, 7), read(3, 4, &[7]), add(5, 6, 8), read(7, 8, &[7, 8])],
            0,
        );
        check(
            "an unknown one may come late",
            &[add(1, 0, 7), read(2, 3, &[]), read(4, 5, &[7])],
            0,
        );
        check(
            "it may be seen before its answer",
            &[add(1, 9, 7), read(2, 3, &[7]), read(4, 5, &[7])],
            0,
        );
        check("it overlaps", &[add(1, 4, 7), read(2, 3, &[])], 0);
        check("lost", &[add(1, 2, 7), read(3, 4, &[])], 1);
        // Both that it was known and that a smaller read is no part of a larger one.
        check(
            "seen and gone",
            &[add(1, 9, 7), add(1, 9, 8), read(2, 3, &[7]), read(4, 5, &[8])],
            2,
        );
        check("from nowhere", &[read(1, 2, &[7])], 1);
        check("before it was called", &[read(1, 2, &[7]), add(3, 4, 7)], 1);
    }

    #[test]
    fn reads_that_overlap_agree_on_the_order_of_what_was_added() {
        let adds = [add(1, 20, 7), add(1, 20, 8)];
        check(
            "either",
            &[adds.as_slice(), &[read(2, 9, &[7]), read(3, 8, &[7, 8])]].concat(),
            0,
        );
        check(
            "each another",
            &[adds.as_slice(), &[read(2, 9, &[7]), read(3, 8, &[8])]].concat(),
            1,
        );
    }
}
