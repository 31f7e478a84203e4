//! Addresses of the processes of a dev cluster, given by the system before any of them runs.
//!
//! All of them are held at once while they are drawn, so no two are the same; then they are let go for their processes. In between
//! somebody else could take one: the kernel gives out others first, and the process that finds it taken says so.
//! Invariant: metadata replicas keep theirs from the first start on, because the groups remember them.

use super::ground::Ground;
use super::plan::loopback;
use anyhow::{Context, bail};
use model::process::{ProcessId, Role};
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

/// The processes of a run that was killed are gone within this; longer means that somebody else has the port.
const TAKEN_PATIENCE: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

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
    let mut addresses = BTreeMap::new();
    for process in plan.processes() {
        let at = usize::try_from(process.number - 1)?;
        let known = (process.role == Role::Metadata)
            .then(|| ground.metadata_ports().and_then(|ports| ports.get(at)).copied())
            .flatten();
        let cluster = match known {
            Some(port) => free_again(process, loopback(port)).await?,
            None => UdpSocket::bind(loopback(0)).context("find a free port")?,
        };
        let status = TcpListener::bind(loopback(0)).context("find a free port")?;
        let clients = match process.role {
            Role::Gateway => {
                let listen = plan.gateway_config(process, ground.directory.kek_file())?.listen;
                Some(TcpListener::bind(listen).with_context(|| format!("listen on {listen}"))?)
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
