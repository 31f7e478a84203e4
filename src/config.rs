//! The configuration file of `holdfast serve`: which roles run here, under which identities, at which addresses.
//!
//! Invariants: unknown keys are refused; a role runs when its section is there and then needs its `[transport.<role>]`;
//! secrets are paths to files, never values.

use crate::registration::Site;
use daemon::config::{Problem, RawConfig};
use gateway::config::{GatewayConfig, RawGateway};
use metadata_raft::config::{Config as MetadataConfig, RawMetadata};
use model::process::{ProcessId, Role};
use node::config::{Config as NodeConfig, RawNode};
use rpc::transport::Peer;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The file as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawFile {
    #[serde(default)]
    log: RawLog,
    /// Where the process is watched: `/metrics`, `/healthz`, `/readyz` over plain HTTP. Without it only a gateway's listener has them.
    status: Option<RawStatus>,
    /// Where the process stands.
    site: Option<RawSite>,
    #[serde(default)]
    transport: RawTransports,
    /// Replicas of the control group, by which a node or gateway finds the cluster.
    #[serde(default)]
    seeds: Vec<RawSeed>,
    node: Option<RawNode>,
    metadata: Option<RawMetadata>,
    gateway: Option<RawGateway>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLog {
    #[serde(default)]
    json: bool,
    filter: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStatus {
    listen: SocketAddr,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSite {
    region: String,
    #[serde(default = "zone_default")]
    zone: String,
}

fn zone_default() -> String {
    "z1".to_owned()
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTransports {
    /// Certificates that are refused, as `holdfast identity revoke` writes them; read again when it changes.
    revoked_file: Option<PathBuf>,
    node: Option<RawEndpoint>,
    metadata: Option<RawEndpoint>,
    gateway: Option<RawEndpoint>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEndpoint {
    listen: SocketAddr,
    /// Where the others reach it, when that is not `listen`.
    advertise: Option<SocketAddr>,
    identity_dir: PathBuf,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSeed {
    id: u64,
    address: SocketAddr,
}

/// Where a role listens for the cluster, and who it is.
#[derive(Clone, Debug)]
pub(crate) struct EndpointConfig {
    pub(crate) listen: SocketAddr,
    pub(crate) advertise: Option<SocketAddr>,
    pub(crate) identity_dir: PathBuf,
}

/// The checked file.
#[derive(Debug)]
pub(crate) struct ServeConfig {
    pub(crate) logs_json: bool,
    pub(crate) log_filter: String,
    /// Where the status port listens; none is opened without it.
    pub(crate) status_listen: Option<SocketAddr>,
    pub(crate) seeds: Vec<Peer>,
    pub(crate) site: Site,
    pub(crate) revoked_file: Option<PathBuf>,
    pub(crate) node: Option<(EndpointConfig, NodeConfig)>,
    pub(crate) metadata: Option<(EndpointConfig, MetadataConfig)>,
    pub(crate) gateway: Option<(EndpointConfig, GatewayConfig)>,
}

impl RawConfig for RawFile {
    type Checked = ServeConfig;

    fn check(self) -> Result<ServeConfig, Vec<Problem>> {
        let mut problems = Vec::new();
        let RawTransports {
            revoked_file,
            node: node_at,
            metadata: metadata_at,
            gateway: gateway_at,
        } = self.transport;
        let node = section("node", self.node.map(RawNode::check), node_at, &mut problems);
        let metadata = section(
            "metadata",
            self.metadata.map(RawMetadata::check),
            metadata_at,
            &mut problems,
        );
        let gateway = section(
            "gateway",
            self.gateway.map(RawGateway::check),
            gateway_at,
            &mut problems,
        );
        if problems.is_empty() && node.is_none() && metadata.is_none() && gateway.is_none() {
            problems.push(Problem::new(
                "",
                "names no role",
                "add at least one of [node], [metadata], [gateway]",
            ));
        }
        if self.seeds.is_empty() && (node.is_some() || gateway.is_some()) {
            problems.push(Problem::new(
                "seeds",
                "is empty",
                "add a [[seeds]] with id and address for each metadata replica",
            ));
        }
        if self.site.is_none() && (node.is_some() || gateway.is_some()) {
            problems.push(Problem::new(
                "site",
                "is missing",
                "add [site] with the region and zone of this process",
            ));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let site = self.site.map_or_else(Site::default, |site| Site {
            region: site.region,
            zone: site.zone,
        });
        let seed = |seed: &RawSeed| Peer {
            process: ProcessId {
                role: Role::Metadata,
                number: seed.id,
            },
            address: seed.address,
        };
        Ok(ServeConfig {
            logs_json: self.log.json,
            log_filter: self.log.filter.unwrap_or_else(|| "info,openraft=warn".to_owned()),
            status_listen: self.status.map(|status| status.listen),
            seeds: self.seeds.iter().map(seed).collect(),
            site,
            revoked_file,
            node,
            metadata,
            gateway,
        })
    }
}

/// Pairs a role's checked section with its endpoint, or notes what is missing.
fn section<T>(
    role: &str,
    checked: Option<Result<T, Vec<Problem>>>,
    endpoint: Option<RawEndpoint>,
    problems: &mut Vec<Problem>,
) -> Option<(EndpointConfig, T)> {
    let key = format!("transport.{role}");
    match (checked, endpoint) {
        (None, None) => None,
        (None, Some(_)) => {
            problems.push(Problem::new(
                key,
                "has no role to serve",
                format!("add [{role}] or remove it"),
            ));
            None
        }
        (Some(Err(found)), _) => {
            problems.extend(found);
            None
        }
        (Some(Ok(_)), None) => {
            problems.push(Problem::new(key, "is missing", "give listen and identity_dir"));
            None
        }
        (Some(Ok(_)), Some(at)) if at.listen.ip().is_unspecified() && at.advertise.is_none() => {
            problems.push(Problem::new(
                format!("{key}.listen"),
                "is every address of the host",
                "add advertise, the one at which the others reach it",
            ));
            None
        }
        (Some(Ok(config)), Some(at)) => {
            let RawEndpoint {
                listen,
                advertise,
                identity_dir,
            } = at;
            let endpoint = EndpointConfig {
                listen,
                advertise,
                identity_dir,
            };
            Some((endpoint, config))
        }
    }
}
