//! Start and stop of a dev cluster: the table of contents of `holdfast dev`.
//!
//! Invariant: what is started is stopped in reverse order; a failed start leaves the data directory fit for the next try.

use super::directory::{DevDirectory, check_listen};
use super::facts::{DevFacts, ProcessFacts};
use super::node_switch::{DevNodes, NodePlan};
use super::secrets::{DevSecrets, Shape};
use super::shape;
use crate::cli::DevArguments;
use crate::first_start;
use crate::identity_files::AuthorityFiles;
use crate::registration::{Registration, Site};
use crate::revocation_file;
use crate::roles::{self, Base, Bound, GatewayRole, MetadataRole};
use anyhow::Context;
use daemon::shutdown::Shutdown;
use gateway::config::{Functions, GatewayConfig, Limits, create_kek, read_kek};
use gateway::drive::account::NewUser;
use gateway::drive::metadata_client::MetadataClient;
use gateway::http::{App, NodeSwitch};
use gateway::serve::Gateway;
use kv::rocks::RocksBudget;
use metadata_raft::config::{Config as MetadataConfig, ReplicaSite, Timing};
use model::id::{DiskId, GroupId, NodeId, RaftId};
use model::limits::{BIRTH_EPOCH_DEV, QUOTA_BYTES_DEV};
use model::name::Username;
use model::process::{ProcessId, Role};
use model::profile::ProfileId;
use model::time::WallTime;
use node::config::{Config as NodeConfig, DiskConfig};
use protocol::metadata::control::ClusterSettings;
use protocol::metadata::user::NewToken;
use rpc::transport::Peer;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

const SEGMENT_BYTES_DEV: u64 = 32 << 20;
const ROCKS_CACHE_BYTES: usize = 64 << 20;
const ROCKS_WRITE_BUFFER_BYTES: usize = 64 << 20;
const UPLOAD_BUDGET_BYTES: u64 = 256 << 20;
const SCRUB_PERIOD: Duration = Duration::from_secs(7 * 24 * 3600);
const LIMBO: Duration = Duration::from_secs(24 * 3600);
const BLOCK_GRACE_DEV: Duration = Duration::from_secs(60);
const DEMO_USER: &str = "demo";
const ADMIN_USER: &str = "admin";
/// The admin token of a dev cluster is drawn anew at each start, so it may live as long as one does.
const ADMIN_TOKEN_LIFE_MS: u64 = 365 * 24 * 3600 * 1000;
/// How long a first start may take until rows and slots are in place. A guess with room for a loaded machine.
const READY_PATIENCE: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A running dev cluster.
pub struct DevCluster {
    facts: DevFacts,
    data_dir: PathBuf,
    base: Base,
    admin: Arc<MetadataClient>,
    metadata: Vec<MetadataRole>,
    nodes: Arc<DevNodes>,
    gateways: Vec<GatewayRole>,
    _directory: DevDirectory,
}

/// What the steps of a start hand on.
struct Start<'a> {
    arguments: &'a DevArguments,
    profile: ProfileId,
    data_dir: PathBuf,
    authority: Arc<AuthorityFiles>,
    secrets: DevSecrets,
    base: Base,
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn site(region: u32) -> Site {
    Site {
        region: format!("r{region}"),
        zone: "z1".to_owned(),
    }
}

impl DevCluster {
    /// Starts everything on the machine's own clock, randomness and threads, and writes `dev.json`.
    pub async fn start(arguments: &DevArguments) -> anyhow::Result<Self> {
        Self::start_on(arguments, base()?).await
    }

    /// As `start`, on a given `base`: a test plants there what must never run in production.
    pub async fn start_on(arguments: &DevArguments, base: Base) -> anyhow::Result<Self> {
        let profile = shape::profile(arguments)?;
        check_listen(arguments)?;
        let directory = DevDirectory::take(&arguments.data_dir)?;
        let known = directory.known(&shape_of(arguments))?;
        DevFacts::remove(&directory.path);
        let disk_bytes = shape::disk_bytes(arguments, &directory.path)?;
        let cluster_dir = directory.cluster();
        let authority = Arc::new(AuthorityFiles::open_or_create(
            &cluster_dir,
            base.clock.wall(),
            &base.random,
        )?);
        revocation_file::follow(
            authority.revocations(),
            base.revocations.clone(),
            Arc::clone(&base.clock),
            base.shutdown.clone(),
        )?;
        if !directory.kek_file().exists() {
            create_kek(&directory.kek_file(), &base.random)?;
        }
        let known_ports = known.as_ref().map(|known| known.metadata_ports.clone());
        let (bound, ports) = bind_metadata(arguments, &authority, &base, known_ports)?;
        // Written last: from then on everything else must be there.
        let secrets = match known {
            Some(known) => known,
            None => DevSecrets::create(&cluster_dir, &shape_of(arguments), &ports, &base.random)?,
        };
        let start = Start {
            arguments,
            profile,
            data_dir: directory.path.clone(),
            authority,
            secrets,
            base,
        };
        let (metadata, seeds) = start.metadata(bound).await?;
        let admin = start.admin_client(&seeds)?;
        let nodes = start.nodes(&admin, &seeds, disk_bytes).await?;
        let gateways = start.gateways(&admin, &seeds, &nodes).await?;
        let first = gateways.first().context("no gateway was asked for")?;
        start.wait_for_rows(&admin).await?;
        let admin_token = start.users(first.gateway().app()).await?;
        let facts = start.facts(&gateways, &nodes, admin_token);
        facts.write(&start.data_dir)?;
        let Start { data_dir, base, .. } = start;
        Ok(Self {
            facts,
            data_dir,
            base,
            admin,
            metadata,
            nodes,
            gateways,
            _directory: directory,
        })
    }

    /// What it wrote about itself.
    pub fn facts(&self) -> &DevFacts {
        &self.facts
    }

    /// Its running gateways, the one of `DevFacts::url` first.
    pub fn gateways(&self) -> impl Iterator<Item = &Gateway> {
        self.gateways.iter().map(GatewayRole::gateway)
    }

    /// Requested when it is to stop.
    pub fn shutdown(&self) -> &Shutdown {
        &self.base.shutdown
    }

    /// Stops gateways, nodes and metadata, in this order. The login stays written down.
    pub async fn stop(self) {
        self.facts.end(&self.data_dir);
        for gateway in self.gateways {
            gateway.stop().await;
        }
        self.nodes.stop_all().await;
        drop(self.admin);
        for replica in self.metadata {
            replica.stop().await;
        }
    }
}

/// What a dev cluster stands on when a user starts it.
pub fn base() -> anyhow::Result<Base> {
    Base::of_machine(RocksBudget::new(ROCKS_CACHE_BYTES, ROCKS_WRITE_BUFFER_BYTES)?)
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

/// Binds the metadata replicas first: each must know where all the others listen. Their ports stay from the first start on.
fn bind_metadata(
    arguments: &DevArguments,
    authority: &AuthorityFiles,
    base: &Base,
    known_ports: Option<Vec<u16>>,
) -> anyhow::Result<(Vec<Bound>, Vec<u16>)> {
    let mut bound = Vec::new();
    for number in 1..=u64::from(arguments.metadata) {
        let process = ProcessId {
            role: Role::Metadata,
            number,
        };
        let identity = authority.identity(process, base.clock.wall(), &base.random)?;
        let at = usize::try_from(number - 1)?;
        let port = known_ports
            .as_ref()
            .and_then(|ports| ports.get(at))
            .copied()
            .unwrap_or(0);
        bound.push(roles::bind(identity, loopback(port), base)?);
    }
    let ports = bound.iter().map(|bound| bound.address.port()).collect();
    Ok((bound, ports))
}

impl Start<'_> {
    async fn metadata(&self, bound: Vec<Bound>) -> anyhow::Result<(Vec<MetadataRole>, Vec<Peer>)> {
        let seeds: Vec<Peer> = bound
            .iter()
            .map(|bound| Peer {
                process: bound.identity.process(),
                address: bound.address,
            })
            .collect();
        let replicas: Vec<(RaftId, SocketAddr)> = seeds
            .iter()
            .map(|peer| (RaftId(peer.process.number), peer.address))
            .collect();
        let mut started = Vec::new();
        // The first replica makes the groups, so it starts last: the others answer its first call.
        for bound in bound.into_iter().rev() {
            let number = bound.identity.process().number;
            let config = MetadataConfig {
                replica: RaftId(number),
                data_dir: self.directory(&format!("metadata-{number}"))?,
                replicas: replicas.clone(),
                sites: (1..=u64::from(self.arguments.metadata))
                    .map(|number| self.replica_site(number))
                    .collect(),
                settings: self.settings()?,
                groups: (1..=self.arguments.groups).map(GroupId).collect(),
                timing: Timing::Lan,
                nodes_expected: usize::try_from(self.arguments.regions * self.arguments.nodes_per_region)?,
                require_encrypted_volume: false,
                segment_bytes: SEGMENT_BYTES_DEV,
                age_every: BIRTH_EPOCH_DEV / 2,
            };
            let identity_dir = self.authority.identity_directory(bound.identity.process());
            let begin = first_start::check(&identity_dir, &config.data_dir)?;
            started.push(MetadataRole::start(bound, &config, &self.base, begin, &identity_dir).await?);
        }
        for replica in &started {
            replica.caught_up().await;
        }
        Ok((started, seeds))
    }

    fn tls(&self) -> Option<(PathBuf, PathBuf)> {
        let arguments = self.arguments;
        arguments.tls_certificate.clone().zip(arguments.tls_key.clone())
    }

    fn replica_site(&self, number: u64) -> ReplicaSite {
        let region = u32::try_from((number - 1) % u64::from(self.arguments.regions)).unwrap_or(0) + 1;
        let Site { region, zone } = site(region);
        ReplicaSite { region, zone }
    }

    fn settings(&self) -> anyhow::Result<ClusterSettings> {
        Ok(ClusterSettings {
            default_profile: self.profile,
            default_quota_bytes: QUOTA_BYTES_DEV,
            birth_epoch_ms: u64::try_from(BIRTH_EPOCH_DEV.as_millis())?,
            block_grace_ms: u64::try_from(BLOCK_GRACE_DEV.as_millis())?,
        })
    }

    fn directory(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.data_dir.join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(path)
    }

    fn admin_client(&self, seeds: &[Peer]) -> anyhow::Result<Arc<MetadataClient>> {
        let process = ProcessId {
            role: Role::Admin,
            number: 1,
        };
        let identity = self
            .authority
            .identity(process, self.base.clock.wall(), &self.base.random)?;
        Ok(roles::bind(identity, loopback(0), &self.base)?.metadata_client(&self.base, seeds.to_vec()))
    }

    async fn nodes(
        &self,
        admin: &Arc<MetadataClient>,
        seeds: &[Peer],
        disk_bytes: u64,
    ) -> anyhow::Result<Arc<DevNodes>> {
        let mut plans = BTreeMap::new();
        let count = self.arguments.regions * self.arguments.nodes_per_region;
        for number in 1..=count {
            let site = site((number - 1) / self.arguments.nodes_per_region + 1);
            let config = NodeConfig {
                node: NodeId(number),
                data_dir: self.directory(&format!("node-{number}"))?.join("register"),
                disks: self.disks(number, disk_bytes)?,
                segment_bytes: SEGMENT_BYTES_DEV,
                scrub_period: SCRUB_PERIOD,
                limbo: LIMBO,
            };
            plans.insert(number, NodePlan { site, config });
        }
        let numbers: Vec<u32> = plans.keys().copied().collect();
        let nodes = Arc::new(DevNodes {
            base: self.base.clone(),
            authority: Arc::clone(&self.authority),
            metadata: Arc::clone(admin),
            seeds: seeds.to_vec(),
            plans,
            running: Mutex::new(BTreeMap::new()),
        });
        for number in numbers {
            nodes
                .start_node(number)
                .await
                .with_context(|| format!("start node {number}"))?;
        }
        Ok(nodes)
    }

    fn disks(&self, node: u32, disk_bytes: u64) -> anyhow::Result<Vec<DiskConfig>> {
        let first = (node - 1) * self.arguments.disks_per_node + 1;
        (first..first + self.arguments.disks_per_node)
            .map(|disk| {
                Ok(DiskConfig {
                    disk: DiskId(disk),
                    path: self.directory(&format!("node-{node}/disk-{disk}"))?,
                    capacity_bytes: Some(disk_bytes),
                })
            })
            .collect()
    }

    async fn gateways(
        &self,
        admin: &MetadataClient,
        seeds: &[Peer],
        nodes: &Arc<DevNodes>,
    ) -> anyhow::Result<Vec<GatewayRole>> {
        let kek_file = self.data_dir.join("cluster").join("kek");
        let mut gateways = Vec::new();
        for number in 1..=u64::from(self.arguments.gateways) {
            let id = ProcessId {
                role: Role::Gateway,
                number,
            };
            let identity = self.authority.identity(id, self.base.clock.wall(), &self.base.random)?;
            let bound = roles::bind(identity, loopback(0), &self.base)?;
            let registration = Registration::Gateway {
                id,
                address: bound.address,
                site: site(1),
                kek: read_kek(&kek_file)?.0.id().to_string(),
            };
            registration.say(admin).await.context("register the gateway")?;
            self.directory(&format!("gateway-{number}"))?;
            let listen = if number == 1 {
                self.arguments.listen
            } else {
                SocketAddr::new(self.arguments.listen.ip(), 0)
            };
            let config = GatewayConfig {
                listen,
                kek_file: kek_file.clone(),
                tls: self.tls(),
                functions: Functions {
                    api: true,
                    block: true,
                    notify: true,
                },
                upload_budget_bytes: UPLOAD_BUDGET_BYTES,
                limits: Limits::default(),
            };
            let switch = Arc::clone(nodes) as Arc<dyn NodeSwitch>;
            gateways.push(GatewayRole::start(bound, config, &self.base, seeds.to_vec(), Some(switch)).await?);
        }
        Ok(gateways)
    }

    /// Rows and slots are put in place by the groups' leaders; a cluster is ready once they are.
    async fn wait_for_rows(&self, admin: &MetadataClient) -> anyhow::Result<()> {
        use protocol::metadata::query::ControlQuery;
        use protocol::metadata::{Query, QueryAnswer};
        let wait = async {
            loop {
                let answer = admin
                    .query(&Query::Control(ControlQuery::Layout(Some(self.profile))), 0)
                    .await;
                if matches!(&answer, Ok((QueryAnswer::Layout(layout), _)) if layout.tables.contains_key(&self.profile))
                {
                    return;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        tokio::time::timeout(READY_PATIENCE, wait)
            .await
            .context("the groups' leaders planned no rows in time")
    }

    /// Makes the demo user and the admin at the first start; answers a fresh admin token.
    async fn users(&self, app: &Arc<App>) -> anyhow::Result<String> {
        self.user(app, DEMO_USER, &self.secrets.demo_password, false).await?;
        self.user(app, ADMIN_USER, &self.secrets.admin_password, true).await?;
        // A dev cluster has its administrator; the setup token is for production.
        let admin = Username::new(ADMIN_USER).map_err(|error| anyhow::anyhow!(error.advice()))?;
        app.core.claim_setup(&admin, 0).await?;
        let facts = app
            .core
            .login_facts(admin, 0)
            .await?
            .context("the admin was just made")?;
        let user = facts.user.user;
        let token = || {
            let (text, hash) = gateway::auth::token::draw(user, &self.base.random);
            let expires_at = WallTime(self.base.clock.wall().0 + ADMIN_TOKEN_LIFE_MS);
            (text, NewToken { hash, expires_at })
        };
        let ((text, access), (_, refresh)) = (token(), token());
        app.core.issue_tokens(user, access, refresh, 0).await?;
        Ok(text.to_string())
    }

    async fn user(&self, app: &Arc<App>, name: &str, password: &str, is_admin: bool) -> anyhow::Result<()> {
        let name = Username::new(name).map_err(|error| anyhow::anyhow!(error.advice()))?;
        if app.core.login_facts(name.clone(), 0).await?.is_some() {
            return Ok(());
        }
        let password_hash = app.passwords.hash(password.to_owned().into()).await?;
        app.core
            .create_user(
                NewUser {
                    name,
                    password_hash,
                    quota_bytes: None,
                    is_admin,
                },
                None,
                0,
            )
            .await?;
        Ok(())
    }

    fn facts(&self, gateways: &[GatewayRole], nodes: &DevNodes, admin_token: String) -> DevFacts {
        let pid = std::process::id();
        let facts = |role: &str, id: u64, site: Site, dir: &Path| ProcessFacts {
            role: role.to_owned(),
            id,
            region: site.region,
            zone: site.zone,
            raft_id: (role == "metadata").then_some(id),
            pid,
            data_dir: dir.to_owned(),
            log: None,
            status: self.base.watching.own_port(&format!("{role}-{id}")),
        };
        let mut processes = Vec::new();
        for number in 1..=u64::from(self.arguments.metadata) {
            let ReplicaSite { region, zone } = self.replica_site(number);
            processes.push(facts(
                "metadata",
                number,
                Site { region, zone },
                &self.data_dir.join(format!("metadata-{number}")),
            ));
        }
        for (number, plan) in &nodes.plans {
            processes.push(facts(
                "node",
                u64::from(*number),
                plan.site.clone(),
                &self.data_dir.join(format!("node-{number}")),
            ));
        }
        for number in (1_u64..).take(gateways.len()) {
            processes.push(facts(
                "gateway",
                number,
                site(1),
                &self.data_dir.join(format!("gateway-{number}")),
            ));
        }
        DevFacts {
            url: format!(
                "{}://{}",
                if self.tls().is_some() { "https" } else { "http" },
                gateways
                    .first()
                    .map_or(self.arguments.listen, |role| role.gateway().address())
            ),
            user: DEMO_USER.to_owned(),
            password: self.secrets.demo_password.clone(),
            admin_token,
            profile: self.profile.to_string(),
            processes,
        }
    }
}
