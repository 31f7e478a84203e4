//! A node whose disk takes a part of each write and then fails: it is not counted, and what it lacks is told and queued.
//!
//! Everything else is real: the node's own store and journal, QUIC, the gateway's fan-out, the state. Each node has one disk, so that
//! nobody else has room for the fragment.
//! Not here: what the store makes of half a record when it starts again (node), nodes that are away (`degraded`).

use crate::inside::Inside;
use crate::served::eventually;
use crate::world::noise;
use client_sdk::client::Target;
use client_sdk::error::ClientError;
use disk::judged::{Io, Judge, Verdict};
use disk::{Disk, DiskError, JudgedDisk};
use model::id::DiskId;
use protocol::metadata::query::{DriveAsk, DriveQuery, StripeFacts};
use protocol::metadata::{Query, QueryAnswer};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Of the third node.
const FAILING: DiskId = DiskId(3);
/// Shorter writes are none of a fragment.
const FRAGMENT_BYTES_MIN: usize = 10_000;
/// A stripe of 4+2.
const FILE_BYTES: usize = 300_000;

/// The disk that fails, while it is told to.
#[derive(Clone, Default)]
struct Failing {
    is_failing: Arc<AtomicBool>,
    cut: Arc<AtomicUsize>,
}

impl Failing {
    /// `inner`, of whose longer writes half is done.
    fn over(&self, inner: Arc<dyn Disk>) -> Arc<dyn Disk> {
        let own = self.clone();
        let judge: Judge = Arc::new(move |io| match io {
            Io::Write(name, _, parts) if own.is_failing.load(Ordering::SeqCst) => {
                let len_bytes: usize = parts.iter().map(|part| part.len()).sum();
                if len_bytes < FRAGMENT_BYTES_MIN {
                    return Verdict::Pass;
                }
                own.cut.fetch_add(1, Ordering::SeqCst);
                Verdict::Cut(len_bytes / 2, DiskError::Io(format!("{name}: input/output error")))
            }
            _ => Verdict::Pass,
        });
        Arc::new(JudgedDisk::new(inner, judge))
    }
}

/// The stripes of the demo user's drive that wait for repair.
async fn queued(inside: &Inside) -> Vec<StripeFacts> {
    let (_, facts) = inside.demo().await;
    let query = Query::Drive(DriveQuery {
        drive: facts.drive,
        principal: None,
        ask: DriveAsk::DegradedStripes { limit: 10 },
    });
    match inside.core().metadata.query(&query, 1).await.unwrap().0 {
        QueryAnswer::Stripes(stripes) => stripes,
        other => panic!("asked for stripes, was answered {other:?}"),
    }
}

/// shows: F29
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_writes_half_of_a_fragment_is_not_counted_and_the_stripe_is_queued() {
    let failing = Failing::default();
    let planted = failing.clone();
    let inside = Inside::begin(&["--disks-per-node", "1"], move |base| {
        base.node_front = Arc::new(move |disk, inner: Arc<dyn Disk>| match disk {
            FAILING => planted.over(inner),
            _ => inner,
        });
    })
    .await;
    let client = &inside.client;
    let whole = Target::new_file("/whole");
    let put = eventually("upload", async || client.put(&whole, noise(1, FILE_BYTES).into()).await);
    let put = put.await;
    assert!(!put.receipt.degraded, "{:?}", put.receipt);
    assert_eq!(queued(&inside).await, []);

    failing.is_failing.store(true, Ordering::SeqCst);
    let content = noise(2, FILE_BYTES);
    let short = Target::new_file("/short");
    let put = eventually("upload", async || client.put(&short, content.clone().into()).await).await;
    assert!(failing.cut.load(Ordering::SeqCst) > 0, "no write was cut");
    assert!(put.receipt.degraded, "{:?}", put.receipt);
    // A region has two nodes, and the loss of two more fragments would be one too many.
    assert_eq!(put.receipt.survives.as_str(), "node", "{:?}", put.receipt);
    let stripes = queued(&inside).await;
    let [stripe] = stripes.as_slice() else {
        panic!("one stripe lacks a fragment: {stripes:?}")
    };
    let [astray] = stripe.astray.as_slice() else {
        panic!("one fragment is missing: {stripe:?}")
    };
    assert_eq!(astray.disk, None, "half a fragment counts nowhere: {stripe:?}");
    assert!(!stripe.is_damaged && stripe.form.k + stripe.form.m == 6, "{stripe:?}");

    let read = async || Ok::<_, ClientError>(client.get(&put.entry.id, None).await?.bytes().await?);
    assert!(eventually("a read", read).await == content, "it came back altered");
    drop(inside.stop().await);
}
