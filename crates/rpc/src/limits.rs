//! The limits of a transport: everything that a peer could make grow has one.

use std::time::Duration;

/// Longest deadline of a call; a longer one is cut to it. No call of the protocol waits longer: polls wait at the gateway.
pub const DEADLINE_MAX: Duration = Duration::from_secs(120);
/// How long a handshake may take before its connection is given up: some round trips of the longest WAN link.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// A connection over which nothing came for so long is dead. Three missed keep-alives.
pub const IDLE_MAX: Duration = Duration::from_secs(6);
/// How often a silent connection is probed, by whoever dialed it: answers keep both sides alive.
pub const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// Connections that a dialer keeps to each peer: two gave 1.3 times the throughput of one on loopback (decision 0021).
pub const CONNECTIONS_PER_PEER: usize = 2;
/// How long a connection that only calls at once have a use for is kept after the last of them, and up to as long again until a call to
/// any peer lets it go. A guess: another burst comes sooner.
pub const SPARE_KEPT: Duration = Duration::from_secs(10);
/// How long a connection is kept to a storage node that nobody calls, and up to `SPARE_KEPT` longer until a call to any peer lets it go.
/// The next call to it waits for a handshake, one round trip. A guess: who comes after so long a rest does not notice that.
pub const UNUSED_KEPT: Duration = Duration::from_secs(300);
/// Size asked for each of the socket's two buffers; the kernel may cut it to net.core.{r,w}mem_max. Measured as above.
pub const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// Longest packet, in bytes of UDP payload: what a network of jumbo frames carries, and so that the ten packets which quinn hands
/// to one system call fit the 65,507 bytes that one may take. Measured in decision 0026.
pub const PACKET_BYTES_MAX: u16 = 6_500;

/// Limits that depend on the size of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RpcLimits {
    /// Connections that others may hold to us; more are refused before their handshake.
    pub connections_max: usize,
    /// Calls at once on one connection; QUIC holds the peer to it.
    pub calls_per_connection_max: u32,
    /// Bytes of request payloads in memory at once; further payloads are not read before there is room.
    pub inbound_bytes_max: usize,
}

impl Default for RpcLimits {
    /// 1,024 connections and 256 calls each (guesses: ten times a large cluster's processes, four times a gateway's uploads);
    /// 256 MiB of payloads, sixteen of the largest.
    fn default() -> Self {
        Self {
            connections_max: 1_024,
            calls_per_connection_max: 256,
            inbound_bytes_max: 256 << 20,
        }
    }
}

const _: () = assert!(
    protocol::frame::PAYLOAD_BYTES_MAX <= u32::MAX as usize,
    "a payload's length travels as u32 and is taken from a semaphore by u32"
);
