//! Disks of the metadata that fill up under a whole cluster and are given room again, as somebody sees it over HTTP.
//!
//! What the disks under the logs show as free is the test's to say, and everything else is real. A file system that is full to its last
//! byte would have to be mounted, which only root may.
//! Not here: who hands over to whom meanwhile (`metadata-raft/tests/replicas`), full disks of nodes (`capacity`).

use crate::inside::Inside;
use crate::served::eventually;
use crate::world::{Answer, answer, noise};
use client_sdk::client::Target;
use client_sdk::error::ClientError;
use disk::{Disk, ShownSpace};
use reqwest::{Method, RequestBuilder};
use serde_json::json;
use std::sync::Arc;

/// With segments of 32 MiB a replica refuses below 160 MiB where it leads, and lets writing wait below 128 MiB.
const LITTLE: u64 = 144 << 20;

/// Sends it until it is refused for want of space somewhere; leadership goes round first, since another replica may have room.
async fn refused(what: &str, mut request: impl FnMut() -> RequestBuilder) -> Answer {
    let refused = eventually(what, async || {
        let answered = answer(request()).await;
        match answered.status.as_u16() {
            507 => Ok(answered),
            status => Err(format!("answered {status}")),
        }
    });
    refused.await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_metadata_disks_refuse_changes_by_name_serve_reads_and_work_again_with_room() {
    let shown = ShownSpace::all();
    let of_all = shown.clone();
    let inside = Inside::start_on(|base| {
        base.log_front = Arc::new(move |inner: Arc<dyn Disk>| of_all.over(inner));
    })
    .await;
    let client = &inside.client;
    let content = noise(1, 100_000);
    let before = Target::new_file("/before");
    let put = eventually("upload", async || client.put(&before, content.clone().into()).await).await;
    let root = put.entry.parent.clone().unwrap();

    shown.set(LITTLE);
    // Each try has a name of its own, so that only space can stand in its way.
    let mut number = 0;
    let mut fresh = || {
        number += 1;
        format!("full-{number}")
    };
    let folder = refused("a folder", || {
        let wanted = json!({"type": "folder", "parent": root, "name": fresh()});
        client.request(Method::POST, "/api/v1/metadata").json(&wanted)
    });
    let problem = folder.await.refused(507, "metadata_full");
    assert!(problem.detail.contains("administrator"), "{}", problem.detail);
    let file = refused("a file", || {
        let path = format!("/api/v1/files/upload?uploadType=media&path=/{}", fresh());
        client.request(Method::POST, &path).body(noise(2, 10_000))
    });
    file.await.refused(507, "metadata_full");

    let read = async || Ok::<_, ClientError>(client.get(&put.entry.id, None).await?.bytes().await?);
    assert!(eventually("a read", read).await == content, "it came back altered");
    let listed = eventually("a listing", async || client.list("/", 1000, None).await).await;
    assert!(listed.entries.iter().any(|entry| entry.id == put.entry.id));

    shown.set(u64::MAX);
    let made = eventually("a folder with room", async || {
        client.make_folder(&format!("/{}", fresh())).await
    });
    let made = made.await;
    let listed = eventually("a listing", async || client.list("/", 1000, None).await).await;
    assert!(listed.entries.iter().any(|entry| entry.id == made.id));
    drop(inside.stop().await);
}
