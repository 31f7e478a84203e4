//! Any text where a name, a path or an id is expected: taken or refused, never a panic; what is taken reads back the same.

use model::base32;
use model::id::{DriveId, EntryId, UploadId, UserId};
use model::name::{DrivePath, EntryName, Username};
use model::process::Role;
use model::profile::ProfileId;
use proptest::prelude::{any, prop, proptest};

fn check(text: &str) {
    if let Ok(name) = EntryName::new(text) {
        assert_eq!(name.as_str(), text);
    }
    if let Ok(path) = DrivePath::parse(text) {
        assert!(path.names().len() <= text.len());
    }
    if let Ok(name) = Username::new(text) {
        assert_eq!(Username::new(name.as_str()).as_ref(), Ok(&name));
    }
    if let Some(id) = EntryId::parse(text) {
        assert_eq!(EntryId::parse(&id.to_string()), Some(id));
    }
    if let Some(id) = UserId::parse(text) {
        assert_eq!(UserId::parse(&id.to_string()), Some(id));
    }
    if let Some(role) = Role::parse(text) {
        assert_eq!(role.as_str(), text);
    }
    let _ = (DriveId::parse(text), UploadId::parse(text), ProfileId::parse(text));
    if let Some(bytes) = base32::decode::<8>(text) {
        assert_eq!(base32::decode::<8>(&base32::encode(&bytes)), Some(bytes));
    }
}

proptest! {
    /// shows: F42
    #[test]
    fn any_text_is_taken_or_refused(text in "\\PC{0,80}", path in "[a-z./\u{0}\u{301}é-]{0,40}", ids in "[0-9a-z.-]{0,40}", bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        for text in [&text, &path, &ids, String::from_utf8_lossy(&bytes).as_ref()] {
            check(text);
        }
    }
}
