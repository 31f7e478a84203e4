//! Messages of metadata groups: commands that change a group's state, queries that read it, and their answers.
//!
//! A gateway encodes an `Envelope` or a `Query`, sends it as `ProposeRequest` or `QueryRequest` to a replica of the group that owns
//! the slot, and decodes a `Reply` of `CommandAnswer` or `QueryAnswer`.
//! Invariants: what `apply` needs of time, ids and random bytes is in the command; a command names one slot or is the whole group's;
//! a command is at most 1 MiB and 1,000 sub-operations.
//! Not here: how the state is stored (`metadata-raft`) and the messages of openraft (`raft`).

pub mod control;
pub mod copy;
pub mod drive;
pub mod file_batch;
pub mod group;
pub mod inventory;
pub mod query;
pub mod repacking;
pub mod rewind;
pub mod upload;
pub mod user;
pub mod watch;

use crate::frame;
use crate::wire_error::Failure;
use bytes::Bytes;
use model::id::{DiskId, EntryId, GroupId, Slot};
use model::profile::ProfileId;
use model::stripe::StripeId;
use model::time::{Age, BirthEpoch, WallTime};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Identifies a request over all of its repeats.
///
/// A repeat under the same (source, id) with the same `asked` gets the first answer; with another one it is refused as
/// `request_id_reused`. Only requests that succeeded are remembered: a refused one changed nothing and may be asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestKey {
    /// The device or application that made the id (a gateway's own number for its retries).
    pub source: u64,
    /// Unique within the source.
    pub id: u128,
    /// Digest of what the caller asked, without ids and stripes that a gateway draws anew for each try.
    pub asked: [u8; 32],
    /// How long the first answer is kept.
    pub life: RequestLife,
    /// The slot's aged hour when the id was made, if its maker knew; an id older than its life or from ahead is `outcome_unknown`.
    pub made_hour: Option<u32>,
}

/// How long the row of a request id lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RequestLife {
    /// 24 aged hours: an `Idempotency-Key`.
    Day,
    /// One aged hour: a gateway's own retries.
    Hour,
}

impl RequestLife {
    /// The life in aged hours.
    #[must_use]
    pub fn hours(self) -> u32 {
        match self {
            Self::Day => 24,
            Self::Hour => 1,
        }
    }
}

/// A command with what every command carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Set when a repeat must get the first answer.
    pub request_id: Option<RequestKey>,
    /// The sender's wall clock, for showing and for the expiry of tokens.
    pub wall: WallTime,
    /// What to do.
    pub command: Command,
}

/// Every command of every group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// To the control group.
    Control(control::ControlCommand),
    /// To a drive group as a whole.
    Group(group::GroupCommand),
    /// To the group of a user's slot.
    User(user::UserCommand),
    /// To the group of a drive's slot: the tree.
    Drive(drive::DriveCommand),
    /// To the group of a drive's slot: contents.
    Upload(upload::UploadCommand),
}

impl Command {
    /// The slot that must be owned by the group; `None` for commands to the control group or to a group as a whole.
    #[must_use]
    pub fn slot(&self) -> Option<Slot> {
        match self {
            Self::Control(_) | Self::Group(_) => None,
            Self::User(command) => Some(command.slot()),
            Self::Drive(command) => Some(command.drive().slot()),
            Self::Upload(command) => Some(command.drive().slot()),
        }
    }
}

/// Every query of every group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// To the control group.
    Control(query::ControlQuery),
    /// To the group of a slot: its time.
    Slot(Slot),
    /// To a drive group as a whole: which slots and row versions it has.
    Group,
    /// To the group of a user's slot.
    User(query::UserQuery),
    /// To the group of a drive's slot.
    Drive(query::DriveQuery),
    /// To a drive group as a whole: how its stripes stand.
    StripeCounts,
    /// To a drive group as a whole: what is to be removed, disks that could not be told only behind this one.
    Collection(Option<DiskId>),
    /// To a drive group as a whole: which of these stripes can never be known any more; at most `ROWS_MAX`. One of a slot that the
    /// group does not own makes it `not_mine`.
    Orphans(Vec<(ProfileId, StripeId)>),
    /// To a drive group as a whole: where the feeds of these scopes of its slots stand; at most `ROWS_MAX`.
    FeedEnds(Vec<EntryId>),
    /// To the group of a drive's slot: the same as `Drive`, whose answer may be left out when the drive still has this mark. Of what a
    /// user may ask only that which follows from the drive alone: one entry, a listing, a manifest, rows or versions of a file.
    DriveSince(query::DriveQuery, Option<query::DriveMark>),
    /// To a drive group as a whole: what is to be repacked, behind this stripe in the queue.
    Repackable(Option<(ProfileId, StripeId)>),
    /// To a drive group as a whole: which drive has small contents to be packed, or those contents themselves.
    Packing(Option<query::PackingAsk>),
    /// To a drive group as a whole: sums of the ids of its stripes.
    SumStripes(inventory::SumStripes),
    /// To a drive group as a whole: its stripes of some slots. One that the group does not own makes it `not_mine`.
    ListStripes(inventory::ListStripes),
}

impl Query {
    /// The slot that must be owned by the group; `None` for queries of a group as a whole.
    #[must_use]
    pub fn slot(&self) -> Option<Slot> {
        match self {
            Self::Control(_)
            | Self::Group
            | Self::StripeCounts
            | Self::Collection(_)
            | Self::Orphans(_)
            | Self::FeedEnds(_)
            | Self::Repackable(_)
            | Self::Packing(_)
            | Self::SumStripes(_)
            | Self::ListStripes(_) => None,
            Self::Slot(slot) => Some(*slot),
            Self::User(query) => Some(query.slot()),
            Self::Drive(query) | Self::DriveSince(query, _) => Some(query.drive.slot()),
        }
    }
}

/// A slot's own time, told with every answer that concerns the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotTime {
    /// The slot's age.
    pub age: Age,
    /// The epoch in which a stripe id drawn now is born.
    pub birth_epoch: BirthEpoch,
    /// The aged hour, for `Holdfast-Age-Hour` and request ids.
    pub age_hour: u32,
}

/// What a group answers to a command (`T` = `CommandAnswer`) or a query (`T` = `QueryAnswer`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply<T> {
    /// The time of the slot concerned; `None` when there is none or the group does not own it.
    pub time: Option<SlotTime>,
    /// The answer or the refusal.
    pub result: Result<T, Failure>,
}

impl<T: Serialize + DeserializeOwned> Reply<T> {
    /// Encodes the reply; a reply that cannot be encoded becomes an encoded `Bug`.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        frame::encode(self).unwrap_or_else(|failure| {
            frame::encode(&Self {
                time: None,
                result: Err(failure),
            })
            .unwrap_or_default()
        })
    }

    /// Reads what `to_bytes` wrote; `Invalid` for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Failure> {
        frame::decode(bytes)
    }
}

/// Message of `Method::Propose`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProposeRequest {
    /// The group that is meant.
    pub group: GroupId,
    /// An encoded `Envelope`.
    pub envelope: Bytes,
}

/// Message of `Method::Query`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryRequest {
    /// The group that is meant.
    pub group: GroupId,
    /// An encoded `Query`.
    pub query: Bytes,
}

/// Answer message of `Method::Propose` and `Method::Query`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupReply {
    /// The log index that the answer reflects.
    pub log_index: u64,
    /// An encoded `Reply`.
    pub reply: Bytes,
}

/// Every answer to a command, by what the command was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandAnswer {
    /// Done, nothing to tell.
    Done,
    /// `ControlCommand`s that change map or layout.
    MapChanged(control::MapChanged),
    /// `CreateUser`, `PatchUser`, `DeleteUser`.
    User(user::UserRecord),
    /// `CreateFolder`, `PatchEntry`, `TrashEntry`, `RestoreEntry`, `CopyEntry`, `RestoreVersion`.
    Entry(drive::EntryChanged),
    /// `PurgeEntry`.
    Purged(drive::Purged),
    /// `SweepJob` and the other sweeps, `PackInline`.
    Swept(drive::Swept),
    /// `CommitUpload`, `CommitSession`.
    Committed(upload::Committed),
    /// `OpenSession`, `AppendRows`, `SetTail`, `NameRows`, `KeepTail`, `StageStripes`.
    Session(upload::SessionState),
    /// `BeginRewind`, `RunRewind`.
    Rewind(rewind::RewindFacts),
    /// `CommitBatch`.
    Batch(file_batch::BatchCommitted),
    /// `RepackBlocks`.
    Repacked(repacking::Repacked),
    /// `BeginCopy`, `CancelCopy`.
    Copy(copy::CopyFacts),
}

/// Every answer to a query, by what was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum QueryAnswer {
    /// `ControlQuery::Cluster`.
    Cluster(control::ClusterState),
    /// `ControlQuery::Layout`.
    Layout(model::layout::Layout),
    /// `ControlQuery::Slots`.
    Slots(Vec<control::SlotRange>),
    /// `ControlQuery::Processes`.
    Processes(Vec<control::ProcessInfo>),
    /// `ControlQuery::Groups`.
    Groups(Vec<control::GroupInfo>),
    /// `Query::Slot`.
    Time(SlotTime),
    /// `Query::Group`.
    Group(group::GroupState),
    /// `UserQuery::ByName`, `UserQuery::ById`.
    User(user::UserRecord),
    /// `UserQuery::Login`.
    Login(user::LoginFacts),
    /// `UserQuery::Token`.
    Token(user::TokenFacts),
    /// `UserQuery::Devices`.
    Devices(Vec<user::DeviceRecord>),
    /// `UserQuery::List`: users of a slot.
    Users(Vec<user::UserRecord>),
    /// `DriveAsk::Get`.
    Entry(drive::EntryView),
    /// `DriveAsk::List`.
    Listing(query::Listing),
    /// `DriveAsk::Trash`.
    Trash(query::TrashListing),
    /// `DriveAsk::Versions`, `DriveAsk::ListVersions`.
    Versions(Vec<model::entry::Version>),
    /// `DriveAsk::Usage`.
    Usage(query::Usage),
    /// `DriveAsk::Facts`, `DriveAsk::Upload`.
    Drive(query::DriveFacts),
    /// `DriveAsk::FindBlocks`.
    Blocks(query::FoundBlocks),
    /// `DriveAsk::ReadManifest`.
    Manifest(query::Manifest),
    /// `DriveAsk::Session`.
    Session(upload::SessionState),
    /// `DriveAsk::Changes`, `DriveAsk::ScopeChanges`.
    Changes(query::Changes),
    /// `DriveAsk::Jobs`.
    Jobs(Vec<query::JobFacts>),
    /// `DriveAsk::DegradedStripes`, `DriveAsk::DyingStripes`.
    Stripes(Vec<query::StripeFacts>),
    /// `Query::StripeCounts`.
    StripeCounts(query::StripeCounts),
    /// `DriveAsk::Waiting`.
    Waiting(query::Waiting),
    /// `DriveAsk::Resumable`.
    Resumable(upload::ResumableState),
    /// `DriveAsk::ReadRows`.
    VersionRows(query::VersionRows),
    /// `DriveAsk::AnnouncedRows`: a part of the list, and whether more follows it.
    AnnouncedRows(Vec<model::entry::BlockRow>, bool),
    /// `DriveAsk::Staging`.
    Staging(query::Staging),
    /// `DriveAsk::FindPages`: one for each page that is there, in the order asked.
    Pages(Vec<model::digest::Digest>),
    /// `DriveAsk::Retention`.
    Retention(drive::Retention),
    /// `Query::Collection`.
    Collection(query::Collection),
    /// `Query::Orphans`: those that are none of the group's and never can be, in the order asked.
    Orphans(Vec<(ProfileId, StripeId)>),
    /// `DriveAsk::Feed`.
    Feed(query::FeedPage),
    /// `Query::FeedEnds`: one for each scope that is there, in the order asked.
    FeedEnds(Vec<drive::FeedPosition>),
    /// `DriveAsk::Rewind`.
    Rewind(rewind::RewindPage),
    /// `DriveAsk::Twins`.
    Twins(query::TwinListing),
    /// `Query::DriveSince`: how far the drive has come, and the encoded answer; `None` when that is the mark that was asked with.
    /// Encoded, so that no answer can hold answers without end.
    Since(query::DriveMark, Option<Bytes>),
    /// `Query::Repackable`.
    Repackable(repacking::Repackable),
    /// `Query::Packing`.
    Packing(query::Packing),
    /// `Query::SumStripes`.
    StripeSums(inventory::StripeSums),
    /// `Query::ListStripes`.
    ListedStripes(inventory::ListedStripes),
    /// `DriveAsk::Copy`.
    Copy(copy::CopyFacts),
    /// `DriveAsk::SessionLife`: milliseconds of age.
    SessionLife(u64),
}
