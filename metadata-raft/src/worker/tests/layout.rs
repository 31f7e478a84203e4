//! Rows follow the cluster map, and a map that moves none of them leaves the planner at rest.

use super::{Bench, PATIENCE};
use crate::worker::layout::LayoutWorker;
use crate::worker::query;
use async_trait::async_trait;
use bytes::Bytes;
use daemon::clock::Clock;
use daemon::shutdown::Shutdown;
use daemon::worker::{Next, Worker};
use model::cluster::{Membership, NodeInfo};
use model::id::{CONTROL_GROUP, ClusterId, DiskId, NodeId};
use model::layout::Layout;
use model::profile::ProfileId;
use protocol::frame::{Answer, Call, decode, encode};
use protocol::metadata::control::{ClusterSettings, ControlCommand, NodeDisk};
use protocol::metadata::query::ControlQuery;
use protocol::metadata::{Command, Query, QueryAnswer};
use protocol::node::{PushRows, RowsTaken};
use rpc::transport::{Peer, RpcError, Transport};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

const NODES: u32 = 3;

/// A node of a region of its own with three disks, which listens at this port.
fn node(number: u32, port: u16) -> Command {
    let disk = |disk| NodeDisk {
        disk: DiskId(disk),
        weight_bytes: 1 << 30,
    };
    Command::Control(ControlCommand::RegisterNode {
        node: NodeId(number),
        info: NodeInfo {
            region: format!("r{number}"),
            zone: "z1".to_owned(),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            membership: Membership::Active,
        },
        disks: (3 * number..3 * number + 3).map(disk).collect(),
    })
}

async fn layout(bench: &Bench) -> Layout {
    match query(&bench.group, &Query::Control(ControlQuery::Layout(None)))
        .await
        .unwrap()
    {
        QueryAnswer::Layout(layout) => layout,
        other => panic!("{other:?}"),
    }
}

/// Whether the planner wants its next step at once.
async fn is_at_work(worker: &mut LayoutWorker) -> bool {
    matches!(worker.step().await.unwrap(), Next::Now)
}

/// Never answers; tells who was called.
struct Silent(mpsc::UnboundedSender<u64>);

#[async_trait]
impl Transport for Silent {
    async fn call(&self, peer: &Peer, _call: Call, _deadline: Duration) -> Result<Answer, RpcError> {
        self.0.send(peer.process.number).unwrap();
        std::future::pending().await
    }
}

/// Takes every table but that of one profile; tells which were offered to whom.
struct Choosy {
    refuses: ProfileId,
    offered: mpsc::UnboundedSender<(u64, ProfileId)>,
}

#[async_trait]
impl Transport for Choosy {
    async fn call(&self, peer: &Peer, call: Call, _deadline: Duration) -> Result<Answer, RpcError> {
        let push: PushRows = decode(&call.message).unwrap();
        let profile = push.updates[0].profile;
        self.offered.send((peer.process.number, profile)).unwrap();
        if profile == self.refuses {
            return Err(RpcError::Unreachable {
                peer: peer.process,
                detail: String::new(),
            });
        }
        let taken = RowsTaken {
            rows_taken: 0,
            disks: Vec::new(),
        };
        Ok(Answer {
            message: encode(&taken).unwrap(),
            payload: Bytes::new(),
        })
    }
}

/// A bench that leads the control group of a cluster of `NODES` nodes.
async fn cluster() -> Bench {
    let bench = Bench::of(CONTROL_GROUP).await;
    bench.lead().await;
    let settings = ClusterSettings {
        default_profile: ProfileId::Dev,
        default_quota_bytes: 1 << 30,
        birth_epoch_ms: 1_000,
        block_grace_ms: 60_000,
    };
    bench
        .run(Command::Control(ControlCommand::InitCluster {
            cluster: ClusterId(1),
            settings,
        }))
        .await;
    for number in 1..=NODES {
        bench.run(node(number, 7_000)).await;
    }
    bench
}

fn planner(bench: &Bench, transport: Arc<dyn Transport>, shutdown: &Shutdown) -> LayoutWorker {
    let clock: Arc<dyn Clock> = bench.clock.clone();
    LayoutWorker::new(
        Arc::clone(&bench.group),
        transport,
        clock,
        shutdown.clone(),
        NODES as usize,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_back_elsewhere_moves_no_row_and_the_planner_rests() {
    let bench = cluster().await;
    let mut worker = planner(&bench, Arc::clone(&bench.transport), &Shutdown::new());
    assert!(is_at_work(&mut worker).await, "rows are planned for the first time");
    let planned = layout(&bench).await;
    assert!(planned.tables.contains_key(&ProfileId::Dev) && planned.tables.contains_key(&ProfileId::Copies));
    assert!(!is_at_work(&mut worker).await, "nothing is left to plan");
    bench.run(node(2, 7_001)).await;
    assert!(!is_at_work(&mut worker).await, "no row was moved");
    assert_eq!(layout(&bench).await, planned);
    let disk = DiskId(6);
    let membership = Membership::Draining;
    bench
        .run(Command::Control(ControlCommand::SetDisk { disk, membership }))
        .await;
    assert!(is_at_work(&mut worker).await, "rows leave a disk that is being emptied");
    assert_ne!(layout(&bench).await, planned);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_do_not_answer_hold_up_neither_the_others_nor_a_stop() {
    let bench = cluster().await;
    let (called, mut calls) = mpsc::unbounded_channel();
    let shutdown = Shutdown::new();
    let mut worker = planner(&bench, Arc::new(Silent(called)), &shutdown);
    assert!(is_at_work(&mut worker).await, "rows are planned for the first time");
    let step = tokio::spawn(async move { worker.step().await.map_err(|error| error.to_string()) });
    let mut asked = Vec::new();
    for _ in 0..NODES {
        asked.push(tokio::time::timeout(PATIENCE, calls.recv()).await.unwrap().unwrap());
    }
    asked.sort_unstable();
    assert_eq!(asked, [1, 2, 3], "all are told at once");
    assert!(!step.is_finished(), "nobody has answered");
    shutdown.request();
    let next = tokio::time::timeout(PATIENCE, step).await.unwrap().unwrap();
    assert!(matches!(next, Ok(Next::Together(_))), "{next:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_not_taken_has_no_other_told_again() {
    let bench = cluster().await;
    for refuses in [ProfileId::Dev, ProfileId::Copies] {
        let (offered, mut offers) = mpsc::unbounded_channel();
        let mut worker = planner(&bench, Arc::new(Choosy { refuses, offered }), &Shutdown::new());
        while is_at_work(&mut worker).await {}
        for _ in 0..2 {
            assert!(!is_at_work(&mut worker).await, "no row was moved");
        }
        let mut told: BTreeMap<(u64, ProfileId), usize> = BTreeMap::new();
        while let Ok(offer) = offers.try_recv() {
            *told.entry(offer).or_default() += 1;
        }
        let wanted = (1..=u64::from(NODES)).flat_map(|node| {
            [ProfileId::Dev, ProfileId::Copies].map(|profile| ((node, profile), if profile == refuses { 3 } else { 1 }))
        });
        assert_eq!(told, wanted.collect::<BTreeMap<_, _>>());
    }
}
