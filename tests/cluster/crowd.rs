//! A crowd that opens connections to a gateway and leaves them: it costs bounded memory and keeps nobody else out.
//!
//! Left open at this side are the last ones opened: six thousand, which are more than the gateway holds; those before them are closed
//! here, long after the gateway gave their places to others. Under `make crowd` every one of them stays open, in as many processes as
//! their descriptors take: this test starts itself for each.
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
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::{Child, Command};

/// Opened when nothing else is said; `make crowd` says the full number.
const CROWD: u32 = 20_000;
/// Those opened last stay open at this side: so many, since other tests may run in this process.
const HELD: usize = 6_000;
/// Descriptors of this process, and of one that holds a part of the crowd, for anything else.
const SPARED: u64 = 1_000;
/// Descriptors of the cluster: its gateway takes four fifths of them for connections.
const DESCRIPTORS: u64 = 5_000;
/// At the full scale one in so many of the crowd, where this process may have as many: so few that somebody must go before the silent
/// ones are asked to.
const DESCRIPTORS_PART: u64 = 2;
/// What the whole process of ten roles may hold more than before for each connection of its bound.
const CONNECTION_BYTES_MAX: u64 = 40 << 10;
/// And for what it does for others meanwhile.
const OTHERS_BYTES_MAX: u64 = (200 << 20) - connections_max(DESCRIPTORS) * CONNECTION_BYTES_MAX;
/// After so many somebody else is served.
const LOOK_EVERY: u32 = 1_000;
/// How a process knows that it holds a part: the gateway, the first number and how many.
const PART: &str = "HOLDFAST_CROWD_PART";
const NAME: &str = "crowd::a_crowd_that_opens_connections_and_leaves_them_keeps_nobody_out";

/// Connections that a gateway takes which may have so many descriptors.
const fn connections_max(descriptors: u64) -> u64 {
    descriptors / 5 * 4
}

/// Descriptors that this process and those that it starts may have.
fn descriptors_max() -> u64 {
    getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)
}

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

/// A cluster that may open so many files.
async fn start(directory: &Path, descriptors: u64) -> DevCluster {
    let script = directory.join("holdfast");
    let text = format!(
        "#!/bin/sh\nulimit -S -n {descriptors}\nexec '{}' \"$@\"\n",
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

/// A cluster with a crowd at its door.
struct Besieged {
    cluster: DevCluster,
    client: Client,
    token: String,
    gateway: SocketAddr,
    descriptors: u64,
    before_bytes: u64,
}

impl Besieged {
    async fn start(directory: &Path, descriptors: u64) -> Self {
        let cluster = start(directory, descriptors).await;
        let client = cluster.client().await.unwrap();
        let token = crate::wire::token_of(&client);
        // Once around, so that what the process keeps of any work is there already.
        serve_somebody_new(&cluster, &token, u32::MAX).await;
        Self {
            gateway: cluster.facts.url.trim_start_matches("http://").parse().unwrap(),
            before_bytes: resident_bytes(cluster.pid()),
            cluster,
            client,
            token,
            descriptors,
        }
    }

    /// Somebody is served after so many connections, and the memory is within its bound.
    async fn look(&self, number: u32) {
        serve_somebody_new(&self.cluster, &self.token, number).await;
        let growth = resident_bytes(self.cluster.pid()).saturating_sub(self.before_bytes);
        let most = connections_max(self.descriptors) * CONNECTION_BYTES_MAX + OTHERS_BYTES_MAX;
        assert!(growth < most, "{growth} bytes more after {number} connections");
    }

    /// Opens as many as `CROWD` from here; those opened last stay open.
    async fn open_some(&self) -> VecDeque<TcpStream> {
        let mut held = VecDeque::new();
        for number in 0..CROWD {
            held.push_back(open(self.gateway, number).await);
            if held.len() > HELD {
                held.pop_front();
            }
            if (number + 1).is_multiple_of(LOOK_EVERY) {
                self.look(number).await;
            }
        }
        held
    }

    /// Opens all of `crowd` from processes that hold their parts; with each how many it holds.
    async fn open_all(&self, crowd: u32) -> Vec<(Child, u32)> {
        let part_max = u32::try_from(descriptors_max().saturating_sub(SPARED)).unwrap_or(u32::MAX);
        assert!(part_max > 0, "{SPARED} descriptors and more are needed");
        let mut parts = Vec::new();
        let mut first = 0;
        while first < crowd {
            let count = part_max.min(crowd - first);
            let mut part = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", NAME, "--nocapture"])
                .env(PART, format!("{} {first} {count}", self.gateway))
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(part.stderr.take().unwrap()).lines();
            let mut holds = 0;
            while holds < count {
                let line = lines.next_line().await.unwrap().expect("a part says how many it holds");
                match line.strip_prefix("holds ") {
                    Some(number) => holds = number.parse().unwrap(),
                    None => panic!("a part of the crowd: {line}"),
                }
                self.look(first + holds).await;
            }
            parts.push((part, holds));
            first += count;
        }
        parts
    }
}

/// What a process does that holds a part: opens it, says so as it goes, and ends with its standard input.
async fn hold_part(part: &str) {
    let words: Vec<&str> = part.split(' ').collect();
    let [gateway, first, count] = words[..] else {
        panic!("{part:?} is no part")
    };
    let gateway = gateway.parse().unwrap();
    let (first, count): (u32, u32) = (first.parse().unwrap(), count.parse().unwrap());
    allow_files(u64::from(count) + SPARED);
    let mut held = Vec::new();
    for number in first..first + count {
        held.push(open(gateway, number).await);
        let holds = u32::try_from(held.len()).unwrap();
        if holds == count || holds.is_multiple_of(LOOK_EVERY) {
            eprintln!("holds {holds}");
        }
    }
    tokio::io::stdin().read_to_end(&mut Vec::new()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_that_opens_connections_and_leaves_them_keeps_nobody_out() {
    if let Ok(part) = std::env::var(PART) {
        return hold_part(&part).await;
    }
    let full: Option<u32> = std::env::var("HOLDFAST_CROWD").ok().map(|text| text.parse().unwrap());
    let descriptors = full.map_or(DESCRIPTORS, |crowd| {
        let wanted = (u64::from(crowd) / DESCRIPTORS_PART).max(DESCRIPTORS);
        wanted.min(descriptors_max())
    });
    let directory = tempfile::tempdir().unwrap();
    let besieged = Besieged::start(directory.path(), descriptors).await;
    let (mut here, mut parts) = (VecDeque::new(), Vec::new());
    match full {
        None => {
            allow_files(HELD as u64 + SPARED);
            here = besieged.open_some().await;
        }
        Some(crowd) => {
            parts = besieged.open_all(crowd).await;
            let held: u32 = parts.iter().map(|(_, holds)| holds).sum();
            println!("{held} connections of {crowd} stay open, in {} processes", parts.len());
            assert_eq!(held, crowd, "connections that stay open");
            for (part, holds) in &mut parts {
                assert!(part.try_wait().unwrap().is_none(), "a part of {holds} is gone");
            }
        }
    }
    let (cluster, client) = (&besieged.cluster, &besieged.client);
    let open = metric(client, "gateway_connections").await;
    let most = connections_max(descriptors) as f64;
    assert!((1_000.0..=most).contains(&open), "{open} are left");
    let displaced = metric(client, "gateway_connections_turned_away_total{kind=\"silent\"}").await;
    println!("{open} are left at the gateway, which takes {most}; {displaced} had to go for others");
    assert!(displaced > 0.0, "nobody of the crowd had to go");
    drop((here, parts));
    let gone = async || match metric(client, "gateway_connections").await {
        open if open < 100.0 => Ok(()),
        open => Err(format!("{open} connections")),
    };
    eventually("those that were left and closed stay", gone).await;
    serve_somebody_new(cluster, &besieged.token, u32::MAX - 1).await;
}
