//! Delta sync: content cut and named as the server does it, blocks sent and fetched singly.
//!
//! Place in the picture: what the sync engine will stand on; the demo and tests use it as it is.
//! Invariants: a fetched block counts only when its bytes have its digest; no more than `BLOCKS_IN_FLIGHT` blocks are sent at once.
//! Not here: what a machine remembers of its files (later), retries.

use crate::client::{Client, read};
use crate::error::ClientError;
use api::sync::{
    Begun, Block, BlockList, BlockTicket, BlocksQuery, CommitRequest, Splice as WireSplice, SyncAnswer, SyncRequest,
    TicketRequest,
};
use api::upload::Uploaded;
use bytes::{Bytes, BytesMut};
use codec::cut::Cutter;
use codec::delta::{Splice, splices};
use codec::digest::block_digest;
use codec::keys::DigestKey;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use model::digest::Digest;
use model::entry::BlockRow;
use reqwest::{Method, header};
use std::collections::BTreeMap;

/// Blocks that are sent at once. A guess: enough to hide a round trip behind the others' bytes.
pub const BLOCKS_IN_FLIGHT: usize = 4;

/// A content by its blocks, in order.
#[derive(Clone, Debug, Default)]
pub struct CutContent {
    /// Names and lengths.
    pub rows: Vec<BlockRow>,
    /// The bytes of each.
    pub blocks: Vec<Bytes>,
}

/// What a content is for.
#[derive(Clone, Debug)]
pub enum DeltaTarget {
    /// A file that is there.
    Known {
        /// Its id.
        id: String,
        /// The version that the content follows.
        base_version: u64,
    },
    /// A new file at this absolute path, with the folders above it.
    New(String),
}

/// What sending a content took.
#[derive(Clone, Debug)]
pub struct DeltaSent {
    /// The server's answer to the commit.
    pub uploaded: Uploaded,
    /// Blocks that were sent.
    pub blocks: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl CutContent {
    /// Cuts a content that is in memory and names its blocks by the drive's digest key. Copies next to nothing.
    #[must_use]
    pub fn of(content: Bytes, key: &DigestKey) -> Self {
        let mut cutter = Cutter::new();
        let mut blocks = cutter.push(content);
        blocks.extend(cutter.finish());
        let row = |block: &Bytes| BlockRow {
            digest: block_digest(key, block),
            size: u32::try_from(block.len()).unwrap_or(u32::MAX),
        };
        let rows = blocks.iter().map(row).collect();
        Self { rows, blocks }
    }
}

impl Client {
    /// The key by which blocks of the home drive are named.
    ///
    /// Errors: `Altered` when the server tells none.
    pub async fn digest_key(&self) -> Result<DigestKey, ClientError> {
        let told = self.me().await?.digest_key;
        let key = Digest::from_hex(&told).ok_or(ClientError::Altered("the digest key"))?;
        Ok(DigestKey::new(key.0))
    }

    /// Begins an upload of a list of blocks; `id` is the file's, or `new`.
    pub async fn sync(&self, id: &str, wanted: &SyncRequest) -> Result<SyncAnswer, ClientError> {
        let request = self.request(Method::POST, &format!("/api/v1/files/{id}/sync"));
        read(self.send(request.json(wanted)).await?).await
    }

    /// Commits an upload that was begun.
    pub async fn commit(&self, id: &str, upload_id: &str) -> Result<Uploaded, ClientError> {
        let begun = CommitRequest::Begun(Begun {
            upload_id: upload_id.to_owned(),
        });
        let request = self.request(Method::POST, &format!("/api/v1/files/{id}/commit"));
        read(self.send(request.json(&begun)).await?).await
    }

    /// Sends one block of an upload.
    pub async fn put_block(&self, upload_id: &str, digest: &Digest, bytes: Bytes) -> Result<(), ClientError> {
        let path = format!("/api/v1/blocks/{}?upload_id={upload_id}", digest.to_hex());
        self.put_bytes(self.request(Method::PUT, &path), bytes).await
    }

    /// An address to which whoever knows it can send one block of an upload.
    pub async fn block_ticket(&self, upload_id: &str, row: &BlockRow) -> Result<BlockTicket, ClientError> {
        let wanted = TicketRequest {
            upload_id: upload_id.to_owned(),
            digest: row.digest.to_hex(),
            size: row.size,
        };
        let request = self.request(Method::POST, "/api/v1/blocks/upload-url");
        read(self.send(request.json(&wanted)).await?).await
    }

    /// Sends a block by a ticket; this client needs no token for it, and may be of another gateway.
    pub async fn put_by_ticket(&self, ticket: &BlockTicket, bytes: Bytes) -> Result<(), ClientError> {
        self.put_bytes(self.anonymous(Method::PUT, &ticket.url), bytes).await
    }

    async fn put_bytes(&self, request: reqwest::RequestBuilder, bytes: Bytes) -> Result<(), ClientError> {
        let request = request
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .body(bytes);
        crate::client::accept(self.send(request).await?).await.map(drop)
    }

    /// A part of a version's list of blocks.
    pub async fn blocks(&self, id: &str, query: &BlocksQuery) -> Result<BlockList, ClientError> {
        let request = self.request(Method::GET, &format!("/api/v1/files/{id}/blocks"));
        read(self.send(request.query(query)).await?).await
    }

    /// How a version differs from the version `since`: the version's number, and splices of that one's list.
    pub async fn changes_since(
        &self,
        id: &str,
        version: Option<u64>,
        since: u64,
    ) -> Result<(u64, Vec<Splice>), ClientError> {
        let mut query = BlocksQuery {
            version,
            since: Some(since),
            ..BlocksQuery::default()
        };
        let mut all = Vec::new();
        loop {
            let part = self.blocks(id, &query).await?;
            let told = part.splices.ok_or(ClientError::Altered("a list of blocks"))?;
            all.extend(told.iter().map(splice).collect::<Result<Vec<_>, _>>()?);
            query.version = Some(part.version);
            query.page_token = part.next_page_token;
            if query.page_token.is_none() {
                return Ok((part.version, all));
            }
        }
    }

    /// Puts a content of which only those blocks are sent that the drive lacks. `old` is the list of the base version, when the caller
    /// has it: then the new list is told by what changed.
    pub async fn put_delta(
        &self,
        target: &DeltaTarget,
        content: &CutContent,
        old: Option<&[BlockRow]>,
    ) -> Result<DeltaSent, ClientError> {
        let mut wanted = SyncRequest::default();
        let id = match target {
            DeltaTarget::Known { id, base_version } => {
                wanted.current_version = Some(*base_version);
                id.as_str()
            }
            DeltaTarget::New(path) => {
                (wanted.path, wanted.parents) = (Some(path.clone()), true);
                "new"
            }
        };
        match old {
            Some(old) => wanted.splices = Some(splices(old, &content.rows).iter().map(wire_splice).collect()),
            None => wanted.new_block_hashes = Some(content.rows.iter().map(|row| row.digest.to_hex()).collect()),
        }
        let begun = self.sync(id, &wanted).await?;
        let digests = content.rows.iter().map(|row| row.digest.to_hex());
        let by_digest: BTreeMap<String, (&BlockRow, &Bytes)> =
            digests.zip(content.rows.iter().zip(&content.blocks)).collect();
        let missing: Result<Vec<_>, ClientError> = begun
            .missing_blocks
            .iter()
            .map(|digest| {
                by_digest
                    .get(digest)
                    .copied()
                    .ok_or(ClientError::Altered("a missing block"))
            })
            .collect();
        let missing = missing?;
        let upload_id = begun.upload_id.as_str();
        stream::iter(missing.iter().copied())
            .map(|(row, bytes)| self.put_block(upload_id, &row.digest, bytes.clone()))
            .buffer_unordered(BLOCKS_IN_FLIGHT)
            .try_collect::<()>()
            .await?;
        Ok(DeltaSent {
            uploaded: self.commit(id, upload_id).await?,
            blocks: missing.len(),
            bytes: missing.iter().map(|(row, _)| u64::from(row.size)).sum(),
        })
    }

    /// Makes the newest content of a file out of one that the caller has, `old` of the version `since`; answers it with its version
    /// and the bytes that were fetched.
    pub async fn get_delta(
        &self,
        id: &str,
        (since, old): (u64, &CutContent),
        key: &DigestKey,
    ) -> Result<(u64, Bytes, u64), ClientError> {
        let (version, changes) = self.changes_since(id, None, since).await?;
        let mut content = BytesMut::new();
        let mut fetched = 0;
        for change in changes {
            match change {
                Splice::Keep { first, count } => {
                    let end = first.checked_add(count).and_then(|end| usize::try_from(end).ok());
                    let kept = usize::try_from(first)
                        .ok()
                        .zip(end)
                        .and_then(|(first, end)| old.blocks.get(first..end));
                    for block in kept.ok_or(ClientError::Altered("a list of blocks"))? {
                        content.extend_from_slice(block);
                    }
                }
                Splice::Blocks(rows) => {
                    let bytes: u64 = rows.iter().map(|row| u64::from(row.size)).sum();
                    let part = self.range_of(id, version, content.len() as u64, bytes).await?;
                    check(&rows, &part, key)?;
                    content.extend_from_slice(&part);
                    fetched += bytes;
                }
            }
        }
        Ok((version, content.freeze(), fetched))
    }

    async fn range_of(&self, id: &str, version: u64, first: u64, bytes: u64) -> Result<Bytes, ClientError> {
        let path = format!("/api/v1/files/{id}/content?version={version}");
        let last = first + bytes.max(1) - 1;
        let request = self.request(Method::GET, &path);
        let request = request.header(header::RANGE, format!("bytes={first}-{last}"));
        Ok(crate::client::accept(self.send(request).await?).await?.bytes().await?)
    }
}

/// Whether bytes are these blocks end to end.
fn check(rows: &[BlockRow], bytes: &Bytes, key: &DigestKey) -> Result<(), ClientError> {
    let mut rest = bytes.clone();
    for row in rows {
        let size = row.size as usize;
        if rest.len() < size || block_digest(key, &rest.split_to(size)) != row.digest {
            return Err(ClientError::Altered("a block"));
        }
    }
    if rest.is_empty() {
        Ok(())
    } else {
        Err(ClientError::Altered("a block"))
    }
}

fn splice(splice: &WireSplice) -> Result<Splice, ClientError> {
    let row = |block: &Block| {
        let digest = Digest::from_hex(&block.digest).ok_or(ClientError::Altered("a digest"))?;
        Ok(BlockRow {
            digest,
            size: block.size,
        })
    };
    Ok(match splice {
        WireSplice::Keep([first, count]) => Splice::Keep {
            first: *first,
            count: *count,
        },
        WireSplice::Blocks(blocks) => Splice::Blocks(blocks.iter().map(row).collect::<Result<_, ClientError>>()?),
    })
}

/// The form of a splice in a request.
#[must_use]
pub fn wire_splice(splice: &Splice) -> WireSplice {
    match splice {
        Splice::Keep { first, count } => WireSplice::Keep([*first, *count]),
        Splice::Blocks(rows) => WireSplice::Blocks(rows.iter().map(Block::from).collect()),
    }
}
