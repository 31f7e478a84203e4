//! Any bytes into the decoders of what nodes and replicas say to each other: a message or a refusal, never a panic.
//!
//! Commands and queries of groups: metadata_golden.rs; the frames around all messages: `rpc`'s wire.

use proptest::prelude::{any, prop, proptest};
use protocol::frame::{AnswerHead, RequestHead, decode, decode_prefix};
use protocol::metadata::{GroupReply, ProposeRequest, QueryRequest};
use protocol::node::{
    CellFragments, ConfirmAnswer, ConfirmFragment, FragmentNames, FragmentRead, FragmentSums, ListCells, ListFragments,
    NodeStatus, NodeStatusAnswer, PushRows, ReadFragment, RemoveStripe, RowsTaken, StoreAnswer, StoreFragment,
    StripeRemoved, SumFragments,
};
use protocol::status::MetadataStatus;
use protocol::wire_error::Failure;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// What was decoded encodes again and reads back the same.
fn check<T: DeserializeOwned + Serialize + PartialEq + Debug>(bytes: &[u8]) {
    if let Ok(message) = decode::<T>(bytes) {
        let again = protocol::frame::encode(&message).expect("what was decoded can be encoded");
        assert_eq!(decode::<T>(&again).as_ref(), Ok(&message));
    }
    let _ = decode_prefix::<T>(bytes);
}

fn check_all(bytes: &[u8]) {
    check::<RequestHead>(bytes);
    check::<AnswerHead>(bytes);
    check::<Failure>(bytes);
    check::<StoreFragment>(bytes);
    check::<StoreAnswer>(bytes);
    check::<ConfirmFragment>(bytes);
    check::<ConfirmAnswer>(bytes);
    check::<ReadFragment>(bytes);
    check::<FragmentRead>(bytes);
    check::<RemoveStripe>(bytes);
    check::<StripeRemoved>(bytes);
    check::<ListFragments>(bytes);
    check::<FragmentNames>(bytes);
    check::<SumFragments>(bytes);
    check::<FragmentSums>(bytes);
    check::<ListCells>(bytes);
    check::<CellFragments>(bytes);
    check::<PushRows>(bytes);
    check::<RowsTaken>(bytes);
    check::<NodeStatus>(bytes);
    check::<NodeStatusAnswer>(bytes);
    check::<ProposeRequest>(bytes);
    check::<QueryRequest>(bytes);
    check::<GroupReply>(bytes);
    check::<MetadataStatus>(bytes);
}

proptest! {
    /// Small bytes are mostly counts and tags, so that such strings come far into a message.
    ///
    /// shows: F42
    #[test]
    fn any_bytes_are_a_message_or_refused(wild in prop::collection::vec(any::<u8>(), 0..300), tame in prop::collection::vec(0_u8..4, 0..300)) {
        check_all(&wild);
        check_all(&tame);
        check_all(&[&tame[..], &wild[..]].concat());
    }
}

/// A length of 2^63 is no reason to take that much memory: what is not there cannot be read.
///
/// shows: F42
#[test]
fn announced_lengths_beyond_the_input_are_refused_without_being_taken() {
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    for before in 0..40 {
        check_all(&[&vec![0; before][..], &huge[..], &[0; 20]].concat());
    }
}
