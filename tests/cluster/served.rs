//! A cluster of separate `holdfast serve` processes, from the example files of deploy/config with paths and ports filled in.
//!
//! Invariant: each child ends by its id with the value that holds it, also when a test fails.
//! Not here: what such a cluster must do (`separate_processes`), what a process must refuse (`startup`).

use crate::world::holdfast;
use client_sdk::client::Client;
use client_sdk::http::Authorities;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use toml::{Table, Value};

/// Far above what a loaded two-core machine needs for an election, a replay or a start.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The files of a cluster: authority, identities, configurations, data.
pub(crate) struct Plan {
    directory: TempDir,
    metadata: Vec<SocketAddr>,
    nodes: Vec<SocketAddr>,
    gateway: SocketAddr,
    pub(crate) https: SocketAddr,
    /// Where each process tells of itself, in the order of `names`.
    status: Vec<SocketAddr>,
}

/// One running process.
pub(crate) struct Served {
    child: Child,
    pub(crate) log: PathBuf,
}

/// Runs the binary to its end.
pub(crate) fn run(arguments: &[&str]) -> Output {
    Command::new(holdfast())
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// What the binary prints; it must succeed.
pub(crate) fn run_well(arguments: &[&str]) -> String {
    let output = run(arguments);
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{arguments:?}: {out}{err}");
    out.into_owned()
}

/// Free addresses of loopback, all held until the last is drawn, so that no two are the same. Somebody could take one before it is
/// used; the kernel gives out others first.
#[derive(Default)]
struct Draw {
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
}

impl Draw {
    fn udp(&mut self) -> SocketAddr {
        self.udp.push(UdpSocket::bind("127.0.0.1:0").unwrap());
        self.udp.last().unwrap().local_addr().unwrap()
    }

    fn tcp(&mut self) -> SocketAddr {
        self.tcp.push(TcpListener::bind("127.0.0.1:0").unwrap());
        self.tcp.last().unwrap().local_addr().unwrap()
    }
}

/// An address of loopback at which nobody listens.
pub(crate) fn free_tcp() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn example(role: &str) -> Table {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("deploy/config/{role}.toml"));
    fs::read_to_string(path).unwrap().parse().unwrap()
}

/// Sets what is there already: an example without the key is an example that this harness does not know.
pub(crate) fn set(table: &mut Table, key: &str, value: impl Into<Value>) {
    let (parents, name) = key.rsplit_once('.').unwrap_or(("", key));
    let mut at = table;
    for parent in parents.split('.').filter(|parent| !parent.is_empty()) {
        at = at[parent].as_table_mut().unwrap();
    }
    *at.get_mut(name).unwrap_or_else(|| panic!("the example has no {key}")) = value.into();
}

fn set_addresses(table: &mut Table, list: &str, addresses: &[SocketAddr]) {
    let mut at: &mut Value = table.get_mut(list.split('.').next().unwrap()).unwrap();
    if let Some((_, name)) = list.split_once('.') {
        at = at.get_mut(name).unwrap();
    }
    let rows = at.as_array_mut().unwrap();
    assert_eq!(rows.len(), addresses.len(), "the example's {list}");
    for (row, address) in rows.iter_mut().zip(addresses) {
        set(row.as_table_mut().unwrap(), "address", address.to_string());
    }
}

impl Plan {
    /// Makes the cluster with `holdfast init`, and directories and a configuration for each process.
    pub(crate) fn make() -> Self {
        let mut draw = Draw::default();
        let plan = Self {
            directory: TempDir::new().unwrap(),
            metadata: (0..3).map(|_| draw.udp()).collect(),
            nodes: (0..6).map(|_| draw.udp()).collect(),
            gateway: draw.udp(),
            https: draw.tcp(),
            status: (0..10).map(|_| draw.tcp()).collect(),
        };
        drop(draw);
        run_well(&["init", "--directory", plan.path("cluster").to_str().unwrap()]);
        plan.make_certificate();
        for name in plan.names() {
            let table = plan.example_of(&name);
            plan.write(&name, &table);
        }
        plan
    }

    /// A path below the cluster's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where the identity of a process lies.
    pub(crate) fn identity(&self, name: &str) -> PathBuf {
        self.path("cluster/identities").join(name)
    }

    /// The configuration file of a process such as `node-3`.
    pub(crate) fn config(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.toml"))
    }

    /// Every process.
    pub(crate) fn names(&self) -> Vec<String> {
        let numbered = |role: &str, count: usize| (1..=count).map(move |number| format!("{role}-{number}")).collect();
        let all: [Vec<String>; 3] = [numbered("metadata", 3), numbered("node", 6), numbered("gateway", 1)];
        all.concat()
    }

    fn write(&self, name: &str, table: &Table) {
        fs::write(self.config(name), toml::to_string(table).unwrap()).unwrap();
    }

    /// Changes a process's configuration.
    pub(crate) fn edit(&self, name: &str, change: impl FnOnce(&mut Table)) {
        let mut table: Table = fs::read_to_string(self.config(name)).unwrap().parse().unwrap();
        change(&mut table);
        self.write(name, &table);
    }

    fn example_of(&self, name: &str) -> Table {
        let (role, number) = name.split_once('-').unwrap();
        let number: usize = number.parse().unwrap();
        let mut table = example(role);
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        set(&mut table, "transport.revoked_file", text(self.path("cluster/revoked")));
        let at = self.names().iter().position(|known| known == name).unwrap();
        set(&mut table, "status.listen", self.status[at].to_string());
        let key = |name: &str| format!("transport.{role}.{name}");
        set(&mut table, &key("identity_dir"), text(self.identity(name)));
        let data = self.path(&format!("data/{name}"));
        match role {
            "metadata" => {
                fs::create_dir_all(&data).unwrap();
                set(&mut table, &key("listen"), self.metadata[number - 1].to_string());
                set(&mut table, "metadata.id", number as i64);
                set(&mut table, "metadata.data_dir", text(data));
                // No machine that runs tests is asked for an encrypted volume; that the key counts has a test of its own.
                set(&mut table, "metadata.require_encrypted_volume", false);
                set_addresses(&mut table, "metadata.replicas", &self.metadata);
            }
            "node" => {
                set(&mut table, &key("listen"), self.nodes[number - 1].to_string());
                set(&mut table, "site.region", format!("r{}", (number - 1) / 2 + 1));
                set_addresses(&mut table, "seeds", &self.metadata);
                set(&mut table, "node.id", number as i64);
                fs::create_dir_all(&data).unwrap();
                set(&mut table, "node.data_dir", text(data));
                let disks = table["node"]["disks"].as_array_mut().unwrap();
                assert_eq!(disks.len(), 2, "the example's node.disks");
                for (at, disk) in disks.iter_mut().enumerate() {
                    let id = (number - 1) * 2 + at + 1;
                    let path = self.disk(id);
                    fs::create_dir_all(&path).unwrap();
                    let disk = disk.as_table_mut().unwrap();
                    set(disk, "id", id as i64);
                    set(disk, "path", text(path));
                }
            }
            _ => {
                set(&mut table, &key("listen"), self.gateway.to_string());
                set_addresses(&mut table, "seeds", &self.metadata);
                set(&mut table, "gateway.listen", self.https.to_string());
                set(&mut table, "gateway.kek_file", text(self.path("cluster/kek")));
                set(&mut table, "gateway.tls_certificate", text(self.path("tls.pem")));
                set(&mut table, "gateway.tls_key", text(self.path("tls.key")));
            }
        }
        table
    }

    /// Where the metadata replicas answer, by their numbers.
    pub(crate) fn metadata(&self) -> &[SocketAddr] {
        &self.metadata
    }

    /// The directory of a disk.
    pub(crate) fn disk(&self, id: usize) -> PathBuf {
        self.path(&format!("disks/{id}"))
    }

    /// A certificate for clients, from an authority of its own as far as they are concerned.
    fn make_certificate(&self) {
        make_certificate(&self.path("tls.pem"), &self.path("tls.key"));
    }

    /// Starts a process.
    pub(crate) fn start(&self, name: &str) -> Served {
        Served::start(&self.config(name), self.path(&format!("{name}.log")), &[])
    }

    /// Starts a process whose wall clock `set_clock` can set wrong while it runs.
    pub(crate) fn start_with_clock(&self, name: &str) -> Served {
        let offset = self.clock(name).to_str().unwrap().to_owned();
        let log = self.path(&format!("{name}.log"));
        Served::start(&self.config(name), log, &["--clock-offset-file", &offset])
    }

    /// Sets a process's wall clock wrong by so many days.
    pub(crate) fn set_clock(&self, name: &str, days: i64) {
        // Renamed into place, so that a look never finds half a number.
        let (path, unfinished) = (self.clock(name), self.path("clock.new"));
        fs::write(&unfinished, (days * 86_400).to_string()).unwrap();
        fs::rename(unfinished, path).unwrap();
    }

    fn clock(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.clock"))
    }

    /// The gateway's address as clients write it.
    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.https)
    }

    /// A client that is not signed in.
    pub(crate) fn client(&self) -> Client {
        let pem = fs::read(self.path("tls.pem")).unwrap();
        Client::trusting(&self.url(), &Authorities::Pem(pem)).unwrap()
    }
}

/// Writes a self-signed certificate for loopback and its key, mode 0600.
pub(crate) fn make_certificate(certificate: &Path, key: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    fs::write(certificate, made.cert.pem()).unwrap();
    fs::write(key, made.signing_key.serialize_pem()).unwrap();
    fs::set_permissions(key, fs::Permissions::from_mode(0o600)).unwrap();
}

impl Served {
    /// Starts `holdfast serve` with output into `log`.
    pub(crate) fn start(config: &Path, log: PathBuf, more: &[&str]) -> Self {
        let file = File::options().create(true).append(true).open(&log).unwrap();
        let child = Command::new(holdfast())
            .arg("serve")
            .arg("--config")
            .arg(config)
            .args(more)
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Self { child, log }
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and the end of the process in good order.
    pub(crate) async fn stop(mut self) {
        self.terminate();
        let status = self.ended().await;
        assert!(status.success(), "{status}:\n{}", self.text());
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
    }

    /// Waits for the end of the process.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "the process goes on:\n{}", self.text());
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Its number in the system.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// What it has written so far.
    pub(crate) fn text(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Nothing can be done about a failure while dropping; an ended child answers with one.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Repeats `ask` until it gives something, or fails with the last reason.
pub(crate) async fn eventually<T, E: std::fmt::Display>(what: &str, mut ask: impl AsyncFnMut() -> Result<T, E>) -> T {
    let begun = Instant::now();
    loop {
        match ask().await {
            Ok(found) => return found,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{what}: {error}"),
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
