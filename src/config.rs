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

/// Below this RocksDB flushes and reads without end.
const MEMORY_MIB_MIN: usize = 8;
const MEMORY_MIB_MAX: usize = 64 << 10;
/// How many sizes write buffers come in: as many as a group can have replicas.
const STAGGER_STEPS: u64 = 5;
/// Each size is smaller than the one before by this part of the largest.
const STAGGER_PARTS: usize = 10;

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
    memory: RawMemory,
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

/// What the RocksDBs of the process may hold together.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawMemory {
    cache_mib: usize,
    write_buffer_mib: usize,
}

impl Default for RawMemory {
    /// Guesses: the tree of a million entries in the cache, and a few flushes a minute under load.
    fn default() -> Self {
        Self {
            cache_mib: 256,
            write_buffer_mib: 128,
        }
    }
}

impl RawMemory {
    fn check(self, problems: &mut Vec<Problem>) {
        for (key, mib) in [
            ("memory.cache_mib", self.cache_mib),
            ("memory.write_buffer_mib", self.write_buffer_mib),
        ] {
            if !(MEMORY_MIB_MIN..=MEMORY_MIB_MAX).contains(&mib) {
                problems.push(Problem::new(key, "is out of range", "set it to 8 to 65536"));
            }
        }
    }
}

/// What a process takes of `write_buffer_bytes`: all of it without a replica. The replicas of a group write the same at the same time:
/// with equal buffers all of them flush in the same second, and commits find no majority that is free (decision 0032). Equal they still
/// are where the numbers differ by a multiple of `STAGGER_STEPS`, and where the steps would lead below `MEMORY_MIB_MIN`.
fn staggered(write_buffer_bytes: usize, replica: Option<u64>) -> usize {
    let steps = replica.map_or(0, |number| number % STAGGER_STEPS);
    let steps = usize::try_from(steps).expect("below STAGGER_STEPS");
    let staggered = write_buffer_bytes - write_buffer_bytes / STAGGER_PARTS * steps;
    staggered.max(MEMORY_MIB_MIN << 20)
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
    /// Whether the network between the processes carries jumbo frames (an MTU of 9,000) for certain.
    #[serde(default)]
    jumbo_frames: bool,
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
    /// Bytes that the RocksDBs may cache.
    pub(crate) cache_bytes: usize,
    /// Bytes that the RocksDBs may hold unwritten.
    pub(crate) write_buffer_bytes: usize,
    pub(crate) seeds: Vec<Peer>,
    pub(crate) site: Site,
    pub(crate) revoked_file: Option<PathBuf>,
    pub(crate) has_jumbo_frames: bool,
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
            jumbo_frames: has_jumbo_frames,
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
        if node.is_some() || gateway.is_some() {
            check_surroundings(!self.seeds.is_empty(), self.site.is_some(), &mut problems);
        }
        self.memory.check(&mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        let site = self.site.map_or_else(Site::default, |site| Site {
            region: site.region,
            zone: site.zone,
        });
        let replica = metadata.as_ref().map(|(_, section)| section.replica.0);
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
            cache_bytes: self.memory.cache_mib << 20,
            write_buffer_bytes: staggered(self.memory.write_buffer_mib << 20, replica),
            seeds: self.seeds.iter().map(seed).collect(),
            site,
            revoked_file,
            has_jumbo_frames,
            node,
            metadata,
            gateway,
        })
    }
}

/// Notes what a node or gateway must be told beside its section.
fn check_surroundings(has_seeds: bool, has_site: bool, problems: &mut Vec<Problem>) {
    if !has_seeds {
        problems.push(Problem::new(
            "seeds",
            "is empty",
            "add a [[seeds]] with id and address for each metadata replica",
        ));
    }
    if !has_site {
        problems.push(Problem::new(
            "site",
            "is missing",
            "add [site] with the region and zone of this process",
        ));
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

#[cfg(test)]
mod tests {
    use super::{MEMORY_MIB_MIN, STAGGER_STEPS, staggered};
    use std::collections::BTreeSet;

    #[test]
    fn replicas_that_are_numbered_in_a_row_have_different_buffers_and_none_has_more_than_said() {
        let sizes: BTreeSet<usize> = (1..=STAGGER_STEPS)
            .map(|replica| staggered(64 << 20, Some(replica)))
            .collect();
        assert_eq!(sizes.len(), 5);
        assert_eq!(sizes.last(), Some(&(64 << 20)));
        assert!(sizes.first() > Some(&(38 << 20)), "{sizes:?}");
        assert_eq!(staggered(64 << 20, None), 64 << 20, "who is no replica has it all");
    }

    #[test]
    fn no_replica_has_a_smaller_buffer_than_can_be_configured() {
        let check = |mib: usize, expected_mib: [usize; 5]| {
            let sizes: Vec<usize> = (0..STAGGER_STEPS)
                .map(|replica| staggered(mib << 20, Some(replica)))
                .collect();
            let expected: Vec<usize> = expected_mib.into_iter().map(|mib| mib << 20).collect();
            assert_eq!(sizes, expected, "{mib} MiB");
        };
        check(MEMORY_MIB_MIN, [8, 8, 8, 8, 8]);
        check(10, [10, 9, 8, 8, 8]);
        check(20, [20, 18, 16, 14, 12]);
    }
}
