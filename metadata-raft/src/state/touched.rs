//! Which command touched a drive last, so that who keeps an answer about it can be told that the answer still holds.
//!
//! Invariant: while a drive's mark is the same, whatever `is_covered` says may be asked about it has the same answer, or the same
//! refusal but for one of authorisation, which is decided anew each time. Every command that writes anything of a drive's, or of the
//! stripes of its blocks, moves its mark; the feed's sequence alone would not do, since retention, repair and an erased key are no
//! changes of the tree.
//! Not here: who keeps answers (gateway).

use crate::state::keys;
use crate::state::store::{Outcome, Stop, encode, load};
use crate::state::user;
use kv::overlay::Overlay;
use kv::seam::{Change, KvError, KvRead};
use model::id::{DriveId, GroupId, Incarnation};
use protocol::metadata::Command;
use protocol::metadata::query::{DriveAsk, DriveMark};
use protocol::metadata::user::UserCommand;
use serde::{Deserialize, Serialize};

/// Where the mark stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Touched {
    group: GroupId,
    index: u64,
}

/// The drive that `command` may touch, as the state is before it. No command touches two, and those of a group as a whole touch none:
/// the stripes that they forget hold no living block.
pub(crate) fn drive_of(kv: &dyn KvRead, command: &Command) -> Outcome<Option<DriveId>> {
    let user = match command {
        Command::Drive(command) => return Ok(Some(command.drive())),
        Command::Upload(command) => return Ok(Some(command.drive())),
        Command::User(UserCommand::PatchUser { user, .. } | UserCommand::DeleteUser { user, .. }) => *user,
        Command::User(UserCommand::CreateUser { home, .. }) => return Ok(Some(home.drive)),
        // Devices and tokens are not asked for with a drive.
        Command::User(_) | Command::Control(_) | Command::Group(_) => return Ok(None),
    };
    Ok(user::find(kv, user)?.map(|user| user.record().home))
}

/// Whether what a command wrote can change an answer: a repeat under a request id may write nothing else than the id's row, and a
/// sweeper that found nothing only when it comes back.
pub(crate) fn is_touch(changes: &[Change]) -> bool {
    changes.iter().any(|change| match change {
        Change::Put(key, _) | Change::Delete(key) | Change::DeleteRange(key, _) => !keys::is_bookkeeping(key),
    })
}

/// Notes that entry `index` of the log of `group` touched `drive`.
pub(crate) fn note(tx: &mut Overlay<'_>, drive: DriveId, group: GroupId, index: u64) -> Result<(), KvError> {
    match encode(&Touched { group, index }) {
        Ok(bytes) => tx.put(keys::touched(drive), bytes),
        Err(Stop::Store(error)) => return Err(error),
        Err(Stop::Refused(failure)) => return Err(KvError::Corrupt(failure.to_string())),
    }
    Ok(())
}

/// The drive's mark. A drive that nothing has touched since before there were marks has index 0 until something does.
pub(crate) fn mark(kv: &dyn KvRead, own: GroupId, drive: DriveId, incarnation: Incarnation) -> Outcome<DriveMark> {
    let touched = load::<Touched>(kv, &keys::touched(drive))?;
    let Touched { group, index } = touched.unwrap_or(Touched { group: own, index: 0 });
    Ok(DriveMark {
        incarnation,
        group,
        index,
    })
}

/// Whether the answer follows from what the drive's own commands write: no age, no session, no other drive, no grant.
pub(crate) fn is_covered(ask: &DriveAsk) -> bool {
    matches!(
        ask,
        DriveAsk::Get(_)
            | DriveAsk::List { .. }
            | DriveAsk::ReadManifest { .. }
            | DriveAsk::ReadRows { .. }
            | DriveAsk::ListVersions { .. }
    )
}
