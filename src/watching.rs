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
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How the roles of a process are watched; clones are the same.
#[derive(Clone)]
pub enum Watching {
    /// Together, on the port that the process has opened over these roles, if it has one.
    Together(Roles),
    /// Each on a loopback port of its own: a role that starts again takes its old one, when that is free.
    Apart(Ports),
}

/// Ports of roles by their names; clones are the same.
#[derive(Clone, Default)]
pub struct Ports(Arc<Mutex<BTreeMap<String, SocketAddr>>>);

impl Ports {
    fn known(&self) -> MutexGuard<'_, BTreeMap<String, SocketAddr>> {
        // Every change is one map operation.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the role `name` is or was last watched.
    pub(crate) fn of(&self, name: &str) -> Option<SocketAddr> {
        self.known().get(name).copied()
    }

    fn open(
        &self,
        name: &str,
        roles: &Roles,
        metrics: &Metrics,
        stopping: &Shutdown,
    ) -> Result<StatusPort, StatusPortError> {
        let open = |at| StatusPort::open(at, roles.clone(), metrics.clone(), Page::Role, stopping.clone());
        let old = self.of(name).and_then(|old| open(old).ok());
        let port = match old {
            Some(port) => port,
            None => open(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?,
        };
        self.known().insert(name.to_owned(), port.address());
        Ok(port)
    }
}

impl Watching {
    /// Begins to watch the role `name`, which is starting and counts in `metrics`.
    ///
    /// Errors: no port on loopback is free.
    pub(crate) fn begin(&self, name: &str, metrics: &Metrics, stopping: &Shutdown) -> Result<Watched, StatusPortError> {
        let (roles, port) = match self {
            Self::Together(roles) => {
                roles.announce(name);
                (roles.clone(), None)
            }
            Self::Apart(ports) => {
                let roles = Roles::default();
                roles.announce(name);
                let port = ports.open(name, &roles, metrics, stopping)?;
                (roles, Some(port))
            }
        };
        Ok(Watched {
            name: name.to_owned(),
            roles,
            _port: port,
        })
    }

    /// The port of the role `name`, when it has its own.
    pub(crate) fn own_port(&self, name: &str) -> Option<SocketAddr> {
        match self {
            Self::Together(_) => None,
            Self::Apart(ports) => ports.of(name),
        }
    }
}

/// A role that is watched; its own port, when it has one, closes with this value.
pub(crate) struct Watched {
    name: String,
    roles: Roles,
    _port: Option<StatusPort>,
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
}
