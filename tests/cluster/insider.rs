//! Somebody of the cluster: speaks to replicas and nodes with the identity that one of its processes has.
//!
//! What no client sees is asked this way: which stripes a version names, how many stripes the groups know.
//! Not here: expectations; calls that nobody should make (`foreign_bytes`).

use crate::served::Plan;
use client_sdk::client::Client;
use codec::cipher::Aes256Gcm;
use daemon::clock::SystemClock;
use daemon::metrics::Metrics;
use daemon::pool::Pool;
use daemon::random::Random;
use gateway::drive::metadata_client::MetadataClient;
use gateway::seams::Seams;
use model::authorize::Principal;
use model::id::{EntryId, UserId};
use model::process::{ProcessId, Role};
use protocol::frame::{Answer, Call};
use protocol::metadata::control::ControlCommand;
use protocol::metadata::group::GroupCommand;
use protocol::metadata::query::{ControlQuery, DriveAsk, DriveQuery, Manifest, StripeCounts};
use protocol::metadata::{Command, CommandAnswer, Query, QueryAnswer};
use protocol::wire_error::Failure;
use rpc::identity::{Identity, IdentityPem, Revocations};
use rpc::limits::RpcLimits;
use rpc::quic::{QuicOptions, QuicTransport};
use rpc::transport::{Handler, Peer, Transport};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

/// Far from every number that a gateway of these clusters has as the source of its request ids.
const SOURCE: u64 = 99;

/// A process's identity at work.
pub(crate) struct Insider {
    pub(crate) transport: Arc<QuicTransport>,
    pub(crate) metadata: Vec<Peer>,
    client: MetadataClient,
}

/// What a gateway of the test's own is given, with its calls going over `transport`.
pub(crate) fn seams(transport: Arc<dyn Transport>) -> Seams {
    Seams {
        transport,
        clock: Arc::new(SystemClock::new()),
        pool: Pool::of_machine().unwrap(),
        random: Random::system(),
        metrics: Metrics::new(),
        cipher: Arc::new(Aes256Gcm),
    }
}

/// Answers nobody.
struct Deaf;

#[async_trait::async_trait]
impl Handler for Deaf {
    async fn handle(&self, _caller: ProcessId, _call: Call) -> Result<Answer, Failure> {
        Err(Failure::bug("nobody calls this process"))
    }
}

impl Insider {
    /// With the identity of a process of a `holdfast dev` cluster.
    pub(crate) fn of_dev(data_dir: &Path, process: &str) -> Self {
        let secrets = fs::read(data_dir.join("cluster/dev-secrets.json")).unwrap();
        let secrets: serde_json::Value = serde_json::from_slice(&secrets).unwrap();
        let ports = secrets["metadata_ports"].as_array().unwrap().iter();
        let address = |port: &serde_json::Value| {
            SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(port.as_u64().unwrap()).unwrap()))
        };
        let addresses: Vec<SocketAddr> = ports.map(address).collect();
        Self::new(&data_dir.join("cluster/identities").join(process), &addresses)
    }

    /// With the identity of a process of separate processes.
    pub(crate) fn of_plan(plan: &Plan, process: &str) -> Self {
        Self::new(&plan.identity(process), plan.metadata())
    }

    fn new(identity: &Path, metadata: &[SocketAddr]) -> Self {
        let read = |name: &str| fs::read_to_string(identity.join(name)).unwrap();
        let pem = IdentityPem {
            certificate: read("certificate.pem"),
            key: read("key.pem"),
            authority: read("authority.pem"),
        };
        let options = QuicOptions {
            identity: Identity::from_pem(&pem).unwrap(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            clock: Arc::new(SystemClock::new()),
            limits: RpcLimits::default(),
            revocations: Revocations::default(),
            has_jumbo_frames: false,
        };
        let (transport, _) = QuicTransport::bind(options, Arc::new(Deaf)).unwrap();
        let peer = |(number, address): (u64, &SocketAddr)| {
            let role = Role::Metadata;
            Peer {
                process: ProcessId { role, number },
                address: *address,
            }
        };
        let metadata: Vec<Peer> = (1..).zip(metadata).map(peer).collect();
        let seams = seams(Arc::clone(&transport) as Arc<dyn Transport>);
        let client = MetadataClient::new(seams, SOURCE, metadata.clone());
        Self {
            transport,
            metadata,
            client,
        }
    }

    /// Tells the control group something, as the process whose identity this is.
    pub(crate) async fn control(&self, command: ControlCommand) -> Result<CommandAnswer, Failure> {
        let told = self.client.command(Command::Control(command), None, 1).await;
        told.map(|(answer, _)| answer)
    }

    async fn ask(&self, query: &Query) -> QueryAnswer {
        self.client.query(query, 1).await.unwrap().0
    }

    /// The storage nodes of the cluster map.
    pub(crate) async fn nodes(&self) -> Vec<Peer> {
        let QueryAnswer::Cluster(cluster) = self.ask(&Query::Control(ControlQuery::Cluster)).await else {
            panic!("asked for the map, was answered something else");
        };
        let nodes = cluster.map.nodes.iter().map(|(id, info)| Peer {
            process: ProcessId {
                role: Role::Node,
                number: u64::from(id.0),
            },
            address: info.address,
        });
        nodes.collect()
    }

    /// How many stripes all groups know.
    pub(crate) async fn stripe_counts(&self) -> StripeCounts {
        self.client.refresh_routes(1).await.unwrap();
        let mut sum = StripeCounts::default();
        for group in self.client.groups().into_keys() {
            if group == model::id::CONTROL_GROUP {
                continue;
            }
            match self.client.query_group(group, &Query::StripeCounts, 1).await.unwrap() {
                QueryAnswer::StripeCounts(counts) => sum = sum.plus(&counts),
                other => panic!("asked for counts, was answered {other:?}"),
            }
        }
        sum
    }

    /// Takes the lease of collection in every drive group for so long by the group's counter; the cluster's own gateway has none until
    /// it ends.
    pub(crate) async fn take_leases(&self, span_ms: u64) {
        self.client.refresh_routes(1).await.unwrap();
        for group in self.client.groups().into_keys() {
            if group == model::id::CONTROL_GROUP {
                continue;
            }
            let take = GroupCommand::TakeLease {
                holder: SOURCE,
                lease: SOURCE,
                span_ms,
            };
            self.client.command_group(group, take).await.unwrap();
        }
    }

    /// What a version of a file names; `None` for the current one. The file must be small enough for one answer.
    pub(crate) async fn manifest(&self, owner: &Client, entry: &str, version: Option<u64>) -> Manifest {
        let entry = EntryId::parse(entry).unwrap();
        let principal = Principal {
            user: UserId::parse(&owner.me().await.unwrap().id).unwrap(),
            device: None,
            is_admin: false,
        };
        let ask = DriveAsk::ReadManifest {
            entry,
            version,
            range: None,
        };
        let query = Query::Drive(DriveQuery {
            drive: entry.drive,
            principal: Some(principal),
            ask,
        });
        let QueryAnswer::Manifest(manifest) = self.ask(&query).await else {
            panic!("asked for a manifest, was answered something else");
        };
        assert_eq!(manifest.next_offset, None, "the file is too large for one answer");
        manifest
    }
}
