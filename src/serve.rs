//! `holdfast serve`: the roles that a configuration file names, until a signal.
//!
//! A process registers nothing by itself here: ids, identities and membership come from `holdfast init` and the operator.

use crate::cli::ServeArguments;
use crate::config::{RawFile, ServeConfig};
use crate::identity_files::load_identity;
use crate::roles::{self, Base, GatewayRole, MetadataRole, NodeRole};
use anyhow::{Context, ensure};
use daemon::clock::SystemClock;
use daemon::log::{self, LogFormat};
use daemon::metrics::Metrics;
use daemon::pool::Pool;
use daemon::random::Random;
use daemon::shutdown::Shutdown;
use kv::rocks::RocksBudget;
use model::process::Role;
use rpc::identity::Identity;
use std::path::Path;
use std::sync::Arc;

const ROCKS_CACHE_BYTES: usize = 256 << 20;
const ROCKS_WRITE_BUFFER_BYTES: usize = 128 << 20;

/// Checks the file and runs its roles.
pub(crate) async fn run(arguments: ServeArguments) -> anyhow::Result<()> {
    let config = daemon::config::load::<RawFile>(&arguments.config)?;
    if arguments.check_config {
        println!("{}: good", arguments.config.display());
        return Ok(());
    }
    let format = if config.logs_json {
        LogFormat::Json
    } else {
        LogFormat::Human
    };
    log::init(format, &config.log_filter).context("start logging")?;
    let base = Base {
        clock: Arc::new(SystemClock::new()),
        random: Random::system(),
        pool: Pool::of_machine().context("start the CPU pool")?,
        metrics: Metrics::new(),
        rocks: Arc::new(RocksBudget::new(ROCKS_CACHE_BYTES, ROCKS_WRITE_BUFFER_BYTES)?),
        shutdown: Shutdown::new(),
    };
    base.shutdown.request_on_signals().await?;
    run_roles(config, &base).await
}

async fn run_roles(config: ServeConfig, base: &Base) -> anyhow::Result<()> {
    let metadata = match config.metadata {
        Some((endpoint, metadata)) => {
            let identity = identity_of(&endpoint.identity_dir, Role::Metadata, metadata.replica.0)?;
            // The replica of the lowest id makes the groups of a new cluster, and only on a directory that was empty.
            let is_first = metadata
                .replicas
                .iter()
                .all(|(replica, _)| *replica >= metadata.replica);
            let bound = roles::bind(identity, endpoint.listen, base)?;
            Some(MetadataRole::start(bound, &metadata, base, is_first).await?)
        }
        None => None,
    };
    let node = match config.node {
        Some((endpoint, node)) => {
            let identity = identity_of(&endpoint.identity_dir, Role::Node, u64::from(node.node.0))?;
            let bound = roles::bind(identity, endpoint.listen, base)?;
            Some(NodeRole::start(bound, &node, base, config.seeds.clone()).await?)
        }
        None => None,
    };
    let gateway = match config.gateway {
        Some((endpoint, gateway)) => {
            let identity = load_identity(&endpoint.identity_dir)?;
            ensure!(
                identity.process().role == Role::Gateway,
                "{} holds no gateway's identity",
                endpoint.identity_dir.display()
            );
            let bound = roles::bind(identity, endpoint.listen, base)?;
            Some(GatewayRole::start(bound, gateway, base, config.seeds.clone(), None).await?)
        }
        None => None,
    };
    base.shutdown.requested().await;
    if let Some(gateway) = gateway {
        gateway.stop().await;
    }
    if let Some(node) = node {
        node.stop().await;
    }
    if let Some(metadata) = metadata {
        metadata.stop().await;
    }
    Ok(())
}

fn identity_of(directory: &Path, role: Role, number: u64) -> anyhow::Result<Identity> {
    let identity = load_identity(directory)?;
    let found = identity.process();
    ensure!(
        found.role == role && found.number == number,
        "{} holds the identity of {found}, but the section is of {}-{number}; correct identity_dir or the section's id",
        directory.display(),
        role.as_str()
    );
    Ok(identity)
}
