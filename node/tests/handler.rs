//! A node's calls over the memory transport: rows, stores, confirmations, reads, removals, missing disks, rebuilding.

use async_trait::async_trait;
use bytes::Bytes;
use codec::erasure;
use codec::fragment::FragmentHeader;
use daemon::clock::{Clock, ManualClock};
use daemon::metrics::Metrics;
use daemon::pool::Pool;
use disk::SimDisk;
use kv::memory::MemoryKv;
use model::id::{ClusterId, DiskId, NodeId, RowVersion};
use model::layout::Row;
use model::process::{ProcessId, Role};
use model::profile::ProfileId;
use model::stripe::{FragmentName, StripeForm, StripeId};
use model::time::WallTime;
use node::repair::{Holder, RepairError, rebuild_fragment};
use node::rows::RowSource;
use node::service::{DiskSlot, NodeService};
use node::store::{FragmentStore, StoreOptions};
use protocol::frame::Method;
use protocol::node::{
    ByteRange, ConfirmAnswer, ConfirmFragment, DiskState, FragmentRead, NodeStatus, NodeStatusAnswer, PayloadHash,
    PushRows, ReadFragment, RemoveStripe, RowsTaken, RowsUpdate, StoreAnswer, StoreFragment, StripeRemoved, code,
};
use protocol::wire_error::Failure;
use rpc::memory::{MemoryNetwork, MemoryTransport};
use rpc::transport::{Peer, RpcError};
use rpc::typed::{CallOptions, ask};
use serde::{Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(5);
const CLUSTER: ClusterId = ClusterId(9);

struct Source(AtomicU64);

#[async_trait]
impl RowSource for Source {
    async fn fetch(&self, profile: ProfileId) -> Result<RowsUpdate, Failure> {
        Ok(table(profile, self.0.load(Ordering::Relaxed)))
    }
}

fn row(version: u64) -> Row {
    Row {
        version: RowVersion(version),
        disks: (1..=6).map(DiskId).collect(),
        filling_from: BTreeMap::new(),
    }
}

fn table(profile: ProfileId, version: u64) -> RowsUpdate {
    RowsUpdate {
        profile,
        pg_bits: 8,
        rows: (0..256).map(|pg| (pg, row(version))).collect(),
    }
}

struct Bench {
    transport: Arc<MemoryTransport>,
    peer: Peer,
    source: Arc<Source>,
}

/// A node with disks 1 to 6 and a missing disk 7, and a gateway that calls it.
fn bench() -> Bench {
    let source = Arc::new(Source(AtomicU64::new(1)));
    let mut disks = BTreeMap::from([(DiskId(7), DiskSlot::Missing("path does not exist".to_owned()))]);
    for number in 1..=6 {
        let options = StoreOptions {
            segment_bytes: 1 << 20,
            batch_bytes_max: 1 << 19,
            next_salt: Arc::new(|| 77),
        };
        let disk = Arc::new(SimDisk::new(64 << 20));
        let store = FragmentStore::open(DiskId(number), disk, Arc::new(MemoryKv::new()), &options)
            .expect("the inputs are well-formed")
            .0;
        disks.insert(DiskId(number), DiskSlot::Open(store));
    }
    let service = NodeService::new(NodeId(1), disks, source.clone(), Pool::inline(), Metrics::new());
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(WallTime(0)));
    let network = MemoryNetwork::new(clock);
    let process = ProcessId {
        role: Role::Node,
        number: 1,
    };
    let gateway = ProcessId {
        role: Role::Gateway,
        number: 1,
    };
    let (node_side, address) = network.attach(process, CLUSTER, Arc::new(service.clone()));
    // The node's own transport stays attached for as long as the test runs.
    std::mem::forget(node_side);
    let (transport, _) = network.attach(gateway, CLUSTER, Arc::new(service));
    Bench {
        transport,
        peer: Peer { process, address },
        source,
    }
}

impl Bench {
    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        message: &(impl Serialize + Sync),
        payload: Bytes,
    ) -> Result<(T, Bytes), String> {
        let options = CallOptions {
            payload,
            ..CallOptions::within(DEADLINE)
        };
        ask(self.transport.as_ref(), &self.peer, method, message, options)
            .await
            .map_err(|error: RpcError| {
                error
                    .refusal()
                    .map_or_else(|| error.to_string(), |failure| failure.code.clone())
            })
    }

    async fn store(&self, index: u8, disk: u32, version: u64) -> Result<StoreAnswer, String> {
        let (form, fragments) = stripe(1);
        self.store_as(name(index), form, fragments[usize::from(index)].clone(), disk, version)
            .await
    }

    async fn store_as(
        &self,
        name: FragmentName,
        form: StripeForm,
        payload: Bytes,
        disk: u32,
        version: u64,
    ) -> Result<StoreAnswer, String> {
        let header = FragmentHeader::describe(name, form, &payload).expect("the inputs are well-formed");
        let payload_hash = PayloadHash(*header.payload_hash());
        let request = StoreFragment {
            name,
            form,
            payload_hash,
            disk: DiskId(disk),
            row_version: RowVersion(version),
        };
        self.call(Method::StoreFragment, &request, payload)
            .await
            .map(|(answer, _)| answer)
    }
}

fn name(index: u8) -> FragmentName {
    FragmentName {
        profile: ProfileId::Dev,
        stripe: StripeId(42 << 64),
        index,
    }
}

fn stripe(seed: u8) -> (StripeForm, Vec<Bytes>) {
    let bytes: Vec<u8> = (0..300_000_u32)
        .map(|place| (place.wrapping_mul(2_654_435_761) >> 13) as u8 ^ seed)
        .collect();
    erasure::encode(&Bytes::from(bytes), 4, 2).expect("the inputs are well-formed")
}

#[tokio::test]
async fn a_store_counts_only_under_the_newest_row_and_a_newer_one_is_asked_for() {
    let bench = bench();
    assert!(matches!(bench.store(0, 1, 1).await, Ok(StoreAnswer::Stored(stored)) if stored.row_version.0 == 1));
    assert_eq!(bench.store(1, 2, 3).await, Err(code::ROW_UNKNOWN.to_owned()));
    bench.source.0.store(3, Ordering::Relaxed);
    assert!(matches!(bench.store(1, 2, 3).await, Ok(StoreAnswer::Stored(_))));
    assert!(matches!(bench.store(2, 3, 1).await, Ok(StoreAnswer::StaleRow(known)) if known.row.version.0 == 3));
    let push = PushRows {
        updates: vec![RowsUpdate {
            rows: vec![(0, row(5))],
            ..table(ProfileId::Dev, 5)
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
    let remove = RemoveStripe {
        profile: ProfileId::Dev,
        stripe: name(0).stripe,
    };
    let (removed, _): (StripeRemoved, _) = bench.call(Method::RemoveStripe, &remove, Bytes::new()).await.unwrap();
    assert_eq!(
        removed,
        StripeRemoved {
            fragments: 1,
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
