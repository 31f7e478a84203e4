//! Looks how much space is left under the log, and hands leadership over while it is little.
//!
//! Whether a successor has room is not known here, so a shortage hands over at once and then only now and then, to each in turn:
//! where all have little, leadership goes round slowly and whoever has it refuses commands (`space`).
//! Invariants: a replica that has room again refuses nothing and hands nothing over; the clock of one that waits for the disk to take a
//! vote rests, however long that lasts.

use crate::group::Group;
use crate::metrics;
use crate::space::Space;
use async_trait::async_trait;
use daemon::clock::Clock;
use daemon::metrics::Metrics;
use daemon::worker::{Next, StepError, Worker};
use model::id::GroupId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How often; what may be written meanwhile is part of the bounds (`space`).
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Leadership may have come back by an election, and others may have room by now; each costs a group a moment. A guess.
const HAND_OVER_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Keeps a process from writing its disk full.
pub struct SpaceKeeper {
    groups: BTreeMap<GroupId, Arc<Group>>,
    space: Arc<Space>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    /// When leadership was handed over last, in this shortage.
    handed_over_at: Option<Duration>,
    /// How often: each time another successor gets its turn.
    turns: usize,
    is_told: bool,
}

impl SpaceKeeper {
    /// For all groups of a process and the disk of their log.
    pub fn new(
        groups: BTreeMap<GroupId, Arc<Group>>,
        space: Arc<Space>,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Self {
        Self {
            groups,
            space,
            clock,
            metrics,
            handed_over_at: None,
            turns: 0,
            is_told: false,
        }
    }

    async fn step_down(&mut self) {
        let led: Vec<&Arc<Group>> = self.groups.values().filter(|group| group.is_leader()).collect();
        if led.is_empty() {
            return;
        }
        let now = self.clock.monotonic();
        let is_due = self
            .handed_over_at
            .is_none_or(|at| now.saturating_sub(at) >= HAND_OVER_AGAIN_AFTER);
        if !is_due {
            self.space.refuse();
            return;
        }
        let mut has_successor = false;
        for group in led {
            let successors = group.successors();
            if let Some(successor) = successors.get(self.turns % successors.len().max(1)) {
                has_successor |= group.hand_over(*successor).await;
            }
        }
        self.handed_over_at = Some(now);
        self.turns += 1;
        if !has_successor {
            self.space.refuse();
        }
    }
}

#[async_trait]
impl Worker for SpaceKeeper {
    fn name(&self) -> String {
        "space-keeper".to_owned()
    }

    fn backlog(&self) -> u64 {
        0
    }

    async fn step(&mut self) -> Result<Next, StepError> {
        // First, so that a disk which does not tell what it has left keeps no clock at rest.
        let is_held = self.space.is_held();
        self.groups.values().for_each(|group| group.rest_clock(is_held));
        let free_bytes = self.space.look()?;
        let gauge = self.metrics.gauge(&metrics::DISK_FREE_BYTES);
        gauge
            .with_label_values::<&str>(&[])
            .set(i64::try_from(free_bytes).unwrap_or(i64::MAX));
        if self.space.is_short() {
            if !self.is_told {
                tracing::warn!(
                    free_bytes,
                    "metadata disk is nearly full: this replica gives up leading"
                );
            }
            self.is_told = true;
            self.step_down().await;
        } else if self.is_told {
            tracing::info!(free_bytes, "metadata disk has room again");
            self.is_told = false;
            self.handed_over_at = None;
        }
        Ok(Next::Together(LOOK_EVERY))
    }
}
