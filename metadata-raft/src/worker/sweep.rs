//! Works off what commands left behind: jobs of purges, the trash's end of life, sessions past their age, pages nobody counts.
//!
//! Runs where a drive group is led. A round visits the group's slots some hundreds at a time, so that a step stays short; jobs and
//! released pages are looked at in every round, what goes by age in few, since ages are hours and days.
//! Invariant: each command is bounded by the state (1,000 sub-operations); this worker only says where to go on.
//! Not here: repacking, tombstones of dead stripes and packing of inline files (a later issue).

use super::{WorkError, command, query};
use crate::group::Group;
use crate::metrics;
use crate::service;
use async_trait::async_trait;
use daemon::clock::Clock;
use daemon::metrics::Metrics;
use daemon::random::Random;
use daemon::worker::{Next, StepError, Worker};
use model::id::{DriveId, GroupId, Slot};
use protocol::frame::encode;
use protocol::metadata::drive::DriveCommand;
use protocol::metadata::query::{DriveAsk, DriveQuery, ROWS_MAX, UserQuery};
use protocol::metadata::upload::UploadCommand;
use protocol::metadata::{Command, CommandAnswer, Query, QueryAnswer, Reply};
use std::sync::Arc;
use std::time::Duration;

/// Slots of one step: one read-index, and a scan of an empty range each, about 10 us. All 4096 of them take four seconds, so a
/// purge's space is back soon.
const SLOTS_PER_STEP: usize = 512;
const STEP_EVERY: Duration = Duration::from_millis(500);
/// Ages are hours and days; jobs are now. Five minutes of rounds of all slots.
const AGED_ROUNDS: u64 = 80;

/// Sweeps one drive group.
pub struct SweepWorker {
    id: GroupId,
    group: Arc<Group>,
    clock: Arc<dyn Clock>,
    random: Random,
    metrics: Metrics,
    slots_left: Vec<Slot>,
    round: u64,
    backlog: u64,
}

impl SweepWorker {
    /// Sweeps `group`, whose id is `id`.
    pub fn new(id: GroupId, group: Arc<Group>, clock: Arc<dyn Clock>, random: Random, metrics: Metrics) -> Self {
        Self {
            id,
            group,
            clock,
            random,
            metrics,
            slots_left: Vec::new(),
            round: 0,
            backlog: 0,
        }
    }

    async fn next_slots(&mut self) -> Result<Vec<Slot>, WorkError> {
        if self.slots_left.is_empty()
            && let QueryAnswer::Group(state) = query(self.id, &self.group, &Query::Group).await?
        {
            self.slots_left = state.slots;
            self.round += 1;
        }
        let from = self.slots_left.len().saturating_sub(SLOTS_PER_STEP);
        Ok(self.slots_left.split_off(from))
    }

    /// The home drives of the slots' users.
    async fn drives(&self, slots: &[Slot]) -> Result<Vec<(Slot, DriveId)>, WorkError> {
        let list = |slot: &Slot| {
            encode(&Query::User(UserQuery::List {
                slot: *slot,
                after: None,
            }))
        };
        let queries = slots.iter().map(list).collect::<Result<Vec<_>, _>>()?;
        let answers = service::ask_all(self.id, &self.group, queries).await?;
        let mut drives = Vec::new();
        for (slot, answer) in slots.iter().zip(answers) {
            let mut answer = Reply::<QueryAnswer>::from_bytes(&answer)?.result?;
            while let QueryAnswer::Users(users) = answer {
                drives.extend(users.iter().map(|user| (*slot, user.home)));
                let after = users.last().map(|user| user.user).filter(|_| users.len() >= ROWS_MAX);
                if after.is_none() {
                    break;
                }
                let next = UserQuery::List { slot: *slot, after };
                answer = query(self.id, &self.group, &Query::User(next)).await?;
            }
        }
        Ok(drives)
    }

    /// True when something is left to do at once.
    async fn sweep_drive(&self, drive: DriveId) -> Result<bool, WorkError> {
        let mut has_more = false;
        let waiting = DriveQuery {
            drive,
            principal: None,
            ask: DriveAsk::Waiting,
        };
        if let QueryAnswer::Waiting(waiting) = query(self.id, &self.group, &Query::Drive(waiting)).await? {
            for job in waiting.jobs {
                self.sweep("job", Command::Drive(DriveCommand::SweepJob { drive, job: job.job }))
                    .await?;
                // Also when the job is done: it mostly leaves pages behind.
                has_more = true;
            }
            if waiting.has_released_pages {
                has_more |= self
                    .sweep("page", Command::Drive(DriveCommand::ReapPages { drive }))
                    .await?;
            }
        }
        if self.round.is_multiple_of(AGED_ROUNDS) || has_more {
            let job = self.random.u64();
            has_more |= self
                .sweep("trash", Command::Drive(DriveCommand::SweepTrash { drive, job }))
                .await?;
            has_more |= self
                .sweep("session", Command::Upload(UploadCommand::SweepSessions { drive }))
                .await?;
            has_more |= self
                .sweep("request", Command::Drive(DriveCommand::SweepRequests { drive }))
                .await?;
        }
        Ok(has_more)
    }

    async fn sweep(&self, what: &str, sweep: Command) -> Result<bool, WorkError> {
        match command(&self.group, self.clock.as_ref(), sweep).await? {
            CommandAnswer::Swept(swept) => {
                let counter = self.metrics.counter(&metrics::SWEPT).with_label_values(&[what]);
                counter.inc_by(u64::from(swept.operations));
                Ok(!swept.is_done)
            }
            _ => Ok(false),
        }
    }
}

#[async_trait]
impl Worker for SweepWorker {
    fn name(&self) -> String {
        format!("sweep {}", self.id)
    }

    fn backlog(&self) -> u64 {
        self.backlog
    }

    async fn step(&mut self) -> Result<Next, StepError> {
        if !self.group.is_leader() {
            self.slots_left.clear();
            return Ok(Next::After(STEP_EVERY));
        }
        self.backlog = 0;
        let slots = self.next_slots().await?;
        for (slot, drive) in self.drives(&slots).await? {
            if self.sweep_drive(drive).await? {
                self.backlog += 1;
                // Come back to this slot first.
                self.slots_left.push(slot);
            }
        }
        Ok(if self.backlog > 0 {
            Next::Now
        } else {
            Next::After(STEP_EVERY)
        })
    }
}
