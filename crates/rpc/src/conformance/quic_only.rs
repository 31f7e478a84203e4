//! What only the QUIC transport can show: certificates, foreign bytes on its port, restarts.

use super::{CLUSTER, DAY, LONG, OTHER, SERVER, SHORT, Scripted, authority, bind, call, identity};
use crate::authority::ClusterAuthority;
use crate::identity::{Identity, Revocations};
use crate::limits::{CONNECTIONS_PER_PEER, PACKET_BYTES_MAX, RpcLimits, SPARE_KEPT, UNUSED_KEPT};
use crate::pool::Lent;
use crate::quic::{BindError, QuicOptions, QuicTransport};
use crate::transport::{Peer, RpcError, Transport};
use crate::wire::encode_request;
use bytes::Bytes;
use daemon::clock::{Clock, SystemClock};
use daemon::random::Random;
use model::id::ClusterId;
use model::process::{ProcessId, Role};
use model::time::WallTime;
use protocol::frame::{Method, RequestHead};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

const CALLER: ProcessId = ProcessId {
    role: Role::Gateway,
    number: 9,
};

/// A server and a caller of one authority, where the server listens, and the handler that it has.
fn pair() -> (Arc<QuicTransport>, Arc<QuicTransport>, SocketAddr, Arc<Scripted>) {
    let authority = authority();
    let handler = Arc::new(Scripted::default());
    let (server, address) = bind(identity(&authority, SERVER), handler.clone());
    let (caller, _) = bind(identity(&authority, CALLER), Arc::new(Scripted::default()));
    (server, caller, address, handler)
}

async fn ping(caller: &QuicTransport, address: SocketAddr) -> Result<(), RpcError> {
    let peer = Peer {
        process: SERVER,
        address,
    };
    caller
        .call(&peer, call(Method::Ping, b"", Bytes::new()), LONG)
        .await
        .map(drop)
}

/// What becomes of a call when the caller and the server have these identities; with the number of handlers begun.
async fn check(caller: Identity, server: Identity) -> (Result<(), RpcError>, usize) {
    let handler = Arc::new(Scripted::default());
    let (_server, address) = bind(server, handler.clone());
    let (caller, _) = bind(caller, Arc::new(Scripted::default()));
    let result = ping(&caller, address).await;
    (result, handler.begun.load(Ordering::SeqCst))
}

fn assert_untrusted((result, begun): (Result<(), RpcError>, usize), what: &str) {
    assert!(matches!(result, Err(RpcError::Untrusted { .. })), "{what}: {result:?}");
    assert_eq!(begun, 0, "{what}");
}

/// shows: QAS-017 scale=1/2
/// shows: F38 scale=1/2
#[tokio::test]
async fn other_authorities_expired_and_future_certificates_are_refused_on_both_sides() {
    let (ours, theirs) = (authority(), authority());
    assert_eq!(check(identity(&ours, CALLER), identity(&ours, SERVER)).await.0, Ok(()));
    assert_untrusted(
        check(identity(&theirs, CALLER), identity(&ours, SERVER)).await,
        "caller of another authority",
    );
    assert_untrusted(
        check(identity(&ours, CALLER), identity(&theirs, SERVER)).await,
        "server of another authority",
    );
    let now = SystemClock::new().wall().0;
    let ten_days_ms = 10 * 86_400_000;
    for (issued, what) in [(now - ten_days_ms, "expired"), (now + ten_days_ms, "not yet valid")] {
        let at = |process| Identity::from_pem(&ours.issue(process, WallTime(issued), DAY).unwrap()).unwrap();
        assert_untrusted(check(at(CALLER), identity(&ours, SERVER)).await, what);
        assert_untrusted(check(identity(&ours, CALLER), at(SERVER)).await, what);
    }
}

/// shows: F38 scale=1/2
#[tokio::test]
async fn a_certificate_is_refused_once_it_is_revoked_on_open_connections_too() {
    let authority = authority();
    let caller_identity = identity(&authority, CALLER);
    let serial = caller_identity.serial().unwrap();
    let revocations = Revocations::default();
    let options = QuicOptions {
        identity: identity(&authority, SERVER),
        listen: ([127, 0, 0, 1], 0).into(),
        clock: Arc::new(SystemClock::new()),
        limits: RpcLimits::default(),
        revocations: revocations.clone(),
        has_jumbo_frames: false,
    };
    let handler = Arc::new(Scripted::default());
    let (_server, address) = QuicTransport::bind(options, handler.clone()).unwrap();
    let (caller, _) = bind(caller_identity, Arc::new(Scripted::default()));
    ping(&caller, address).await.unwrap();
    revocations.revoke(serial);
    ping(&caller, address).await.unwrap_err();
    ping(&caller, address).await.unwrap_err();
    assert_eq!(handler.begun.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn packets_grow_to_the_length_of_jumbo_frames_over_loopback_on_both_sides() {
    let (_server, caller, address, _) = pair();
    let peer = Peer {
        process: SERVER,
        address,
    };
    let payload = Bytes::from(vec![7; 1 << 20]);
    let echo = async || {
        let answer = caller
            .call(&peer, call(Method::Ping, b"", payload.clone()), LONG)
            .await
            .unwrap();
        assert_eq!(answer.payload, payload);
    };
    let connection = caller
        .pool
        .connection(&peer, Duration::ZERO, || caller.dial(&peer))
        .await
        .unwrap();
    let (nearly, few) = (u64::from(PACKET_BYTES_MAX) * 9 / 10, 100);
    for _ in 0..few {
        let before = connection.stats().udp_rx;
        for _ in 0..CONNECTIONS_PER_PEER {
            echo().await;
        }
        let stats = connection.stats();
        let (bytes, packets) = (
            stats.udp_rx.bytes - before.bytes,
            stats.udp_rx.datagrams - before.datagrams,
        );
        // The other side sends the payload back in long packets too; acknowledgements are short ones between them.
        if u64::from(stats.path.current_mtu) > nearly && bytes / packets > nearly / 2 {
            return;
        }
    }
    panic!("packets stay short: {:?}", connection.stats());
}

#[tokio::test]
async fn a_spare_connection_is_made_for_calls_at_once_and_let_go_when_nobody_needs_it() {
    let (_server, caller, address, _) = pair();
    let peer = Peer {
        process: SERVER,
        address,
    };
    let lend = async |now| caller.pool.connection(&peer, now, || caller.dial(&peer)).await.unwrap();
    for _ in 0..4 {
        drop(lend(Duration::ZERO).await);
        assert_eq!(caller.open_connections(), 1, "one call after the other");
    }
    let at_once = [
        lend(Duration::ZERO).await,
        lend(Duration::ZERO).await,
        lend(Duration::ZERO).await,
    ];
    assert_eq!(caller.open_connections(), CONNECTIONS_PER_PEER);
    // Long after its last use, but under calls still.
    let late = SPARE_KEPT + Duration::from_secs(1);
    let another = lend(late).await;
    assert!(at_once.iter().all(|lent| lent.close_reason().is_none()));
    drop((at_once, another));
    drop(lend(late * 2).await);
    let let_go = async {
        while caller.open_connections() > 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, let_go).await.unwrap();
    ping(&caller, address).await.unwrap();
}

/// A caller and two servers of one authority, with where those are called.
fn caller_of(processes: [ProcessId; 2]) -> (Arc<QuicTransport>, [Arc<QuicTransport>; 2], [Peer; 2]) {
    let authority = authority();
    let bound = processes.map(|process| {
        let (server, address) = bind(identity(&authority, process), Arc::new(Scripted::default()));
        (server, Peer { process, address })
    });
    let peers = [bound[0].1, bound[1].1];
    let (caller, _) = bind(identity(&authority, CALLER), Arc::new(Scripted::default()));
    (caller, bound.map(|(server, _)| server), peers)
}

async fn lend(caller: &QuicTransport, peer: &Peer, now: Duration) -> Lent {
    let lent = caller.pool.connection(peer, now, || caller.dial(peer)).await;
    lent.unwrap()
}

async fn until_open(caller: &QuicTransport, connections: usize) {
    let let_go = async {
        while caller.open_connections() > connections {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, let_go).await.unwrap();
}

#[tokio::test]
async fn a_spare_connection_to_a_peer_that_is_not_called_any_more_goes_with_a_call_to_another() {
    let (caller, _servers, [called, other]) = caller_of([SERVER, OTHER]);
    let mut at_once = Vec::new();
    for _ in 0..=CONNECTIONS_PER_PEER {
        at_once.push(lend(&caller, &called, Duration::ZERO).await);
    }
    assert_eq!(caller.open_connections(), CONNECTIONS_PER_PEER);
    let late = SPARE_KEPT + Duration::from_secs(1);
    drop(lend(&caller, &other, late).await);
    assert!(at_once.iter().all(|lent| lent.close_reason().is_none()));
    assert_eq!(
        caller.open_connections(),
        CONNECTIONS_PER_PEER + 1,
        "calls are under way"
    );
    drop(at_once);
    drop(lend(&caller, &other, late * 2).await);
    until_open(&caller, 2).await;
}

#[tokio::test]
async fn the_last_connection_to_a_node_that_nobody_calls_goes_and_is_made_again_for_the_next_call() {
    let (caller, _servers, [called, other]) = caller_of([SERVER, OTHER]);
    drop(lend(&caller, &called, Duration::ZERO).await);
    drop(lend(&caller, &other, UNUSED_KEPT).await);
    assert_eq!(caller.open_connections(), 2);
    let long_call = lend(&caller, &called, UNUSED_KEPT).await;
    let late = UNUSED_KEPT * 2 + Duration::from_secs(1);
    drop(lend(&caller, &other, late).await);
    assert!(long_call.close_reason().is_none(), "a call is under way");
    drop(long_call);
    drop(lend(&caller, &other, late * 2).await);
    until_open(&caller, 1).await;
    // Its own call finds the connection, however long nobody made one.
    let kept = lend(&caller, &other, late * 4).await;
    assert_eq!(caller.open_connections(), 1);
    drop(kept);
    ping(&caller, called.address).await.unwrap();
    assert_eq!(caller.open_connections(), 2);
}

#[tokio::test]
async fn the_last_connection_to_a_metadata_replica_stays_however_long_nobody_calls() {
    let replica = ProcessId {
        role: Role::Metadata,
        number: 3,
    };
    let (caller, _servers, [called, other]) = caller_of([replica, OTHER]);
    let first = lend(&caller, &called, Duration::ZERO).await;
    let number = first.stable_id();
    drop(first);
    let late = UNUSED_KEPT + Duration::from_secs(1);
    drop(lend(&caller, &other, late).await);
    let again = lend(&caller, &called, late).await;
    assert_eq!((again.stable_id(), again.close_reason()), (number, None));
}

/// Each process dials every other one when it starts: one connection in thirty that is never answered would be seen at each start.
#[tokio::test]
async fn of_a_hundred_fresh_connections_every_one_is_answered_at_once() {
    let authority = authority();
    let (_server, address) = bind(identity(&authority, SERVER), Arc::new(Scripted::default()));
    for number in 0..100 {
        let caller = ProcessId {
            role: Role::Gateway,
            number,
        };
        let (caller, _) = bind(identity(&authority, caller), Arc::new(Scripted::default()));
        ping(&caller, address).await.unwrap();
    }
}

#[tokio::test]
async fn a_message_for_another_target_or_cluster_is_refused_by_the_listener() {
    let (_server, caller, address, handler) = pair();
    for (cluster, target, code) in [
        (ClusterId(99), SERVER, "other_cluster"),
        (CLUSTER, OTHER, "other_target"),
    ] {
        let head = RequestHead {
            cluster,
            target,
            method: Method::Ping,
            deadline_ms: 30_000,
            request_id: 0,
        };
        let frame = encode_request(&head, &call(Method::Ping, b"", Bytes::new())).unwrap();
        let answer = send_raw(&caller, address, &frame.front).await;
        assert!(String::from_utf8_lossy(&answer).contains(code), "{code}");
    }
    assert_eq!(handler.begun.load(Ordering::SeqCst), 0);
}

/// shows: F42 scale=1/2
#[tokio::test]
async fn foreign_bytes_on_a_stream_are_refused_and_the_listener_goes_on() {
    let (_server, caller, address, handler) = pair();
    let large = [&b"HFQ1"[..], &[0xff; 8]].concat();
    let short = [&b"HFQ1"[..], &[9, 0, 0, 0, 0, 0, 0, 0, 1]].concat();
    for bytes in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", &large, &short, &[0; 4_096]] {
        let answer = send_raw(&caller, address, bytes).await;
        assert!(answer.starts_with(b"HFA1"), "{bytes:?}");
    }
    ping(&caller, address).await.unwrap();
    assert_eq!(handler.begun.load(Ordering::SeqCst), 1);
}

/// Half of the strings are random, half a valid request with some bytes altered, cut off or said twice.
///
/// shows: F42
#[tokio::test]
async fn ten_thousand_foreign_strings_on_streams_are_refused_or_reset_and_the_listener_goes_on() {
    let (_server, caller, address, _) = pair();
    let connection = dial(&caller, address).await;
    let head = RequestHead {
        cluster: CLUSTER,
        target: SERVER,
        method: Method::Ping,
        deadline_ms: 500,
        request_id: 5,
    };
    let frame = encode_request(&head, &call(Method::Ping, b"", Bytes::from_static(b"payload"))).unwrap();
    let valid = [&frame.front[..], &frame.message, &frame.payload].concat();
    let random = Random::seeded(42);
    let below = |end: usize| usize::try_from(random.below(end as u64)).unwrap();
    let mut refused = 0;
    for number in 0..10_000 {
        let mut bytes = valid.clone();
        if number % 2 == 0 {
            bytes = vec![0; below(200)];
            random.fill(&mut bytes);
        }
        for _ in 0..1 + below(4) {
            let at = below(bytes.len().max(1));
            match below(4) {
                0 => bytes.truncate(at),
                1 => bytes.extend_from_within(at.min(bytes.len())..),
                _ if at < bytes.len() => bytes[at] ^= 1 << below(8),
                _ => {}
            }
        }
        // What is taken for a call that nobody waits for is reset.
        if let Ok(answer) = exchange(&connection, &bytes).await {
            assert!(answer.starts_with(b"HFA1"), "{bytes:?}");
            refused += usize::from(answer != exchange(&connection, &valid).await.unwrap());
        }
    }
    assert!(refused > 5_000, "only {refused} were refused");
    ping(&caller, address).await.unwrap();
}

async fn send_raw(caller: &QuicTransport, address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    exchange(&dial(caller, address).await, bytes).await.unwrap()
}

async fn dial(caller: &QuicTransport, address: SocketAddr) -> quinn::Connection {
    let peer = Peer {
        process: SERVER,
        address,
    };
    caller.dial(&peer).await.unwrap()
}

async fn exchange(connection: &quinn::Connection, bytes: &[u8]) -> Result<Vec<u8>, quinn::ReadToEndError> {
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    // The listener may have answered and stopped reading before everything is written.
    let _ = send.write_all(bytes).await;
    let _ = send.finish();
    recv.read_to_end(1 << 20).await
}

/// shows: QAS-017 scale=1/2
#[tokio::test]
async fn a_caller_without_certificate_and_plain_tcp_get_nothing() {
    let authority = authority();
    let handler = Arc::new(Scripted::default());
    let (_server, address) = bind(identity(&authority, SERVER), handler.clone());
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(identity(&authority, SERVER).authority).unwrap();
    let config = quinn::ClientConfig::with_root_certificates(Arc::new(roots)).unwrap();
    let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    assert!(
        endpoint
            .connect_with(config, address, "holdfast")
            .unwrap()
            .await
            .is_err()
    );
    assert_eq!(handler.begun.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_dead_address_misses_its_deadline_with_nothing_sent() {
    let authority = authority();
    let (caller, _) = bind(identity(&authority, CALLER), Arc::new(Scripted::default()));
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let peer = Peer {
        process: SERVER,
        address: silent.local_addr().unwrap(),
    };
    for _ in 0..2 {
        let error = caller
            .call(&peer, call(Method::Ping, b"", Bytes::new()), SHORT)
            .await
            .unwrap_err();
        assert_eq!(
            error,
            RpcError::DeadlineMissed {
                peer: SERVER,
                was_sent: false
            }
        );
        assert!(error.is_surely_not_executed());
    }
    let error = caller
        .call(&peer, call(Method::Ping, b"", Bytes::new()), SHORT)
        .await
        .unwrap_err();
    assert!(matches!(error, RpcError::BreakerOpen { .. }));
    assert_eq!(caller.open_breakers(), [SERVER]);
}

#[tokio::test]
async fn a_server_that_restarts_is_called_again_and_a_port_in_use_is_named() {
    let authority: ClusterAuthority = authority();
    let (server, address) = bind(identity(&authority, SERVER), Arc::new(Scripted::default()));
    let (caller, _) = bind(identity(&authority, CALLER), Arc::new(Scripted::default()));
    ping(&caller, address).await.unwrap();
    let options = || QuicOptions {
        identity: identity(&authority, SERVER),
        listen: address,
        clock: Arc::new(SystemClock::new()),
        limits: RpcLimits::default(),
        revocations: Revocations::default(),
        has_jumbo_frames: false,
    };
    let error = QuicTransport::bind(options(), Arc::new(Scripted::default())).unwrap_err();
    assert!(matches!(error, BindError::Address { .. }) && error.to_string().contains("choose a free address"));
    server.close(LONG).await;
    drop(server);
    // The endpoint's task lets go of its socket a little after the last handle is gone.
    let again = loop {
        match QuicTransport::bind(options(), Arc::new(Scripted::default())) {
            Ok((server, _)) => break server,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    ping(&caller, address).await.unwrap();
    drop(again);
}
