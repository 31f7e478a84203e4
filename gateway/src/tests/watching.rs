//! What a gateway shows to whoever watches it: readiness, metrics, request ids, slow requests, the cluster's status.

use super::wire::exchange;
use super::world::World;
use crate::drive::Caller;
use model::authorize::Principal;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

const ID: &str = "0123456789abcdef0123456789abcdef";

/// A line of a log: its level and its fields, the message among them.
type Line = (Level, BTreeMap<String, String>);

/// Lines of the gateway's own log.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<Line>>>);

struct Fields<'a>(&'a mut BTreeMap<String, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("gateway::http")
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut fields = BTreeMap::new();
        event.record(&mut Fields(&mut fields));
        self.0.lock().unwrap().push((*event.metadata().level(), fields));
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

impl Lines {
    fn levels_of(&self, message: &str) -> Vec<Level> {
        let lines = self.0.lock().unwrap();
        let said = |fields: &BTreeMap<String, String>| fields.get("message").is_some_and(|text| text == message);
        lines
            .iter()
            .filter(|(_, fields)| said(fields))
            .map(|(level, _)| *level)
            .collect()
    }
}

fn plain(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").into_bytes()
}

#[tokio::test]
async fn a_gateway_is_ready_while_the_control_group_answers_and_says_what_is_missing() {
    let world = World::start().await;
    let ask = async || exchange(world.address(), &plain("/readyz")).await;
    assert_eq!(ask().await.status, 200);
    world.cut_metadata();
    world.clock.advance(Duration::from_secs(1));
    let reply = world.while_time_passes(ask()).await;
    let body = String::from_utf8(reply.body).unwrap();
    assert_eq!(reply.status, 503, "{body}");
    assert!(body.contains("no majority of the control group answers"), "{body}");
    assert_eq!(exchange(world.address(), &plain("/healthz")).await.status, 200);
    world.mend();
    world.clock.advance(Duration::from_secs(2));
    assert_eq!(world.while_time_passes(ask()).await.status, 200);
}

#[tokio::test]
async fn readiness_is_asked_of_the_control_group_once_a_second_at_most() {
    let world = World::start().await;
    world.clock.advance(Duration::from_secs(2));
    assert_eq!(exchange(world.address(), &plain("/readyz")).await.status, 200);
    // Cut off, and within the second nobody notices, because nobody asks.
    world.cut_metadata();
    for _ in 0..20 {
        assert_eq!(exchange(world.address(), &plain("/readyz")).await.status, 200);
    }
}

#[tokio::test]
async fn a_request_id_is_the_clients_own_or_drawn_and_stands_in_answer_and_problem() {
    let world = World::start().await;
    let given = world
        .request("GET /api/v1/me", &format!("X-Request-Id: {ID}\r\n"), b"")
        .await;
    assert_eq!((given.status, given.header("x-request-id")), (200, Some(ID)));
    let uuid = "01234567-89AB-cdef-0123-456789abcdef";
    let refused = world
        .request("GET /api/v1/nothing", &format!("X-Request-Id: {uuid}\r\n"), b"")
        .await;
    assert_eq!(refused.header("x-request-id"), Some(ID));
    assert_eq!(refused.refused(404, "route_not_found").request_id, ID);
    let drawn = world.request("GET /api/v1/me", "X-Request-Id: of mine\r\n", b"").await;
    let id = drawn.header("x-request-id").unwrap();
    assert!(
        id.len() == 32 && id.bytes().all(|digit| digit.is_ascii_hexdigit()),
        "{id}"
    );
}

#[tokio::test]
async fn every_metric_is_on_the_page_from_the_start_and_a_budget_is_shown() {
    let world = World::start().await;
    let page = String::from_utf8(exchange(world.address(), &plain("/metrics")).await.body).unwrap();
    for definition in crate::metrics::ALL {
        let line = format!("# TYPE {} {}", definition.name, definition.shape.word());
        assert!(page.lines().any(|found| found == line), "{line} is missing in\n{page}");
    }
    assert!(page.contains("gateway_budget_bytes 268435456"), "{page}");
}

#[tokio::test]
async fn a_slow_request_is_a_warning_and_a_slow_client_is_not() {
    let lines = Lines::default();
    // With one listener alone, a line that another test's thread meets first would be switched off for all threads.
    let _second = tracing::Dispatch::new(Lines::default());
    let _heard = tracing::subscriber::set_default(lines.clone());
    let world = World::start().await;
    assert_eq!(world.request("GET /api/v1/me", "", b"").await.status, 200);
    assert_eq!(lines.levels_of("request answered"), [Level::DEBUG]);
    // The client takes its time in the middle of the body.
    let head = world.with_token(
        "POST /api/v1/files/upload?uploadType=media&path=/f",
        "Content-Length: 4\r\n",
        b"ab",
    );
    let mut sender = super::wire::Line::open(world.address()).await;
    sender.send(&head).await;
    let silent = async {
        while world.clock.sleepers() == 0 {
            tokio::task::yield_now().await;
        }
    };
    silent.await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    world.clock.advance(Duration::from_secs(5));
    sender.send(b"cd").await;
    assert!(!sender.some().await.is_empty());
    assert!(lines.levels_of("slow request").is_empty());
    // We take our time: nobody answers us for two seconds.
    world.cut_metadata();
    let began = daemon::clock::Clock::monotonic(&world.clock);
    let mend = async {
        while daemon::clock::Clock::monotonic(&world.clock) < began + Duration::from_secs(2) {
            tokio::task::yield_now().await;
        }
        world.mend();
    };
    let both = async { tokio::join!(world.request("GET /api/v1/me", "", b""), mend).0 };
    assert_eq!(world.while_time_passes(both).await.status, 200);
    assert_eq!(lines.levels_of("slow request"), [Level::WARN]);
}

#[tokio::test]
async fn the_status_is_told_also_when_nodes_and_the_metadata_do_not_answer() {
    let world = World::start().await;
    let admin = Caller {
        principal: Principal {
            is_admin: true,
            ..world.caller.principal
        },
        ..world.caller
    };
    let refused = world.core().status(&world.caller).await.unwrap_err();
    assert_eq!(refused.code, "admin_only");
    let status = world.while_time_passes(world.core().status(&admin)).await.unwrap();
    // Shelves tell nothing of themselves.
    assert_eq!(status.nodes.len(), 6);
    assert!(status.nodes.iter().all(|node| node.state == "away active"));
    assert!(
        status.nodes[0]
            .disks
            .iter()
            .all(|disk| disk.state == "away" && disk.used_bytes.is_none())
    );
    let groups: Vec<_> = status
        .groups
        .iter()
        .map(|group| (group.id, group.leader, group.term, group.replicas[0].behind))
        .collect();
    assert_eq!(groups, [(0, Some(1), Some(3), Some(0)), (1, Some(1), Some(3), Some(0))]);
    assert!(status.stripes.is_complete && status.stripes.total == 0);
    world.cut_metadata();
    let status = world.while_time_passes(world.core().status(&admin)).await.unwrap();
    assert!(status.groups.iter().all(|group| group.leader.is_none()));
    assert!(status.groups.iter().all(|group| group.replicas[0].state == "away"));
    assert_eq!(status.nodes.len(), 6, "what is known from before is shown");
    assert!(!status.stripes.is_complete);
}
