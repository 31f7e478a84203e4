//! Keys: wrapping, the KEK's file, and that derived keys differ.

use crate::samples::{DRIVE, drive_key, seeded};
use codec::keys::{DriveKey, Kek, KeyError, Purpose, WRAPPED_KEY_BYTES, WrappedKey};
use model::error_kind::ErrorKind;
use model::id::DriveId;

#[test]
fn a_wrapped_key_opens_with_its_kek_for_its_drive_only() {
    let kek = Kek::generate(&mut seeded(1));
    let other = Kek::generate(&mut seeded(2));
    let wrapped = kek.wrap(DRIVE, &drive_key(), &mut seeded(3));
    assert!(kek.unwrap(DRIVE, &wrapped).unwrap().equals(&drive_key()));
    assert_eq!(
        kek.unwrap(DriveId(DRIVE.0 + 1), &wrapped).err(),
        Some(KeyError::NotAuthentic)
    );
    let error = other.unwrap(DRIVE, &wrapped).err().unwrap();
    assert_eq!(
        error,
        KeyError::OtherKek {
            named: kek.id(),
            given: other.id()
        }
    );
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[test]
fn a_wrapped_key_with_any_byte_altered_is_refused() {
    let kek = Kek::generate(&mut seeded(1));
    let stored = kek.wrap(DRIVE, &drive_key(), &mut seeded(3)).to_bytes();
    assert_eq!(stored.len(), WRAPPED_KEY_BYTES);
    assert!(kek.unwrap(DRIVE, &WrappedKey::from_bytes(&stored).unwrap()).is_ok());
    for at in 0..stored.len() {
        for bit in 0..8 {
            let mut altered = stored.clone();
            altered[at] ^= 1 << bit;
            let opened = WrappedKey::from_bytes(&altered).and_then(|wrapped| kek.unwrap(DRIVE, &wrapped));
            assert!(opened.is_err(), "byte {at}, bit {bit}");
        }
    }
    assert_eq!(
        WrappedKey::from_bytes(&stored[1..]).err(),
        Some(KeyError::UnknownVersion(stored[1]))
    );
    assert_eq!(WrappedKey::from_bytes(&stored[..68]).err(), Some(KeyError::Malformed));
    assert_eq!(
        WrappedKey::from_bytes(&[&stored[..], &[0]].concat()).err(),
        Some(KeyError::Malformed)
    );
}

#[test]
fn a_kek_file_reads_back_and_a_wrong_one_is_refused() {
    let kek = Kek::generate(&mut seeded(7));
    let text = kek.to_file_text();
    assert_eq!(Kek::from_file_text(&text).unwrap().id(), kek.id());
    let other = Kek::generate(&mut seeded(8)).to_file_text();
    let mixed = format!(
        "{} {}",
        text.rsplit_once(' ').unwrap().0,
        other.rsplit_once(' ').unwrap().1
    );
    assert_eq!(Kek::from_file_text(&mixed).err(), Some(KeyError::CheckFailed));
    for bad in [
        "",
        "holdfast-kek-1",
        &text.to_uppercase(),
        &text[1..],
        &format!("{} x", text.as_str()),
    ] {
        assert_eq!(Kek::from_file_text(bad).err(), Some(KeyError::Malformed), "{bad:?}");
    }
}

#[test]
fn derived_keys_differ_by_drive_key_purpose_and_context() {
    let contexts: [&[u8]; 4] = [b"", b"a", b"b", b"aa"];
    let mut derived = Vec::new();
    for key in [drive_key(), DriveKey::new([1; 32])] {
        for purpose in [Purpose::Block, Purpose::Tail, Purpose::Digest] {
            derived.extend(contexts.map(|context| *key.derive(purpose, context)));
        }
    }
    let all = derived.len();
    derived.sort_unstable();
    derived.dedup();
    assert_eq!(derived.len(), all);
}
