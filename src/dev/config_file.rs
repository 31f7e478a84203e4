//! The configuration file of one process of a dev cluster: what the plan says, as `holdfast serve` reads it.
//!
//! Invariant: a file is read back and checked before its process is started, so what is wrong with it is told at once.
//! Not here: what is in the sections (`plan`), how they are read (`config`, and each service).

use super::plan::Plan;
use crate::config::RawFile;
use crate::registration::Site;
use anyhow::{Context, ensure};
use daemon::log::LogFormat;
use gateway::config::{GatewayConfig, MetadataReads};
use metadata_raft::config::{Config as MetadataConfig, Timing};
use model::process::{ProcessId, Role};
use node::config::Config as NodeConfig;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// What a process's RocksDBs may take: there are about ten processes of a dev cluster on a machine.
const CACHE_MIB: usize = 8;
const WRITE_BUFFER_MIB: usize = 16;
/// The same of a metadata replica. Its state is rewritten whole with every fourth buffer until that is large (`kv::rocks`), so small
/// buffers are paid for in CPU time.
const METADATA_CACHE_MIB: usize = 32;
const METADATA_WRITE_BUFFER_MIB: usize = 64;

/// The section that makes a process what it is.
pub(crate) enum Section {
    Metadata(MetadataConfig),
    Node(NodeConfig),
    Gateway(GatewayConfig),
}

/// What a process is told beside its section.
pub(crate) struct Wiring {
    /// Where the others reach it.
    pub(crate) listen: SocketAddr,
    /// Where it is watched.
    pub(crate) status: SocketAddr,
    pub(crate) identity_dir: PathBuf,
    pub(crate) revoked_file: PathBuf,
    /// The metadata replicas, by number.
    pub(crate) seeds: Vec<(u64, SocketAddr)>,
}

/// Writes the file of `process` to `path`, in place of an older one, and checks it as `serve` will.
pub(crate) fn write(
    path: &Path,
    plan: &Plan,
    process: ProcessId,
    section: &Section,
    wiring: &Wiring,
) -> anyhow::Result<()> {
    let text = text(plan, process, section, wiring)?;
    fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    daemon::config::load::<RawFile>(path)?;
    Ok(())
}

fn text(plan: &Plan, process: ProcessId, section: &Section, wiring: &Wiring) -> anyhow::Result<String> {
    let (role, site) = (process.role.as_str(), plan.site(process));
    let is_json = plan.arguments.log == LogFormat::Json;
    let (cache_mib, write_buffer_mib) = match process.role {
        Role::Metadata => (METADATA_CACHE_MIB, METADATA_WRITE_BUFFER_MIB),
        _ => (CACHE_MIB, WRITE_BUFFER_MIB),
    };
    let mut text = format!(
        "# {process} of a dev cluster, as `holdfast dev --processes` wrote it; each start of the cluster writes it anew.\n\n\
         [log]\njson = {is_json}\n\n\
         [memory]\ncache_mib = {cache_mib}\nwrite_buffer_mib = {write_buffer_mib}\n\n\
         [status]\nlisten = \"{}\"\n\n",
        wiring.status
    );
    if process.role != Role::Metadata {
        text += &site_lines("[site]", &site);
    }
    write!(
        text,
        "[transport]\nrevoked_file = {}\n\n[transport.{role}]\nlisten = \"{}\"\nidentity_dir = {}\n\n",
        quoted(&wiring.revoked_file)?,
        wiring.listen,
        quoted(&wiring.identity_dir)?
    )?;
    match section {
        Section::Metadata(config) => text += &metadata(config)?,
        Section::Node(config) => text += &(seeds(wiring) + &node(config)?),
        Section::Gateway(config) => text += &(seeds(wiring) + &gateway(config, plan)?),
    }
    Ok(text)
}

fn site_lines(heading: &str, site: &Site) -> String {
    format!("{heading}\nregion = \"{}\"\nzone = \"{}\"\n\n", site.region, site.zone)
}

fn seeds(wiring: &Wiring) -> String {
    let seed = |(id, address): &(u64, SocketAddr)| format!("[[seeds]]\nid = {id}\naddress = \"{address}\"\n\n");
    wiring.seeds.iter().map(seed).collect()
}

fn metadata(config: &MetadataConfig) -> anyhow::Result<String> {
    let settings = &config.settings;
    let timing = match config.timing {
        Timing::Lan => "lan",
        Timing::Wan => "wan",
    };
    let mut text = format!(
        "[metadata]\nid = {}\ndata_dir = {}\nrequire_encrypted_volume = {}\ngroups = {}\ntiming = \"{timing}\"\n\
         lease_reads = {}\nnodes_expected = {}\nsegment_mib = {}\n\n\
         [metadata.founding]\ndefault_profile = \"{}\"\ndefault_quota_gib = {}\nbirth_epoch_s = {}\n\
         block_grace_hours = {}\n\n",
        config.replica.0,
        quoted(&config.data_dir)?,
        config.require_encrypted_volume,
        config.groups.len(),
        config.lease_reads,
        config.nodes_expected,
        config.segment_bytes >> 20,
        settings.default_profile,
        settings.default_quota_bytes >> 30,
        settings.birth_epoch_ms / 1000,
        // The file knows hours, and a dev cluster in one process a minute; it is read when the cluster is made and never again.
        (settings.block_grace_ms / 3_600_000).max(1),
    );
    for ((id, address), site) in config.replicas.iter().zip(&config.sites) {
        write!(
            text,
            "[[metadata.replicas]]\nid = {}\naddress = \"{address}\"\nregion = \"{}\"\nzone = \"{}\"\n\n",
            id.0, site.region, site.zone
        )?;
    }
    Ok(text)
}

fn node(config: &NodeConfig) -> anyhow::Result<String> {
    let mut text = format!(
        "[node]\nid = {}\ndata_dir = {}\nsegment_mib = {}\nscrub_days = {}\nlimbo_hours = {}\n\n",
        config.node.0,
        quoted(&config.data_dir)?,
        config.segment_bytes >> 20,
        config.scrub_period.as_secs() / (24 * 3600),
        config.limbo.as_secs() / 3600,
    );
    for disk in &config.disks {
        write!(
            text,
            "[[node.disks]]\nid = {}\npath = {}\n",
            disk.disk.0,
            quoted(&disk.path)?
        )?;
        if let Some(bytes) = disk.capacity_bytes {
            writeln!(text, "capacity_bytes = {bytes}")?;
        }
        text.push('\n');
    }
    Ok(text)
}

fn gateway(config: &GatewayConfig, plan: &Plan) -> anyhow::Result<String> {
    let functions: Vec<String> = config
        .functions
        .names()
        .iter()
        .map(|name| format!("\"{name}\""))
        .collect();
    let admission = &config.admission;
    let mut text = format!(
        "[gateway]\nlisten = \"{}\"\nkek_file = {}\nfunctions = [{}]\nupload_budget_bytes = {}\nbehind_proxy = {}\n\
         requests_in_service_max = {}\nrequests_held_max = {}\nrequest_wait_ms_max = {}\nrequest_target_ms = {}\ntransfers_max = {}\n\
         metadata_reads = \"{}\"\ncache_bytes = {}\n",
        config.listen,
        quoted(&config.kek_file)?,
        functions.join(", "),
        config.upload_budget_bytes,
        plan.arguments.behind_proxy,
        admission.requests_in_service_max,
        admission.requests_held_max,
        admission.wait_max.as_millis(),
        admission.service_target.as_millis(),
        admission.transfers_max,
        match config.metadata_reads {
            MetadataReads::Leader => "leader",
            MetadataReads::Nearest => "nearest",
        },
        config.cache.answers_bytes + config.cache.blocks_bytes,
    );
    if let Some((certificate, key)) = &config.tls {
        write!(
            text,
            "tls_certificate = {}\ntls_key = {}\n",
            quoted(certificate)?,
            quoted(key)?
        )?;
    }
    Ok(text)
}

/// A path as TOML has it: absolute, since a process may be started from anywhere.
fn quoted(path: &Path) -> anyhow::Result<String> {
    let path = std::path::absolute(path).with_context(|| format!("look at {}", path.display()))?;
    let text = path.to_str();
    ensure!(
        text.is_some(),
        "{} is no UTF-8, and a configuration file cannot name it; use another directory",
        path.display()
    );
    Ok(toml::Value::from(text.unwrap_or_default()).to_string())
}
