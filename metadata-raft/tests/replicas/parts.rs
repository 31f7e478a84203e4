//! What a metadata process of these worlds and measurements is made of, wherever it runs.

use async_trait::async_trait;
use daemon::clock::SystemClock;
use metadata_raft::config::{Config, ReplicaSite, Timing};
use metadata_raft::group::LogBounds;
use metadata_raft::service::MetadataService;
use model::error_kind::ErrorKind;
use model::id::{ClusterId, GroupId, RaftId};
use model::process::ProcessId;
use model::profile::ProfileId;
use protocol::frame::{Answer, Call};
use protocol::metadata::control::ClusterSettings;
use protocol::wire_error::Failure;
use rpc::identity::{Identity, IdentityPem, Revocations};
use rpc::limits::RpcLimits;
use rpc::quic::{QuicOptions, QuicTransport};
use rpc::transport::{Handler, Transport};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub(crate) const CLUSTER: ClusterId = ClusterId(0x0107);
/// How long a certificate holds.
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// Answers `starting` until the service stands, as the process's own wiring does.
#[derive(Default)]
pub(crate) struct Late(OnceLock<Arc<MetadataService>>);

impl Late {
    pub(crate) fn serve(&self, service: Arc<MetadataService>) {
        assert!(self.0.set(service).is_ok());
    }
}

#[async_trait]
impl Handler for Late {
    async fn handle(&self, caller: ProcessId, call: Call) -> Result<Answer, Failure> {
        match self.0.get() {
            Some(service) => service.handle(caller, call).await,
            None => Err(Failure::new(
                ErrorKind::Unavailable,
                "starting",
                "the process is starting",
            )),
        }
    }
}

/// A transport over QUIC.
pub(crate) fn bind_quic(
    pem: &IdentityPem,
    listen: SocketAddr,
    handler: Arc<dyn Handler>,
) -> (Arc<dyn Transport>, SocketAddr) {
    let options = QuicOptions {
        identity: Identity::from_pem(pem).unwrap(),
        listen,
        clock: Arc::new(SystemClock::new()),
        limits: RpcLimits::default(),
        revocations: Revocations::default(),
        has_jumbo_frames: false,
    };
    let (transport, address) = QuicTransport::bind(options, handler).unwrap();
    (transport, address)
}

/// A replica's configuration.
pub(crate) fn config(number: u64, dir: PathBuf, addresses: &BTreeMap<u64, SocketAddr>, groups: u32) -> Config {
    let site = |number: &u64| ReplicaSite {
        region: format!("r{number}"),
        zone: "z1".to_owned(),
    };
    Config {
        replica: RaftId(number),
        data_dir: dir,
        replicas: addresses.iter().map(|(id, at)| (RaftId(*id), *at)).collect(),
        sites: addresses.keys().map(site).collect(),
        settings: ClusterSettings {
            default_profile: ProfileId::Solo,
            default_quota_bytes: 1 << 40,
            birth_epoch_ms: 2_000,
            block_grace_ms: 60_000,
        },
        groups: (1..=groups).map(GroupId).collect(),
        timing: Timing::Lan,
        lease_reads: false,
        nodes_expected: 1,
        require_encrypted_volume: false,
        segment_bytes: 8 << 20,
        age_every: Duration::from_secs(1),
        log_bounds: LogBounds::PRODUCTION,
    }
}
