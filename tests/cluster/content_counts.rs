//! What the exported gauges of contents say, against contents that are known byte by byte.
//!
//! Grace and birth epochs are those of a dev cluster, long enough that nothing leaves the disks while it is looked at, but where removal
//! itself is looked at. Blocks die early where more of a drive waits than its quota. Each wait is for a state.
//! Not here: that space comes back (`collection`), what the state counts (state machine's own tests).

use crate::collection::{purge_entry, purge_entry_as};
use crate::insider::Insider;
use crate::served::eventually;
use crate::world::{World, noise};
use chaos::meter;
use client_sdk::client::{Client, Target};
use protocol::metadata::group::LEASE_MS_MAX;

const MIB: u64 = 1 << 20;

/// The gauges of all groups, in bytes but for the last three.
#[derive(Debug, PartialEq)]
struct Shown {
    logical: u64,
    charged: u64,
    released: u64,
    living: u64,
    dead: u64,
    stored: u64,
    sealed: u64,
    deduplication_percent: u64,
    compression_percent: u64,
    oldest_waiting_s: u64,
}

async fn shown(world: &World) -> Shown {
    let page = world.client.text("/metrics").await.unwrap();
    let sum = |name: &str| meter::sum(&page, name).unwrap_or_else(|| panic!("{name} is not shown")) as u64;
    let bytes = |kind: &str| sum(&format!("metadata_content_bytes{{kind=\"{kind}\"}}"));
    Shown {
        logical: bytes("logical"),
        charged: bytes("charged"),
        released: bytes("released"),
        living: bytes("living"),
        dead: bytes("dead"),
        stored: bytes("stored"),
        sealed: bytes("sealed"),
        deduplication_percent: sum("metadata_deduplication_percent"),
        compression_percent: sum("metadata_compression_percent"),
        oldest_waiting_s: sum("metadata_oldest_waiting_seconds"),
    }
}

/// Waits until the gauges are so.
async fn becomes(world: &World, is_so: impl Fn(&Shown) -> bool) -> Shown {
    eventually("the gauges show something else", async || {
        let shown = shown(world).await;
        if is_so(&shown) {
            Ok(shown)
        } else {
            Err(format!("{shown:?}"))
        }
    })
    .await
}

/// Whether `sealed` is what so many bytes that cannot be made smaller take when they are sealed: at most a thousandth more.
fn is_sealed(sealed: u64, plain: u64) -> bool {
    (plain..=plain + plain / 1000).contains(&sealed)
}

/// Whether `stored` is what these take in fragments of four and two more, each rounded up.
fn is_coded(shown: &Shown) -> bool {
    let whole = shown.living + shown.dead;
    (whole * 3 / 2..=whole * 3 / 2 + 1000).contains(&shown.stored)
}

/// The id of a new file of `mib` MiB that follow from `seed`.
async fn put(client: &Client, path: &str, seed: u64, mib: u64) -> String {
    let content = noise(seed, (mib * MIB) as usize);
    client
        .put(&Target::new_file(path), content.into())
        .await
        .unwrap()
        .entry
        .id
}

#[tokio::test]
async fn the_gauges_of_contents_say_what_was_put_twice_what_was_purged_and_what_is_dead() {
    let world = World::start().await;
    let nothing = becomes(&world, |shown| shown.logical == 0 && shown.oldest_waiting_s == 0).await;
    assert_eq!((nothing.charged, nothing.stored, nothing.sealed), (0, 0, 0));
    assert_eq!((nothing.deduplication_percent, nothing.compression_percent), (0, 0));
    for path in ["/once", "/twice"] {
        put(&world.client, path, 1, 3).await;
    }
    let is_twice = |shown: &Shown| {
        (shown.logical, shown.charged, shown.deduplication_percent) == (6 * MIB, 3 * MIB, 200) && is_coded(shown)
    };
    let twice = becomes(&world, |shown| is_twice(shown) && is_sealed(shown.living, 3 * MIB)).await;
    assert_eq!((twice.released, twice.dead), (0, 0));
    // Noise is sealed as it is: a little longer, so the percentage is the next one.
    assert_eq!((twice.sealed, twice.compression_percent), (twice.living, 101));

    // Purged, it waits for its end, and its blocks live until then.
    let quota = 4 * MIB;
    let (ada, _) = world.user("ada", quota).await;
    let gone = put(&ada, "/gone", 2, 3).await;
    purge_entry_as(&world, &ada, &gone).await;
    let waits = becomes(&world, |shown| is_twice(shown) && shown.released == 3 * MIB).await;
    assert!(is_sealed(waits.living, 6 * MIB) && waits.dead == 0, "{waits:?}");
    assert_eq!((waits.sealed, waits.compression_percent), (waits.living, 101));

    // More waits than the quota: the oldest die, whole blocks of them, until what waits fits it.
    let more = put(&ada, "/more", 3, 3).await;
    purge_entry_as(&world, &ada, &more).await;
    let has_died = |shown: &Shown| {
        let died = (6 * MIB).saturating_sub(shown.released);
        is_twice(shown)
            && (2 * MIB..=6 * MIB).contains(&died)
            && is_sealed(shown.dead, died)
            && is_sealed(shown.living, 9 * MIB - died)
    };
    let died = becomes(&world, |shown| has_died(shown) && shown.oldest_waiting_s == 0).await;
    assert!(died.released <= quota, "{died:?}");
    assert_eq!((died.sealed, died.compression_percent), (died.living, 101));
}

#[tokio::test]
async fn what_could_be_removed_and_is_not_is_told_by_how_long_it_waits() {
    // The shortest epochs there are: a stripe may go when 25 of them are over.
    let options = ["--birth-epoch-ms", "100", "--block-grace-ms", "100", "--limbo-s", "0"];
    let world = World::start_with(&options).await;
    let insider = Insider::of_dev(&world.data_dir(), "gateway-1");
    // Whoever has the lease and does nothing keeps everybody else from removing.
    insider.take_leases(LEASE_MS_MAX).await;
    let gone = put(&world.client, "/gone", 1, 3).await;
    purge_entry(&world, &gone).await;
    let waits = becomes(&world, |shown| shown.oldest_waiting_s > 0).await;
    assert!(waits.stored > 0 && waits.logical == 0, "{waits:?}");
    insider.take_leases(1).await;
    becomes(&world, |shown| (shown.stored, shown.oldest_waiting_s) == (0, 0)).await;
}
