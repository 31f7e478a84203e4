//! The records of the Raft log in the journal: our own encoding of openraft's nouns.
//!
//! Postcard of `LogRecord`, a versioned enum; docs/format/raft-log.md is its page, the tests below hold golden bytes.
//! Invariants: every record names its group; writers write the newest variant, readers read all; trailing bytes are refused.
//! Not here: framing and checksums (the journal).

use crate::raft::types::{AnswerBytes, CommandBytes, Entry, LogId, Membership, ReplicaInfo, StoredMembership, Vote};
use bytes::Bytes;
use model::id::GroupId;
use openraft::EntryPayload;
use openraft::vote::leader_id_std::{CommittedLeaderId, LeaderId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// The journal's kind of these records.
pub const RAFT_RECORD_KIND: u8 = 32;

/// One change of one group's log; the variant is the version of the form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogRecord {
    /// The first form.
    V1 {
        /// Whose log.
        group: u32,
        /// What changed.
        change: LogChange,
    },
}

/// What can happen to a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogChange {
    /// The vote is this one from now on.
    Vote(StoredVote),
    /// Entries behind the last one, without a hole.
    Entries(Vec<StoredEntry>),
    /// Entries behind this position are gone; all of them when there is none.
    Truncate(Option<StoredLogId>),
    /// Entries up to this position are gone.
    Purge(StoredLogId),
    /// Committed up to here, as far as this replica knows.
    Committed(Option<StoredLogId>),
    /// A group's small facts once more, so that older segments can go; its entries stay as they are.
    Carried {
        /// The vote in force.
        vote: Option<StoredVote>,
        /// The purge point.
        purged: Option<StoredLogId>,
        /// The committed position.
        committed: Option<StoredLogId>,
    },
    /// Entries that the log has already, once more, so that older segments can go.
    CarriedEntries(Vec<StoredEntry>),
}

/// A position in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StoredLogId {
    /// Of the leader that proposed the entry.
    pub term: u64,
    /// From 0.
    pub index: u64,
}

/// A vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredVote {
    /// The term voted in.
    pub term: u64,
    /// Whom for.
    pub replica: u64,
    /// Whether a majority granted it, so that it is a leader's.
    pub is_committed: bool,
}

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredEntry {
    /// Where it stands.
    pub log_id: StoredLogId,
    /// What it holds.
    pub payload: StoredPayload,
}

/// What an entry holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoredPayload {
    /// Nothing: a new leader's first entry.
    Blank,
    /// A command.
    Command(Bytes),
    /// The members from here on.
    Members(StoredMembers),
}

/// Voters, perhaps in two sets while they change, and where all replicas listen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredMembers {
    /// One set of voters, or two during a change.
    pub configs: Vec<BTreeSet<u64>>,
    /// Voters and learners with their addresses.
    pub replicas: BTreeMap<u64, SocketAddr>,
}

/// Why stored bytes are not what we wrote.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("read raft record: {0}")]
pub struct RecordError(pub String);

impl LogRecord {
    /// A record of `group`.
    #[must_use]
    pub fn new(group: GroupId, change: LogChange) -> Self {
        Self::V1 { group: group.0, change }
    }

    /// The stored bytes.
    ///
    /// # Errors
    /// When postcard cannot encode, which no value of these types makes it do.
    pub fn encode(&self) -> Result<Bytes, RecordError> {
        to_bytes(self)
    }

    /// Reads stored bytes.
    ///
    /// # Errors
    /// When they are no record or have bytes behind their end.
    pub fn decode(bytes: &[u8]) -> Result<(GroupId, LogChange), RecordError> {
        let Self::V1 { group, change } = from_bytes(bytes)?;
        Ok((GroupId(group), change))
    }
}

/// Stored bytes of any of our records.
pub(crate) fn to_bytes<T: Serialize>(value: &T) -> Result<Bytes, RecordError> {
    postcard::to_stdvec(value)
        .map(Bytes::from)
        .map_err(|error| RecordError(error.to_string()))
}

/// Reads stored bytes whole.
pub(crate) fn from_bytes<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, RecordError> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok(_) => Err(RecordError("bytes behind its end".to_owned())),
        Err(error) => Err(RecordError(error.to_string())),
    }
}

impl From<LogId> for StoredLogId {
    fn from(log_id: LogId) -> Self {
        Self {
            term: log_id.leader_id.term,
            index: log_id.index,
        }
    }
}

impl From<StoredLogId> for LogId {
    fn from(stored: StoredLogId) -> Self {
        Self {
            leader_id: CommittedLeaderId::new(stored.term),
            index: stored.index,
        }
    }
}

impl From<&Vote> for StoredVote {
    fn from(vote: &Vote) -> Self {
        Self {
            term: vote.leader_id.term,
            replica: vote.leader_id.voted_for,
            is_committed: vote.committed,
        }
    }
}

impl From<StoredVote> for Vote {
    fn from(stored: StoredVote) -> Self {
        let leader_id = LeaderId {
            term: stored.term,
            voted_for: stored.replica,
        };
        Self {
            leader_id,
            committed: stored.is_committed,
        }
    }
}

impl From<&Membership> for StoredMembers {
    fn from(membership: &Membership) -> Self {
        Self {
            configs: membership.get_joint_config().clone(),
            replicas: membership.nodes().map(|(id, info)| (*id, info.address)).collect(),
        }
    }
}

impl StoredMembers {
    /// The same for openraft.
    ///
    /// # Errors
    /// When they break openraft's rules, as an empty set of voters does.
    pub fn to_membership(&self) -> Result<Membership, RecordError> {
        if self.configs.is_empty() && self.replicas.is_empty() {
            return Ok(Membership::default());
        }
        let replicas: BTreeMap<u64, ReplicaInfo> = self
            .replicas
            .iter()
            .map(|(id, address)| (*id, ReplicaInfo { address: *address }))
            .collect();
        Membership::new(self.configs.clone(), replicas).map_err(|error| RecordError(error.to_string()))
    }
}

impl From<&Entry> for StoredEntry {
    fn from(entry: &Entry) -> Self {
        let payload = match &entry.payload {
            EntryPayload::Blank => StoredPayload::Blank,
            EntryPayload::Normal(command) => StoredPayload::Command(command.0.clone()),
            EntryPayload::Membership(membership) => StoredPayload::Members(membership.into()),
        };
        Self {
            log_id: entry.log_id.into(),
            payload,
        }
    }
}

impl StoredEntry {
    /// The same for openraft.
    ///
    /// # Errors
    /// When its members break openraft's rules.
    pub fn to_entry(&self) -> Result<Entry, RecordError> {
        let payload = match &self.payload {
            StoredPayload::Blank => EntryPayload::Blank,
            StoredPayload::Command(command) => EntryPayload::Normal(CommandBytes(command.clone())),
            StoredPayload::Members(members) => EntryPayload::Membership(members.to_membership()?),
        };
        Ok(Entry {
            log_id: self.log_id.into(),
            payload,
        })
    }

    /// Bytes that it takes in memory and in a record, about.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        const OVERHEAD: usize = 32;
        match &self.payload {
            StoredPayload::Blank => OVERHEAD,
            StoredPayload::Command(command) => OVERHEAD + command.len(),
            StoredPayload::Members(members) => OVERHEAD + members.replicas.len() * OVERHEAD,
        }
    }
}

/// Members with the position of their entry, as the state machine keeps them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredMembersAt {
    /// Where the entry stands; `None` before the first.
    pub log_id: Option<StoredLogId>,
    /// The members; `None` before the first.
    pub members: Option<StoredMembers>,
}

impl From<&StoredMembership> for StoredMembersAt {
    fn from(stored: &StoredMembership) -> Self {
        let is_empty = stored.log_id().is_none();
        Self {
            log_id: stored.log_id().as_ref().map(|log_id| (*log_id).into()),
            members: if is_empty {
                None
            } else {
                Some(stored.membership().into())
            },
        }
    }
}

impl StoredMembersAt {
    /// The same for openraft.
    ///
    /// # Errors
    /// When the members break openraft's rules.
    pub fn to_membership(&self) -> Result<StoredMembership, RecordError> {
        let membership = match &self.members {
            Some(members) => members.to_membership()?,
            None => Membership::default(),
        };
        Ok(StoredMembership::new(self.log_id.map(Into::into), membership))
    }
}

/// The answer of an entry that is no command.
#[must_use]
pub fn no_answer() -> AnswerBytes {
    AnswerBytes(Bytes::new())
}

#[cfg(test)]
mod tests {
    use super::{LogChange, LogRecord, StoredEntry, StoredLogId, StoredMembers, StoredPayload, StoredVote};
    use bytes::Bytes;
    use model::id::GroupId;
    use proptest::prelude::{any, proptest};
    use std::collections::{BTreeMap, BTreeSet};

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn check(change: LogChange, golden: &str) {
        let bytes = LogRecord::new(GroupId(300), change.clone()).encode().unwrap();
        assert_eq!(hex(&bytes), golden, "{change:?}");
        assert_eq!(LogRecord::decode(&bytes).unwrap(), (GroupId(300), change));
    }

    #[test]
    fn stored_records_keep_their_bytes() {
        let at = |term, index| StoredLogId { term, index };
        let vote = StoredVote {
            term: 7,
            replica: 3,
            is_committed: true,
        };
        let members = StoredMembers {
            configs: vec![BTreeSet::from([1, 2])],
            replicas: BTreeMap::from([
                (1, "127.0.0.1:4000".parse().unwrap()),
                (2, "[::1]:4001".parse().unwrap()),
            ]),
        };
        let entries = vec![
            StoredEntry {
                log_id: at(7, 128),
                payload: StoredPayload::Blank,
            },
            StoredEntry {
                log_id: at(7, 129),
                payload: StoredPayload::Command(Bytes::from_static(b"put")),
            },
        ];
        let member_entry = StoredEntry {
            log_id: at(1, 0),
            payload: StoredPayload::Members(members),
        };
        check(LogChange::Vote(vote), "00ac0200070301");
        check(
            LogChange::Entries(entries.clone()),
            "00ac0201020780010007810101 03707574".replace(' ', "").as_str(),
        );
        check(
            LogChange::Entries(vec![member_entry]),
            "00ac02010101000201020102020100 7f000001a01f020100000000000000000000000000000001a11f"
                .replace(' ', "")
                .as_str(),
        );
        check(LogChange::Truncate(Some(at(7, 5))), "00ac0202010705");
        check(LogChange::Truncate(None), "00ac020200");
        check(LogChange::Purge(at(7, 5)), "00ac02030705");
        check(LogChange::Committed(Some(at(7, 5))), "00ac0204010705");
        let carried = LogChange::Carried {
            vote: Some(vote),
            purged: Some(at(7, 5)),
            committed: None,
        };
        check(carried, "00ac020501070301010705 00".replace(' ', "").as_str());
        check(
            LogChange::CarriedEntries(entries),
            "00ac02060207800100078101010370757 4".replace(' ', "").as_str(),
        );
    }

    proptest! {
        /// shows: F42
        #[test]
        fn arbitrary_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok((group, change)) = LogRecord::decode(&bytes) {
                let again = LogRecord::new(group, change.clone()).encode().unwrap();
                assert_eq!(LogRecord::decode(&again).unwrap(), (group, change));
            }
        }
    }
}
