//! The one sealed form, for blocks (inline ones too) and tails: docs/format/sealed.md.
//!
//! Format byte, compression byte, random 96-bit nonce, ciphertext, tag. The key is derived from the drive's key for one purpose
//! and one digest (a tail: one random record id), and the seal is bound to form, drive, purpose and plain length.
//! Invariants: no (key, nonce) pair covers two plaintexts. A key serves one plaintext, since a digest names one and a record
//! id is drawn anew by each `seal_tail`; the nonce is random besides, which covers the one case in which a plaintext has
//! two encodings (a release that compresses otherwise). A sealed block does not depend on where it lies.
//! Not here: stripes and places; nodes, repair and the metadata never open a seal.

use crate::cipher::{Aes256Gcm, Cipher, NONCE_BYTES, TAG_BYTES};
use crate::compress::{Compression, compress, decompress};
use crate::digest::block_digest;
use crate::keys::{DigestKey, DriveKey, Purpose, RandomBytes};
use bytes::Bytes;
use model::digest::Digest;
use model::entry::BlockRow;
use model::error_kind::ErrorKind;
use model::id::DriveId;
use model::limits::BLOCK_BYTES_MAX;
use model::stripe::STRIPE_BYTES_MAX;
use std::fmt;
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// What sealing adds to the bytes at most: format, compression, nonce, tag.
pub const SEAL_BYTES: usize = 2 + NONCE_BYTES + TAG_BYTES;

const FORMAT: u8 = 1;
const HEAD_BYTES: usize = 2 + NONCE_BYTES;
const ASSOCIATED_BYTES: usize = 1 + 1 + 8 + 1 + 4;
const _: () = assert!(
    BLOCK_BYTES_MAX + SEAL_BYTES <= STRIPE_BYTES_MAX,
    "the longest block fits a stripe, sealed"
);

/// Why sealed bytes could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// More plain bytes are declared than a block may have; nothing was allocated.
    #[error("open seal: {plain_bytes} plain bytes declared, {BLOCK_BYTES_MAX} allowed")]
    TooLarge {
        /// What was declared.
        plain_bytes: u32,
    },
    /// Shorter than a seal, or of a length that cannot hold the declared plain bytes.
    #[error("open seal: {sealed_bytes} sealed bytes cannot hold {plain_bytes} plain bytes")]
    Malformed {
        /// Bytes that were given.
        sealed_bytes: usize,
        /// What was declared.
        plain_bytes: u32,
    },
    /// Written by a release that this one does not know, or damaged.
    #[error("open seal: unknown format {0}")]
    UnknownFormat(u8),
    /// Compressed in a way that this release does not know, or damaged.
    #[error("open seal: unknown compression {0}")]
    UnknownCompression(u8),
    /// A byte was altered, or it is the seal of another block, drive, purpose or length.
    #[error("open seal: not authentic")]
    NotAuthentic,
    /// The seal is right and the compressed bytes in it do not give the declared length.
    #[error("open seal: compressed bytes do not give their declared length")]
    BadCompression,
    /// The seal is right and the plaintext has another name: it was sealed under a wrong digest.
    #[error("open seal: content is not {expected:?}")]
    OtherContent {
        /// The digest that was asked for.
        expected: Digest,
    },
}

impl SealError {
    /// What it means for the caller.
    #[must_use]
    pub fn kind(self) -> ErrorKind {
        match self {
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            _ => ErrorKind::Corrupt,
        }
    }
}

/// The random name of one tail's seal, kept in its session. Drawn by `seal_tail` and never given by a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct RecordId(pub [u8; 16]);

/// Seals and opens what lies in one drive. Gateways keep one for each drive in use; it holds the drive's keys.
pub struct DriveSeal {
    drive: DriveId,
    key: DriveKey,
    digest_key: DigestKey,
    cipher: Arc<dyn Cipher>,
}

impl fmt::Debug for DriveSeal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DriveSeal")
            .field("drive", &self.drive)
            .finish_non_exhaustive()
    }
}

impl DriveSeal {
    /// Seals with AES-256-GCM under keys derived from `key`, the key of `drive`.
    #[must_use]
    pub fn new(drive: DriveId, key: DriveKey) -> Self {
        Self::with_cipher(drive, key, Arc::new(Aes256Gcm))
    }

    /// As `new`, over another cipher: for tests that plant a bad one.
    #[must_use]
    pub fn with_cipher(drive: DriveId, key: DriveKey, cipher: Arc<dyn Cipher>) -> Self {
        let digest_key = key.digest_key();
        Self {
            drive,
            key,
            digest_key,
            cipher,
        }
    }

    /// The drive that it belongs to.
    #[must_use]
    pub fn drive(&self) -> DriveId {
        self.drive
    }

    /// The key by which the drive's content is named.
    #[must_use]
    pub fn digest_key(&self) -> &DigestKey {
        &self.digest_key
    }

    /// Names a block of this drive by its plaintext.
    #[must_use]
    pub fn digest(&self, plain: &[u8]) -> Digest {
        block_digest(&self.digest_key, plain)
    }

    /// Seals a block named `digest`, compressed when that pays. The answer is at most `SEAL_BYTES` longer than `plain`.
    ///
    /// `digest` must be the block's own (`DriveSeal::digest`): under another name it can never be opened. Panics when
    /// `plain` is longer than `BLOCK_BYTES_MAX`, which no cutter gives.
    #[must_use]
    pub fn seal_block(&self, digest: &Digest, plain: &[u8], random: &mut RandomBytes<'_>) -> Bytes {
        self.seal(Purpose::Block, &digest.0, plain, random)
    }

    /// Opens a block and compares its digest and length with `row`.
    ///
    /// Errors: every `SealError`. Allocates at most the sealed and the plain length, after both were checked.
    pub fn open_block(&self, row: &BlockRow, sealed: &[u8]) -> Result<Bytes, SealError> {
        let plain = self.open(Purpose::Block, &row.digest.0, row.size, sealed)?;
        if bool::from(self.digest(&plain).0.ct_eq(&row.digest.0)) {
            Ok(plain)
        } else {
            Err(SealError::OtherContent { expected: row.digest })
        }
    }

    /// Seals the uncut end of an upload; answers its fresh record id with it.
    ///
    /// Panics when `plain` is longer than `BLOCK_BYTES_MAX`: the cutter holds less.
    #[must_use]
    pub fn seal_tail(&self, plain: &[u8], random: &mut RandomBytes<'_>) -> (RecordId, Bytes) {
        let mut record = RecordId([0; 16]);
        random(&mut record.0);
        let sealed = self.seal(Purpose::Tail, &record.0, plain, random);
        (record, sealed)
    }

    /// Opens a tail of `plain_bytes` plain bytes.
    ///
    /// Errors: every `SealError` except `OtherContent`.
    pub fn open_tail(&self, record: &RecordId, plain_bytes: u32, sealed: &[u8]) -> Result<Bytes, SealError> {
        self.open(Purpose::Tail, &record.0, plain_bytes, sealed)
    }

    fn seal(&self, purpose: Purpose, context: &[u8], plain: &[u8], random: &mut RandomBytes<'_>) -> Bytes {
        assert!(
            plain.len() <= BLOCK_BYTES_MAX,
            "a sealed plaintext is at most one block long"
        );
        let plain_bytes = u32::try_from(plain.len()).expect("a block's length fits 32 bits");
        let compressed = compress(plain);
        let (compression, body) = match &compressed {
            Some(bytes) => (Compression::Zstd, bytes.as_slice()),
            None => (Compression::Raw, plain),
        };
        let mut nonce = [0; NONCE_BYTES];
        random(&mut nonce);
        let mut sealed = Vec::with_capacity(body.len() + SEAL_BYTES);
        sealed.extend_from_slice(&[FORMAT, compression.number()]);
        sealed.extend_from_slice(&nonce);
        // The one copy: the cipher works in place, and the plaintext is still wanted.
        sealed.extend_from_slice(body);
        let key = self.key.derive(purpose, context);
        let associated = self.associated(compression, purpose, plain_bytes);
        let tag = self
            .cipher
            .encrypt(&key, &nonce, &associated, &mut sealed[HEAD_BYTES..]);
        sealed.extend_from_slice(&tag);
        Bytes::from(sealed)
    }

    fn open(&self, purpose: Purpose, context: &[u8], plain_bytes: u32, sealed: &[u8]) -> Result<Bytes, SealError> {
        let plain_len = plain_bytes as usize;
        if plain_len > BLOCK_BYTES_MAX {
            return Err(SealError::TooLarge { plain_bytes });
        }
        let malformed = SealError::Malformed {
            sealed_bytes: sealed.len(),
            plain_bytes,
        };
        let ([format, compression], rest) = sealed.split_first_chunk().ok_or(malformed)?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(malformed)?;
        let (body, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or(malformed)?;
        if *format != FORMAT {
            return Err(SealError::UnknownFormat(*format));
        }
        let compression = Compression::from_number(*compression).ok_or(SealError::UnknownCompression(*compression))?;
        let fits = match compression {
            Compression::Raw => body.len() == plain_len,
            Compression::Zstd => body.len() < plain_len,
        };
        if !fits {
            return Err(malformed);
        }
        let key = self.key.derive(purpose, context);
        let associated = self.associated(compression, purpose, plain_bytes);
        // The one copy: what is sealed belongs to a run of blocks that others still read.
        let mut opened = body.to_vec();
        if !self.cipher.decrypt(&key, nonce, &associated, &mut opened, tag) {
            return Err(SealError::NotAuthentic);
        }
        match compression {
            Compression::Raw => Ok(Bytes::from(opened)),
            Compression::Zstd => decompress(&opened, plain_len)
                .map(Bytes::from)
                .ok_or(SealError::BadCompression),
        }
    }

    fn associated(&self, compression: Compression, purpose: Purpose, plain_bytes: u32) -> [u8; ASSOCIATED_BYTES] {
        let mut associated = [0; ASSOCIATED_BYTES];
        associated[0] = FORMAT;
        associated[1] = compression.number();
        associated[2..10].copy_from_slice(&self.drive.0.to_be_bytes());
        associated[10] = purpose.number();
        associated[11..].copy_from_slice(&plain_bytes.to_be_bytes());
        associated
    }
}
