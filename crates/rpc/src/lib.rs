//! Calls between the processes of a cluster: the transport seam over QUIC and in memory, identities, breaker, retry.
//!
//! The only package that names quinn, rustls and rcgen. What the calls mean stands in protocol.

mod admission;
pub mod authority;
pub mod breaker;
pub mod datagram;
mod frame_stream;
pub mod identity;
pub mod limits;
mod listener;
pub mod memory;
mod pool;
pub mod quic;
pub mod retry;
pub mod transport;
mod trust;
pub mod typed;
mod wire;

#[cfg(test)]
mod conformance;
