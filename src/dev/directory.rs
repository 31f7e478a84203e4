//! Looking before a dev cluster starts: may it listen there, is the directory free, is everything of an earlier start still there.
//!
//! Invariant: what is refused here has changed nothing, but for the directory and its lock file where there was no directory yet.

use super::control;
use super::secrets::{DevSecrets, Shape};
use crate::cli::DevArguments;
use anyhow::{Context, bail, ensure};
use gateway::config::read_kek;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

const LOCK_FILE: &str = "lock";

/// A data directory that nobody else runs on while this value lives.
pub(crate) struct DevDirectory {
    pub(crate) path: PathBuf,
    _lock: File,
}

impl DevDirectory {
    /// Takes `path`, which is made when it is missing.
    pub(crate) fn take(path: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(path).with_context(|| format!("make {}", path.display()))?;
        let path = path
            .canonicalize()
            .with_context(|| format!("look at {}", path.display()))?;
        let name = path.join(LOCK_FILE);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&name)
            .with_context(|| format!("open {}", name.display()))?;
        match lock.try_lock() {
            Ok(()) => {
                control::remove(&path);
                Ok(Self { path, _lock: lock })
            }
            Err(TryLockError::WouldBlock) => bail!(
                "{} is in use by another holdfast dev; stop that one, or give another --data-dir",
                path.display()
            ),
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("lock {}", name.display())),
        }
    }

    /// Whether a dev cluster runs on `path`, or is starting or stopping there.
    pub(crate) fn is_running(path: &Path) -> bool {
        let lock = OpenOptions::new().write(true).open(path.join(LOCK_FILE));
        lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)))
    }

    /// Where authority, identities, KEK and secrets lie.
    pub(crate) fn cluster(&self) -> PathBuf {
        self.path.join("cluster")
    }

    /// The KEK's file.
    pub(crate) fn kek_file(&self) -> PathBuf {
        self.cluster().join("kek")
    }

    /// What an earlier start remembered; `None` when there was none that came so far.
    ///
    /// Errors: it had another shape, or its KEK is not there or not as it was.
    pub(crate) fn known(&self, shape: &Shape) -> anyhow::Result<Option<DevSecrets>> {
        let known = DevSecrets::read(&self.cluster())?;
        if let Some(known) = &known {
            ensure!(
                known.shape == *shape,
                "the cluster in {} was made with another shape ({}); start it with that one or use another --data-dir",
                self.path.display(),
                known.shape
            );
            read_kek(&self.kek_file())?;
        }
        Ok(known)
    }
}

/// Refuses an address that dev may not listen on, or that somebody else has.
pub(crate) fn check_listen(arguments: &DevArguments) -> anyhow::Result<()> {
    let is_secured = arguments.tls_certificate.is_some() || arguments.behind_proxy;
    ensure!(
        arguments.listen.ip().is_loopback() || is_secured,
        "--listen {} is not loopback; give --tls-certificate and --tls-key, or put a proxy with TLS in front and say \
         --behind-proxy, or use 127.0.0.1",
        arguments.listen
    );
    // The gateway takes it last, when everything else has been made: so it is tried first. Who takes it in between is told later.
    TcpListener::bind(arguments.listen).map(drop).with_context(|| {
        format!(
            "listen on {}; stop who has it, or choose another --listen (127.0.0.1:0 takes a free port)",
            arguments.listen
        )
    })
}
