//! Keys: the cluster's key-encryption key, a drive's key wrapped by it, and what is derived from a drive's key.
//!
//! Place in the picture: only gateways hold these values; a wrapped key is what the metadata keeps (docs/format/sealed.md).
//! Invariants: key bytes are wiped on drop, never shown, never serialised and compared in constant time; every derived key
//! has its own purpose, so no key serves two; random bytes are an argument.
//! Not here: where a KEK lies (`daemon` reads the file, a `KeyProvider` may ask a KMS) and what is sealed with the keys (`seal`).

use crate::cipher::{Cipher, NONCE_BYTES, TAG_BYTES, WipingAes256Gcm};
use model::error_kind::ErrorKind;
use model::id::DriveId;
use std::fmt;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Length of every key in bytes.
pub const KEY_BYTES: usize = 32;
/// Length of a wrapped drive key: version, KEK id, nonce, ciphertext, tag.
pub const WRAPPED_KEY_BYTES: usize = 1 + KEK_ID_BYTES + NONCE_BYTES + KEY_BYTES + TAG_BYTES;

const KEK_ID_BYTES: usize = 8;
const WRAP_VERSION: u8 = 1;
const WRAP_LABEL: &[u8] = b"holdfast v1 drive key";
const KEK_CHECK_CONTEXT: &str = "holdfast v1 kek check value";
const KEK_FILE_WORD: &str = "holdfast-kek-1";

/// Fills a slice with random bytes: the operating system's generator in production, a seeded one only in simulation.
///
/// It has no way to fail: a caller whose generator fails must stop rather than return.
pub type RandomBytes<'a> = dyn FnMut(&mut [u8]) + 'a;

/// Why a key could not be read or unwrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The bytes or the text do not have the form of a key.
    #[error("read key: not in its form")]
    Malformed,
    /// Written by a release that this one does not know.
    #[error("read key: unknown version {0}")]
    UnknownVersion(u8),
    /// The KEK's bytes do not match the check value beside them.
    #[error("read kek: check value differs")]
    CheckFailed,
    /// The drive key was wrapped by another KEK.
    #[error("unwrap drive key: wrapped by kek {named}, given {given}")]
    OtherKek {
        /// The KEK that the wrapped key names.
        named: KekId,
        /// The KEK that was given.
        given: KekId,
    },
    /// The wrapped key was altered or belongs to another drive.
    #[error("unwrap drive key: not authentic")]
    NotAuthentic,
}

impl KeyError {
    /// What it means for the caller: the operator gave something wrong (`Invalid`), or stored bytes are bad (`Corrupt`).
    #[must_use]
    pub fn kind(self) -> ErrorKind {
        match self {
            Self::CheckFailed | Self::OtherKek { .. } => ErrorKind::Invalid,
            Self::Malformed | Self::UnknownVersion(_) | Self::NotAuthentic => ErrorKind::Corrupt,
        }
    }
}

/// The name of a KEK: its check value, so that the name cannot be given to another key by mistake.
///
/// Eight bytes of a one-way derivation: it tells nothing about the key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KekId(pub [u8; KEK_ID_BYTES]);

impl fmt::Display for KekId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for KekId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KekId({self})")
    }
}

/// The cluster's key-encryption key: wraps drive keys and nothing else.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Kek([u8; KEY_BYTES]);

impl Kek {
    /// Takes 32 secret bytes.
    #[must_use]
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// Makes a fresh one.
    #[must_use]
    pub fn generate(random: &mut RandomBytes<'_>) -> Self {
        let mut kek = Self([0; KEY_BYTES]);
        random(&mut kek.0);
        kek
    }

    /// Its name and check value.
    #[must_use]
    pub fn id(&self) -> KekId {
        let derived = Zeroizing::new(blake3::derive_key(KEK_CHECK_CONTEXT, &self.0));
        KekId(std::array::from_fn(|at| derived[at]))
    }

    /// The line of a KEK file: the word `holdfast-kek-1`, the key and the check value in hex, a newline.
    #[must_use]
    pub fn to_file_text(&self) -> Zeroizing<String> {
        let key = Zeroizing::new(hex(&self.0));
        Zeroizing::new(format!("{KEK_FILE_WORD} {} {}\n", key.as_str(), self.id()))
    }

    /// Reads what `to_file_text` wrote; white space around it is ignored.
    ///
    /// Errors: `Malformed`, or `CheckFailed` when key and check value do not belong together.
    pub fn from_file_text(text: &str) -> Result<Self, KeyError> {
        let mut words = text.split_ascii_whitespace();
        let (Some(KEK_FILE_WORD), Some(key), Some(check), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(KeyError::Malformed);
        };
        let kek = Self(unhex(key).ok_or(KeyError::Malformed)?);
        let check: [u8; KEK_ID_BYTES] = unhex(check).ok_or(KeyError::Malformed)?;
        if bool::from(kek.id().0.ct_eq(&check)) {
            Ok(kek)
        } else {
            Err(KeyError::CheckFailed)
        }
    }

    /// Wraps `key` for storing beside `drive`: AES-256-GCM under this KEK, the drive as associated data.
    ///
    /// Nonces are random 96-bit values under one key, so a KEK is to be rotated before 2^32 wraps (NIST SP 800-38D,
    /// section 8.3); a cluster makes one a drive and rotation.
    #[must_use]
    pub fn wrap(&self, drive: DriveId, key: &DriveKey, random: &mut RandomBytes<'_>) -> WrappedKey {
        let mut nonce = [0; NONCE_BYTES];
        random(&mut nonce);
        let mut sealed = key.0;
        let id = self.id();
        let tag = WipingAes256Gcm.encrypt(&self.0, &nonce, &wrap_associated(id, drive), &mut sealed);
        WrappedKey {
            kek: id,
            nonce,
            sealed,
            tag,
        }
    }

    /// Opens what `wrap` made for `drive`.
    ///
    /// Errors: `OtherKek` when another KEK is named, `NotAuthentic` when a byte or the drive differs.
    pub fn unwrap(&self, drive: DriveId, wrapped: &WrappedKey) -> Result<DriveKey, KeyError> {
        let given = self.id();
        if wrapped.kek != given {
            return Err(KeyError::OtherKek {
                named: wrapped.kek,
                given,
            });
        }
        let mut key = DriveKey(wrapped.sealed);
        let associated = wrap_associated(given, drive);
        if WipingAes256Gcm.decrypt(&self.0, &wrapped.nonce, &associated, &mut key.0, &wrapped.tag) {
            Ok(key)
        } else {
            Err(KeyError::NotAuthentic)
        }
    }
}

fn wrap_associated(kek: KekId, drive: DriveId) -> Vec<u8> {
    [WRAP_LABEL, &[WRAP_VERSION], &kek.0, &drive.0.to_be_bytes()].concat()
}

/// A drive key as it is stored: it can be opened only with the KEK that it names and for its own drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedKey {
    kek: KekId,
    nonce: [u8; NONCE_BYTES],
    sealed: [u8; KEY_BYTES],
    tag: [u8; TAG_BYTES],
}

impl WrappedKey {
    /// Which KEK opens it.
    #[must_use]
    pub fn kek(&self) -> KekId {
        self.kek
    }

    /// The stored form, `WRAPPED_KEY_BYTES` long: version, KEK id, nonce, ciphertext, tag.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        [&[WRAP_VERSION][..], &self.kek.0, &self.nonce, &self.sealed, &self.tag].concat()
    }

    /// Reads the stored form.
    ///
    /// Errors: `Malformed` for another length, `UnknownVersion`. Nothing is authenticated before `Kek::unwrap`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let (version, rest) = bytes.split_first().ok_or(KeyError::Malformed)?;
        if *version != WRAP_VERSION {
            return Err(KeyError::UnknownVersion(*version));
        }
        let (kek, rest) = rest.split_first_chunk().ok_or(KeyError::Malformed)?;
        let (nonce, rest) = rest.split_first_chunk().ok_or(KeyError::Malformed)?;
        let (sealed, rest) = rest.split_first_chunk().ok_or(KeyError::Malformed)?;
        let tag = rest.try_into().map_err(|_| KeyError::Malformed)?;
        Ok(Self {
            kek: KekId(*kek),
            nonce: *nonce,
            sealed: *sealed,
            tag,
        })
    }
}

/// What a key is derived for. The number is part of what a sealed form is bound to, so it never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    /// Seals one block; the context is its digest.
    Block = 1,
    /// Seals one tail; the context is its record id.
    Tail = 2,
    /// Names the blocks of a drive; the context is empty.
    Digest = 3,
}

impl Purpose {
    /// The number that is stored and authenticated.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }

    fn context(self) -> &'static str {
        match self {
            Self::Block => "holdfast v1 block key",
            Self::Tail => "holdfast v1 tail key",
            Self::Digest => "holdfast v1 digest key",
        }
    }
}

/// The random key of one drive. Everything sealed in the drive is sealed by a key derived from it.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct DriveKey([u8; KEY_BYTES]);

impl DriveKey {
    /// Takes 32 secret bytes.
    #[must_use]
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// Makes a fresh one.
    #[must_use]
    pub fn generate(random: &mut RandomBytes<'_>) -> Self {
        let mut key = Self([0; KEY_BYTES]);
        random(&mut key.0);
        key
    }

    /// Derives the key for one purpose and context: BLAKE3 in its key derivation mode, a fixed context string a purpose,
    /// over the drive key (32 bytes) followed by `context`. The fixed length of the first part makes the input unambiguous.
    #[must_use]
    pub fn derive(&self, purpose: Purpose, context: &[u8]) -> Zeroizing<[u8; KEY_BYTES]> {
        let mut hasher = blake3::Hasher::new_derive_key(purpose.context());
        hasher.update(&self.0);
        hasher.update(context);
        Zeroizing::new(*hasher.finalize().as_bytes())
    }

    /// The key by which the drive's blocks, pages and contents are named.
    #[must_use]
    pub fn digest_key(&self) -> DigestKey {
        DigestKey(*self.derive(Purpose::Digest, &[]))
    }

    /// Compares in constant time.
    #[must_use]
    pub fn equals(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// The key by which a drive's content is named. Served to whoever reads in the drive by a grant, never by a link.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct DigestKey([u8; KEY_BYTES]);

impl DigestKey {
    /// Takes the bytes that a client was served.
    #[must_use]
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes, for serving them to a client that may have them and for hashing.
    #[must_use]
    pub fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// Compares in constant time.
    #[must_use]
    pub fn equals(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

fn hex(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 16] = b"0123456789abcdef";
    let letter = |nibble: u8| char::from(LETTERS[usize::from(nibble)]);
    bytes
        .iter()
        .flat_map(|byte| [letter(byte >> 4), letter(byte & 15)])
        .collect()
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let letters = text.as_bytes();
    if letters.len() != N * 2 || !letters.iter().all(|letter| matches!(letter, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(letters.chunks_exact(2)) {
        let digit = |letter: u8| {
            if letter <= b'9' {
                letter - b'0'
            } else {
                letter - b'a' + 10
            }
        };
        *byte = (digit(pair[0]) << 4) | digit(pair[1]);
    }
    Some(bytes)
}
