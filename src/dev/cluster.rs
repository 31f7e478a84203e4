//! Start and stop of a dev cluster in one process: the table of contents of `holdfast dev`.
//!
//! Invariant: what is started is stopped in reverse order; a failed start leaves the data directory fit for the next try.
//! Not here: what either form begins with (`ground`), what each role is told (`plan`), roles as processes of their own
//! (`process_cluster`).

use super::accounts;
use super::directory::DevDirectory;
use super::facts::{DevFacts, ProcessFacts};
use super::ground::Ground;
use super::node_switch::{DevNodes, NodePlan};
use super::plan::{Plan, loopback};
use super::secrets::DevSecrets;
use crate::cli::DevArguments;
use crate::first_start;
use crate::identity_files::AuthorityFiles;
use crate::registration::Registration;
use crate::revocation_file;
use crate::roles::{self, Base, Bound, GatewayRole, MetadataRole};
use anyhow::Context;
use daemon::shutdown::Shutdown;
use futures_util::future::join_all;
use gateway::config::read_kek;
use gateway::drive::metadata_client::MetadataClient;
use gateway::http::NodeSwitch;
use gateway::serve::Gateway;
use kv::rocks::RocksBudget;
use model::id::RaftId;
use model::process::{ProcessId, Role};
use rpc::transport::Peer;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::Mutex;

const ROCKS_CACHE_BYTES: usize = 64 << 20;
const ROCKS_WRITE_BUFFER_BYTES: usize = 64 << 20;

/// A running dev cluster.
pub struct DevCluster {
    facts: DevFacts,
    data_dir: PathBuf,
    base: Base,
    admin: Arc<MetadataClient>,
    metadata: Vec<MetadataRole>,
    nodes: Arc<DevNodes>,
    gateways: Vec<GatewayRole>,
    front: usize,
    _directory: DevDirectory,
}

/// What the steps of a start hand on.
struct Start {
    plan: Plan,
    authority: Arc<AuthorityFiles>,
    secrets: DevSecrets,
    base: Base,
}

impl DevCluster {
    /// Starts everything on the machine's own clock, randomness and threads, and writes `dev.json`.
    pub async fn start(arguments: &DevArguments) -> anyhow::Result<Self> {
        Self::start_on(arguments, base()?).await
    }

    /// As `start`, on a given `base`: a test plants there what must never run in production.
    pub async fn start_on(arguments: &DevArguments, base: Base) -> anyhow::Result<Self> {
        let ground = Ground::take(arguments, base.clock.as_ref(), &base.random)?;
        revocation_file::follow(
            ground.authority.revocations(),
            base.revocations.clone(),
            Arc::clone(&base.clock),
            base.shutdown.clone(),
        )?;
        let (bound, ports) = bind_metadata(&ground, &base)?;
        // Written last: from then on everything else must be there.
        let secrets = ground.secrets(&ports, &base.random)?;
        let Ground {
            plan,
            directory,
            authority,
            ..
        } = ground;
        let start = Start {
            plan,
            authority,
            secrets,
            base,
        };
        let (metadata, seeds) = start.metadata(bound).await?;
        let admin = start.admin_client(&seeds)?;
        let nodes = start.nodes(&admin, &seeds).await?;
        let gateways = start.gateways(&admin, &seeds, &nodes, directory.kek_file()).await?;
        let front = start.plan.front();
        let app = gateways.get(front).context("no gateway was asked for")?.gateway().app();
        accounts::wait_for_rows(&admin, start.plan.profile).await?;
        let (clock, random) = (start.base.clock.as_ref(), &start.base.random);
        let admin_token = accounts::make(&app.core, &app.passwords, &start.secrets, clock, random).await?;
        let facts = start.facts(&gateways, admin_token);
        let Start { plan, base, .. } = start;
        facts.write(&plan.data_dir)?;
        Ok(Self {
            facts,
            data_dir: plan.data_dir,
            base,
            admin,
            metadata,
            nodes,
            gateways,
            front,
            _directory: directory,
        })
    }

    /// What it wrote about itself.
    pub fn facts(&self) -> &DevFacts {
        &self.facts
    }

    /// Its running gateways, the one of `DevFacts::url` first.
    pub fn gateways(&self) -> impl Iterator<Item = &Gateway> {
        let (before, rest) = self.gateways.split_at(self.front);
        rest.iter().chain(before).map(GatewayRole::gateway)
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
        join_all(self.metadata.into_iter().map(MetadataRole::end)).await;
    }
}

/// What a dev cluster stands on when a user starts it.
pub fn base() -> anyhow::Result<Base> {
    Base::of_machine(RocksBudget::new(ROCKS_CACHE_BYTES, ROCKS_WRITE_BUFFER_BYTES)?)
}

/// Binds the metadata replicas first: each must know where all the others listen. Their ports stay from the first start on.
fn bind_metadata(ground: &Ground, base: &Base) -> anyhow::Result<(Vec<Bound>, Vec<u16>)> {
    let mut bound = Vec::new();
    for (at, process) in ground.plan.replicas().enumerate() {
        let identity = ground.authority.identity(process, base.clock.wall(), &base.random)?;
        let known = ground.metadata_ports().and_then(|ports| ports.get(at));
        bound.push(roles::bind(identity, loopback(known.copied().unwrap_or(0)), base)?);
    }
    let ports = bound.iter().map(|bound| bound.address.port()).collect();
    Ok((bound, ports))
}

/// A client of the metadata groups as an operator's one-off command.
pub(crate) fn admin_client(
    authority: &AuthorityFiles,
    base: &Base,
    seeds: &[Peer],
) -> anyhow::Result<(Bound, Arc<MetadataClient>)> {
    let process = ProcessId {
        role: Role::Admin,
        number: 1,
    };
    let identity = authority.identity(process, base.clock.wall(), &base.random)?;
    let bound = roles::bind(identity, loopback(0), base)?;
    let client = bound.metadata_client(base, seeds.to_vec());
    Ok((bound, client))
}

impl Start {
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
            let process = bound.identity.process();
            let config = self.plan.metadata_config(process, &replicas)?;
            let identity_dir = self.authority.identity_directory(process);
            let begin = first_start::check(&identity_dir, &config.data_dir)?;
            started.push(MetadataRole::start(bound, &config, &self.base, begin, &identity_dir).await?);
        }
        for replica in &started {
            replica.caught_up().await;
        }
        Ok((started, seeds))
    }

    fn admin_client(&self, seeds: &[Peer]) -> anyhow::Result<Arc<MetadataClient>> {
        Ok(admin_client(&self.authority, &self.base, seeds)?.1)
    }

    async fn nodes(&self, admin: &Arc<MetadataClient>, seeds: &[Peer]) -> anyhow::Result<Arc<DevNodes>> {
        let mut plans = BTreeMap::new();
        for process in self.plan.nodes() {
            let plan = NodePlan {
                site: self.plan.site(process),
                config: self.plan.node_config(process)?,
            };
            plans.insert(u32::try_from(process.number)?, plan);
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

    async fn gateways(
        &self,
        admin: &MetadataClient,
        seeds: &[Peer],
        nodes: &Arc<DevNodes>,
        kek_file: PathBuf,
    ) -> anyhow::Result<Vec<GatewayRole>> {
        let mut gateways = Vec::new();
        for process in self.plan.gateways() {
            let identity = self
                .authority
                .identity(process, self.base.clock.wall(), &self.base.random)?;
            let bound = roles::bind(identity, loopback(0), &self.base)?;
            let registration = Registration::Gateway {
                id: process,
                address: bound.address,
                site: self.plan.site(process),
                kek: read_kek(&kek_file)?.0.id().to_string(),
            };
            registration.say(admin).await.context("register the gateway")?;
            let config = self.plan.gateway_config(process, kek_file.clone())?;
            let switch = Arc::clone(nodes) as Arc<dyn NodeSwitch>;
            gateways.push(GatewayRole::start(bound, config, &self.base, seeds.to_vec(), Some(switch)).await?);
        }
        Ok(gateways)
    }

    fn facts(&self, gateways: &[GatewayRole], admin_token: String) -> DevFacts {
        let address = |at: usize| gateways.get(at).map(|role| role.gateway().address());
        let pid = std::process::id();
        let processes = self.plan.processes().map(|process| {
            let own = (process.role == Role::Gateway).then(|| usize::try_from(process.number - 1).unwrap_or(0));
            ProcessFacts {
                pid: Some(pid),
                status: self.base.watching.own_port(&process.to_string()),
                url: own.and_then(address).map(|address| self.plan.url(address)),
                ..ProcessFacts::planned(&self.plan, process)
            }
        });
        let front = address(self.plan.front()).unwrap_or(self.plan.arguments.listen);
        DevFacts::of(&self.plan, &self.secrets, front, admin_token, processes.collect())
    }
}
