//! A node behind the memory transport, on simulated disks, and a gateway that calls it.
//!
//! Not here: expectations; the disks are the test's, which may cut their power.

use bytes::Bytes;
use codec::erasure;
use codec::fragment::FragmentHeader;
use daemon::clock::{Clock, ManualClock};
use daemon::metrics::Metrics;
use daemon::pool::Pool;
use disk::{Disk, SimDisk};
use kv::memory::MemoryKv;
use model::id::{ClusterId, DiskId, NodeId, RowVersion};
use model::process::{ProcessId, Role};
use model::profile::ProfileId;
use model::stripe::{FragmentName, StripeForm, StripeId};
use model::time::WallTime;
use node::service::{DiskSlot, NodeService};
use node::store::{FragmentStore, StoreOptions};
use node::uniform_rows::UniformRows;
use protocol::frame::Method;
use protocol::node::{PayloadHash, StoreAnswer, StoreFragment};
use rpc::memory::{MemoryNetwork, MemoryTransport};
use rpc::transport::{Peer, RpcError};
use rpc::typed::{CallOptions, ask};
use serde::{Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const DEADLINE: Duration = Duration::from_secs(5);
const CLUSTER: ClusterId = ClusterId(9);
pub(crate) const CAPACITY_BYTES: u64 = 64 << 20;

#[derive(Clone)]
pub(crate) struct Bench {
    pub(crate) transport: Arc<MemoryTransport>,
    pub(crate) peer: Peer,
    pub(crate) source: Arc<UniformRows>,
    /// Attached for as long as the bench is there.
    _node_side: Arc<MemoryTransport>,
}

/// A node with disks 1 to 6 and a missing disk 7, and a gateway that calls it.
pub(crate) fn bench() -> Bench {
    let disk = |number| -> (u32, Arc<dyn Disk>, Arc<MemoryKv>) {
        (
            number,
            Arc::new(SimDisk::new(CAPACITY_BYTES)),
            Arc::new(MemoryKv::new()),
        )
    };
    bench_on((1..=6).map(disk))
}

/// The same with these disks and their indexes, opened as they are.
pub(crate) fn bench_on(disks: impl Iterator<Item = (u32, Arc<dyn Disk>, Arc<MemoryKv>)>) -> Bench {
    let source = Arc::new(UniformRows::new(1..=6));
    let missing = DiskSlot::Missing("path does not exist".to_owned());
    let mut slots = BTreeMap::from([(DiskId(7), missing)]);
    for (number, disk, index) in disks {
        let options = StoreOptions {
            segment_bytes: 1 << 20,
            batch_bytes_max: 1 << 19,
            next_salt: Arc::new(|| 77),
        };
        let store = FragmentStore::open(DiskId(number), disk, index, &options)
            .expect("the inputs are well-formed")
            .0;
        slots.insert(DiskId(number), DiskSlot::Open(store));
    }
    let service = NodeService::new(NodeId(1), slots, source.clone(), Pool::inline(), Metrics::new());
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(WallTime(0)));
    let network = MemoryNetwork::new(clock);
    let process = |role| ProcessId { role, number: 1 };
    let (node_side, address) = network.attach(process(Role::Node), CLUSTER, Arc::new(service.clone()));
    let (transport, _) = network.attach(process(Role::Gateway), CLUSTER, Arc::new(service));
    Bench {
        transport,
        peer: Peer {
            process: process(Role::Node),
            address,
        },
        source,
        _node_side: node_side,
    }
}

impl Bench {
    pub(crate) async fn call<T: DeserializeOwned>(
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

    pub(crate) async fn store(&self, index: u8, disk: u32, version: u64) -> Result<StoreAnswer, String> {
        let (form, fragments) = stripe(1);
        self.store_as(name(index), form, fragments[usize::from(index)].clone(), disk, version)
            .await
    }

    pub(crate) async fn store_as(
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

pub(crate) fn name(index: u8) -> FragmentName {
    FragmentName {
        profile: ProfileId::Dev,
        stripe: StripeId(42 << 64),
        index,
    }
}

pub(crate) fn stripe(seed: u8) -> (StripeForm, Vec<Bytes>) {
    let bytes: Vec<u8> = (0..300_000_u32)
        .map(|place| (place.wrapping_mul(2_654_435_761) >> 13) as u8 ^ seed)
        .collect();
    erasure::encode(&Bytes::from(bytes), 4, 2).expect("the inputs are well-formed")
}
