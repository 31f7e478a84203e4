//! The header that lies in front of a fragment's bytes on a disk, and the checks that it allows (docs/format/fragment.md).
//!
//! Place in the picture: the fragment store writes header and payload as one journal record, whose payload checksum covers the
//! header only; the checksums in the header cover the rest.
//! Invariants: a header that decodes has a known profile, that profile's k and m, an index below k+m and a stripe no longer than
//! any; lengths are derived from these, never stored twice. Integers are big-endian.
//! Not here: the journal's record (`disk`), where fragments lie (`node`), and whether fragments belong together: `erasure` decides
//! that by the stripe's hash.

use bytes::Bytes;
use model::digest::StripeHash;
use model::error_kind::ErrorKind;
use model::profile::ProfileId;
use model::stripe::{FragmentName, STRIPE_BYTES_MAX, StripeForm, StripeId};
use std::ops::Range;

/// Payload bytes under one checksum: what a range read reads at least, and at most beside what was asked.
pub const CHECKED_BYTES: usize = 64 << 10;
/// Bytes of a header before its checksums.
pub const FIXED_HEADER_BYTES: usize = 4 + 1 + 1 + 16 + 1 + 1 + 1 + 4 + 32 + 32;

const MAGIC: [u8; 4] = *b"HFfr";
const VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = 4;

/// Why a header or a payload was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FragmentError {
    /// Too short for a header, or without its magic.
    #[error("read fragment header: not in its form")]
    Malformed,
    /// Written by a release that this one does not know, or damaged.
    #[error("read fragment header: unknown version {0}")]
    UnknownVersion(u8),
    /// A field contradicts the profile or a limit.
    #[error("read fragment header: fields contradict each other")]
    Contradiction,
    /// The payload has another length than the header says.
    #[error("check fragment: {given} payload bytes, not {expected}")]
    WrongLength {
        /// Bytes given.
        given: usize,
        /// Bytes expected.
        expected: usize,
    },
    /// A checked range does not begin or end at the edge of a checksum.
    #[error("check fragment: range {first}..{end} does not lie on checksum edges")]
    Unaligned {
        /// First byte.
        first: usize,
        /// One past the last byte.
        end: usize,
    },
    /// The bytes under a checksum differ from what was written.
    #[error("check fragment: damage in the 64 KiB from {offset}")]
    Damaged {
        /// First payload byte under the checksum that failed.
        offset: usize,
    },
    /// All checksums are right and the payload's hash is not: forged, or damaged beyond what a checksum sees.
    #[error("check fragment: payload hash differs")]
    OtherPayload,
}

impl FragmentError {
    /// What it means for the caller: a wrong range is our own fault, everything else is damage.
    #[must_use]
    pub fn kind(self) -> ErrorKind {
        match self {
            Self::Unaligned { .. } => ErrorKind::Bug,
            _ => ErrorKind::Corrupt,
        }
    }
}

/// What a disk knows about a fragment without anybody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FragmentHeader {
    name: FragmentName,
    form: StripeForm,
    payload_hash: [u8; 32],
    checksums: Vec<u32>,
}

impl FragmentHeader {
    /// Makes the header of `payload`, the fragment `name` of a stripe of `form`: checksums and hash in one pass over it.
    ///
    /// Errors: `Contradiction` when name and form do not fit each other, `WrongLength` when the payload does not fit the form.
    pub fn describe(name: FragmentName, form: StripeForm, payload: &[u8]) -> Result<Self, FragmentError> {
        check_form(&name, &form)?;
        let expected = form.fragment_bytes();
        if payload.len() != expected {
            return Err(FragmentError::WrongLength {
                given: payload.len(),
                expected,
            });
        }
        let mut hasher = blake3::Hasher::new();
        let mut checksums = Vec::with_capacity(expected.div_ceil(CHECKED_BYTES));
        for piece in payload.chunks(CHECKED_BYTES) {
            checksums.push(crc32c::crc32c(piece));
            hasher.update(piece);
        }
        Ok(Self {
            name,
            form,
            payload_hash: *hasher.finalize().as_bytes(),
            checksums,
        })
    }

    /// Which fragment it is.
    #[must_use]
    pub fn name(&self) -> FragmentName {
        self.name
    }

    /// The stripe's lengths, scheme and hash.
    #[must_use]
    pub fn form(&self) -> &StripeForm {
        &self.form
    }

    /// Plain BLAKE3 of the payload. Two fragments of one name are the same when stripe hash and this are equal.
    #[must_use]
    pub fn payload_hash(&self) -> &[u8; 32] {
        &self.payload_hash
    }

    /// Bytes of the payload.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.form.fragment_bytes()
    }

    /// Bytes of this header as it is stored.
    #[must_use]
    pub fn header_bytes(&self) -> usize {
        FIXED_HEADER_BYTES + self.checksums.len() * CHECKSUM_BYTES
    }

    /// The stored form.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(self.header_bytes());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[VERSION, self.name.profile.number()]);
        bytes.extend_from_slice(&self.name.stripe.to_bytes());
        bytes.extend_from_slice(&[self.name.index, self.form.k, self.form.m]);
        bytes.extend_from_slice(&self.form.stripe_bytes.to_be_bytes());
        bytes.extend_from_slice(&self.form.stripe_hash.0);
        bytes.extend_from_slice(&self.payload_hash);
        for checksum in &self.checksums {
            bytes.extend_from_slice(&checksum.to_be_bytes());
        }
        Bytes::from(bytes)
    }

    /// Reads the header at the front of `bytes`; `header_bytes` says where the payload begins.
    ///
    /// Whether the header itself is undamaged is for the journal's checksum to say.
    /// Errors: `Malformed` (too short, no magic), `UnknownVersion`, `Contradiction`.
    pub fn read_front(bytes: &[u8]) -> Result<Self, FragmentError> {
        let malformed = FragmentError::Malformed;
        let (magic, rest) = bytes.split_first_chunk::<4>().ok_or(malformed)?;
        if *magic != MAGIC {
            return Err(malformed);
        }
        let ([version, profile], rest) = rest.split_first_chunk().ok_or(malformed)?;
        if *version != VERSION {
            return Err(FragmentError::UnknownVersion(*version));
        }
        let (stripe, rest) = rest.split_first_chunk::<16>().ok_or(malformed)?;
        let ([index, k, m], rest) = rest.split_first_chunk().ok_or(malformed)?;
        let (stripe_bytes, rest) = rest.split_first_chunk::<4>().ok_or(malformed)?;
        let (stripe_hash, rest) = rest.split_first_chunk::<32>().ok_or(malformed)?;
        let (payload_hash, rest) = rest.split_first_chunk::<32>().ok_or(malformed)?;
        let profile = ProfileId::from_number(*profile).ok_or(FragmentError::Contradiction)?;
        let name = FragmentName {
            profile,
            stripe: StripeId::from_bytes(*stripe),
            index: *index,
        };
        let stripe_bytes = u32::from_be_bytes(*stripe_bytes);
        let form = StripeForm {
            k: *k,
            m: *m,
            stripe_bytes,
            stripe_hash: StripeHash(*stripe_hash),
        };
        check_form(&name, &form)?;
        let checksums_bytes = form.fragment_bytes().div_ceil(CHECKED_BYTES) * CHECKSUM_BYTES;
        let (words, _) = rest
            .get(..checksums_bytes)
            .ok_or(malformed)?
            .as_chunks::<CHECKSUM_BYTES>();
        let checksums = words.iter().map(|word| u32::from_be_bytes(*word)).collect();
        Ok(Self {
            name,
            form,
            payload_hash: *payload_hash,
            checksums,
        })
    }

    /// Reads a header that fills `bytes` exactly.
    ///
    /// Errors: those of `read_front`, and `Malformed` when bytes are left over.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FragmentError> {
        let header = Self::read_front(bytes)?;
        if header.header_bytes() == bytes.len() {
            Ok(header)
        } else {
            Err(FragmentError::Malformed)
        }
    }

    /// The smallest range of the payload that covers `wanted` and can be checked; empty when `wanted` lies beyond the end.
    #[must_use]
    pub fn checked_range(&self, wanted: Range<usize>) -> Range<usize> {
        let length = self.payload_bytes();
        let end = wanted.end.min(length);
        if wanted.start >= end {
            return 0..0;
        }
        wanted.start / CHECKED_BYTES * CHECKED_BYTES..end.next_multiple_of(CHECKED_BYTES).min(length)
    }

    /// Checks that `bytes` are what was written at `range` of the payload, `range` being a `checked_range`.
    ///
    /// Errors: `Unaligned`, `WrongLength`, `Damaged` with the first damaged place.
    pub fn verify_range(&self, range: Range<usize>, bytes: &[u8]) -> Result<(), FragmentError> {
        let length = self.payload_bytes();
        let ends_on_edge = range.end == length || range.end.is_multiple_of(CHECKED_BYTES);
        if !range.start.is_multiple_of(CHECKED_BYTES) || !ends_on_edge || range.start > range.end || range.end > length
        {
            return Err(FragmentError::Unaligned {
                first: range.start,
                end: range.end,
            });
        }
        if bytes.len() != range.len() {
            return Err(FragmentError::WrongLength {
                given: bytes.len(),
                expected: range.len(),
            });
        }
        let first = range.start / CHECKED_BYTES;
        for (place, (piece, checksum)) in bytes.chunks(CHECKED_BYTES).zip(&self.checksums[first..]).enumerate() {
            if crc32c::crc32c(piece) != *checksum {
                return Err(FragmentError::Damaged {
                    offset: (first + place) * CHECKED_BYTES,
                });
            }
        }
        Ok(())
    }

    /// Checks the whole payload: every checksum, then the hash.
    ///
    /// Errors: `WrongLength`, `Damaged`, `OtherPayload`. Cost: two passes, of 10 and more GB/s.
    pub fn verify(&self, payload: &[u8]) -> Result<(), FragmentError> {
        self.verify_range(0..self.payload_bytes(), payload)?;
        if blake3::hash(payload) == self.payload_hash {
            Ok(())
        } else {
            Err(FragmentError::OtherPayload)
        }
    }
}

/// Checks that name, profile and form belong together and that every length derived from them is bounded.
fn check_form(name: &FragmentName, form: &StripeForm) -> Result<(), FragmentError> {
    let profile = name.profile.profile();
    let fits_profile = form.k == profile.k && form.m == profile.m && usize::from(name.index) < profile.fragments();
    if fits_profile && form.stripe_bytes as usize <= STRIPE_BYTES_MAX {
        Ok(())
    } else {
        Err(FragmentError::Contradiction)
    }
}
