//! Sums of stripe ids, by which two sides compare what they have before they name anything to each other.
//!
//! A sum is how many ids there are and the ids added up modulo 2^128: it does not depend on their order, and sums of parts that have
//! nothing in common add up to the sum of the whole. Ids have 88 random bits, so other ids do not come to the same sum by chance.
//! Invariants: what was added can be taken away again; a cell is one whole placement group or several, whatever the number of them.
//! Not here: who keeps sums (node), who counts them (metadata-raft), who compares (the gateway's collector).

use crate::id::Slot;
use crate::layout::PG_BITS_MIN;
use crate::profile::ProfileId;
use crate::stripe::{FragmentName, StripeId};
use serde::{Deserialize, Serialize};

/// So many leading bits of a stripe's id name its cell. Placement groups have no fewer bits and only ever split, so a cell stays what
/// it is when they do.
pub const CELL_BITS: u8 = 8;
const _: () = assert!(CELL_BITS <= PG_BITS_MIN, "a placement group lies in one cell");

/// How many stripes there are, and their ids added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IdSum {
    /// How many.
    pub count: u64,
    /// Modulo 2^128.
    pub sum: u128,
}

impl IdSum {
    /// The sum of nothing.
    pub const ZERO: Self = Self { count: 0, sum: 0 };

    /// The sum of one stripe.
    #[must_use]
    pub fn of(stripe: StripeId) -> Self {
        Self {
            count: 1,
            sum: stripe.0,
        }
    }

    /// The sum of both, which have no stripe in common.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            count: self.count.wrapping_add(other.count),
            sum: self.sum.wrapping_add(other.sum),
        }
    }

    /// What is left without `other`, which was added before.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self {
            count: self.count.wrapping_sub(other.count),
            sum: self.sum.wrapping_sub(other.sum),
        }
    }
}

/// A part of the fragments of a disk that is compared by one sum: one index of the stripes of a profile and slot whose ids begin with
/// the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CellName {
    /// Whose stripes.
    pub slot: Slot,
    /// Of which profile.
    pub profile: ProfileId,
    /// The first `CELL_BITS` bits of their ids.
    pub leading: u8,
    /// Which of their fragments.
    pub index: u8,
}

impl CellName {
    /// The cell of a fragment.
    #[must_use]
    pub fn of(name: &FragmentName) -> Self {
        Self {
            slot: name.stripe.slot(),
            profile: name.profile,
            leading: leading(name.stripe),
            index: name.index,
        }
    }
}

/// The first `CELL_BITS` bits of a stripe's id.
#[must_use]
pub fn leading(stripe: StripeId) -> u8 {
    let [first, ..] = stripe.to_bytes();
    first
}

#[cfg(test)]
mod tests {
    use super::{CELL_BITS, IdSum, leading};
    use crate::stripe::StripeId;
    use proptest::prelude::{any, proptest};

    fn sum<'a>(ids: impl Iterator<Item = &'a u128>) -> IdSum {
        ids.fold(IdSum::ZERO, |sum, id| sum.plus(IdSum::of(StripeId(*id))))
    }

    proptest! {
        #[test]
        fn sums_do_not_depend_on_order_and_what_was_added_can_be_taken_away(
            ids in proptest::collection::vec(any::<u128>(), 0..20),
            more in any::<u128>(),
        ) {
            let whole = sum(ids.iter());
            assert_eq!(whole, sum(ids.iter().rev()));
            let (front, back) = ids.split_at(ids.len() / 2);
            assert_eq!(whole, sum(front.iter()).plus(sum(back.iter())));
            let added = whole.plus(IdSum::of(StripeId(more)));
            assert_ne!(added, whole);
            assert_eq!(added.minus(IdSum::of(StripeId(more))), whole);
        }

        #[test]
        fn a_placement_group_of_any_size_lies_in_one_cell(id in any::<u128>(), bits in CELL_BITS..=18) {
            let stripe = StripeId(id);
            assert_eq!(u32::from(leading(stripe)), stripe.pg(bits) >> (bits - CELL_BITS));
        }
    }
}
