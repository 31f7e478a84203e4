//! A crowd that opens connections to a gateway and leaves them: it costs bounded memory and keeps nobody else out.
//!
//! Left open at this side are the last ones opened: six thousand, which are more than the gateway holds, and under `make crowd` as many
//! as this process may have descriptors. Those before them are closed here, long after the gateway gave their places to others.
//! Not here: how long a silent connection lives (the gateway's own tests), requests that dawdle (`refusals`).

use crate::refusals::allow_files;
use crate::served::eventually;
use crate::world::{holdfast, noise};
use chaos::dev_cluster::DevCluster;
use chaos::meter;
use client_sdk::client::{Client, Target};
use rustix::process::{Resource, getrlimit};
use std::collections::VecDeque;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use tokio::net::{TcpSocket, TcpStream};

/// Opened when nothing else is said; `make crowd` says the full number.
const CROWD: u32 = 20_000;
/// Those opened last stay open at this side: so many, since other tests may run in this process.
const HELD: u64 = 6_000;
/// Descriptors of this process for anything else.
const SPARED: u64 = 1_000;
/// Descriptors of the cluster: its gateway takes four fifths of them for connections.
const DESCRIPTORS: u64 = 5_000;
/// What the whole process of ten roles may hold more than before: its bound of connections at 40 KiB, and what it does for others
/// meanwhile.
const GROWTH_BYTES_MAX: u64 = 200 << 20;

/// Bytes that a process holds in memory.
pub(crate) fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: u64 = line.trim().strip_suffix("kB").unwrap().trim().parse().unwrap();
    kib << 10
}

/// Opens a connection; one address alone has ports for fewer than the crowd.
async fn open(to: SocketAddr, number: u32) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    let host = Ipv4Addr::new(127, 0, 1, u8::try_from(number % 20 + 1).unwrap());
    socket.bind((host, 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

/// Somebody who has not been here before puts a file and reads it.
async fn serve_somebody_new(cluster: &DevCluster, token: &str, number: u32) {
    let fresh = Client::new(&cluster.facts.url).unwrap().with_token(token);
    let content = noise(number.into(), 10_000);
    let put = fresh
        .put(&Target::new_file(format!("/f{number}")), content.clone().into())
        .await
        .unwrap();
    let back = fresh.get(&put.entry.id, None).await.unwrap().bytes().await.unwrap();
    assert!(back == content, "of connection {number}");
}

/// A cluster that may open fewer files than this test.
async fn start(directory: &Path) -> DevCluster {
    let script = directory.join("holdfast");
    let text = format!(
        "#!/bin/sh\nulimit -S -n {DESCRIPTORS}\nexec '{}' \"$@\"\n",
        holdfast().display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
    let data = directory.join("data");
    DevCluster::start(&script, &data, &["--disk-capacity", "4G"])
        .await
        .unwrap()
}

async fn metric(client: &Client, name: &str) -> f64 {
    // A connection that is kept from before may have been idle for too long.
    let page = eventually("metrics", async || client.text("/metrics").await).await;
    meter::sum(&page, name).unwrap_or(0.0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_that_opens_connections_and_leaves_them_keeps_nobody_out() {
    let asked: Option<u32> = std::env::var("HOLDFAST_CROWD").ok().map(|text| text.parse().unwrap());
    let crowd = asked.unwrap_or(CROWD);
    let most = getrlimit(Resource::Nofile)
        .maximum
        .unwrap_or(u64::MAX)
        .saturating_sub(SPARED);
    let holds = asked.map_or(HELD, |asked| most.min(asked.into()).max(HELD));
    allow_files(holds + SPARED);
    println!("{crowd} connections, of which {holds} stay open at this side");
    let directory = tempfile::tempdir().unwrap();
    let cluster = start(directory.path()).await;
    let client = cluster.client().await.unwrap();
    let token = crate::wire::token_of(&client);
    let gateway: SocketAddr = cluster.facts.url.trim_start_matches("http://").parse().unwrap();
    // Once around, so that what the process keeps of any work is there already.
    serve_somebody_new(&cluster, &token, crowd).await;
    let before = resident_bytes(cluster.pid());
    let mut held = VecDeque::new();
    for number in 0..crowd {
        held.push_back(open(gateway, number).await);
        if held.len() as u64 > holds {
            held.pop_front();
        }
        if number % 1_000 == 999 {
            serve_somebody_new(&cluster, &token, number).await;
            let now = resident_bytes(cluster.pid());
            let growth = now.saturating_sub(before);
            assert!(
                growth < GROWTH_BYTES_MAX,
                "{growth} bytes more after {number} connections"
            );
        }
    }
    let open = metric(&client, "gateway_connections").await;
    assert!((1_000.0..=DESCRIPTORS as f64 * 0.8).contains(&open), "{open} are left");
    let displaced = metric(&client, "gateway_connections_turned_away_total{kind=\"silent\"}").await;
    assert!(displaced > 0.0, "nobody of the crowd had to go");
    drop(held);
    let gone = async || match metric(&client, "gateway_connections").await {
        open if open < 100.0 => Ok(()),
        open => Err(format!("{open} connections")),
    };
    eventually("those that were left and closed stay", gone).await;
    serve_somebody_new(&cluster, &token, crowd + 1).await;
}
