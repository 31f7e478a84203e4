//! Who waits for which scope, and where the scopes' feeds stand as far as this gateway was told.
//!
//! A poll enters itself before its scopes are compared, and what moves them from then on wakes it: nothing is lost between the two. A
//! waiting poll is a row in an arena and a place beneath each of its scopes, and nothing else.
//! Invariants: a scope's end never goes back; a poll behind its scope's end is woken; so is one whose user's tokens may have ended, from
//! its `trust` on; who waits is bounded, in all and for each user.
//! Not here: the calls that tell what moved (`watching`), what a poll answers (`poll`).

use crate::codes;
use crate::metrics;
use daemon::metrics::Metrics;
use model::id::{EntryId, GroupId, Incarnation, UserId};
use prometheus::{IntCounter, IntGauge};
use protocol::metadata::drive::FeedPosition;
use protocol::metadata::watch::MovedScope;
use protocol::wire_error::Failure;
use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};

/// A scope that nobody waits for is watched so long still: most polls come again at once.
const LINGER: Duration = Duration::from_secs(120);

/// Woken polls that look at their feeds at once; the others wait for their turn, so that they leave room for everybody else. A guess:
/// half of what is in service.
const LOOKS_MAX: usize = 64;

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub struct PollLimits {
    /// Polls in all.
    pub polls_max: usize,
    /// Polls of one user.
    pub polls_per_user_max: usize,
}

impl Default for PollLimits {
    /// Guesses: what one host of the size in NF-scale-3 holds, and more devices than a person has.
    fn default() -> Self {
        Self {
            polls_max: 250_000,
            polls_per_user_max: 4_096,
        }
    }
}

/// Where a scope stands: incarnation of its drive, sequence of its last change.
type End = (Incarnation, u64);

struct Scope {
    group: GroupId,
    /// As compared and told since; `None` before the first comparison.
    end: Option<End>,
    /// Row in the arena, and the sequence that the poll knows.
    waiters: BTreeMap<u32, u64>,
    idle_since: Option<Duration>,
}

struct Watched {
    is_running: bool,
    /// Whether everything that moves from now on will be told.
    covered: watch::Sender<bool>,
}

#[derive(Default)]
struct Row {
    waker: Option<Waker>,
    is_woken: bool,
    /// Whether its token may have ended since it was last trusted.
    is_doubted: bool,
    /// When it was woken by what this gateway was told, on its clock; `None` where it came behind what was known before.
    woken_at: Option<Duration>,
    /// How many were woken with it.
    crowd: usize,
}

/// The polls of a user.
struct Own {
    /// That which is told of the user's tokens.
    group: GroupId,
    rows: BTreeSet<u32>,
}

#[derive(Default)]
struct Registry {
    scopes: BTreeMap<EntryId, Scope>,
    groups: BTreeMap<GroupId, Watched>,
    arena: Vec<Row>,
    free: Vec<u32>,
    users: BTreeMap<UserId, Own>,
}

/// All that wait at a gateway.
pub struct Notices {
    registry: Mutex<Registry>,
    /// A group has scopes and nobody who watches it.
    needed: Notify,
    looks: Semaphore,
    limits: PollLimits,
    waiting: IntGauge,
    watched: IntGauge,
    woken: IntCounter,
}

/// How a poll was woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WakeUp {
    /// How many were woken together, itself counted.
    pub crowd: usize,
    /// When this gateway was told of what woke it, on its clock; `None` where it came behind what was known before.
    pub at: Option<Duration>,
}

/// A poll that waits; dropping it leaves.
pub struct Ticket {
    notices: Arc<Notices>,
    row: u32,
    user: UserId,
    scopes: Box<[EntryId]>,
}

impl Notices {
    /// Nobody waits.
    pub fn new(limits: PollLimits, registry: &Metrics) -> Self {
        Self {
            registry: Mutex::default(),
            needed: Notify::new(),
            looks: Semaphore::new(LOOKS_MAX),
            limits,
            waiting: registry.gauge(&metrics::POLLS_WAITING).with_label_values::<&str>(&[]),
            watched: registry.gauge(&metrics::WATCHED_SCOPES).with_label_values::<&str>(&[]),
            woken: registry.counter(&metrics::POLLS_WOKEN).with_label_values::<&str>(&[]),
        }
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        // Each change under the lock is complete on its own, so a panic elsewhere leaves nothing half done.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a poll of `user`, whose tokens are known to `home`, wait behind these places, each with its group.
    ///
    /// Errors: `too_busy`, `rate_exceeded`; nothing waits then.
    pub fn enter(
        self: &Arc<Self>,
        (user, home): (UserId, GroupId),
        places: &[(FeedPosition, GroupId)],
    ) -> Result<Ticket, Failure> {
        let mut registry = self.registry();
        let registry = &mut *registry;
        let waiting = registry.arena.len() - registry.free.len();
        if waiting >= self.limits.polls_max || registry.scopes.len() >= 2 * self.limits.polls_max {
            return Err(
                codes::TOO_BUSY.because("as many polls wait as this gateway holds; try again, elsewhere if you can")
            );
        }
        let count = registry.users.get(&user).map_or(0, |own| own.rows.len());
        if count >= self.limits.polls_per_user_max {
            return Err(codes::RATE_EXCEEDED.because("as many polls of yours wait as one user may have; end some"));
        }
        let row = registry.free.pop().unwrap_or_else(|| {
            registry.arena.push(Row::default());
            u32::try_from(registry.arena.len() - 1).unwrap_or(u32::MAX)
        });
        let own = registry.users.entry(user).or_insert_with(|| Own {
            group: home,
            rows: BTreeSet::new(),
        });
        own.group = home;
        own.rows.insert(row);
        registry.watched(home);
        self.waiting.inc();
        for (place, group) in places {
            let scope = registry.scopes.entry(place.scope).or_insert_with(|| {
                self.watched.inc();
                Scope {
                    group: *group,
                    end: None,
                    waiters: BTreeMap::new(),
                    idle_since: None,
                }
            });
            scope.group = *group;
            scope.idle_since = None;
            registry.watched(*group);
        }
        let ticket = Ticket {
            notices: Arc::clone(self),
            row,
            user,
            scopes: places.iter().map(|(place, _)| place.scope).collect(),
        };
        registry.arm(row, places.iter().map(|(place, _)| place));
        if registry.groups.values().any(|group| !group.is_running) {
            self.needed.notify_one();
        }
        Ok(ticket)
    }

    /// Waits until a woken poll may look at its feeds; first come, first served. `None` never comes, since the turns are never closed.
    pub async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.looks.acquire().await.ok()
    }

    /// The next group that has scopes and nobody who watches it; the caller does from now on. May be dropped midway.
    pub async fn next_group(&self) -> GroupId {
        loop {
            {
                let mut registry = self.registry();
                let idle = registry.groups.iter_mut().find(|(_, group)| !group.is_running);
                if let Some((id, group)) = idle {
                    group.is_running = true;
                    return *id;
                }
            }
            self.needed.notified().await;
        }
    }

    /// Tokens of these users may have ended: their polls are woken.
    pub fn doubt(&self, users: &BTreeSet<UserId>) {
        self.doubt_rows(|registry| {
            let told = users.iter().filter_map(|user| registry.users.get(user));
            told.flat_map(|own| &own.rows).copied().collect()
        });
    }

    /// As `doubt`, of all whose tokens are known to `group`: what it would have told is lost.
    pub fn doubt_all(&self, group: GroupId) {
        self.doubt_rows(|registry| {
            let told = registry.users.values().filter(|own| own.group == group);
            told.flat_map(|own| &own.rows).copied().collect()
        });
    }

    fn doubt_rows(&self, rows: impl FnOnce(&Registry) -> Vec<u32>) {
        let mut wakers = Vec::new();
        {
            let mut registry = self.registry();
            for row in rows(&registry) {
                if let Some(row) = registry.arena.get_mut(row as usize) {
                    row.is_doubted = true;
                    wakers.extend(row.waker.take());
                }
            }
        }
        // Outside of the lock, as in `wake`.
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Everything that moves in `group` from now on will be told, or no longer.
    pub fn cover(&self, group: GroupId, is_covered: bool) {
        if let Some(watched) = self.registry().groups.get(&group) {
            watched
                .covered
                .send_if_modified(|covered| std::mem::replace(covered, is_covered) != is_covered);
        }
    }

    /// Whether everything that moves in `group` is told.
    pub fn is_told(&self, group: GroupId) -> bool {
        let registry = self.registry();
        let watched = registry.groups.get(&group);
        watched.is_some_and(|watched| *watched.covered.borrow())
    }

    /// The scopes of `group`.
    pub fn scopes_of(&self, group: GroupId) -> Vec<EntryId> {
        let registry = self.registry();
        let own = registry.scopes.iter().filter(|(_, scope)| scope.group == group);
        own.map(|(id, _)| *id).collect()
    }

    /// Feeds went on, as was told at `now`: whoever waits behind their ends is woken.
    pub fn moved(&self, moved: &[MovedScope], now: Duration) {
        self.wake(moved.iter().map(|moved| (moved.scope, None, moved.sequence)), now);
    }

    /// Feeds were compared at `now`: they stand there, or further on.
    pub fn compared(&self, ends: &[FeedPosition], now: Duration) {
        let ends = ends.iter();
        self.wake(ends.map(|end| (end.scope, Some(end.incarnation), end.sequence)), now);
    }

    fn wake(&self, ends: impl Iterator<Item = (EntryId, Option<Incarnation>, u64)>, now: Duration) {
        let mut wakers = Vec::new();
        {
            let mut registry = self.registry();
            let registry = &mut *registry;
            for (id, incarnation, sequence) in ends {
                let Some(scope) = registry.scopes.get_mut(&id) else {
                    continue;
                };
                scope.end = match (incarnation, scope.end) {
                    (Some(new), Some((old, end))) if new == old => Some((new, end.max(sequence))),
                    (Some(new), _) => Some((new, sequence)),
                    (None, Some((old, end))) => Some((old, end.max(sequence))),
                    (None, None) => None,
                };
                let behind: Vec<u32> = scope
                    .waiters
                    .iter()
                    .filter(|(_, known)| **known < sequence)
                    .map(|(row, _)| *row)
                    .collect();
                for row in &behind {
                    scope.waiters.remove(row);
                    if let Some(row) = registry.arena.get_mut(*row as usize) {
                        row.is_woken = true;
                        row.woken_at = Some(now);
                        row.crowd = behind.len();
                        wakers.extend(row.waker.take());
                    }
                }
                self.woken.inc_by(behind.len() as u64);
            }
        }
        // Outside of the lock: whoever is woken takes it.
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Forgets scopes of `group` that nobody has waited for in a while. True when none is left: the caller watches no more.
    pub fn prune(&self, group: GroupId, now: Duration) -> bool {
        let mut registry = self.registry();
        let registry = &mut *registry;
        let before = registry.scopes.len();
        registry.scopes.retain(|_, scope| {
            let is_idle = scope.group == group && scope.waiters.is_empty();
            if !is_idle {
                return true;
            }
            let since = *scope.idle_since.get_or_insert(now);
            now.saturating_sub(since) < LINGER
        });
        self.watched.sub((before - registry.scopes.len()) as i64);
        let is_empty = registry.scopes.values().all(|scope| scope.group != group)
            && registry.users.values().all(|own| own.group != group);
        if is_empty {
            registry.groups.remove(&group);
        }
        is_empty
    }
}

impl Registry {
    /// Has a group watched, if nobody does yet.
    fn watched(&mut self, group: GroupId) {
        self.groups.entry(group).or_insert_with(|| Watched {
            is_running: false,
            covered: watch::Sender::new(false),
        });
    }

    /// What tells whether all that moves in the groups of a poll of `user` behind these scopes is told.
    fn covers(&self, user: UserId, scopes: &[EntryId]) -> Vec<watch::Receiver<bool>> {
        let own = self.users.get(&user).map(|own| own.group);
        let scopes = scopes.iter().filter_map(|scope| self.scopes.get(scope));
        let groups: BTreeSet<GroupId> = own.into_iter().chain(scopes.map(|scope| scope.group)).collect();
        let watched = groups.iter().filter_map(|group| self.groups.get(group));
        watched.map(|watched| watched.covered.subscribe()).collect()
    }

    /// Puts a poll beneath its scopes; woken at once when one of them is further on.
    fn arm<'p>(&mut self, row: u32, places: impl Iterator<Item = &'p FeedPosition>) {
        let mut is_behind = false;
        for place in places {
            if let Some(scope) = self.scopes.get_mut(&place.scope) {
                scope.idle_since = None;
                scope.waiters.insert(row, place.sequence);
                is_behind |= scope.end.is_some_and(|(_, end)| end > place.sequence);
            }
        }
        if let Some(row) = self.arena.get_mut(row as usize) {
            row.is_woken = is_behind;
            row.woken_at = None;
            row.crowd = 1;
        }
    }
}

impl Ticket {
    /// Where a scope stands as far as it is known.
    pub fn end_of(&self, scope: EntryId) -> Option<End> {
        self.notices.registry().scopes.get(&scope).and_then(|scope| scope.end)
    }

    /// Whether everything that moves in the groups of these scopes and of the user is told.
    pub fn is_covered(&self) -> bool {
        let covers = self.notices.registry().covers(self.user, &self.scopes);
        covers.iter().all(|covered| *covered.borrow())
    }

    /// Returns once everything that moves in the groups of these scopes and of the user will be told. May be dropped midway.
    pub async fn covered(&self) {
        let covers = self.notices.registry().covers(self.user, &self.scopes);
        for mut covered in covers {
            // An error says that nobody watches any more, which does not happen while a poll waits.
            drop(covered.wait_for(|is_covered| *is_covered).await);
        }
    }

    /// The token is about to be looked at: what is told of it from now on wakes again.
    pub fn trust(&self) {
        if let Some(row) = self.notices.registry().arena.get_mut(self.row as usize) {
            row.is_doubted = false;
        }
    }

    /// Waits again, behind these places.
    pub fn arm(&self, places: &[FeedPosition]) {
        self.notices.registry().arm(self.row, places.iter());
    }

    /// Returns once a scope went on, or the token may have ended. May be dropped midway.
    pub async fn woken(&self) -> WakeUp {
        poll_fn(|context| self.poll_woken(context)).await
    }

    fn poll_woken(&self, context: &Context<'_>) -> Poll<WakeUp> {
        let mut registry = self.notices.registry();
        let Some(row) = registry.arena.get_mut(self.row as usize) else {
            return Poll::Pending;
        };
        if row.is_woken || row.is_doubted {
            let (crowd, at) = (row.crowd, row.woken_at);
            return Poll::Ready(WakeUp { crowd, at });
        }
        if row.waker.as_ref().is_none_or(|waker| !waker.will_wake(context.waker())) {
            row.waker = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut registry = self.notices.registry();
        let registry = &mut *registry;
        for scope in &self.scopes {
            if let Some(scope) = registry.scopes.get_mut(scope) {
                scope.waiters.remove(&self.row);
            }
        }
        if let Some(row) = registry.arena.get_mut(self.row as usize) {
            *row = Row::default();
            registry.free.push(self.row);
        }
        if let Some(own) = registry.users.get_mut(&self.user) {
            own.rows.remove(&self.row);
            if own.rows.is_empty() {
                registry.users.remove(&self.user);
            }
        }
        self.notices.waiting.dec();
    }
}

#[cfg(test)]
mod tests;
