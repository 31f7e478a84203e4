//! `holdfast dev --processes`: every role a `holdfast serve` of its own, from generated configuration files.
//!
//! Steps: 1. ground; 2. addresses; 3. identities and configuration files; 4. all children at once, since each waits for those that it
//! needs; 5. accounts, over the transport like any operator's command; 6. `dev.json` and the table. Then it watches: an end is logged
//! and written down, and nobody is started again unless `holdfast admin` asks, or the process ended saying that it is to be
//! (`start_again`); that one is tried again until it stays. Stopping: gateways, nodes, replicas.
//! Invariant: no child outlives this process.
//! Not here: running children (`children`), what they are told (`plan`, `config_file`).

use super::addresses::{self, Address};
use super::children::{ChildPlan, Children};
use super::cluster::admin_client;
use super::config_file::{self, Section, Wiring};
use super::control::{Asked, Control, Request};
use super::facts::{DevFacts, ProcessFacts};
use super::ground::Ground;
use super::plan::Plan;
use super::secrets::DevSecrets;
use super::{accounts, print_table};
use crate::cli::DevArguments;
use crate::one_line::one_line;
use crate::roles::Base;
use crate::start_again;
use anyhow::{Context, bail};
use client_sdk::client::Client;
use gateway::auth::password::{COST, Passwords};
use gateway::serve::Place;
use kv::rocks::RocksBudget;
use model::id::RaftId;
use model::process::{ProcessId, Role};
use rpc::transport::Peer;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::time::Instant;

/// Where the generated files lie in the data directory, and where the logs.
const CONFIG_DIR: &str = "config";
const LOG_DIR: &str = "log";
/// The parent opens no RocksDB.
const NO_ROCKS_BYTES: usize = 1 << 20;
/// How long a start may take until every process is ready. A guess with room for a loaded machine.
const READY_PATIENCE: Duration = Duration::from_secs(90);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Pause before a process that asked for it is started again; as systemd's (deploy/systemd).
const START_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Runs the cluster until it is asked to stop.
pub(crate) async fn run(arguments: &DevArguments) -> anyhow::Result<()> {
    let base = Base::of_machine(RocksBudget::new(NO_ROCKS_BYTES, NO_ROCKS_BYTES)?)?;
    let ground = Ground::take(arguments, base.clock.as_ref(), &base.random)?;
    let addresses = addresses::draw(&ground).await?;
    let ports: Vec<u16> = of_role(&addresses, Role::Metadata)
        .map(|(_, address)| address.cluster.port())
        .collect();
    let written = write_files(&ground, &addresses, &base)?;
    // Written last: from then on everything else must be there.
    let secrets = ground.secrets(&ports, &base.random)?;
    let mut children = Children::new(written.iter().cloned())?;
    children.start_all()?;
    let admin_token = tokio::select! {
        token = settle(&ground, &addresses, &secrets, &base) => token?,
        (name, status) = children.next_end() => {
            bail!("{name} ended at its start ({status}):\n{}", children.last_words(&name))
        }
    };
    let facts = facts(&ground.plan, &addresses, &written, &secrets, admin_token)?;
    let mut cluster = ProcessCluster {
        data_dir: ground.plan.data_dir.clone(),
        facts,
        children,
    };
    cluster.tell()?;
    let control = Control::open(&cluster.data_dir)?;
    print_table(&cluster.facts, arguments);
    cluster.watch(control, &base).await?;
    println!("stopping");
    cluster.facts.clone().end(&cluster.data_dir);
    cluster.children.stop_all().await;
    println!("stopped; start again with the same --data-dir to go on");
    Ok(())
}

struct ProcessCluster {
    data_dir: PathBuf,
    facts: DevFacts,
    children: Children,
}

impl ProcessCluster {
    /// Notes ends and carries out requests until a signal.
    async fn watch(&mut self, mut control: Control, base: &Base) -> anyhow::Result<()> {
        let mut signals = pin!(base.shutdown.request_on_signals());
        let mut again = Again::default();
        loop {
            tokio::select! {
                signalled = &mut signals => return signalled.context("listen to signals"),
                (name, status) = self.children.next_end() => {
                    tracing::warn!(process = %name, %status, "ended");
                    again.ended(&name, status);
                    // Its disk may be the one that is full: that must not end the others.
                    if let Err(error) = self.tell() {
                        tracing::warn!(error = %one_line(&error), "dev.json cannot be written");
                    }
                }
                name = again.next_due() => {
                    if let Err(error) = self.start_again(&name) {
                        tracing::warn!(process = %name, error = %one_line(&error), "not started again yet");
                        again.later(&name);
                    }
                }
                Asked { request, answer } = control.next() => {
                    again.forget(&request);
                    let done = self.carry_out(&request).map_err(|error| one_line(&error));
                    // Whoever asked may have gone.
                    let _ = answer.send(done);
                }
            }
        }
    }

    fn carry_out(&mut self, request: &Request) -> anyhow::Result<()> {
        match request {
            Request::Start(name) => {
                let pid = self.children.start(name)?;
                tracing::info!(process = %name, pid, "started on request");
                self.tell()
            }
            Request::Stop(name) => {
                self.children.terminate(name)?;
                tracing::info!(process = %name, "asked to stop on request");
                Ok(())
            }
        }
    }

    fn start_again(&mut self, name: &str) -> anyhow::Result<()> {
        let pid = self.children.start(name)?;
        tracing::info!(process = %name, pid, "started again");
        self.tell()
    }

    /// Writes `dev.json` as things stand.
    fn tell(&mut self) -> anyhow::Result<()> {
        for process in &mut self.facts.processes {
            process.pid = self.children.pid(&process.name());
        }
        self.facts.write(&self.data_dir)
    }
}

/// Children that are started again by themselves.
#[derive(Default)]
struct Again {
    /// Those that ended so and wait for their turn.
    due: BTreeMap<String, Instant>,
    /// Those that were started so at least once.
    started: BTreeSet<String>,
}

impl Again {
    /// A child ended: by a signal for good, since whoever killed it wants it dead; asking to be started again, or failing at such a
    /// start, as while its disk is still full, for a while.
    fn ended(&mut self, name: &str, status: ExitStatus) {
        let is_asked = status.code() == Some(i32::from(start_again::EXIT_CODE));
        let has_failed_again = self.started.contains(name) && status.code().is_some_and(|code| code != 0);
        if is_asked || has_failed_again {
            self.later(name);
        }
    }

    /// A child is to be started when the pause is over. One that runs by then is left as it is.
    fn later(&mut self, name: &str) {
        self.due.insert(name.to_owned(), Instant::now() + START_AGAIN_AFTER);
    }

    /// From now on somebody else decides about a child.
    fn forget(&mut self, request: &Request) {
        let (Request::Start(name) | Request::Stop(name)) = request;
        self.due.remove(name);
        self.started.remove(name);
    }

    /// The next one whose time has come; never while none waits. May be dropped midway.
    async fn next_due(&mut self) -> String {
        let first = self.due.iter().min_by_key(|(_, at)| **at);
        let Some((name, at)) = first.map(|(name, at)| (name.clone(), *at)) else {
            return std::future::pending().await;
        };
        tokio::time::sleep_until(at).await;
        self.due.remove(&name);
        self.started.insert(name.clone());
        name
    }
}

fn of_role(
    addresses: &BTreeMap<ProcessId, Address>,
    role: Role,
) -> impl Iterator<Item = (ProcessId, Address)> + use<'_> {
    let all = addresses.iter().map(|(process, address)| (*process, *address));
    all.filter(move |(process, _)| process.role == role)
}

/// Issues identities and writes a configuration file for each process.
fn write_files(
    ground: &Ground,
    addresses: &BTreeMap<ProcessId, Address>,
    base: &Base,
) -> anyhow::Result<Vec<ChildPlan>> {
    let (plan, authority) = (&ground.plan, &ground.authority);
    let make = |name: &str| -> anyhow::Result<PathBuf> {
        let path = plan.data_dir.join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(path)
    };
    let (config_dir, log_dir) = (make(CONFIG_DIR)?, make(LOG_DIR)?);
    let replicas: Vec<(RaftId, SocketAddr)> = of_role(addresses, Role::Metadata)
        .map(|(process, address)| (RaftId(process.number), address.cluster))
        .collect();
    let mut written = Vec::new();
    for (process, address) in addresses {
        authority.identity(*process, base.clock.wall(), &base.random)?;
        let section = match process.role {
            Role::Metadata => Section::Metadata(plan.metadata_config(*process, &replicas)?),
            Role::Node => Section::Node(plan.node_config(*process)?),
            Role::Gateway | Role::Admin => {
                let mut config = plan.gateway_config(*process, ground.directory.kek_file())?;
                config.listen = address.clients.unwrap_or(config.listen);
                Section::Gateway(config)
            }
        };
        if let Section::Node(config) = &section {
            make_register(&config.data_dir)?;
        }
        let wiring = Wiring {
            listen: address.cluster,
            status: address.status,
            identity_dir: authority.identity_directory(*process),
            revoked_file: authority.revocations(),
            seeds: replicas.iter().map(|(id, address)| (id.0, *address)).collect(),
        };
        let config = config_dir.join(format!("{process}.toml"));
        config_file::write(&config, plan, *process, &section, &wiring)?;
        written.push(ChildPlan {
            process: *process,
            config,
            log: log_dir.join(format!("{process}.log")),
        });
    }
    Ok(written)
}

fn make_register(path: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("make {}", path.display()))
}

/// Waits until all processes are ready, and makes the accounts; answers a fresh admin token.
async fn settle(
    ground: &Ground,
    addresses: &BTreeMap<ProcessId, Address>,
    secrets: &DevSecrets,
    base: &Base,
) -> anyhow::Result<String> {
    let seeds: Vec<Peer> = of_role(addresses, Role::Metadata)
        .map(|(process, address)| Peer {
            process,
            address: address.cluster,
        })
        .collect();
    let (bound, admin) = admin_client(&ground.authority, base, &seeds)?;
    accounts::wait_for_rows(&admin, ground.plan.profile).await?;
    for (process, address) in addresses {
        ready(*process, address.status).await?;
    }
    let first = ground.plan.gateways().next().context("no gateway was asked for")?;
    let config = ground.plan.gateway_config(first, ground.directory.kek_file())?;
    let place = Place {
        number: admin.source(),
        metadata: seeds,
        nodes: None,
    };
    let seams = bound.gateway_seams(base);
    let core = gateway::serve::core(&config, &place, &seams)?;
    let passwords = Passwords::new(seams, COST);
    let token = accounts::make(&core, &passwords, secrets, base.clock.as_ref(), &base.random).await;
    bound.close().await;
    token
}

async fn ready(process: ProcessId, status: SocketAddr) -> anyhow::Result<()> {
    let client = Client::new(&format!("http://{status}"))?;
    let wait = async {
        while client.text("/readyz").await.is_err() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    let waited = tokio::time::timeout(READY_PATIENCE, wait).await;
    waited.with_context(|| format!("{process} is not ready after {READY_PATIENCE:?}"))
}

fn facts(
    plan: &Plan,
    addresses: &BTreeMap<ProcessId, Address>,
    written: &[ChildPlan],
    secrets: &DevSecrets,
    admin_token: String,
) -> anyhow::Result<DevFacts> {
    let mut processes = Vec::new();
    for child in written {
        let address = addresses.get(&child.process).context("every child has an address")?;
        processes.push(ProcessFacts {
            log: Some(child.log.clone()),
            config: Some(child.config.clone()),
            url: address.clients.map(|address| plan.url(address)),
            status: Some(address.status),
            ..ProcessFacts::planned(plan, child.process)
        });
    }
    let front = of_role(addresses, Role::Gateway).nth(plan.front());
    let front = front
        .and_then(|(_, address)| address.clients)
        .context("a gateway has an address")?;
    Ok(DevFacts::of(plan, secrets, front, admin_token, processes))
}

#[cfg(test)]
mod tests {
    use super::{Again, Request};
    use crate::admin::exit_code_of;
    use crate::start_again::{EXIT_CODE, StartAgain};
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    const NAME: &str = "metadata-1";

    fn exited(code: u8) -> ExitStatus {
        ExitStatus::from_raw(i32::from(code) << 8)
    }

    fn is_due_after(again: &mut Again, status: ExitStatus) -> bool {
        again.due.clear();
        again.ended(NAME, status);
        again.due.contains_key(NAME)
    }

    #[test]
    fn a_child_is_started_again_when_it_asks_for_it_and_until_that_succeeds() {
        assert_eq!(exit_code_of(&StartAgain("no room".to_owned()).into()), EXIT_CODE);
        let mut again = Again::default();
        for status in [exited(0), exited(1), ExitStatus::from_raw(9)] {
            assert!(!is_due_after(&mut again, status), "{status}");
        }
        assert!(is_due_after(&mut again, exited(EXIT_CODE)));
        again.started.insert(NAME.to_owned());
        assert!(is_due_after(&mut again, exited(1)), "its disk may still be full");
        assert!(
            !is_due_after(&mut again, ExitStatus::from_raw(9)),
            "whoever killed it wants it dead"
        );
        assert!(!is_due_after(&mut again, exited(0)));
        assert!(is_due_after(&mut again, exited(EXIT_CODE)));
        again.forget(&Request::Stop(NAME.to_owned()));
        assert!(again.due.is_empty() && !is_due_after(&mut again, exited(1)));
    }
}
