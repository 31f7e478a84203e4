//! A user, and the commands that make a drive group with him.
//!
//! Reached by its path from the library's own tests, the worlds of `replicas` and the examples, which share no module.
//! Not here: what he does then.

use bytes::Bytes;
use model::authorize::Principal;
use model::id::{DriveId, Slot, UserId};
use model::name::Username;
use model::profile::ProfileId;
use model::time::Age;
use protocol::metadata::Command;
use protocol::metadata::group::{AdoptedSlot, GroupCommand, GroupSettings};
use protocol::metadata::user::{CutParameters, NewDrive, UserCommand};

/// How the drives of these users are cut.
pub(crate) const CUT: CutParameters = CutParameters {
    level: 1,
    min_bytes: 1 << 18,
    avg_bytes: 1 << 20,
    max_bytes: 1 << 22,
    page_min: 32,
    page_max: 512,
    page_bits: 7,
};

/// The user of this name and his home drive.
pub(crate) fn user(name: &str) -> (Principal, DriveId) {
    let slot = Slot::of_username(name);
    let owner = Principal {
        user: UserId::new(slot, 7),
        device: None,
        is_admin: false,
    };
    (owner, DriveId::new(slot, 8))
}

/// What makes both.
pub(crate) fn create_user(name: &str) -> Command {
    let (owner, drive) = user(name);
    let home = NewDrive {
        drive,
        wrapped_key: Bytes::from_static(b"wrapped"),
        kek_id: "kek".to_owned(),
        profile: ProfileId::Solo,
        quota_bytes: 1 << 40,
        cut: CUT,
    };
    Command::User(UserCommand::CreateUser {
        name: Username::new(name).unwrap(),
        user: owner.user,
        home,
        password_hash: "hash".to_owned(),
        is_admin: false,
    })
}

/// What makes a drive group that has the slot of the user of this name, and him in it.
pub(crate) fn founding(name: &str) -> [Command; 3] {
    let settings = GroupSettings {
        birth_epoch_ms: 3_600_000,
        block_grace_ms: 60_000,
    };
    let slots = vec![AdoptedSlot {
        slot: Slot::of_username(name),
        age: Age(0),
    }];
    [
        Command::Group(GroupCommand::Configure(settings)),
        Command::Group(GroupCommand::AdoptSlots { slots }),
        create_user(name),
    ]
}
