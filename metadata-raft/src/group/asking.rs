//! Queries of one group that are answered together: those that wait when a round begins share its read-index and then one look at
//! the state, off the async threads.
//!
//! A hop to another thread for each query cost more than the query itself.
//! Invariants: a query is answered from a state that holds everything acknowledged before it was asked; who asks in the same round
//! is answered from the same view; a round does not wait for the answers of the one before.
//! Not here: what a query means (`state`), rounds themselves (`raft/read_rounds`).

use super::{Group, GroupError, ReadBy};
use crate::raft::read_once::ReadOnce;
use crate::room::Place;
use crate::state::State;
use crate::state::age::Times;
use bytes::Bytes;
use kv::seam::{KvError, KvRead};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Queries of one hop; more go in several at the same time, so that long ones keep more than one thread busy. A guess.
const HOP_QUERIES_MAX: usize = 32;

/// The answers in the order of the queries, and by what right they were given.
pub type Answered = Result<(Vec<Bytes>, ReadBy), GroupError>;

struct Asker {
    queries: Vec<Bytes>,
    answered: oneshot::Sender<Answered>,
    place: Place,
}

#[derive(Default)]
struct Waiting {
    askers: Vec<Asker>,
    is_running: bool,
}

/// Who waits at a group for answers.
#[derive(Default)]
pub(super) struct Asking(Mutex<Waiting>);

impl Asking {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those of the next round; the rounds rest when there are none.
    fn next(&self) -> Vec<Asker> {
        let mut waiting = self.waiting();
        waiting.is_running = !waiting.askers.is_empty();
        std::mem::take(&mut waiting.askers)
    }
}

/// Answers `queries` from one view of the state of `group`. May be dropped midway.
///
/// # Errors
/// `Overloaded`; as `Group::linearize`; `Store` when the store failed, which ends the replica.
pub async fn answer(group: &Arc<Group>, queries: Vec<Bytes>) -> Answered {
    let place = group.room().enter_query();
    let place = place.ok_or(GroupError::Overloaded { group: group.group })?;
    let (answered, answer) = oneshot::channel();
    let begins = {
        let mut waiting = group.asking.waiting();
        waiting.askers.push(Asker {
            queries,
            answered,
            place,
        });
        !std::mem::replace(&mut waiting.is_running, true)
    };
    if begins {
        // Its own task: who begins may be dropped, and others still wait.
        tokio::spawn(run(Arc::clone(group)));
    }
    answer.await.unwrap_or_else(|_| {
        Err(GroupError::Bug {
            group: group.group,
            detail: "a query panicked".to_owned(),
        })
    })
}

async fn run(group: Arc<Group>) {
    loop {
        let mut askers = group.asking.next();
        if askers.is_empty() {
            return;
        }
        match group.linearize_for_query().await {
            Ok(by) => {
                while !askers.is_empty() {
                    let rest = askers.split_off(askers.len().min(HOP_QUERIES_MAX));
                    let (group, askers) = (Arc::clone(&group), std::mem::replace(&mut askers, rest));
                    // A query that panics lets go of those who asked with it; they are told.
                    daemon::blocking::start(move || answer_run(&group, askers, by));
                }
            }
            Err(error) => {
                for asker in askers {
                    // Some may not wait any more.
                    drop(asker.answered.send(Err(error.clone())));
                }
            }
        }
    }
}

fn answer_run(group: &Arc<Group>, askers: Vec<Asker>, by: ReadBy) {
    let state = State::new(group.group);
    group.read(|view| {
        let mut times = Times::default();
        // Who asks alone would pay for a memory that nobody uses.
        let shared = (askers.len() > 1).then(|| ReadOnce::new(view));
        let view = shared.as_ref().map_or(view, |shared| shared as &dyn KvRead);
        for Asker {
            queries,
            answered,
            place,
        } in askers
        {
            let read: Result<Vec<Bytes>, KvError> = queries
                .iter()
                .map(|query| state.query_at(view, &mut times, query))
                .collect();
            drop(place);
            let answer = read.map(|answers| (answers, by)).map_err(|error| {
                group.end_on(&error);
                GroupError::from(error)
            });
            // Some may not wait any more.
            drop(answered.send(answer));
        }
    });
}
