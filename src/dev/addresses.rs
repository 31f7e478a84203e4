//! Addresses of the processes of a dev cluster, given by the system before any of them runs.
//!
//! All of them are held at once while they are drawn, so no two are the same; then they are let go for their processes. In between
//! nobody else takes one by chance: they are below those that the kernel gives to connections and to whoever asks for any.
//! Invariant: metadata replicas keep theirs from the first start on, because the groups remember them.

use super::ground::Ground;
use super::plan::loopback;
use anyhow::{Context, bail};
use model::process::{ProcessId, Role};
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

/// The processes of a run that was killed are gone within this; longer means that somebody else has the port.
const TAKEN_PATIENCE: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Where Linux tells which ports it gives out, and from which on it does when nobody has said otherwise.
const GIVEN_OUT: &str = "/proc/sys/net/ipv4/ip_local_port_range";
const GIVEN_OUT_FROM: u16 = 32_768;
/// Ports are drawn from here on; well-known services are mostly below.
const PORTS_FROM: u16 = 15_000;
/// Between the beginnings of two clusters; one needs about thirty.
const PORTS_APART: u16 = 64;

/// Where a process is reached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Address {
    /// By the others of the cluster, over UDP.
    pub(crate) cluster: SocketAddr,
    /// By whoever watches it, over TCP.
    pub(crate) status: SocketAddr,
    /// By clients, over TCP; of gateways alone.
    pub(crate) clients: Option<SocketAddr>,
}

/// Draws an address for each process of the plan.
///
/// Errors: a port that must be had is taken, or none is free.
pub(crate) async fn draw(ground: &Ground) -> anyhow::Result<BTreeMap<ProcessId, Address>> {
    let (plan, mut held) = (&ground.plan, Vec::new());
    let (mut addresses, mut ports) = (BTreeMap::new(), Ports::new());
    for process in plan.processes() {
        let at = usize::try_from(process.number - 1)?;
        let known = (process.role == Role::Metadata)
            .then(|| ground.metadata_ports().and_then(|ports| ports.get(at)).copied())
            .flatten();
        let cluster = match known {
            Some(port) => free_again(process, loopback(port)).await?,
            None => ports.find(UdpSocket::bind)?,
        };
        let status = ports.find(TcpListener::bind)?;
        let clients = match process.role {
            Role::Gateway => {
                let listen = plan.gateway_config(process, ground.directory.kek_file())?.listen;
                Some(if listen == loopback(0) {
                    ports.find(TcpListener::bind)?
                } else {
                    TcpListener::bind(listen).with_context(|| format!("listen on {listen}"))?
                })
            }
            Role::Node | Role::Metadata | Role::Admin => None,
        };
        let address = Address {
            cluster: cluster.local_addr()?,
            status: status.local_addr()?,
            clients: clients.as_ref().map(TcpListener::local_addr).transpose()?,
        };
        addresses.insert(process, address);
        held.push((cluster, status, clients));
    }
    Ok(addresses)
}

/// Ports of loopback that are drawn one after the other.
struct Ports {
    next: u16,
    end: u16,
}

impl Ports {
    /// Begins where another cluster that starts at the same time does not.
    fn new() -> Self {
        let range = std::fs::read_to_string(GIVEN_OUT).ok();
        let first = range.and_then(|range| range.split_whitespace().next()?.parse().ok());
        let end: u16 = first.unwrap_or(GIVEN_OUT_FROM);
        let places = (end.saturating_sub(PORTS_FROM) / PORTS_APART).saturating_sub(1);
        let place = u16::try_from(std::process::id() % u32::from(places.max(1))).unwrap_or(0);
        Self {
            next: PORTS_FROM + place * PORTS_APART,
            end,
        }
    }

    /// The next one that `bind` can have; any that the kernel gives when there is none.
    fn find<T>(&mut self, bind: impl Fn(SocketAddr) -> io::Result<T>) -> anyhow::Result<T> {
        while self.next < self.end {
            let port = self.next;
            self.next += 1;
            if let Ok(bound) = bind(loopback(port)) {
                return Ok(bound);
            }
        }
        bind(loopback(0)).context("find a free port")
    }
}

async fn free_again(process: ProcessId, address: SocketAddr) -> anyhow::Result<UdpSocket> {
    let wait = async {
        loop {
            match UdpSocket::bind(address) {
                Ok(socket) => return socket,
                Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    };
    match tokio::time::timeout(TAKEN_PATIENCE, wait).await {
        Ok(socket) => Ok(socket),
        Err(_) => bail!(
            "{process} has listened on {address} since the first start, and somebody else has it now; stop who has it"
        ),
    }
}
