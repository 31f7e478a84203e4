//! Reading feeds: pages of changes behind a cursor, and the present end.
//!
//! Invariants: the drive's group decides who may read and whether a feed goes on from the cursor; a page leaves out no sequence, but for
//! changes that a later one of the same entry in the page replaces; many polls that go on from one place are answered by one question.
//! Not here: waiting (`poll`), the text of cursors (`cursor`).

use crate::drive::metadata_client::unexpected;
use crate::drive::{Caller, Core};
use crate::metrics;
use model::id::{EntryId, Incarnation, UserId};
use model::limits::CHANGES_PAGE;
use protocol::metadata::QueryAnswer;
use protocol::metadata::drive::FeedPosition;
use protocol::metadata::query::{DriveAsk, FeedChange, FeedPage};
use protocol::wire_error::Failure;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::OnceCell;

/// A page is shared for so long: those who were woken together ask within this. Entries in it may be older by as much.
const SHARED_FOR: Duration = Duration::from_millis(500);
/// Pages that are shared at once.
const SHARED_MAX: usize = 1_024;

/// A change and the scope that was told of it.
#[derive(Clone, Debug)]
pub struct Told {
    /// Which.
    pub scope: EntryId,
    /// What.
    pub change: FeedChange,
}

/// What was read behind a cursor.
#[derive(Clone, Debug)]
pub struct Read {
    /// In the order of each scope.
    pub told: Vec<Told>,
    /// Where the cursor stands behind it.
    pub places: Vec<FeedPosition>,
    /// Whether there is more.
    pub has_more: bool,
}

impl Read {
    /// Leaves of several changes of an entry the last one in each scope.
    #[must_use]
    pub fn folded(mut self) -> Self {
        let mut seen = BTreeSet::new();
        self.told.reverse();
        self.told
            .retain(|told| seen.insert((told.scope, told.change.change.entry)));
        self.told.reverse();
        self
    }
}

type Place = (UserId, EntryId, Incarnation, u64);
type Cell = Arc<OnceCell<FeedPage>>;

/// Pages that are asked for now or were a moment ago.
#[derive(Default)]
pub struct SharedPages(Mutex<BTreeMap<Place, (Duration, Cell)>>);

impl SharedPages {
    fn cell(&self, place: Place, now: Duration) -> Cell {
        let mut cells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = |begun: &Duration| now.saturating_sub(*begun) < SHARED_FOR;
        if let Some((_, cell)) = cells.get(&place).filter(|(begun, _)| is_fresh(begun)) {
            return Arc::clone(cell);
        }
        // A group is asked for each new cell, which costs far more than this look.
        cells.retain(|_, (begun, _)| is_fresh(begun));
        let cell = Cell::default();
        if cells.len() < SHARED_MAX {
            cells.insert(place, (now, Arc::clone(&cell)));
        }
        cell
    }
}

impl Core {
    /// Where a scope's feed ends at present.
    pub async fn feed_end(&self, caller: &Caller, scope: EntryId) -> Result<FeedPosition, Failure> {
        let page = self.ask_feed(caller, scope, None, 1).await?;
        Ok(page.position)
    }

    async fn ask_feed(
        &self,
        caller: &Caller,
        scope: EntryId,
        after: Option<(Incarnation, u64)>,
        limit: u16,
    ) -> Result<FeedPage, Failure> {
        self.count_read("asked");
        let ask = DriveAsk::Feed { scope, after, limit };
        match self.ask(caller, scope.drive, ask).await? {
            QueryAnswer::Feed(page) => Ok(page),
            _ => Err(unexpected()),
        }
    }

    fn count_read(&self, kind: &str) {
        let reads = self.seams.metrics.counter(&metrics::FEED_READS);
        reads.with_label_values(&[kind]).inc();
    }

    /// At most `limit` changes of a scope behind `place`.
    ///
    /// Errors: `reset`, `not_found`.
    pub(super) async fn feed_page(
        &self,
        caller: &Caller,
        place: &FeedPosition,
        limit: usize,
    ) -> Result<FeedPage, Failure> {
        let limit = u16::try_from(limit).unwrap_or(u16::MAX);
        let after = Some((place.incarnation, place.sequence));
        self.ask_feed(caller, place.scope, after, limit).await
    }

    /// As `feed_page` with a page's usual length, shared with others of the same user who go on from the same place. It shows the
    /// feed up to `least` or further.
    pub(super) async fn shared_page(
        &self,
        caller: &Caller,
        place: &FeedPosition,
        least: u64,
    ) -> Result<FeedPage, Failure> {
        let key = (caller.principal.user, place.scope, place.incarnation, place.sequence);
        let cell = self.shared_pages.cell(key, self.seams.clock.monotonic());
        let mut is_own = false;
        let page = cell
            .get_or_try_init(|| {
                is_own = true;
                self.feed_page(caller, place, CHANGES_PAGE)
            })
            .await?;
        if page.position.sequence < least {
            return self.feed_page(caller, place, CHANGES_PAGE).await;
        }
        if !is_own {
            self.count_read("shared");
        }
        Ok(page.clone())
    }

    /// A page of changes behind the cursor `since`; the present end without one.
    ///
    /// Errors: `cursor_invalid`, `reset`.
    pub async fn changes(&self, caller: &Caller, since: Option<&str>, limit: usize) -> Result<Read, Failure> {
        let mut read = Read {
            told: Vec::new(),
            places: Vec::new(),
            has_more: false,
        };
        let Some(since) = since else {
            read.places.push(self.feed_end(caller, caller.home.root()).await?);
            return Ok(read);
        };
        for place in self.receipts.read_cursor(caller.principal.user, since)? {
            let left = limit - read.told.len();
            if left == 0 {
                read.places.push(place);
                read.has_more = true;
                continue;
            }
            let page = self.feed_page(caller, &place, left).await?;
            read.take(&place, page, left);
        }
        Ok(read)
    }
}

impl Read {
    /// Puts a page behind what was read, as far as there is room, and the cursor behind it.
    pub(super) fn take(&mut self, place: &FeedPosition, page: FeedPage, room: usize) {
        let mut place = *place;
        self.has_more |= page.has_more || page.changes.len() > room;
        for change in page.changes.into_iter().take(room) {
            place.sequence = change.change.sequence;
            self.told.push(Told {
                scope: place.scope,
                change,
            });
        }
        self.places.push(place);
    }
}
