//! Golden bytes of the commands that `metadata_golden` has no line for, so that every sort of command is pinned.
//!
//! Each is written in an envelope without a request id, as a log holds it. Not here: answers, queries (`metadata_golden`).
#![allow(clippy::unwrap_used, reason = "the whole crate is a test")]

use model::authorize::Principal;
use model::cluster::{Membership, NodeInfo};
use model::digest::{Digest, StripeHash};
use model::entry::BlockRow;
use model::id::{BlockId, DeviceId, DiskId, DriveId, EntryId, NodeId, RowVersion, UploadId, UserId};
use model::name::DrivePath;
use model::profile::{Domain, ProfileId};
use model::stripe::{Astray, StripeForm, StripeId};
use model::time::WallTime;
use protocol::frame::{decode, encode};
use protocol::metadata::control::{ControlCommand, NodeDisk};
use protocol::metadata::drive::{DriveCommand, Place};
use protocol::metadata::file_batch::{BatchedFile, FileBatch};
use protocol::metadata::group::{ForgottenStripe, GroupCommand};
use protocol::metadata::repacking::{OldPlace, Repacking};
use protocol::metadata::rewind::RewindOrder;
use protocol::metadata::upload::{
    NewBlock, NewStripe, PackedContents, PageRows, RowRun, Survival, Tail, UploadCommand, UploadTarget,
};
use protocol::metadata::user::{TokenHash, UserCommand};
use protocol::metadata::{Command, Envelope};

const GOLDEN: &str = include_str!("../golden/commands.hex");
const DRIVE: DriveId = DriveId(0x1230_0000_0000_0001);
const USER: UserId = UserId(0x1230_0000_0000_0002);
const DEVICE: DeviceId = DeviceId(0x1230_0000_0000_0003);

const UPLOAD: UploadId = UploadId {
    drive: DRIVE,
    number: 4,
};

fn stripe() -> NewStripe {
    NewStripe {
        id: StripeId(0xabcd_0000_0000_0000_0000_0012_3000_0006),
        profile: ProfileId::Dev,
        form: StripeForm {
            stripe_bytes: 60,
            k: 4,
            m: 2,
            stripe_hash: StripeHash([8; 32]),
        },
        row_version: RowVersion(3),
        astray: Vec::new(),
        blocks: Vec::new(),
    }
}

/// A flat table: one row a command, with the name that its line begins with.
fn commands() -> Vec<(&'static str, Command)> {
    let disk = |number, weight_bytes| NodeDisk {
        disk: DiskId(number),
        weight_bytes,
    };
    let admin = Principal {
        user: UserId(0x1230_0000_0000_0009),
        device: None,
        is_admin: true,
    };
    vec![
        (
            "RegisterNode",
            Command::Control(ControlCommand::RegisterNode {
                node: NodeId(3),
                info: NodeInfo {
                    region: "r1".into(),
                    zone: "z1".into(),
                    address: "127.0.0.1:8".parse().unwrap(),
                    membership: Membership::Active,
                },
                disks: vec![disk(5, 1000), disk(6, 2000)],
            }),
        ),
        (
            "AdoptKek",
            Command::Control(ControlCommand::AdoptKek { kek: "kek".into() }),
        ),
        (
            "SetDisk",
            Command::Control(ControlCommand::SetDisk {
                disk: DiskId(5),
                membership: Membership::Out,
            }),
        ),
        (
            "ClaimSetup",
            Command::Control(ControlCommand::ClaimSetup { name: "ada".into() }),
        ),
        (
            "RegisterDevice",
            Command::User(UserCommand::RegisterDevice {
                user: USER,
                device: DEVICE,
                name: "desk".into(),
            }),
        ),
        (
            "RevokeDevice",
            Command::User(UserCommand::RevokeDevice {
                user: USER,
                device: DEVICE,
            }),
        ),
        (
            "RevokeToken",
            Command::User(UserCommand::RevokeToken {
                user: USER,
                hash: TokenHash([4; 32]),
            }),
        ),
        (
            "DeleteUser",
            Command::User(UserCommand::DeleteUser {
                principal: admin,
                user: USER,
            }),
        ),
        (
            "SweepTrash",
            Command::Drive(DriveCommand::SweepTrash { drive: DRIVE, job: 3 }),
        ),
        (
            "SweepRequests",
            Command::Drive(DriveCommand::SweepRequests { drive: DRIVE }),
        ),
        (
            "SetStripe",
            Command::Upload(UploadCommand::SetStripe {
                drive: DRIVE,
                profile: ProfileId::Dev,
                stripe: StripeId(0xabcd_0000_0000_0000_0000_0012_3000_0005),
                row_version: RowVersion(3),
                astray: vec![
                    Astray { index: 1, disk: None },
                    Astray {
                        index: 2,
                        disk: Some(DiskId(9)),
                    },
                ],
                is_damaged: true,
            }),
        ),
        (
            "AnnounceRows",
            Command::Upload(UploadCommand::AnnounceRows {
                upload: UPLOAD,
                position: 9,
                rows: vec![BlockRow {
                    digest: Digest([1; 32]),
                    size: 1000,
                }],
            }),
        ),
        (
            "StageStripes",
            Command::Upload(UploadCommand::StageStripes {
                upload: UPLOAD,
                stripes: Vec::new(),
            }),
        ),
    ]
}

/// Those of uploads that came later.
fn upload_commands() -> Vec<(&'static str, Command)> {
    vec![
        (
            "NameRows",
            Command::Upload(UploadCommand::NameRows {
                upload: UPLOAD,
                position: 7,
                stripes: vec![stripe()],
                runs: vec![RowRun {
                    rows: vec![BlockRow {
                        digest: Digest([6; 32]),
                        size: 9,
                    }],
                    page_end: Some(Digest([7; 32])),
                }],
                survival: Some(Survival {
                    survives: Domain::Zone,
                    is_degraded: true,
                }),
            }),
        ),
        (
            "KeepTail",
            Command::Upload(UploadCommand::KeepTail {
                upload: UPLOAD,
                position: 7,
                tail: Tail {
                    stripe: stripe().id,
                    record: 1,
                    sealed_bytes: 60,
                    plain_bytes: 30,
                },
                stripe: stripe(),
            }),
        ),
    ]
}

/// Those of versions and copies.
fn version_commands() -> Vec<(&'static str, Command)> {
    let principal = Principal {
        user: USER,
        device: Some(DEVICE),
        is_admin: false,
    };
    let entry = EntryId {
        drive: DRIVE,
        number: 5,
    };
    vec![
        (
            "RestoreVersion",
            Command::Upload(UploadCommand::RestoreVersion {
                principal,
                entry,
                version: 3,
                base_version: Some(7),
            }),
        ),
        (
            "CopyEntry",
            Command::Drive(DriveCommand::CopyEntry {
                principal,
                entry,
                place: Place::Path(DrivePath::parse("/a/b").unwrap()),
                with_parents: true,
                fresh: vec![300, 301],
                seed: 302,
            }),
        ),
        (
            "SetRetention",
            Command::Drive(DriveCommand::SetRetention {
                principal,
                drive: DRIVE,
                versions_max: Some(10),
                version_age_s: None,
                job: 303,
            }),
        ),
        (
            "SweepVersions",
            Command::Drive(DriveCommand::SweepVersions { drive: DRIVE }),
        ),
        (
            "SweepDropped",
            Command::Drive(DriveCommand::SweepDropped { drive: DRIVE }),
        ),
    ]
}

/// Those of collection.
fn collection_commands() -> Vec<(&'static str, Command)> {
    vec![
        (
            "SweepBlocks",
            Command::Drive(DriveCommand::SweepBlocks { drive: DRIVE }),
        ),
        (
            "TakeLease",
            Command::Group(GroupCommand::TakeLease {
                holder: 2,
                lease: 0x1234,
                span_ms: 30_000,
            }),
        ),
        (
            "ForgetStripes",
            Command::Group(GroupCommand::ForgetStripes {
                lease: 0x1234,
                stripes: vec![ForgottenStripe {
                    profile: ProfileId::Dev,
                    stripe: stripe().id,
                    untold: vec![DiskId(5)],
                }],
            }),
        ),
        (
            "ForgetUntold",
            Command::Group(GroupCommand::ForgetUntold {
                lease: 0x1234,
                disk: DiskId(5),
                stripes: vec![(ProfileId::Dev, stripe().id)],
            }),
        ),
    ]
}

/// Those of the feed.
fn feed_commands() -> Vec<(&'static str, Command)> {
    vec![("SweepFeed", Command::Drive(DriveCommand::SweepFeed { drive: DRIVE }))]
}

/// Those of rewinds.
fn rewind_commands() -> Vec<(&'static str, Command)> {
    let principal = Principal {
        user: USER,
        device: Some(DEVICE),
        is_admin: false,
    };
    let order = RewindOrder {
        entry: EntryId {
            drive: DRIVE,
            number: 5,
        },
        to: WallTime(900),
        keeps_created: true,
        is_dry_run: false,
    };
    let (drive, job) = (DRIVE, 7);
    vec![
        (
            "BeginRewind",
            Command::Drive(DriveCommand::BeginRewind { principal, order, job }),
        ),
        (
            "RunRewind",
            Command::Drive(DriveCommand::RunRewind { principal, drive, job }),
        ),
        ("SweepRewinds", Command::Drive(DriveCommand::SweepRewinds { drive })),
    ]
}

/// Those of copies that one command cannot make.
fn copy_commands() -> Vec<(&'static str, Command)> {
    let principal = Principal {
        user: USER,
        device: Some(DEVICE),
        is_admin: false,
    };
    let entry = EntryId {
        drive: DRIVE,
        number: 5,
    };
    let (drive, job) = (DRIVE, 7);
    vec![
        (
            "BeginCopy",
            Command::Drive(DriveCommand::BeginCopy {
                principal,
                entry,
                place: Place::Path(DrivePath::parse("/a/b").unwrap()),
                with_parents: true,
                fresh: vec![300, 301],
                seed: 302,
                job: 303,
            }),
        ),
        (
            "CancelCopy",
            Command::Drive(DriveCommand::CancelCopy { principal, drive, job }),
        ),
    ]
}

/// Those of many files at once.
fn batch_commands() -> Vec<(&'static str, Command)> {
    let principal = Principal {
        user: USER,
        device: Some(DEVICE),
        is_admin: false,
    };
    let row = BlockRow {
        digest: Digest([6; 32]),
        size: 9,
    };
    let batch = FileBatch {
        principal,
        drive: DRIVE,
        is_atomic: true,
        stripes: vec![stripe()],
        files: vec![BatchedFile {
            target: UploadTarget::Place {
                place: Place::Path(DrivePath::parse("/a/b").unwrap()),
                with_parents: true,
            },
            base_version: Some(7),
            fresh: vec![300, 301],
            size: 9,
            digest: Digest([8; 32]),
            pages: vec![PageRows {
                digest: Digest([7; 32]),
                rows: vec![row],
            }],
            content_type: Some("t".into()),
        }],
        survival: Survival {
            survives: Domain::Zone,
            is_degraded: true,
        },
    };
    vec![("CommitBatch", Command::Upload(UploadCommand::CommitBatch(batch)))]
}

/// Those of lengths that are told late.
fn length_commands() -> Vec<(&'static str, Command)> {
    let principal = Principal {
        user: USER,
        device: Some(DEVICE),
        is_admin: false,
    };
    let command = UploadCommand::DeclareLength {
        principal,
        upload: UPLOAD,
        bytes: 700,
    };
    vec![("DeclareLength", Command::Upload(command))]
}

/// Those of repacking.
fn repacking_commands() -> Vec<(&'static str, Command)> {
    let block = NewBlock {
        row: BlockRow {
            digest: Digest([6; 32]),
            size: 9,
        },
        offset: 0,
        sealed_bytes: 39,
    };
    let repacking = Repacking {
        drive: DRIVE,
        lease: 0x1234,
        stripe: NewStripe {
            blocks: vec![block],
            ..stripe()
        },
        from: vec![OldPlace {
            block: BlockId(7),
            profile: ProfileId::Dev,
            stripe: StripeId(0xabcd_0000_0000_0000_0000_0012_3000_0005),
            offset: 300,
        }],
    };
    vec![("RepackBlocks", Command::Upload(UploadCommand::RepackBlocks(repacking)))]
}

/// Those of small contents that move into stripes.
fn packing_commands() -> Vec<(&'static str, Command)> {
    let packed = PackedContents {
        drive: DRIVE,
        lease: 300,
        stripe: Some(stripe()),
    };
    vec![("PackInline", Command::Upload(UploadCommand::PackInline(packed)))]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn commands_have_their_golden_bytes_and_read_back() {
    let mut text = String::new();
    let all = commands()
        .into_iter()
        .chain(upload_commands())
        .chain(version_commands())
        .chain(collection_commands())
        .chain(feed_commands())
        .chain(rewind_commands())
        .chain(batch_commands())
        .chain(length_commands())
        .chain(repacking_commands())
        .chain(packing_commands())
        .chain(copy_commands());
    for (name, command) in all {
        let envelope = Envelope {
            request_id: None,
            wall: WallTime(1000),
            command,
        };
        let bytes = encode(&envelope).unwrap();
        assert_eq!(decode::<Envelope>(&bytes).unwrap(), envelope, "{name}");
        text += &format!("{name} {}\n", hex(&bytes));
    }
    assert_eq!(
        text, GOLDEN,
        "lines are never changed, only followed; all that was written:\n{text}"
    );
}
