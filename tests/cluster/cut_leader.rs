//! A gateway that cannot reach the leader of the drives' group: followers answer what is read, and count that. Where nothing but a
//! follower is left nothing is written, and what is read is of now.
//!
//! The gateway runs in the test's own process and reaches each replica of a real cluster by a way of its own, on which datagrams can be
//! lost. The way between the replicas is whole, so the leader stays the leader, and other gateways go on.
//! Not here: replicas that cannot reach each other (`metadata-raft/tests/replicas`), a leader that is dead or asleep (`majority`).

use crate::insider::{self, Insider};
use crate::outside::text;
use crate::served::eventually;
use crate::world::{Answer as Answered, World, answer, noise, tree_of};
use bytes::Bytes;
use chaos::meter;
use client_sdk::client::{Client, Target};
use daemon::shutdown::Shutdown;
use gateway::config::{AdmissionLimits, CacheLimits, Functions, GatewayConfig, Limits, MetadataReads};
use gateway::serve::{Gateway, Place};
use model::process::ProcessId;
use protocol::frame::{Answer, Call, Method};
use reqwest::Method as Verb;
use rpc::transport::{Peer, RpcError, Transport};
use serde_json::json;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// Reads of a listing and a content while the leader is out of reach.
const READS: usize = 20;
/// Above an answer of a replica that is reached, and short, since two of these are waited for.
const LOST_AFTER: Duration = Duration::from_millis(500);
/// Clusters that are tried until one keeps its leader for half a minute: on a machine with little else to do the first does.
const ATTEMPTS: usize = 3;
/// Replicas of the cluster. A number of a gateway modulo this says with which one it begins, where none stands nearer.
const REPLICAS: u64 = 3;
/// Far from the numbers of the cluster's own gateways, and a multiple of `REPLICAS`.
const NUMBERS_FROM: u64 = 900;

/// The way of datagrams to one address and back, for one caller.
struct Way {
    address: SocketAddr,
    is_cut: Arc<AtomicBool>,
    lost: Arc<AtomicU64>,
    carrying: JoinHandle<()>,
}

impl Way {
    async fn to(replica: SocketAddr) -> Self {
        let here = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let there = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        there.connect(replica).await.unwrap();
        let address = here.local_addr().unwrap();
        let (is_cut, lost) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let carrying = tokio::spawn(carry(here, there, Arc::clone(&is_cut), Arc::clone(&lost)));
        Self {
            address,
            is_cut,
            lost,
            carrying,
        }
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.carrying.abort();
    }
}

async fn carry(here: UdpSocket, there: UdpSocket, is_cut: Arc<AtomicBool>, lost: Arc<AtomicU64>) {
    let (mut out, mut back) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut caller = None;
    loop {
        // A datagram that cannot be read or sent is lost, as on any way.
        tokio::select! {
            read = here.recv_from(&mut out) => {
                let Ok((bytes, from)) = read else { continue };
                caller = Some(from);
                if is_cut.load(Ordering::Relaxed) {
                    lost.fetch_add(1, Ordering::Relaxed);
                } else {
                    drop(there.send(&out[..bytes]).await);
                }
            }
            read = there.recv(&mut back) => {
                let (Ok(bytes), Some(to)) = (read, caller) else { continue };
                if is_cut.load(Ordering::Relaxed) {
                    lost.fetch_add(1, Ordering::Relaxed);
                } else {
                    drop(here.send_to(&back[..bytes], to).await);
                }
            }
        }
    }
}

/// Takes the ways to the replicas, and reaches everybody else as they are.
struct OverWays {
    inner: Arc<dyn Transport>,
    addresses: BTreeMap<ProcessId, SocketAddr>,
}

#[async_trait::async_trait]
impl Transport for OverWays {
    async fn call(&self, peer: &Peer, call: Call, deadline: Duration) -> Result<Answer, RpcError> {
        let peer = Peer {
            process: peer.process,
            address: *self.addresses.get(&peer.process).unwrap_or(&peer.address),
        };
        self.inner.call(&peer, call, deadline).await
    }
}

/// A gateway that asks the nearest replica, and is nearest to the one of this number.
struct Near {
    gateway: Gateway,
    shutdown: Shutdown,
    transport: Arc<OverWays>,
    replicas: BTreeMap<u64, (Peer, Way)>,
    client: Client,
}

impl Near {
    async fn start(world: &World, replica: u64) -> Self {
        let insider = Insider::of_dev(&world.data_dir(), "gateway-1");
        let mut replicas = BTreeMap::new();
        for peer in &insider.metadata {
            replicas.insert(peer.process.number, (*peer, Way::to(peer.address).await));
        }
        let ways = replicas.values().map(|(peer, way)| (peer.process, way.address));
        let transport = Arc::new(OverWays {
            inner: Arc::clone(&insider.transport) as Arc<dyn Transport>,
            addresses: ways.collect(),
        });
        let seams = insider::seams(Arc::clone(&transport) as Arc<dyn Transport>);
        let place = Place {
            number: NUMBERS_FROM + replica - 1,
            metadata: insider.metadata.clone(),
            nodes: None,
        };
        let shutdown = Shutdown::new();
        let gateway = gateway::serve::start(config(world), place, seams, shutdown.clone());
        let gateway = gateway.await.unwrap();
        let client = Client::new(&format!("http://{}", gateway.address())).unwrap();
        Self {
            gateway,
            shutdown,
            transport,
            replicas,
            client: client.with_token(world.client.token().unwrap()),
        }
    }

    /// Whether a replica answers within `LOST_AFTER`.
    async fn reaches(&self, replica: u64) -> bool {
        let call = Call {
            method: Method::MetadataStatus,
            request_id: 1,
            message: Bytes::new(),
            payload: Bytes::new(),
        };
        let peer = &self.replicas[&replica].0;
        self.transport.call(peer, call, LOST_AFTER).await.is_ok()
    }

    fn cut(&self, replica: u64, is_cut: bool) {
        self.replicas[&replica].1.is_cut.store(is_cut, Ordering::Relaxed);
    }

    fn lost(&self, replica: u64) -> u64 {
        self.replicas[&replica].1.lost.load(Ordering::Relaxed)
    }

    /// What is answered to an upload, a new name and a new folder; all at once, since each is tried for a while.
    async fn write(&self, file: &str) -> [Answered; 3] {
        let upload = "/api/v1/files/upload?uploadType=media&path=/new";
        let (entry, renamed) = (format!("/api/v1/metadata/{file}"), json!({"name": "g"}));
        let folder = json!({"path": "/folder", "type": "folder"});
        let answers = tokio::join!(
            answer(self.client.request(Verb::POST, upload).body("new")),
            answer(self.client.request(Verb::PATCH, &entry).json(&renamed)),
            answer(self.client.request(Verb::POST, "/api/v1/metadata").json(&folder)),
        );
        answers.into()
    }

    /// A listing and a content.
    async fn read(&self, file: &str, content: &[u8]) {
        let listed = self.client.list("/", 10, None).await.unwrap().entries;
        assert_eq!(listed.iter().map(|entry| entry.id.as_str()).collect::<Vec<_>>(), [file]);
        let back = self.client.get(file, None).await.unwrap().bytes().await.unwrap();
        assert!(back == content, "the content came back altered");
    }

    async fn stop(self) {
        self.shutdown.request();
        self.gateway.ended().await;
    }
}

/// Of a gateway that keeps nothing, in front of `world`.
pub(crate) fn config(world: &World) -> GatewayConfig {
    GatewayConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        kek_file: world.data_dir().join("cluster/kek"),
        tls: None,
        functions: Functions::ALL,
        upload_budget_bytes: 256 << 20,
        admission: AdmissionLimits::default(),
        metadata_reads: MetadataReads::Nearest,
        // Every read is one of the group and of the disks.
        cache: CacheLimits::of(0),
        limits: Limits::default(),
        browser_origins: Vec::new(),
    }
}

/// Who leads the drives' group.
async fn leader(world: &World) -> u64 {
    let admin = world.cluster.admin().unwrap();
    let leader = eventually("a leader", async || {
        let status = admin.json(Verb::GET, "/api/v1/admin/status", None).await;
        let status = status.map_err(|error| error.to_string())?;
        status["groups"][1]["leader"].as_u64().ok_or_else(|| status.to_string())
    });
    leader.await
}

/// Reads of the drives' group that followers have answered, at all replicas.
async fn follower_reads(world: &World) -> f64 {
    let mut sum = 0.0;
    let processes = world.cluster.facts.processes.iter();
    for process in processes.filter(|process| process.role == "metadata") {
        let page = text(process.status.unwrap(), "/metrics").await;
        let series = format!(
            "metadata_follower_reads_total{{kind=\"drive\",process=\"metadata-{}\"}}",
            process.id
        );
        sum += meter::sum(&page, &series).unwrap_or(0.0);
    }
    sum
}

/// Reads at the leader, then without it; an error where that cannot be told apart.
async fn reads_without_the_leader(world: &World, file: &str, content: &[u8]) -> Result<(), &'static str> {
    let leads = leader(world).await;
    let near = Near::start(world, leads).await;
    near.read(file, content).await;
    let before = follower_reads(world).await;
    near.read(file, content).await;
    let at_leader = follower_reads(world).await == before;
    let was_reached = near.reaches(leads).await;
    near.cut(leads, true);
    // Twice: whoever misses two deadlines is asked no more but for a look now and then.
    assert!(
        !near.reaches(leads).await && !near.reaches(leads).await,
        "the way is cut"
    );
    for _ in 0..READS {
        near.read(file, content).await;
    }
    let counted = follower_reads(world).await - before;
    let lost = near.lost(leads);
    near.stop().await;
    if !at_leader || !was_reached || leader(world).await != leads {
        return Err("another replica came to lead, or the leader is too slow to tell a cut from it");
    }
    assert!(lost > 0, "nothing was lost on the way to the leader");
    assert!(counted >= 2.0 * READS as f64, "followers answered {counted} queries");
    Ok(())
}

/// shows: D-3.3 side=counted
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_go_on_at_followers_while_the_way_to_the_leader_is_cut() {
    let world = World::start_with(&["--groups", "1"]).await;
    let insider = Insider::of_dev(&world.data_dir(), "gateway-1");
    assert_eq!(insider.metadata.len() as u64, REPLICAS);
    let content = noise(1, 300_000);
    let file = world.put("/f", &content).await.entry.id;
    eventually("reads without the leader", async || {
        reads_without_the_leader(&world, &file, &content).await
    })
    .await;
}

/// Cuts all ways of a gateway but the one to a follower, and writes there and elsewhere. False where that proves nothing: another
/// replica came to lead.
async fn refuses_without_a_majority(world: &World) -> bool {
    let file = world.put("/f", b"version 1").await.entry.id;
    let leads = leader(world).await;
    let left = leads % REPLICAS + 1;
    let near = Near::start(world, left).await;
    near.read(&file, b"version 1").await;
    let cut: Vec<u64> = (1..=REPLICAS).filter(|replica| *replica != left).collect();
    for replica in &cut {
        near.cut(*replica, true);
        // At once, so that they take each connection that there is: of what was sent over one of before nobody knows.
        let reached = [(); 4].map(|()| near.reaches(*replica));
        let reached = futures_util::future::join_all(reached).await;
        assert!(reached.iter().all(|is_reached| !is_reached), "the way is cut");
    }

    let meanwhile = async {
        for version in 2..=10 {
            let content = format!("version {version}");
            let target = Target {
                base_version: Some(version - 1),
                ..Target::new_file("/f")
            };
            world.client.put(&target, content.clone().into()).await.unwrap();
            near.read(&file, content.as_bytes()).await;
        }
    };
    let (refused, ()) = tokio::join!(near.write(&file), meanwhile);
    if leader(world).await != leads {
        near.stop().await;
        return false;
    }
    for write in refused {
        write.refused(503, "metadata_unreachable");
    }
    for replica in &cut {
        assert!(near.lost(*replica) > 0, "nothing was lost on the way to {replica}");
    }
    assert_eq!(tree_of(&near.client).await, ["/f"]);

    for replica in &cut {
        near.cut(*replica, false);
    }
    eventually("a write behind the cut", async || {
        let target = Target::new_file("/after");
        near.client.put(&target, Bytes::from_static(b"after")).await
    })
    .await;
    assert_eq!(world.tree().await, ["/after", "/f"]);
    near.stop().await;
    true
}

/// Of three replicas one follower is left. What is refused there was surely not done; the group itself goes on at another gateway, and
/// what is acknowledged there is read here. The replicas reach each other, so this is the gateway's side of a partition alone.
///
/// shows: D-2.8 scale=1/2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_are_refused_where_a_majority_is_cut_off_and_what_is_read_there_is_of_now() {
    for _ in 0..ATTEMPTS {
        let world = World::start_with(&["--groups", "1"]).await;
        if refuses_without_a_majority(&world).await {
            return;
        }
    }
    panic!("another replica came to lead in each of {ATTEMPTS} clusters");
}
