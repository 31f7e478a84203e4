//! Every limit that a user or operator can meet, in one place; docs/limits.md is written from these.
//!
//! Invariant: a limit is checked before memory is taken or bytes are stored.

use std::time::Duration;

/// Largest file: 10 GiB.
pub const FILE_BYTES_MAX: u64 = 10 << 30;
/// Default quota of a drive.
pub const QUOTA_BYTES_DEFAULT: u64 = 10 << 30;
/// Quota of drives made by `holdfast dev`.
pub const QUOTA_BYTES_DEV: u64 = 1 << 40;
/// A name of an entry, in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 255;
/// A path, in bytes of UTF-8.
pub const PATH_BYTES_MAX: usize = 4096;
/// Folders above an entry, counting the root.
pub const DEPTH_MAX: u16 = 100;
/// A username, in bytes.
pub const USERNAME_BYTES_MAX: usize = 64;
/// A password, in bytes: argon2id's work does not grow with it, memory does.
pub const PASSWORD_BYTES_MAX: usize = 1024;
/// Fewest bytes of a password.
pub const PASSWORD_BYTES_MIN: usize = 8;
/// Header lines of a request, together.
pub const HEADER_BYTES_MAX: usize = 16 << 10;
/// What a client of HTTP/2 may send of bodies before the first byte of it was taken in, on a connection and on each of its streams.
/// A link holds rate times round trip: 100 Mbit/s and 100 ms are 1.25 MB, which a window of 1 MiB, hyper's own, does not fill.
pub const HTTP2_WINDOW_BYTES: u32 = 2 << 20;
/// The same where a gateway has given out all its wide windows: what a connection of HTTP/2 begins with, which nothing makes smaller
/// (RFC 9113, 6.9.2).
pub const HTTP2_NARROW_WINDOW_BYTES: u32 = (64 << 10) - 1;
/// A request's head comes within this. A guess: a hundred round trips of a bad line.
pub const HEAD_PATIENCE: Duration = Duration::from_secs(30);
/// The sender of a body is silent for less than this. A guess: a phone that changes networks is back by then.
pub const BODY_PATIENCE: Duration = Duration::from_secs(60);
/// The form of a sign-in.
pub const FORM_BYTES_MAX: usize = 16 << 10;
/// A JSON body.
pub const JSON_BYTES_MAX: usize = 1 << 20;
/// A JSON body of the sync calls.
pub const SYNC_JSON_BYTES_MAX: usize = 4 << 20;
/// A command of a Raft group.
pub const COMMAND_BYTES_MAX: usize = 1 << 20;
/// Sub-operations of a command of a Raft group.
pub const COMMAND_OPERATIONS_MAX: usize = 1000;
/// A file of at most this many bytes lies inline in the metadata.
pub const INLINE_BYTES_MAX: usize = 4 << 10;
/// Entries of one page of a listing, at most and by default.
pub const LIST_PAGE_MAX: usize = 1000;
/// Stripes and tails of at most this many bytes use the profile `copies`.
pub const COPIES_BYTES_MAX: usize = 16 << 10;
/// The content type of a file, in bytes.
pub const CONTENT_TYPE_BYTES_MAX: usize = 255;
/// An `Idempotency-Key`, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// Shortest block, except a file's last.
pub const BLOCK_BYTES_MIN: usize = 256 << 10;
/// The length that the cutter aims for.
pub const BLOCK_BYTES_AVG: usize = 1 << 20;
/// Longest block.
pub const BLOCK_BYTES_MAX: usize = 4 << 20;
/// Blocks of a file: as many as the largest has when each is as short as the cutter makes them.
pub const FILE_BLOCKS_MAX: usize = FILE_BYTES_MAX as usize / BLOCK_BYTES_MIN + 1;
/// Rows of all lists of blocks that are announced for the uploads of one drive: 25 of the longest, or a TiB of ordinary blocks. They
/// take about 36 MiB of the metadata. A guess.
pub const DRIVE_LISTED_ROWS_MAX: u64 = 1 << 20;
/// Sessions of one drive that are open: each takes some hundred bytes of the metadata, and a resumable one lives for days. A guess: far
/// more than the devices of a drive send at once.
pub const DRIVE_SESSIONS_MAX: u64 = 10_000;
/// A page of a manifest may end once it has this many blocks.
pub const PAGE_BLOCKS_MIN: usize = 32;
/// A page of a manifest ends at this many blocks.
pub const PAGE_BLOCKS_MAX: usize = 512;
/// A page ends after a block whose digest has this many low bits zero.
pub const PAGE_END_BITS: u32 = 7;

/// An upload of at most this many bytes that ends within `DIRECT_COMMIT_AFTER` needs no session.
pub const DIRECT_COMMIT_BYTES: usize = 12 << 20;
/// See `DIRECT_COMMIT_BYTES`.
pub const DIRECT_COMMIT_AFTER: Duration = Duration::from_secs(5);
/// Files of one batch.
pub const BATCH_FILES_MAX: usize = COMMAND_OPERATIONS_MAX;
/// Bytes of all files of one batch together: what any upload keeps in memory until it is named.
pub const BATCH_BYTES_MAX: usize = DIRECT_COMMIT_BYTES;
/// A plain upload's session lives this long, in age, after its last command.
pub const PLAIN_SESSION_AGE: Duration = Duration::from_secs(3600);
/// A resumable upload's session lives this long, in age, after its last command.
pub const RESUMABLE_SESSION_AGE: Duration = Duration::from_secs(7 * 24 * 3600);
/// An entry stays in the trash this long, in age.
pub const TRASH_AGE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Versions of a file that a drive keeps, the current one counted, unless it was told another number.
pub const VERSIONS_KEPT_DEFAULT: u32 = 100;
/// The most versions of a file that a drive can be told to keep.
pub const VERSIONS_KEPT_MAX: u32 = 10_000;
/// A version stays this long, in age, after another took its place, unless the drive was told another time.
pub const VERSION_AGE_DEFAULT: Duration = Duration::from_secs(90 * 24 * 3600);
/// The longest time that a drive can be told to keep a version for.
pub const VERSION_AGE_MAX: Duration = Duration::from_secs(3650 * 24 * 3600);
/// Entries that one rewind lists at most: each is a row of the drive's group until the rewind is forgotten.
pub const REWIND_ITEMS_MAX: u64 = 1_000_000;
/// A rewind that has ended is told of this long, in age.
pub const REWIND_AGE: Duration = Duration::from_secs(24 * 3600);
/// Ended rewinds of a drive that are told of; beyond that the oldest are forgotten early.
pub const REWINDS_KEPT_MAX: usize = 8;
/// Copies by jobs that are under way in a drive: each follows every change of the drive.
pub const COPIES_UNDER_WAY_MAX: usize = 8;
/// Ended copies by jobs that a drive tells of; beyond that the oldest are forgotten when one is begun.
pub const COPIES_KEPT_MAX: usize = 2 * COPIES_UNDER_WAY_MAX;
/// Entries that a copy by a job makes at most: they cost no quota, and are there before anybody sees them.
pub const COPY_ENTRIES_MAX: u64 = 10_000_000;
/// A change stays in the feed this long, in age.
pub const FEED_AGE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Scopes of one cursor.
pub const CURSOR_SCOPES_MAX: usize = 128;
/// A poll waits this long when it does not say: many proxies cut at 60 s.
pub const POLL_WAIT: Duration = Duration::from_secs(55);
/// Shortest wait of a poll.
pub const POLL_WAIT_MIN: Duration = Duration::from_secs(1);
/// Longest wait of a poll.
pub const POLL_WAIT_MAX: Duration = Duration::from_secs(480);
/// Changes that a poll's answer carries.
pub const POLL_EVENTS_MAX: usize = 100;
/// Changes of one page of a feed, by default.
pub const CHANGES_PAGE: usize = 100;
/// An access token lives this long.
pub const ACCESS_TOKEN_LIFE: Duration = Duration::from_secs(3600);
/// A refresh token lives this long.
pub const REFRESH_TOKEN_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);
/// A ticket for sending one block lives this long.
pub const BLOCK_TICKET_LIFE: Duration = Duration::from_secs(15 * 60);
/// A stripe's birth epoch lasts this long.
pub const BIRTH_EPOCH: Duration = Duration::from_secs(3600);
/// The same in `holdfast dev`.
pub const BIRTH_EPOCH_DEV: Duration = Duration::from_secs(2);
/// How long a block without a reference stays proposable, by its slot's age.
pub const BLOCK_GRACE: Duration = Duration::from_secs(7 * 24 * 3600);
/// The same in `holdfast dev`.
pub const BLOCK_GRACE_DEV: Duration = Duration::from_secs(60);

const _: () = assert!(
    BLOCK_BYTES_MAX <= crate::stripe::STRIPE_TARGET_BYTES,
    "a whole block fits the longest stripe with its seal"
);
const _: () = assert!(INLINE_BYTES_MAX < BLOCK_BYTES_MIN, "an inline file is one block");
