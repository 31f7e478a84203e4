//! Golden bytes of metadata commands and queries, and decoders that meet any bytes.
#![allow(clippy::unwrap_used, reason = "the whole crate is a test")]

use bytes::Bytes;
use model::authorize::Principal;
use model::digest::{Digest, StripeHash};
use model::entry::BlockRow;
use model::id::{
    BlockId, ClusterId, DeviceId, DiskId, DriveId, EntryId, GroupId, Incarnation, MapVersion, NodeId, RaftId,
    RowVersion, Slot, UploadId, UserId,
};
use model::layout::{LayoutTable, Row};
use model::name::{DrivePath, EntryName, Username};
use model::process::Role;
use model::profile::{Domain, ProfileId};
use model::stripe::{Astray, StripeForm, StripeId};
use model::time::{Age, BirthEpoch, WallTime};
use proptest::prelude::{any, proptest};
use protocol::frame::{decode, encode};
use protocol::metadata::control::{ClusterSettings, ControlCommand, SlotRange};
use protocol::metadata::drive::{DriveCommand, EntryRef, PatchTo, Place};
use protocol::metadata::group::{AdoptedSlot, GroupCommand, GroupSettings};
use protocol::metadata::inventory::{ListStripes, SumStripes, SummedTo};
use protocol::metadata::query::{ControlQuery, DriveAsk, DriveMark, DriveQuery, PackingAsk, UserQuery};
use protocol::metadata::upload::{
    DirectContent, InlineBlock, NewBlock, NewStripe, PageRows, RowRun, Survival, Tail, UploadCommand, UploadTarget,
};
use protocol::metadata::user::{CutParameters, NewDrive, NewToken, TokenHash, UserCommand};
use protocol::metadata::watch::{WatchAnswer, WatchRequest};
use protocol::metadata::{Command, CommandAnswer, Envelope, Query, QueryAnswer, Reply, RequestKey, RequestLife};

const GOLDEN: &str = include_str!("../golden/metadata.hex");
const DRIVE: DriveId = DriveId(0x1230_0000_0000_0001);
const USER: UserId = UserId(0x1230_0000_0000_0002);
const ENTRY: EntryId = EntryId {
    drive: DRIVE,
    number: 77,
};
const UPLOAD: UploadId = UploadId {
    drive: DRIVE,
    number: 88,
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn principal() -> Principal {
    Principal {
        user: USER,
        device: Some(DeviceId(0x1230_0000_0000_0003)),
        is_admin: false,
    }
}

fn place() -> Place {
    Place::In {
        parent: DRIVE.root(),
        name: EntryName::new("a").unwrap(),
    }
}

fn stripe() -> NewStripe {
    let row = BlockRow {
        digest: Digest([1; 32]),
        size: 1000,
    };
    NewStripe {
        id: StripeId(0xabcd_0000_0000_0000_0000_0012_3000_0005),
        profile: ProfileId::Dev,
        form: StripeForm {
            k: 4,
            m: 2,
            stripe_bytes: 1030,
            stripe_hash: StripeHash([2; 32]),
        },
        row_version: RowVersion(3),
        astray: vec![
            Astray { index: 1, disk: None },
            Astray {
                index: 2,
                disk: Some(DiskId(9)),
            },
        ],
        blocks: vec![NewBlock {
            row,
            offset: 0,
            sealed_bytes: 1030,
        }],
    }
}

fn control() -> Vec<ControlCommand> {
    let settings = ClusterSettings {
        default_profile: ProfileId::Dev,
        default_quota_bytes: 5,
        birth_epoch_ms: 2000,
        block_grace_ms: 60_000,
    };
    let row = Row {
        version: RowVersion(1),
        disks: vec![DiskId(1), DiskId(2), DiskId(3)],
        filling_from: [].into(),
    };
    let slot = |number| Slot::new(number).unwrap();
    vec![
        ControlCommand::InitCluster {
            cluster: ClusterId(6),
            settings: settings.clone(),
        },
        ControlCommand::SetSettings(settings),
        ControlCommand::RegisterProcess {
            id: model::process::ProcessId {
                role: Role::Gateway,
                number: 7,
            },
            address: "127.0.0.1:8".parse().unwrap(),
            region: "r".into(),
            zone: "z".into(),
        },
        ControlCommand::SetNode {
            node: NodeId(1),
            membership: model::cluster::Membership::Draining,
        },
        ControlCommand::SetTable {
            planned_from: MapVersion(4),
            table: LayoutTable {
                profile: ProfileId::Solo,
                pg_bits: 8,
                rows: vec![row],
            },
        },
        ControlCommand::SetGroup {
            group: GroupId(1),
            voters: vec![RaftId(1), RaftId(2)],
        },
        ControlCommand::AssignSlots {
            ranges: vec![SlotRange {
                first: slot(0),
                last: slot(4095),
                group: GroupId(1),
            }],
        },
    ]
}

fn users() -> Vec<UserCommand> {
    let cut = CutParameters {
        level: 1,
        min_bytes: 1,
        avg_bytes: 2,
        max_bytes: 3,
        page_min: 32,
        page_max: 512,
        page_bits: 7,
    };
    let home = NewDrive {
        drive: DRIVE,
        wrapped_key: Bytes::from_static(b"key"),
        kek_id: "kek".into(),
        profile: ProfileId::Dev,
        quota_bytes: 9,
        cut,
    };
    let token = NewToken {
        hash: TokenHash([4; 32]),
        expires_at: WallTime(10),
    };
    vec![
        UserCommand::CreateUser {
            name: Username::new("ada").unwrap(),
            user: USER,
            home,
            password_hash: "$argon2id$".into(),
            is_admin: true,
        },
        UserCommand::PatchUser {
            principal: principal(),
            user: USER,
            quota_bytes: Some(1),
            is_disabled: Some(true),
            password_hash: None,
        },
        UserCommand::IssueTokens {
            user: USER,
            device: None,
            access: token,
            refresh: Some(token),
            scope: "s".into(),
        },
        UserCommand::RotateTokens {
            user: USER,
            old_refresh: token.hash,
            access: token,
            refresh: token,
        },
    ]
}

fn drives() -> Vec<DriveCommand> {
    vec![
        DriveCommand::CreateFolder {
            principal: principal(),
            drive: DRIVE,
            place: Place::Path(DrivePath::parse("/a/b").unwrap()),
            with_parents: true,
            fresh: vec![5, 6],
        },
        DriveCommand::PatchEntry {
            principal: principal(),
            entry: ENTRY,
            base_revision: Some(2),
            to: PatchTo::Parts {
                name: None,
                parent: Some(DRIVE.root()),
            },
        },
        DriveCommand::TrashEntry {
            principal: principal(),
            entry: ENTRY,
            base_revision: None,
        },
        DriveCommand::RestoreEntry {
            principal: principal(),
            entry: ENTRY,
            parent: None,
            name: None,
        },
        DriveCommand::PurgeEntry {
            principal: principal(),
            entry: ENTRY,
            base_revision: None,
            job: 3,
        },
        DriveCommand::SweepJob { drive: DRIVE, job: 3 },
        DriveCommand::ReapPages { drive: DRIVE },
    ]
}

/// A flat table: one row a command.
fn uploads() -> Vec<UploadCommand> {
    let row = BlockRow {
        digest: Digest([1; 32]),
        size: 1000,
    };
    let survival = Survival {
        survives: Domain::Region,
        is_degraded: false,
    };
    let content = DirectContent {
        size: 1000,
        digest: Digest([5; 32]),
        pages: vec![PageRows {
            digest: Digest([6; 32]),
            rows: vec![row],
        }],
        stripes: vec![stripe()],
        inline: Some(InlineBlock {
            row,
            sealed: Bytes::from_static(b"sealed"),
        }),
    };
    let target = UploadTarget::Place {
        place: place(),
        with_parents: false,
    };
    let tail = Tail {
        stripe: stripe().id,
        record: 1,
        sealed_bytes: 2,
        plain_bytes: 3,
    };
    vec![
        UploadCommand::CommitUpload {
            principal: principal(),
            drive: DRIVE,
            target: target.clone(),
            base_version: Some(1),
            fresh: vec![5],
            content,
            content_type: Some("text/plain".into()),
            survival,
        },
        UploadCommand::OpenSession {
            principal: principal(),
            upload: UPLOAD,
            target,
            base_version: None,
            declared_bytes: Some(5),
            is_resumable: true,
            content_type: None,
        },
        UploadCommand::AppendRows {
            upload: UPLOAD,
            position: 0,
            stripes: vec![stripe()],
            runs: vec![RowRun {
                rows: vec![row],
                page_end: Some(Digest([6; 32])),
            }],
        },
        UploadCommand::SetTail {
            upload: UPLOAD,
            tail: Some((tail, stripe())),
        },
        UploadCommand::CommitSession {
            principal: principal(),
            upload: UPLOAD,
            size: 5,
            digest: Digest([5; 32]),
            fresh: vec![5],
            survival,
        },
        UploadCommand::AbortSession {
            principal: principal(),
            upload: UPLOAD,
        },
        UploadCommand::SweepSessions { drive: DRIVE },
    ]
}

fn commands() -> Vec<Command> {
    let slot = Slot::new(0x123).unwrap();
    let groups = vec![
        GroupCommand::Configure(GroupSettings {
            birth_epoch_ms: 2000,
            block_grace_ms: 60_000,
        }),
        GroupCommand::AdoptSlots {
            slots: vec![AdoptedSlot { slot, age: Age(7) }],
        },
        GroupCommand::Advance { term: 2, led_ms: 300 },
        GroupCommand::TellRows {
            profile: ProfileId::Dev,
            pg_bits: 8,
            versions: vec![RowVersion(1); 3],
        },
    ];
    let control = control().into_iter().map(Command::Control);
    let rest = users()
        .into_iter()
        .map(Command::User)
        .chain(drives().into_iter().map(Command::Drive));
    control
        .chain(groups.into_iter().map(Command::Group))
        .chain(rest)
        .chain(uploads().into_iter().map(Command::Upload))
        .chain([Command::User(UserCommand::DeleteUser {
            principal: principal(),
            user: USER,
        })])
        .collect()
}

fn drive(ask: DriveAsk) -> Query {
    Query::Drive(DriveQuery {
        drive: DRIVE,
        principal: Some(principal()),
        ask,
    })
}

fn queries() -> Vec<Query> {
    let folder = EntryRef::Path(DrivePath::parse("/a").unwrap());
    vec![
        Query::Control(ControlQuery::Layout(Some(ProfileId::Dev))),
        Query::Slot(Slot::new(5).unwrap()),
        Query::Group,
        Query::User(UserQuery::Token {
            user: USER,
            hash: TokenHash([4; 32]),
            now: WallTime(9),
        }),
        drive(DriveAsk::Get(EntryRef::Id(ENTRY))),
        drive(DriveAsk::List {
            folder,
            limit: 1000,
            page_token: Some("x".into()),
        }),
        drive(DriveAsk::FindBlocks(vec![Digest([1; 32])])),
        drive(DriveAsk::ReadManifest {
            entry: ENTRY,
            version: None,
            range: Some((0, 9)),
        }),
        drive(DriveAsk::Session(UPLOAD)),
        drive(DriveAsk::Upload {
            target: UploadTarget::Place {
                place: place(),
                with_parents: true,
            },
            base_version: Some(3),
            declared_bytes: Some(1000),
            request: None,
        }),
        Query::StripeCounts,
        drive(DriveAsk::Resumable(UPLOAD)),
        drive(DriveAsk::ReadRows {
            entry: ENTRY,
            version: Some(2),
            first: 9,
        }),
        drive(DriveAsk::AnnouncedRows {
            upload: UPLOAD,
            first: 9,
        }),
        drive(DriveAsk::Staging {
            upload: UPLOAD,
            row: BlockRow {
                digest: Digest([1; 32]),
                size: 1000,
            },
        }),
        drive(DriveAsk::FindPages(vec![Digest([1; 32])])),
    ]
}

fn since(seen: Option<DriveMark>) -> Query {
    match drive(DriveAsk::Get(EntryRef::Id(ENTRY))) {
        Query::Drive(query) => Query::DriveSince(query, seen),
        other => other,
    }
}

/// Those of old versions, of removal, of the feed, of rewinds, of twins, of packing, of inventories, of copies,
/// and of how long sessions live.
fn later_queries() -> Vec<Query> {
    vec![
        drive(DriveAsk::ListVersions {
            entry: ENTRY,
            before: Some(9),
            limit: 30,
        }),
        drive(DriveAsk::Retention),
        Query::Collection(Some(DiskId(9))),
        Query::Orphans(vec![(ProfileId::Dev, stripe().id)]),
        drive(DriveAsk::Feed {
            scope: DRIVE.root(),
            after: Some((Incarnation(1), 300)),
            limit: 100,
        }),
        Query::FeedEnds(vec![DRIVE.root(), ENTRY]),
        drive(DriveAsk::Rewind {
            job: 7,
            first: 100,
            limit: 50,
        }),
        drive(DriveAsk::Twins {
            folder: DRIVE.root(),
            after: Some(("caf\u{e9}".to_owned(), 9)),
            limit: 100,
        }),
        since(None),
        since(Some(DriveMark {
            incarnation: Incarnation(1),
            group: GroupId(2),
            index: 300,
        })),
        Query::Repackable(Some((ProfileId::Dev, stripe().id))),
        Query::Packing(None),
        Query::Packing(Some(PackingAsk {
            drive: DRIVE,
            after: Some((300, BlockId(7))),
        })),
        Query::SumStripes(SumStripes::default()),
        Query::SumStripes(SumStripes {
            pg_bits: vec![(ProfileId::Dev, 8), (ProfileId::Copies, 9)],
            after: Some(SummedTo {
                born_by: BirthEpoch(300),
                profile: ProfileId::Dev,
                stripe: stripe().id,
            }),
        }),
        Query::ListStripes(ListStripes {
            profile: ProfileId::Dev,
            leading: 200,
            slots: vec![(DRIVE.slot(), BirthEpoch(300))],
            after: Some(stripe().id),
        }),
        drive(DriveAsk::Copy(7)),
        drive(DriveAsk::SessionLife(UPLOAD)),
    ]
}

#[test]
fn commands_and_queries_have_their_golden_bytes_and_read_back() {
    let key = RequestKey {
        source: 1,
        id: 2,
        asked: [3; 32],
        life: RequestLife::Day,
        made_hour: Some(4),
    };
    let mut text = String::new();
    for (at, command) in commands().into_iter().enumerate() {
        let envelope = Envelope {
            request_id: (at % 2 == 0).then_some(key),
            wall: WallTime(1000),
            command,
        };
        let bytes = encode(&envelope).unwrap();
        assert_eq!(decode::<Envelope>(&bytes).unwrap(), envelope);
        text.push_str(&format!("{}\n", hex(&bytes)));
    }
    for query in queries().into_iter().chain(later_queries()) {
        let bytes = encode(&query).unwrap();
        assert_eq!(decode::<Query>(&bytes).unwrap(), query);
        text.push_str(&format!("{}\n", hex(&bytes)));
    }
    assert!(
        text == GOLDEN,
        "a message is never edited, only followed by another; what was written:\n{text}"
    );
}

proptest! {
    /// shows: F42
    #[test]
    fn any_bytes_into_the_decoders_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode::<Envelope>(&bytes);
        let _ = decode::<Query>(&bytes);
        let _ = decode::<WatchRequest>(&bytes);
        let _ = decode::<WatchAnswer>(&bytes);
        let _ = Reply::<CommandAnswer>::from_bytes(&bytes);
        let _ = Reply::<QueryAnswer>::from_bytes(&bytes);
    }
}
