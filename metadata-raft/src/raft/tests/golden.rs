//! Golden bytes of every message between replicas: metadata-raft/golden/raft.hex holds what this release sends, for ever understood.
//!
//! Most of these bytes are openraft's own types in postcard, so a changed version of it must not change them behind our back.
//! A line is the message's name and its bytes in hex. After a new message: the failing test prints the line to add; lines that are
//! there are never changed.

use super::{log_id, vote};
use crate::raft::heartbeats::{BeatAnswers, Beats};
use crate::raft::incoming::{PartAnswer, SnapshotPart};
use crate::raft::network::{Append, Envelope};
use crate::raft::record::{StoredLogId, StoredMembers, StoredMembersAt};
use crate::raft::snapshot::Part;
use crate::raft::stored_state::Applied;
use crate::raft::types::{CommandBytes, Entry, Membership, ReplicaInfo, TypeConfig};
use bytes::Bytes;
use model::error_kind::ErrorKind;
use openraft::EntryPayload;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderError, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use protocol::frame::{decode, encode};
use protocol::wire_error::Failure;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::SocketAddr;

const GOLDEN: &str = include_str!("../../../golden/raft.hex");

fn address(replica: u64) -> SocketAddr {
    match replica {
        300 => "[2001:db8::1]:443".parse().unwrap(),
        other => format!("10.0.0.{other}:7001").parse().unwrap(),
    }
}

/// The messages by name, each written, and read again as what it was.
#[derive(Default)]
struct Messages(BTreeMap<&'static str, Bytes>);

impl Messages {
    fn add<T: Serialize + DeserializeOwned + Debug>(&mut self, name: &'static str, message: &T) {
        let bytes = encode(message).unwrap();
        let again: T = decode(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(format!("{again:?}"), format!("{message:?}"), "{name}");
        assert_eq!(self.0.insert(name, bytes), None, "{name} is there twice");
    }

    /// As a call carries it: behind the envelope.
    fn call<T: Serialize + DeserializeOwned + Debug>(&mut self, name: &'static str, message: T) {
        let envelope = Envelope::V1 {
            group: 300,
            sender: address(1),
        };
        self.add(name, &(envelope, message));
    }
}

fn appends(messages: &mut Messages) {
    let replicas = [1, 2, 300].map(|replica| {
        let info = ReplicaInfo {
            address: address(replica),
        };
        (replica, info)
    });
    let voters = vec![BTreeSet::from([1, 2, 300]), BTreeSet::from([1, 2])];
    let members = Membership::new(voters, BTreeMap::from(replicas)).unwrap();
    let payloads = [
        EntryPayload::Blank,
        EntryPayload::Normal(CommandBytes(Bytes::from_static(b"command"))),
        EntryPayload::Membership(members),
    ];
    let entries = payloads.into_iter().zip(200..).map(|(payload, index)| Entry {
        log_id: log_id(7, index),
        payload,
    });
    let mut leader = vote(7, 2);
    leader.committed = true;
    let request = |prev, entries| AppendEntriesRequest::<TypeConfig> {
        vote: leader,
        prev_log_id: prev,
        entries,
        leader_commit: Some(log_id(6, 150)),
    };
    messages.call("append alone", Append::Alone(request(None, Vec::new())));
    let full = Append::InOrder {
        connection: 5,
        stream: 129,
        number: 3,
        request: request(Some(log_id(6, 199)), entries.collect()),
    };
    messages.call("append in order", full);
    type Appended = AppendEntriesResponse<TypeConfig>;
    messages.add("append answer success", &Appended::Success);
    messages.add(
        "append answer partial success",
        &Appended::PartialSuccess(Some(log_id(7, 201))),
    );
    messages.add("append answer conflict", &Appended::Conflict);
    messages.add("append answer higher vote", &Appended::HigherVote(vote(9, 300)));

    let beat = encode(&Append::Alone(request(None, Vec::new()))).unwrap();
    let beats = Beats::V1 {
        sender: address(300),
        beats: vec![(1, beat), (300, Bytes::from_static(b"append"))],
    };
    messages.add("heartbeats", &beats);
    let failure = Failure::new(ErrorKind::Unavailable, "replica_stopped", "why");
    let answers: BeatAnswers = vec![Some(Ok(Bytes::from_static(b"answer"))), None, Some(Err(failure))];
    messages.add("heartbeats answer", &answers);
}

fn elections(messages: &mut Messages) {
    let mut request = VoteRequest::<TypeConfig>::new(vote(8, 300), Some(log_id(7, 201)));
    messages.call("vote or pre-vote", request.clone());
    request.leadership_transfer = true;
    messages.call("vote at a hand-over", request);
    let granted = VoteResponse::<TypeConfig>::new(vote(8, 300), Some(log_id(7, 200)), true);
    messages.add("vote answer granted", &granted);
    let refused = VoteResponse::<TypeConfig>::new(vote(9, 1), None, false);
    messages.add("vote answer refused", &refused);
    let transfer = TransferLeaderRequest::<TypeConfig>::new(vote(8, 300), 2, Some(log_id(7, 201)));
    messages.call("transfer", transfer);
    let answers: [(_, TransferLeaderResponse<TypeConfig>); 3] = [
        ("transfer answer done", Ok(())),
        (
            "transfer answer vote changed",
            Err(TransferLeaderError::VoteChanged {
                expected: vote(8, 300),
                actual: vote(9, 1),
            }),
        ),
        (
            "transfer answer log not flushed",
            Err(TransferLeaderError::LogNotFlushed {
                expected: Some(log_id(7, 201)),
                actual: None,
            }),
        ),
    ];
    for (name, answer) in &answers {
        messages.add(name, answer);
    }
}

fn snapshots(messages: &mut Messages) {
    let at = |term, index| StoredLogId { term, index };
    let members = StoredMembers {
        configs: vec![BTreeSet::from([1, 300])],
        replicas: BTreeMap::from([(1, address(1)), (300, address(300))]),
    };
    let applied = Applied {
        last: Some(at(7, 201)),
        members: StoredMembersAt {
            log_id: Some(at(1, 1)),
            members: Some(members),
        },
    };
    let (key, row) = (Bytes::from_static(b"key"), Bytes::from_static(b"row"));
    let parts = [
        ("snapshot begin", Part::Begin(applied)),
        (
            "snapshot rows",
            Part::Rows {
                after: Some(key.clone()),
                rows: vec![(Bytes::from_static(b"key2"), row)],
            },
        ),
        ("snapshot end", Part::End { after: None }),
    ];
    for (name, part) in parts {
        let message = SnapshotPart {
            vote: vote(8, 300),
            transfer: 1000,
            part,
        };
        messages.call(name, message);
    }
    messages.add("snapshot answer go on", &PartAnswer::Continue { after: Some(key) });
    messages.add(
        "snapshot answer installed",
        &PartAnswer::Installed(SnapshotResponse::new(vote(8, 300))),
    );
}

#[test]
fn messages_between_replicas_have_their_golden_bytes() {
    let mut messages = Messages::default();
    appends(&mut messages);
    elections(&mut messages);
    snapshots(&mut messages);
    messages.call("read index", ());
    messages.call("read index with a term", 8_u64);
    messages.add("read index answer", &201_u64);

    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
    let mut lines = messages.0.iter().map(|(name, bytes)| format!("{name}: {}", hex(bytes)));
    let missing: Vec<String> = lines
        .by_ref()
        .filter(|line| !GOLDEN.lines().any(|known| known == line))
        .collect();
    assert!(
        missing.is_empty(),
        "what is sent is never edited, only followed; lines to add:\n{}",
        missing.join("\n")
    );
    assert_eq!(
        GOLDEN.lines().count(),
        messages.0.len(),
        "a line in raft.hex is no message any more"
    );
}
