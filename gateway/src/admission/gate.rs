//! A gate before something that has room for so many: lets in, has the others wait for a while, sends away.
//!
//! A burst is waited out: whoever waits for a gate that follows times is not sent away for coming too late before somebody has
//! waited for longer than `BURST_WAIT_MAX`, or for the gate's whole patience. Then more comes than is done, and only those are
//! served who came just now; the others, whose clients have less and less time left, are sent away (as CoDel does with packets),
//! and of those who come then, no more wait than will be served so soon. Once that was needed it is begun again sooner, for as long
//! as `CALM_AFTER`: as soon as somebody has waited without a break for `STANDS_AFTER`.
//! Invariants: who was let in gives the place back however the work ends; who stops waiting, or is dropped while waiting, leaves
//! nothing behind; nobody waits longer than the gate's patience.
//! Not here: the rules (`places`), how many may be in service (`pace`).

use super::Who;
use super::pace::Pace;
use super::places::{Asked, Places, Refusal, Sizes, Standing, Ticket};
use crate::codes;
use crate::metrics;
use daemon::clock::Clock;
use daemon::metrics::Metrics;
use prometheus::{Histogram, IntCounter, IntGauge};
use protocol::codes as group_codes;
use protocol::wire_error::Failure;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// Whoever waits longer is not in a burst. What QAS-006 leaves of half a second beside the work itself; measured (decision 0032).
const BURST_WAIT_MAX: Duration = Duration::from_millis(300);
/// After so long without anybody sent away a burst may be one again. A guess.
const CALM_AFTER: Duration = Duration::from_secs(10);
/// Within that time a queue that was not empty for so long is no burst. A guess, as CoDel's interval.
const STANDS_AFTER: Duration = Duration::from_millis(100);
/// In such a queue nobody is served who has waited longer: a few turns of a busy machine.
const FRESH: Duration = Duration::from_millis(25);

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// A wait, at most.
    pub wait_max: Duration,
    /// What is in service, in the mean; without it the number in service stays as it is, and whoever waits is served in order.
    pub service_target: Option<Duration>,
}

/// A gate; clones are the same one.
#[derive(Clone)]
pub struct Gate {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    wait_max: Duration,
    clock: Arc<dyn Clock>,
    shown: Shown,
}

struct State {
    places: Places<Who>,
    pace: Pace,
    /// Those who wait, and how they are told whether they are in service or sent away.
    waiting: BTreeMap<Ticket, Caller>,
    /// Since when somebody has been waiting without a break.
    stands_since: Option<Duration>,
    /// Until when less than `BURST_WAIT_MAX` is too long.
    pressed_until: Duration,
}

struct Caller {
    who: Who,
    since: Duration,
    tell: oneshot::Sender<bool>,
}

impl State {
    /// Whether more comes than is done.
    fn stands(&self, now: Duration) -> bool {
        if !self.pace.is_followed() {
            return false;
        }
        let longest = self
            .waiting
            .first_key_value()
            .map(|(_, first)| now.saturating_sub(first.since));
        let is_long = longest.is_some_and(|longest| longest > BURST_WAIT_MAX);
        let stood = self.stands_since.map(|since| now.saturating_sub(since));
        is_long || now < self.pressed_until && stood.is_some_and(|stood| stood > STANDS_AFTER)
    }

    /// Somebody was sent away since more comes than is done.
    fn press(&mut self, now: Duration) {
        self.pressed_until = now + CALM_AFTER;
    }

    /// How many may wait now, where that has a bound of its own. In a queue that stands those are sent away first who would be when
    /// their turn comes, and then as many as will have their turn in time may wait: to be sent away at once costs everybody less than
    /// to wait for it.
    fn room_to_wait(&mut self, now: Duration) -> Option<usize> {
        if !self.stands(now) {
            return None;
        }
        while let Some(first) = self.waiting.first_entry() {
            if now.saturating_sub(first.get().since) <= FRESH {
                break;
            }
            let (ticket, caller) = first.remove_entry();
            self.places.give_up(&caller.who, ticket);
            self.press(now);
            // Whoever is gone by now needs no word.
            let _ = caller.tell.send(false);
        }
        self.pace.done_within(FRESH)
    }

    /// Puts those in service for whom there is a place.
    fn call(&mut self, now: Duration) {
        let stands = self.stands(now);
        while let Some(ticket) = self.places.call() {
            let Some(caller) = self.waiting.remove(&ticket) else {
                continue;
            };
            let is_served = !stands || now.saturating_sub(caller.since) <= FRESH;
            if !is_served {
                self.places.leave(&caller.who, Standing::InService);
                self.press(now);
            }
            // Whoever is gone by now gives the place back when the wait is dropped.
            let _ = caller.tell.send(is_served);
        }
        self.note(now);
    }

    fn note(&mut self, now: Duration) {
        self.stands_since = match self.places.waiting() {
            0 => None,
            _ => self.stands_since.or(Some(now)),
        };
    }
}

/// What is told of a gate.
struct Shown {
    in_service: IntGauge,
    in_service_max: IntGauge,
    waiting: IntGauge,
    admitted: IntCounter,
    waited: Histogram,
    share: IntCounter,
    full: IntCounter,
    late: IntCounter,
}

impl Shown {
    fn new(name: &str, registry: &Metrics) -> Self {
        Self {
            in_service: registry.gauge(&metrics::REQUESTS_IN_SERVICE).with_label_values(&[name]),
            in_service_max: registry
                .gauge(&metrics::REQUESTS_IN_SERVICE_MAX)
                .with_label_values(&[name]),
            waiting: registry.gauge(&metrics::REQUESTS_WAITING).with_label_values(&[name]),
            admitted: registry.counter(&metrics::REQUESTS_ADMITTED).with_label_values(&[name]),
            waited: registry.histogram(&metrics::REQUEST_WAIT).with_label_values(&[name]),
            share: registry
                .counter(&metrics::REQUESTS_REFUSED)
                .with_label_values(&[name, "share"]),
            full: registry
                .counter(&metrics::REQUESTS_REFUSED)
                .with_label_values(&[name, "full"]),
            late: registry
                .counter(&metrics::REQUESTS_REFUSED)
                .with_label_values(&[name, "late"]),
        }
    }

    fn refuse(&self, refusal: Refusal) {
        match refusal {
            Refusal::Share => self.share.inc(),
            Refusal::Full => self.full.inc(),
            Refusal::Late => self.late.inc(),
        }
    }

    fn admit(&self, waited: Duration) {
        self.admitted.inc();
        self.waited.observe(waited.as_secs_f64());
    }

    fn count(&self, state: &State) {
        let shown = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.in_service.set(shown(state.places.in_service()));
        self.in_service_max.set(shown(state.pace.in_service_max()));
        self.waiting.set(shown(state.places.waiting()));
    }
}

impl Gate {
    /// A gate called `name` in metrics.
    pub fn new(name: &str, sizes: Sizes, patience: Patience, clock: Arc<dyn Clock>, registry: &Metrics) -> Self {
        let state = State {
            places: Places::new(sizes),
            pace: Pace::new(sizes.in_service_max, patience.service_target),
            waiting: BTreeMap::new(),
            stands_since: None,
            pressed_until: Duration::ZERO,
        };
        let shown = Shown::new(name, registry);
        shown.count(&state);
        Self {
            inner: Arc::new(Inner {
                state: Mutex::new(state),
                wait_max: patience.wait_max,
                clock,
                shown,
            }),
        }
    }

    /// Lets `who` in, now or after a wait. May be dropped midway.
    ///
    /// Errors: why not; nothing was done, and nothing is held.
    pub async fn enter(&self, who: Who) -> Result<Place, Refusal> {
        let inner = &self.inner;
        let now = inner.clock.monotonic();
        let asked = inner.ask(&who, now);
        match asked {
            Err(refusal) => {
                inner.shown.refuse(refusal);
                Err(refusal)
            }
            Ok(None) => {
                inner.shown.admit(Duration::ZERO);
                Ok(self.place(who, now))
            }
            Ok(Some((ticket, told))) => self.wait(who, ticket, told, now).await,
        }
    }

    async fn wait(
        &self,
        who: Who,
        ticket: Ticket,
        told: oneshot::Receiver<bool>,
        began: Duration,
    ) -> Result<Place, Refusal> {
        let inner = &self.inner;
        let mut waiting = Waiting {
            gate: self,
            who,
            ticket,
            told,
            is_over: false,
        };
        let told = tokio::select! {
            told = &mut waiting.told => Some(told.unwrap_or(false)),
            () = inner.clock.sleep(inner.wait_max) => None,
        };
        let is_served = match told {
            Some(is_served) => is_served,
            None => waiting.end(),
        };
        waiting.is_over = true;
        if !is_served {
            inner.shown.refuse(Refusal::Late);
            return Err(Refusal::Late);
        }
        let now = inner.clock.monotonic();
        inner.shown.admit(now.saturating_sub(began));
        Ok(self.place(waiting.who.clone(), now))
    }

    /// Lets `who` in when there is room at once. Errors: as `enter`.
    pub fn enter_now(&self, who: Who) -> Result<Place, Refusal> {
        let inner = &self.inner;
        let now = inner.clock.monotonic();
        let refusal = match inner.ask(&who, now) {
            Ok(None) => {
                inner.shown.admit(Duration::ZERO);
                return Ok(self.place(who, now));
            }
            Ok(Some((ticket, _))) => {
                inner.give_up(&who, ticket);
                Refusal::Full
            }
            Err(refusal) => refusal,
        };
        inner.shown.refuse(refusal);
        Err(refusal)
    }

    fn place(&self, who: Who, since: Duration) -> Place {
        Place(Arc::new(Seat {
            inner: Arc::clone(&self.inner),
            who,
            standing: Mutex::new(Some(Standing::InService)),
            since: Mutex::new(Some(since)),
        }))
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        // Each change under the lock is complete on its own, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` when they are in service; else their ticket, and where they are told.
    fn ask(&self, who: &Who, now: Duration) -> Result<Option<(Ticket, oneshot::Receiver<bool>)>, Refusal> {
        let mut state = self.state();
        let room = state.room_to_wait(now);
        let asked = match state.places.ask(who, room.unwrap_or(usize::MAX)) {
            Asked::Entered => Ok(None),
            Asked::Waits(ticket) => {
                let (tell, told) = oneshot::channel();
                let who = who.clone();
                state.waiting.insert(ticket, Caller { who, since: now, tell });
                Ok(Some((ticket, told)))
            }
            Asked::Refused(refusal) => {
                if room.is_some() {
                    state.press(now);
                }
                Err(refusal)
            }
        };
        if !matches!(asked, Ok(None)) {
            state.pace.ruled();
        }
        state.note(now);
        self.shown.count(&state);
        asked
    }

    fn change(&self, change: impl FnOnce(&mut State, Duration)) {
        let now = self.clock.monotonic();
        let mut state = self.state();
        change(&mut state, now);
        state.call(now);
        self.shown.count(&state);
    }

    /// Stops waiting; false when they were told already.
    fn give_up(&self, who: &Who, ticket: Ticket) -> bool {
        let now = self.clock.monotonic();
        let mut state = self.state();
        let waited = state.waiting.remove(&ticket).is_some();
        if waited {
            state.places.give_up(who, ticket);
            state.note(now);
            self.shown.count(&state);
        }
        waited
    }
}

/// A wait under way; dropping it gives up, or gives back what was given meanwhile.
struct Waiting<'a> {
    gate: &'a Gate,
    who: Who,
    ticket: Ticket,
    told: oneshot::Receiver<bool>,
    is_over: bool,
}

impl Waiting<'_> {
    /// Ends the wait; true when they are in service all the same.
    fn end(&mut self) -> bool {
        self.is_over = true;
        !self.gate.inner.give_up(&self.who, self.ticket) && self.told.try_recv().unwrap_or(false)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.is_over && self.end() {
            let now = self.gate.inner.clock.monotonic();
            drop(self.gate.place(self.who.clone(), now));
        }
    }
}

/// A place behind a gate; given back when dropped.
pub struct Place(Arc<Seat>);

impl Place {
    /// The seat, for whoever lends it while the client is awaited.
    pub fn seat(&self) -> Arc<Seat> {
        Arc::clone(&self.0)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let seat = &self.0;
        let Some(standing) = seat.standing().take() else {
            return;
        };
        let since = *seat.since.lock().unwrap_or_else(PoisonError::into_inner);
        seat.inner.change(|state, now| {
            state.places.leave(&seat.who, standing);
            if let Some(since) = since
                && state.pace.done(now, now.saturating_sub(since))
            {
                state.places.resize(state.pace.in_service_max());
            }
        });
    }
}

/// What a place is: it can be lent to others for as long as its owner's client is awaited.
pub struct Seat {
    inner: Arc<Inner>,
    who: Who,
    /// `None` once it was given back.
    standing: Mutex<Option<Standing>>,
    /// Since when it is in service; `None` once it was lent, since then it is also the client's time.
    since: Mutex<Option<Duration>>,
}

impl Seat {
    fn standing(&self) -> MutexGuard<'_, Option<Standing>> {
        // Plain assignments only.
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lends it, if it is not lent or given back already.
    pub fn lend(&self) {
        let mut standing = self.standing();
        if *standing == Some(Standing::InService) {
            *standing = Some(Standing::Lent);
            *self.since.lock().unwrap_or_else(PoisonError::into_inner) = None;
            self.inner.change(|state, _| state.places.lend(&self.who));
        }
    }

    /// Takes it back, if it was lent.
    pub fn resume(&self) {
        let mut standing = self.standing();
        if *standing == Some(Standing::Lent) {
            *standing = Some(Standing::InService);
            self.inner.change(|state, _| state.places.resume(&self.who));
        }
    }
}

impl Refusal {
    /// What the client is told: 429 where it holds its share, else 503.
    pub fn failure(self) -> Failure {
        match self {
            Self::Share => codes::RATE_EXCEEDED.failure(),
            Self::Full => group_codes::OVERLOADED.failure(),
            Self::Late => group_codes::OVERLOADED.because("no place became free in time; nothing was done"),
        }
    }
}

#[cfg(test)]
mod tests;
