//! A version's list of blocks, in parts, or told against another version's list.
//!
//! Invariants: a part is of the version that the first part was of; its splices give exactly its blocks.
//! Not here: the blocks' bytes, which are read as ranges of the content.

use crate::drive::{Caller, Core, expect};
use api::sync::{Block, BlockList, BlocksQuery, Splice as WireSplice};
use codec::delta::{Splice, splices};
use model::id::EntryId;
use model::limits::LIST_PAGE_MAX;
use protocol::codes as group_codes;
use protocol::metadata::QueryAnswer;
use protocol::metadata::query::{DriveAsk, VersionRows};
use protocol::wire_error::Failure;

/// Where a part begins.
struct Begin {
    version: Option<u64>,
    since: Option<u64>,
    first: u64,
}

impl Core {
    /// A part of a version's list.
    ///
    /// Errors: `not_found`, `not_a_file`, `version_not_found`, `bad_limit`, `bad_page_token`.
    pub async fn blocks(&self, caller: &Caller, entry: EntryId, query: &BlocksQuery) -> Result<BlockList, Failure> {
        let limit = query.limit.map_or(LIST_PAGE_MAX, |limit| limit as usize);
        if !(1..=LIST_PAGE_MAX).contains(&limit) {
            return Err(group_codes::BAD_LIMIT.failure());
        }
        let begin = self.begin(caller, entry, query)?;
        let part = self.rows_from(caller, entry, begin.version, begin.first).await?;
        let rows = &part.rows[..part.rows.len().min(limit)];
        let (version, next) = (part.version.number, begin.first + rows.len() as u64);
        let told = match begin.since {
            Some(since) => {
                let old = self.all_rows(caller, entry, since).await?;
                Some(splices(&old, rows).iter().map(wire_splice).collect())
            }
            None => None,
        };
        let next = (next < part.count).then(|| {
            let place = format!("{version}.{}.{next}", begin.since.unwrap_or(0));
            self.receipts.page_token(caller.principal.user, entry, &place)
        });
        Ok(BlockList {
            version,
            size: part.version.size,
            digest: part.version.digest.to_hex(),
            since: begin.since,
            blocks: told.is_none().then(|| rows.iter().map(Block::from).collect()),
            splices: told,
            next_page_token: next,
        })
    }

    fn begin(&self, caller: &Caller, entry: EntryId, query: &BlocksQuery) -> Result<Begin, Failure> {
        let Some(token) = &query.page_token else {
            return Ok(Begin {
                version: query.version,
                since: query.since,
                first: 0,
            });
        };
        let read = || {
            let (begun_in, place) = self.receipts.read_page_token(caller.principal.user, token)?;
            let mut numbers = place.split('.').map(|text| text.parse::<u64>().ok());
            let (version, since, first) = (numbers.next()??, numbers.next()??, numbers.next()??);
            let since = (since > 0).then_some(since);
            let is_same = begun_in == entry
                && query.version.is_none_or(|asked| asked == version)
                && (query.since.is_none() || query.since == since);
            is_same.then_some(Begin {
                version: Some(version),
                since,
                first,
            })
        };
        read().ok_or_else(|| group_codes::BAD_PAGE_TOKEN.failure())
    }

    /// The rows of a version from one on.
    pub(super) async fn rows_from(
        &self,
        caller: &Caller,
        entry: EntryId,
        version: Option<u64>,
        first: u64,
    ) -> Result<VersionRows, Failure> {
        let ask = DriveAsk::ReadRows { entry, version, first };
        match self.ask_kept(caller, entry.drive, ask).await? {
            QueryAnswer::VersionRows(rows) => Ok(rows),
            _ => expect(None),
        }
    }
}

fn wire_splice(splice: &Splice) -> WireSplice {
    match splice {
        Splice::Keep { first, count } => WireSplice::Keep([*first, *count]),
        Splice::Blocks(rows) => WireSplice::Blocks(rows.iter().map(Block::from).collect()),
    }
}
