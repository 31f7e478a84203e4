//! Twins: entries of one folder whose names are equal but for case, for clients whose file system cannot hold both.
//!
//! Invariants: `TWIN` has one row for every entry that hangs in a folder (`children`), by the folded form of its name, so twins lie side
//! by side and a page is one range scan.
//! Not here: what a client does about them.

use crate::state::entry;
use crate::state::keys::{self, Key};
use crate::state::store::{Outcome, broken, require};
use kv::seam::{KvRead, Scan};
use model::entry::Entry;
use model::id::{DriveId, EntryId};
use protocol::codes;
use protocol::metadata::query::{TwinListing, Twins};

/// `DriveAsk::Twins`: those among the next `limit` names of the folder.
pub(crate) fn page(
    kv: &dyn KvRead,
    folder: EntryId,
    after: Option<&(String, u64)>,
    limit: usize,
) -> Outcome<TwinListing> {
    let (drive, parent) = (folder.drive, folder.number);
    let walk = entry::walk(kv, folder)?;
    require(walk.record().is_folder(), &codes::NOT_A_FOLDER)?;
    let prefix = Key::of_drive(drive, keys::TWIN).u64(parent).done();
    let mut scan = Scan::prefix(&prefix, limit + 1);
    if let Some((folded, number)) = after {
        scan = scan.after(&keys::twin(drive, parent, folded, *number));
    }
    let rows = kv.scan(&scan)?;
    let has_more = rows.len() > limit;
    let mut groups: Vec<(String, Vec<u64>)> = Vec::new();
    for (key, _) in rows {
        let (folded, number) = read(&key, prefix.len())?;
        match groups.last_mut() {
            Some((last, numbers)) if *last == folded => numbers.push(number),
            _ => groups.push((folded, vec![number])),
        }
    }
    // The last of them may go on behind the page: it begins the next one, unless nothing else is here.
    if has_more && groups.len() > 1 {
        groups.pop();
    }
    let last = groups.last().filter(|_| has_more);
    let next = last.and_then(|(folded, numbers)| Some((folded.clone(), *numbers.last()?)));
    let is_continued = |folded: &str| after.is_some_and(|(before, _)| before == folded);
    let mut twins = Vec::new();
    for (folded, numbers) in groups {
        if numbers.len() > 1 || is_continued(&folded) {
            let entries = numbers.into_iter().map(|number| shown(kv, drive, number));
            let entries = entries.collect::<Outcome<Vec<Entry>>>()?;
            twins.push(Twins { folded, entries });
        }
    }
    Ok(TwinListing {
        folder: walk.view(),
        twins,
        next,
    })
}

/// The folded name and the number of a row of `TWIN`.
fn read(key: &[u8], prefix_bytes: usize) -> Outcome<(String, u64)> {
    /// A zero byte and the number.
    const END_BYTES: usize = 1 + 8;
    let unread = || broken("a twin's key is none");
    let end = key.len().checked_sub(END_BYTES).ok_or_else(unread)?;
    let folded = key.get(prefix_bytes..end).ok_or_else(unread)?;
    let folded = std::str::from_utf8(folded).map_err(|_| unread())?;
    Ok((folded.to_owned(), keys::last_u64(key)))
}

fn shown(kv: &dyn KvRead, drive: DriveId, number: u64) -> Outcome<Entry> {
    let record = entry::find(kv, drive, number)?.ok_or_else(|| broken("a twin is not there"))?;
    Ok(record.shown.entry(drive, None))
}
