//! One suite for every transport, run over QUIC and in memory; what only QUIC can show is in quic_only.rs.

mod quic_only;
mod silence;

use crate::authority::ClusterAuthority;
use crate::identity::{Identity, Revocations};
use crate::limits::RpcLimits;
use crate::memory::{Fault, MemoryNetwork};
use crate::quic::{QuicOptions, QuicTransport};
use crate::transport::{Handler, Peer, RpcError, Transport};
use async_trait::async_trait;
use bytes::Bytes;
use daemon::clock::{Clock, SystemClock};
use model::error_kind::ErrorKind;
use model::id::ClusterId;
use model::process::{ProcessId, Role};
use protocol::frame::{Answer, Call, Method, PAYLOAD_BYTES_MAX};
use protocol::wire_error::Failure;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const CLUSTER: ClusterId = ClusterId(11);
const SERVER: ProcessId = ProcessId {
    role: Role::Node,
    number: 1,
};
const OTHER: ProcessId = ProcessId {
    role: Role::Node,
    number: 2,
};
const DAY: Duration = Duration::from_secs(86_400);
const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(150);

/// Messages that the scripted handler understands; any other is echoed with its payload.
const HANG: &[u8] = b"hang";
const PANIC: &[u8] = b"panic";
const REFUSE: &[u8] = b"refuse";

#[derive(Default)]
struct Scripted {
    begun: AtomicUsize,
    /// Handlers that hung and were dropped.
    dropped: AtomicUsize,
}

struct NoteDrop<'a>(&'a AtomicUsize);

impl Drop for NoteDrop<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Handler for Scripted {
    async fn handle(&self, caller: ProcessId, call: Call) -> Result<Answer, Failure> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        match &call.message[..] {
            HANG => {
                let _note = NoteDrop(&self.dropped);
                std::future::pending().await
            }
            PANIC => panic!("planted"),
            REFUSE => {
                let kind = ErrorKind::ALL[usize::from(call.payload[0])];
                Err(Failure::new(kind, "planted", "as asked").with("caller", caller))
            }
            _ => Ok(Answer {
                message: call.message,
                payload: call.payload,
            }),
        }
    }
}

/// A caller and the server that it calls.
struct Scene {
    name: &'static str,
    caller: Arc<dyn Transport>,
    handler: Arc<Scripted>,
    peer: Peer,
    /// Kept alive for the scene.
    _server: Arc<dyn Transport>,
}

fn authority() -> ClusterAuthority {
    ClusterAuthority::create(CLUSTER, SystemClock::new().wall(), DAY).unwrap()
}

fn identity(authority: &ClusterAuthority, process: ProcessId) -> Identity {
    Identity::from_pem(&authority.issue(process, SystemClock::new().wall(), DAY).unwrap()).unwrap()
}

fn bind(identity: Identity, handler: Arc<dyn Handler>) -> (Arc<QuicTransport>, SocketAddr) {
    bind_with_clock(identity, handler, Arc::new(SystemClock::new()))
}

fn bind_with_clock(
    identity: Identity,
    handler: Arc<dyn Handler>,
    clock: Arc<dyn Clock>,
) -> (Arc<QuicTransport>, SocketAddr) {
    let options = QuicOptions {
        identity,
        listen: ([127, 0, 0, 1], 0).into(),
        clock,
        limits: RpcLimits::default(),
        revocations: Revocations::default(),
        has_jumbo_frames: false,
    };
    QuicTransport::bind(options, handler).unwrap()
}

fn scenes(role: Role) -> [Scene; 2] {
    let caller = ProcessId { role, number: 9 };
    let authority = authority();
    let handler = Arc::new(Scripted::default());
    let (server, address) = bind(identity(&authority, SERVER), handler.clone());
    let (client, _) = bind(identity(&authority, caller), Arc::new(Scripted::default()));
    let quic = Scene {
        name: "quic",
        caller: client,
        handler,
        peer: Peer {
            process: SERVER,
            address,
        },
        _server: server,
    };
    let network = MemoryNetwork::new(Arc::new(SystemClock::new()));
    let handler = Arc::new(Scripted::default());
    let (server, address) = network.attach(SERVER, CLUSTER, handler.clone());
    let (client, _) = network.attach(caller, CLUSTER, Arc::new(Scripted::default()));
    let memory = Scene {
        name: "memory",
        caller: client,
        handler,
        peer: Peer {
            process: SERVER,
            address,
        },
        _server: server,
    };
    [quic, memory]
}

fn call(method: Method, message: &[u8], payload: impl Into<Bytes>) -> Call {
    Call {
        method,
        request_id: 3,
        message: Bytes::copy_from_slice(message),
        payload: payload.into(),
    }
}

impl Scene {
    async fn ask(&self, message: &[u8], payload: impl Into<Bytes>, deadline: Duration) -> Result<Answer, RpcError> {
        self.caller
            .call(&self.peer, call(Method::Ping, message, payload), deadline)
            .await
    }

    async fn until_dropped(&self, count: usize) {
        tokio::time::timeout(LONG, async {
            while self.handler.dropped.load(Ordering::SeqCst) < count {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("a handler whose caller is gone is dropped");
    }
}

#[tokio::test]
async fn messages_and_payloads_of_every_size_come_back_unchanged() {
    for scene in scenes(Role::Gateway) {
        for size in [0, 1, 1_199, 1_200, 65_537, 1 << 20, PAYLOAD_BYTES_MAX] {
            let payload: Bytes = (0..size)
                .map(|index| u8::try_from(index % 251).unwrap())
                .collect::<Vec<_>>()
                .into();
            for message in [&b""[..], b"a message", &[7; 100_000]] {
                let answer = scene.ask(message, payload.clone(), LONG).await.unwrap();
                assert_eq!(answer.message, message, "{} {size}", scene.name);
                assert!(answer.payload == payload, "{} {size}", scene.name);
            }
        }
    }
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_it_is_sent() {
    for scene in scenes(Role::Gateway) {
        let error = scene.ask(b"", vec![0; PAYLOAD_BYTES_MAX + 1], LONG).await.unwrap_err();
        assert!(matches!(error, RpcError::TooLarge { .. }) && error.is_surely_not_executed());
        assert_eq!(scene.handler.begun.load(Ordering::SeqCst), 0);
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_midway_drops_its_handler_and_spoils_nothing() {
    for scene in scenes(Role::Gateway) {
        let hanging = scene.ask(HANG, vec![1; 1 << 20], LONG);
        tokio::select! {
            result = hanging => panic!("{}: {result:?}", scene.name),
            () = async {
                while scene.handler.begun.load(Ordering::SeqCst) == 0 {
                    tokio::task::yield_now().await;
                }
            } => {}
        }
        scene.until_dropped(1).await;
        assert!(scene.ask(b"after", Bytes::new(), LONG).await.is_ok(), "{}", scene.name);
    }
}

/// shows: F30 scale=1/2
#[tokio::test]
async fn a_peer_that_accepts_and_never_answers_costs_two_deadlines_and_then_nothing() {
    for scene in scenes(Role::Gateway) {
        // The connection stands, so that each of the short deadlines is the peer's alone.
        assert!(scene.ask(b"", Bytes::new(), LONG).await.is_ok(), "{}", scene.name);
        for _ in 0..2 {
            let error = scene.ask(HANG, Bytes::new(), SHORT).await.unwrap_err();
            assert_eq!(
                error,
                RpcError::DeadlineMissed {
                    peer: SERVER,
                    was_sent: true
                },
                "{}",
                scene.name
            );
            assert!(error.kind() == ErrorKind::Ambiguous && !error.is_surely_not_executed());
        }
        scene.until_dropped(2).await;
        let error = scene.ask(b"", Bytes::new(), LONG).await.unwrap_err();
        assert!(
            matches!(error, RpcError::BreakerOpen { .. }) && error.is_surely_not_executed(),
            "{error:?}"
        );
        // Raft paces itself and is let through, which shows that the peer is back and closes the breaker.
        let raft = scene
            .caller
            .call(&scene.peer, call(Method::RaftVote, b"", Bytes::new()), LONG)
            .await;
        assert!(matches!(raft, Err(RpcError::Refused(failure)) if failure.code == "role_not_allowed"));
        assert!(scene.ask(b"", Bytes::new(), LONG).await.is_ok());
    }
}

/// shows: F41 scale=1/2
#[tokio::test]
async fn a_role_that_may_not_make_a_call_is_refused_before_its_handler() {
    for role in [Role::Admin, Role::Gateway, Role::Metadata, Role::Node] {
        for scene in scenes(role) {
            for method in Method::ALL {
                let before = scene.handler.begun.load(Ordering::SeqCst);
                let result = scene
                    .caller
                    .call(&scene.peer, call(method, b"", Bytes::new()), LONG)
                    .await;
                let begun = scene.handler.begun.load(Ordering::SeqCst) - before;
                match result {
                    Ok(_) => assert!(method.is_allowed(role) && begun == 1),
                    Err(RpcError::Refused(failure)) => {
                        assert_eq!(
                            (failure.kind, failure.code.as_str()),
                            (ErrorKind::Denied, "role_not_allowed")
                        );
                        assert!(!method.is_allowed(role) && begun == 0);
                    }
                    Err(other) => panic!("{}: {other}", scene.name),
                }
            }
        }
    }
}

#[tokio::test]
async fn another_process_at_the_address_is_not_called() {
    for scene in scenes(Role::Gateway) {
        let peer = Peer {
            process: OTHER,
            ..scene.peer
        };
        let error = scene
            .caller
            .call(&peer, call(Method::Ping, b"", Bytes::new()), LONG)
            .await
            .unwrap_err();
        assert_eq!(
            error,
            RpcError::WrongPeer {
                expected: OTHER,
                found: SERVER
            },
            "{}",
            scene.name
        );
        assert_eq!(scene.handler.begun.load(Ordering::SeqCst), 0);
    }
}

#[tokio::test]
async fn kinds_codes_and_fields_of_failures_survive() {
    for scene in scenes(Role::Gateway) {
        for (index, kind) in ErrorKind::ALL.into_iter().enumerate() {
            let error = scene
                .ask(REFUSE, vec![u8::try_from(index).unwrap()], LONG)
                .await
                .unwrap_err();
            let expected = Failure::new(kind, "planted", "as asked").with("caller", "gateway-9");
            assert_eq!(error, RpcError::Refused(expected));
            assert_eq!(error.kind(), kind);
        }
    }
}

/// shows: F42 scale=1/2
#[tokio::test]
async fn a_panic_of_a_handler_is_answered_and_takes_nothing_down() {
    for scene in scenes(Role::Gateway) {
        let error = scene.ask(PANIC, Bytes::new(), LONG).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Bug, "{}", scene.name);
        assert!(scene.ask(b"", Bytes::new(), LONG).await.is_ok());
    }
}

#[tokio::test]
async fn two_hundred_calls_at_once_get_each_their_own_answer() {
    for scene in scenes(Role::Gateway) {
        let calls = (0..200_u32).map(|number| {
            let scene = &scene;
            async move {
                let payload = vec![number.to_le_bytes()[0]; 20_000];
                let answer = scene.ask(&number.to_le_bytes(), payload.clone(), LONG).await.unwrap();
                assert!(answer.message[..] == number.to_le_bytes() && answer.payload == payload);
            }
        });
        futures_util::future::join_all(calls).await;
    }
}

#[tokio::test]
async fn in_memory_each_fault_of_a_way_shows_as_what_it_is() {
    let network = MemoryNetwork::new(Arc::new(SystemClock::new()));
    let (own, handler) = (
        ProcessId {
            role: Role::Gateway,
            number: 9,
        },
        Arc::new(Scripted::default()),
    );
    let (_server, address) = network.attach(SERVER, CLUSTER, handler.clone());
    let peer = Peer {
        process: SERVER,
        address,
    };
    for (fault, begun) in [(Fault::Cut, 0), (Fault::RequestsVanish, 0), (Fault::AnswersVanish, 1)] {
        let (caller, _) = network.attach(own, CLUSTER, Arc::new(Scripted::default()));
        network.break_way(own, SERVER, fault);
        let error = caller
            .call(&peer, call(Method::Ping, b"", Bytes::new()), SHORT)
            .await
            .unwrap_err();
        assert_eq!(
            error.is_surely_not_executed(),
            fault == Fault::Cut,
            "{fault:?}: {error}"
        );
        assert_eq!(handler.begun.load(Ordering::SeqCst), begun, "{fault:?}");
        network.mend_way(own, SERVER);
        assert!(
            caller
                .call(&peer, call(Method::Ping, b"", Bytes::new()), SHORT)
                .await
                .is_ok()
        );
        handler.begun.store(0, Ordering::SeqCst);
    }
    let (stranger, _) = network.attach(own, ClusterId(12), Arc::new(Scripted::default()));
    let error = stranger
        .call(&peer, call(Method::Ping, b"", Bytes::new()), SHORT)
        .await
        .unwrap_err();
    assert!(matches!(error, RpcError::Untrusted { .. }));
}
