//! One node with its directories for one test, its calls without a wire, and its clock.
//!
//! Invariant: everything lies in one temporary directory, and the node's lock on its disks is gone when `stop` returns.

use bytes::Bytes;
use codec::erasure;
use codec::fragment::FragmentHeader;
use daemon::clock::{Clock, ManualClock};
use daemon::metrics::Metrics;
use daemon::pool::Pool;
use daemon::random::Random;
use daemon::shutdown::Shutdown;
use daemon::worker::Workers;
use disk::{CappedDisk, Disk, RealDisk};
use kv::rocks::{RocksBudget, RocksKv};
use model::id::{ClusterId, DiskId, NodeId, RowVersion};
use model::process::{ProcessId, Role};
use model::profile::ProfileId;
use model::stripe::{FragmentName, StripeForm, StripeId};
use model::time::WallTime;
use node::config::{Config, DiskConfig};
use node::open::{DiskOpening, IndexOpening, OpenDisk};
use node::serve::{Node, Seams, StartError, start};
use node::store::identity::IDENTITY_FILE;
use node::uniform_rows::UniformRows;
use protocol::frame::{Answer, Call, Method, decode, encode};
use protocol::node::{
    ByteRange, DiskState, DiskStatus, PayloadHash, ReadFragment, RemoveStripe, StoreAnswer, StoreFragment,
    StripeRemoved,
};
use protocol::wire_error::Failure;
use rpc::transport::Handler;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// No condition of a test may take longer; far above what a loaded machine needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const CLUSTER: ClusterId = ClusterId(77);
pub(crate) const SEGMENT_BYTES: u64 = 8 << 20;

/// Directories of a node, and what it is told about them.
pub(crate) struct World {
    pub(crate) directory: TempDir,
    pub(crate) cluster: ClusterId,
    pub(crate) config: Config,
    /// What opens disks instead of the real ones.
    pub(crate) open_disk: OpenDisk,
}

/// A node that runs.
pub(crate) struct Running {
    pub(crate) node: Node,
    pub(crate) metrics: Metrics,
    pub(crate) clock: ManualClock,
    pub(crate) workers: Workers,
    shutdown: Shutdown,
}

impl World {
    /// A node with disks 1 to `disks`, whose directories are there and empty.
    pub(crate) fn new(disks: u32) -> Self {
        let directory = TempDir::new().unwrap();
        let disks = (1..=disks).map(|number| {
            let path = directory.path().join(format!("disk-{number}"));
            std::fs::create_dir(&path).unwrap();
            DiskConfig {
                disk: DiskId(number),
                path,
                capacity_bytes: None,
            }
        });
        let config = Config {
            node: NodeId(1),
            data_dir: directory.path().join("register"),
            disks: disks.collect(),
            segment_bytes: SEGMENT_BYTES,
            scrub_period: Duration::from_secs(3600),
            limbo: Duration::from_secs(24 * 3600),
        };
        Self {
            cluster: CLUSTER,
            config,
            open_disk: Arc::new(open_disk),
            directory,
        }
    }

    pub(crate) fn path(&self, disk: u32) -> PathBuf {
        self.config.disks[disk as usize - 1].path.clone()
    }

    pub(crate) async fn try_start(&self) -> Result<Running, StartError> {
        let clock = ManualClock::new(WallTime(0));
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let (shutdown, metrics) = (Shutdown::new(), Metrics::new());
        let workers = Workers::new(Arc::clone(&shared), shutdown.clone());
        let rocks = RocksBudget::new(8 << 20, 8 << 20).unwrap();
        let seams = Seams {
            cluster: self.cluster,
            directory: Arc::new(RealDisk::open(&self.config.data_dir).unwrap()),
            open_disk: Arc::clone(&self.open_disk),
            open_index: Arc::new(move |disk, opening| {
                let index = disk.path.join("index");
                if opening == IndexOpening::Fresh {
                    std::fs::rename(&index, index.with_extension("damaged")).unwrap();
                }
                Ok(Arc::new(RocksKv::open(&index, &rocks)?))
            }),
            rows: Arc::new(UniformRows::new(1..=3)),
            clock: shared,
            random: Random::seeded(5),
            pool: Pool::inline(),
            metrics: metrics.clone(),
            workers: workers.clone(),
        };
        let node = start(&self.config, &seams).await?;
        Ok(Running {
            node,
            metrics,
            clock,
            workers,
            shutdown,
        })
    }

    pub(crate) async fn start(&self) -> Running {
        self.try_start().await.unwrap()
    }
}

pub(crate) fn open_disk(config: &DiskConfig, opening: DiskOpening) -> Result<Arc<dyn Disk>, disk::DiskError> {
    let store = config.path.join("store");
    Ok(match (opening, config.capacity_bytes) {
        (DiskOpening::Present, Some(capacity)) => Arc::new(CappedDisk::open_holding(&store, IDENTITY_FILE, capacity)?),
        (DiskOpening::Present, None) => Arc::new(RealDisk::open_holding(&store, IDENTITY_FILE)?),
        (DiskOpening::New, Some(capacity)) => Arc::new(CappedDisk::open(&store, capacity)?),
        (DiskOpening::New, None) => Arc::new(RealDisk::open(&store)?),
    })
}

/// The stripe of a number: bytes, name and form, always the same.
pub(crate) fn stripe(number: u8, len: usize) -> (FragmentName, StripeForm, Bytes) {
    // No stretch of one stripe's bytes is in another's.
    let seed = (u64::from(number) + 1).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let bytes: Vec<u8> = (0..len as u64)
        .map(|at| ((at ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8)
        .collect();
    let (form, fragments) = erasure::encode(&Bytes::from(bytes), 1, 2).unwrap();
    let name = FragmentName {
        profile: ProfileId::Copies,
        stripe: StripeId((u128::from(number) << 120) | 1),
        index: 0,
    };
    (name, form, fragments[0].clone())
}

impl Running {
    async fn call(&self, method: Method, message: &impl Serialize, payload: Bytes) -> Result<Answer, Failure> {
        let caller = ProcessId {
            role: Role::Gateway,
            number: 1,
        };
        let call = Call {
            method,
            request_id: 0,
            message: encode(message).unwrap(),
            payload,
        };
        self.node.service().handle(caller, call).await
    }

    /// Stores the fragment of `number`; the code of the refusal.
    pub(crate) async fn put(&self, disk: u32, number: u8, len: usize) -> Result<(), String> {
        let (name, form, payload) = stripe(number, len);
        let header = FragmentHeader::describe(name, form, &payload).unwrap();
        let request = StoreFragment {
            name,
            form,
            payload_hash: PayloadHash(*header.payload_hash()),
            disk: DiskId(disk),
            row_version: RowVersion(1),
        };
        let answer = self.call(Method::StoreFragment, &request, payload).await;
        let answer: StoreAnswer = decode(&answer.map_err(|failure| failure.code)?.message).unwrap();
        assert!(matches!(answer, StoreAnswer::Stored(_)), "{answer:?}");
        Ok(())
    }

    /// Reads it whole and compares; the code of the refusal.
    pub(crate) async fn get(&self, disk: u32, number: u8, len: usize) -> Result<(), String> {
        let (name, form, payload) = stripe(number, len);
        let request = ReadFragment {
            name,
            disk: DiskId(disk),
            ranges: vec![ByteRange::whole(&form)],
        };
        let answer = self.call(Method::ReadFragment, &request, Bytes::new()).await;
        assert!(
            answer.map_err(|failure| failure.code)?.payload == payload,
            "fragment {number} has other bytes"
        );
        Ok(())
    }

    /// Removes it; how many fragments went.
    pub(crate) async fn remove(&self, number: u8) -> u32 {
        let (name, _, _) = stripe(number, 1);
        let request = RemoveStripe {
            profile: name.profile,
            stripe: name.stripe,
        };
        let answer = self.call(Method::RemoveStripe, &request, Bytes::new()).await.unwrap();
        decode::<StripeRemoved>(&answer.message).unwrap().fragments
    }

    pub(crate) fn status(&self, disk: u32) -> DiskStatus {
        let status = self.node.service().status();
        status
            .disks
            .into_iter()
            .find(|status| status.disk == DiskId(disk))
            .unwrap()
    }

    /// Why a disk is missing; panics when it is not.
    pub(crate) fn missing(&self, disk: u32) -> String {
        match self.status(disk).state {
            DiskState::Missing(reason) => reason,
            other => panic!("disk {disk} is {other:?}"),
        }
    }

    /// The value of a series on the metrics page.
    pub(crate) fn metric(&self, series: &str) -> Option<i64> {
        let page = self.metrics.encode();
        let value = page
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        value.parse().ok()
    }

    /// Lets the workers' time run until `condition` holds.
    pub(crate) async fn advance_until(&self, condition: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !condition(self) {
            assert!(begun.elapsed() < PATIENCE, "the condition never held");
            self.clock.advance(Duration::from_secs(1));
            // The workers' disk work runs on threads of its own: they get the time of this one.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub(crate) async fn stop(self) {
        self.shutdown.request();
        self.workers.ended().await;
        self.node.stop().await;
    }
}

/// Every file and folder below `path` with its bytes, for "it was not touched". Of a running node, compaction may move or remove
/// what was just listed: what is gone by the time it is read is not among the contents.
pub(crate) fn contents(path: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        for row in std::fs::read_dir(&folder).unwrap() {
            let row = row.unwrap();
            if row.file_type().unwrap().is_dir() {
                folders.push(row.path());
                found.insert(row.path(), None);
                continue;
            }
            match std::fs::read(row.path()) {
                Ok(bytes) => {
                    found.insert(row.path(), Some(bytes));
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => panic!("{} does not read: {error}", row.path().display()),
            }
        }
    }
    found
}

/// The segment files of a disk, those in limbo too.
pub(crate) fn segments(disk: &Path) -> Vec<PathBuf> {
    let all = contents(&disk.join("store").join("journal"));
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|end| end == "seg");
    all.into_keys().filter(is_segment).collect()
}
