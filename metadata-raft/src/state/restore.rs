//! Restoring a version: its content becomes the current one again, as a new version that holds the same pages.
//!
//! Invariants: no block is read, written or charged; it is a commit like any other, so the first of two on one base version wins, and
//! the content that is there already makes no version.
//! Not here: taking entries out of the trash (`tree`).

use crate::state::change::{self, Actor};
use crate::state::commit::{self, Goal, Intent};
use crate::state::drive;
use crate::state::entry;
use crate::state::page;
use crate::state::store::{Outcome, broken, require};
use crate::state::version;
use kv::overlay::Overlay;
use model::authorize::Action;
use model::id::{EntryId, ROOT_ENTRY};
use model::limits::COMMAND_OPERATIONS_MAX;
use model::profile::Domain;
use protocol::codes;
use protocol::metadata::drive::EntryChanged;
use protocol::metadata::upload::{Survival, UploadTarget};

/// Stands in a commit whose answer tells nothing of it: no byte was written of which a receipt could speak.
const NOTHING_WRITTEN: Survival = Survival {
    survives: Domain::Disk,
    is_degraded: false,
};

/// `RestoreVersion`.
pub(crate) fn restore(
    tx: &mut Overlay<'_>,
    actor: Actor<'_>,
    id: EntryId,
    number: u64,
    base_version: Option<u64>,
) -> Outcome<EntryChanged> {
    let mut drive = drive::authorised(&*tx, id.drive, actor.principal, Action::Write)?;
    let walk = entry::walk(&*tx, id)?;
    require(!walk.record().is_folder(), &codes::NOT_A_FILE)?;
    let old = version::find(&*tx, id.drive, id.number, number)?.ok_or(&codes::VERSION_NOT_FOUND)?;
    let target = UploadTarget::Entry(id);
    // No version has the number 0; as a base it is as stale as one from ahead, and not the wish for a new file.
    let base = match base_version {
        Some(0) => u64::MAX,
        Some(base) => base,
        None => walk.record().shown.version,
    };
    let Goal::Known(walk) = commit::goal(&*tx, id.drive, &target, Some(base), Some(old.digest))? else {
        return Err(broken("a file that is there would be made"));
    };
    if walk.record().shown.digest == Some(old.digest) {
        let position = change::position(&*tx, &drive, ROOT_ENTRY)?;
        let view = walk.view();
        return Ok(EntryChanged { view, position });
    }
    require(old.pages.len() <= COMMAND_OPERATIONS_MAX, &codes::COMMAND_TOO_LARGE)?;
    for page in &old.pages {
        page::hold_known(tx, id.drive, page.digest)?;
    }
    let intent = Intent {
        drive: id.drive,
        target: &target,
        base_version: Some(base),
        fresh: &[],
        content_type: None,
        survival: NOTHING_WRITTEN,
        size: old.size,
        digest: old.digest,
    };
    let committed = commit::finish(tx, &mut drive, actor, &intent, Goal::Known(walk), old.pages)?;
    Ok(EntryChanged {
        view: committed.view,
        position: committed.position,
    })
}
