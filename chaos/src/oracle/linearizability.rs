//! Whether a history of operations that overlap could have been made by one after the other (Herlihy and Wing 1990).
//!
//! The search is Wing and Gong's (1993) with Lowe's memory of what was tried (2017): whoever has returned must come before whoever
//! was called later. An operation whose outcome is unknown has no return: it may have happened at any time after its call, or never;
//! where it would change nothing it is left out, since an order with it is one without it too.
//! A history is checked for each object apart, which is as strong and keeps the search small (locality, the same paper of 1990).
//! Not here: which objects there are and what they do (`names`, `entries`).

use std::collections::BTreeSet;

/// Pairs of (what is done, state) that a search remembers at most; a history of some hundred operations needs a few thousand.
const TRIED_MAX: usize = 2_000_000;

/// An operation with the times of its call and return; only their order counts.
#[derive(Clone, Debug)]
pub struct Event<O> {
    /// When it was called.
    pub called: u64,
    /// When it returned; `None` when nobody knows whether it happened.
    pub returned: Option<u64>,
    /// What was done, with what was answered.
    pub operation: O,
}

/// What `done` did to one object: of each event the operation that `step_of` makes of it, of those that did nothing to it none.
pub fn select<D, O>(done: &[Event<D>], step_of: impl Fn(&Event<D>) -> Option<O>) -> Vec<Event<O>> {
    let events = done.iter().filter_map(|event| {
        Some(Event {
            called: event.called,
            returned: event.returned,
            operation: step_of(event)?,
        })
    });
    events.collect()
}

/// The events as a report shows them, a line each.
pub fn told<O: std::fmt::Debug>(events: &[Event<O>]) -> String {
    let lines = events
        .iter()
        .map(|event| format!("\n    {}..{:?} {:?}", event.called, event.returned, event.operation));
    lines.collect()
}

/// One object.
pub trait Model {
    /// What it remembers.
    type State: Clone + Ord;
    /// What is done to it, with the answer.
    type Operation;
    /// The states that may follow when `operation` happens in `state` with the answer that it has; none when it cannot.
    fn step(state: &Self::State, operation: &Self::Operation) -> Vec<Self::State>;
}

/// What the search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order.
    Linearizable,
    /// There is none.
    Violated,
    /// The search was given up.
    TooLong,
}

/// Searches an order of `events` that begins in `start`.
pub fn check<M: Model>(start: M::State, events: &[Event<M::Operation>]) -> Verdict {
    let mut search = Search::<M> {
        events,
        tried: BTreeSet::new(),
        is_given_up: false,
    };
    let done = vec![0_u64; events.len().div_ceil(64).max(1)];
    match search.go_on(&done, &start) {
        true => Verdict::Linearizable,
        false if search.is_given_up => Verdict::TooLong,
        false => Verdict::Violated,
    }
}

struct Search<'a, M: Model> {
    events: &'a [Event<M::Operation>],
    tried: BTreeSet<(Vec<u64>, M::State)>,
    is_given_up: bool,
}

impl<M: Model> Search<'_, M> {
    /// Whether what is not done yet fits behind `state`. As deep as there are events.
    fn go_on(&mut self, done: &[u64], state: &M::State) -> bool {
        let is_done = |at: usize| done[at / 64] & (1 << (at % 64)) != 0;
        let waiting = (0..self.events.len()).filter(|at| !is_done(*at));
        let Some(horizon) = waiting.clone().filter_map(|at| self.events[at].returned).min() else {
            return true;
        };
        if self.tried.len() >= TRIED_MAX {
            self.is_given_up = true;
            return false;
        }
        if !self.tried.insert((done.to_vec(), state.clone())) {
            return false;
        }
        let candidates: Vec<usize> = waiting.filter(|at| self.events[*at].called < horizon).collect();
        for at in candidates {
            let event = &self.events[at];
            for next in M::step(state, &event.operation) {
                // Else the search tries every set of those that changed nothing before it can say that there is no order.
                if event.returned.is_none() && next == *state {
                    continue;
                }
                let mut more = done.to_vec();
                more[at / 64] |= 1 << (at % 64);
                if self.go_on(&more, &next) {
                    return true;
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::{Event, Model, Verdict, check};

    /// A number that is written and read.
    struct Register;

    enum Operation {
        Write(u8),
        Read(u8),
    }

    impl Model for Register {
        type State = u8;
        type Operation = Operation;

        fn step(state: &u8, operation: &Operation) -> Vec<u8> {
            match operation {
                Operation::Write(value) => vec![*value],
                Operation::Read(value) if value == state => vec![*state],
                Operation::Read(_) => Vec::new(),
            }
        }
    }

    fn checked(events: Vec<(u64, Option<u64>, Operation)>) -> Verdict {
        let events: Vec<Event<Operation>> = events
            .into_iter()
            .map(|(called, returned, operation)| Event {
                called,
                returned,
                operation,
            })
            .collect();
        check::<Register>(0, &events)
    }

    #[test]
    fn overlapping_operations_may_take_either_order_and_others_may_not() {
        use Operation::{Read, Write};
        let overlapping = |seen| checked(vec![(1, Some(4), Write(1)), (2, Some(3), Read(seen))]);
        assert_eq!(
            (overlapping(0), overlapping(1)),
            (Verdict::Linearizable, Verdict::Linearizable)
        );
        let after = |seen| checked(vec![(1, Some(2), Write(1)), (3, Some(4), Read(seen))]);
        assert_eq!((after(0), after(1)), (Verdict::Violated, Verdict::Linearizable));
        let back = checked(vec![
            (1, Some(9), Write(1)),
            (2, Some(3), Read(1)),
            (4, Some(5), Read(0)),
        ]);
        assert_eq!(back, Verdict::Violated, "nobody sees an older value after a newer one");
    }

    #[test]
    fn what_nobody_knows_the_outcome_of_may_happen_late_or_never() {
        use Operation::{Read, Write};
        let unknown = |reads: [u8; 2]| {
            checked(vec![
                (1, None, Write(1)),
                (2, Some(3), Read(reads[0])),
                (4, Some(5), Read(reads[1])),
            ])
        };
        assert_eq!(unknown([0, 0]), Verdict::Linearizable);
        assert_eq!(unknown([0, 1]), Verdict::Linearizable);
        assert_eq!(unknown([1, 1]), Verdict::Linearizable);
        assert_eq!(unknown([1, 0]), Verdict::Violated);
    }

    #[test]
    fn unknown_outcomes_that_would_change_nothing_do_not_keep_a_violation_from_being_seen() {
        use Operation::{Read, Write};
        let ended = |seen| {
            let unknown = (1..=40).map(|called| (called, None, Write(0)));
            let reads = (0..40).map(|number| (100 + 2 * number, Some(101 + 2 * number), Read(0)));
            checked(unknown.chain(reads).chain([(300, Some(301), Read(seen))]).collect())
        };
        assert_eq!((ended(0), ended(1)), (Verdict::Linearizable, Verdict::Violated));
    }
}
