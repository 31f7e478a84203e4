//! The clock by which openraft looks whether a group's election is due, and when it may rest.
//!
//! openraft wakes each replica of each group some ten times a second for that look, which was a third of all wake-ups of a cluster that
//! does nothing. While a leader lives nothing is due, so the clock rests, and the ticker of the signs of life looks once a period
//! whether it still may.
//! Invariants: a clock rests while its replica leads, while a leader was heard since the last look, or while the replica waits for a
//! full disk to take its vote, and never else; so two periods after the last sign of life it runs again, which is before an election
//! is due (`group::start` relates the spans). What is not known for certain makes it run.
//! Not here: when is looked (`heartbeats`), how long a silence may be (`group::start`), the election (openraft).

use crate::raft::network::GroupRaft;
use openraft::async_runtime::watch::WatchReceiver;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Which look an append came before, counted from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrival(u64);

/// When a leader was heard last. Counts looks, so that it needs no time.
#[derive(Debug, Default)]
struct LastHeard {
    /// Looks so far.
    looks: AtomicU64,
    /// The look before which a leader was heard last, counted from one; zero when none was.
    before_look: AtomicU64,
}

impl LastHeard {
    fn arrival(&self) -> Arrival {
        Arrival(self.looks.load(Ordering::Acquire) + 1)
    }

    fn note(&self, arrival: Arrival) {
        self.before_look.fetch_max(arrival.0, Ordering::AcqRel);
    }

    /// Whether a leader was heard since the last look.
    fn look(&self) -> bool {
        let look = self.looks.fetch_add(1, Ordering::AcqRel) + 1;
        // One that came during this look counts for the next one, too.
        self.before_look.load(Ordering::Acquire) >= look
    }
}

/// Why a clock rests.
#[derive(Clone, Copy, Debug, Default)]
struct Rest {
    /// A leader lives, here or elsewhere.
    is_led: bool,
    /// The replica waits for the disk to take its vote.
    is_held: bool,
}

impl Rest {
    fn is_due(self) -> bool {
        self.is_led || self.is_held
    }
}

/// The clock of one replica. It runs at first.
pub struct ElectionClock {
    raft: GroupRaft,
    last_heard: LastHeard,
    rest: Mutex<Rest>,
}

impl ElectionClock {
    /// That of `raft`, which nobody else lets rest.
    #[must_use]
    pub fn new(raft: GroupRaft) -> Self {
        Self {
            raft,
            last_heard: LastHeard::default(),
            rest: Mutex::default(),
        }
    }

    /// When an append has come, before openraft has it: it may keep the answer until a slow disk is done.
    pub(crate) fn arrival(&self) -> Arrival {
        self.last_heard.arrival()
    }

    /// openraft has taken what came then for a leader's.
    pub(crate) fn heard(&self, arrival: Arrival) {
        self.last_heard.note(arrival);
    }

    /// Lets the clock rest until the next look, or run. Called once a period.
    pub fn look(&self) {
        let was_heard = self.last_heard.look();
        // The state and not the leader's name: after a start a replica may take itself for the leader that it was.
        let leads = self.raft.metrics().borrow_watched().state.is_leader();
        self.change(|rest| rest.is_led = was_heard || leads);
    }

    /// Lets the clock rest while `is_held`, whoever was heard.
    pub fn hold(&self, is_held: bool) {
        self.change(|rest| rest.is_held = is_held);
    }

    fn change(&self, change: impl FnOnce(&mut Rest)) {
        // Under the lock, so that of two changes at once the later one counts.
        let mut rest = self.rest();
        change(&mut rest);
        self.raft.runtime_config().tick(!rest.is_due());
    }

    fn rest(&self) -> MutexGuard<'_, Rest> {
        // Every change under the lock is an assignment.
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it rests now.
    #[cfg(test)]
    pub(crate) fn rests(&self) -> bool {
        self.rest().is_due()
    }
}

#[cfg(test)]
mod tests {
    use super::LastHeard;

    /// What comes between looks: an append that is taken at once, one that is taken later, the taking of that one, a look with what it
    /// finds.
    enum Step {
        Heard,
        Came,
        Taken,
        Look(bool),
    }

    fn check(steps: &[Step]) {
        let (last_heard, mut late) = (LastHeard::default(), None);
        for (number, step) in steps.iter().enumerate() {
            match step {
                Step::Heard => last_heard.note(last_heard.arrival()),
                Step::Came => late = Some(last_heard.arrival()),
                Step::Taken => last_heard.note(late.unwrap()),
                Step::Look(wanted) => assert_eq!(last_heard.look(), *wanted, "step {number}"),
            }
        }
    }

    #[test]
    fn a_leader_counts_until_the_look_behind_it_and_by_when_it_came() {
        use Step::{Came, Heard, Look, Taken};
        check(&[Look(false), Look(false)]);
        check(&[Heard, Look(true), Look(false), Heard, Heard, Look(true), Look(false)]);
        check(&[Look(false), Heard, Look(true), Heard, Look(true), Look(false)]);
        // A disk that was slow: what came long ago says nothing of now.
        check(&[Came, Taken, Look(true)]);
        check(&[Came, Look(false), Taken, Look(false)]);
        check(&[Came, Look(false), Heard, Taken, Look(true), Look(false)]);
    }
}
