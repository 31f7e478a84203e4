//! Delta sync: what a new content consists of, the blocks that are missing, and a version's blocks.

use crate::timestamp::Timestamp;
use model::entry::BlockRow;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// A block by its name and length.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Block {
    /// BLAKE3 of its bytes, keyed with the drive's digest key, in lower-case hex.
    pub digest: String,
    /// Its bytes, 1 to 4 MiB.
    pub size: u32,
}

impl From<&BlockRow> for Block {
    fn from(row: &BlockRow) -> Self {
        Self {
            digest: row.digest.to_hex(),
            size: row.size,
        }
    }
}

/// A piece of a list of blocks, told against another version's list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Splice {
    /// Blocks of the other list: the first one, counted from 0, and how many.
    Keep([u64; 2]),
    /// Blocks that are named.
    Blocks(Vec<Block>),
}

/// What a new content consists of: all of its blocks by `new_block_hashes`, or by `splices` of the version `current_version`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SyncRequest {
    /// The version that the content follows; absent or 0 for a new file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_version: Option<u64>,
    /// Digests of all blocks, in order; this or `splices`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_block_hashes: Option<Vec<String>>,
    /// The list told against that of `current_version`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub splices: Option<Vec<Splice>>,
    /// Of a new file: its absolute path; this, or `parent` and `name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Of a new file: the folder that it shall lie in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Of a new file: its name in that folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Of a new file: whether missing folders of `path` are made.
    #[serde(default)]
    pub parents: bool,
    /// Media type of the content; absent leaves the one that the file has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
}

/// Which blocks have to be sent before the commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SyncAnswer {
    /// `ok`.
    pub status: String,
    /// Digests of blocks that the drive lacks, each once, in the order of the content.
    pub missing_blocks: Vec<String>,
    /// Names the upload to `PUT /api/v1/blocks/{digest}` and to the commit.
    pub upload_id: String,
}

/// What is committed: an upload that was begun, or the same list again, which begins one of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum CommitRequest {
    /// An upload that was begun.
    Begun(Begun),
    /// The list.
    List(SyncRequest),
}

/// An upload that was begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Begun {
    /// As the sync answered it.
    pub upload_id: String,
}

/// For what a block is sent, and what stands for the right to do so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct BlockQuery {
    /// The upload, for callers with a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload_id: Option<String>,
    /// A ticket of `POST /api/v1/blocks/upload-url`; no token is needed beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
}

/// The block for which a ticket is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TicketRequest {
    /// The upload that the block is for.
    pub upload_id: String,
    /// Its digest.
    pub digest: String,
    /// Its bytes.
    pub size: u32,
}

/// An address to which one block can be sent by whoever knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BlockTicket {
    /// Where to PUT the bytes; relative to this server where the cluster names no other for blocks.
    pub url: String,
    /// Until when.
    pub expires_at: Timestamp,
}

/// Which part of a version's list of blocks is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct BlocksQuery {
    /// The version; the current one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// The version whose blocks the caller has: the answer is told against its list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// Blocks of one page, 1 to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// The `next_page_token` of the page before; `version` and `since` are those of the first page then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_token: Option<String>,
}

/// A part of a version's list of blocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BlockList {
    /// The version.
    pub version: u64,
    /// Bytes of its content.
    pub size: u64,
    /// Digest of its content.
    pub digest: String,
    /// The version that `splices` are told against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// Its blocks in order; absent with `since`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<Vec<Block>>,
    /// The same blocks told against the list of `since`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub splices: Option<Vec<Splice>>,
    /// For the next part; absent behind the last block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}
