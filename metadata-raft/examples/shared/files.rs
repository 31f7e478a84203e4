//! Files with a page of blocks that lie in a stripe, as a gateway names them, among the folders of the measurements of this package.
//!
//! Nothing of their contents is anywhere: the state machine alone takes a stripe for durable when it is told so.
//! Invariant: the same number of the same drive is the same file. Not here: who makes them, and where.

use super::drive::Drive;
use model::digest::{Digest, StripeHash};
use model::entry::BlockRow;
use model::id::{EntryId, RowVersion};
use model::name::EntryName;
use model::profile::{Domain, ProfileId};
use model::stripe::{StripeForm, StripeId};
use model::time::BirthEpoch;
use protocol::metadata::drive::Place;
use protocol::metadata::upload::{DirectContent, NewBlock, NewStripe, PageRows, Survival, UploadCommand, UploadTarget};
use protocol::metadata::{Command, Query};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// One of so many entries is a file.
pub(crate) const FILE_EVERY: u64 = 4;
/// Blocks of each: its one page and its one stripe hold them all.
const BLOCKS: u32 = 4;
const BLOCK_BYTES: u32 = 64 << 10;
/// What a file counts against the quota.
pub(crate) const FILE_BYTES: u64 = BLOCKS as u64 * BLOCK_BYTES as u64;
/// What sealing adds to a block here.
const SEAL_BYTES: u32 = 30;
/// The profile of these drives.
const PROFILE: ProfileId = ProfileId::Solo;

/// The birth epoch of a drive's slot, as it was told last; clones are the same. A stripe may be born some epochs ago.
#[derive(Clone, Debug, Default)]
pub(crate) struct Epoch(Arc<AtomicU32>);

impl Epoch {
    /// The query for it.
    pub(crate) fn query(drive: &Drive) -> Query {
        Query::Slot(drive.drive.slot())
    }

    pub(crate) fn set(&self, epoch: BirthEpoch) {
        self.0.store(epoch.0, Ordering::Relaxed);
    }

    fn now(&self) -> BirthEpoch {
        BirthEpoch(self.0.load(Ordering::Relaxed))
    }
}

/// The command that makes the entry of this number in a folder: a file each so often, otherwise a folder.
pub(crate) fn entry_in(drive: &Drive, parent: EntryId, number: u64, epoch: &Epoch) -> Command {
    if number.is_multiple_of(FILE_EVERY) {
        return file_in(drive, parent, number, epoch.now());
    }
    drive.folder_in(parent, number)
}

fn digest(kind: u8, number: u64, at: u32) -> Digest {
    let mut bytes = [kind; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes[8..12].copy_from_slice(&at.to_be_bytes());
    Digest(bytes)
}

fn file_in(drive: &Drive, parent: EntryId, number: u64, born: BirthEpoch) -> Command {
    let row = |at| BlockRow {
        digest: digest(1, number, at),
        size: BLOCK_BYTES,
    };
    let sealed_bytes = BLOCK_BYTES + SEAL_BYTES;
    let block = |at| NewBlock {
        row: row(at),
        offset: at * sealed_bytes,
        sealed_bytes,
    };
    let profile = PROFILE.profile();
    let stripe = NewStripe {
        // The number in the upper bits, since these say in which row of the layout a stripe lies.
        id: StripeId::new(u128::from(number) << 20, drive.drive.slot(), born),
        profile: PROFILE,
        form: StripeForm {
            k: profile.k,
            m: profile.m,
            stripe_bytes: BLOCKS * sealed_bytes,
            stripe_hash: StripeHash([9; 32]),
        },
        row_version: RowVersion(1),
        astray: Vec::new(),
        blocks: (0..BLOCKS).map(block).collect(),
    };
    let content = DirectContent {
        size: FILE_BYTES,
        digest: digest(2, number, 0),
        pages: vec![PageRows {
            digest: digest(3, number, 0),
            rows: (0..BLOCKS).map(row).collect(),
        }],
        stripes: vec![stripe],
        inline: None,
    };
    let name = EntryName::new(&format!("file {number:06}")).unwrap();
    Command::Upload(UploadCommand::CommitUpload {
        principal: drive.principal,
        drive: drive.drive,
        target: UploadTarget::Place {
            place: Place::In { parent, name },
            with_parents: false,
        },
        base_version: None,
        fresh: vec![number + 1_000],
        content,
        content_type: None,
        survival: Survival {
            survives: Domain::Disk,
            is_degraded: false,
        },
    })
}
