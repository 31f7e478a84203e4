//! A gateway that dies between the steps of a write: what it leaves is named by nobody, or by a session that ends by its age.
//!
//! An id of a stripe that was never named can become known only while its birth epoch is open (state machine's own tests, with
//! those of sessions that end by age), so what is found here is garbage that a collector may take without asking anybody else.
//! Not here: uploads that the client breaks off (`cuts`), nodes and replicas that die (`separate_processes`).

use crate::insider::Insider;
use crate::separate_processes::{Cluster, accounts, check_all, put};
use crate::served::{Plan, eventually};
use crate::tamper::fragments;
use crate::world::{noise, tree_of};
use bytes::Bytes;
use client_sdk::client::Client;
use futures_util::{StreamExt as _, stream};
use model::stripe::StripeId;
use reqwest::{Body, Method};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::Path;

const MIB: usize = 1 << 20;
/// Fewer than an upload may write before it needs a session.
const WITHOUT_SESSION: usize = 14 * MIB;
const WITH_SESSION: usize = 30 * MIB;
/// `dev`, the profile of the example files: 4 of 6 fragments rebuild a stripe.
const NEEDED: usize = 4;

/// Stripes of which fragments lie on disks, and of how many fragments.
fn stored(disks: &Path) -> BTreeMap<StripeId, usize> {
    let mut stripes = BTreeMap::new();
    for fragment in fragments(disks) {
        *stripes.entry(fragment.header.name().stripe).or_default() += 1;
    }
    stripes
}

/// Stripes that the current versions of files name; each must be there in full.
async fn named(insider: &Insider, user: &Client, files: &[(String, Vec<u8>)]) -> BTreeSet<StripeId> {
    let mut stripes = BTreeSet::new();
    for (entry, _) in files {
        let manifest = insider.manifest(user, entry, None).await;
        stripes.extend(manifest.stripes.iter().map(|stripe| stripe.id));
    }
    stripes
}

/// Sends so many bytes of a body that has no end, until `is_met`; then the gateway dies.
async fn die_in_upload(cluster: &mut Cluster, user: &Client, length: usize, is_met: impl AsyncFn() -> bool) {
    let content = stream::iter([Ok::<_, Infallible>(Bytes::from(noise(length as u64, length)))]);
    let body = Body::wrap_stream(content.chain(stream::pending()));
    let path = "/api/v1/files/upload?uploadType=media&path=/cut";
    let sending = user.request(Method::POST, path).body(body).send();
    let wait = eventually("the upload never came so far", async || match is_met().await {
        true => Ok(()),
        false => Err("not yet"),
    });
    // Held until the gateway is dead: it ends the session of a client that went away.
    tokio::pin!(sending);
    tokio::select! {
        answer = &mut sending => panic!("the body has no end, and yet: {answer:?}"),
        () = wait => {}
    }
    cluster.kill("gateway-1");
    cluster.start("gateway-1");
    cluster.ready().await;
}

/// Kills the gateway while it writes and commits; the files that are there nevertheless.
async fn die_at_commits(cluster: &mut Cluster, user: &Client) -> Vec<(String, Vec<u8>)> {
    let disks = cluster.plan.path("disks");
    let mut files = Vec::new();
    for round in 0..6 {
        let bytes = noise(100 + round, WITHOUT_SESSION);
        let path = format!("/api/v1/files/upload?uploadType=media&path=/round{round}");
        let sending = user.request(Method::POST, &path).body(bytes.clone()).send();
        let seen = stored(&disks).len();
        let wait = eventually("nothing was written", async || {
            match stored(&disks).len() > seen + round as usize / 2 {
                true => Ok(()),
                false => Err("not yet"),
            }
        });
        let (_, ()) = tokio::join!(sending, async {
            wait.await;
            cluster.kill("gateway-1");
        });
        cluster.start("gateway-1");
        cluster.ready().await;
        let listed = user.list("/", 100, None).await.unwrap().entries;
        if let Some(entry) = listed.iter().find(|entry| entry.name == format!("round{round}")) {
            files.push((entry.id.clone(), bytes));
        }
    }
    files
}

/// shows: D-2.7
#[tokio::test]
async fn a_gateway_that_dies_between_the_steps_of_a_write_leaves_only_what_nobody_names() {
    let mut cluster = Cluster::of(Plan::make());
    let disks = cluster.plan.path("disks");
    cluster.start_all();
    cluster.ready().await;
    let (_, user) = accounts(&cluster.plan).await;
    let insider = Insider::of_plan(&cluster.plan, "gateway-1");
    let kept = noise(1, 9 * MIB);
    let mut files = vec![(put(&user, "/kept", &kept).await, kept.clone())];
    let before = named(&insider, &user, &files).await;
    let known = insider.stripe_counts().await.total;
    assert_eq!(known, before.len() as u64);
    let charged = user.me().await.unwrap().usage.bytes;

    // Data is written, nothing names it yet.
    let is_written = async || {
        fragments(&disks)
            .iter()
            .any(|found| !before.contains(&found.header.name().stripe))
    };
    die_in_upload(&mut cluster, &user, WITHOUT_SESSION, is_written).await;
    let orphans: BTreeSet<StripeId> = stored(&disks).into_keys().filter(|id| !before.contains(id)).collect();
    assert!(!orphans.is_empty());
    assert_eq!(
        insider.stripe_counts().await.total,
        known,
        "a stripe without a version is known"
    );
    assert_eq!(tree_of(&user).await, ["/kept"]);
    assert_eq!(user.me().await.unwrap().usage.bytes, charged);

    // Rows of a session name it.
    let is_charged = async || user.me().await.is_ok_and(|me| me.usage.bytes > charged);
    die_in_upload(&mut cluster, &user, WITH_SESSION, is_charged).await;
    assert_eq!(tree_of(&user).await, ["/kept"]);
    let staged = user.me().await.unwrap().usage.bytes - charged;
    assert!(
        staged > 0 && staged <= WITH_SESSION as u64,
        "{staged} bytes of a session"
    );
    assert!(insider.stripe_counts().await.total > known);
    assert_eq!(named(&insider, &user, &files).await, before);

    files.extend(die_at_commits(&mut cluster, &user).await);
    // What a version names was durable before: at each point of a commit the file is absent or whole.
    let stored = stored(&disks);
    for stripe in named(&insider, &user, &files).await {
        assert!(
            stored.get(&stripe).is_some_and(|count| *count >= NEEDED),
            "{stripe} is named and not there"
        );
    }
    check_all(&user, &files).await;
}
