//! The two kinds of records of a disk's journal: fragments and tombstones.
//!
//! A fragment's payload is its header (`codec::fragment`), which the journal's checksum covers, and then the bytes, which the
//! header's 64 KiB checksums cover. A tombstone's payload is a version byte and the name in postcard.
//! Not here: record headers, sequences, places (disk::journal).

use super::StoreError;
use bytes::Bytes;
use codec::fragment::FragmentHeader;
use disk::journal::FIRST_USER_KIND;
use disk::{Draft, Record};
use model::stripe::FragmentName;
use protocol::node::PayloadHash;

use super::place_row::Held;

/// Kind of a fragment's record.
pub(crate) const FRAGMENT_KIND: u8 = FIRST_USER_KIND;
/// Kind of a tombstone's record.
pub(crate) const TOMBSTONE_KIND: u8 = FIRST_USER_KIND + 1;
const TOMBSTONE_VERSION: u8 = 1;

/// A fragment to be written; the payload is not copied.
pub(crate) fn fragment_draft(header: &FragmentHeader, payload: Bytes) -> Result<Draft, StoreError> {
    let front = header.to_bytes();
    let header_bytes =
        u32::try_from(front.len()).map_err(|_| StoreError::Bug("fragment header too long".to_owned()))?;
    Ok(Draft {
        kind: FRAGMENT_KIND,
        sequence: None,
        payload: vec![front, payload],
        header_bytes: Some(header_bytes),
    })
}

/// A tombstone to be written.
pub(crate) fn tombstone_draft(name: &FragmentName) -> Result<Draft, StoreError> {
    let mut payload = vec![TOMBSTONE_VERSION];
    payload.extend(postcard::to_stdvec(name).map_err(|error| StoreError::Bug(format!("encode tombstone: {error}")))?);
    Ok(Draft::new(TOMBSTONE_KIND, Bytes::from(payload)))
}

/// What the checked part of a record says; `None` when it is neither kind or does not read.
pub(crate) fn read(kind: u8, checked: &[u8]) -> Option<(FragmentName, Held)> {
    match kind {
        FRAGMENT_KIND => {
            let header = FragmentHeader::read_front(checked).ok()?;
            let payload_hash = PayloadHash(*header.payload_hash());
            Some((
                header.name(),
                Held::Fragment {
                    form: *header.form(),
                    payload_hash,
                },
            ))
        }
        TOMBSTONE_KIND => {
            let (version, name) = checked.split_first()?;
            if *version != TOMBSTONE_VERSION {
                return None;
            }
            match postcard::take_from_bytes(name) {
                Ok((name, [])) => Some((name, Held::Tombstone)),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The same of a record that a visit met.
pub(crate) fn read_record(record: &Record) -> Option<(FragmentName, Held)> {
    read(record.kind, &record.checked)
}

/// Whether the whole payload of a record checks; recovery asks it above the durable mark.
pub(crate) fn is_whole(kind: u8, payload: &Bytes) -> bool {
    match kind {
        FRAGMENT_KIND => FragmentHeader::read_front(payload).is_ok_and(|header| {
            payload
                .get(header.header_bytes()..)
                .is_some_and(|content| header.verify(content).is_ok())
        }),
        _ => read(kind, payload).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::{FRAGMENT_KIND, TOMBSTONE_KIND, is_whole, read, tombstone_draft};
    use crate::store::place_row::Held;
    use bytes::Bytes;
    use model::profile::ProfileId;
    use model::stripe::{FragmentName, StripeId};
    use proptest::prelude::{any, proptest};

    proptest! {
        /// shows: F42
        #[test]
        fn arbitrary_payloads_never_panic(kind in FRAGMENT_KIND..TOMBSTONE_KIND + 2, bytes in any::<Vec<u8>>()) {
            let _ = read(kind, &bytes);
            let _ = is_whole(kind, &Bytes::from(bytes));
        }
    }

    #[test]
    fn a_tombstone_reads_back_and_not_with_bytes_behind_it() {
        let name = FragmentName {
            profile: ProfileId::Dev,
            stripe: StripeId(77),
            index: 5,
        };
        let payload = tombstone_draft(&name).unwrap().payload[0].clone();
        assert_eq!(read(TOMBSTONE_KIND, &payload), Some((name, Held::Tombstone)));
        let longer = [&payload[..], b"x"].concat();
        assert_eq!(read(TOMBSTONE_KIND, &longer), None);
    }
}
