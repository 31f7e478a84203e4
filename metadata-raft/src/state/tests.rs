//! Tests of the state machine: a bench that speaks only commands and queries, and suites over it.

mod collection;
mod collection_model;
mod contents;
mod control;
mod copies;
mod copy_jobs;
mod feed;
mod file_batches;
mod foreseen;
mod golden;
mod inline_bytes;
mod inventory;
mod model_tree;
mod model_versions;
mod open_sessions;
mod packing;
mod pages;
mod queues;
mod repacking;
mod retention;
mod rewinds;
mod schedules;
mod scopes;
mod session_ends;
mod sessions;
mod staging;
mod touched;
mod tree;
mod twins;
mod users;
mod versions;
mod waiting;

use crate::founding::CUT;
use crate::state::State;
use crate::state::check::check;
use bytes::Bytes;
use kv::memory::MemoryKv;
use kv::overlay::Overlay;
use kv::seam::{Kv, KvRead, Scan};
use model::authorize::Principal;
use model::digest::{Digest, StripeHash};
use model::entry::BlockRow;
use model::id::{DriveId, EntryId, GroupId, RowVersion, Slot, UploadId, UserId};
use model::name::{DrivePath, Username};
use model::profile::{Domain, ProfileId};
use model::stripe::{StripeForm, StripeId};
use model::time::{Age, WallTime};
use protocol::frame;
use protocol::metadata::drive::{DriveCommand, EntryChanged, EntryRef, EntryView, PatchTo, Place, Purged, Swept};
use protocol::metadata::group::{AdoptedSlot, GroupCommand, GroupSettings};
use protocol::metadata::query::{DriveAsk, DriveQuery, Listing, Usage};
use protocol::metadata::upload::{
    Committed, DirectContent, NewBlock, NewStripe, PageRows, Survival, UploadCommand, UploadTarget,
};
use protocol::metadata::user::{NewDrive, UserCommand};
use protocol::metadata::{Command, CommandAnswer, Envelope, Query, QueryAnswer, Reply, RequestKey, RequestLife};
use protocol::wire_error::Failure;

const EPOCH_MS: u64 = 2_000;
const PROFILE: ProfileId = ProfileId::Dev;

/// One replica of a drive group with one user.
struct Bench {
    state: State,
    kv: MemoryKv,
    index: u64,
    wall: u64,
    next: u64,
    led_ms: u64,
    owner: Principal,
    drive: DriveId,
    /// Writes of the last command.
    writes: usize,
    epoch_ms: u64,
}

/// The same whenever it is asked for.
fn request_key(life: RequestLife) -> RequestKey {
    RequestKey {
        source: 1,
        id: 2,
        asked: [3; 32],
        life,
        made_hour: None,
    }
}

fn digest(text: &str) -> Digest {
    let mut bytes = [0; 32];
    for (at, part) in bytes.chunks_exact_mut(8).enumerate() {
        part.copy_from_slice(&model::hash::stable_hash(format!("{at}{text}").as_bytes()).to_be_bytes());
    }
    Digest(bytes)
}

fn row(text: &str, size: u32) -> BlockRow {
    BlockRow {
        digest: digest(text),
        size,
    }
}

fn path(text: &str) -> DrivePath {
    DrivePath::parse(text).unwrap()
}

fn place(text: &str) -> Place {
    Place::Path(path(text))
}

fn username() -> Username {
    Username::new("ada").unwrap()
}

fn survival() -> Survival {
    Survival {
        survives: Domain::Region,
        is_degraded: false,
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, Failure>) -> String {
    result.expect_err("a refusal was expected").code
}

/// A stripe of these blocks, counted under row version 1.
fn stripe_of(id: StripeId, rows: &[BlockRow]) -> NewStripe {
    let mut offset = 0;
    let mut blocks = Vec::new();
    for row in rows {
        let sealed_bytes = row.size + 30;
        blocks.push(NewBlock {
            row: *row,
            offset,
            sealed_bytes,
        });
        offset += sealed_bytes;
    }
    let form = StripeForm {
        k: 4,
        m: 2,
        stripe_bytes: offset.max(64),
        stripe_hash: StripeHash([9; 32]),
    };
    NewStripe {
        id,
        profile: PROFILE,
        form,
        row_version: RowVersion(1),
        astray: Vec::new(),
        blocks,
    }
}

/// A content of one page of these blocks.
fn content_of(rows: &[BlockRow], stripes: Vec<NewStripe>) -> DirectContent {
    let size = rows.iter().map(|row| u64::from(row.size)).sum();
    let page = digest(&format!("page {rows:?}"));
    let pages = if rows.is_empty() {
        vec![]
    } else {
        vec![PageRows {
            digest: page,
            rows: rows.to_vec(),
        }]
    };
    DirectContent {
        size,
        digest: digest(&format!("file {rows:?}")),
        pages,
        stripes,
        inline: None,
    }
}

/// A commit at a path, behind a base version.
fn commit_of(
    principal: Principal,
    drive: DriveId,
    (at, base_version): (&str, Option<u64>),
    fresh: u64,
    content: DirectContent,
) -> Command {
    Command::Upload(UploadCommand::CommitUpload {
        principal,
        drive,
        target: UploadTarget::Place {
            place: place(at),
            with_parents: false,
        },
        base_version,
        fresh: vec![fresh],
        content,
        content_type: None,
        survival: survival(),
    })
}

impl Bench {
    fn new(quota_bytes: u64) -> Self {
        Self::with_epoch(quota_bytes, EPOCH_MS)
    }

    fn with_epoch(quota_bytes: u64, epoch_ms: u64) -> Self {
        let slot = Slot::of_username("ada");
        let user = UserId::new(slot, 7);
        let drive = DriveId::new(slot, 8);
        let owner = Principal {
            user,
            device: None,
            is_admin: false,
        };
        let mut bench = Self {
            state: State::new(GroupId(1)),
            kv: MemoryKv::new(),
            index: 0,
            wall: 1_700_000_000_000,
            next: 1000,
            led_ms: 0,
            owner,
            drive,
            writes: 0,
            epoch_ms,
        };
        let settings = GroupSettings {
            birth_epoch_ms: epoch_ms,
            block_grace_ms: 60_000,
        };
        bench.group(GroupCommand::Configure(settings));
        bench.group(GroupCommand::AdoptSlots {
            slots: vec![AdoptedSlot { slot, age: Age(0) }],
        });
        bench.run(Command::User(bench.create_user("ada", quota_bytes))).unwrap();
        bench
    }

    fn create_user(&self, name: &str, quota_bytes: u64) -> UserCommand {
        let home = NewDrive {
            drive: self.drive,
            wrapped_key: Bytes::from_static(b"wrapped"),
            kek_id: "kek-1".to_owned(),
            profile: PROFILE,
            quota_bytes,
            cut: CUT,
        };
        UserCommand::CreateUser {
            name: Username::new(name).unwrap(),
            user: self.owner.user,
            home,
            password_hash: "$argon2id$".to_owned(),
            is_admin: false,
        }
    }

    fn apply_bytes(&mut self, envelope: &Envelope) -> Bytes {
        self.index += 1;
        let mut overlay = Overlay::new(&self.kv);
        let reply = self
            .state
            .apply(&mut overlay, self.index, &frame::encode(envelope).unwrap())
            .unwrap();
        let batch = overlay.into_batch();
        self.writes = batch.len();
        self.kv.write(batch).unwrap();
        reply
    }

    fn apply(&mut self, request_id: Option<RequestKey>, command: Command) -> Result<CommandAnswer, Failure> {
        self.wall += 1;
        let bytes = self.apply_bytes(&Envelope {
            request_id,
            wall: WallTime(self.wall),
            command,
        });
        let result = Reply::<CommandAnswer>::from_bytes(&bytes).unwrap().result;
        if result.is_err() {
            assert_eq!(self.writes, 0, "a refused command writes nothing");
        }
        if let Err(failure) = &result {
            assert_ne!(failure.code, "bug", "{failure}");
        }
        result
    }

    fn run(&mut self, command: Command) -> Result<CommandAnswer, Failure> {
        self.apply(None, command)
    }

    fn group(&mut self, command: GroupCommand) {
        self.run(Command::Group(command)).unwrap();
    }

    fn advance(&mut self, ms: u64) {
        let mut left = ms;
        while left > 0 {
            let step = left.min(self.epoch_ms * 8).min(60_000);
            self.led_ms += step;
            left -= step;
            self.group(GroupCommand::Advance {
                term: 1,
                led_ms: self.led_ms,
            });
        }
    }

    fn ask(&self, ask: DriveAsk) -> Result<QueryAnswer, Failure> {
        self.ask_as(Some(self.owner), ask)
    }

    fn ask_as(&self, principal: Option<Principal>, ask: DriveAsk) -> Result<QueryAnswer, Failure> {
        self.query(&Query::Drive(DriveQuery {
            drive: self.drive,
            principal,
            ask,
        }))
    }

    fn query(&self, query: &Query) -> Result<QueryAnswer, Failure> {
        let bytes = self.state.query(&self.kv, &frame::encode(query).unwrap()).unwrap();
        Reply::<QueryAnswer>::from_bytes(&bytes).unwrap().result
    }

    fn sound(&self) {
        assert_eq!(check(&self.kv).unwrap(), Vec::<String>::new());
    }

    fn everything(&self) -> Vec<(Bytes, Bytes)> {
        self.kv.scan(&Scan::prefix(b"", usize::MAX)).unwrap()
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn drive_command(&mut self, command: DriveCommand) -> Result<EntryChanged, Failure> {
        match self.run(Command::Drive(command))? {
            CommandAnswer::Entry(changed) => Ok(changed),
            other => panic!("{other:?}"),
        }
    }

    fn mkdir(&mut self, at: &str) -> Result<EntryId, Failure> {
        let fresh = vec![self.fresh()];
        let (principal, drive) = (self.owner, self.drive);
        let command = DriveCommand::CreateFolder {
            principal,
            drive,
            place: place(at),
            with_parents: false,
            fresh,
        };
        self.drive_command(command).map(|changed| changed.view.entry.id)
    }

    fn rename(&mut self, entry: EntryId, to: &str) -> Result<EntryChanged, Failure> {
        let to = PatchTo::Path(path(to));
        self.drive_command(DriveCommand::PatchEntry {
            principal: self.owner,
            entry,
            base_revision: None,
            to,
        })
    }

    fn trash(&mut self, entry: EntryId) -> Result<EntryChanged, Failure> {
        self.drive_command(DriveCommand::TrashEntry {
            principal: self.owner,
            entry,
            base_revision: None,
        })
    }

    fn restore(&mut self, entry: EntryId) -> Result<EntryChanged, Failure> {
        self.drive_command(DriveCommand::RestoreEntry {
            principal: self.owner,
            entry,
            parent: None,
            name: None,
        })
    }

    fn purge(&mut self, entry: EntryId) -> Result<Purged, Failure> {
        let job = self.fresh();
        let command = DriveCommand::PurgeEntry {
            principal: self.owner,
            entry,
            base_revision: None,
            job,
        };
        match self.run(Command::Drive(command))? {
            CommandAnswer::Purged(purged) => Ok(purged),
            other => panic!("{other:?}"),
        }
    }

    fn sweep(&mut self, command: Command) -> Result<Swept, Failure> {
        match self.run(command)? {
            CommandAnswer::Swept(swept) => Ok(swept),
            other => panic!("{other:?}"),
        }
    }

    fn finish_job(&mut self, job: u64) {
        while !self
            .sweep(Command::Drive(DriveCommand::SweepJob { drive: self.drive, job }))
            .unwrap()
            .is_done
        {}
    }

    fn reap(&mut self) {
        while !self
            .sweep(Command::Drive(DriveCommand::ReapPages { drive: self.drive }))
            .unwrap()
            .is_done
        {}
    }

    fn epoch(&self) -> model::time::BirthEpoch {
        match self.query(&Query::Slot(self.drive.slot())).unwrap() {
            QueryAnswer::Time(time) => time.birth_epoch,
            other => panic!("{other:?}"),
        }
    }

    /// A stripe that holds these blocks, born now, counted under row version 1.
    fn stripe(&mut self, rows: &[BlockRow]) -> NewStripe {
        let id = StripeId::new(u128::from(self.fresh()) << 70, self.drive.slot(), self.epoch());
        stripe_of(id, rows)
    }

    /// A content of one page of these blocks; those of `new` come in a stripe of their own.
    fn content(&mut self, rows: &[BlockRow], new: &[BlockRow]) -> DirectContent {
        let stripes = if new.is_empty() {
            Vec::new()
        } else {
            vec![self.stripe(new)]
        };
        content_of(rows, stripes)
    }

    fn commit_command(&mut self, at: &str, base_version: Option<u64>, content: DirectContent) -> Command {
        let fresh = self.fresh();
        commit_of(self.owner, self.drive, (at, base_version), fresh, content)
    }

    fn commit(&mut self, at: &str, base: Option<u64>, content: DirectContent) -> Result<Committed, Failure> {
        let command = self.commit_command(at, base, content);
        match self.run(command)? {
            CommandAnswer::Committed(committed) => Ok(committed),
            other => panic!("{other:?}"),
        }
    }

    fn put(&mut self, at: &str, base: Option<u64>, rows: &[BlockRow]) -> Result<Committed, Failure> {
        let content = self.content(rows, rows);
        self.commit(at, base, content)
    }

    fn get(&self, at: &str) -> Result<EntryView, Failure> {
        match self.ask(DriveAsk::Get(EntryRef::Path(path(at))))? {
            QueryAnswer::Entry(view) => Ok(view),
            other => panic!("{other:?}"),
        }
    }

    fn list(&self, at: &str, limit: u16, page_token: Option<String>) -> Result<Listing, Failure> {
        match self.ask(DriveAsk::List {
            folder: EntryRef::Path(path(at)),
            limit,
            page_token,
        })? {
            QueryAnswer::Listing(listing) => Ok(listing),
            other => panic!("{other:?}"),
        }
    }

    fn usage(&self) -> Usage {
        match self.ask(DriveAsk::Usage).unwrap() {
            QueryAnswer::Usage(usage) => usage,
            other => panic!("{other:?}"),
        }
    }

    fn upload(&mut self) -> UploadId {
        UploadId {
            drive: self.drive,
            number: self.fresh(),
        }
    }
}
