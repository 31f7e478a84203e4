//! Waiting for changes: one standing call of a gateway to a replica of a group tells which feeds have gone on.
//!
//! The caller names the log index up to which it knows everything, and is answered every scope that a later entry moved: so nothing is
//! missed between two calls, nor between two replicas, since an index means the same at each. Tokens that may have ended are told in the
//! same way, under an entry that no drive has.
//! Not here: the changes themselves (`query::DriveAsk::Feed`), whom they concern (the gateway).

use model::id::{DriveId, EntryId, GroupId, UserId};
use serde::{Deserialize, Serialize};

/// Message of `Method::WatchFeed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchRequest {
    /// The group that is meant.
    pub group: GroupId,
    /// The log index up to which the caller knows what moved; `None` asks where the replica stands and does not wait.
    pub after: Option<u64>,
    /// How long to wait for something to move.
    pub wait_ms: u32,
}

/// Answer to `Method::WatchFeed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchAnswer {
    /// Everything up to this log index is told.
    pub index: u64,
    /// Whether that begins where the caller knew: when not, it must compare every scope that it holds.
    pub is_whole: bool,
    /// What moved.
    pub moved: Vec<MovedScope>,
}

/// Entries count from 1.
const NO_ENTRY: u64 = 0;

/// A scope whose feed went on, or a user of whom tokens may have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovedScope {
    /// Its entry.
    pub scope: EntryId,
    /// The sequence of its last change.
    pub sequence: u64,
}

impl MovedScope {
    /// Entry `index` of the log may have ended tokens of `user`.
    #[must_use]
    pub fn of_tokens(user: UserId, index: u64) -> Self {
        let scope = EntryId {
            drive: DriveId(user.0),
            number: NO_ENTRY,
        };
        Self { scope, sequence: index }
    }

    /// The user of whom tokens may have ended, when it tells of that.
    #[must_use]
    pub fn user(&self) -> Option<UserId> {
        (self.scope.number == NO_ENTRY).then_some(UserId(self.scope.drive.0))
    }
}

#[cfg(test)]
mod tests {
    use super::{MovedScope, WatchAnswer, WatchRequest};
    use crate::frame::{decode, encode};
    use model::id::{DriveId, GroupId, UserId};

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn both_messages_have_their_golden_bytes_and_read_back() {
        let request = WatchRequest {
            group: GroupId(3),
            after: Some(300),
            wait_ms: 30_000,
        };
        let bytes = encode(&request).unwrap();
        assert_eq!(hex(&bytes), "0301ac02b0ea01");
        assert_eq!(decode::<WatchRequest>(&bytes).unwrap(), request);
        let moved = MovedScope {
            scope: DriveId(7).root(),
            sequence: 9,
        };
        let answer = WatchAnswer {
            index: 301,
            is_whole: true,
            moved: vec![moved],
        };
        let bytes = encode(&answer).unwrap();
        assert_eq!(hex(&bytes), "ad020101070109");
        assert_eq!(decode::<WatchAnswer>(&bytes).unwrap(), answer);
    }

    #[test]
    fn ended_tokens_are_told_as_a_scope_that_no_drive_has() {
        let ended = MovedScope::of_tokens(UserId(7), 9);
        assert_eq!(ended.user(), Some(UserId(7)));
        assert_eq!(hex(&encode(&ended).unwrap()), "070009");
        let moved = MovedScope {
            scope: DriveId(7).root(),
            sequence: 9,
        };
        assert_eq!(moved.user(), None);
    }
}
