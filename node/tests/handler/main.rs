//! A node's calls over the memory transport: rows, stores, confirmations, reads, removals, missing disks, rebuilding, power cuts, inventories.

#![allow(clippy::unwrap_used)] // Test code: a panic is the report.

mod bench;
mod inventory;
mod power_cut;

use bench::{DEADLINE, bench, name, stripe};
use bytes::Bytes;
use model::id::{DiskId, RowVersion};
use model::profile::ProfileId;
use model::stripe::StripeForm;
use node::repair::{Holder, RepairError, rebuild_fragment};
use protocol::frame::Method;
use protocol::node::{
    ByteRange, ConfirmAnswer, ConfirmFragment, DiskState, FragmentNames, FragmentRead, ListFragments, NodeStatus,
    NodeStatusAnswer, PayloadHash, PushRows, ReadFragment, RemoveStripe, RowsTaken, RowsUpdate, StoreAnswer,
    StoreFragment, StripeRemoved, code,
};

#[tokio::test]
async fn a_store_counts_only_under_the_newest_row_and_a_newer_one_is_asked_for() {
    let bench = bench();
    assert!(matches!(bench.store(0, 1, 1).await, Ok(StoreAnswer::Stored(stored)) if stored.row_version.0 == 1));
    assert_eq!(bench.store(1, 2, 3).await, Err(code::ROW_UNKNOWN.to_owned()));
    bench.source.set_version(RowVersion(3));
    assert!(matches!(bench.store(1, 2, 3).await, Ok(StoreAnswer::Stored(_))));
    assert!(matches!(bench.store(2, 3, 1).await, Ok(StoreAnswer::StaleRow(known)) if known.row.version.0 == 3));
    let push = PushRows {
        updates: vec![RowsUpdate {
            rows: vec![(0, bench.source.row(ProfileId::Dev, RowVersion(5)))],
            ..bench.source.table(ProfileId::Dev, RowVersion(5))
        }],
    };
    let (taken, _): (RowsTaken, _) = bench.call(Method::PushRows, &push, Bytes::new()).await.unwrap();
    assert_eq!((taken.rows_taken, taken.disks.len()), (1, 6));
    assert!(matches!(bench.store(2, 3, 3).await, Ok(StoreAnswer::StaleRow(known)) if known.row.version.0 == 5));
    let (form, _) = stripe(1);
    let confirm = |index, version| ConfirmFragment {
        name: name(index),
        form,
        disk: DiskId(1),
        row_version: RowVersion(version),
    };
    let (answer, _): (ConfirmAnswer, _) = bench
        .call(Method::ConfirmFragment, &confirm(0, 3), Bytes::new())
        .await
        .unwrap();
    assert!(matches!(answer, ConfirmAnswer::StaleRow(_)));
    let (answer, _): (ConfirmAnswer, _) = bench
        .call(Method::ConfirmFragment, &confirm(0, 5), Bytes::new())
        .await
        .unwrap();
    assert!(matches!(answer, ConfirmAnswer::Held(_)));
    let (answer, _): (ConfirmAnswer, _) = bench
        .call(Method::ConfirmFragment, &confirm(4, 5), Bytes::new())
        .await
        .unwrap();
    assert_eq!(answer, ConfirmAnswer::Absent);
}

#[tokio::test]
async fn refusals_are_typed_and_a_name_never_covers_two_contents() {
    let bench = bench();
    assert!(matches!(bench.store(0, 1, 1).await, Ok(StoreAnswer::Stored(_))));
    assert!(
        matches!(bench.store(0, 1, 1).await, Ok(StoreAnswer::Stored(_))),
        "the same again"
    );
    let (other, fragments) = stripe(2);
    let refused = bench.store_as(name(0), other, fragments[0].clone(), 1, 1).await;
    assert_eq!(refused, Err(code::OTHER_CONTENT.to_owned()));
    assert_eq!(bench.store(0, 7, 1).await, Err(code::DISK_MISSING.to_owned()));
    assert_eq!(bench.store(0, 8, 1).await, Err(code::UNKNOWN_DISK.to_owned()));
    let (form, fragments) = stripe(1);
    let request = StoreFragment {
        name: name(1),
        form,
        payload_hash: PayloadHash([0; 32]),
        disk: DiskId(2),
        row_version: RowVersion(1),
    };
    let wrong: Result<(StoreAnswer, _), _> = bench.call(Method::StoreFragment, &request, fragments[1].clone()).await;
    assert_eq!(wrong, Err(code::PAYLOAD_MISMATCH.to_owned()));
    let short: Result<(StoreAnswer, _), _> = bench
        .call(Method::StoreFragment, &request, fragments[1].slice(1..))
        .await;
    assert_eq!(short, Err(code::MALFORMED_FRAGMENT.to_owned()));
    let (status, _): (NodeStatusAnswer, _) = bench
        .call(Method::NodeStatus, &NodeStatus {}, Bytes::new())
        .await
        .unwrap();
    assert_eq!(status.disks.len(), 7);
    assert!(matches!(status.disks[6].state, DiskState::Missing(_)));
    assert_eq!((status.disks[0].fragments, status.disks[1].fragments), (1, 0));
}

#[tokio::test]
async fn ranges_read_back_in_their_order_and_a_removed_stripe_is_gone() {
    let bench = bench();
    bench.store(0, 1, 1).await.unwrap();
    let (form, fragments) = stripe(1);
    let read = |ranges| ReadFragment {
        name: name(0),
        disk: DiskId(1),
        ranges,
    };
    let ranges = vec![
        ByteRange {
            offset: 70_000,
            len: 10,
        },
        ByteRange { offset: 0, len: 65_537 },
    ];
    let (facts, bytes): (FragmentRead, _) = bench
        .call(Method::ReadFragment, &read(ranges), Bytes::new())
        .await
        .unwrap();
    assert_eq!(facts.form, form);
    assert_eq!(bytes, [&fragments[0][70_000..70_010], &fragments[0][..65_537]].concat());
    let outside = vec![ByteRange { offset: 74_999, len: 2 }];
    let refused: Result<(FragmentRead, _), _> = bench.call(Method::ReadFragment, &read(outside), Bytes::new()).await;
    assert_eq!(refused, Err(code::BAD_RANGE.to_owned()));
    bench.store(1, 1, 1).await.unwrap();
    let list = |after| ListFragments { disk: DiskId(1), after };
    for (after, names) in [
        (None, vec![name(0), name(1)]),
        (Some(name(0)), vec![name(1)]),
        (Some(name(1)), vec![]),
    ] {
        let listed: (FragmentNames, _) = bench
            .call(Method::ListFragments, &list(after), Bytes::new())
            .await
            .unwrap();
        assert_eq!(listed.0.names, names);
    }
    let missing = ListFragments {
        disk: DiskId(7),
        after: None,
    };
    let refused: Result<(FragmentNames, _), _> = bench.call(Method::ListFragments, &missing, Bytes::new()).await;
    assert_eq!(refused, Err(code::DISK_MISSING.to_owned()));
    let remove = RemoveStripe {
        profile: ProfileId::Dev,
        stripe: name(0).stripe,
    };
    let (removed, _): (StripeRemoved, _) = bench.call(Method::RemoveStripe, &remove, Bytes::new()).await.unwrap();
    assert_eq!(
        removed,
        StripeRemoved {
            fragments: 2,
            disks_failed: vec![DiskId(7)]
        }
    );
    let gone: Result<(FragmentRead, _), _> = bench.call(Method::ReadFragment, &read(vec![]), Bytes::new()).await;
    assert_eq!(gone, Err(code::NO_FRAGMENT.to_owned()));
}

#[tokio::test]
async fn a_fragment_is_rebuilt_from_k_others_of_the_same_stripe_and_of_no_other() {
    let bench = bench();
    let (form, fragments) = stripe(1);
    for index in 1..=4 {
        bench.store(index, u32::from(index), 1).await.unwrap();
    }
    let (other, foreign) = stripe(2);
    bench.store_as(name(5), other, foreign[5].clone(), 5, 1).await.unwrap();
    let holder = |index: u8| Holder {
        index,
        peer: bench.peer,
        disk: DiskId(u32::from(index)),
    };
    let holders: Vec<Holder> = [5, 1, 2, 3, 4].map(holder).to_vec();
    let rebuilt = rebuild_fragment(bench.transport.as_ref(), name(0), form, &holders, DEADLINE)
        .await
        .unwrap();
    assert_eq!(rebuilt.1, fragments[0]);
    let few = rebuild_fragment(bench.transport.as_ref(), name(0), form, &holders[..4], DEADLINE).await;
    assert!(matches!(
        few,
        Err(RepairError::TooFew {
            found: 3,
            needed: 4,
            ..
        })
    ));
    let wrong = StripeForm {
        stripe_hash: model::digest::StripeHash([1; 32]),
        ..form
    };
    assert!(
        rebuild_fragment(bench.transport.as_ref(), name(0), wrong, &holders, DEADLINE)
            .await
            .is_err()
    );
}
