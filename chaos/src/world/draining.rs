//! Changes of layout while users work: a disk is to be emptied and later takes fragments again, then the next one.
//!
//! Each of both has the control group plan new rows, which nodes, groups and the gateway learn of one by one and under attack. Nothing
//! moves a fragment yet: what was written under an old row is found where it lies, by what the new row says of the one before.
//! Invariant: one disk at a time is being emptied, so that a row always finds its disks.
//! Not here: moving fragments to their new rows, which is repair's.

use crate::world::hatch::Hatch;
use crate::world::home::patiently;
use crate::world::phase::{Phase, Phases};
use crate::world::shape::{self, GATEWAY};
use crate::world::trace::{Kind, Trace};
use daemon::random::Random;
use gateway::drive::Core;
use model::cluster::Membership;
use model::id::{DiskId, RowVersion};
use model::profile::ProfileId;
use protocol::metadata::Command;
use protocol::metadata::control::ControlCommand;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::sleep;

/// Longer than the planner waits for its next look, so that most changes are planned apart.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(4);
const TRY_AGAIN: Duration = Duration::from_millis(250);

/// The version of each row of each profile.
pub type RowVersions = BTreeMap<ProfileId, Vec<RowVersion>>;

/// Changes the layout until faults end.
pub async fn make(hatch: &Hatch, trace: &Trace, phases: &Phases, random: &Random) {
    let disks: Vec<DiskId> = shape::nodes().flat_map(shape::disks).collect();
    while phases.now() == Phase::Faults {
        let at = usize::try_from(random.below(disks.len() as u64)).expect("an index of a short list");
        for membership in [Membership::Draining, Membership::Active] {
            let disk = disks[at];
            // What died with its gateway is said once more: what is said twice is the same.
            while phases.now() == Phase::Faults {
                let (trace, phases) = (trace.clone(), phases.clone());
                let told = hatch.ask(move |core| async move { tell(&core, &trace, &phases, disk, membership).await });
                if told.await.is_ok() {
                    break;
                }
            }
            sleep(PAUSE_MIN + random.up_to(PAUSE_MAX - PAUSE_MIN)).await;
        }
    }
}

/// Says what a disk is used for until that is answered or faults have ended: what is said twice is the same.
async fn tell(core: &Core, trace: &Trace, phases: &Phases, disk: DiskId, membership: Membership) {
    let command = Command::Control(ControlCommand::SetDisk { disk, membership });
    while phases.now() == Phase::Faults {
        if core.metadata.command(command.clone(), None, 0).await.is_ok() {
            trace.note(Kind::Fault, GATEWAY, format_args!("disk {disk} is {membership:?}"));
            return;
        }
        sleep(TRY_AGAIN).await;
    }
}

/// How often each row was changed by now.
///
/// Errors: the control group does not answer.
pub async fn row_versions(hatch: &Hatch) -> Result<RowVersions, String> {
    let known = hatch.ask_in_peace(|core| async move { patiently(async || core.directory.refresh(0).await).await });
    let known = known.await?;
    let tables = known.layout.tables.iter();
    let versions = tables.map(|(profile, table)| (*profile, table.rows.iter().map(|row| row.version).collect()));
    Ok(versions.collect())
}

/// Says whether a row is another one than `before`: else nothing was shown.
///
/// Errors: none is, or the control group does not answer.
pub async fn require_changed(hatch: &Hatch, before: &RowVersions) -> Result<(), String> {
    match row_versions(hatch).await? == *before {
        true => Err("no row has changed in a world of changes".to_owned()),
        false => Ok(()),
    }
}
