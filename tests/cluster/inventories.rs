//! What groups count on against what disks hold: stripes that nobody can name any more go, those that may still be named stay, and
//! fragments that are gone are counted.
//!
//! Epochs are short; each wait is for a state, never for a span. Not here: sums and their parts (node's and the state machine's own
//! tests), which cells differ (the gateway's), orphans under every other fault (`chaos::world`).

use crate::collection::eventually;
use crate::inside::Inside;
use crate::repacking::{Known, put_batch};
use crate::world::{World, noise};
use bytes::Bytes;
use gateway::drive::Core;
use gateway::drive::collector::inventory::Inventory;
use gateway::drive::directory::peer_of;
use gateway::metrics;
use model::entry::PlacedStripe;
use model::id::{DiskId, EntryId, Slot};
use model::inventory::leading;
use model::profile::ProfileId;
use model::stripe::StripeId;
use model::time::BirthEpoch;
use protocol::frame::Method;
use protocol::node::{CellFragments, ListCells, RemoveStripe, StripeRemoved};
use rpc::typed::{self, CallOptions};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// 24 of them are time enough to name a stripe; where a machine is too slow for that, the stripe is written again.
const OPTIONS: [&str; 4] = ["--birth-epoch-ms", "200", "--limbo-s", "0"];
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
const ORPHAN_BYTES: usize = 100_000;
/// Inventories that are taken while files are written.
const BESIDE: usize = 10;
/// How often a stripe is written whose epoch a slow machine lets close before an inventory is through.
const ROUNDS_MAX: usize = 20;

async fn told<T: DeserializeOwned>(core: &Core, disk: DiskId, method: Method, request: &(impl Serialize + Sync)) -> T {
    let known = core.directory.last_known().unwrap();
    let peer = peer_of(&known.map, disk).unwrap();
    let (transport, options) = (core.seams.transport.as_ref(), CallOptions::within(ANSWER_DEADLINE));
    let (answer, _) = typed::ask::<T>(transport, &peer, method, request, options)
        .await
        .unwrap();
    answer
}

/// How many fragments of a stripe lie on all disks.
async fn lying(core: &Core, profile: ProfileId, stripe: StripeId) -> usize {
    let mut fragments = 0;
    for disk in core.directory.last_known().unwrap().map.disks.keys() {
        let request = ListCells {
            disk: *disk,
            profile,
            leading: leading(stripe),
            slots: vec![(stripe.slot(), BirthEpoch::MAX)],
            after: None,
        };
        let listed: CellFragments = told(core, *disk, Method::ListCells, &request).await;
        fragments += listed.names.iter().filter(|name| name.stripe == stripe).count();
    }
    fragments
}

/// Writes a stripe of the demo user's drive that no command names.
async fn write_unnamed(inside: &Inside, born: BirthEpoch) -> (ProfileId, StripeId) {
    let (core, (_, facts)) = (inside.core(), inside.demo().await);
    let id = StripeId::new(core.seams.random.u128(), facts.drive.slot(), born);
    let bytes = Bytes::from(noise(core.seams.random.u64(), ORPHAN_BYTES));
    let coded = core.code_stripe(bytes, facts.profile).await.unwrap();
    core.write_stripe(id, &coded, 1).await.unwrap().unwrap();
    (coded.profile, id)
}

async fn placed(inside: &Inside, entry: &str) -> PlacedStripe {
    let (caller, _) = inside.demo().await;
    let entry = EntryId::parse(entry).unwrap();
    let manifest = inside.core().manifest(&caller, entry, None, None).await.unwrap();
    manifest.stripes[0].clone()
}

/// An inventory in which everybody answered, and of which `is_so`.
async fn inventory(core: &Core, what: &str, is_so: impl Fn(&Inventory) -> bool) -> Inventory {
    let mut last = Inventory::default();
    eventually(what, async || {
        let found = core.take_inventory().await.map_err(|failure| failure.to_string())?;
        if found.is_whole && found.silent_disks == 0 && is_so(&found) {
            last = found;
            return Ok(());
        }
        Err(format!("{found:?}"))
    })
    .await;
    last
}

fn missing(core: &Core) -> i64 {
    let gauge = core.seams.metrics.gauge(&metrics::MISSING_FRAGMENTS);
    gauge.with_label_values::<&str>(&[]).get()
}

/// A stripe that nobody has named and that may still be named, behind an inventory.
async fn passed_by(inside: &Inside, slot: Slot) -> (ProfileId, StripeId) {
    let core = inside.core();
    for _ in 0..ROUNDS_MAX {
        let (profile, id) = write_unnamed(inside, inside.epoch(slot).await).await;
        core.take_inventory().await.unwrap();
        let fragments = lying(core, profile, id).await;
        // A machine that was too slow for that proves nothing and tries again.
        if id.born().is_open(inside.epoch(slot).await) {
            assert!(fragments > 0, "a stripe that may still be named was removed");
            return (profile, id);
        }
    }
    panic!("in {ROUNDS_MAX} rounds no inventory ended before a stripe's epoch closed: the machine is too slow");
}

/// Takes the fragments of a stripe from one node, behind the group's back; how many there were.
async fn lose(core: &Core, stripe: &PlacedStripe) -> u64 {
    let (_, places) = core.directory.places(stripe, 1).await.unwrap();
    let request = RemoveStripe {
        profile: stripe.profile,
        stripe: stripe.id,
    };
    let removed: StripeRemoved = told(core, places[0][0], Method::RemoveStripe, &request).await;
    assert!(removed.fragments > 0);
    u64::from(removed.fragments)
}

/// What is written while inventories are taken is none of their business.
async fn write_beside_inventories(inside: &Inside) -> Vec<Known> {
    let writing = async {
        let mut files = Vec::new();
        for seed in 2..5 {
            files.extend(put_batch(&inside.client, seed).await);
        }
        files
    };
    let counting = async {
        for _ in 0..BESIDE {
            inside.core().take_inventory().await.unwrap();
        }
    };
    tokio::join!(writing, counting).0
}

#[tokio::test]
async fn orphans_of_closed_epochs_go_those_that_may_be_named_stay_and_what_was_lost_is_counted() {
    let inside = Inside::start_with(&OPTIONS).await;
    let core = inside.core();
    let mut files = put_batch(&inside.client, 1).await;
    let stripe = placed(&inside, &files[0].0).await;
    let slot = stripe.id.slot();
    eventually("the epoch stays open", async || {
        let closed = inside.epoch(slot).await.newest_closed();
        let is_closed = closed >= Some(stripe.id.born());
        is_closed.then_some(()).ok_or(closed)
    })
    .await;
    let found = inventory(core, "what is whole is not found so", |found| found.missing == 0).await;
    assert!(found.equal > 0, "{found:?}");

    let closed = inside.epoch(slot).await.newest_closed().unwrap();
    let orphan = write_unnamed(&inside, closed).await;
    let young = passed_by(&inside, slot).await;
    for (profile, id) in [orphan, young] {
        eventually("an orphan stays", async || {
            core.take_inventory().await.map_err(|failure| failure.to_string())?;
            match lying(core, profile, id).await {
                0 => Ok(()),
                fragments => Err(format!("{fragments} fragments")),
            }
        })
        .await;
    }
    let removed = core.seams.metrics.counter(&metrics::ORPHANS_REMOVED);
    assert!(removed.with_label_values::<&str>(&[]).get() > 0);

    files.extend(write_beside_inventories(&inside).await);
    let lost = lose(core, &stripe).await;
    // A fragment may also have lain where a disk that was slow had taken it beside the one that replaced it.
    let is_counted = |found: &Inventory| (1..=lost).contains(&found.missing);
    inventory(core, "what was lost is not counted", is_counted).await;
    eventually("what was lost is not shown", async || {
        core.take_inventory().await.map_err(|failure| failure.to_string())?;
        let shown = missing(core);
        let is_shown = (1..=lost as i64).contains(&shown);
        is_shown.then_some(()).ok_or(format!("{shown} fragments are missing"))
    })
    .await;
    for (id, expected) in &files {
        let read = inside.client.get(id, None).await.unwrap().bytes().await.unwrap();
        assert!(read == *expected, "{id} reads otherwise");
    }
    drop(inside.stop().await);
}

/// Nobody knows what lies on a disk that does not answer.
#[tokio::test]
async fn disks_that_are_away_lack_nothing() {
    let world = World::start_with(&["--birth-epoch-ms", "100"]).await;
    world.put("/kept", &noise(1, 1 << 20)).await;
    let waits_for = async |name: &str, is_so: fn(f64) -> bool| {
        eventually(name, async || {
            let value = world.metric(name).await;
            if is_so(value) { Ok(()) } else { Err(value) }
        })
        .await;
    };
    waits_for("gateway_inventory_cells_total{outcome=\"equal\"}", |cells| cells > 0.0).await;
    let node = world.nodes()[0];
    world.stop_node(node).await;
    waits_for("gateway_inventory_silent_disks", |disks| disks > 0.0).await;
    // What is missing beside a silent disk is shown too, so this is a count of nothing and no count left out.
    assert_eq!(world.metric("gateway_missing_fragments").await, 0.0);
    world.start_node(node).await;
    waits_for("gateway_inventory_silent_disks", |disks| disks == 0.0).await;
    assert_eq!(world.metric("gateway_missing_fragments").await, 0.0);
}
