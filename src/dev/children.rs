//! The child processes of `holdfast dev --processes`: started, watched, asked to stop, never started again by themselves.
//!
//! Invariants: a child is signalled by the id of a process that has not been waited for, so never somebody else; it is in a process
//! group of its own, so that Ctrl-C reaches the parent alone, which stops them in order; it ends with the parent in whatever way
//! that ends.
//! Not here: what they are told (`config_file`), what is done about a child that ended (nothing: whoever killed it wants it dead).

use anyhow::Context;
use model::process::{ProcessId, Role};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::future::{Future, poll_fn};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::task::Poll;
use std::time::Duration;
use tokio::process::{Child, Command};

/// A gateway lets running requests end for ten seconds; what takes longer than this is stuck or stopped, and is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(15);
/// What tells tokio how many threads work on a process's tasks.
const WORKER_THREADS: &str = "TOKIO_WORKER_THREADS";
/// Of so many threads for each core the storage nodes and replicas have each their part: all of them share one machine here, and each
/// wakes its own threads for what comes. With as many as there are cores in each of ten processes, two cores spent 5 to 11 % of all CPU
/// time on that at 240 uploads a second. A gateway's work on large contents needs all cores.
const THREADS_EACH_CORE: usize = 2;
/// Lines of a log that a failed start shows.
const LAST_LINES: usize = 10;

/// How a child is run.
#[derive(Clone, Debug)]
pub(crate) struct ChildPlan {
    pub(crate) process: ProcessId,
    pub(crate) config: PathBuf,
    pub(crate) log: PathBuf,
}

/// All children, running or not.
pub(crate) struct Children {
    binary: PathBuf,
    plans: BTreeMap<String, ChildPlan>,
    running: BTreeMap<String, Child>,
}

impl Children {
    /// Nobody runs yet. The children run the binary that this process runs.
    pub(crate) fn new(plans: impl IntoIterator<Item = ChildPlan>) -> anyhow::Result<Self> {
        let named = plans.into_iter().map(|plan| (plan.process.to_string(), plan));
        Ok(Self {
            binary: std::env::current_exe().context("find this program's own file")?,
            plans: named.collect(),
            running: BTreeMap::new(),
        })
    }

    /// Starts a child that does not run; answers its process id, also of one that runs already.
    ///
    /// To be called on the main thread: the kernel ties a child to the thread that made it.
    /// Errors: there is no such process, or it cannot be started.
    pub(crate) fn start(&mut self, name: &str) -> anyhow::Result<u32> {
        let plan = self.plan(name)?;
        if let Some(pid) = self.pid(name) {
            return Ok(pid);
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(&plan.log)
            .with_context(|| format!("open {}", plan.log.display()))?;
        let mut command = Command::new(&self.binary);
        if plan.process.role != Role::Gateway && std::env::var_os(WORKER_THREADS).is_none() {
            command.env(WORKER_THREADS, self.threads_each()?.to_string());
        }
        let child = command
            .arg("serve")
            .arg("--config")
            .arg(&plan.config)
            .arg("--with-parent")
            .arg(std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", self.binary.display()))?;
        let pid = child.id().context("a child that nobody has waited for has an id")?;
        self.running.insert(name.to_owned(), child);
        Ok(pid)
    }

    /// Starts all of them.
    pub(crate) fn start_all(&mut self) -> anyhow::Result<()> {
        let names: Vec<String> = self.plans.keys().cloned().collect();
        names.iter().try_for_each(|name| self.start(name).map(drop))
    }

    /// How many threads work on the tasks of each storage node and replica.
    fn threads_each(&self) -> anyhow::Result<usize> {
        let cores = std::thread::available_parallelism().context("count the machine's cores")?;
        Ok((cores.get() * THREADS_EACH_CORE / self.plans.len()).max(1))
    }

    /// The process id of a child, while it runs.
    pub(crate) fn pid(&self, name: &str) -> Option<u32> {
        self.running.get(name).and_then(Child::id)
    }

    /// Asks a child to stop; false when it does not run.
    ///
    /// Errors: there is no such process.
    pub(crate) fn terminate(&self, name: &str) -> anyhow::Result<bool> {
        self.plan(name)?;
        Ok(self.running.get(name).is_some_and(terminate))
    }

    fn plan(&self, name: &str) -> anyhow::Result<&ChildPlan> {
        let plan = self.plans.get(name);
        let known = || self.plans.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        plan.with_context(|| format!("the cluster has no process {name}; it has {}", known()))
    }

    /// Returns when a child has ended, with its name and its status; never while none runs. May be dropped midway.
    pub(crate) async fn next_end(&mut self) -> (String, ExitStatus) {
        let running = &mut self.running;
        let (name, status) = poll_fn(|context| {
            for (name, child) in running.iter_mut() {
                // What wakes us is kept in the child, so the future may be made anew at each turn.
                if let Poll::Ready(Ok(status)) = pin!(child.wait()).poll(context) {
                    return Poll::Ready((name.clone(), status));
                }
            }
            Poll::Pending
        })
        .await;
        self.running.remove(&name);
        (name, status)
    }

    /// The end of what a child has written to its log.
    pub(crate) fn last_words(&self, name: &str) -> String {
        self.plans
            .get(name)
            .map_or_else(String::new, |plan| last_lines(&plan.log))
    }

    /// Stops gateways, which let their requests end, then nodes, then replicas one by one from the highest, since each hands its
    /// leadership over to the lowest of the others, which so goes on.
    pub(crate) async fn stop_all(&mut self) {
        self.stop_role(Role::Gateway).await;
        self.stop_role(Role::Node).await;
        let replicas: Vec<String> = self.names_of(Role::Metadata);
        for name in replicas.into_iter().rev() {
            self.stop_these(&[name]).await;
        }
    }

    fn names_of(&self, role: Role) -> Vec<String> {
        let of_role = self.plans.iter().filter(|(_, plan)| plan.process.role == role);
        of_role.map(|(name, _)| name.clone()).collect()
    }

    async fn stop_role(&mut self, role: Role) {
        self.stop_these(&self.names_of(role)).await;
    }

    async fn stop_these(&mut self, names: &[String]) {
        let stopping: Vec<(&String, Child)> = names
            .iter()
            .filter_map(|name| Some((name, self.running.remove(name)?)))
            .collect();
        for (_, child) in &stopping {
            terminate(child);
        }
        let until = tokio::time::Instant::now() + STOP_PATIENCE;
        for (name, mut child) in stopping {
            if tokio::time::timeout_at(until, child.wait()).await.is_err() {
                tracing::warn!(process = %name, "did not stop within {STOP_PATIENCE:?} and is killed");
                if let Err(error) = child.kill().await {
                    tracing::error!(process = %name, %error, "cannot be killed");
                }
            }
        }
    }
}

/// SIGTERM; false when the child has ended and was waited for.
fn terminate(child: &Child) -> bool {
    let pid = child
        .id()
        .and_then(|pid| i32::try_from(pid).ok())
        .and_then(Pid::from_raw);
    // One that has just ended cannot be signalled, and that is what was wanted.
    pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok())
}

fn last_lines(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}
