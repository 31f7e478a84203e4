//! A replica as a process of its own, for measurements that tell the memory of one from another's: the example starts itself again.
//!
//! Invariants: a child ends with its parent, whose end closes its standard input; one that is killed gets no time for anything.
//! Not here: configuration files and roles (`src/serve.rs`); what a replica does (`metadata_raft`).

use super::parts::{CLUSTER, DAY, Late, bind_quic, config};
use async_trait::async_trait;
use daemon::clock::{Clock, SystemClock};
use daemon::metrics::Metrics;
use daemon::random::Random;
use daemon::shutdown::Shutdown;
use daemon::worker::Workers;
use disk::RealDisk;
use kv::rocks::{RocksBudget, RocksKv};
use metadata_raft::raft::incoming::PartAnswer;
use metadata_raft::raft::receiver::group_of;
use metadata_raft::serve::{Seams, start};
use model::error_kind::ErrorKind;
use model::id::{CONTROL_GROUP, GroupId};
use model::process::{ProcessId, Role};
use protocol::frame::{Answer, Call, Method, decode, encode};
use protocol::metadata::{
    Command, CommandAnswer, Envelope, GroupReply, ProposeRequest, Query, QueryAnswer, QueryRequest, Reply,
};
use protocol::status::MetadataStatus;
use protocol::wire_error::Failure;
use rpc::authority::ClusterAuthority;
use rpc::identity::IdentityPem;
use rpc::transport::{Handler, Peer, Transport};
use rpc::typed::{CallOptions, ask};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// The argument by which the example knows that it is a replica: number, directory and the addresses follow.
pub(crate) const REPLICA: &str = "replica";
/// What a small production replica has; both bounds hold whatever is sent or received.
const CACHE_BYTES: usize = 32 << 20;
const WRITE_BUFFER_BYTES: usize = 32 << 20;
/// Drive groups of each replica.
pub(crate) const GROUPS: u32 = 4;

/// Where a replica writes down the parts of snapshots that it has taken, for whoever measures it: a line each, the group first.
const PARTS: &str = "parts";

/// What a replica answered to a part of a drive group's snapshot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PartTaken {
    /// Nothing is here yet.
    Begun,
    /// The rows up to this key are here, in hex.
    UpTo(String),
    /// All are, and they are its state now.
    Installed,
}

impl PartTaken {
    fn line(answer: &PartAnswer) -> String {
        match answer {
            PartAnswer::Continue { after: None } => "begun".to_owned(),
            PartAnswer::Continue { after: Some(after) } => after.iter().map(|byte| format!("{byte:02x}")).collect(),
            PartAnswer::Installed(_) => "installed".to_owned(),
        }
    }

    fn of(line: &str) -> Self {
        match line {
            "begun" => Self::Begun,
            "installed" => Self::Installed,
            key => Self::UpTo(key.to_owned()),
        }
    }
}

/// Hands calls on to a replica and writes down the parts of snapshots that it takes.
struct Noting {
    replica: Arc<Late>,
    parts: PathBuf,
}

#[async_trait]
impl Handler for Noting {
    async fn handle(&self, caller: ProcessId, call: Call) -> Result<Answer, Failure> {
        let group = match call.method {
            Method::RaftSnapshot => Some(group_of(&call)?).filter(|group| *group != CONTROL_GROUP),
            _ => None,
        };
        let answer = self.replica.handle(caller, call).await?;
        if let Some(group) = group {
            let line = PartTaken::line(&decode(&answer.payload)?);
            let mut parts = OpenOptions::new().create(true).append(true).open(&self.parts).unwrap();
            parts.write_all(format!("{group} {line}\n").as_bytes()).unwrap();
        }
        Ok(answer)
    }
}

fn read_pem(dir: &Path) -> IdentityPem {
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    IdentityPem {
        certificate: read("certificate"),
        key: read("key"),
        authority: read("authority"),
    }
}

/// Runs a replica until standard input ends. `arguments` are those behind `REPLICA`.
pub(crate) async fn run(arguments: &[String]) {
    let number: u64 = arguments[0].parse().unwrap();
    let dir = PathBuf::from(&arguments[1]);
    let addresses = arguments[2..].iter().map(|text| text.parse().unwrap());
    let addresses: BTreeMap<u64, SocketAddr> = (1..).zip(addresses).collect();
    let handler = Arc::new(Late::default());
    let noting = Noting {
        replica: handler.clone(),
        parts: dir.join(PARTS),
    };
    let (transport, _) = bind_quic(&read_pem(&dir), addresses[&number], Arc::new(noting));
    let budget = RocksBudget::new(CACHE_BYTES, WRITE_BUFFER_BYTES).unwrap();
    let (shutdown, clock): (_, Arc<dyn Clock>) = (Shutdown::new(), Arc::new(SystemClock::new()));
    let workers = Workers::new(clock.clone(), shutdown.clone());
    fs::create_dir_all(dir.join("disk")).unwrap();
    let is_first = !dir.join("kv").exists();
    let seams = Seams {
        cluster: CLUSTER,
        disk: Arc::new(RealDisk::open(&dir.join("disk")).unwrap()),
        kv: Arc::new(RocksKv::open(&dir.join("kv"), &budget).unwrap()),
        transport,
        clock,
        random: Random::system(),
        metrics: Metrics::new(),
        workers: workers.clone(),
    };
    let config = config(number, dir, &addresses, GROUPS);
    let process = start(&config, &seams, number == 1 && is_first).await.unwrap();
    handler.serve(process.service());
    drop(tokio::io::stdin().read_to_end(&mut Vec::new()).await);
    shutdown.request();
    workers.ended().await;
    process.stop().await;
}

/// Replicas of one cluster in processes of their own, and a client of theirs.
pub(crate) struct Processes {
    dir: tempfile::TempDir,
    addresses: Vec<SocketAddr>,
    children: Vec<Option<Child>>,
    transport: Arc<dyn Transport>,
}

impl Processes {
    /// A cluster of `replicas`, none of them running.
    pub(crate) fn new(replicas: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = ClusterAuthority::create(CLUSTER, SystemClock::new().wall(), DAY).unwrap();
        let issue = |role, number| {
            let process = ProcessId { role, number };
            authority.issue(process, SystemClock::new().wall(), DAY).unwrap()
        };
        let mut sockets = Vec::new();
        for number in 1..=replicas {
            let home = dir.path().join(number.to_string());
            fs::create_dir_all(&home).unwrap();
            let pem = issue(Role::Metadata, number);
            for (name, text) in [
                ("certificate", &pem.certificate),
                ("key", &pem.key),
                ("authority", &pem.authority),
            ] {
                fs::write(home.join(name), text).unwrap();
            }
            // Held until all are known, so that no port is given out twice.
            sockets.push(UdpSocket::bind("127.0.0.1:0").unwrap());
        }
        let addresses = sockets.iter().map(|socket| socket.local_addr().unwrap()).collect();
        drop(sockets);
        let client = issue(Role::Gateway, 1);
        Self {
            dir,
            addresses,
            children: (0..replicas).map(|_| None).collect(),
            transport: bind_quic(&client, ([127, 0, 0, 1], 0).into(), Arc::new(Late::default())).0,
        }
    }

    fn place(number: u64) -> usize {
        usize::try_from(number - 1).unwrap()
    }

    pub(crate) fn directory(&self, number: u64) -> PathBuf {
        self.dir.path().join(number.to_string())
    }

    /// What a replica took of snapshots of each drive group, in order.
    pub(crate) fn parts_taken(&self, number: u64) -> Vec<(GroupId, PartTaken)> {
        // Not there before the first.
        let text = fs::read_to_string(self.directory(number).join(PARTS)).unwrap_or_default();
        // A line may still be written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let part = |line: &str| {
            let (group, taken) = line.split_once(' ').unwrap();
            (GroupId(group.parse().unwrap()), PartTaken::of(taken))
        };
        whole.lines().map(part).collect()
    }

    pub(crate) fn start(&mut self, number: u64) {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .arg(REPLICA)
            .arg(number.to_string())
            .arg(self.directory(number))
            .args(self.addresses.iter().map(ToString::to_string))
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        self.children[Self::place(number)] = Some(child);
    }

    /// Ends a replica in order, or at once.
    pub(crate) fn end(&mut self, number: u64, is_kill: bool) {
        let mut child = self.children[Self::place(number)].take().unwrap();
        if is_kill {
            child.kill().unwrap();
        }
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    /// Peak memory of a replica since the last time it was asked, in kilobytes.
    pub(crate) fn peak_kb(&self, number: u64) -> u64 {
        let process = self.children[Self::place(number)].as_ref().unwrap().id();
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let peak = peak.trim().trim_end_matches(" kB").parse().unwrap();
        // Sets the peak back to what is resident now.
        fs::write(format!("/proc/{process}/clear_refs"), "5").unwrap();
        peak
    }

    pub(crate) fn client(&self) -> Client {
        Client {
            addresses: self.addresses.clone(),
            transport: self.transport.clone(),
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// Calls replicas as a gateway does.
#[derive(Clone)]
pub(crate) struct Client {
    addresses: Vec<SocketAddr>,
    transport: Arc<dyn Transport>,
}

impl Client {
    fn peer(&self, number: u64) -> Peer {
        Peer {
            process: ProcessId {
                role: Role::Metadata,
                number,
            },
            address: self.addresses[Processes::place(number)],
        }
    }

    /// What a replica says of itself; `None` when it does not answer.
    pub(crate) async fn status(&self, number: u64) -> Option<MetadataStatus> {
        let (peer, options) = (self.peer(number), CallOptions::within(Duration::from_secs(2)));
        let asked = ask::<MetadataStatus>(self.transport.as_ref(), &peer, Method::MetadataStatus, &(), options);
        asked.await.ok().map(|(status, _)| status)
    }

    /// Asks one replica until it answers.
    pub(crate) async fn query(&self, number: u64, group: GroupId, query: &Query) -> QueryAnswer {
        let query = encode(query).unwrap();
        loop {
            let request = QueryRequest {
                group,
                query: query.clone(),
            };
            let (peer, options) = (self.peer(number), CallOptions::within(Duration::from_secs(5)));
            let asked = ask::<GroupReply>(self.transport.as_ref(), &peer, Method::QueryReplica, &request, options);
            if let Ok((answer, _)) = asked.await {
                match Reply::<QueryAnswer>::from_bytes(&answer.reply).unwrap().result {
                    Ok(found) => return found,
                    Err(failure) => assert!(failure.kind.is_retryable(), "{failure}"),
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Proposes, beginning at the replica `at`, until one has done it; answers which.
    pub(crate) async fn propose(&self, mut at: u64, group: GroupId, command: &Command) -> u64 {
        let envelope = Envelope {
            request_id: None,
            wall: SystemClock::new().wall(),
            command: command.clone(),
        };
        let envelope = encode(&envelope).unwrap();
        loop {
            let request = ProposeRequest {
                group,
                envelope: envelope.clone(),
            };
            let (peer, options) = (self.peer(at), CallOptions::within(Duration::from_secs(5)));
            let asked = ask::<GroupReply>(self.transport.as_ref(), &peer, Method::Propose, &request, options);
            if let Ok((answer, _)) = asked.await {
                match Reply::<CommandAnswer>::from_bytes(&answer.reply).unwrap().result {
                    Ok(_) => return at,
                    // Without a request id a repeat after an unknown outcome meets itself.
                    Err(failure) if failure.code == "name_taken" || failure.code == "user_exists" => return at,
                    // A leader that is killed, or follows now, leaves it open whether the command was done.
                    Err(failure) => assert!(
                        failure.kind.is_retryable()
                            || failure.kind == ErrorKind::Ambiguous
                            || failure.code == "not_mine",
                        "{failure}"
                    ),
                }
            }
            at = at % self.addresses.len() as u64 + 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
