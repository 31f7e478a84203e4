//! Groups of drives beside each other, as a gateway asks them: a listing is one question to the owner of the drive, and users of a
//! group that does not answer leave room for those of another.
//!
//! The gateway runs in the test's own process in front of a real cluster; its calls to groups are noted, and those to one group can be
//! held. Not here: groups whose replicas are gone (`metadata-raft/tests/replicas`), a map of slots that is old (`stale_routes`), and
//! so many users of a silent group that their shares together are all places, whom the gateway refuses after a while
//! (`gateway/src/drive/metadata_client/tests.rs`).

use crate::cut_leader;
use crate::insider::{self, Insider};
use crate::overload::begin;
use crate::served::eventually;
use crate::world::{World, answer};
use api::metadata::Listing;
use bytes::Bytes;
use client_sdk::client::{Client, Target};
use daemon::shutdown::Shutdown;
use gateway::config::{AdmissionLimits, CACHE_BYTES_DEFAULT, CacheLimits, GatewayConfig, MetadataReads};
use gateway::metrics::REQUESTS_IN_SERVICE;
use gateway::serve::{Gateway, Place};
use model::id::{GroupId, Slot};
use protocol::frame::{Answer, Call, Method, decode};
use protocol::metadata::{ProposeRequest, Query, QueryRequest};
use reqwest::Method as Verb;
use rpc::transport::{Peer, RpcError, Transport};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// The groups of drives of these clusters.
const GROUPS: [GroupId; 2] = [GroupId(1), GroupId(2)];
/// Far from the numbers of the cluster's own gateways, and from those of `cut_leader`.
const NUMBER: u64 = 950;
/// Rounds of listings of each user.
const ROUNDS: u128 = 10;
/// Far from the ids that requests have which nobody named.
const TRACES_FROM: u128 = 1 << 64;

/// Requests in service of two accounts that want more, of eight places.
const IN_SERVICE: i64 = 6;

/// What a call to a group is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Topic {
    Account,
    Drive,
    Other,
}

/// A call to a group.
#[derive(Clone, Copy, Debug)]
struct Asked {
    trace: u128,
    group: GroupId,
    topic: Topic,
    /// By a replica that leads: others send on, which may happen at any time.
    is_answered: bool,
}

/// Notes what groups are asked, and holds the calls to one of them.
struct Watched {
    inner: Arc<dyn Transport>,
    asked: Mutex<Vec<Asked>>,
    silent: watch::Sender<Option<GroupId>>,
}

/// The group that a call is for, and what about.
fn addressed(call: &Call) -> Option<(GroupId, Topic)> {
    match call.method {
        Method::Query | Method::QueryReplica => {
            let request: QueryRequest = decode(&call.message).unwrap();
            let query: Query = decode(&request.query).unwrap();
            let topic = match query {
                Query::User(_) => Topic::Account,
                Query::Drive(_) | Query::DriveSince(..) => Topic::Drive,
                _ => Topic::Other,
            };
            Some((request.group, topic))
        }
        Method::Propose => {
            let request: ProposeRequest = decode(&call.message).unwrap();
            Some((request.group, Topic::Other))
        }
        _ => None,
    }
}

impl Watched {
    /// Returns once calls to the group may go on.
    async fn pass(&self, group: GroupId) {
        let mut silent = self.silent.subscribe();
        drop(silent.wait_for(|silent| *silent != Some(group)).await);
    }

    fn note(&self, trace: u128, group: GroupId, topic: Topic) -> usize {
        let mut asked = self.asked.lock().unwrap();
        asked.push(Asked {
            trace,
            group,
            topic,
            is_answered: false,
        });
        asked.len() - 1
    }

    /// What groups were asked for a request.
    fn asked_for(&self, trace: u128) -> Vec<Asked> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|asked| asked.trace == trace).copied().collect()
    }
}

#[async_trait::async_trait]
impl Transport for Watched {
    async fn call(&self, peer: &Peer, call: Call, deadline: Duration) -> Result<Answer, RpcError> {
        let Some((group, topic)) = addressed(&call) else {
            return self.inner.call(peer, call, deadline).await;
        };
        let at = self.note(call.request_id, group, topic);
        self.pass(group).await;
        let outcome = self.inner.call(peer, call, deadline).await;
        self.asked.lock().unwrap()[at].is_answered = outcome.is_ok();
        outcome
    }
}

/// A gateway whose calls to groups are watched.
struct Front {
    gateway: Gateway,
    shutdown: Shutdown,
    watched: Arc<Watched>,
}

impl Front {
    /// Starts one that asks leaders; `change` alters the rest of its configuration.
    async fn start(world: &World, change: impl FnOnce(&mut GatewayConfig)) -> Self {
        let insider = Insider::of_dev(&world.data_dir(), "gateway-1");
        let watched = Arc::new(Watched {
            inner: Arc::clone(&insider.transport) as Arc<dyn Transport>,
            asked: Mutex::default(),
            silent: watch::Sender::new(None),
        });
        let mut config = cut_leader::config(world);
        config.metadata_reads = MetadataReads::Leader;
        change(&mut config);
        let place = Place {
            number: NUMBER,
            metadata: insider.metadata.clone(),
            nodes: None,
        };
        let seams = insider::seams(Arc::clone(&watched) as Arc<dyn Transport>);
        let shutdown = Shutdown::new();
        let gateway = gateway::serve::start(config, place, seams, shutdown.clone());
        let gateway = gateway.await.unwrap();
        gateway.app().core.metadata.refresh_routes(1).await.unwrap();
        Self {
            gateway,
            shutdown,
            watched,
        }
    }

    /// A new account of which `group` has the drive; its client comes to this gateway, which knows its token.
    async fn user_of(&self, world: &World, group: GroupId, prefix: &str) -> Client {
        let metadata = &self.gateway.app().core.metadata;
        let mut names = (0..).map(|number| format!("{prefix}-{number}"));
        let name = names.find(|name| metadata.group_of(Slot::of_username(name)) == Some(group));
        let (there, _) = world.user(&name.unwrap(), 1 << 30).await;
        let here = Client::new(&format!("http://{}", self.gateway.address())).unwrap();
        let here = here.with_token(there.token().unwrap());
        here.make_folder("/folder/within").await.unwrap();
        here
    }

    /// Short requests in service.
    fn in_service(&self) -> i64 {
        let gauge = self.gateway.app().core.seams.metrics.gauge(&REQUESTS_IN_SERVICE);
        gauge.with_label_values(&["requests"]).get()
    }

    async fn stop(self) {
        self.shutdown.request();
        self.gateway.ended().await;
    }
}

/// Lists under the request id `trace` and checks who was asked for it.
async fn list(front: &Front, client: &Client, owner: GroupId, query: (&str, &str), trace: u128) {
    let request = client.request(Verb::GET, "/api/v1/metadata").query(&[query]);
    let listed = answer(request.header("x-request-id", format!("{trace:032x}"))).await;
    assert_eq!(listed.status, 200, "{listed:?}");
    let listing: Listing = serde_json::from_value(listed.json()).unwrap();
    assert_eq!(listing.entries.len(), 1, "{query:?}");
    let asked = front.watched.asked_for(trace);
    assert!(asked.iter().all(|asked| asked.group == owner), "{owner:?}: {asked:?}");
    let answered = asked.iter().filter(|asked| asked.is_answered).map(|asked| asked.topic);
    // Whose token it is was remembered, or was asked before.
    let (account, rest): (Vec<Topic>, Vec<Topic>) = answered.partition(|topic| *topic == Topic::Account);
    assert_eq!(rest, [Topic::Drive], "{asked:?}");
    assert!(account.len() <= 1, "{asked:?}");
}

/// With answers kept and without: what is kept is used only when the group says that it holds.
///
/// shows: D-3.1 side=one-group, SCL-1 side=slots
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_asks_the_group_of_the_drive_one_question_and_no_other_group() {
    let world = World::start_with(&["--groups", "2"]).await;
    let mut traces = TRACES_FROM..;
    for (prefix, cache_bytes) in [("plain", 0), ("kept", CACHE_BYTES_DEFAULT)] {
        let front = Front::start(&world, |config| config.cache = CacheLimits::of(cache_bytes)).await;
        for owner in GROUPS {
            let client = front.user_of(&world, owner, prefix).await;
            let top = client.list("/", 10, None).await.unwrap();
            let folder = top.entries[0].id.as_str();
            for _ in 0..ROUNDS {
                for query in [("path", "/"), ("path", "/folder"), ("id", folder)] {
                    list(&front, &client, owner, query, traces.next().unwrap()).await;
                }
            }
        }
        front.stop().await;
    }
}

/// shows: D-3.9 side=isolation
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_a_silent_group_who_fill_their_shares_leave_room_for_one_of_another_group() {
    let world = World::start_with(&["--groups", "2"]).await;
    let front = Front::start(&world, |config| {
        config.admission = AdmissionLimits {
            requests_in_service_max: 8,
            requests_held_max: 32,
            // Nobody who waits is sent away while the test looks.
            wait_max: Duration::from_secs(60),
            ..AdmissionLimits::default()
        };
    })
    .await;
    let [answering, silent] = GROUPS;
    let served = front.user_of(&world, answering, "served").await;
    let greedy = front.user_of(&world, silent, "greedy").await;
    let second = front.user_of(&world, silent, "second").await;
    front.watched.silent.send_replace(Some(silent));

    // Of eight places whoever comes first has half, and the next one half of the rest; what they ask beyond that is not taken on.
    let mut held = Vec::new();
    for (client, asked, expected) in [(&greedy, 5, 4), (&second, 3, IN_SERVICE)] {
        held.extend((0..asked).map(|_| begin(client)));
        eventually("a full share", async || match front.in_service() {
            full if full == expected => Ok(()),
            other => Err(format!("{other} in service instead of {expected}")),
        })
        .await;
    }
    let target = Target::new_file("/folder/file");
    let put = served.put(&target, Bytes::from_static(b"content")).await.unwrap();
    for number in 0..10 {
        served.make_folder(&format!("/{number}")).await.unwrap();
        let listed = served.list("/", 100, None).await.unwrap();
        assert_eq!(listed.entries.len(), number + 2);
        let back = served.get(&put.entry.id, None).await.unwrap().bytes().await.unwrap();
        assert_eq!(back, Bytes::from_static(b"content"));
    }
    assert_eq!(front.in_service(), IN_SERVICE, "the others' requests were not held");

    front.watched.silent.send_replace(None);
    let mut done = 0;
    for request in held {
        let answer = request.await.unwrap();
        if answer.status == 200 {
            done += 1;
        } else {
            answer.refused(503, "overloaded");
        }
    }
    assert!(done >= IN_SERVICE, "{done} of those in service were answered");
    front.stop().await;
}
