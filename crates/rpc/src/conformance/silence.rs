//! A process that was killed and is back at its address: what its callers' connections of before cost them.
//!
//! A relay stands between, since a process that ends within a test would tell its peers.

use super::{LONG, SERVER, Scripted, authority, bind, call, identity};
use crate::identity::Revocations;
use crate::limits::RpcLimits;
use crate::quic::{QuicOptions, QuicTransport, SILENT_AFTER};
use crate::transport::{Peer, Transport};
use bytes::Bytes;
use daemon::clock::{Clock, ManualClock, SystemClock};
use model::process::{ProcessId, Role};
use protocol::frame::Method;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
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

/// Calls over a connection of which the server knows nothing, and gives up when `called` is over.
async fn give_up(caller: &QuicTransport, peer: &Peer, called: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        result = caller.call(peer, call(Method::Ping, b"", Bytes::new()), LONG) => panic!("{result:?}"),
        () = called => {}
    }
}

#[tokio::test]
async fn a_call_that_was_given_up_in_silence_leaves_no_dead_connection_to_the_next_one() {
    let authority = authority();
    let server = || bind(identity(&authority, SERVER), Arc::new(Scripted::default()));
    let ((_dead, before), (_living, after)) = (server(), server());
    let clock = ManualClock::new(SystemClock::new().wall());
    let caller = ProcessId {
        role: Role::Gateway,
        number: 9,
    };
    let options = QuicOptions {
        identity: identity(&authority, caller),
        listen: ([127, 0, 0, 1], 0).into(),
        clock: Arc::new(clock.clone()),
        limits: RpcLimits::default(),
        revocations: Revocations::default(),
        has_jumbo_frames: false,
    };
    let (caller, _) = QuicTransport::bind(options, Arc::new(Scripted::default())).unwrap();
    let relay = Relay::new(before).await;
    let peer = Peer {
        process: SERVER,
        address: relay.caller_side.local_addr().unwrap(),
    };
    let story = async {
        let ping = || caller.call(&peer, call(Method::Ping, b"", Bytes::new()), LONG);
        ping().await.unwrap();
        *relay.server.lock().unwrap() = after;
        // Too soon to say anything of the connection. The last of these datagrams repeat the first ones, so by then whatever the dead
        // one had said before it died has come, and the next call hears nothing at all.
        give_up(&caller, &peer, relay.hand_on(4)).await;
        let long_after = async {
            relay.hand_on(1).await;
            clock.advance(SILENT_AFTER);
        };
        give_up(&caller, &peer, long_after).await;
        ping().await.unwrap();
    };
    tokio::select! {
        () = story => {}
        () = relay.run() => {}
    }
}
