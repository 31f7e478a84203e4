//! Who breaks things: cuts one way and both, losses, slow disks, wrong clocks, deaths and power cuts, all drawn from the seed.
//!
//! Now and then one replica is away for so long that the log of the others begins behind what it has.
//! It acts between the steps of the simulation, and takes back what it did when its time has come, all of it at the end.
//! Not here: what is allowed to suffer; anything is, and the oracles say what must hold all the same.

use crate::world::processes::Ground;
use crate::world::shape::{self, GATEWAY, host};
use crate::world::trace::Kind;
use daemon::random::Random;
use model::id::GroupId;
use model::process::{ProcessId, Role};
use std::collections::BTreeSet;
use std::time::Duration;
use turmoil::Sim;

const PAUSE_MIN: Duration = Duration::from_millis(150);
const PAUSE_MAX: Duration = Duration::from_millis(1_500);
const CUT_MAX: Duration = Duration::from_millis(3_500);
const DEAD_MAX: Duration = Duration::from_millis(3_000);
/// How long a replica is away whose log is to end: some marks of the others fit (`kind`).
const AWAY_MIN: Duration = Duration::from_secs(8);
const AWAY_MAX: Duration = Duration::from_secs(20);
const SLOW_MAX: Duration = Duration::from_millis(400);
const DAY_MS: i64 = 24 * 3600 * 1000;

/// What has to be taken back.
#[derive(Clone, Copy, Debug)]
enum Mend {
    Way(ProcessId, ProcessId),
    Life(ProcessId),
    /// What a replica was away by: a death, or else cuts.
    Away(ProcessId, Absence),
    Losses,
    Disk(ProcessId),
}

/// How a replica is away for long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Absence {
    Dead,
    CutOff,
}

/// The nemesis of one world.
pub struct Nemesis {
    ground: Ground,
    random: Random,
    next_at: Duration,
    owed: Vec<(Duration, Mend)>,
}

impl Nemesis {
    /// Begins at once with what `random` says.
    #[must_use]
    pub fn new(ground: Ground, random: Random) -> Self {
        Self {
            ground,
            random,
            next_at: Duration::ZERO,
            owed: Vec::new(),
        }
    }

    /// Takes back what is due, and perhaps does something. `elected` names who was seen to lead a group since the last step.
    pub fn step(&mut self, sim: &mut Sim<'_>, elected: &[(GroupId, ProcessId)]) {
        let now = sim.elapsed();
        let (due, owed) = std::mem::take(&mut self.owed)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.owed = owed;
        for (_, mend) in Vec::<(Duration, Mend)>::from_iter(due) {
            self.mend(sim, mend);
        }
        if let Some((group, leader)) = elected.first() {
            self.trouble_election(sim, *group, *leader, now);
        }
        if now >= self.next_at {
            self.next_at = now + PAUSE_MIN + self.random.up_to(PAUSE_MAX - PAUSE_MIN);
            self.act(sim, now);
        }
    }

    /// A new leader is where votes and recovery show what they are worth.
    fn trouble_election(&mut self, sim: &mut Sim<'_>, group: GroupId, leader: ProcessId, now: Duration) {
        let voters = shape::replicas().filter(|voter| *voter != leader);
        match self.random.below(6) {
            // Votes are only as good as their syncs: cut the power of those who have just voted.
            0 => {
                self.note(leader, &format!("voters of group {group} are cut off"));
                self.isolate(sim, leader, now);
                for voter in voters {
                    self.end(sim, voter, true, now);
                }
            }
            // What was committed under an earlier leader is known to be so only once this one's own entry is: that takes long now.
            1 | 2 => {
                self.note(leader, &format!("voters of group {group} have slow disks"));
                for voter in voters {
                    self.ground.faults.slow(voter, 2 * SLOW_MAX);
                    self.owe(now, 3 * SLOW_MAX, Mend::Disk(voter));
                }
            }
            _ => {}
        }
    }

    /// Takes everything back.
    pub fn end_all(&mut self, sim: &mut Sim<'_>) {
        for (_, mend) in std::mem::take(&mut self.owed) {
            self.mend(sim, mend);
        }
        self.ground.faults.end();
        self.note(GATEWAY, "peace");
    }

    fn note(&self, process: ProcessId, what: &str) {
        self.ground.trace.note(Kind::Fault, process, format_args!("{what}"));
        tracing::info!(%process, what, "nemesis");
    }

    fn pick(&self, among: impl Iterator<Item = ProcessId>) -> ProcessId {
        let among: Vec<ProcessId> = among.collect();
        let at = self.random.below(among.len() as u64);
        among[usize::try_from(at).expect("an index of a short list")]
    }

    fn act(&mut self, sim: &mut Sim<'_>, now: Duration) {
        match self.random.below(101) {
            0..=15 => {
                let (from, to) = (self.pick(shape::all()), self.pick(shape::all()));
                self.cut(sim, from, to, now);
            }
            16..=23 => {
                let process = self.pick(shape::replicas().chain(shape::nodes()));
                if process.role == Role::Metadata && self.random.below(2) == 0 {
                    self.part(sim, process, now);
                } else {
                    self.isolate(sim, process, now);
                }
            }
            24..=30 => {
                self.ground.faults.lose(5 + self.random.below(60));
                self.owe(now, CUT_MAX, Mend::Losses);
                self.note(GATEWAY, "losses");
            }
            31..=40 => {
                let process = self.pick(shape::replicas().chain(shape::nodes()));
                self.ground.faults.slow(process, self.random.up_to(SLOW_MAX));
                self.owe(now, CUT_MAX, Mend::Disk(process));
                self.note(process, "slow disk");
            }
            41..=46 => {
                let process = self.pick(shape::all());
                let days = i64::try_from(self.random.below(121)).expect("below 121") - 60;
                self.ground.faults.set_wrong(process, days * DAY_MS);
                self.note(process, "wrong clock");
            }
            47..=59 => {
                let process = self.pick(shape::nodes());
                let is_power_cut = self.random.below(2) == 0;
                self.end(sim, process, is_power_cut, now);
            }
            60..=66 => {
                // What they had applied and not synced is gone; the log has it all.
                for process in shape::replicas() {
                    self.end(sim, process, true, now);
                }
            }
            67..=78 => {
                let process = self.pick(shape::replicas());
                let is_power_cut = self.random.below(2) == 0;
                self.end(sim, process, is_power_cut, now);
            }
            79..=95 => {
                let leaders = self.leaders();
                if !leaders.is_empty() {
                    let leader = self.pick(leaders.into_iter().map(|(_, leader)| leader));
                    let is_power_cut = self.random.below(2) == 0;
                    self.end(sim, leader, is_power_cut, now);
                }
            }
            96..=97 => {
                for process in shape::nodes().filter(|node| node.number % 2 == now.as_millis() as u64 % 2) {
                    self.isolate(sim, process, now);
                }
            }
            98..=99 => {
                for process in shape::replicas().chain(shape::nodes()) {
                    self.end(sim, process, true, now);
                }
            }
            _ => self.keep_away(sim, now),
        }
    }

    /// Who leads the drive groups, as they say themselves.
    fn leaders(&self) -> Vec<(GroupId, ProcessId)> {
        let running = self.ground.running();
        let leads = |(process, group): (ProcessId, GroupId)| {
            let replica = running.get(&process)?.groups().get(&group)?;
            replica.is_leader().then_some((group, process))
        };
        shape::groups()
            .flat_map(|group| shape::replicas().map(move |process| (process, group)))
            .filter_map(leads)
            .collect()
    }

    fn owe(&mut self, now: Duration, span_max: Duration, mend: Mend) {
        let at = now + Duration::from_millis(50) + self.random.up_to(span_max);
        self.owed.push((at, mend));
    }

    fn cut(&mut self, sim: &mut Sim<'_>, from: ProcessId, to: ProcessId, now: Duration) {
        if from != to {
            sim.partition_oneway(host(from), host(to));
            self.owe(now, CUT_MAX, Mend::Way(from, to));
            self.note(from, &format!("cut towards {to}"));
        }
    }

    /// From the other replicas alone: its users still reach it, and whether it leads any more it cannot know.
    fn part(&mut self, sim: &mut Sim<'_>, process: ProcessId, now: Duration) {
        for other in shape::replicas().filter(|other| *other != process) {
            self.cut(sim, process, other, now);
            self.cut(sim, other, process, now);
        }
    }

    fn isolate(&mut self, sim: &mut Sim<'_>, process: ProcessId, now: Duration) {
        for other in shape::all().filter(|other| *other != process) {
            self.cut(sim, process, other, now);
            self.cut(sim, other, process, now);
        }
    }

    /// Keeps a replica away for long, dead or cut off from everybody; one at a time, so that the others are a majority. One that leads
    /// nothing where there is one: of what is under way at a leader then nobody knows whether it happened.
    fn keep_away(&mut self, sim: &mut Sim<'_>, now: Duration) {
        if self.owed.iter().any(|(_, mend)| matches!(mend, Mend::Away(..))) {
            return;
        }
        let leading: BTreeSet<ProcessId> = self.leaders().into_iter().map(|(_, leader)| leader).collect();
        let running: Vec<ProcessId> = shape::replicas()
            .filter(|replica| sim.is_host_running(host(*replica)))
            .collect();
        let following: Vec<ProcessId> = running
            .iter()
            .filter(|replica| !leading.contains(replica))
            .copied()
            .collect();
        let among = if following.is_empty() { running } else { following };
        if among.is_empty() {
            return;
        }
        let process = self.pick(among.into_iter());
        let absence = match self.random.below(4) {
            0 => {
                let others = shape::all().filter(|other| *other != process);
                others.for_each(|other| part_both(sim, process, other));
                Absence::CutOff
            }
            draw => {
                self.kill(sim, process, draw == 1);
                Absence::Dead
            }
        };
        let until = now + AWAY_MIN + self.random.up_to(AWAY_MAX - AWAY_MIN);
        self.owed.push((until, Mend::Away(process, absence)));
        self.note(process, &format!("away, {absence:?}"));
    }

    fn end(&mut self, sim: &mut Sim<'_>, process: ProcessId, is_power_cut: bool, now: Duration) {
        if sim.is_host_running(host(process)) {
            self.kill(sim, process, is_power_cut);
            self.owe(now, DEAD_MAX, Mend::Life(process));
        }
    }

    fn kill(&self, sim: &mut Sim<'_>, process: ProcessId, is_power_cut: bool) {
        self.ground.running().remove(&process);
        sim.crash(host(process));
        self.ground.storage.ended(process, is_power_cut);
        self.note(process, if is_power_cut { "power cut" } else { "killed" });
    }

    fn mend(&self, sim: &mut Sim<'_>, mend: Mend) {
        match mend {
            Mend::Way(from, to) => sim.repair_oneway(host(from), host(to)),
            Mend::Life(process) => {
                sim.bounce(host(process));
                self.note(process, "started");
            }
            Mend::Away(process, Absence::Dead) => {
                sim.bounce(host(process));
                self.note(process, "is back");
            }
            Mend::Away(process, Absence::CutOff) => {
                for other in shape::all().filter(|other| *other != process) {
                    sim.repair_oneway(host(process), host(other));
                    sim.repair_oneway(host(other), host(process));
                }
                self.note(process, "is back");
            }
            Mend::Losses => self.ground.faults.lose(0),
            Mend::Disk(process) => self.ground.faults.slow(process, Duration::ZERO),
        }
    }
}

fn part_both(sim: &Sim<'_>, one: ProcessId, other: ProcessId) {
    sim.partition_oneway(host(one), host(other));
    sim.partition_oneway(host(other), host(one));
}
