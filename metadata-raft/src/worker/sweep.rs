//! Works off what commands left behind: jobs of purges, the trash's end of life, sessions, versions and changes past their age, pages
//! nobody counts, blocks past their grace.
//!
//! Runs where a drive group is led. What waits stands in the group's queue, which `apply` keeps: a look is one short range of keys,
//! and between two looks the worker sleeps until `apply` enters something or the first row is due. So millions of drives with nothing
//! to do cost nothing.
//! Whoever waits for an answer goes first: one command is under way at a time, it is short, and while others' commands come in, the
//! worker rests after each for several times as long as it took. A slow group is thereby left alone the more.
//! Invariants: each command is bounded by the state; this worker only says where to go on, and a wrong say is refused. What is due is
//! visited in turns, one command each, so that one large job holds up no other.
//! Not here: tombstones of dead stripes, repacking and packing of small contents (the gateway's collector).

use super::{WorkError, command};
use crate::group::{Group, GroupError};
use crate::metrics;
use crate::state::age;
use crate::state::store::Stop;
use crate::state::waiting::{self, Queue, Sweep, Work};
use async_trait::async_trait;
use bytes::Bytes;
use daemon::clock::Clock;
use daemon::metrics::Metrics;
use daemon::random::Random;
use daemon::worker::{Next, StepError, Worker};
use model::id::GroupId;
use protocol::codes;
use protocol::metadata::drive::DriveCommand;
use protocol::metadata::upload::UploadCommand;
use protocol::metadata::{Command, CommandAnswer};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// How often a follower looks whether it leads by now; a job that a dead leader left waits this long more.
pub(super) const LEAD_LOOK_EVERY: Duration = Duration::from_secs(2);
/// Pieces of work read at a time.
pub(super) const ROUND: usize = 64;
/// A group's time lags the world's, so what is due by the world is looked at again after this, and not at once.
pub(super) const SLEEP_MIN: Duration = Duration::from_secs(1);
/// Nothing waits that long unlooked at, whatever was missed.
pub(super) const SLEEP_MAX: Duration = Duration::from_secs(3_600);
/// Rest after a command, in times of what it took, while others' commands come in: a fifth of the time is the sweeper's. Measured
/// with the example `purge`, see decision 0033.
const REST_FACTOR: u32 = 4;
/// The longest rest: a job goes on also where everything is slow.
const REST_MAX: Duration = Duration::from_millis(250);

/// Sweeps one drive group.
pub struct SweepWorker {
    id: GroupId,
    group: Arc<Group>,
    clock: Arc<dyn Clock>,
    random: Random,
    metrics: Metrics,
    round: VecDeque<Work>,
    /// Where this turn goes on behind the round; `None` at its end.
    behind: Option<Bytes>,
    /// The group's counter when this turn began: what comes later waits for the next one, so that what went on waiting comes again.
    turn_ms: u64,
    /// The last entry applied that this worker knows of.
    seen: Option<u64>,
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
            round: VecDeque::new(),
            behind: None,
            turn_ms: 0,
            seen: None,
        }
    }

    /// Reads the state as it is here: a row too old is refused by the state, a row too new wakes this worker when it comes. Answers the
    /// group's counter with it.
    async fn look(&self) -> Result<(u64, Queue), WorkError> {
        let (group, behind) = (Arc::clone(&self.group), self.behind.clone());
        let read =
            move || group.read(|kv| Ok::<_, Stop>((age::counter_ms(kv)?, waiting::queue(kv, behind.as_ref(), ROUND)?)));
        let read = daemon::blocking::run(read).await.map_err(|panic| GroupError::Bug {
            group: self.id,
            detail: panic.to_string(),
        })?;
        read.map_err(|stop| match stop {
            Stop::Refused(failure) => WorkError::Refused(*failure),
            Stop::Store(error) => {
                self.group.end_on(&error);
                GroupError::from(error).into()
            }
        })
    }

    async fn sweep(&self, work: Work) -> Result<(), WorkError> {
        let (drive, job) = (work.drive, work.number);
        let (what, sweep) = match work.sweep {
            Sweep::Job => ("job", Command::Drive(DriveCommand::SweepJob { drive, job })),
            Sweep::Pages => ("page", Command::Drive(DriveCommand::ReapPages { drive })),
            Sweep::Trash => {
                let job = self.random.u64();
                ("trash", Command::Drive(DriveCommand::SweepTrash { drive, job }))
            }
            Sweep::Sessions => ("session", Command::Upload(UploadCommand::SweepSessions { drive })),
            Sweep::Requests => ("request", Command::Drive(DriveCommand::SweepRequests { drive })),
            Sweep::Versions => ("version", Command::Drive(DriveCommand::SweepVersions { drive })),
            Sweep::Dropped => ("dropped", Command::Drive(DriveCommand::SweepDropped { drive })),
            Sweep::Blocks => ("block", Command::Drive(DriveCommand::SweepBlocks { drive })),
            Sweep::Feed => ("change", Command::Drive(DriveCommand::SweepFeed { drive })),
            Sweep::Rewinds => ("rewind", Command::Drive(DriveCommand::SweepRewinds { drive })),
        };
        match command(&self.group, self.clock.as_ref(), sweep).await {
            Ok(CommandAnswer::Swept(swept)) => {
                let counter = self.metrics.counter(&metrics::SWEPT).with_label_values(&[what]);
                counter.inc_by(u64::from(swept.operations));
                Ok(())
            }
            // Done since the look, by a leader before or by this one in an answer that came too late.
            Err(WorkError::Refused(failure)) if codes::JOB_NOT_FOUND.is(&failure) => Ok(()),
            answered => answered.map(drop),
        }
    }

    /// Rests after a command that took so long, if others wait for theirs.
    async fn rest(&mut self, took: Duration) {
        let own = 1;
        let applied = self.group.applied_index();
        let is_alone = self
            .seen
            .zip(applied)
            .is_some_and(|(seen, applied)| applied <= seen + own);
        self.seen = applied;
        if !is_alone {
            self.clock.sleep((took * REST_FACTOR).min(REST_MAX)).await;
        }
    }
}

#[async_trait]
impl Worker for SweepWorker {
    fn name(&self) -> String {
        format!("sweep {}", self.id)
    }

    fn backlog(&self) -> u64 {
        self.round.len() as u64
    }

    async fn step(&mut self) -> Result<Next, StepError> {
        if !self.group.is_leader() {
            self.round.clear();
            self.behind = None;
            return Ok(Next::Together(LEAD_LOOK_EVERY));
        }
        if self.round.is_empty() {
            let is_turn_begun = self.behind.is_some();
            let (now_ms, mut queue) = self.look().await?;
            if !is_turn_begun {
                self.turn_ms = now_ms;
            }
            queue.due.retain(|(key, _)| waiting::due_ms(key) <= self.turn_ms);
            let is_whole = queue.due.len() < ROUND;
            self.behind = queue.due.last().filter(|_| !is_whole).map(|(key, _)| key.clone());
            self.round = queue.due.into_iter().map(|(_, work)| work).collect();
            if self.round.is_empty() {
                return Ok(match queue.next_in {
                    // What this turn has left due begins the next one.
                    _ if is_turn_begun => Next::Now,
                    Some(next_in) => Next::After(next_in.clamp(SLEEP_MIN, SLEEP_MAX)),
                    None => Next::After(SLEEP_MAX),
                });
            }
        }
        let Some(work) = self.round.pop_front() else {
            return Ok(Next::Now);
        };
        let begun = self.clock.monotonic();
        self.sweep(work).await?;
        let took = self.clock.monotonic().saturating_sub(begun);
        self.rest(took).await;
        Ok(Next::Now)
    }
}
