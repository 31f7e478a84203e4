//! Routes that have changed, which replica is asked, groups without a leader, and under which ids commands go out.

use super::routes::nearest_first;
use super::{MetadataClient, NOT_LEADER};
use crate::config::MetadataReads;
use crate::metrics;
use crate::seams::Seams;
use async_trait::async_trait;
use bytes::Bytes;
use codec::cipher::Aes256Gcm;
use daemon::clock::{Clock, ManualClock, SystemClock};
use daemon::metrics::Metrics;
use daemon::pool::Pool;
use daemon::random::Random;
use futures_util::FutureExt;
use model::error_kind::ErrorKind;
use model::id::{CONTROL_GROUP, ClusterId, DriveId, GroupId, RaftId, SLOTS, Slot, UserId};
use model::process::{ProcessId, Role};
use model::time::{Age, BirthEpoch, WallTime};
use protocol::codes;
use protocol::frame::{Answer, Call, Method, decode, encode};
use protocol::metadata::control::{GroupInfo, ProcessInfo, SlotRange};
use protocol::metadata::drive::EntryRef;
use protocol::metadata::query::{ControlQuery, DriveAsk, DriveQuery};
use protocol::metadata::user::{TokenHash, UserCommand};
use protocol::metadata::{
    Command, CommandAnswer, Envelope, GroupReply, ProposeRequest, Query, QueryAnswer, QueryRequest, Reply, RequestKey,
    SlotTime,
};
use protocol::wire_error::Failure;
use rpc::memory::{Fault, MemoryNetwork, MemoryTransport};
use rpc::transport::{Handler, Peer};
use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::task::yield_now;

const CLUSTER: ClusterId = ClusterId(1);
/// Turns that others get until nobody has anything left to do without time: a call takes few.
const TURNS: u32 = 64;

fn process(role: Role, number: u64) -> ProcessId {
    ProcessId { role, number }
}

/// What all replicas know, and whom they were asked.
#[derive(Default)]
struct Cluster {
    processes: OnceLock<Vec<ProcessInfo>>,
    /// Who serves all slots, as the control group says.
    owner: Mutex<u32>,
    asked: Mutex<Vec<(u64, Method, GroupId)>>,
    /// Whether the groups of drives have too much to do.
    is_busy: AtomicBool,
    /// Whether the groups of drives have lost their majorities.
    is_leaderless: AtomicBool,
    /// Ids of commands, in the order in which they came.
    proposed: Mutex<Vec<RequestKey>>,
    /// What the next commands are answered; when there is nothing left, they are done in the hour `NOW_HOUR`.
    outcomes: Mutex<VecDeque<Outcome>>,
}

/// The aged hour of all slots.
const NOW_HOUR: u32 = 7;

#[derive(Clone, Copy)]
enum Outcome {
    /// The replica lost its lead midway.
    Unknown,
    /// The group finds the id too old.
    TooOld,
}

impl Cluster {
    fn propose(&self, message: &[u8]) -> Result<Answer, Failure> {
        let request: ProposeRequest = decode(message)?;
        let envelope: Envelope = decode(&request.envelope)?;
        self.proposed.lock().unwrap().push(envelope.request_id.unwrap());
        let result = match self.outcomes.lock().unwrap().pop_front() {
            Some(Outcome::Unknown) => return Err(codes::OUTCOME_UNKNOWN.failure()),
            Some(Outcome::TooOld) => Err(codes::OUTCOME_UNKNOWN.failure()),
            None => Ok(CommandAnswer::Done),
        };
        let time = Some(SlotTime {
            age: Age(u64::from(NOW_HOUR) * 3_600_000),
            birth_epoch: BirthEpoch(7),
            age_hour: NOW_HOUR,
        });
        let reply = Reply { time, result }.to_bytes();
        Ok(Answer {
            message: encode(&GroupReply { log_index: 1, reply })?,
            payload: Bytes::new(),
        })
    }
}

struct Replica {
    number: u64,
    cluster: Arc<Cluster>,
}

#[async_trait]
impl Handler for Replica {
    async fn handle(&self, _: ProcessId, call: Call) -> Result<Answer, Failure> {
        if call.method == Method::Propose {
            return self.cluster.propose(&call.message);
        }
        let request: QueryRequest = decode(&call.message)?;
        let asked = (self.number, call.method, request.group);
        self.cluster.asked.lock().unwrap().push(asked);
        if self.cluster.is_busy.load(Ordering::Relaxed) && request.group != CONTROL_GROUP {
            return Err(codes::OVERLOADED.failure());
        }
        if self.cluster.is_leaderless.load(Ordering::Relaxed) && request.group != CONTROL_GROUP {
            return Err(Failure::new(ErrorKind::Unavailable, NOT_LEADER, "nobody leads"));
        }
        let owner = GroupId(*self.cluster.owner.lock().unwrap());
        let result = match decode(&request.query)? {
            Query::Control(ControlQuery::Slots) => Ok(QueryAnswer::Slots(vec![SlotRange {
                first: Slot::new(0).unwrap(),
                last: Slot::new(SLOTS - 1).unwrap(),
                group: owner,
            }])),
            Query::Control(ControlQuery::Groups) => Ok(QueryAnswer::Groups(groups())),
            Query::Control(ControlQuery::Processes) => {
                Ok(QueryAnswer::Processes(self.cluster.processes.get().unwrap().clone()))
            }
            Query::Slot(_) | Query::Drive(_) if request.group != owner => Err(codes::NOT_MINE.failure()),
            Query::Slot(_) | Query::Drive(_) => Err(codes::NOT_FOUND.failure()),
            other => panic!("{other:?} is not asked here"),
        };
        let reply = Reply { time: None, result }.to_bytes();
        Ok(Answer {
            message: encode(&GroupReply { log_index: 1, reply })?,
            payload: Bytes::new(),
        })
    }
}

fn groups() -> Vec<GroupInfo> {
    let group = |group| GroupInfo {
        group,
        voters: (1..=3).map(RaftId).collect(),
    };
    vec![group(CONTROL_GROUP), group(GroupId(1)), group(GroupId(2))]
}

struct World {
    network: MemoryNetwork,
    cluster: Arc<Cluster>,
    client: MetadataClient,
    _transports: Vec<Arc<MemoryTransport>>,
}

/// Three replicas in regions r1, r2 and r3; gateway 1 in r2.
fn world(reads: MetadataReads) -> World {
    world_by(Arc::new(SystemClock::new()), reads)
}

fn world_by(clock: Arc<dyn Clock>, reads: MetadataReads) -> World {
    let network = MemoryNetwork::new(clock.clone());
    let cluster = Arc::new(Cluster::default());
    *cluster.owner.lock().unwrap() = 1;
    let (mut transports, mut processes) = (Vec::new(), Vec::new());
    for number in 1..=3 {
        let replica = Replica {
            number,
            cluster: cluster.clone(),
        };
        let id = process(Role::Metadata, number);
        let (transport, address) = network.attach(id, CLUSTER, Arc::new(replica));
        transports.push(transport);
        processes.push(placed(id, address, &format!("r{number}")));
    }
    let gateway = process(Role::Gateway, 1);
    let replica = Replica {
        number: 0,
        cluster: cluster.clone(),
    };
    let (own, address) = network.attach(gateway, CLUSTER, Arc::new(replica));
    processes.push(placed(gateway, address, "r2"));
    let seeds = vec![Peer {
        process: processes[0].id,
        address: processes[0].address,
    }];
    cluster.processes.set(processes).unwrap();
    let seams = Seams {
        transport: own,
        clock,
        pool: Pool::inline(),
        random: Random::seeded(7),
        metrics: Metrics::new(),
        cipher: Arc::new(Aes256Gcm),
    };
    let client = MetadataClient::new(seams, 1, seeds).reading(reads);
    client.show_silent();
    World {
        network,
        cluster,
        client,
        _transports: transports,
    }
}

fn placed(id: ProcessId, address: SocketAddr, region: &str) -> ProcessInfo {
    ProcessInfo {
        id,
        address,
        region: region.to_owned(),
        zone: "z1".to_owned(),
    }
}

impl World {
    /// Asks for a slot; returns who was asked for the slot's group, in order.
    async fn ask(&self) -> Vec<(u64, Method, GroupId)> {
        self.cluster.asked.lock().unwrap().clear();
        let slot = Query::Slot(Slot::new(7).unwrap());
        let answer = self.client.query(&slot, 0).await.unwrap_err();
        assert_eq!(answer.code, "not_found", "it reached the group that serves the slot");
        let asked = self.cluster.asked.lock().unwrap();
        asked
            .iter()
            .filter(|(_, _, group)| *group != CONTROL_GROUP)
            .copied()
            .collect()
    }
}

/// shows: D-3.9 side=refresh
#[tokio::test]
async fn a_slot_that_moved_is_found_by_fetching_the_routes_anew() {
    let world = world(MetadataReads::Leader);
    assert_eq!(world.ask().await.last().unwrap().2, GroupId(1));
    *world.cluster.owner.lock().unwrap() = 2;
    let asked: Vec<GroupId> = world.ask().await.into_iter().map(|(_, _, group)| group).collect();
    assert_eq!(asked, [GroupId(1), GroupId(2)], "refused once, then the new owner");
    let asked: Vec<GroupId> = world.ask().await.into_iter().map(|(_, _, group)| group).collect();
    assert_eq!(asked, [GroupId(2)], "and remembered");
}

/// An id that is too old by what the gateway knows of the slot is made anew, but only when nothing can have come of it.
#[tokio::test]
async fn an_id_is_made_anew_only_when_nothing_was_done_under_it() {
    let slot = Slot::new(7).unwrap();
    let revoke = || {
        Command::User(UserCommand::RevokeToken {
            user: UserId::new(slot, 1),
            hash: TokenHash([1; 32]),
        })
    };
    let cases: [(&[Outcome], Result<(), &str>, usize); 4] = [
        (&[], Ok(()), 1),
        (&[Outcome::TooOld], Ok(()), 2),
        (&[Outcome::TooOld, Outcome::TooOld], Err("outcome_unknown"), 2),
        (&[Outcome::Unknown, Outcome::TooOld], Err("outcome_unknown"), 1),
    ];
    for (outcomes, expected, ids) in cases {
        let world = world(MetadataReads::Leader);
        world.cluster.outcomes.lock().unwrap().extend(outcomes);
        let done = world.client.command(revoke(), None, 0).await;
        assert_eq!(
            done.map(drop).map_err(|failure| failure.code),
            expected.map_err(str::to_owned)
        );
        let proposed = world.cluster.proposed.lock().unwrap().clone();
        let different: BTreeSet<u128> = proposed.iter().map(|key| key.id).collect();
        assert_eq!(different.len(), ids, "{proposed:?}");
        assert_eq!(proposed[0].made_hour, None, "nobody had told it yet");
        assert!(ids == 1 || proposed[1].made_hour == Some(NOW_HOUR), "{proposed:?}");
        assert_eq!(world.client.age_hour(slot), Some(NOW_HOUR));
        // What the caller has named goes out as it is.
        let own = world.client.own_key(&revoke()).unwrap();
        world.cluster.outcomes.lock().unwrap().push_back(Outcome::TooOld);
        let refused = world.client.command(revoke(), Some(own), 0).await.unwrap_err();
        assert_eq!(refused.code, "outcome_unknown");
    }
}

/// A drive lies in one slot and so in one group: nobody else is asked, not even for the way there.
#[tokio::test]
async fn a_listing_is_one_question_to_one_group() {
    let world = world(MetadataReads::Leader);
    world.ask().await;
    world.cluster.asked.lock().unwrap().clear();
    let drive = DriveId::new(Slot::new(7).unwrap(), 1);
    let ask = DriveAsk::List {
        folder: EntryRef::Id(drive.root()),
        limit: 1000,
        page_token: None,
    };
    let query = Query::Drive(DriveQuery {
        drive,
        principal: None,
        ask,
    });
    drop(world.client.query(&query, 0).await);
    let asked = world.cluster.asked.lock().unwrap().clone();
    assert!(matches!(asked[..], [(_, Method::Query, GroupId(1))]), "{asked:?}");
}

/// Repeats of what was refused for want of room are load too: a storm of them would keep the group where it is.
#[tokio::test]
async fn a_leader_that_has_too_much_to_do_is_asked_three_times_and_its_followers_never() {
    let world = world(MetadataReads::Leader);
    let leader = world.ask().await.last().unwrap().0;
    world.cluster.asked.lock().unwrap().clear();
    world.cluster.is_busy.store(true, Ordering::Relaxed);
    let slot = Query::Slot(Slot::new(7).unwrap());
    let refused = world.client.query(&slot, 0).await.unwrap_err();
    assert_eq!(refused.code, "overloaded");
    let asked = world.cluster.asked.lock().unwrap().clone();
    assert_eq!(asked, [(leader, Method::Query, GroupId(1)); 3]);
    world.cluster.is_busy.store(false, Ordering::Relaxed);
    assert_eq!(
        world.ask().await,
        [(leader, Method::Query, GroupId(1))],
        "it is still the leader"
    );
}

/// What has come of `asked`, after everything that needs no time has happened.
async fn settled<A: Future + Unpin>(asked: &mut A) -> Option<A::Output> {
    for _ in 0..TURNS {
        if let Some(output) = (&mut *asked).now_or_never() {
            return Some(output);
        }
        yield_now().await;
    }
    None
}

/// Counts of the page: how many groups are silent, and how many requests were refused for that.
fn silent_and_refused(client: &MetadataClient) -> (i64, u64) {
    let counted = &client.seams.metrics;
    drop(counted.encode());
    let silent = counted.gauge(&metrics::SILENT_GROUPS);
    let refused = counted.counter(&metrics::SILENT_GROUP_REFUSED);
    (
        silent.with_label_values::<&str>(&[]).get(),
        refused.with_label_values::<&str>(&[]).get(),
    )
}

/// However many ask it, a group that lost its majority keeps few requests here, and so few places that others need.
#[tokio::test]
async fn a_group_without_a_leader_is_soon_asked_by_scouts_alone_until_it_answers() {
    const STEP: Duration = Duration::from_millis(100);
    let clock = ManualClock::new(WallTime(1));
    let world = world_by(Arc::new(clock.clone()), MetadataReads::Leader);
    world.ask().await;
    let slot = Query::Slot(Slot::new(7).unwrap());
    let query = || world.client.query(&slot, 0);
    world.cluster.is_leaderless.store(true, Ordering::Relaxed);
    let mut first = Box::pin(query());
    assert_eq!(silent_and_refused(&world.client), (0, 0));
    for _ in 0..60 {
        assert!(settled(&mut first).await.is_none(), "it waits for a leader");
        clock.advance(STEP);
    }
    let mut scout = Box::pin(query());
    assert!((&mut scout).now_or_never().is_none(), "one may try");
    // Nobody else runs meanwhile, so whatever is sent is sent for this one.
    let asked = || world.cluster.asked.lock().unwrap().len();
    let before = asked();
    let refused = query().now_or_never().expect("at once").unwrap_err();
    assert_eq!((refused.code.as_str(), asked()), ("metadata_unreachable", before));
    assert_eq!(silent_and_refused(&world.client), (1, 1));
    drop(scout);
    let mut scout = Box::pin(query());
    assert!((&mut scout).now_or_never().is_none(), "the next one may try");

    world.cluster.is_leaderless.store(false, Ordering::Relaxed);
    let answer = loop {
        if let Some(answer) = settled(&mut scout).await {
            break answer;
        }
        clock.advance(STEP);
    };
    assert_eq!(answer.unwrap_err().code, "not_found", "a refusal by the group");
    assert_eq!(
        silent_and_refused(&world.client),
        (0, 1),
        "though the first one still waits"
    );
    let both = tokio::join!(query(), query());
    let codes = [both.0, both.1].map(|answer| answer.unwrap_err().code);
    assert_eq!(codes, ["not_found"; 2]);
}

#[tokio::test]
async fn by_option_the_nearest_replica_answers_and_the_next_when_it_is_gone() {
    let world = world(MetadataReads::Nearest);
    assert_eq!(world.ask().await, [(2, Method::QueryReplica, GroupId(1))]);
    assert_eq!(
        world.client.leader_of(GroupId(1)),
        None,
        "whoever answers need not lead"
    );
    let (own, nearest) = (process(Role::Gateway, 1), process(Role::Metadata, 2));
    world.network.break_way(own, nearest, Fault::Cut);
    let asked = world.ask().await;
    assert!(asked.len() == 1 && asked[0].0 != 2, "{asked:?}");
}

#[test]
fn replicas_are_ordered_by_rack_then_site_and_gateways_begin_with_different_ones() {
    let at: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let mut processes: Vec<ProcessInfo> = (1..=4)
        .zip(["r1", "r2", "r2", "r3"])
        .map(|(number, region)| placed(process(Role::Metadata, number), at, region))
        .collect();
    processes[1].zone = "z2".to_owned();
    let order = |gateway: u64, region: &str| {
        let own = process(Role::Gateway, gateway);
        let mut all = processes.clone();
        all.push(placed(own, at, region));
        let mut peers: Vec<Peer> = processes
            .iter()
            .map(|process| Peer {
                process: process.id,
                address: at,
            })
            .collect();
        nearest_first(&mut peers, own, &all);
        peers.into_iter().map(|peer| peer.process.number).collect::<Vec<_>>()
    };
    assert_eq!(order(4, "r2"), [3, 2, 1, 4]);
    assert_eq!(order(1, "elsewhere"), [2, 3, 4, 1]);
    assert_eq!(order(2, "elsewhere"), [3, 4, 1, 2]);
    let mut none: Vec<Peer> = Vec::new();
    nearest_first(&mut none, process(Role::Gateway, 1), &processes);
    assert!(none.is_empty());
}
