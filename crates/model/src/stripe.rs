//! Names of stripes, fragments and the places of blocks in them.
//!
//! Invariants: a `StripeId` is drawn when its stripe closes and never covers two contents; its leading bits are its placement
//! group, so a placement group is a range of ids.
//! Not here: the bytes of a stripe (`codec::stripe`) and what is known about one (`metadata-raft`).

use crate::base32;
use crate::id::{DiskId, Slot};
use crate::profile::ProfileId;
use crate::time::BirthEpoch;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The length that a stripe of several blocks does not pass, in sealed bytes.
pub const STRIPE_TARGET_BYTES: usize = 4 << 20;
/// The most blocks of one stripe.
pub const STRIPE_BLOCKS_MAX: usize = 1000;
/// No stripe is longer: the largest block, sealed, with room to spare. Checked before allocating.
pub const STRIPE_BYTES_MAX: usize = STRIPE_TARGET_BYTES + (64 << 10);

const SLOT_BITS: u32 = 12;
const EPOCH_BITS: u32 = 28;
const RANDOM_BITS: u32 = 88;
const _: () = assert!(
    SLOT_BITS + EPOCH_BITS + RANDOM_BITS == 128,
    "a stripe id fills 128 bits"
);

/// 88 random bits, the slot and the birth epoch of a stripe.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StripeId(pub u128);

impl StripeId {
    /// Makes an id from 88 bits of `random` (higher ones are dropped).
    #[must_use]
    pub fn new(random: u128, slot: Slot, born: BirthEpoch) -> Self {
        let low = (u128::from(slot.number()) << EPOCH_BITS) | u128::from(born.0 & BirthEpoch::MAX.0);
        Self((random << (SLOT_BITS + EPOCH_BITS)) | low)
    }

    /// The slot whose group knows this stripe.
    #[must_use]
    pub fn slot(self) -> Slot {
        Slot::new(((self.0 >> EPOCH_BITS) & 0xfff) as u16).expect("twelve bits are a slot")
    }

    /// The slot's epoch when the id was drawn.
    #[must_use]
    pub fn born(self) -> BirthEpoch {
        BirthEpoch((self.0 & u128::from(BirthEpoch::MAX.0)) as u32)
    }

    /// The placement group among `2^pg_bits`; `pg_bits` is 1 to 18.
    #[must_use]
    pub fn pg(self, pg_bits: u8) -> u32 {
        (self.0 >> (128 - u32::from(pg_bits))) as u32
    }

    /// Big-endian bytes, ordered as the ids are.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// Reads what `to_bytes` wrote.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

impl fmt::Display for StripeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base32::encode(&self.to_bytes()))
    }
}

impl fmt::Debug for StripeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StripeId({self})")
    }
}

/// Which fragment of which stripe: the key of a place index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FragmentName {
    /// The scheme it was cut by.
    pub profile: ProfileId,
    /// Its stripe.
    pub stripe: StripeId,
    /// 0 to k-1 are data, k to k+m-1 parity.
    pub index: u8,
}

/// What every fragment carries about its stripe; fragments are decoded together only when all of it is equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StripeForm {
    /// Data fragments.
    pub k: u8,
    /// Parity fragments.
    pub m: u8,
    /// Bytes of the stripe, before cutting into fragments.
    pub stripe_bytes: u32,
    /// BLAKE3 of those bytes.
    pub stripe_hash: crate::digest::StripeHash,
}

impl StripeForm {
    /// Bytes of each fragment: the stripe's length over k, rounded up (one when the stripe is empty).
    #[must_use]
    pub fn fragment_bytes(&self) -> usize {
        (self.stripe_bytes as usize).div_ceil(usize::from(self.k.max(1))).max(1)
    }
}

/// A fragment index that is missing (`None`) or lies outside the row, with the disk that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Astray {
    /// Which fragment.
    pub index: u8,
    /// Where it is instead of in the row; `None` when it was not stored.
    pub disk: Option<DiskId>,
}

#[cfg(test)]
mod tests {
    use super::StripeId;
    use crate::id::Slot;
    use crate::time::BirthEpoch;
    use proptest::prelude::{any, proptest};

    proptest! {
        #[test]
        fn the_parts_of_an_id_read_back(random in any::<u128>(), slot in 0_u16..4096, born in 0_u32..(1 << 28)) {
            let id = StripeId::new(random, Slot::new(slot).unwrap(), BirthEpoch(born));
            assert_eq!((id.slot().number(), id.born().0), (slot, born));
            assert_eq!(u128::from(id.pg(8)), (random >> 80) & 0xff);
            assert_eq!(StripeId::from_bytes(id.to_bytes()), id);
        }
    }
}
