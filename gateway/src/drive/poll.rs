//! A poll: behind a cursor, until something changes there.
//!
//! Subscribe, compare, wait. Where this gateway knows already that a scope stands where the cursor does, nobody is asked.
//! Invariants: what is answered was read from the drive's group in the caller's name after the wake-up; a poll that was woken for
//! nothing waits on; who waits is woken when the token may have ended.
//! Not here: how long is waited and whether the token still lives (`http::notify`), being told (`watching`).

use crate::drive::feed::Read;
use crate::drive::notices::{Ticket, WakeUp};
use crate::drive::{Caller, Core};
use model::limits::POLL_EVENTS_MAX;
use protocol::metadata::drive::FeedPosition;
use protocol::wire_error::Failure;
use std::time::Duration;

/// Woken together with so many others, a poll's client is asked to come back later.
const CROWD_MIN: usize = 100;
/// The longest pause that is asked for.
const BACKOFF_MAX_S: u64 = 60;

/// A poll that has entered itself.
pub struct Waiting {
    places: Vec<FeedPosition>,
    ticket: Ticket,
    /// Whether the scopes must be compared before anybody waits.
    is_uncompared: bool,
    crowd: usize,
    /// When the gateway was told of what woke it last.
    woken_at: Option<Duration>,
}

impl Core {
    /// Enters a poll behind `cursor`, or behind the present end of the caller's own drive.
    ///
    /// Errors: `cursor_invalid`, `too_busy`, `rate_exceeded`.
    pub async fn begin_poll(&self, caller: &Caller, cursor: Option<&str>) -> Result<Waiting, Failure> {
        let user = caller.principal.user;
        let places = match cursor {
            Some(cursor) => self.receipts.read_cursor(user, cursor)?,
            None => vec![self.feed_end(caller, caller.home.root()).await?],
        };
        let mut entered = Vec::with_capacity(places.len());
        for place in &places {
            let slot = place.scope.drive.slot();
            entered.push((*place, self.metadata.group_serving(slot, caller.trace).await?));
        }
        let home = self.metadata.group_serving(user.slot(), caller.trace).await?;
        let ticket = self.notices.enter((user, home), &entered)?;
        let stands = |place: &FeedPosition| ticket.end_of(place.scope) == Some((place.incarnation, place.sequence));
        Ok(Waiting {
            is_uncompared: !ticket.is_covered() || !places.iter().all(stands),
            places,
            ticket,
            crowd: 1,
            woken_at: None,
        })
    }

    /// Looks what has come behind the cursor of a poll; `None` when nothing has, and the poll waits on.
    ///
    /// Errors: `reset`, `not_found`.
    pub async fn look(&self, caller: &Caller, waiting: &mut Waiting) -> Result<Option<Read>, Failure> {
        // Before the look: what moves behind it wakes again.
        waiting.ticket.arm(&waiting.places);
        let mut read = Read {
            told: Vec::new(),
            places: Vec::with_capacity(waiting.places.len()),
            has_more: false,
        };
        for place in &waiting.places {
            let end = waiting.ticket.end_of(place.scope);
            let page = match end {
                _ if read.told.len() >= POLL_EVENTS_MAX => None,
                Some((incarnation, end)) if incarnation == place.incarnation && end == place.sequence => None,
                Some((incarnation, end)) if incarnation == place.incarnation && end > place.sequence => {
                    Some(self.shared_page(caller, place, end).await?)
                }
                _ => Some(self.feed_page(caller, place, POLL_EVENTS_MAX).await?),
            };
            match page {
                Some(page) => {
                    self.notices.compared(&[page.position], self.seams.clock.monotonic());
                    read.take(place, page, POLL_EVENTS_MAX - read.told.len());
                }
                None => read.places.push(*place),
            }
        }
        waiting.is_uncompared = false;
        if read.told.is_empty() {
            return Ok(None);
        }
        Ok(Some(read.folded()))
    }
}

impl Waiting {
    /// The token is about to be looked at: what is told of it from now on wakes again.
    pub fn trust(&self) {
        self.ticket.trust();
    }

    /// Returns when there is something to look at, or the token may have ended. May be dropped midway.
    pub async fn woken(&mut self) {
        if self.is_uncompared {
            self.ticket.covered().await;
        } else {
            let WakeUp { crowd, at } = self.ticket.woken().await;
            (self.crowd, self.woken_at) = (crowd, at);
        }
    }

    /// Where the cursor stands.
    pub fn places(&self) -> &[FeedPosition] {
        &self.places
    }

    /// How long ago by `now` the gateway was told of what woke it; `None` where the poll came behind what was known before.
    pub fn lag(&self, now: Duration) -> Option<Duration> {
        self.woken_at.map(|woken_at| now.saturating_sub(woken_at))
    }

    /// Seconds that the client should leave pass before it comes again, when so many were woken together that they would come together
    /// again: drawn anew for each, the longer the more they are.
    pub fn backoff_s(&self, core: &Core) -> Option<u64> {
        if self.crowd < CROWD_MIN {
            return None;
        }
        let spread_s = (self.crowd / CROWD_MIN) as u64;
        let span = core
            .seams
            .random
            .up_to(Duration::from_secs(spread_s.min(BACKOFF_MAX_S)));
        Some(span.as_secs() + 1)
    }
}
