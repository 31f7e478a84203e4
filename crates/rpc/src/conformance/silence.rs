//! A process that was killed and is back at its address: what its callers' connections of before cost them.
//!
//! A relay stands between, since a process that ends within a test would tell its peers.

use super::{LONG, OTHER, SERVER, Scripted, authority, bind, bind_with_clock, call, identity};
use crate::limits::CONNECTIONS_PER_PEER;
use crate::quic::{DEAD_AFTER, Progress, QuicTransport};
use crate::transport::{Peer, RpcError, Transport};
use bytes::Bytes;
use daemon::clock::{Clock, ManualClock, SystemClock};
use model::process::{ProcessId, Role};
use protocol::frame::Method;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::UdpSocket;

/// Hands datagrams on between one caller and the server of the moment.
struct Relay {
    caller_side: UdpSocket,
    server_side: UdpSocket,
    server: Mutex<SocketAddr>,
    /// Datagrams of the caller.
    handed_on: AtomicUsize,
}

impl Relay {
    async fn new(server: SocketAddr) -> Self {
        Self {
            caller_side: UdpSocket::bind("127.0.0.1:0").await.unwrap(),
            server_side: UdpSocket::bind("127.0.0.1:0").await.unwrap(),
            server: Mutex::new(server),
            handed_on: AtomicUsize::new(0),
        }
    }

    fn server(&self) -> SocketAddr {
        *self.server.lock().unwrap()
    }

    async fn run(&self) {
        let (mut to_server, mut to_caller) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        let mut caller = None;
        loop {
            tokio::select! {
                received = self.caller_side.recv_from(&mut to_server) => {
                    let (length, from) = received.unwrap();
                    caller = Some(from);
                    self.server_side.send_to(&to_server[..length], self.server()).await.unwrap();
                    self.handed_on.fetch_add(1, Ordering::Relaxed);
                }
                received = self.server_side.recv_from(&mut to_caller) => {
                    let (length, from) = received.unwrap();
                    // The dead say nothing any more.
                    if let Some(caller) = caller.filter(|_| from == self.server()) {
                        self.caller_side.send_to(&to_caller[..length], caller).await.unwrap();
                    }
                }
            }
        }
    }

    /// Until the caller has sent so many more.
    async fn hand_on(&self, datagrams: usize) {
        let before = self.handed_on.load(Ordering::Relaxed);
        while self.handed_on.load(Ordering::Relaxed) < before + datagrams {
            tokio::task::yield_now().await;
        }
    }
}

const CALLER: ProcessId = ProcessId {
    role: Role::Gateway,
    number: 9,
};

/// A caller by a clock that the test moves, with a connection to a server that was killed since and is back.
struct Scene {
    caller: Arc<QuicTransport>,
    clock: ManualClock,
    relay: Relay,
    peer: Peer,
    /// Where the living server listens.
    after: SocketAddr,
    /// A third process, called without the relay.
    elsewhere: Peer,
    /// The dead server, the living one, and the third process.
    _servers: [Arc<QuicTransport>; 3],
}

impl Scene {
    async fn new() -> Self {
        let authority = authority();
        let server = |process| bind(identity(&authority, process), Arc::new(Scripted::default()));
        let ((dead, before), (living, after), (third, elsewhere)) = (server(SERVER), server(SERVER), server(OTHER));
        let clock = ManualClock::new(SystemClock::new().wall());
        let (caller, _) = bind_with_clock(
            identity(&authority, CALLER),
            Arc::new(Scripted::default()),
            Arc::new(clock.clone()),
        );
        let relay = Relay::new(before).await;
        let peer = Peer {
            process: SERVER,
            address: relay.caller_side.local_addr().unwrap(),
        };
        Self {
            caller,
            clock,
            relay,
            peer,
            after,
            elsewhere: Peer {
                process: OTHER,
                address: elsewhere,
            },
            _servers: [dead, living, third],
        }
    }

    /// Runs a story in which the server of before was called once and is dead.
    async fn run(&self, story: impl Future<Output = ()>) {
        let whole = async {
            self.ping(&self.peer).await;
            *self.relay.server.lock().unwrap() = self.after;
            // The caller reads its socket in order. So when the third process has answered, all that the dead one had said is read,
            // and the calls that follow hear nothing at all.
            self.ping(&self.elsewhere).await;
            story.await;
        };
        tokio::select! {
            () = whole => {}
            () = self.relay.run() => {}
        }
    }

    async fn ping(&self, peer: &Peer) {
        let answer = self
            .caller
            .call(peer, call(Method::Ping, b"", Bytes::new()), LONG)
            .await;
        answer.unwrap();
    }

    /// Calls over the dead connection, and gives up when `meanwhile` is over.
    async fn give_up_after(&self, meanwhile: impl Future<Output = ()>) {
        tokio::select! {
            biased;
            result = self.caller.call(&self.peer, call(Method::Ping, b"", Bytes::new()), LONG) => panic!("{result:?}"),
            () = meanwhile => {}
        }
    }

    /// Until a call is sent, and as long afterwards as shows that nobody is there.
    async fn until_nobody_can_be_there(&self) {
        self.relay.hand_on(1).await;
        self.clock.advance(DEAD_AFTER);
    }

    /// Whether a call that is alone finds a connection to the peer.
    async fn has_connection(&self) -> bool {
        let none = RpcError::Unreachable {
            peer: SERVER,
            detail: "it would be dialed".to_owned(),
        };
        let dial = || std::future::ready(Err(none));
        let lent = self
            .caller
            .pool
            .connection(&self.peer, self.clock.monotonic(), dial)
            .await;
        lent.is_ok()
    }
}

#[tokio::test]
async fn a_call_that_was_given_up_in_silence_leaves_no_dead_connection_to_the_next_one() {
    let scene = Scene::new().await;
    let story = async {
        let too_soon = async {
            scene.relay.hand_on(1).await;
            scene.clock.advance(DEAD_AFTER - Duration::from_millis(1));
        };
        scene.give_up_after(too_soon).await;
        assert!(scene.has_connection().await, "less than a round trip shows nothing");
        scene.give_up_after(scene.until_nobody_can_be_there()).await;
        assert!(!scene.has_connection().await);
        scene.ping(&scene.peer).await;
    };
    scene.run(story).await;
}

#[tokio::test]
async fn a_call_that_is_given_up_later_leaves_the_connection_that_was_dialed_meanwhile() {
    let scene = Scene::new().await;
    let story = async {
        let meanwhile = async {
            scene.give_up_after(scene.until_nobody_can_be_there()).await;
            // Beside the call that still waits, these take the slots in turn.
            for _ in 0..CONNECTIONS_PER_PEER {
                scene.ping(&scene.peer).await;
            }
        };
        scene.give_up_after(meanwhile).await;
        assert!(scene.has_connection().await, "the one that was dialed anew lives");
        scene.ping(&scene.peer).await;
    };
    scene.run(story).await;
}

#[tokio::test]
async fn what_a_call_waits_for_before_it_has_a_connection_is_no_silence() {
    let scene = Scene::new().await;
    let story = async {
        let progress = Progress::default();
        let begun = scene.clock.monotonic();
        let connected = begun + 2 * DEAD_AFTER;
        assert!(
            progress.dead(connected).is_none(),
            "nothing is known of a peer that is being dialed"
        );
        let dial = || scene.caller.dial(&scene.peer);
        let lent = scene.caller.pool.connection(&scene.peer, begun, dial).await.unwrap();
        progress.connected(lent.kept(), connected);
        assert!(
            progress
                .dead(connected + DEAD_AFTER - Duration::from_millis(1))
                .is_none()
        );
        assert!(progress.dead(connected + DEAD_AFTER).is_some());
    };
    scene.run(story).await;
}
