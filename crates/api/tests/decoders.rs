//! Any bytes where a request's JSON or a timestamp is expected: taken or refused, never a panic.

use api::change::PollRequest;
use api::metadata::{ChangeEntry, CreateEntry};
use api::sync::{CommitRequest, SyncRequest, TicketRequest};
use api::timestamp::Timestamp;
use api::token::TokenRequest;
use api::upload::UploadMetadata;
use api::user::{ChangePassword, ChangeUser, CreateUser};
use proptest::prelude::{any, prop, proptest};

fn check(bytes: &[u8]) {
    let _ = serde_json::from_slice::<CreateEntry>(bytes);
    let _ = serde_json::from_slice::<PollRequest>(bytes);
    let _ = serde_json::from_slice::<ChangeEntry>(bytes);
    let _ = serde_json::from_slice::<UploadMetadata>(bytes);
    let _ = serde_json::from_slice::<SyncRequest>(bytes);
    let _ = serde_json::from_slice::<CommitRequest>(bytes);
    let _ = serde_json::from_slice::<TicketRequest>(bytes);
    let _ = serde_json::from_slice::<CreateUser>(bytes);
    let _ = serde_json::from_slice::<ChangeUser>(bytes);
    let _ = serde_json::from_slice::<ChangePassword>(bytes);
    let _ = serde_json::from_slice::<TokenRequest>(bytes);
    if let Some(time) = std::str::from_utf8(bytes).ok().and_then(Timestamp::parse) {
        assert_eq!(Timestamp::parse(&time.to_string()), Some(time));
    }
}

proptest! {
    /// shows: F42
    #[test]
    fn any_bytes_are_a_request_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), other in any::<u8>(), time in "[0-9TZ:.+-]{0,35}") {
        check(&bytes);
        check(time.as_bytes());
        for valid in [
            &br#"{"type":"folder","path":"/a/b","parents":true}"#[..],
            br#"{"name":"n","parent":"p","base_revision":18446744073709551615}"#,
            br#"{"username":"u","password":"eight bytes","quota_bytes":1}"#,
            br#"{"current_version":1,"splices":[{"keep":[0,3]},{"blocks":[{"digest":"00","size":1}]}]}"#,
            br#"{"upload_id":"u","digest":"00","size":1}"#,
            b"2026-01-02T03:04:05.678Z",
        ] {
            let mut altered = valid.to_vec();
            altered[at.index(valid.len())] = other;
            check(&altered);
            check(&altered[..at.index(valid.len())]);
        }
    }
}

/// serde_json refuses what nests deeper than 128 levels, so that no request can use the stack up.
///
/// shows: F42
#[test]
fn a_hundred_thousand_levels_are_refused() {
    for bracket in ["[", "{\"a\":"] {
        check(bracket.repeat(100_000).as_bytes());
    }
}
