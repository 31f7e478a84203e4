//! What a dev cluster of either form begins with: a shape that can be, a directory of its own, authority, KEK and secrets.
//!
//! Invariants: what is refused here has changed nothing, but for the directory and its lock where there was none; the secrets are
//! written last, so where they are everything else is.

use super::directory::{DevDirectory, check_listen};
use super::facts::DevFacts;
use super::plan::{self, Plan};
use super::secrets::{DevSecrets, Shape};
use super::shape;
use crate::cli::DevArguments;
use crate::identity_files::AuthorityFiles;
use daemon::clock::Clock;
use daemon::random::Random;
use gateway::config::create_kek;
use std::sync::Arc;

/// A data directory that is ready for processes.
pub(crate) struct Ground {
    pub(crate) plan: Plan,
    pub(crate) directory: DevDirectory,
    pub(crate) authority: Arc<AuthorityFiles>,
    known: Option<DevSecrets>,
}

impl Ground {
    /// Takes the directory, and makes authority and KEK where there are none.
    pub(crate) fn take(arguments: &DevArguments, clock: &dyn Clock, random: &Random) -> anyhow::Result<Self> {
        let profile = shape::profile(arguments)?;
        let functions = plan::functions(arguments)?;
        check_listen(arguments)?;
        let directory = DevDirectory::take(&arguments.data_dir)?;
        let known = directory.known(&shape_of(arguments))?;
        DevFacts::remove(&directory.path);
        let disk_bytes = shape::disk_bytes(arguments, &directory.path)?;
        let authority = AuthorityFiles::open_or_create(&directory.cluster(), clock.wall(), random)?;
        if !directory.kek_file().exists() {
            create_kek(&directory.kek_file(), random)?;
        }
        let plan = Plan {
            arguments: arguments.clone(),
            profile,
            data_dir: directory.path.clone(),
            disk_bytes,
            functions,
        };
        Ok(Self {
            plan,
            directory,
            authority: Arc::new(authority),
            known,
        })
    }

    /// Where the metadata replicas have listened since the first start; `None` before it.
    pub(crate) fn metadata_ports(&self) -> Option<&[u16]> {
        self.known.as_ref().map(|known| known.metadata_ports.as_slice())
    }

    /// What is remembered from the first start, which this one may be; `metadata_ports` are used from then on.
    pub(crate) fn secrets(&self, metadata_ports: &[u16], random: &Random) -> anyhow::Result<DevSecrets> {
        match &self.known {
            Some(known) => Ok(known.clone()),
            None => DevSecrets::create(
                &self.directory.cluster(),
                &shape_of(&self.plan.arguments),
                metadata_ports,
                random,
            ),
        }
    }
}

fn shape_of(arguments: &DevArguments) -> Shape {
    Shape {
        regions: arguments.regions,
        nodes_per_region: arguments.nodes_per_region,
        disks_per_node: arguments.disks_per_node,
        metadata: arguments.metadata,
        groups: arguments.groups,
        gateways: arguments.gateways,
        profile: arguments.profile.clone(),
    }
}
