//! `holdfast serve`: the roles that a configuration file names, until a signal.
//!
//! Steps: 1. the file; 2. identities, all of them before anything is opened; 3. the list of revoked certificates; 4. the status port;
//! 5. metadata, node, gateway, in this order, since each may need the one before it; 6. nodes and gateways register in the
//! background, as often as it takes. Stopping goes backwards.
//! Invariants: a process that must not run ends with a line that says why and what to do, and changes no data before it; the same
//! for what it learns of the cluster later: that it is another one, that a disk or the KEK is not its own. One whose metadata cannot be
//! written any more ends so that it is started again (`start_again`).
//! Not here: what registering says (`registration`), how a role starts (`roles`).

use crate::cli::ServeArguments;
use crate::config::{EndpointConfig, RawFile, ServeConfig};
use crate::first_start::{self, Begin};
use crate::identity_files::load_identity;
use crate::moved_clock::MovedClock;
use crate::registration::{self, Registration, Site};
use crate::revocation_file;
use crate::roles::{self, Base, Bound, GatewayRole, MetadataRole, NodeRole};
use crate::start_again::StartAgain;
use crate::watching::Watching;
use anyhow::{Context, bail, ensure};
use daemon::log::{self, LogFormat};
use daemon::status_port::{Page, Roles, StatusPort};
use gateway::config::{GatewayConfig, read_kek};
use gateway::drive::metadata_client::MetadataClient;
use kv::rocks::RocksBudget;
use metadata_raft::config::Config as MetadataConfig;
use model::process::Role;
use node::config::Config as NodeConfig;
use rpc::identity::Identity;
use rpc::transport::{Peer, Transport};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Checks the file and runs its roles.
pub async fn run(arguments: ServeArguments) -> anyhow::Result<()> {
    let config = match daemon::config::load::<RawFile>(&arguments.config) {
        Ok(config) => config,
        Err(error) => {
            // Who asks for lines of a machine reads this one too; the file, which could ask for them, cannot be read.
            if let Some(format) = arguments.log {
                log::init(format, "info").context("start logging")?;
            }
            return Err(error.into());
        }
    };
    if arguments.check_config {
        println!("{}: good", arguments.config.display());
        return Ok(());
    }
    let of_file = match config.logs_json {
        true => LogFormat::Json,
        false => LogFormat::Human,
    };
    log::init(arguments.log.unwrap_or(of_file), &config.log_filter).context("start logging")?;
    if let Some(parent) = arguments.with_parent {
        end_with(parent)?;
    }
    let roles = Roles::default();
    let mut base = Base {
        watching: Watching::Together(roles.clone()),
        has_jumbo_frames: config.has_jumbo_frames,
        ..Base::of_machine(RocksBudget::new(config.cache_bytes, config.write_buffer_bytes)?)?
    };
    if let Some(file) = arguments.clock_offset_file {
        base.clock = Arc::new(MovedClock::new(file));
    }
    let signals = base.shutdown.clone();
    tokio::spawn(async move {
        if let Err(error) = signals.request_on_signals().await {
            tracing::error!(%error, "signals are not heard; the process stops");
            signals.request();
        }
    });
    let status_listen = config.status_listen;
    let identified = Identified::read(config, &base)?;
    let _status = open_status(status_listen, &identified, roles, &base)?;
    let (ended, mut endings) = mpsc::channel(1);
    let server = tokio::select! {
        started = Server::start(identified, &base, ended.clone()) => started?,
        // A role that has started may end the process while another one still waits for the cluster, which may wait for this process.
        Some(error) = endings.recv() => return Err(error),
        () = base.shutdown.requested() => return Ok(()),
    };
    tracing::info!("serving");
    let ending = tokio::select! {
        () = base.shutdown.requested() => None,
        ending = endings.recv() => ending,
    };
    drop(ended);
    server.stop().await;
    match ending {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Has the kernel kill this process when the one that started it ends in whatever way: what was acknowledged is on disk by then,
/// and a parent that could still hand leadership over asks before it goes.
fn end_with(parent: u32) -> anyhow::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .context("ask to end with the parent")?;
    // It may have ended before the kernel was asked; then somebody else is the parent by now.
    let now = rustix::process::getppid().map(rustix::process::Pid::as_raw_nonzero);
    ensure!(
        now.is_some_and(|now| u32::try_from(now.get()) == Ok(parent)),
        "the process {parent} did not start this one, or has ended; leave --with-parent out"
    );
    Ok(())
}

/// Opens the status port, when the file has one, with every role on it as starting.
fn open_status(
    listen: Option<SocketAddr>,
    found: &Identified,
    roles: Roles,
    base: &Base,
) -> anyhow::Result<Option<StatusPort>> {
    for identity in found.identities() {
        roles.announce(&identity.process().to_string());
    }
    let open = |listen| {
        let (metrics, stopping) = (base.metrics.clone(), base.shutdown.clone());
        StatusPort::open(listen, roles, metrics, Page::Process, stopping)
    };
    let port = listen.map(open).transpose()?;
    if let Some(port) = &port {
        tracing::info!(address = %port.address(), "status port listens");
    }
    Ok(port)
}

/// A section with its endpoint and the identity that was found for it.
struct Part<T> {
    identity: Identity,
    endpoint: EndpointConfig,
    section: T,
}

/// The configuration with everybody's identity checked.
struct Identified {
    seeds: Vec<Peer>,
    site: Site,
    metadata: Option<(Part<MetadataConfig>, Begin)>,
    node: Option<Part<NodeConfig>>,
    gateway: Option<Part<GatewayConfig>>,
}

impl Identified {
    /// Reads and checks the identities, and what each role must have before anything is opened.
    fn read(config: ServeConfig, base: &Base) -> anyhow::Result<Self> {
        let now = base.clock.wall();
        let load = |endpoint: &EndpointConfig| load_identity(&endpoint.identity_dir, now);
        let metadata = config.metadata.map(|(endpoint, section)| {
            let identity = named(load(&endpoint)?, &endpoint, Role::Metadata, Some(section.replica.0))?;
            let begin = first_start::check(&endpoint.identity_dir, &section.data_dir)?;
            let part = Part {
                identity,
                endpoint,
                section,
            };
            anyhow::Ok((part, begin))
        });
        let node = config.node.map(|(endpoint, section)| {
            let number = Some(u64::from(section.node.0));
            let identity = named(load(&endpoint)?, &endpoint, Role::Node, number)?;
            anyhow::Ok(Part {
                identity,
                endpoint,
                section,
            })
        });
        let gateway = config.gateway.map(|(endpoint, section)| {
            let identity = named(load(&endpoint)?, &endpoint, Role::Gateway, None)?;
            anyhow::Ok(Part {
                identity,
                endpoint,
                section,
            })
        });
        if let Some(path) = config.revoked_file {
            revocation_file::follow(
                path,
                base.revocations.clone(),
                base.clock.clone(),
                base.shutdown.clone(),
            )?;
        }
        let found = Self {
            seeds: config.seeds,
            site: config.site,
            metadata: metadata.transpose()?,
            node: node.transpose()?,
            gateway: gateway.transpose()?,
        };
        found.check_one_cluster()?;
        Ok(found)
    }

    fn identities(&self) -> impl Iterator<Item = &Identity> {
        let metadata = self.metadata.as_ref().map(|(part, _)| &part.identity);
        let node = self.node.as_ref().map(|part| &part.identity);
        let gateway = self.gateway.as_ref().map(|part| &part.identity);
        metadata.into_iter().chain(node).chain(gateway)
    }

    fn check_one_cluster(&self) -> anyhow::Result<()> {
        let mut all = self.identities();
        let first = all.next();
        for other in all {
            ensure!(
                first.is_none_or(|first| first.cluster() == other.cluster()),
                "the roles of this file have identities of two clusters; correct identity_dir of {}",
                other.process()
            );
        }
        Ok(())
    }
}

/// Checks that the identity is the section's.
fn named(identity: Identity, endpoint: &EndpointConfig, role: Role, number: Option<u64>) -> anyhow::Result<Identity> {
    let found = identity.process();
    let wanted = match number {
        Some(number) => format!("{}-{number}", role.as_str()),
        None => format!("a {}", role.as_str()),
    };
    ensure!(
        found.role == role && number.is_none_or(|number| found.number == number),
        "{} holds the identity of {found}, but the section is of {wanted}; correct identity_dir or the section's id",
        endpoint.identity_dir.display()
    );
    Ok(identity)
}

/// The running roles.
struct Server {
    metadata: Option<MetadataRole>,
    node: Option<NodeRole>,
    gateway: Option<GatewayRole>,
}

/// Says why the process must end.
type Ended = mpsc::Sender<anyhow::Error>;

impl Server {
    async fn start(found: Identified, base: &Base, ended: Ended) -> anyhow::Result<Self> {
        let Identified {
            seeds,
            site,
            metadata,
            node,
            gateway,
        } = found;
        let metadata = match metadata {
            Some((part, begin)) => Some(start_metadata(part, begin, base, ended.clone()).await?),
            None => None,
        };
        let node = match node {
            Some(part) => Some(start_node(part, &seeds, &site, base, ended.clone()).await?),
            None => None,
        };
        let gateway = match gateway {
            Some(part) => Some(start_gateway(part, &seeds, &site, base, ended).await?),
            None => None,
        };
        Ok(Self {
            metadata,
            node,
            gateway,
        })
    }

    async fn stop(self) {
        if let Some(gateway) = self.gateway {
            gateway.stop().await;
        }
        if let Some(node) = self.node {
            node.stop().await;
        }
        if let Some(metadata) = self.metadata {
            metadata.stop().await;
        }
    }
}

async fn start_metadata(
    part: Part<MetadataConfig>,
    begin: Begin,
    base: &Base,
    ended: Ended,
) -> anyhow::Result<MetadataRole> {
    let bound = roles::bind(part.identity, part.endpoint.listen, base)?;
    let role = MetadataRole::start(bound, &part.section, base, begin, &part.endpoint.identity_dir).await?;
    let (failed, shutdown) = (role.failed(Arc::clone(&base.clock)), base.shutdown.clone());
    tokio::spawn(async move {
        tokio::select! {
            // Another role may have ended the process already; then nobody hears this.
            reason = failed => drop(ended.send(StartAgain(reason).into()).await),
            () = shutdown.requested() => {}
        }
    });
    Ok(role)
}

/// Where the others reach a role: as the file says, or where it listens.
fn reached_at(endpoint: &EndpointConfig, bound: &Bound) -> SocketAddr {
    endpoint.advertise.unwrap_or(bound.address)
}

async fn start_node(
    part: Part<NodeConfig>,
    seeds: &[Peer],
    site: &Site,
    base: &Base,
    ended: Ended,
) -> anyhow::Result<NodeRole> {
    let config = part.section;
    let bound = roles::bind(part.identity, part.endpoint.listen, base)?;
    let client = bound.metadata_client(base, seeds.to_vec());
    let (address, transport) = (reached_at(&part.endpoint, &bound), bound.dialer());
    if registration::is_new_node(&config.disks) {
        // It can do nothing before the cluster has taken it in, so it waits as long as that takes.
        registration::wait_for_control(&client, transport.as_ref(), seeds, base.clock.as_ref()).await?;
    }
    let refused = registration::refused_disks(&client, &config.disks).await;
    let role = NodeRole::start(bound, &config, base, seeds.to_vec(), refused).await?;
    let (working, missing) = role.disks();
    if working.is_empty() {
        let reasons: Vec<String> = missing.into_iter().map(|(_, reason)| reason).collect();
        role.stop().await;
        bail!("no disk of the node works: {}", reasons.join("; "));
    }
    let registration = Registration::Node {
        node: config.node,
        address,
        site: site.clone(),
        disks: registration::running_disks(&working, &config.disks)?,
    };
    register_behind(registration, client, transport, seeds, base, ended);
    Ok(role)
}

async fn start_gateway(
    part: Part<GatewayConfig>,
    seeds: &[Peer],
    site: &Site,
    base: &Base,
    ended: Ended,
) -> anyhow::Result<GatewayRole> {
    let bound = roles::bind(part.identity, part.endpoint.listen, base)?;
    let client = bound.metadata_client(base, seeds.to_vec());
    let (address, transport, id) = (
        reached_at(&part.endpoint, &bound),
        bound.dialer(),
        bound.identity.process(),
    );
    let kek = read_kek(&part.section.kek_file)?.0.id().to_string();
    let role = GatewayRole::start(bound, part.section, base, seeds.to_vec(), None).await?;
    let registration = Registration::Gateway {
        id,
        address,
        site: site.clone(),
        kek,
    };
    register_behind(registration, client, transport, seeds, base, ended);
    Ok(role)
}

/// Registers while the role runs already: what it holds can be read while the control group is away.
fn register_behind(
    registration: Registration,
    client: Arc<MetadataClient>,
    transport: Arc<dyn Transport>,
    seeds: &[Peer],
    base: &Base,
    ended: Ended,
) {
    let (seeds, clock, shutdown) = (seeds.to_vec(), Arc::clone(&base.clock), base.shutdown.clone());
    tokio::spawn(async move {
        let registering = registration.until_taken(&client, transport.as_ref(), &seeds, clock.as_ref());
        let outcome = tokio::select! {
            outcome = registering => outcome,
            () = shutdown.requested() => return,
        };
        match outcome {
            Ok(()) => tracing::info!("registered"),
            Err(error) => {
                // Another role may have ended the process already; then nobody hears this.
                let _ = ended.send(error.context("register")).await;
            }
        }
    });
}
