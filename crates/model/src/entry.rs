//! Entries, versions and blocks as every process speaks of them.
//!
//! Invariants: `version` counts contents of a file from 1 (0 for folders), `revision` counts every change of an entry from 1.
//! Not here: how they are stored (`metadata-raft`) or shown (`api`).

use crate::digest::Digest;
use crate::id::{BlockId, DeviceId, EntryId, UserId};
use crate::profile::ProfileId;
use crate::stripe::{Astray, StripeForm, StripeId};
use crate::time::WallTime;
use serde::{Deserialize, Serialize};

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryType {
    /// Has versions.
    File,
    /// Has children.
    Folder,
}

/// A file or a folder, as the drive's group answers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Survives rename and move.
    pub id: EntryId,
    /// The folder that it lies in; `None` for the root.
    pub parent: Option<EntryId>,
    /// As the user wrote it; empty for the root.
    pub name: String,
    /// File or folder.
    pub entry_type: EntryType,
    /// Bytes of the current content; 0 for folders.
    pub size: u64,
    /// Counts contents from 1; 0 for folders.
    pub version: u64,
    /// Counts every change of name, place or content from 1.
    pub revision: u64,
    /// Digest of the current content; `None` for folders.
    pub digest: Option<Digest>,
    /// As given by whoever wrote the content.
    pub content_type: Option<String>,
    /// When the entry was made, for showing.
    pub created_at: WallTime,
    /// When the entry last changed, for showing.
    pub modified_at: WallTime,
    /// Who changed it last.
    pub modified_by: UserId,
    /// When it went into the trash, for showing; set on the trashed entry itself, not on what lies below it.
    pub trashed_at: Option<WallTime>,
}

/// One content of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Counts from 1.
    pub number: u64,
    /// Bytes of plaintext.
    pub size: u64,
    /// Digest of the content.
    pub digest: Digest,
    /// When it was committed, for showing.
    pub created_at: WallTime,
    /// Who committed it.
    pub created_by: UserId,
    /// With which device.
    pub device: Option<DeviceId>,
}

/// One row of a page: a block by its name for clients and its plain length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockRow {
    /// Keyed digest of the plaintext.
    pub digest: Digest,
    /// Bytes of plaintext.
    pub size: u32,
}

/// Where a block's sealed bytes lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlockPlace {
    /// In the metadata itself, sealed.
    Inline(bytes::Bytes),
    /// In a stripe.
    Stripe {
        /// Which.
        stripe: StripeId,
        /// First byte in the stripe.
        offset: u32,
        /// Sealed bytes.
        sealed_bytes: u32,
    },
}

/// A block as a reader needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedBlock {
    /// The drive's number for it.
    pub id: BlockId,
    /// Its digest and plain length.
    pub row: BlockRow,
    /// Its sealed bytes.
    pub place: BlockPlace,
}

/// A stripe as a reader needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedStripe {
    /// Its name.
    pub id: StripeId,
    /// Its scheme.
    pub profile: ProfileId,
    /// Lengths and hash.
    pub form: StripeForm,
    /// Fragments that are missing or lie outside the row.
    pub astray: Vec<Astray>,
}
