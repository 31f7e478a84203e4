//! Where a role is watched: on the process's status port, or on one of its own.
//!
//! `serve` opens one port for all roles of its process; in `dev` each role has its own, as if it were a process, so that scrapers
//! and probes see what they would see in production.
//! Invariant: a role is announced before anything of it is opened, so that it is never ready by being unknown.
//! Not here: the pages (`daemon::status_port`), what ready means (each role's `Readiness`).

use daemon::metrics::Metrics;
use daemon::shutdown::Shutdown;
use daemon::status_port::{Page, Readiness, Roles, StatusPort, StatusPortError};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

/// How the roles of a process are watched; clones are the same.
#[derive(Clone)]
pub enum Watching {
    /// Together, on a port that the process has opened or opens later.
    Together(Roles),
    /// Each on a loopback port of its own. Holds the ports by name: a role that starts again takes its old one, when it is free.
    Apart(Arc<Mutex<BTreeMap<String, u16>>>),
}

impl Default for Watching {
    fn default() -> Self {
        Self::Apart(Arc::default())
    }
}

impl Watching {
    /// Begins to watch the role `name`, which is starting and counts in `metrics`.
    ///
    /// Errors: no port on loopback is free.
    pub(crate) fn begin(&self, name: &str, metrics: &Metrics, stopping: Shutdown) -> Result<Watched, StatusPortError> {
        let (roles, port) = match self {
            Self::Together(roles) => {
                roles.announce(name);
                (roles.clone(), None)
            }
            Self::Apart(ports) => {
                let roles = Roles::default();
                roles.announce(name);
                let known = ports.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied();
                let open = |port| {
                    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                    StatusPort::open(listen, roles.clone(), metrics.clone(), Page::Role, stopping.clone())
                };
                let port = known.and_then(|port| open(port).ok()).map_or_else(|| open(0), Ok)?;
                ports
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(name.to_owned(), port.address().port());
                (roles, Some(port))
            }
        };
        Ok(Watched {
            name: name.to_owned(),
            roles,
            port,
        })
    }
}

/// A role that is watched; its own port, when it has one, closes with this value.
pub(crate) struct Watched {
    name: String,
    roles: Roles,
    port: Option<StatusPort>,
}

impl Watched {
    /// The role stands and is asked from now on.
    pub(crate) fn stands(&self, readiness: Arc<dyn Readiness>) {
        self.roles.stands(&self.name, readiness);
    }

    /// The role stops: it is not asked any more, and nothing of it is held from here.
    pub(crate) fn stops(&self) {
        self.roles.stops(&self.name);
    }

    /// Its own port, when it has one.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.port.as_ref().map(StatusPort::address)
    }
}
