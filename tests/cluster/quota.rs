//! Quotas under uploads that do not say how long they are, that race, and that are refused late.
//!
//! Not here: what counts and for whom (`accounts`).

use crate::wire::{Sender, chunk, head};
use crate::world::{World, noise, tree_of};
use client_sdk::client::{Client, Target};
use client_sdk::error::ClientError;
use reqwest::Method;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;
const LINE: &str = "POST /api/v1/files/upload?uploadType=media&path=/big";

async fn held(client: &Client) -> u64 {
    client.me().await.unwrap().usage.bytes
}

/// Waits until the drive holds no more than this: pages that nobody counts any more are reaped behind the request.
pub(crate) async fn falls_to(client: &Client, bytes: u64) {
    let begun = Instant::now();
    while held(client).await != bytes {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "{} bytes stay charged",
            held(client).await
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// shows: C-5 scale=1/2
#[tokio::test]
async fn a_length_over_the_quota_is_refused_before_the_body_and_an_undeclared_one_when_it_passes() {
    let world = World::start().await;
    let quota = 20 * MIB;
    let (ada, _) = world.user("ada", quota as u64).await;
    let content = noise(1, quota + MIB);

    let mut declared = Sender::open(&world).await;
    let length = format!("content-length: {}\r\n", quota + 1);
    declared.send(&head(&ada, LINE, &length)).await;
    let problem = declared.answer().await.refused(507, "quota_exceeded");
    assert_eq!(problem.fields["quota_bytes"], quota.to_string());

    // Neither a body that fits one command nor one that needs a session leaves anything.
    let mut undeclared = Sender::open(&world).await;
    undeclared
        .send(&head(&ada, LINE, "transfer-encoding: chunked\r\n"))
        .await;
    undeclared.send(&[chunk(&content), chunk(b"")].concat()).await;
    undeclared.finish().await.refused(507, "quota_exceeded");
    assert_eq!(tree_of(&ada).await, [""; 0]);
    falls_to(&ada, 0).await;

    let full = ada
        .put(&Target::new_file("/big"), content[..quota].to_vec().into())
        .await
        .unwrap();
    assert_eq!((full.entry.size, held(&ada).await), (quota as u64, quota as u64));
    let mut one = Sender::open(&world).await;
    one.send(&head(
        &ada,
        &LINE.replace("/big", "/one"),
        "transfer-encoding: chunked\r\n",
    ))
    .await;
    one.send(&[chunk(b"x"), chunk(b"")].concat()).await;
    one.finish().await.refused(507, "quota_exceeded");
    assert_eq!(
        (tree_of(&ada).await, held(&ada).await),
        (vec!["/big".to_owned()], quota as u64)
    );

    // What the drive has already costs nothing, even when the drive is full.
    let copy = ada
        .put(&Target::new_file("/copy"), content[..quota].to_vec().into())
        .await;
    assert_eq!(copy.unwrap().entry.version, 1);

    for name in ["/big", "/copy"] {
        let entries = ada.list("/", 10, None).await.unwrap().entries;
        let entry = entries.into_iter().find(|entry| entry.path == name).unwrap();
        let path = format!("/api/v1/metadata/{}?permanent=true", entry.id);
        assert_eq!(world.call_as(&ada, Method::DELETE, &path, None).await.status, 204);
    }
    falls_to(&ada, 0).await;
    ada.put(&Target::new_file("/again"), noise(9, quota).into())
        .await
        .unwrap();
    assert_eq!(held(&ada).await, quota as u64);
}

/// shows: C-5 scale=1/2
#[tokio::test]
async fn uploads_that_race_for_the_last_bytes_never_pass_the_quota() {
    let world = World::start().await;
    // Small files commit in one command, large ones hold what they staged in sessions.
    for (round, (length, fits, racers)) in [(1_000, 5, 20), (200_000, 3, 12), (14 * MIB, 2, 5)]
        .into_iter()
        .enumerate()
    {
        let quota = (length * fits + length / 2) as u64;
        let (ada, _) = world.user(&format!("ada{round}"), quota).await;
        let racing = (0..racers).map(|number| {
            let ada = ada.clone();
            let content = noise(1_000 * round as u64 + number, length);
            tokio::spawn(async move { ada.put(&Target::new_file(format!("/f{number}")), content.into()).await })
        });
        let mut won = 0;
        for racer in racing.collect::<Vec<_>>() {
            match racer.await.unwrap() {
                Ok(_) => won += 1,
                Err(ClientError::Refused { status: 507, code, .. }) => assert_eq!(code, "quota_exceeded"),
                Err(other) => panic!("{other}"),
            }
            assert!(held(&ada).await <= quota, "the quota was passed");
        }
        // Of sessions that hold their parts at the same time none may get the rest; small ones leave no room unused.
        assert!(won <= fits, "{won} of {length} bytes went into {quota}");
        assert!(won == fits || length > 12 * MIB, "only {won} of {length} bytes");
        falls_to(&ada, (won * length) as u64).await;
        assert_eq!(tree_of(&ada).await.len(), won);
        let rest = quota as usize - won * length;
        let last = ada.put(&Target::new_file("/rest"), noise(77, rest).into()).await;
        assert_eq!(last.unwrap().entry.size, rest as u64);
        assert_eq!(held(&ada).await, quota);
    }
}
