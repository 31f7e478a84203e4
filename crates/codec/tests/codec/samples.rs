//! Inputs that are the same in every run: bytes that look random, text, a drive and its keys.
//!
//! Not here: expected results.

use bytes::Bytes;
use codec::keys::DriveKey;
use codec::seal::DriveSeal;
use model::id::DriveId;

/// The drive of all tests.
pub(crate) const DRIVE: DriveId = DriveId(0x123_4567_89ab_cdef);

/// `length` bytes that no compressor shortens, the same for the same `seed`.
pub(crate) fn noise(seed: u64, length: usize) -> Bytes {
    let mut bytes = vec![0; length];
    blake3::Hasher::new()
        .update(&seed.to_be_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    Bytes::from(bytes)
}

/// Text of at least 128 KiB: this package's own sources and the model's, as often as needed.
pub(crate) fn sources() -> String {
    [
        include_str!("../../src/cut.rs"),
        include_str!("../../src/digest.rs"),
        include_str!("../../src/erasure.rs"),
        include_str!("../../src/fragment.rs"),
        include_str!("../../src/keys.rs"),
        include_str!("../../src/seal.rs"),
        include_str!("../../../model/src/entry.rs"),
        include_str!("../../../model/src/id.rs"),
        include_str!("../../../model/src/name.rs"),
        include_str!("../../../model/src/cluster.rs"),
        include_str!("../../../model/src/profile.rs"),
        include_str!("../../../model/src/stripe.rs"),
    ]
    .concat()
}

/// A generator that gives 0, 1, 2 and so on: for golden bytes.
pub(crate) fn counting() -> impl FnMut(&mut [u8]) {
    let mut next = 0_u8;
    move |bytes: &mut [u8]| {
        for byte in bytes {
            *byte = next;
            next = next.wrapping_add(1);
        }
    }
}

/// A generator that looks random and is the same for the same `seed`.
pub(crate) fn seeded(seed: u64) -> impl FnMut(&mut [u8]) {
    let mut stream = blake3::Hasher::new()
        .update(b"generator")
        .update(&seed.to_be_bytes())
        .finalize_xof();
    move |bytes: &mut [u8]| stream.fill(bytes)
}

/// The drive's key: bytes 0x40 to 0x5f.
pub(crate) fn drive_key() -> DriveKey {
    DriveKey::new(std::array::from_fn(|at| 0x40 + u8::try_from(at).unwrap()))
}

/// The drive's seal.
pub(crate) fn drive_seal() -> DriveSeal {
    DriveSeal::new(DRIVE, drive_key())
}
