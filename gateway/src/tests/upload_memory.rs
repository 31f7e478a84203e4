//! What one upload holds while no disk answers: three stripes, what the next one is laid from, and no more of its body.
//!
//! Nothing here waits for time: whoever can go on is let go on until nobody can.
//! Not here: what a process takes in all (`make bench` holds the gateway's peak beside its goal), many uploads (`bodies`).

use super::bodies::order;
use super::wire::noise;
use super::world::{DEADLINE, World};
use crate::metrics;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use model::stripe::STRIPE_BYTES_MAX;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const MIB: usize = 1 << 20;
/// What is asked, whatever the gateway's own constants say.
const STRIPES_MAX: usize = 3;
/// Of one stripe in flight: its plain blocks, the sealed stripe, and parity that is at most as long.
const STRIPE_HELD_BYTES: u64 = 3 * STRIPE_BYTES_MAX as u64;
/// Of the body, each of a MiB; far more than may be held.
const PARTS: usize = 64;
/// Far more than a call from here to a shelf has steps.
const STEPS: usize = 1_000;

/// Lets everybody else go on, until the body is not read any further.
async fn rests(pulled: &AtomicUsize) {
    let mut before = 0;
    loop {
        for _ in 0..STEPS {
            tokio::task::yield_now().await;
        }
        let now = pulled.load(Ordering::Relaxed);
        if now > 0 && now == before {
            return;
        }
        before = now;
    }
}

/// What all uploads hold of the gateway's budget.
fn held_bytes(world: &World) -> u64 {
    let gauge = |definition| {
        let gauge = world.core().seams.metrics.gauge(definition);
        gauge.with_label_values::<&str>(&[]).get() as u64
    };
    gauge(&metrics::BUDGET_BYTES) - gauge(&metrics::BUDGET_FREE_BYTES)
}

/// shows: CMP-block side=memory
#[tokio::test]
async fn an_upload_holds_three_stripes_while_no_disk_answers_and_never_more() {
    let world = World::start().await;
    let held = world.hold_shelves().await;
    let pulled = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&pulled);
    let part = move |number: usize| {
        counted.fetch_add(MIB, Ordering::Relaxed);
        Ok(Bytes::from(noise(number as u64, MIB)))
    };
    let body = stream::iter((0..PARTS).map(part)).boxed();
    let (core, caller) = (Arc::clone(world.core()), world.caller);
    let upload = tokio::spawn(async move {
        let admitted = core.admit(None).unwrap();
        core.upload(&caller, admitted, order(), body).await.is_ok()
    });
    let rested = tokio::time::timeout(DEADLINE, rests(&pulled));
    rested.await.expect("the body is read on and on");

    let under_way = world.under_way();
    assert_eq!(under_way.stripes.len(), STRIPES_MAX, "{under_way:?}");
    let most = STRIPES_MAX as u64 * STRIPE_HELD_BYTES;
    assert_eq!(held_bytes(&world), most);
    // The body as it came, and the fragments that were made of it.
    let found = (pulled.load(Ordering::Relaxed) + under_way.bytes) as u64;
    assert!(found <= most, "{found} bytes are held, {most} at most");

    drop(held);
    let done = tokio::time::timeout(DEADLINE, upload).await;
    assert!(done.expect("the upload does not go on").unwrap(), "the upload failed");
    assert_eq!(pulled.load(Ordering::Relaxed), PARTS * MIB);
    assert_eq!(world.under_way().stripes_most, STRIPES_MAX);
    assert_eq!(held_bytes(&world), 0);
    assert!(world.has("/f").await);
}
