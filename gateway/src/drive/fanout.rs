//! Writes the k+m fragments of a stripe and decides when and how well they are stored: a pure machine.
//!
//! Place in the picture: `stripe_writer` carries its actions out and feeds the answers back. Each fragment goes to its disk of the
//! row; a disk that misses its deadline, fails or is known to be away is replaced by a hand-off. A row that turns out to be old is
//! replaced by the newer one and everything is counted again: what is durable is confirmed there without its bytes.
//! Invariants: a fragment counts only under the present row version; no disk is asked to hold two fragments; a stale row is an
//! answer, not a fault of the disk; the outcome is told once, and what is not counted then is in `astray`.
//! Not here: bytes, calls and breakers (`stripe_writer`), the ack rule and the choice of hand-offs (`placement`).

use model::cluster::ClusterMap;
use model::id::{DiskId, RowVersion};
use model::layout::Row;
use model::profile::Profile;
use model::stripe::{Astray, StripeId};
use placement::ack::{Ack, HeldFragment, TakenFragment, ack, astray};
use placement::handoff::{Handoff, choose_handoff};
use protocol::metadata::upload::Survival;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// A plan changes rows rarely; whoever meets more newer rows than this during one write is being fed nonsense.
const ROW_CHANGES_MAX: u32 = 8;
/// A disk may say once or twice that the bytes were damaged on their way.
const RESENDS_MAX: u32 = 2;

/// Disks not to ask now, since they failed a moment ago.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spared {
    /// They did not answer, or refused for a reason that may pass.
    pub away: BTreeSet<DiskId>,
    /// They have no room.
    pub full: BTreeSet<DiskId>,
}

/// How long to wait for what.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// A disk that has not answered by then is replaced.
    pub disk: Duration,
    /// The outcome is told by then, with what is durable.
    pub whole: Duration,
}

/// Why a disk did not take a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreFault {
    /// Nothing was stored, surely: the node says that the disk is read-only or missing.
    Refused,
    /// Nothing was stored, surely: its node cannot be reached.
    Unreachable,
    /// Nothing was stored for want of room.
    Full,
    /// No answer: it may have been stored.
    Unanswered,
    /// The bytes did not arrive as they were sent.
    Damaged,
    /// The name is taken by other bytes.
    OtherContent,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The fragment of this request is durable under the request's row version.
    Stored(u32),
    /// A confirmation found nothing.
    Absent(u32),
    /// The request's row is old; this one is newer.
    Stale(u32, Row),
    /// The request failed.
    Failed(u32, StoreFault),
    /// Time went on.
    Tick,
}

/// A request to a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Send {
    /// Names the answer.
    pub request: u32,
    /// Fragment index.
    pub index: u8,
    /// To which disk.
    pub disk: DiskId,
    /// Under which row version.
    pub row_version: RowVersion,
    /// Ask whether it is there instead of sending the bytes.
    pub is_confirmation: bool,
}

/// How the write ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Durable by the ack rule.
    Durable(Durable),
    /// Fewer fragments are durable than the floor demands.
    BelowFloor {
        /// How many are.
        stored: usize,
        /// Whether the stripe would be whole if the disks that were met full had room: waiting for others is in vain then.
        is_full: bool,
    },
    /// The stripe's name is taken by other bytes: draw a new one and write again.
    NameTaken,
}

/// What is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durable {
    /// Counted under this version.
    pub row_version: RowVersion,
    /// Fragments that are missing or lie outside the row, ascending by index.
    pub astray: Vec<Astray>,
    /// For the receipt.
    pub survival: Survival,
    /// Fragments that lie on a hand-off.
    pub hand_offs: u32,
}

#[derive(Clone, Debug)]
struct Flight {
    disk: DiskId,
    index: u8,
    version: RowVersion,
    sent_at: Duration,
    is_confirmation: bool,
    is_late: bool,
}

#[derive(Clone, Debug, Default)]
struct Lane {
    held: Option<(DiskId, RowVersion)>,
    is_given_up: bool,
}

/// The machine; see the page above.
#[derive(Debug)]
pub struct Fanout {
    stripe: StripeId,
    profile: Profile,
    map: Arc<ClusterMap>,
    row: Row,
    patience: Patience,
    started_at: Duration,
    lanes: Vec<Lane>,
    flights: BTreeMap<u32, Flight>,
    unusable: BTreeSet<DiskId>,
    /// Those of the unusable disks that have no room.
    full: BTreeSet<DiskId>,
    /// Those that gave no answer.
    silent: BTreeSet<DiskId>,
    /// Disks that answered, with whatever.
    heard: BTreeSet<DiskId>,
    requests: u32,
    row_changes: u32,
    resends: u32,
    outcome: Option<Outcome>,
}

impl Fanout {
    /// Begins to write `stripe` to `row`, which has one disk a fragment of `profile`; disks that are spared are replaced at once.
    pub fn new(
        stripe: StripeId,
        profile: Profile,
        (map, row): (Arc<ClusterMap>, Row),
        spared: Spared,
        patience: Patience,
        now: Duration,
    ) -> Self {
        let unusable = spared.away.union(&spared.full).copied().collect();
        assert_eq!(row.disks.len(), profile.fragments(), "a row has one disk a fragment");
        Self {
            lanes: vec![Lane::default(); profile.fragments()],
            stripe,
            profile,
            map,
            row,
            patience,
            started_at: now,
            flights: BTreeMap::new(),
            unusable,
            full: spared.full,
            silent: BTreeSet::new(),
            heard: BTreeSet::new(),
            requests: 0,
            row_changes: 0,
            resends: 0,
            outcome: None,
        }
    }

    /// How it ended; `None` while it goes on.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }

    /// The newest row met; worth keeping for the next stripe.
    pub fn row(&self) -> &Row {
        &self.row
    }

    /// Takes an event and says what to send now. After the outcome nothing is sent and answers change nothing.
    pub fn handle(&mut self, now: Duration, event: Event) -> Vec<Send> {
        if self.outcome.is_some() {
            return Vec::new();
        }
        if let Event::Stored(request) | Event::Absent(request) | Event::Stale(request, _) = &event {
            self.hear(*request);
        }
        match event {
            Event::Tick => {}
            Event::Stored(request) => {
                if let Some(flight) = self.flights.remove(&request) {
                    let lane = &mut self.lanes[usize::from(flight.index)];
                    // A late answer of the first disk and one of its hand-off may both come; the newer count stays, then the first.
                    if lane.held.is_none_or(|(_, version)| version < flight.version) {
                        lane.held = Some((flight.disk, flight.version));
                    }
                }
            }
            Event::Absent(request) => {
                if let Some(flight) = self.flights.remove(&request) {
                    self.lanes[usize::from(flight.index)].held = None;
                }
            }
            Event::Stale(request, row) => self.recount(request, row),
            Event::Failed(request, fault) => self.fail(request, fault),
        }
        self.miss_deadlines(now);
        let sends = self.send(now);
        self.settle(now);
        if self.outcome.is_some() { Vec::new() } else { sends }
    }

    /// Disks that gave no answer in time, and the others of their nodes if none of those answered either: worth sparing.
    pub fn silent(&self) -> BTreeSet<DiskId> {
        let node_of = |disk: &DiskId| self.map.node_of(*disk);
        let heard: BTreeSet<_> = self.heard.iter().filter_map(node_of).collect();
        let silent = self.silent.iter().filter_map(node_of);
        let whole = silent
            .filter(|node| !heard.contains(node))
            .flat_map(|node| self.map.disks_of(node));
        whole.chain(self.silent.iter().copied()).collect()
    }

    /// When to send the next `Tick`, if no answer comes before.
    pub fn wake_at(&self) -> Duration {
        let disks = self
            .flights
            .values()
            .filter(|flight| !flight.is_late)
            .map(|flight| flight.sent_at + self.patience.disk);
        disks.fold(self.started_at + self.patience.whole, Duration::min)
    }

    fn hear(&mut self, request: u32) {
        if let Some(flight) = self.flights.get(&request) {
            self.heard.insert(flight.disk);
            self.silent.remove(&flight.disk);
        }
    }

    fn fail(&mut self, request: u32, fault: StoreFault) {
        match fault {
            StoreFault::Unreachable | StoreFault::Unanswered => {
                self.silent.extend(self.flights.get(&request).map(|flight| flight.disk));
            }
            _ => self.hear(request),
        }
        let Some(flight) = self.flights.remove(&request) else {
            return;
        };
        match fault {
            StoreFault::OtherContent => self.outcome = Some(Outcome::NameTaken),
            StoreFault::Damaged if self.resends < RESENDS_MAX => self.resends += 1,
            _ => {
                self.unusable.insert(flight.disk);
                if fault == StoreFault::Full {
                    self.full.insert(flight.disk);
                }
                let lane = &mut self.lanes[usize::from(flight.index)];
                // What cannot be confirmed does not count, and the bytes go elsewhere.
                if flight.is_confirmation && lane.held.is_some_and(|(disk, _)| disk == flight.disk) {
                    lane.held = None;
                }
            }
        }
    }

    fn recount(&mut self, request: u32, row: Row) {
        self.flights.remove(&request);
        if row.version <= self.row.version || row.disks.len() != self.profile.fragments() {
            return;
        }
        self.row_changes += 1;
        self.row = row;
        for lane in &mut self.lanes {
            lane.is_given_up = false;
        }
    }

    fn miss_deadlines(&mut self, now: Duration) {
        for flight in self.flights.values_mut().filter(|flight| !flight.is_late) {
            if now >= flight.sent_at + self.patience.disk {
                flight.is_late = true;
                self.unusable.insert(flight.disk);
                self.silent.insert(flight.disk);
                let lane = &mut self.lanes[usize::from(flight.index)];
                if flight.is_confirmation && lane.held.is_some_and(|(disk, _)| disk == flight.disk) {
                    lane.held = None;
                }
            }
        }
    }

    fn send(&mut self, now: Duration) -> Vec<Send> {
        if self.row_changes > ROW_CHANGES_MAX || self.outcome.is_some() {
            return Vec::new();
        }
        let mut sends = Vec::new();
        for index in 0..self.profile.fragments() as u8 {
            let lane = &self.lanes[usize::from(index)];
            let is_counted = lane.held.is_some_and(|(_, version)| version == self.row.version);
            let is_flying = self
                .flights
                .values()
                .any(|flight| flight.index == index && !flight.is_late);
            if is_counted || is_flying || lane.is_given_up {
                continue;
            }
            match lane
                .held
                .map(|(disk, _)| (disk, true))
                .or_else(|| self.free_disk(index).map(|disk| (disk, false)))
            {
                Some((disk, is_confirmation)) => sends.push(self.launch(index, disk, is_confirmation, now)),
                None => self.lanes[usize::from(index)].is_given_up = true,
            }
        }
        sends
    }

    fn launch(&mut self, index: u8, disk: DiskId, is_confirmation: bool, now: Duration) -> Send {
        let (request, version) = (self.requests, self.row.version);
        self.requests += 1;
        self.flights.insert(
            request,
            Flight {
                disk,
                index,
                version,
                sent_at: now,
                is_confirmation,
                is_late: false,
            },
        );
        Send {
            request,
            index,
            disk,
            row_version: version,
            is_confirmation,
        }
    }

    /// The row's own disk for `index` when it is usable, else a hand-off.
    fn free_disk(&self, index: u8) -> Option<DiskId> {
        let own = self.row.disks[usize::from(index)];
        let taken = self.taken();
        if !taken.contains(&own) && self.map.disks.contains_key(&own) {
            return Some(own);
        }
        let choose = |avoided: &BTreeSet<DiskId>| {
            let wanted = Handoff {
                stripe: self.stripe,
                index,
                row: &self.row,
                avoided,
                used: &taken,
            };
            choose_handoff(&wanted, &self.map)
        };
        // Where a disk is silent its whole node mostly is, and another of its disks would cost the same wait once more.
        let silent = self.silent();
        choose(&self.unusable.union(&silent).copied().collect()).or_else(|| choose(&self.unusable))
    }

    /// Disks that hold or may hold a fragment of this stripe, and those that failed.
    fn taken(&self) -> BTreeSet<DiskId> {
        let held = self.lanes.iter().filter_map(|lane| lane.held.map(|(disk, _)| disk));
        held.chain(self.flights.values().map(|flight| flight.disk))
            .chain(self.unusable.iter().copied())
            .collect()
    }

    fn settle(&mut self, now: Duration) {
        let version = self.row.version;
        let is_over = now >= self.started_at + self.patience.whole || self.row_changes > ROW_CHANGES_MAX;
        let is_settled = |lane: &Lane| lane.is_given_up || lane.held.is_some_and(|(_, counted)| counted == version);
        if self.outcome.is_some() || (!is_over && !self.lanes.iter().all(is_settled)) {
            return;
        }
        let taken: Vec<TakenFragment> = self
            .lanes
            .iter()
            .zip(0_u8..)
            .filter_map(|(lane, index)| {
                let (disk, row_version) = lane.held?;
                Some(TakenFragment {
                    fragment: HeldFragment { index, disk },
                    row_version,
                })
            })
            .collect();
        self.outcome = Some(match ack(&taken, &self.row, self.profile, &self.map) {
            Ack::Acknowledged { survives, is_degraded } => {
                let astray = astray(&taken, &self.row, self.profile);
                let hand_offs = astray.iter().filter(|astray| astray.disk.is_some()).count() as u32;
                let survival = Survival { survives, is_degraded };
                Outcome::Durable(Durable {
                    row_version: self.row.version,
                    astray,
                    survival,
                    hand_offs,
                })
            }
            Ack::Refused => {
                let stored = taken.iter().filter(|taken| taken.row_version == version).count();
                let is_full = stored + self.full.len() >= self.profile.fragments();
                Outcome::BelowFloor { stored, is_full }
            }
        });
    }
}

#[cfg(test)]
mod tests;
