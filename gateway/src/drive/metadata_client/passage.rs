//! A request's leave to go to a group, which it gives back when it ends or is dropped.
//!
//! Not here: who gets leave (`silence`).

use super::MetadataClient;
use super::silence::{Leave, Silences};
use crate::metrics;
use daemon::clock::Clock;
use model::id::{CONTROL_GROUP, GroupId};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The leave; the group hears of its end.
pub(super) struct Passage {
    silences: Arc<Mutex<Silences>>,
    clock: Arc<dyn Clock>,
    group: GroupId,
    leave: Leave,
}

impl Passage {
    /// The group answered.
    pub(super) fn note_answer(&self) {
        let now = self.clock.monotonic();
        locked(&self.silences).note_answer(self.group, now);
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        let now = self.clock.monotonic();
        locked(&self.silences).end(self.group, self.leave, now);
    }
}

impl MetadataClient {
    /// Has the metrics show how many groups are silent whenever they are read: a group falls silent by time alone, without an event.
    /// Called once for each gateway: another client that counts on the same part would set the same gauge.
    pub fn show_silent(&self) {
        let shown = self.seams.metrics.gauge(&metrics::SILENT_GROUPS);
        let shown = shown.with_label_values::<&str>(&[]);
        let (silences, clock) = (Arc::downgrade(&self.silences), Arc::clone(&self.seams.clock));
        self.seams.metrics.before_reading(move || {
            let silent = silences
                .upgrade()
                .map_or(0, |silences| locked(&silences).silent(clock.monotonic()));
            shown.set(i64::try_from(silent).unwrap_or(i64::MAX));
        });
    }

    /// Whether a request may go to `group`: with the passage that it has, or with one that it gets here. The control group is open
    /// to everybody: a gateway asks it for itself, also before there is a cluster, and requests to drives do not wait for it.
    pub(super) fn admits(&self, passage: &mut Option<Passage>, group: GroupId) -> bool {
        if group == CONTROL_GROUP || passage.as_ref().is_some_and(|held| held.group == group) {
            return true;
        }
        // What it had for another group ends first: both take the lock.
        *passage = None;
        let clock = Arc::clone(&self.seams.clock);
        let leave = locked(&self.silences).enter(group, clock.monotonic());
        *passage = leave.map(|leave| Passage {
            silences: Arc::clone(&self.silences),
            clock,
            group,
            leave,
        });
        if passage.is_none() {
            let refused = self.seams.metrics.counter(&metrics::SILENT_GROUP_REFUSED);
            refused.with_label_values::<&str>(&[]).inc();
        }
        passage.is_some()
    }
}

fn locked(silences: &Mutex<Silences>) -> MutexGuard<'_, Silences> {
    // Each event is complete on its own, so a panic elsewhere leaves nothing half done.
    silences.lock().unwrap_or_else(PoisonError::into_inner)
}
