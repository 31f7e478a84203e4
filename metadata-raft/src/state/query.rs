//! Answering one query. Queries change nothing and are authorised here, where the state lies.

use crate::state::State;
use crate::state::age::{self, Now, Times};
use crate::state::block::{self, StoredPlace};
use crate::state::change;
use crate::state::collection;
use crate::state::commit;
use crate::state::control;
use crate::state::copy_job;
use crate::state::drive::{self, DriveRecord};
use crate::state::entry::{self, EntryRecord, Shown};
use crate::state::feed;
use crate::state::inventory;
use crate::state::job;
use crate::state::keys;
use crate::state::manifest;
use crate::state::packing;
use crate::state::page;
use crate::state::repacking;
use crate::state::request;
use crate::state::resumable;
use crate::state::retention;
use crate::state::rewind;
use crate::state::session;
use crate::state::staging;
use crate::state::store::{Outcome, Stop, broken, list, require};
use crate::state::stripe;
use crate::state::stripe_counts;
use crate::state::token;
use crate::state::touched;
use crate::state::twins;
use crate::state::usage;
use crate::state::user;
use crate::state::version;
use bytes::Bytes;
use kv::seam::{KvError, KvRead, Scan};
use model::authorize::Action;
use model::digest::Digest;
use model::entry::Version;
use model::id::{CONTROL_GROUP, DriveId, EntryId, UploadId, UserId};
use model::limits::LIST_PAGE_MAX;
use model::name::EntryName;
use model::time::WallTime;
use protocol::codes;
use protocol::frame;
use protocol::metadata::drive::EntryRef;
use protocol::metadata::query::{
    DriveAsk, DriveMark, DriveQuery, FIND_BLOCKS_MAX, FoundBlock, FoundBlocks, Listing, ROWS_MAX, TrashListing, Usage,
    UserQuery, Waiting,
};
use protocol::metadata::upload::SessionState;
use protocol::metadata::user::LoginFacts;
use protocol::metadata::{Query, QueryAnswer, Reply};
use std::collections::BTreeMap;

impl State {
    /// Answers an encoded `Query` by an encoded `Reply<QueryAnswer>` from `kv`, the live store or a snapshot of it.
    ///
    /// The error is this replica's own: its store failed or is damaged.
    pub fn query(&self, kv: &dyn KvRead, query: &[u8]) -> Result<Bytes, KvError> {
        self.query_at(kv, &mut Times::default(), query)
    }

    /// As `query`, with `times` of a `kv` that does not change while they are used.
    pub(crate) fn query_at(&self, kv: &dyn KvRead, times: &mut Times, query: &[u8]) -> Result<Bytes, KvError> {
        let reply = match self.ask(kv, times, query) {
            Ok(reply) => reply,
            Err(Stop::Refused(failure)) => Reply {
                time: None,
                result: Err(*failure),
            },
            Err(Stop::Store(error)) => return Err(error),
        };
        Ok(reply.to_bytes())
    }

    fn ask(&self, kv: &dyn KvRead, times: &mut Times, query: &[u8]) -> Outcome<Reply<QueryAnswer>> {
        let query: Query = frame::decode(query)?;
        let is_control = self.group == CONTROL_GROUP;
        require(is_control == matches!(query, Query::Control(_)), &codes::NOT_MINE)?;
        let Some(slot) = query.slot() else {
            let answer = match &query {
                Query::Control(query) => control::query(kv, query)?,
                Query::StripeCounts => QueryAnswer::StripeCounts(stripe_counts::of_group(kv)?),
                Query::Collection(after) => QueryAnswer::Collection(collection::describe(kv, *after)?),
                Query::Orphans(stripes) => QueryAnswer::Orphans(collection::orphans(kv, stripes)?),
                Query::Repackable(after) => QueryAnswer::Repackable(repacking::describe(kv, *after)?),
                Query::FeedEnds(scopes) => QueryAnswer::FeedEnds(feed::ends(kv, times, scopes)?),
                Query::Packing(ask) => QueryAnswer::Packing(packing::describe(kv, ask.as_ref())?),
                Query::SumStripes(ask) => QueryAnswer::StripeSums(inventory::sums(kv, times, ask)?),
                Query::ListStripes(ask) => QueryAnswer::ListedStripes(inventory::stripes(kv, times, ask)?),
                _ => QueryAnswer::Group(age::describe(kv)?),
            };
            return Ok(Reply {
                time: None,
                result: Ok(answer),
            });
        };
        let now = times.now(kv, slot, WallTime(0))?;
        let answer = match &query {
            Query::User(query) => on_user(kv, query),
            Query::Drive(query) => asked_drive(kv, query).and_then(|drive| on_drive(kv, &now, query, &drive)),
            Query::DriveSince(query, seen) => self.since(kv, &now, query, *seen),
            Query::Slot(_)
            | Query::Control(_)
            | Query::Group
            | Query::StripeCounts
            | Query::Collection(_)
            | Query::Orphans(_)
            | Query::FeedEnds(_)
            | Query::Repackable(_)
            | Query::Packing(_)
            | Query::SumStripes(_)
            | Query::ListStripes(_) => Ok(QueryAnswer::Time(now.time)),
        };
        let result = match answer {
            Ok(answer) => Ok(answer),
            Err(Stop::Refused(failure)) => Err(*failure),
            Err(Stop::Store(error)) => return Err(Stop::Store(error)),
        };
        Ok(Reply {
            time: Some(now.time),
            result,
        })
    }

    /// Who asks is authorised first, whatever the mark is. The mark is read before the answer, so that it is never the newer one.
    fn since(&self, kv: &dyn KvRead, now: &Now, query: &DriveQuery, seen: Option<DriveMark>) -> Outcome<QueryAnswer> {
        require(
            query.principal.is_some() && touched::is_covered(&query.ask),
            &codes::DENIED,
        )?;
        let drive = asked_drive(kv, query)?;
        let mark = touched::mark(kv, self.group, query.drive, drive.incarnation)?;
        if seen == Some(mark) {
            return Ok(QueryAnswer::Since(mark, None));
        }
        let answer = on_drive(kv, now, query, &drive)?;
        Ok(QueryAnswer::Since(mark, Some(frame::encode(&answer)?)))
    }
}

/// The drive, if whoever asks may ask that about it.
fn asked_drive(kv: &dyn KvRead, query: &DriveQuery) -> Outcome<DriveRecord> {
    match &query.principal {
        Some(principal) => drive::authorised(kv, query.drive, principal, action(&query.ask)),
        None => drive::get(kv, query.drive),
    }
}

fn on_user(kv: &dyn KvRead, query: &UserQuery) -> Outcome<QueryAnswer> {
    match query {
        UserQuery::ByName(name) => Ok(QueryAnswer::User(user::by_name(kv, name)?.record())),
        UserQuery::ById(id) => Ok(QueryAnswer::User(user::get(kv, *id)?.record())),
        UserQuery::Login(name) => {
            let user = user::by_name(kv, name)?;
            let facts = LoginFacts {
                user: user.record(),
                password_hash: user.password_hash,
            };
            Ok(QueryAnswer::Login(facts))
        }
        UserQuery::Token { user, hash, now } => token::facts(kv, *user, *hash, *now).map(QueryAnswer::Token),
        UserQuery::Devices(user) => token::devices(kv, *user).map(QueryAnswer::Devices),
        UserQuery::List { slot, after } => user::in_slot(kv, *slot, *after).map(QueryAnswer::Users),
    }
}

fn limited(limit: u16) -> Outcome<usize> {
    let limit = usize::from(limit);
    require((1..=LIST_PAGE_MAX).contains(&limit), &codes::BAD_LIMIT)?;
    Ok(limit)
}

fn action(ask: &DriveAsk) -> Action {
    match ask {
        DriveAsk::Upload { .. } | DriveAsk::Staging { .. } => Action::Write,
        _ => Action::Read,
    }
}

/// A flat table from what is asked to the function that answers.
fn on_drive(kv: &dyn KvRead, now: &Now, query: &DriveQuery, drive: &DriveRecord) -> Outcome<QueryAnswer> {
    let id = query.drive;
    if query.principal.is_none() {
        return on_worker(kv, drive, &query.ask);
    }
    match &query.ask {
        DriveAsk::Get(entry) => Ok(QueryAnswer::Entry(entry::resolve(kv, id, entry)?.view())),
        DriveAsk::List {
            folder,
            limit,
            page_token,
        } => listing(kv, id, folder, limited(*limit)?, page_token.as_deref()).map(QueryAnswer::Listing),
        DriveAsk::Trash { limit, after } => trash(kv, id, limited(*limit)?, *after).map(QueryAnswer::Trash),
        DriveAsk::Versions { entry, before } => {
            require(entry.drive == id, &codes::NOT_FOUND)?;
            versions(kv, *entry, *before, ROWS_MAX).map(QueryAnswer::Versions)
        }
        DriveAsk::ListVersions { entry, before, limit } => {
            require(entry.drive == id, &codes::NOT_FOUND)?;
            let rows_max = limited(*limit)?.saturating_add(1);
            versions(kv, *entry, *before, rows_max).map(QueryAnswer::Versions)
        }
        DriveAsk::Retention => retention::of(kv, id).map(QueryAnswer::Retention),
        DriveAsk::FindBlocks(digests) => find_blocks(kv, id, digests).map(QueryAnswer::Blocks),
        DriveAsk::ReadManifest { entry, version, range } => {
            require(entry.drive == id, &codes::NOT_FOUND)?;
            manifest::read(kv, drive, *entry, *version, *range).map(QueryAnswer::Manifest)
        }
        DriveAsk::Session(upload) => session_of(kv, query, *upload),
        DriveAsk::Resumable(upload) => resumable_of(kv, query, *upload),
        DriveAsk::SessionLife(upload) => life_of(kv, now, query, *upload),
        DriveAsk::AnnouncedRows { upload, first } => {
            own_session(kv, query, *upload, false)?;
            let (rows, has_more) = staging::rows(kv, *upload, *first)?;
            Ok(QueryAnswer::AnnouncedRows(rows, has_more))
        }
        DriveAsk::Staging { upload, row } => {
            staging::facts(kv, drive, query.principal.as_ref(), *upload, *row).map(QueryAnswer::Staging)
        }
        DriveAsk::ReadRows { entry, version, first } => {
            require(entry.drive == id, &codes::NOT_FOUND)?;
            manifest::rows(kv, *entry, *version, *first).map(QueryAnswer::VersionRows)
        }
        DriveAsk::FindPages(digests) => {
            require(digests.len() <= FIND_BLOCKS_MAX, &codes::COMMAND_TOO_LARGE)?;
            page::known(kv, id, digests).map(QueryAnswer::Pages)
        }
        DriveAsk::ScopeChanges { scope, after, limit } => {
            require(scope.drive == id, &codes::NOT_FOUND)?;
            change::by_scope(kv, drive, scope.number, *after, limited(*limit)?).map(QueryAnswer::Changes)
        }
        DriveAsk::Feed { scope, after, limit } => {
            require(scope.drive == id, &codes::NOT_FOUND)?;
            feed::page(kv, drive, scope.number, *after, limited(*limit)?).map(QueryAnswer::Feed)
        }
        DriveAsk::Rewind { job, first, limit } => {
            let principal = query.principal.as_ref().ok_or(&codes::DENIED)?;
            rewind::page(kv, principal, (id, *job), *first, limited(*limit)?).map(QueryAnswer::Rewind)
        }
        DriveAsk::Copy(job) => {
            let principal = query.principal.as_ref().ok_or(&codes::DENIED)?;
            copy_job::facts(kv, principal, id, *job).map(QueryAnswer::Copy)
        }
        DriveAsk::Twins { folder, after, limit } => {
            require(folder.drive == id, &codes::NOT_FOUND)?;
            twins::page(kv, *folder, after.as_ref(), limited(*limit)?).map(QueryAnswer::Twins)
        }
        DriveAsk::Usage | DriveAsk::Facts => on_worker(kv, drive, &query.ask),
        DriveAsk::Upload {
            target,
            base_version,
            declared_bytes,
            request,
        } => {
            let is_repeat = match request {
                Some(key) => request::is_remembered(kv, now, id.slot(), key)?,
                None => false,
            };
            if !is_repeat {
                commit::foresee(kv, drive, target, *base_version, *declared_bytes)?;
            }
            Ok(QueryAnswer::Drive(drive.facts()))
        }
        DriveAsk::Changes { .. }
        | DriveAsk::Jobs
        | DriveAsk::Waiting
        | DriveAsk::DegradedStripes { .. }
        | DriveAsk::DyingStripes { .. } => Err((&codes::DENIED).into()),
    }
}

/// What workers of the cluster may ask: nothing that shows a user's tree.
fn on_worker(kv: &dyn KvRead, drive: &DriveRecord, ask: &DriveAsk) -> Outcome<QueryAnswer> {
    let slot = drive.drive.slot();
    match ask {
        DriveAsk::Usage => {
            let usage = usage::get(kv, drive.drive)?;
            Ok(QueryAnswer::Usage(Usage {
                charged_bytes: usage.charged_bytes,
                released_bytes: usage.released_bytes,
                quota_bytes: drive.quota_bytes,
                files: usage.files,
                folders: usage.folders,
            }))
        }
        DriveAsk::Facts => Ok(QueryAnswer::Drive(drive.facts())),
        DriveAsk::Staging { upload, row } => staging::facts(kv, drive, None, *upload, *row).map(QueryAnswer::Staging),
        DriveAsk::Changes { after, limit } => {
            change::by_sequence(kv, drive, *after, limited(*limit)?).map(QueryAnswer::Changes)
        }
        DriveAsk::Jobs => job::all(kv, drive.drive).map(QueryAnswer::Jobs),
        DriveAsk::Waiting => Ok(QueryAnswer::Waiting(Waiting {
            jobs: job::all(kv, drive.drive)?,
            has_released_pages: page::has_released(kv, drive.drive)?,
        })),
        DriveAsk::DegradedStripes { limit } => {
            stripe::queue(kv, slot, keys::STRIPE_DEGRADED, limited(*limit)?).map(QueryAnswer::Stripes)
        }
        DriveAsk::DyingStripes { limit } => {
            stripe::queue(kv, slot, keys::STRIPE_DYING, limited(*limit)?).map(QueryAnswer::Stripes)
        }
        _ => Err((&codes::DENIED).into()),
    }
}

/// Who asks for an upload; one of another drive is none.
fn asker(query: &DriveQuery, upload: UploadId) -> Outcome<UserId> {
    let user = query.principal.as_ref().map(|principal| principal.user);
    let user = user.filter(|_| upload.drive == query.drive);
    user.ok_or_else(|| (&codes::SESSION_NOT_FOUND).into())
}

fn resumable_of(kv: &dyn KvRead, query: &DriveQuery, upload: UploadId) -> Outcome<QueryAnswer> {
    resumable::state(kv, upload, asker(query, upload)?).map(QueryAnswer::Resumable)
}

fn life_of(kv: &dyn KvRead, now: &Now, query: &DriveQuery, upload: UploadId) -> Outcome<QueryAnswer> {
    let ends_at = resumable::ends_at(kv, upload, asker(query, upload)?)?;
    Ok(QueryAnswer::SessionLife(ends_at.0.saturating_sub(now.age().0)))
}

fn session_of(kv: &dyn KvRead, query: &DriveQuery, upload: UploadId) -> Outcome<QueryAnswer> {
    own_session(kv, query, upload, true).map(QueryAnswer::Session)
}

fn own_session(kv: &dyn KvRead, query: &DriveQuery, upload: UploadId, with_rows: bool) -> Outcome<SessionState> {
    require(upload.drive == query.drive, &codes::SESSION_NOT_FOUND)?;
    let state = session::state(kv, upload, with_rows)?;
    let is_own = query
        .principal
        .as_ref()
        .is_some_and(|principal| principal.user == state.principal.user);
    require(is_own, &codes::SESSION_NOT_FOUND)?;
    Ok(state)
}

fn versions(kv: &dyn KvRead, entry: EntryId, before: Option<u64>, rows_max: usize) -> Outcome<Vec<Version>> {
    let walk = entry::walk(kv, entry)?;
    require(!walk.record().is_folder(), &codes::NOT_A_FILE)?;
    version::newest_first(kv, entry.drive, entry.number, before, rows_max)
}

/// One range scan: a page of a folder in the order of name keys. The token is the last name shown.
fn listing(kv: &dyn KvRead, drive: DriveId, folder: &EntryRef, limit: usize, token: Option<&str>) -> Outcome<Listing> {
    let walk = entry::resolve(kv, drive, folder)?;
    require(walk.record().is_folder(), &codes::NOT_A_FOLDER)?;
    let number = walk.record().shown.number;
    let after = match token {
        Some(token) => {
            let name = EntryName::new(token).map_err(|_| Stop::from(&codes::BAD_PAGE_TOKEN))?;
            Some(keys::child(drive, number, &name.key()))
        }
        None => None,
    };
    let mut rows = list::<Shown>(kv, &keys::children(drive, number).done(), after.as_deref(), limit + 1)?;
    let has_more = rows.len() > limit;
    rows.truncate(limit);
    let next_page_token = if has_more {
        rows.last().map(|(_, shown)| shown.name.clone())
    } else {
        None
    };
    let entries = rows.into_iter().map(|(_, shown)| shown.entry(drive, None)).collect();
    Ok(Listing {
        folder: walk.view(),
        entries,
        next_page_token,
    })
}

fn trash(kv: &dyn KvRead, drive: DriveId, limit: usize, after: Option<(u64, EntryId)>) -> Outcome<TrashListing> {
    let mut scan = Scan::prefix(&keys::Key::of_drive(drive, keys::TRASH).done(), limit + 1);
    if let Some((age_ms, entry)) = after {
        scan = scan.after(&keys::trash(drive, age_ms, entry.number));
    }
    let rows = kv.scan(&scan)?;
    let has_more = rows.len() > limit;
    let mut entries = Vec::new();
    for (key, _) in rows.iter().take(limit) {
        let walk = entry::walk(
            kv,
            EntryId {
                drive,
                number: keys::last_u64(key),
            },
        )?;
        entries.push((keys::u64_at(key, keys::DRIVE_PREFIX_BYTES), walk.view()));
    }
    Ok(TrashListing { entries, has_more })
}

fn find_blocks(kv: &dyn KvRead, drive: DriveId, digests: &[Digest]) -> Outcome<FoundBlocks> {
    require(digests.len() <= FIND_BLOCKS_MAX, &codes::COMMAND_TOO_LARGE)?;
    let mut found = Vec::new();
    let mut stripes = BTreeMap::new();
    for digest in digests {
        let Some((_, record)) = block::find_whole(kv, drive, *digest)? else {
            continue;
        };
        let stripe = match record.place {
            StoredPlace::Inline => None,
            StoredPlace::Stripe { profile, stripe, .. } => {
                stripes
                    .entry((profile, stripe))
                    .or_insert(stripe::get(kv, profile, stripe)?.facts(profile, stripe));
                Some(stripe)
            }
        };
        found.push(FoundBlock {
            row: record.row,
            stripe,
        });
    }
    Ok(FoundBlocks {
        found,
        stripes: stripes.into_values().collect(),
    })
}

/// Entries of a drive, for `check`.
pub(crate) fn all_entries(kv: &dyn KvRead, drive: DriveId) -> Outcome<Vec<EntryRecord>> {
    let rows = list::<EntryRecord>(kv, &keys::Key::of_drive(drive, keys::ENTRY).done(), None, usize::MAX)?;
    for (key, record) in &rows {
        if keys::last_u64(key) != record.shown.number {
            return Err(broken("an entry lies under another number"));
        }
    }
    Ok(rows.into_iter().map(|(_, record)| record).collect())
}
