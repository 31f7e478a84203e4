//! Blocks of one content travel beside each other: each of the first ones waits on its way until four are under way at once.
//!
//! Who sends one after the other waits for ever at the gate, so no time is measured. Not here: how fast it is (the bench, `make links`).

use crate::world::{World, noise};
use chaos::carrier::{Carrier, Ends};
use client_sdk::client::Client;
use client_sdk::delta::{CutContent, DeltaTarget};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// Blocks that must be under way at once.
const TOGETHER: usize = 4;
/// Cut into at least four blocks, since none is longer than 4 MiB.
const CONTENT_BYTES: usize = 20 << 20;
/// Ends the test when the gate stays closed.
const GIVE_UP: Duration = Duration::from_secs(60);
const PART_BYTES: usize = 16 << 10;
const BLOCK: &[u8] = b"PUT /api/v1/blocks/";

/// Where blocks wait for each other.
struct Gate {
    begun: watch::Sender<usize>,
}

impl Gate {
    /// Counts a block that has begun, and waits until enough have.
    async fn pass(&self) {
        self.begun.send_modify(|begun| *begun += 1);
        let mut seen = self.begun.subscribe();
        // The sender lives as long as the gate.
        seen.wait_for(|begun| *begun >= TOGETHER).await.unwrap();
    }
}

/// The beginning of a block is sent on before its connection waits at the gate.
async fn carry(client: TcpStream, gateway: String, gate: Arc<Gate>) -> std::io::Result<()> {
    let Ends {
        mut from_client,
        mut to_server,
        mut from_server,
        mut to_client,
    } = Ends::of(client, &gateway).await?;
    let there = async {
        let mut part = vec![0; PART_BYTES];
        loop {
            let length = from_client.read(&mut part).await?;
            if length == 0 {
                return to_server.shutdown().await;
            }
            to_server.write_all(&part[..length]).await?;
            // A request begins where the one before was answered, so its head is at the beginning of what comes.
            if part[..length].starts_with(BLOCK) {
                gate.pass().await;
            }
        }
    };
    let back = async { tokio::io::copy(&mut from_server, &mut to_client).await.map(drop) };
    tokio::try_join!(there, back).map(drop)
}

/// shows: FR-006 side=in-flight
#[tokio::test]
async fn at_least_four_blocks_of_a_content_are_under_way_at_once() {
    let world = World::start().await;
    let gate = Arc::new(Gate {
        begun: watch::Sender::new(0),
    });
    let stopping = Arc::clone(&gate);
    let carrier = Carrier::to(&world.cluster.facts.url, move |client, gateway| {
        carry(client, gateway, Arc::clone(&stopping))
    });
    let carrier = carrier.await.unwrap();
    let key = world.client.digest_key().await.unwrap();
    let token = world.client.token().unwrap();
    let client = Client::new(&carrier.url()).unwrap().with_token(token);
    let bytes = noise(1, CONTENT_BYTES);
    let content = CutContent::of(bytes.clone().into(), &key);
    let target = DeltaTarget::New("/f".to_owned());
    let sent = tokio::time::timeout(GIVE_UP, client.put_delta(&target, &content, None)).await;
    let sent = sent.expect("fewer than four were under way").unwrap();
    assert_eq!(sent.blocks, content.rows.len());
    assert_eq!(*gate.begun.borrow(), sent.blocks, "each block is a request of its own");
    let back = client.get(&sent.uploaded.entry.id, None).await.unwrap();
    assert!(back.bytes().await.unwrap() == bytes, "the content came back altered");
}
