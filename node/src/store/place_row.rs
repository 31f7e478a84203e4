//! Rows of the place index: their keys and values (docs/format/place-index.md).
//!
//! Invariants: keys of fragments are ordered by (profile, StripeId, fragment index), so a placement group is a range of them;
//! values are versioned. All of it can be rebuilt from the segments, except the rows of layouts, which are asked for again.
//! Not here: when a row is written (`core`).

use super::StoreError;
use bytes::Bytes;
use disk::{Place, Position, SegmentNumber};
use model::layout::Row;
use model::profile::ProfileId;
use model::stripe::{FragmentName, StripeForm, StripeId};
use protocol::node::{Damage, PayloadHash};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

const FRAGMENT: u8 = b'F';
const DAMAGED: u8 = b'D';
const SEGMENT: u8 = b'S';
const LAYOUT_ROW: u8 = b'R';
const NAME_BYTES: usize = 1 + 16 + 1;

/// The key of the checkpoint.
pub(crate) const CHECKPOINT_KEY: &[u8] = b"C";

/// What the newest record of a name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Held {
    /// The fragment is there.
    Fragment {
        /// What it says of its stripe.
        form: StripeForm,
        /// BLAKE3 of its payload.
        payload_hash: PayloadHash,
    },
    /// It was removed.
    Tombstone,
}

/// Where the newest record of a name lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlaceRow {
    /// The record.
    pub(crate) place: Place,
    /// Its sequence, which a copy keeps.
    pub(crate) sequence: u64,
    /// What it says.
    pub(crate) held: Held,
}

impl PlaceRow {
    /// Whether the fragment is there.
    pub(crate) fn is_fragment(&self) -> bool {
        matches!(self.held, Held::Fragment { .. })
    }
}

/// What is known of all records of a segment, dead ones too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SegmentRow {
    /// The lowest sequence in it: a tombstone with a higher one may still be needed.
    pub(crate) sequence_min: u64,
    /// Bytes of all of them with their headers, without padding.
    pub(crate) record_bytes: u64,
}

/// The point before which every record is in the index, and the next sequence at that point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    /// Replay begins here; synced before the row was written.
    pub(crate) position: Position,
}

/// A row of a layout, as the node took it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayoutRow {
    /// The table has `2^pg_bits` rows.
    pub(crate) pg_bits: u8,
    /// The row.
    pub(crate) row: Row,
}

/// Every value is one of these: the number before it is the version of its form.
#[derive(Serialize, Deserialize)]
enum Versioned<T> {
    V1(T),
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Bytes, StoreError> {
    postcard::to_stdvec(&Versioned::V1(value))
        .map(Bytes::from)
        .map_err(|error| StoreError::Bug(format!("encode index row: {error}")))
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    match postcard::take_from_bytes(bytes) {
        Ok((Versioned::V1(value), [])) => Ok(value),
        Ok(_) => Err(StoreError::IndexDamaged("row has bytes behind its end".to_owned())),
        Err(error) => Err(StoreError::IndexDamaged(format!("row: {error}"))),
    }
}

fn name_bytes(tag: u8, name: &FragmentName) -> Bytes {
    let mut key = Vec::with_capacity(1 + NAME_BYTES);
    key.push(tag);
    key.push(name.profile.number());
    key.extend_from_slice(&name.stripe.to_bytes());
    key.push(name.index);
    Bytes::from(key)
}

/// Reads the name back from a key of `fragment_key` or `damaged_key`; `None` when it is none.
pub(crate) fn name_of(key: &[u8]) -> Option<FragmentName> {
    let name: &[u8; NAME_BYTES] = key.get(1..)?.try_into().ok()?;
    let stripe: [u8; 16] = name[1..17].try_into().ok()?;
    Some(FragmentName {
        profile: ProfileId::from_number(name[0])?,
        stripe: StripeId::from_bytes(stripe),
        index: name[17],
    })
}

pub(crate) fn fragment_key(name: &FragmentName) -> Bytes {
    name_bytes(FRAGMENT, name)
}

/// The beginning of the keys of all fragments of a stripe.
pub(crate) fn stripe_prefix(profile: ProfileId, stripe: StripeId) -> Bytes {
    let whole = fragment_key(&FragmentName {
        profile,
        stripe,
        index: 0,
    });
    whole.slice(..whole.len() - 1)
}

pub(crate) fn fragment_prefix() -> &'static [u8] {
    &[FRAGMENT]
}

/// The beginning of the keys of all fragments of a profile's stripes whose ids begin with these bits.
pub(crate) fn leading_prefix(profile: ProfileId, leading: u8) -> [u8; 3] {
    [FRAGMENT, profile.number(), leading]
}

pub(crate) fn damaged_key(name: &FragmentName) -> Bytes {
    name_bytes(DAMAGED, name)
}

pub(crate) fn damaged_prefix() -> &'static [u8] {
    &[DAMAGED]
}

pub(crate) fn segment_key(segment: SegmentNumber) -> Bytes {
    let mut key = vec![SEGMENT];
    key.extend_from_slice(&segment.0.to_be_bytes());
    Bytes::from(key)
}

pub(crate) fn segment_prefix() -> &'static [u8] {
    &[SEGMENT]
}

/// Reads the number back from a key of `segment_key`.
pub(crate) fn segment_of(key: &[u8]) -> Option<SegmentNumber> {
    Some(SegmentNumber(u64::from_be_bytes(key.get(1..)?.try_into().ok()?)))
}

pub(crate) fn layout_row_key(profile: ProfileId, pg: u32) -> Bytes {
    let mut key = vec![LAYOUT_ROW, profile.number()];
    key.extend_from_slice(&pg.to_be_bytes());
    Bytes::from(key)
}

/// The beginning of the keys of a profile's layout rows.
pub(crate) fn layout_prefix(profile: ProfileId) -> Bytes {
    Bytes::from(vec![LAYOUT_ROW, profile.number()])
}

/// Reads the placement group back from a key of `layout_row_key`.
pub(crate) fn pg_of(key: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(key.get(2..)?.try_into().ok()?))
}

/// A damage as it is listed; kept as one byte so that the list survives changes of the enum's order.
pub(crate) fn encode_damage(damage: Damage) -> Bytes {
    Bytes::from_static(match damage {
        Damage::Header => b"\x01",
        Damage::Payload => b"\x02",
        Damage::Unreadable => b"\x03",
    })
}

pub(crate) fn decode_damage(bytes: &[u8]) -> Result<Damage, StoreError> {
    match bytes {
        [1] => Ok(Damage::Header),
        [2] => Ok(Damage::Payload),
        [3] => Ok(Damage::Unreadable),
        _ => Err(StoreError::IndexDamaged("row of the damaged list".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::{Held, PlaceRow, decode, encode, fragment_key, name_of, stripe_prefix};
    use disk::{Place, SegmentNumber};
    use model::digest::StripeHash;
    use model::profile::ProfileId;
    use model::stripe::{FragmentName, StripeForm, StripeId};
    use proptest::prelude::{any, proptest};
    use protocol::node::PayloadHash;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    proptest! {
        #[test]
        fn keys_read_back_and_are_ordered_as_names_are(first in any::<(u128, u8)>(), second in any::<(u128, u8)>()) {
            let name = |(stripe, index)| FragmentName { profile: ProfileId::Dev, stripe: StripeId(stripe), index };
            let (first, second) = (name(first), name(second));
            assert_eq!(name_of(&fragment_key(&first)), Some(first));
            assert_eq!(fragment_key(&first).cmp(&fragment_key(&second)), first.cmp(&second));
            assert!(fragment_key(&first).starts_with(&stripe_prefix(first.profile, first.stripe)));
        }

        /// shows: F42
        #[test]
        fn arbitrary_bytes_never_panic(bytes in any::<Vec<u8>>()) {
            let _ = decode::<PlaceRow>(&bytes);
            let _ = name_of(&bytes);
        }
    }

    /// The worked example of docs/format/place-index.md.
    #[test]
    fn golden_bytes_of_a_place() {
        let row = PlaceRow {
            place: Place {
                segment: SegmentNumber(3),
                offset: 4096,
                len_bytes: 300,
            },
            sequence: 7,
            held: Held::Fragment {
                form: StripeForm {
                    k: 4,
                    m: 2,
                    stripe_bytes: 1000,
                    stripe_hash: StripeHash([0xab; 32]),
                },
                payload_hash: PayloadHash([0xcd; 32]),
            },
        };
        let expected = format!("0003802 0ac0207000402e807{}{}", "ab".repeat(32), "cd".repeat(32)).replace(' ', "");
        assert_eq!(hex(&encode(&row).unwrap()), expected);
        assert_eq!(decode::<PlaceRow>(&encode(&row).unwrap()).unwrap(), row);
    }
}
