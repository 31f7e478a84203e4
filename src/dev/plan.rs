//! Which processes a dev cluster has, where each stands and keeps its data, and what each is told: the same in both forms.
//!
//! Invariant: a data directory looks the same whether its cluster ran in one process or in many, so either form goes on with it.
//! Not here: addresses, which each start gives out anew but for those of the metadata replicas.

use crate::cli::DevArguments;
use crate::registration::Site;
use anyhow::{Context, ensure};
use daemon::config::Problem;
use gateway::config::{AdmissionLimits, CacheLimits, Functions, GatewayConfig, Limits, MetadataReads};
use metadata_raft::config::{Config as MetadataConfig, ReplicaSite, Timing};
use metadata_raft::group::LogBounds;
use model::id::{DiskId, GroupId, NodeId, RaftId};
use model::limits::{BIRTH_EPOCH_DEV, BLOCK_GRACE_DEV, QUOTA_BYTES_DEV};
use model::process::{ProcessId, Role};
use model::profile::ProfileId;
use node::config::{Config as NodeConfig, DiskConfig};
use protocol::metadata::control::ClusterSettings;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

const SEGMENT_BYTES_DEV: u64 = 32 << 20;
const UPLOAD_BUDGET_BYTES: u64 = 256 << 20;
const SCRUB_PERIOD: Duration = Duration::from_secs(7 * 24 * 3600);
const LIMBO: Duration = Duration::from_secs(24 * 3600);

/// What was asked for, with everything that follows from it.
pub(crate) struct Plan {
    pub(crate) arguments: DevArguments,
    pub(crate) profile: ProfileId,
    pub(crate) data_dir: PathBuf,
    pub(crate) disk_bytes: u64,
    /// Of each gateway, in their order.
    pub(crate) functions: Vec<Functions>,
}

/// A free port of loopback, or that one.
pub(crate) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn site_of_region(region: u64) -> Site {
    Site {
        region: format!("r{region}"),
        zone: "z1".to_owned(),
    }
}

/// What each gateway serves: as asked, by position, and everything where nothing was.
///
/// Errors: a word that is no function, more lists than gateways, or no gateway at which anybody could sign in.
pub(crate) fn functions(arguments: &DevArguments) -> anyhow::Result<Vec<Functions>> {
    let count = usize::try_from(arguments.gateways)?;
    ensure!(
        arguments.functions.len() <= count,
        "--functions is given {} times for {count} gateways; give it at most once for each, or raise --gateways",
        arguments.functions.len()
    );
    let asked = arguments.functions.iter().map(|list| {
        let names: Vec<String> = list.split(',').map(|name| name.trim().to_owned()).collect();
        Functions::of(&names)
            .map_err(|problem: Problem| anyhow::anyhow!("--functions {list} {}; {}", problem.what, problem.remedy))
    });
    let mut functions = asked.collect::<anyhow::Result<Vec<Functions>>>()?;
    functions.resize(count, Functions::ALL);
    ensure!(
        functions.iter().any(|functions| functions.api),
        "no gateway serves api, so nobody could sign in; give api to one of them"
    );
    Ok(functions)
}

impl Plan {
    /// The metadata replicas, in order.
    pub(crate) fn replicas(&self) -> impl Iterator<Item = ProcessId> + use<> {
        numbered(Role::Metadata, u64::from(self.arguments.metadata))
    }

    /// The storage nodes, in order.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = ProcessId> + use<> {
        let count = u64::from(self.arguments.regions) * u64::from(self.arguments.nodes_per_region);
        numbered(Role::Node, count)
    }

    /// The gateways, in order.
    pub(crate) fn gateways(&self) -> impl Iterator<Item = ProcessId> + use<> {
        numbered(Role::Gateway, u64::from(self.arguments.gateways))
    }

    /// All processes, in the order in which they are started.
    pub(crate) fn processes(&self) -> impl Iterator<Item = ProcessId> + use<> {
        self.replicas().chain(self.nodes()).chain(self.gateways())
    }

    /// The first gateway at which somebody can sign in.
    pub(crate) fn front(&self) -> usize {
        self.functions.iter().position(|functions| functions.api).unwrap_or(0)
    }

    /// Where a process stands: nodes region by region, replicas and gateways in turn.
    pub(crate) fn site(&self, process: ProcessId) -> Site {
        let at = process.number - 1;
        let region = match process.role {
            Role::Node => at / u64::from(self.arguments.nodes_per_region),
            Role::Metadata | Role::Gateway | Role::Admin => at % u64::from(self.arguments.regions),
        };
        site_of_region(region + 1)
    }

    /// Where a process keeps its data, or would.
    pub(crate) fn data_dir_of(&self, process: ProcessId) -> PathBuf {
        self.data_dir.join(process.to_string())
    }

    /// The same, made when it is missing.
    pub(crate) fn make_data_dir_of(&self, process: ProcessId) -> anyhow::Result<PathBuf> {
        make(self.data_dir_of(process))
    }

    /// The section of a metadata replica; `replicas` are all of them with their addresses.
    pub(crate) fn metadata_config(
        &self,
        process: ProcessId,
        replicas: &[(RaftId, SocketAddr)],
    ) -> anyhow::Result<MetadataConfig> {
        let sites = self.replicas().map(|replica| {
            let Site { region, zone } = self.site(replica);
            ReplicaSite { region, zone }
        });
        Ok(MetadataConfig {
            replica: RaftId(process.number),
            data_dir: self.make_data_dir_of(process)?,
            replicas: replicas.to_vec(),
            sites: sites.collect(),
            settings: self.settings()?,
            groups: (1..=self.arguments.groups).map(GroupId).collect(),
            timing: Timing::Lan,
            lease_reads: false,
            nodes_expected: self.nodes().count(),
            require_encrypted_volume: false,
            segment_bytes: SEGMENT_BYTES_DEV,
            age_every: self.birth_epoch() / 2,
            log_bounds: LogBounds::PRODUCTION,
        })
    }

    fn birth_epoch(&self) -> Duration {
        let asked = self.arguments.birth_epoch_ms;
        asked.map_or(BIRTH_EPOCH_DEV, Duration::from_millis)
    }

    fn settings(&self) -> anyhow::Result<ClusterSettings> {
        let block_grace = self.arguments.block_grace_ms;
        let block_grace = block_grace.map_or(BLOCK_GRACE_DEV, Duration::from_millis);
        Ok(ClusterSettings {
            default_profile: self.profile,
            default_quota_bytes: QUOTA_BYTES_DEV,
            birth_epoch_ms: u64::try_from(self.birth_epoch().as_millis())?,
            block_grace_ms: u64::try_from(block_grace.as_millis())?,
        })
    }

    /// The section of a storage node.
    pub(crate) fn node_config(&self, process: ProcessId) -> anyhow::Result<NodeConfig> {
        let number = u32::try_from(process.number)?;
        let directory = self.make_data_dir_of(process)?;
        let first = (number - 1) * self.arguments.disks_per_node + 1;
        let disks = (first..first + self.arguments.disks_per_node).map(|disk| {
            anyhow::Ok(DiskConfig {
                disk: DiskId(disk),
                path: make(directory.join(format!("disk-{disk}")))?,
                capacity_bytes: Some(self.disk_bytes),
            })
        });
        Ok(NodeConfig {
            node: NodeId(number),
            data_dir: directory.join("register"),
            disks: disks.collect::<anyhow::Result<_>>()?,
            segment_bytes: SEGMENT_BYTES_DEV,
            scrub_period: SCRUB_PERIOD,
            limbo: self.arguments.limbo_s.map_or(LIMBO, Duration::from_secs),
        })
    }

    /// The section of a gateway: the first that people sign in at listens where it was asked for, the others beside it.
    pub(crate) fn gateway_config(&self, process: ProcessId, kek_file: PathBuf) -> anyhow::Result<GatewayConfig> {
        self.make_data_dir_of(process)?;
        let at = usize::try_from(process.number - 1)?;
        let listen = if at == self.front() {
            self.arguments.listen
        } else {
            SocketAddr::new(self.listen_ip(), 0)
        };
        Ok(GatewayConfig {
            listen,
            kek_file,
            tls: self.tls(),
            functions: self.functions.get(at).copied().context("a gateway has functions")?,
            upload_budget_bytes: UPLOAD_BUDGET_BYTES,
            admission: self.admission(),
            metadata_reads: MetadataReads::Leader,
            cache: CacheLimits::of(self.arguments.cache_bytes),
            limits: Limits::default(),
            browser_origins: Vec::new(),
        })
    }

    fn admission(&self) -> AdmissionLimits {
        let (asked, fallback) = (&self.arguments, AdmissionLimits::default());
        AdmissionLimits {
            requests_in_service_max: asked
                .requests_in_service_max
                .unwrap_or(fallback.requests_in_service_max),
            requests_held_max: asked.requests_held_max.unwrap_or(fallback.requests_held_max),
            wait_max: asked
                .request_wait_ms_max
                .map_or(fallback.wait_max, Duration::from_millis),
            ..fallback
        }
    }

    fn listen_ip(&self) -> IpAddr {
        self.arguments.listen.ip()
    }

    fn tls(&self) -> Option<(PathBuf, PathBuf)> {
        let arguments = &self.arguments;
        arguments.tls_certificate.clone().zip(arguments.tls_key.clone())
    }

    /// The address of a gateway as clients write it.
    pub(crate) fn url(&self, address: SocketAddr) -> String {
        let scheme = if self.tls().is_some() { "https" } else { "http" };
        format!("{scheme}://{address}")
    }
}

fn numbered(role: Role, count: u64) -> impl Iterator<Item = ProcessId> {
    (1..=count).map(move |number| ProcessId { role, number })
}

fn make(path: PathBuf) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
    Ok(path)
}
