//! Who is in service, who waits, and who is sent away: the rules alone, events in and decisions out.
//!
//! Two numbers rule: how many may be in service at once, and how many may be held in all (in service, waiting, or lent while their
//! client is awaited). Of either nobody may have as much as is still free: so whoever comes alone has half of all places, two have a
//! third each, and there is always room for one more who has nothing, even where all that others have in service stands still. A
//! place that becomes free goes to whoever has the fewest in service, then to whoever has waited longest.
//! Invariants: nobody waits while a place in service is free for them; each ticket is called once or given up; what is held never
//! passes its limit, what is in service only by those who come back from being lent.
//! Not here: time, wake-ups, metrics (`gate`), and who somebody is (`admission`).

use std::collections::{BTreeMap, VecDeque};

/// How many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// In service at once, from 1.
    pub in_service_max: usize,
    /// In service, waiting and lent together; at least as many.
    pub held_max: usize,
    /// Whether places in service are shared as those that are held are. Not where each is soon free again, whoever has it.
    pub is_service_shared: bool,
}

/// Somebody who waits. Greater ones came later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// What becomes of somebody who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// In service at once.
    Entered,
    /// Called by this ticket, perhaps.
    Waits(Ticket),
    /// Sent away.
    Refused(Refusal),
}

/// Why somebody is sent away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// There is room, but they hold as much as is left.
    Share,
    /// There is no room for anybody.
    Full,
    /// They waited longer than makes sense.
    Late,
}

/// Where somebody stands who was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Being served.
    InService,
    /// Held, while their client is awaited.
    Lent,
}

#[derive(Default)]
struct Own {
    in_service: usize,
    held: usize,
    waiting: VecDeque<Ticket>,
}

impl Own {
    fn may_be_served(&self, free: usize, is_shared: bool) -> bool {
        free > if is_shared { self.in_service } else { 0 }
    }
}

/// The places and who has them.
pub struct Places<K> {
    sizes: Sizes,
    in_service: usize,
    held: usize,
    next_ticket: u64,
    /// Everybody who holds something: at most as many as there are places.
    callers: BTreeMap<K, Own>,
    waiting: usize,
}

impl<K: Ord + Clone> Places<K> {
    /// All of them free.
    pub fn new(sizes: Sizes) -> Self {
        Self {
            sizes,
            in_service: 0,
            held: 0,
            next_ticket: 0,
            callers: BTreeMap::new(),
            waiting: 0,
        }
    }

    /// How many are in service.
    pub fn in_service(&self) -> usize {
        self.in_service
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Somebody comes. Of those who may wait, `waiting_max` in all, nobody may be as many as are still free either.
    pub fn ask(&mut self, who: &K, waiting_max: usize) -> Asked {
        let free = self.sizes.held_max.saturating_sub(self.held);
        if free == 0 {
            return Asked::Refused(Refusal::Full);
        }
        if self.callers.get(who).map_or(0, |own| own.held) >= free {
            return Asked::Refused(Refusal::Share);
        }
        self.held += 1;
        let (shared, free) = (self.sizes.is_service_shared, self.free_in_service());
        let free_to_wait = waiting_max.saturating_sub(self.waiting);
        let own = self.callers.entry(who.clone()).or_default();
        own.held += 1;
        if own.may_be_served(free, shared) {
            self.in_service += 1;
            own.in_service += 1;
            return Asked::Entered;
        }
        if own.waiting.len() >= free_to_wait {
            self.let_go(who);
            return Asked::Refused(Refusal::Full);
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        own.waiting.push_back(ticket);
        self.waiting += 1;
        Asked::Waits(ticket)
    }

    /// Somebody who was let in is done; `call` whoever can have the place.
    pub fn leave(&mut self, who: &K, standing: Standing) {
        if standing == Standing::InService {
            self.take_out(who);
        }
        self.let_go(who);
    }

    /// Somebody stops waiting; false when they were called already, and then they are in service.
    pub fn give_up(&mut self, who: &K, ticket: Ticket) -> bool {
        let Some(own) = self.callers.get_mut(who) else {
            return false;
        };
        let Some(at) = own.waiting.iter().position(|waiting| *waiting == ticket) else {
            return false;
        };
        own.waiting.remove(at);
        self.waiting -= 1;
        self.let_go(who);
        true
    }

    /// Somebody in service waits for their own client and needs nothing meanwhile; `call` whoever can have the place.
    pub fn lend(&mut self, who: &K) {
        self.take_out(who);
    }

    /// Another number of places in service from now on; `call` whoever can have one.
    pub fn resize(&mut self, in_service_max: usize) {
        self.sizes.in_service_max = in_service_max;
    }

    /// Their client goes on, and so do they: they were let in once and do not wait again.
    pub fn resume(&mut self, who: &K) {
        self.in_service += 1;
        self.callers.entry(who.clone()).or_default().in_service += 1;
    }

    fn take_out(&mut self, who: &K) {
        self.in_service = self.in_service.saturating_sub(1);
        if let Some(own) = self.callers.get_mut(who) {
            own.in_service = own.in_service.saturating_sub(1);
        }
    }

    fn let_go(&mut self, who: &K) {
        self.held = self.held.saturating_sub(1);
        if let Some(own) = self.callers.get_mut(who) {
            own.held = own.held.saturating_sub(1);
            if own.held == 0 {
                self.callers.remove(who);
            }
        }
    }

    fn free_in_service(&self) -> usize {
        self.sizes.in_service_max.saturating_sub(self.in_service)
    }

    /// Puts whoever is next in service, if anybody can be; to be asked again until nobody can. Looks through all who wait, at most as
    /// many as there are places: a microsecond for a few hundred.
    pub fn call(&mut self) -> Option<Ticket> {
        let (shared, free) = (self.sizes.is_service_shared, self.free_in_service());
        if free == 0 || self.waiting == 0 {
            return None;
        }
        let first = |own: &Own| own.waiting.front().copied();
        let waiting = self.callers.values_mut().filter(|own| !own.waiting.is_empty());
        let own = waiting.min_by_key(|own| (own.in_service, first(own)))?;
        if !own.may_be_served(free, shared) {
            return None;
        }
        let ticket = own.waiting.pop_front()?;
        own.in_service += 1;
        self.in_service += 1;
        self.waiting -= 1;
        Some(ticket)
    }
}

#[cfg(test)]
mod tests;
