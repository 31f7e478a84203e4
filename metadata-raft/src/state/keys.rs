//! Keys of the state: slot (u16), table (u8), then what the table is ordered by, all big-endian.
//!
//! docs/format/metadata-keys.md is the page of this file. Invariants: numbers of tables are stored and never change their meaning; a
//! slot's state is one range of keys, so that a slot can move; what belongs to a group as a whole lies behind the last slot.
//! Not here: (group, install number), which the caller puts in front.

use bytes::Bytes;
use model::digest::Digest;
use model::id::{BlockId, DeviceId, DiskId, DriveId, Slot, UserId};
use model::profile::ProfileId;
use model::stripe::StripeId;

/// Stands where a slot stands for what belongs to the group as a whole; no slot has this number.
pub const WHOLE_GROUP: u16 = 0xffff;

macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident = $number:literal)*) => {
        $($(#[$doc])* pub const $name: u8 = $number;)*
        /// Names and numbers of the tables, for the format page and its test.
        pub const TABLES: &[(&str, u8)] = &[$((stringify!($name), $number)),*];
    };
}

tables! {
    /// Drives by id.
    DRIVE = 0x01
    /// Users by id.
    USER = 0x02
    /// User ids by folded name.
    USERNAME = 0x03
    /// Devices by (user, device).
    DEVICE = 0x04
    /// Tokens by (user, hash).
    TOKEN = 0x05
    /// How long drives keep old versions, by drive, where somebody said so.
    RETENTION = 0x06
    /// Entries by (drive, number).
    ENTRY = 0x10
    /// What a listing shows, by (drive, parent, name key).
    CHILD = 0x11
    /// Entries whose folded names are equal, by (drive, parent, folded key, number).
    TWIN = 0x12
    /// Versions by (drive, entry, number).
    VERSION = 0x13
    /// The trash by (drive, age, entry).
    TRASH = 0x14
    /// Versions behind which another came, by (drive, age since when, entry, number).
    OLD_VERSION = 0x15
    /// Since which age a version has another behind it, by (drive, entry, number).
    OLD_SINCE = 0x16
    /// Versions that were taken out and still hold pages, by (drive, entry, number).
    DROPPED_VERSION = 0x17
    /// How often a page is held, by (drive, digest).
    PAGE = 0x20
    /// The rows of a page, by (drive, digest).
    PAGE_ROWS = 0x21
    /// Pages that nobody holds, by (drive, digest).
    PAGE_RELEASE = 0x22
    /// Block ids by (drive, digest).
    BLOCK_DIGEST = 0x23
    /// Blocks by (drive, id).
    BLOCK = 0x24
    /// Sealed bytes of inline blocks by (drive, id).
    INLINE = 0x25
    /// Blocks at zero references by (drive, age, id).
    IDLE_BLOCK = 0x26
    /// Sealed lengths of inline blocks that somebody holds, by (drive, age at which they were last held by nobody, id).
    PACKABLE = 0x28
    /// At which age a drive is looked at for contents to be packed, by drive.
    PACKING = 0x29
    /// Of a slot: how many inline blocks somebody holds and what they take.
    INLINE_COUNTS = 0x2a
    /// Of a slot: what all of its inline blocks take, held or not.
    INLINE_BYTES = 0x2b
    /// Stripes by (profile, id).
    STRIPE = 0x30
    /// (drive, block) by (stripe, offset).
    STRIPE_BLOCK = 0x31
    /// Stripes with a fragment missing or astray, by (fragments to spare, profile, id).
    STRIPE_DEGRADED = 0x32
    /// Stripes without a living byte, by (profile, id).
    STRIPE_DYING = 0x33
    /// Of a slot: how many stripes it has and how they stand.
    STRIPE_COUNTS = 0x34
    /// Of a slot: how many bytes its contents take and wait to be given back.
    CONTENT_COUNTS = 0x35
    /// Sessions by (drive, number).
    SESSION = 0x40
    /// Ended pages of sessions by (drive, session, index).
    SESSION_PAGE = 0x41
    /// Rows of a session's open page by (drive, session, position).
    SESSION_ROW = 0x42
    /// Sessions by (drive, age of expiry, number).
    SESSION_END = 0x43
    /// Lists of blocks that were announced for sessions, in parts by (drive, session, first row).
    SESSION_LIST = 0x44
    /// What is kept beside resumable sessions by (drive, number), and after their commit.
    SESSION_RESUMABLE = 0x45
    /// How many rows were announced for a session, by (drive, session).
    SESSION_LISTED = 0x46
    /// How many rows were announced for all sessions of a drive, by drive.
    LISTED = 0x47
    /// How many sessions of a drive are open, by drive.
    SESSIONS_OPEN = 0x48
    /// What a session has taken of its drive's quota, by (drive, session).
    SESSION_TAKEN = 0x49
    /// Changes by (drive, sequence).
    CHANGE = 0x50
    /// Changes by (drive, scope, scope sequence).
    SCOPE_CHANGE = 0x51
    /// Scopes by (drive, entry).
    SCOPE = 0x52
    /// Where the drive's feed stood before the first change of an aged hour, by (drive, age at which the hour began).
    FEED_HOUR = 0x53
    /// Up to which sequence changes were dropped, by (drive, scope); the drive's own under 0.
    FEED_DROPPED = 0x54
    /// Jobs by (drive, number).
    JOB = 0x60
    /// Usage by drive.
    USAGE = 0x61
    /// Request ids by (source, id).
    REQUEST = 0x62
    /// Request ids by (aged hour of their end, source, id).
    REQUEST_END = 0x63
    /// What a leader must come back for, by (drive, sweep, number).
    WAITING = 0x64
    /// Rewinds by (drive, job).
    REWIND = 0x65
    /// What rewinds have listed, by (drive, job, index).
    REWIND_ITEM = 0x66
    /// Rewinds that have ended, by (drive, age at which they are forgotten, job).
    REWIND_END = 0x67
    /// The last command that touched a drive, by drive.
    TOUCHED = 0x68
    /// Copies that are made by jobs, by (drive, job).
    COPY = 0x69
    /// Of the whole group: its counter and the leader's time that it has seen.
    GROUP_AGE = 0x80
    /// Of the whole group: its settings.
    GROUP_SETTINGS = 0x81
    /// Of the whole group: slots that it owns, by slot.
    GROUP_SLOT = 0x82
    /// Of the whole group: how many bits name a placement group, by profile.
    GROUP_PG_BITS = 0x83
    /// Of the whole group: row versions in runs of 256, by (profile, run).
    GROUP_ROWS = 0x84
    /// Of the whole group: what waits, by (counter at which it is due, drive, sweep, number).
    DUE = 0x85
    /// Of the whole group: how far what an earlier release left was entered into the queue.
    DUE_FILLED = 0x86
    /// Of the whole group: drives with contents to be packed, by (counter at which they are looked at, drive).
    PACKING_DUE = 0x88
    /// Of the whole group: how far inline blocks that an earlier release left were entered among those to be packed, and counted.
    PACKING_FILLED = 0x89
    /// Of the whole group: how far stripes less than half alive that an earlier release left were entered into the queue.
    REPACKABLE_FILLED = 0x8a
    /// Of the whole group: stripes less than half alive, by (counter at which their birth epoch is closed, profile, id).
    REPACKABLE = 0x8b
    /// Of the whole group: how far idle blocks and dying stripes that an earlier release left were entered into the queues.
    COLLECTION_FILLED = 0x8c
    /// Of the whole group: stripes without a living byte, by (counter at which their birth epoch is closed, profile, id).
    REMOVABLE = 0x8d
    /// Of the whole group: removed stripes of which a disk could not be told, by (disk, profile, id).
    UNTOLD = 0x8e
    /// Of the whole group: which gateway removes and repacks its stripes and packs its small contents.
    LEASE = 0x8f
    /// Of the control group: the cluster's id and settings.
    CLUSTER = 0x90
    /// Of the control group: the cluster map.
    CLUSTER_MAP = 0x91
    /// Of the control group: layout tables by profile.
    LAYOUT_TABLE = 0x92
    /// Of the control group: groups by slot.
    SLOT_GROUP = 0x93
    /// Of the control group: groups by id.
    GROUP = 0x94
    /// Of the control group: processes by (role, number).
    PROCESS = 0x95
    /// Of the control group: the name of the KEK that wraps drive keys.
    KEK = 0x96
    /// Of the control group: the name of the first administrator.
    SETUP = 0x97
}

/// A key in the making.
#[derive(Clone, Debug)]
pub struct Key(Vec<u8>);

impl Key {
    /// Begins a key of `table` in `slot`.
    #[must_use]
    pub fn of_slot(slot: Slot, table: u8) -> Self {
        Self::of(slot.number(), table)
    }

    /// Begins a key of a table of the whole group.
    #[must_use]
    pub fn of_group(table: u8) -> Self {
        Self::of(WHOLE_GROUP, table)
    }

    /// Begins a key of `table` that is ordered by drive.
    #[must_use]
    pub fn of_drive(drive: DriveId, table: u8) -> Self {
        Self::of_slot(drive.slot(), table).u64(drive.0)
    }

    fn of(slot: u16, table: u8) -> Self {
        let mut bytes = Vec::with_capacity(48);
        bytes.extend_from_slice(&slot.to_be_bytes());
        bytes.push(table);
        Self(bytes)
    }

    /// Adds one byte.
    #[must_use]
    pub fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    /// Adds two bytes, big-endian.
    #[must_use]
    pub fn u16(self, value: u16) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    /// Adds four bytes, big-endian.
    #[must_use]
    pub fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    /// Adds eight bytes, big-endian.
    #[must_use]
    pub fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    /// Adds sixteen bytes, big-endian.
    #[must_use]
    pub fn u128(self, value: u128) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    /// Adds bytes as they are; of varying length only at the end of a key.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// The key.
    #[must_use]
    pub fn done(self) -> Bytes {
        Bytes::from(self.0)
    }
}

/// The last eight bytes of a key, as a number; 0 for a shorter one.
#[must_use]
pub fn last_u64(key: &[u8]) -> u64 {
    key.last_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// The eight bytes at `at` of a key, as a number; 0 when there are none.
#[must_use]
pub fn u64_at(key: &[u8], at: usize) -> u64 {
    key.get(at..)
        .and_then(|rest| rest.first_chunk::<8>())
        .map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// Bytes before what a drive's table is ordered by: slot, table, drive.
pub const DRIVE_PREFIX_BYTES: usize = 2 + 1 + 8;

pub(crate) fn drive(drive: DriveId) -> Bytes {
    Key::of_drive(drive, DRIVE).done()
}

pub(crate) fn touched(drive: DriveId) -> Bytes {
    Key::of_drive(drive, TOUCHED).done()
}

/// Whether a key is a row of a request id or of what waits, which no answer to a user is read from.
pub(crate) fn is_bookkeeping(key: &[u8]) -> bool {
    let tables = [REQUEST, REQUEST_END, WAITING, DUE, PACKING, PACKING_DUE];
    key.get(2).is_some_and(|table| tables.contains(table))
}

pub(crate) fn usage(drive: DriveId) -> Bytes {
    Key::of_drive(drive, USAGE).done()
}

pub(crate) fn user(user: UserId) -> Bytes {
    Key::of_slot(user.slot(), USER).u64(user.0).done()
}

pub(crate) fn username(folded: &str) -> Bytes {
    Key::of_slot(Slot::of_username(folded), USERNAME)
        .bytes(folded.as_bytes())
        .done()
}

pub(crate) fn devices(user: UserId) -> Key {
    Key::of_slot(user.slot(), DEVICE).u64(user.0)
}

pub(crate) fn device(user: UserId, device: DeviceId) -> Bytes {
    devices(user).u64(device.0).done()
}

pub(crate) fn tokens(user: UserId) -> Key {
    Key::of_slot(user.slot(), TOKEN).u64(user.0)
}

pub(crate) fn entry(drive: DriveId, number: u64) -> Bytes {
    Key::of_drive(drive, ENTRY).u64(number).done()
}

pub(crate) fn children(drive: DriveId, parent: u64) -> Key {
    Key::of_drive(drive, CHILD).u64(parent)
}

pub(crate) fn child(drive: DriveId, parent: u64, name_key: &str) -> Bytes {
    children(drive, parent).bytes(name_key.as_bytes()).done()
}

/// Names hold no NUL, so one ends the folded key and no key is the beginning of another's.
pub(crate) fn twin(drive: DriveId, parent: u64, folded: &str, number: u64) -> Bytes {
    Key::of_drive(drive, TWIN)
        .u64(parent)
        .bytes(folded.as_bytes())
        .u8(0)
        .u64(number)
        .done()
}

pub(crate) fn versions(drive: DriveId, entry: u64) -> Key {
    Key::of_drive(drive, VERSION).u64(entry)
}

pub(crate) fn version(drive: DriveId, entry: u64, number: u64) -> Bytes {
    versions(drive, entry).u64(number).done()
}

pub(crate) fn retention(drive: DriveId) -> Bytes {
    Key::of_drive(drive, RETENTION).done()
}

pub(crate) fn old_version(drive: DriveId, age_ms: u64, entry: u64, number: u64) -> Bytes {
    let key = Key::of_drive(drive, OLD_VERSION).u64(age_ms);
    key.u64(entry).u64(number).done()
}

pub(crate) fn old_since(drive: DriveId, entry: u64, number: u64) -> Bytes {
    Key::of_drive(drive, OLD_SINCE).u64(entry).u64(number).done()
}

pub(crate) fn dropped_version(drive: DriveId, entry: u64, number: u64) -> Bytes {
    Key::of_drive(drive, DROPPED_VERSION).u64(entry).u64(number).done()
}

pub(crate) fn trash(drive: DriveId, age_ms: u64, entry: u64) -> Bytes {
    Key::of_drive(drive, TRASH).u64(age_ms).u64(entry).done()
}

pub(crate) fn by_digest(drive: DriveId, table: u8, digest: Digest) -> Bytes {
    Key::of_drive(drive, table).bytes(&digest.0).done()
}

pub(crate) fn block(drive: DriveId, block: BlockId) -> Bytes {
    Key::of_drive(drive, BLOCK).u64(block.0).done()
}

pub(crate) fn inline(drive: DriveId, block: BlockId) -> Bytes {
    Key::of_drive(drive, INLINE).u64(block.0).done()
}

pub(crate) fn idle_block(drive: DriveId, age_ms: u64, block: BlockId) -> Bytes {
    Key::of_drive(drive, IDLE_BLOCK).u64(age_ms).u64(block.0).done()
}

pub(crate) fn packable(drive: DriveId, age_ms: u64, block: BlockId) -> Bytes {
    Key::of_drive(drive, PACKABLE).u64(age_ms).u64(block.0).done()
}

pub(crate) fn packing(drive: DriveId) -> Bytes {
    Key::of_drive(drive, PACKING).done()
}

pub(crate) fn packing_due(counter_ms: u64, drive: DriveId) -> Bytes {
    Key::of_group(PACKING_DUE).u64(counter_ms).u64(drive.0).done()
}

pub(crate) fn stripe(profile: ProfileId, stripe: StripeId) -> Bytes {
    Key::of_slot(stripe.slot(), STRIPE)
        .u8(profile.number())
        .bytes(&stripe.to_bytes())
        .done()
}

pub(crate) fn stripe_blocks(stripe: StripeId) -> Key {
    Key::of_slot(stripe.slot(), STRIPE_BLOCK).bytes(&stripe.to_bytes())
}

pub(crate) fn stripe_block(stripe: StripeId, offset: u32) -> Bytes {
    stripe_blocks(stripe).u32(offset).done()
}

pub(crate) fn stripe_degraded(to_spare: u8, profile: ProfileId, stripe: StripeId) -> Bytes {
    Key::of_slot(stripe.slot(), STRIPE_DEGRADED)
        .u8(to_spare)
        .u8(profile.number())
        .bytes(&stripe.to_bytes())
        .done()
}

pub(crate) fn stripe_dying(profile: ProfileId, stripe: StripeId) -> Bytes {
    Key::of_slot(stripe.slot(), STRIPE_DYING)
        .u8(profile.number())
        .bytes(&stripe.to_bytes())
        .done()
}

pub(crate) fn removable(counter_ms: u64, profile: ProfileId, stripe: StripeId) -> Bytes {
    let key = Key::of_group(REMOVABLE).u64(counter_ms);
    key.u8(profile.number()).bytes(&stripe.to_bytes()).done()
}

pub(crate) fn repackable(counter_ms: u64, profile: ProfileId, stripe: StripeId) -> Bytes {
    let key = Key::of_group(REPACKABLE).u64(counter_ms);
    key.u8(profile.number()).bytes(&stripe.to_bytes()).done()
}

pub(crate) fn untold_of(disk: DiskId) -> Key {
    Key::of_group(UNTOLD).u32(disk.0)
}

pub(crate) fn untold(disk: DiskId, profile: ProfileId, stripe: StripeId) -> Bytes {
    untold_of(disk).u8(profile.number()).bytes(&stripe.to_bytes()).done()
}

pub(crate) fn session(drive: DriveId, upload: u64) -> Bytes {
    Key::of_drive(drive, SESSION).u64(upload).done()
}

pub(crate) fn session_pages(drive: DriveId, upload: u64) -> Key {
    Key::of_drive(drive, SESSION_PAGE).u64(upload)
}

pub(crate) fn session_rows(drive: DriveId, upload: u64) -> Key {
    Key::of_drive(drive, SESSION_ROW).u64(upload)
}

pub(crate) fn session_resumable(drive: DriveId, upload: u64) -> Bytes {
    Key::of_drive(drive, SESSION_RESUMABLE).u64(upload).done()
}

pub(crate) fn session_lists(drive: DriveId, upload: u64) -> Key {
    Key::of_drive(drive, SESSION_LIST).u64(upload)
}

pub(crate) fn session_listed(drive: DriveId, upload: u64) -> Bytes {
    Key::of_drive(drive, SESSION_LISTED).u64(upload).done()
}

pub(crate) fn listed(drive: DriveId) -> Bytes {
    Key::of_drive(drive, LISTED).done()
}

pub(crate) fn sessions_open(drive: DriveId) -> Bytes {
    Key::of_drive(drive, SESSIONS_OPEN).done()
}

pub(crate) fn session_taken(drive: DriveId, upload: u64) -> Bytes {
    Key::of_drive(drive, SESSION_TAKEN).u64(upload).done()
}

pub(crate) fn session_end(drive: DriveId, age_ms: u64, upload: u64) -> Bytes {
    Key::of_drive(drive, SESSION_END).u64(age_ms).u64(upload).done()
}

pub(crate) fn change(drive: DriveId, sequence: u64) -> Bytes {
    Key::of_drive(drive, CHANGE).u64(sequence).done()
}

pub(crate) fn scope(drive: DriveId, entry: u64) -> Bytes {
    Key::of_drive(drive, SCOPE).u64(entry).done()
}

pub(crate) fn scope_changes(drive: DriveId, scope: u64) -> Key {
    Key::of_drive(drive, SCOPE_CHANGE).u64(scope)
}

pub(crate) fn feed_hour(drive: DriveId, age_ms: u64) -> Bytes {
    Key::of_drive(drive, FEED_HOUR).u64(age_ms).done()
}

pub(crate) fn feed_dropped(drive: DriveId, scope: u64) -> Bytes {
    Key::of_drive(drive, FEED_DROPPED).u64(scope).done()
}

pub(crate) fn job(drive: DriveId, job: u64) -> Bytes {
    Key::of_drive(drive, JOB).u64(job).done()
}

pub(crate) fn rewind(drive: DriveId, job: u64) -> Bytes {
    Key::of_drive(drive, REWIND).u64(job).done()
}

pub(crate) fn rewind_items(drive: DriveId, job: u64) -> Key {
    Key::of_drive(drive, REWIND_ITEM).u64(job)
}

pub(crate) fn rewind_item(drive: DriveId, job: u64, index: u64) -> Bytes {
    rewind_items(drive, job).u64(index).done()
}

pub(crate) fn rewind_end(drive: DriveId, age_ms: u64, job: u64) -> Bytes {
    Key::of_drive(drive, REWIND_END).u64(age_ms).u64(job).done()
}

pub(crate) fn copy(drive: DriveId, job: u64) -> Bytes {
    Key::of_drive(drive, COPY).u64(job).done()
}

pub(crate) fn request(slot: Slot, source: u64, id: u128) -> Bytes {
    Key::of_slot(slot, REQUEST).u64(source).u128(id).done()
}

pub(crate) fn request_end(slot: Slot, hour: u32, source: u64, id: u128) -> Bytes {
    Key::of_slot(slot, REQUEST_END).u32(hour).u64(source).u128(id).done()
}
