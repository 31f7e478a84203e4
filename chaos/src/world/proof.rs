//! How much a world has shown: one that showed too little fails, whatever held in it.
//!
//! The bounds on a history are those under which it proves too little (docs/testing.md): overlap, and known answers. A world of
//! collection has a ledger and no history: what is unknown there is asked of nobody, and only answers count as operations.
//! Not here: what must hold (`oracle`).

use crate::oracle::raft::Seen;
use crate::world::kind::Kind;

/// Operations that are under way at once, below which nothing is said of their order.
pub const CONCURRENCY_MIN: usize = 4;
/// Of how many operations one at least must have begun beside so many. A guess: users rest when they are told to.
const OVERLAPPING_ONE_OF: usize = 20;
/// Of how many operations of a history one at most may be without an answer.
const UNKNOWN_ONE_OF: usize = 20;

/// What users did in a world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// What they asked.
    pub operations: usize,
    /// Of these, whose outcome nobody knows.
    pub unknown: usize,
    /// How many overlapped at most.
    pub concurrency: usize,
    /// Operations that began while `CONCURRENCY_MIN` were under way, themselves among them.
    pub overlapping: usize,
    /// Versions that were acknowledged.
    pub acknowledged: usize,
}

impl Extent {
    /// Operations that were answered.
    #[must_use]
    pub fn known(&self) -> usize {
        self.operations - self.unknown
    }

    /// What a world of this sort lacks; `asked` are the answers that it was to last for.
    #[must_use]
    pub fn lacks(&self, kind: Kind, asked: Option<usize>) -> Vec<String> {
        let Self {
            operations,
            unknown,
            concurrency,
            overlapping,
            acknowledged,
        } = *self;
        let mut lacks = Vec::new();
        if let Some(asked) = asked.filter(|asked| self.known() < *asked) {
            let known = self.known();
            // The world came to the end of its longest time.
            lacks.push(format!(
                "{known} operations were answered in all the time, {asked} were asked for"
            ));
        }
        if kind != Kind::Collection && unknown * UNKNOWN_ONE_OF > operations {
            lacks.push(format!(
                "{unknown} of {operations} answers are unknown, too many for a proof; where the world was short, let it last for more operations"
            ));
        }
        if concurrency < CONCURRENCY_MIN || overlapping * OVERLAPPING_ONE_OF < operations {
            lacks.push(format!(
                "{overlapping} of {operations} operations overlapped with {} others, at most {concurrency} were under way: too few for a proof",
                CONCURRENCY_MIN - 1
            ));
        }
        if acknowledged == 0 {
            lacks.push("no version was acknowledged: nothing is proved".to_owned());
        }
        lacks
    }
}

/// What was not watched in a world with so many acts of the nemesis.
#[must_use]
pub fn unwatched(seen: &Seen, faults: u64, is_calm: bool) -> Vec<String> {
    let nothing = [
        ("leader was seen", seen.terms == 0),
        ("state was compared", seen.states_compared == 0),
        ("entry of a log was compared", seen.entries_compared == 0),
        ("fault was made", faults == 0 && !is_calm),
    ];
    let said = nothing.into_iter().filter(|(_, is_missing)| *is_missing);
    said.map(|(what, _)| format!("no {what}: nothing is proved")).collect()
}

#[cfg(test)]
mod tests {
    use super::{CONCURRENCY_MIN, Extent, unwatched};
    use crate::oracle::raft::Seen;
    use crate::world::kind::Kind;

    const ENOUGH: Extent = Extent {
        operations: 2_000,
        unknown: 100,
        concurrency: CONCURRENCY_MIN,
        overlapping: 100,
        acknowledged: 1,
    };

    /// Checks that a world of names lacks one thing, which is told with `words`.
    fn check(extent: Extent, words: &str) {
        let lacks = extent.lacks(Kind::Names, Some(1_900));
        assert!(lacks.len() == 1 && lacks[0].contains(words), "{words}: {lacks:?}");
    }

    #[test]
    fn a_thin_history_is_refused_by_each_of_its_measures_and_one_at_the_bounds_is_not() {
        for kind in Kind::ALL {
            assert_eq!(ENOUGH.lacks(kind, Some(1_900)), Vec::<String>::new());
            assert_eq!(ENOUGH.lacks(kind, None), Vec::<String>::new());
        }
        let more_unknown = Extent {
            operations: 2_001,
            unknown: 101,
            overlapping: 101,
            ..ENOUGH
        };
        check(more_unknown, "101 of 2001 answers are unknown");
        assert_eq!(more_unknown.lacks(Kind::Collection, Some(1_900)), Vec::<String>::new());
        let alone = Extent {
            concurrency: CONCURRENCY_MIN - 1,
            ..ENOUGH
        };
        check(alone, "at most 3 were under way");
        let once = Extent {
            overlapping: 99,
            ..ENOUGH
        };
        check(once, "99 of 2000 operations overlapped");
        let nothing = Extent {
            acknowledged: 0,
            ..ENOUGH
        };
        check(nothing, "no version was acknowledged");
        assert!(!Extent::default().lacks(Kind::Names, None).is_empty(), "an empty one");
    }

    #[test]
    fn what_is_unknown_is_no_operation_that_was_asked_for() {
        let said = ENOUGH.lacks(Kind::Names, Some(2_000));
        assert_eq!(
            said,
            ["1900 operations were answered in all the time, 2000 were asked for"]
        );
    }

    #[test]
    fn a_world_in_which_nothing_was_watched_or_done_says_so() {
        assert_eq!(unwatched(&Seen::default(), 0, false).len(), 4);
        let seen = Seen {
            terms: 3,
            states_compared: 1,
            entries_compared: 1,
            ..Seen::default()
        };
        assert_eq!(unwatched(&seen, 1, false), Vec::<String>::new());
        assert_eq!(unwatched(&seen, 0, true), Vec::<String>::new());
        assert_eq!(unwatched(&seen, 0, false).len(), 1);
    }
}
