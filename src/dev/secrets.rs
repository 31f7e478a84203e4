//! What a dev cluster remembers from its first start: the demo user's password, install numbers, ports, its shape.
//!
//! Invariant: random, made at the first start, kept with mode 0600; there is no default password.

use anyhow::{Context, ensure};
use daemon::random::Random;
use daemon::secret::{self, Secret};
use model::base32;
use serde::{Deserialize, Serialize};
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

/// What is remembered.
#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct DevSecrets {
    pub(crate) shape: Shape,
    pub(crate) demo_password: String,
    pub(crate) admin_password: String,
    /// Seed of the install numbers of this cluster's processes and disks.
    install_seed: u64,
    /// Where the metadata replicas listen, since the groups remember each other's addresses.
    pub(crate) metadata_ports: Vec<u16>,
}

impl DevSecrets {
    /// Reads what is remembered in `directory`, or draws it for a first start with `shape`.
    pub(crate) fn open_or_create(
        directory: &Path,
        shape: &Shape,
        metadata_ports: &[u16],
        random: &Random,
    ) -> anyhow::Result<Self> {
        if let Some(known) = Self::read(directory)? {
            ensure!(
                known.shape == *shape,
                "the cluster in {} was made with another shape ({:?}); start it with that one or use another --data-dir",
                directory.display(),
                known.shape
            );
            return Ok(known);
        }
        let password = || base32::encode(&random.bytes::<10>());
        let fresh = Self {
            shape: shape.clone(),
            demo_password: password(),
            admin_password: password(),
            install_seed: random.u64(),
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

    /// The install number of the `number`th thing of a `kind`: the same at each start of this cluster.
    pub(crate) fn install(&self, kind: &str, number: u64) -> u128 {
        let low = model::hash::stable_hash(format!("{}/{kind}/{number}/low", self.install_seed).as_bytes());
        let high = model::hash::stable_hash(format!("{}/{kind}/{number}/high", self.install_seed).as_bytes());
        (u128::from(high) << 64) | u128::from(low)
    }
}
