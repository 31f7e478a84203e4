//! How much is asked to keep a view fresh: all of it while something was decided, one thing while nothing was.

use super::Directory;
use crate::drive::metadata_client::MetadataClient;
use crate::seams::Seams;
use async_trait::async_trait;
use bytes::Bytes;
use codec::cipher::Aes256Gcm;
use daemon::clock::SystemClock;
use daemon::metrics::Metrics;
use daemon::pool::Pool;
use daemon::random::Random;
use model::cluster::ClusterMap;
use model::id::{ClusterId, MapVersion};
use model::layout::Layout;
use model::process::{ProcessId, Role};
use model::profile::ProfileId;
use protocol::frame::{Answer, Call, decode, encode};
use protocol::metadata::control::{ClusterSettings, ClusterState};
use protocol::metadata::query::ControlQuery;
use protocol::metadata::{GroupReply, Query, QueryAnswer, QueryRequest, Reply};
use protocol::wire_error::Failure;
use rpc::memory::{MemoryNetwork, MemoryTransport};
use rpc::transport::{Handler, Peer};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

const CLUSTER: ClusterId = ClusterId(1);

/// A replica of the control group whose entries each make another map.
#[derive(Default)]
struct Control {
    applied: AtomicU64,
    asked: Mutex<Vec<ControlQuery>>,
}

impl Control {
    fn answer(&self, query: &ControlQuery) -> QueryAnswer {
        let version = MapVersion(self.applied.load(Ordering::SeqCst));
        match query {
            ControlQuery::Cluster => QueryAnswer::Cluster(ClusterState {
                cluster: CLUSTER,
                settings: ClusterSettings {
                    default_profile: ProfileId::Dev,
                    default_quota_bytes: 1,
                    birth_epoch_ms: 1,
                    block_grace_ms: 1,
                },
                map: ClusterMap {
                    version,
                    ..ClusterMap::default()
                },
            }),
            ControlQuery::Layout(_) => QueryAnswer::Layout(Layout {
                planned_from: version,
                ..Layout::default()
            }),
            ControlQuery::Slots => QueryAnswer::Slots(Vec::new()),
            ControlQuery::Processes => QueryAnswer::Processes(Vec::new()),
            ControlQuery::Groups => QueryAnswer::Groups(Vec::new()),
        }
    }
}

#[async_trait]
impl Handler for Control {
    async fn handle(&self, _: ProcessId, call: Call) -> Result<Answer, Failure> {
        let request: QueryRequest = decode(&call.message)?;
        let Query::Control(query) = decode(&request.query)? else {
            panic!("the control group alone is asked here")
        };
        let result = Ok(self.answer(&query));
        self.asked.lock().unwrap().push(query);
        let reply = Reply { time: None, result }.to_bytes();
        let log_index = self.applied.load(Ordering::SeqCst);
        Ok(Answer {
            message: encode(&GroupReply { log_index, reply })?,
            payload: Bytes::new(),
        })
    }
}

struct World {
    control: Arc<Control>,
    directory: Directory,
    _transport: Arc<MemoryTransport>,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(SystemClock::new());
        let network = MemoryNetwork::new(clock.clone());
        let process = |role| ProcessId { role, number: 1 };
        let control = Arc::new(Control::default());
        let (transport, address) = network.attach(process(Role::Metadata), CLUSTER, control.clone());
        let seams = Seams {
            transport: network
                .attach(process(Role::Gateway), CLUSTER, Arc::new(Control::default()))
                .0,
            clock,
            pool: Pool::inline(),
            random: Random::seeded(1),
            metrics: Metrics::new(),
            cipher: Arc::new(Aes256Gcm),
        };
        let seed = Peer {
            process: process(Role::Metadata),
            address,
        };
        Self {
            control,
            directory: Directory::new(Arc::new(MetadataClient::new(seams, 1, vec![seed]))),
            _transport: transport,
        }
    }

    fn decide(&self) {
        self.control.applied.fetch_add(1, Ordering::SeqCst);
    }

    /// Keeps up, and answers how much was asked; what is known is the present then.
    async fn keep_up(&self) -> usize {
        self.control.asked.lock().unwrap().clear();
        self.directory.keep_up(0).await.unwrap();
        let known = self.directory.last_known().unwrap();
        let present = MapVersion(self.control.applied.load(Ordering::SeqCst));
        assert_eq!((known.map.version, known.layout.planned_from), (present, present));
        self.control.asked.lock().unwrap().len()
    }
}

#[tokio::test]
async fn all_is_asked_until_nothing_was_decided_since_and_one_thing_from_then_on() {
    let world = World::new();
    world.decide();
    // Nothing had been heard before the first time, so nobody knows as of when its answers are.
    for expected in [5, 5, 1, 1] {
        assert_eq!(world.keep_up().await, expected);
    }
    for _ in 0..3 {
        world.decide();
        // The question that told of it was asked before.
        for expected in [5, 5, 1, 1] {
            assert_eq!(world.keep_up().await, expected);
        }
    }
}

#[tokio::test]
async fn routes_of_unknown_age_are_fetched_anew_and_whoever_wants_all_is_given_all() {
    let world = World::new();
    for _ in 0..3 {
        world.keep_up().await;
    }
    assert_eq!(world.keep_up().await, 1);
    world.directory.client.set_routes(Vec::new(), &[], Vec::new());
    assert_eq!(world.keep_up().await, 5);
    assert_eq!(world.keep_up().await, 1);
    world.control.asked.lock().unwrap().clear();
    world.directory.refresh(0).await.unwrap();
    assert_eq!(world.control.asked.lock().unwrap().len(), 5);
}
