//! What a node's own code costs, on a real directory and RocksDB, beside what the disk itself does.
//!
//! Place in the picture: `cargo run --release -p node --example store_bench -- DIRECTORY WHAT`; prints a table. WHAT is `calls`
//! (calls to the node's handler as if they came from the wire, without a wire), `fill N` (a disk of N small fragments), `start
//! INDEX` (that disk started; an INDEX that is not there yet is made anew from the segments).
//! Not here: the network, other machines (`make bench`).
#![allow(clippy::disallowed_methods, reason = "a measurement reads the real clock")]

use bytes::Bytes;
use codec::erasure;
use codec::fragment::FragmentHeader;
use daemon::metrics::Metrics;
use daemon::pool::Pool;
use disk::{Disk, RealDisk};
use kv::rocks::{RocksBudget, RocksKv};
use kv::seam::Kv;
use model::id::{DiskId, NodeId, RowVersion};
use model::process::{ProcessId, Role};
use model::profile::ProfileId;
use model::stripe::{FragmentName, StripeForm, StripeId};
use node::service::{DiskSlot, NodeService};
use node::store::{FragmentStore, StoreOptions};
use node::uniform_rows::UniformRows;
use protocol::frame::{Call, Method, encode};
use protocol::node::{ByteRange, PayloadHash, ReadFragment, StoreFragment};
use rpc::transport::Handler;
use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const SEGMENT_BYTES: u64 = 256 << 20;
const DISK: DiskId = DiskId(1);
/// Each measurement ends after this time, or after its bytes.
const SPAN: Duration = Duration::from_secs(4);
const BYTES_MAX: u64 = 2 << 30;

/// A fragment of one length: every stripe of the bench has the same bytes and another id.
struct Sample {
    form: StripeForm,
    payload: Bytes,
    hash: [u8; 32],
}

fn name(number: u64) -> FragmentName {
    // An odd factor permutes the numbers, so that names come in no order, as drawn ones do.
    let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    FragmentName {
        profile: ProfileId::Copies,
        stripe: StripeId((u128::from(spread) << 64) | u128::from(number)),
        index: 0,
    }
}

fn sample(len: usize) -> Outcome<Sample> {
    let bytes: Vec<u8> = (0..len as u64)
        .map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u8)
        .collect();
    let (form, mut fragments) = erasure::encode(&Bytes::from(bytes), 1, 2)?;
    let payload = fragments.swap_remove(0);
    let hash = *FragmentHeader::describe(name(0), form, &payload)?.payload_hash();
    Ok(Sample { form, payload, hash })
}

fn options() -> StoreOptions {
    let salt = AtomicU64::new(1);
    StoreOptions {
        segment_bytes: SEGMENT_BYTES,
        batch_bytes_max: 8 << 20,
        next_salt: Arc::new(move || salt.fetch_add(0x9e37_79b9, Ordering::Relaxed)),
    }
}

fn open(directory: &Path, index: &str) -> Outcome<(FragmentStore, Duration)> {
    let begun = Instant::now();
    let budget = RocksBudget::new(64 << 20, 64 << 20)?;
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(&directory.join("store"))?);
    let kv: Arc<dyn Kv> = Arc::new(RocksKv::open(&directory.join(index), &budget)?);
    let (store, _) = FragmentStore::open(DISK, disk, kv, &options())?;
    Ok((store, begun.elapsed()))
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match words.as_slice() {
        [directory, "calls"] => {
            let directory = PathBuf::from(directory);
            let root = RealDisk::open(&directory)?;
            runtime.block_on(calls(&root, &directory))
        }
        [directory, "fill", fragments] => runtime.block_on(fill(Path::new(directory), fragments.parse()?)),
        [directory, "start", index] => runtime.block_on(start(Path::new(directory), index)),
        _ => Err("say: DIRECTORY calls, DIRECTORY fill N, or DIRECTORY start INDEX".into()),
    }
}

/// The disk alone, through the same seam: appends of `len` bytes, each synced.
fn disk_alone(disk: &dyn Disk, len: usize) -> Outcome<()> {
    let file = disk.create("machine")?;
    let buffer = vec![7_u8; len];
    let (begun, mut count) = (Instant::now(), 0_u64);
    while begun.elapsed() < SPAN && count * (len as u64) < BYTES_MAX {
        file.write_at(count * len as u64, &[&buffer])?;
        file.sync()?;
        count += 1;
    }
    let title = format!("disk alone: {} KiB append + fdatasync", len >> 10);
    show(&title, count, count * len as u64, begun.elapsed());
    drop(file);
    Ok(disk.remove("machine")?)
}

fn show(title: &str, count: u64, bytes: u64, took: Duration) {
    let seconds = took.as_secs_f64();
    println!(
        "{title:<44} {:>10.0} {:>10.1}",
        count as f64 / seconds,
        bytes as f64 / 1e6 / seconds
    );
}

async fn calls(root: &RealDisk, directory: &Path) -> Outcome<()> {
    println!("{:<44} {:>10} {:>10}", "", "ops/s", "MB/s");
    disk_alone(root, 8 << 20)?;
    for (number, len) in [4 << 10, 64 << 10, 256 << 10, 1 << 20].into_iter().enumerate() {
        // Beside what it is compared with, since the disk of a shared machine is not the same from minute to minute.
        disk_alone(root, len)?;
        for at_once in [1, 16, 64] {
            let place = directory.join(format!("disk-{number}-{at_once}"));
            drop(RealDisk::open(&place)?);
            let (store, _) = open(&place, "index")?;
            let disks = BTreeMap::from([(DISK, DiskSlot::Open(store.clone()))]);
            let pool = Pool::of_machine()?;
            let service = NodeService::new(
                NodeId(1),
                disks,
                Arc::new(UniformRows::new(1..=3)),
                pool,
                Metrics::new(),
            );
            let sample = Arc::new(sample(len)?);
            let stored = drive(
                &format!("put {} KiB, {at_once} at once", len >> 10),
                at_once,
                u64::MAX,
                {
                    let (service, sample) = (service.clone(), Arc::clone(&sample));
                    move |number| put(service.clone(), Arc::clone(&sample), number)
                },
            )
            .await?;
            drive(
                &format!("get {} KiB, {at_once} at once", len >> 10),
                at_once,
                stored,
                move |number| get(service.clone(), len, number),
            )
            .await?;
            store.stop().await;
        }
    }
    Ok(())
}

/// Calls `call` with 0, 1, ... from `at_once` tasks until the time, the bytes or `count_max` are used up; answers how many.
async fn drive<F>(
    title: &str,
    at_once: usize,
    count_max: u64,
    call: impl Fn(u64) -> F + Clone + Send + 'static,
) -> Outcome<u64>
where
    F: Future<Output = Outcome<usize>> + Send,
{
    let (next, bytes) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let begun = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..at_once {
        let (next, bytes, call) = (Arc::clone(&next), Arc::clone(&bytes), call.clone());
        tasks.push(tokio::spawn(async move {
            let mut done = 0_u64;
            while begun.elapsed() < SPAN && bytes.load(Ordering::Relaxed) < BYTES_MAX {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count_max {
                    break;
                }
                bytes.fetch_add(call(number).await? as u64, Ordering::Relaxed);
                done += 1;
            }
            Outcome::Ok(done)
        }));
    }
    let mut count = 0;
    for task in tasks {
        count += task.await??;
    }
    show(title, count, bytes.load(Ordering::Relaxed), begun.elapsed());
    Ok(count)
}

const CALLER: ProcessId = ProcessId {
    role: Role::Gateway,
    number: 1,
};

async fn put(service: NodeService, sample: Arc<Sample>, number: u64) -> Outcome<usize> {
    let request = StoreFragment {
        name: name(number),
        form: sample.form,
        payload_hash: PayloadHash(sample.hash),
        disk: DISK,
        row_version: RowVersion(1),
    };
    let call = Call {
        method: Method::StoreFragment,
        request_id: 0,
        message: encode(&request)?,
        payload: sample.payload.clone(),
    };
    service.handle(CALLER, call).await?;
    Ok(sample.payload.len())
}

async fn get(service: NodeService, len: usize, number: u64) -> Outcome<usize> {
    let request = ReadFragment {
        name: name(number),
        disk: DISK,
        ranges: vec![ByteRange {
            offset: 0,
            len: len as u32,
        }],
    };
    let call = Call {
        method: Method::ReadFragment,
        request_id: 0,
        message: encode(&request)?,
        payload: Bytes::new(),
    };
    Ok(service.handle(CALLER, call).await?.payload.len())
}

/// Fills a disk with small fragments.
async fn fill(directory: &Path, fragments: u64) -> Outcome<()> {
    drop(RealDisk::open(directory)?);
    let (store, _) = open(directory, "index")?;
    let sample = Arc::new(sample(256)?);
    let filled = Instant::now();
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for _ in 0..512 {
        let (store, sample, next) = (store.clone(), Arc::clone(&sample), Arc::clone(&next));
        tasks.push(tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= fragments {
                    return Outcome::Ok(());
                }
                let header = FragmentHeader::describe(name(number), sample.form, &sample.payload)?;
                store.store(header, sample.payload.clone()).await?;
            }
        }));
    }
    for task in tasks {
        task.await??;
    }
    show("fill", fragments, fragments * 256, filled.elapsed());
    store.stop().await;
    Ok(())
}

async fn start(directory: &Path, index: &str) -> Outcome<()> {
    let (store, took) = open(directory, index)?;
    println!(
        "started in {:.2} s, {} fragments",
        took.as_secs_f64(),
        store.fragments()
    );
    store.stop().await;
    Ok(())
}
