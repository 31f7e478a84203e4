//! What a group's store holds besides the state itself: which install is current, what was applied, what a snapshot may promise.
//!
//! Keys: group (u32), install (u32), both big-endian, then the state's own key. Install 0 is never a state: it holds the group's
//! `GroupRecord` and, while a state is received, its `StagingRecord`. In each install the key `APPLIED_KEY` holds what was applied
//! to it, written in the same batch.
//! Invariants: versioned enums in postcard; an install is read only once the group record names it.
//! Not here: slots and tables of the state (`state::keys`); `APPLIED_KEY` lies behind all of them.

use crate::raft::record::{RecordError, StoredLogId, StoredMembersAt, from_bytes, to_bytes};
use bytes::Bytes;
use kv::seam::{Change, KvError, KvRead};
use model::id::GroupId;
use serde::{Deserialize, Serialize};

/// Behind the group and install: slot 0xffff (the whole group), table 0xff, which no table of the state has.
pub const APPLIED_KEY: [u8; 3] = [0xff, 0xff, 0xff];
/// The install of a group that never took a snapshot.
pub const FIRST_INSTALL: u32 = 1;

/// The prefix of a group's install.
#[must_use]
pub fn prefix_of(group: GroupId, install: u32) -> Bytes {
    let mut key = Vec::with_capacity(8);
    key.extend_from_slice(&group.0.to_be_bytes());
    key.extend_from_slice(&install.to_be_bytes());
    Bytes::from(key)
}

/// A position of the state: applied up to here, with these members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The last applied entry.
    pub last: Option<StoredLogId>,
    /// The last applied members.
    pub members: StoredMembersAt,
}

/// The stored form of `Applied`.
#[derive(Serialize, Deserialize)]
enum StoredApplied {
    V1(Applied),
}

/// What is durable about a group's installs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRecord {
    /// The current install.
    pub install: u32,
    /// What the newest snapshot mark covers; the log may be purged up to it.
    pub mark: Option<Applied>,
}

/// The stored form of `GroupRecord`.
#[derive(Serialize, Deserialize)]
enum StoredGroupRecord {
    V1(GroupRecord),
}

/// How far a state has come that is being received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagingRecord {
    /// Where its rows go: the install behind the current one.
    pub install: u32,
    /// Tells transfers apart: the sender draws one for each view.
    pub transfer: u64,
    /// What the rows are the state of, once all are there.
    pub applied: Applied,
    /// The greatest key that is there; `None` when none is.
    pub after: Option<Bytes>,
}

/// The stored form of `StagingRecord`.
#[derive(Serialize, Deserialize)]
enum StoredStaging {
    V1(StagingRecord),
}

fn corrupt(error: RecordError) -> KvError {
    KvError::Corrupt(error.to_string())
}

/// The group's record; that of a new group when there is none.
///
/// # Errors
/// When the store fails or the record is damaged.
pub fn read_group(kv: &dyn KvRead, group: GroupId) -> Result<GroupRecord, KvError> {
    match kv.get(&prefix_of(group, 0))? {
        None => Ok(GroupRecord {
            install: FIRST_INSTALL,
            mark: None,
        }),
        Some(bytes) => from_bytes(&bytes)
            .map(|StoredGroupRecord::V1(record)| record)
            .map_err(corrupt),
    }
}

/// The change that stores the group's record.
///
/// # Errors
/// When it cannot be encoded.
pub fn put_group(group: GroupId, record: &GroupRecord) -> Result<Change, KvError> {
    let bytes = to_bytes(&StoredGroupRecord::V1(record.clone())).map_err(corrupt)?;
    Ok(Change::Put(prefix_of(group, 0), bytes))
}

/// Behind the group and install 0.
const STAGING_KEY: [u8; 1] = [1];

fn staging_key(group: GroupId) -> Bytes {
    [prefix_of(group, 0).as_ref(), &STAGING_KEY].concat().into()
}

/// How far a state has come that is being received; `None` when none is.
///
/// # Errors
/// When the store fails or the record is damaged.
pub fn read_staging(kv: &dyn KvRead, group: GroupId) -> Result<Option<StagingRecord>, KvError> {
    kv.get(&staging_key(group))?
        .map(|bytes| from_bytes(&bytes).map(|StoredStaging::V1(record)| record))
        .transpose()
        .map_err(corrupt)
}

/// The change that stores it; it belongs into the batch of the rows that it counts.
///
/// # Errors
/// When it cannot be encoded.
pub fn put_staging(group: GroupId, record: &StagingRecord) -> Result<Change, KvError> {
    let bytes = to_bytes(&StoredStaging::V1(record.clone())).map_err(corrupt)?;
    Ok(Change::Put(staging_key(group), bytes))
}

/// The change that forgets it.
#[must_use]
pub fn drop_staging(group: GroupId) -> Change {
    Change::Delete(staging_key(group))
}

fn applied_key(group: GroupId, install: u32) -> Bytes {
    [prefix_of(group, install).as_ref(), &APPLIED_KEY].concat().into()
}

/// What was applied to an install; nothing when it is new.
///
/// # Errors
/// When the store fails or the record is damaged.
pub fn read_applied(kv: &dyn KvRead, group: GroupId, install: u32) -> Result<Applied, KvError> {
    match kv.get(&applied_key(group, install))? {
        None => Ok(Applied::default()),
        Some(bytes) => from_bytes(&bytes)
            .map(|StoredApplied::V1(applied)| applied)
            .map_err(corrupt),
    }
}

/// The change that stores what was applied; it belongs into the batch of what was applied.
///
/// # Errors
/// When it cannot be encoded.
pub fn put_applied(group: GroupId, install: u32, applied: &Applied) -> Result<Change, KvError> {
    let bytes = to_bytes(&StoredApplied::V1(applied.clone())).map_err(corrupt)?;
    Ok(Change::Put(applied_key(group, install), bytes))
}

#[cfg(test)]
mod tests {
    use super::{
        Applied, GroupRecord, StagingRecord, drop_staging, put_applied, put_group, put_staging, read_applied,
        read_group, read_staging,
    };
    use crate::raft::record::{StoredLogId, StoredMembersAt};
    use bytes::Bytes;
    use kv::memory::MemoryKv;
    use kv::seam::{Change, Kv};
    use model::id::GroupId;

    #[test]
    fn stored_positions_keep_their_bytes_and_read_back() {
        let last = Some(StoredLogId { term: 7, index: 200 });
        let applied = Applied {
            last,
            members: StoredMembersAt::default(),
        };
        let record = GroupRecord {
            install: 300,
            mark: Some(applied.clone()),
        };
        let staging = StagingRecord {
            install: 301,
            transfer: 5,
            applied: applied.clone(),
            after: Some(Bytes::from_static(b"key")),
        };
        let store = MemoryKv::new();
        let changes = vec![
            put_applied(GroupId(1), 300, &applied).unwrap(),
            put_group(GroupId(1), &record).unwrap(),
            put_staging(GroupId(1), &staging).unwrap(),
        ];
        let bytes: Vec<Vec<u8>> = changes
            .iter()
            .map(|change| match change {
                Change::Put(key, value) => [key.as_ref(), value].concat(),
                _ => Vec::new(),
            })
            .collect();
        assert_eq!(
            bytes[0],
            [0, 0, 0, 1, 0, 0, 1, 44, 0xff, 0xff, 0xff, 0, 1, 7, 0xc8, 1, 0, 0]
        );
        assert_eq!(bytes[1], [0, 0, 0, 1, 0, 0, 0, 0, 0, 0xac, 2, 1, 1, 7, 0xc8, 1, 0, 0]);
        assert_eq!(
            bytes[2],
            [
                0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0xad, 2, 5, 1, 7, 0xc8, 1, 0, 0, 1, 3, b'k', b'e', b'y'
            ]
        );
        store.write(changes).unwrap();
        assert_eq!(read_staging(&store, GroupId(1)).unwrap(), Some(staging));
        store.write(vec![drop_staging(GroupId(1))]).unwrap();
        assert_eq!(read_staging(&store, GroupId(1)).unwrap(), None);
        assert_eq!(read_applied(&store, GroupId(1), 300).unwrap(), applied);
        assert_eq!(read_group(&store, GroupId(1)).unwrap(), record);
    }
}
