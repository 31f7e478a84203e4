//! Frames: how one call and its answer lie on a stream, and which role may make which call.
//!
//! A stream carries one request and one answer. Request: magic `HFQ1`, head length (u32), payload length (u32), crc32-free since
//! TLS authenticates; then the head (postcard of `RequestHead` followed by the message), then the payload. Answer the same with
//! magic `HFA1`. All integers little-endian.
//! Invariants: lengths are checked against `HEAD_BYTES_MAX` and `PAYLOAD_BYTES_MAX` before anything is allocated; the cluster and
//! the target of a request are checked before its message is decoded.

use crate::wire_error::Failure;
use bytes::Bytes;
use model::id::ClusterId;
use model::process::{ProcessId, Role};
use serde::{Deserialize, Serialize};

/// First bytes of a request.
pub const REQUEST_MAGIC: [u8; 4] = *b"HFQ1";
/// First bytes of an answer.
pub const ANSWER_MAGIC: [u8; 4] = *b"HFA1";
/// Longest head: a command of 1 MiB with room for its envelope.
pub const HEAD_BYTES_MAX: usize = 2 << 20;
/// Longest payload: a stripe and one block more.
pub const PAYLOAD_BYTES_MAX: usize = 16 << 20;

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Method {
    /// Any to any: are you there, and who are you.
    Ping,
    /// Gateway or node to node: store one fragment durably.
    StoreFragment,
    /// Gateway to node: do you hold this fragment durably.
    ConfirmFragment,
    /// Gateway or node to node: read ranges of a fragment.
    ReadFragment,
    /// Gateway or metadata to node: remove a stripe's fragments by tombstone.
    RemoveStripe,
    /// Metadata or gateway to node: take newer rows.
    PushRows,
    /// Metadata, gateway or admin to node: disks, space, counters, damaged fragments.
    NodeStatus,
    /// Gateway, node or admin to metadata: propose a command to a group.
    Propose,
    /// Gateway, node or admin to metadata: ask a group.
    Query,
    /// Metadata to metadata: openraft's append entries.
    RaftAppend,
    /// Metadata to metadata: openraft's vote.
    RaftVote,
    /// Metadata to metadata: openraft's pre-vote.
    RaftPreVote,
    /// Metadata to metadata: openraft's leader transfer.
    RaftTransfer,
    /// Metadata to metadata: one part of a snapshot.
    RaftSnapshot,
    /// Admin or gateway to metadata: replicas, leaders, log positions.
    MetadataStatus,
    /// Metadata to metadata: a follower asks its leader up to which entry it must have applied before it reads.
    RaftReadIndex,
    /// Metadata to metadata: signs of life of many groups' leaders in one message.
    RaftHeartbeats,
    /// As `Query`, and a follower answers it too, after a read-index from its leader.
    QueryReplica,
    /// Gateway to node: names of the fragments on a disk.
    ListFragments,
    /// Gateway to metadata: wait until a feed of the group goes on; see `metadata::watch`.
    WatchFeed,
    /// Gateway to node: sums of the fragments on a disk.
    SumFragments,
    /// Gateway to node: names of the fragments in some cells of a disk.
    ListCells,
}

impl Method {
    /// Whether a process of `role` may make this call at all; what it may do inside is decided by the receiver.
    #[must_use]
    pub fn is_allowed(self, role: Role) -> bool {
        use Role::{Admin, Gateway, Metadata, Node};
        match self {
            Self::Ping => true,
            Self::StoreFragment | Self::ReadFragment => matches!(role, Gateway | Node),
            Self::ConfirmFragment | Self::ListFragments | Self::WatchFeed | Self::SumFragments | Self::ListCells => {
                role == Gateway
            }
            Self::RemoveStripe | Self::PushRows => matches!(role, Gateway | Metadata),
            Self::NodeStatus => matches!(role, Gateway | Metadata | Admin),
            Self::Propose => matches!(role, Gateway | Node | Admin),
            // Replicas ask the control group, nodes too; what is a drive's is for gateways.
            Self::Query | Self::QueryReplica => true,
            Self::RaftAppend
            | Self::RaftVote
            | Self::RaftPreVote
            | Self::RaftTransfer
            | Self::RaftSnapshot
            | Self::RaftReadIndex
            | Self::RaftHeartbeats => role == Metadata,
            Self::MetadataStatus => matches!(role, Gateway | Metadata | Admin),
        }
    }

    /// Every method, in declaration order.
    pub const ALL: [Self; 22] = [
        Self::Ping,
        Self::StoreFragment,
        Self::ConfirmFragment,
        Self::ReadFragment,
        Self::RemoveStripe,
        Self::PushRows,
        Self::NodeStatus,
        Self::Propose,
        Self::Query,
        Self::RaftAppend,
        Self::RaftVote,
        Self::RaftPreVote,
        Self::RaftTransfer,
        Self::RaftSnapshot,
        Self::MetadataStatus,
        Self::RaftReadIndex,
        Self::RaftHeartbeats,
        Self::QueryReplica,
        Self::ListFragments,
        Self::WatchFeed,
        Self::SumFragments,
        Self::ListCells,
    ];
}

/// Comes before the message in every request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestHead {
    /// The sender's cluster.
    pub cluster: ClusterId,
    /// Whom the sender means.
    pub target: ProcessId,
    /// What is called.
    pub method: Method,
    /// Milliseconds that the caller will wait from now on.
    pub deadline_ms: u32,
    /// The client request that caused this call, for logs; 0 when none did.
    pub request_id: u128,
}

/// A call: a method, its postcard message and its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What is called.
    pub method: Method,
    /// The client request that caused it, for logs; 0 when none did.
    pub request_id: u128,
    /// Postcard of the method's request type.
    pub message: Bytes,
    /// Bytes that travel beside the message; may be empty.
    pub payload: Bytes,
}

/// The answer to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Postcard of the method's answer type.
    pub message: Bytes,
    /// Bytes that travel beside the message; may be empty.
    pub payload: Bytes,
}

/// What lies in the head of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AnswerHead {
    /// The message of the method's answer type follows as these bytes.
    Done(Bytes),
    /// It was refused or went wrong.
    Failed(Failure),
}

/// Encodes a message; `Failure` of kind `Bug` when its type cannot be encoded.
pub fn encode<T: Serialize>(message: &T) -> Result<Bytes, Failure> {
    postcard::to_stdvec(message)
        .map(Bytes::from)
        .map_err(|error| Failure::bug(format!("encode message: {error}")))
}

/// Decodes a message; trailing bytes are refused. Never panics and never allocates beyond the input's size.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Failure> {
    use model::error_kind::ErrorKind::Invalid;
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        Ok(_) => Err(Failure::new(
            Invalid,
            "malformed_message",
            "the message has bytes behind its end",
        )),
        Err(error) => Err(Failure::new(
            Invalid,
            "malformed_message",
            format!("decode message: {error}"),
        )),
    }
}

/// Decodes a message at the start of `bytes` and says how many bytes it took; what follows is left alone.
pub fn decode_prefix<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<(T, usize), Failure> {
    use model::error_kind::ErrorKind::Invalid;
    postcard::take_from_bytes(bytes)
        .map(|(message, rest)| (message, bytes.len() - rest.len()))
        .map_err(|error| Failure::new(Invalid, "malformed_message", format!("decode message: {error}")))
}
