//! What a dev cluster remembers from its first start: the demo user's password, ports, its shape.
//!
//! Invariant: random, made at the first start, kept with mode 0600; there is no default password.

use anyhow::Context;
use daemon::random::Random;
use daemon::secret::{self, Secret};
use model::base32;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;

const FILE: &str = "dev-secrets.json";

/// The shape that a dev cluster was made with; another one on the same data is refused.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Shape {
    pub(crate) regions: u32,
    pub(crate) nodes_per_region: u32,
    pub(crate) disks_per_node: u32,
    pub(crate) metadata: u32,
    pub(crate) groups: u32,
    pub(crate) gateways: u32,
    pub(crate) profile: String,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "--regions {} --nodes-per-region {} --disks-per-node {} --metadata {} --groups {} --gateways {} --profile {}",
            self.regions,
            self.nodes_per_region,
            self.disks_per_node,
            self.metadata,
            self.groups,
            self.gateways,
            self.profile
        )
    }
}

/// What is remembered.
#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct DevSecrets {
    pub(crate) shape: Shape,
    pub(crate) demo_password: String,
    pub(crate) admin_password: String,
    /// Where the metadata replicas listen, since the groups remember each other's addresses.
    pub(crate) metadata_ports: Vec<u16>,
}

impl DevSecrets {
    /// Draws what is remembered of a first start with `shape`, and keeps it in `directory`.
    pub(crate) fn create(
        directory: &Path,
        shape: &Shape,
        metadata_ports: &[u16],
        random: &Random,
    ) -> anyhow::Result<Self> {
        let password = || base32::encode(&random.bytes::<10>());
        let fresh = Self {
            shape: shape.clone(),
            demo_password: password(),
            admin_password: password(),
            metadata_ports: metadata_ports.to_vec(),
        };
        secret::create(
            &directory.join(FILE),
            &Secret::new(serde_json::to_vec_pretty(&fresh)?),
            random,
        )?;
        Ok(fresh)
    }

    /// Reads what is remembered in `directory`; `None` before the first start.
    pub(crate) fn read(directory: &Path) -> anyhow::Result<Option<Self>> {
        let path = directory.join(FILE);
        if !path.exists() {
            return Ok(None);
        }
        let text = secret::read(&path)?;
        let known = serde_json::from_slice(text.expose()).with_context(|| format!("read {}", path.display()))?;
        Ok(Some(known))
    }
}
