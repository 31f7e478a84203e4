//! Digests: the names of blocks, pages and contents inside a drive, and the hash of a stripe.
//!
//! A block is named by BLAKE3 keyed with the drive's digest key; pages and contents by keys derived from it, so that no
//! block's bytes can have the name of a page or a content (docs/format/digests.md).
//! Invariants: equal content has equal pages and an equal digest inside a drive; two drives share no name.
//! Not here: where content is cut (`cut`) and who may learn a name (the gateway).

use crate::keys::DigestKey;
use model::digest::{Digest, StripeHash};
use model::entry::BlockRow;
use model::limits::{PAGE_BLOCKS_MAX, PAGE_BLOCKS_MIN, PAGE_END_BITS};
use zeroize::Zeroizing;

const PAGE_CONTEXT: &str = "holdfast v1 page digest key";
const FILE_CONTEXT: &str = "holdfast v1 file digest key";
const SECRET_CONTEXT: &str = "holdfast v1 secret hash";
const REQUEST_CONTEXT: &str = "holdfast v1 request digest";
/// Bytes of one row in the input of a page's digest: digest and size.
const ROW_BYTES: usize = 32 + 4;

const _: () = assert!(PAGE_BLOCKS_MIN <= PAGE_BLOCKS_MAX, "a page may end before it must");
const _: () = assert!(
    PAGE_END_BITS <= 8,
    "the low bits are looked up in the last byte of a digest"
);

/// Names a block: BLAKE3 of its plaintext, keyed with the drive's digest key.
#[must_use]
pub fn block_digest(key: &DigestKey, plain: &[u8]) -> Digest {
    Digest(*blake3::keyed_hash(key.expose(), plain).as_bytes())
}

/// Names a page: keyed BLAKE3 over its rows in order, each the block's digest and its plain length as 4 big-endian bytes.
#[must_use]
pub fn page_digest(key: &DigestKey, rows: &[BlockRow]) -> Digest {
    let mut input = Vec::with_capacity(rows.len() * ROW_BYTES);
    for row in rows {
        input.extend_from_slice(&row.digest.0);
        input.extend_from_slice(&row.size.to_be_bytes());
    }
    let page_key = Zeroizing::new(blake3::derive_key(PAGE_CONTEXT, key.expose()));
    Digest(*blake3::keyed_hash(&page_key, &input).as_bytes())
}

/// Names a stripe's bytes: plain BLAKE3, since whoever checks it (nodes, repair) holds no keys and the bytes are sealed.
#[must_use]
pub fn stripe_hash(stripe: &[u8]) -> StripeHash {
    StripeHash(*blake3::hash(stripe).as_bytes())
}

/// The form in which a random secret (a token, a link) is stored: a one-way hash that needs no salt, since the secret has
/// at least 128 random bits. Never for passwords.
#[must_use]
pub fn secret_hash(secret: &[u8]) -> [u8; 32] {
    blake3::derive_key(SECRET_CONTEXT, secret)
}

/// The digest of what a request asked, kept with its request id so that another request under the same id is refused.
#[must_use]
pub fn request_digest(request: &[u8]) -> [u8; 32] {
    blake3::derive_key(REQUEST_CONTEXT, request)
}

/// Gathers the digest of a file's content from the digests of its pages, in order.
///
/// The digest of an empty file is that of no pages.
#[derive(Clone)]
pub struct FileDigest(blake3::Hasher);

impl FileDigest {
    /// Starts with no pages.
    #[must_use]
    pub fn new(key: &DigestKey) -> Self {
        let file_key = Zeroizing::new(blake3::derive_key(FILE_CONTEXT, key.expose()));
        Self(blake3::Hasher::new_keyed(&file_key))
    }

    /// Adds the next page's digest.
    pub fn push(&mut self, page: &Digest) {
        self.0.update(&page.0);
    }

    /// The digest of all pages so far.
    #[must_use]
    pub fn finish(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}

/// A complete page of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its name.
    pub digest: Digest,
    /// Its blocks in order, 1 to `PAGE_BLOCKS_MAX`.
    pub rows: Vec<BlockRow>,
}

impl Page {
    /// Bytes of plaintext of all its blocks.
    #[must_use]
    pub fn plain_bytes(&self) -> u64 {
        self.rows.iter().map(|row| u64::from(row.size)).sum()
    }
}

/// Whether a page of `blocks` blocks, counting from 1, ends with the block named `last`.
///
/// It ends at 512 blocks, and from 32 on after a digest whose low 7 bits (of its last byte) are zero: that depends only on
/// the content near the end, so an insertion in front shares all later pages.
#[must_use]
pub fn page_ends(blocks: usize, last: &Digest) -> bool {
    let low_bits = last.0[31] & (u8::MAX >> (8 - PAGE_END_BITS));
    blocks >= PAGE_BLOCKS_MAX || (blocks >= PAGE_BLOCKS_MIN && low_bits == 0)
}

/// Cuts a stream of block rows into pages.
///
/// Pure and streaming: what it holds is at most one page.
pub struct PageCutter<'a> {
    key: &'a DigestKey,
    rows: Vec<BlockRow>,
}

impl<'a> PageCutter<'a> {
    /// Starts an empty page of the drive whose digest key this is.
    #[must_use]
    pub fn new(key: &'a DigestKey) -> Self {
        Self { key, rows: Vec::new() }
    }

    /// Goes on with a page that was begun elsewhere (the open page of an upload session); `rows` has not ended.
    #[must_use]
    pub fn resume(key: &'a DigestKey, rows: Vec<BlockRow>) -> Self {
        Self { key, rows }
    }

    /// Adds the next block of the content; answers the page that it ends.
    pub fn push(&mut self, row: BlockRow) -> Option<Page> {
        self.rows.push(row);
        if page_ends(self.rows.len(), &row.digest) {
            self.finish()
        } else {
            None
        }
    }

    /// The rows of the page that has not ended, in order.
    #[must_use]
    pub fn open_rows(&self) -> &[BlockRow] {
        &self.rows
    }

    /// Ends the content: answers the last page, `None` when the content ended with a page or is empty.
    pub fn finish(&mut self) -> Option<Page> {
        if self.rows.is_empty() {
            return None;
        }
        let rows = std::mem::take(&mut self.rows);
        Some(Page {
            digest: page_digest(self.key, &rows),
            rows,
        })
    }
}
