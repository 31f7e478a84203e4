//! What replicas write to their logs, shown to the oracle as it goes to their disks.
//!
//! Entries that are carried forward are written once more and must be the same ones.
//! Not here: what must hold of them (`oracle::raft`), states (`observed`).

use crate::oracle::raft::RaftOracle;
use metadata_raft::raft::record::{LogChange, LogRecord, StoredEntry};
use model::id::RaftId;
use protocol::frame::encode;

/// Shows `oracle` every entry among the `parts` of a write of `replica`'s; what else they are says nothing.
pub fn show(oracle: &RaftOracle, replica: RaftId, parts: &[&[u8]]) {
    for part in parts {
        // The journal writes each payload as one part, between headers that are no records of the log.
        if let Ok((group, LogChange::Entries(entries) | LogChange::CarriedEntries(entries))) = LogRecord::decode(part) {
            for entry in entries {
                let at = (entry.log_id.term, entry.log_id.index);
                oracle.logged(group, replica, at, digest(&entry));
            }
        }
    }
}

fn digest(entry: &StoredEntry) -> u128 {
    let bytes = encode(&entry.payload).expect("what was just decoded can be encoded");
    let mut short = [0; 16];
    short.copy_from_slice(&blake3::hash(&bytes).as_bytes()[..16]);
    u128::from_le_bytes(short)
}

#[cfg(test)]
mod tests {
    use super::show;
    use crate::oracle::raft::RaftOracle;
    use bytes::Bytes;
    use metadata_raft::raft::record::{LogChange, LogRecord, StoredEntry, StoredLogId, StoredPayload};
    use model::id::{GroupId, RaftId};

    fn write(oracle: &RaftOracle, replica: u64, change: LogChange) {
        let payload = LogRecord::new(GroupId(1), change).encode().unwrap();
        show(
            oracle,
            RaftId(replica),
            &[b"HFR1 is a header", payload.as_ref(), &[0; 4096]],
        );
    }

    fn command(text: &'static str) -> Vec<StoredEntry> {
        let entry = StoredEntry {
            log_id: StoredLogId { term: 3, index: 7 },
            payload: StoredPayload::Command(Bytes::from_static(text.as_bytes())),
        };
        vec![entry]
    }

    #[test]
    fn an_entry_is_compared_wherever_it_is_written_and_another_one_in_its_place_is_seen() {
        let oracle = RaftOracle::default();
        write(&oracle, 1, LogChange::Entries(command("a")));
        write(&oracle, 2, LogChange::Entries(command("a")));
        write(&oracle, 2, LogChange::CarriedEntries(command("a")));
        write(&oracle, 2, LogChange::Purge(StoredLogId { term: 3, index: 7 }));
        assert_eq!((oracle.violations(), oracle.seen().entries_compared), (Vec::new(), 2));
        write(&oracle, 3, LogChange::Entries(command("b")));
        assert_eq!(oracle.violations().len(), 1);
    }
}
