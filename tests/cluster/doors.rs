//! Every port that a cluster opens: which there are, and whom each refuses.
//!
//! The ports are read from the kernel, not from the cluster's own word: one that somebody opens later is found here.
//! Not here: whoever has no identity of the cluster (`strangers`), foreign bytes (`foreign_bytes`), what a transport refuses by itself (`rpc`'s conformance suite).

use crate::served::{eventually, make_certificate, run_well};
use crate::strangers::{assert_https, assert_no_plain_text, assert_stranger_is_refused};
use crate::world::holdfast;
use bytes::Bytes;
use chaos::dev_cluster::DevFacts;
use client_sdk::client::Client;
use client_sdk::http::Authorities;
use daemon::clock::{Clock, SystemClock};
use model::cluster::Membership;
use model::id::{CONTROL_GROUP, ClusterId, GroupId, NodeId};
use model::process::{ProcessId, Role};
use model::time::WallTime;
use protocol::frame::{Answer, Call, Method, encode};
use protocol::metadata::control::ControlCommand;
use protocol::metadata::query::ControlQuery;
use protocol::metadata::{Command, Envelope, ProposeRequest, Query, QueryRequest};
use protocol::wire_error::Failure;
use rpc::authority::ClusterAuthority;
use rpc::identity::{Identity, IdentityPem, Revocations};
use rpc::limits::RpcLimits;
use rpc::quic::{QuicOptions, QuicTransport};
use rpc::transport::{Handler, Peer, RpcError, Transport};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// A door answers by then, or it never will.
pub(crate) const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
const DAY: Duration = Duration::from_secs(86_400);

/// Before the cluster has written any.
const NO_FACTS: &str = r#"{"url":"","user":"","password":"","admin_token":"","profile":"","processes":[]}"#;
/// Alerts of TLS by which a server says why.
const REVOKED: u8 = 44;
const EXPIRED: u8 = 45;
const NO_VALID_SIGNATURE: u8 = 46;
const UNKNOWN_AUTHORITY: u8 = 48;
const CERTIFICATE_REQUIRED: u8 = 116;

/// Calls that no process of the role may make, whoever is called. Written out: the product's own table is what is tested.
const FORBIDDEN: [(Role, &str); 10] = [
    (
        Role::Node,
        "ConfirmFragment RemoveStripe PushRows NodeStatus MetadataStatus ListFragments",
    ),
    (Role::Node, RAFT),
    (
        Role::Metadata,
        "StoreFragment ReadFragment ConfirmFragment ListFragments Propose",
    ),
    (Role::Gateway, RAFT),
    (Role::Admin, "StoreFragment ReadFragment ConfirmFragment"),
    (Role::Admin, "RemoveStripe PushRows ListFragments"),
    (Role::Admin, RAFT),
    (Role::Node, INVENTORY),
    (Role::Metadata, INVENTORY),
    (Role::Admin, INVENTORY),
];
const INVENTORY: &str = "SumFragments ListCells";
const RAFT: &str = "RaftAppend RaftVote RaftPreVote RaftTransfer RaftSnapshot RaftReadIndex RaftHeartbeats";

/// `holdfast dev` that speaks HTTPS; ends with the value.
struct Secured {
    child: Child,
    facts: DevFacts,
    directory: TempDir,
}

impl Secured {
    async fn start() -> Self {
        let directory = TempDir::new().unwrap();
        let data = directory.path().join("data");
        fs::create_dir_all(&data).unwrap();
        let (certificate, key) = (directory.path().join("tls.pem"), directory.path().join("tls.key"));
        make_certificate(&certificate, &key);
        let log = File::create(directory.path().join("dev.log")).unwrap();
        let child = std::process::Command::new(holdfast())
            .args(["dev", "--listen", "127.0.0.1:0", "--disk-capacity", "4G"])
            .arg("--data-dir")
            .arg(&data)
            .arg("--tls-certificate")
            .arg(&certificate)
            .arg("--tls-key")
            .arg(&key)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut world = Self {
            child,
            facts: serde_json::from_str(NO_FACTS).unwrap(),
            directory,
        };
        let written = async || -> Result<DevFacts, String> {
            let text = fs::read(data.join("dev.json")).map_err(|error| error.to_string())?;
            serde_json::from_slice(&text).map_err(|error| error.to_string())
        };
        world.facts = eventually("dev.json", written).await;
        let client = world.client();
        eventually("ready", async || client.text("/readyz").await).await;
        world
    }

    fn client(&self) -> Client {
        let pem = fs::read(self.directory.path().join("tls.pem")).unwrap();
        Client::trusting(&self.facts.url, &Authorities::Pem(pem)).unwrap()
    }

    fn cluster(&self) -> PathBuf {
        self.directory.path().join("data/cluster")
    }

    /// The gateway's HTTPS port.
    fn https(&self) -> SocketAddr {
        self.facts.url.trim_start_matches("https://").parse().unwrap()
    }

    /// The authority that signs for this cluster.
    fn authority(&self) -> ClusterAuthority {
        let read = |name: &str| fs::read_to_string(self.cluster().join(name)).unwrap();
        ClusterAuthority::load(&read("authority.pem"), &read("authority.key")).unwrap()
    }

    fn identity(&self, process: &str) -> IdentityPem {
        let directory = self.cluster().join("identities").join(process);
        let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap();
        IdentityPem {
            certificate: read("certificate.pem"),
            key: read("key.pem"),
            authority: read("authority.pem"),
        }
    }

    /// Runs `holdfast identity` where the authority is.
    fn identities(&self, arguments: &[&str]) -> String {
        let cluster = self.cluster();
        let mut all = vec!["identity", "--directory", cluster.to_str().unwrap()];
        all.extend(arguments);
        run_well(&all)
    }
}

impl Drop for Secured {
    fn drop(&mut self) {
        // Nothing can be done about a failure while dropping; an ended child answers with one.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Inodes of the sockets that a process holds.
fn sockets_of(pid: u32) -> BTreeSet<String> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let targets = descriptors.filter_map(|descriptor| fs::read_link(descriptor.ok()?.path()).ok());
    let inodes = targets.filter_map(|target| {
        let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
        Some(inode.to_owned())
    });
    inodes.collect()
}

/// Local ports of a process's sockets in one of the kernel's tables; `state` as the table writes it, any when `None`. All must be
/// bound to loopback.
fn ports(pid: u32, table: &str, state: Option<&str>) -> Vec<u16> {
    let own = sockets_of(pid);
    let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap();
    let mut ports = Vec::new();
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if !own.contains(fields[9]) || state.is_some_and(|state| state != fields[3]) {
            continue;
        }
        let (address, port) = fields[1].split_once(':').unwrap();
        assert_eq!(address, "0100007F", "{table}: not on loopback: {line}");
        ports.push(u16::from_str_radix(port, 16).unwrap());
    }
    ports.sort_unstable();
    ports
}

/// Answers nobody.
struct Deaf;

#[async_trait::async_trait]
impl Handler for Deaf {
    async fn handle(&self, _caller: ProcessId, _call: Call) -> Result<Answer, Failure> {
        Err(Failure::bug("nobody calls this process"))
    }
}

fn caller(pem: &IdentityPem) -> Arc<QuicTransport> {
    let options = QuicOptions {
        identity: Identity::from_pem(pem).unwrap(),
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        clock: Arc::new(SystemClock::new()),
        limits: RpcLimits::default(),
        revocations: Revocations::default(),
        has_jumbo_frames: false,
    };
    QuicTransport::bind(options, Arc::new(Deaf)).unwrap().0
}

fn call_of(method: Method, message: Bytes) -> Call {
    Call {
        method,
        request_id: 0,
        message,
        payload: Bytes::new(),
    }
}

/// A call that anybody of the cluster may make and that changes nothing.
async fn ask(caller: &QuicTransport, door: &Peer) -> Result<Answer, RpcError> {
    caller
        .call(door, call_of(Method::Ping, Bytes::new()), ANSWER_DEADLINE)
        .await
}

/// The right identity comes through. Gateways and the admin have a port to call from and serve nothing there but this.
async fn assert_answered(caller: &QuicTransport, door: &Peer) {
    if let Err(error) = ask(caller, door).await {
        panic!("{}: {error}", door.process);
    }
    if matches!(door.process.role, Role::Gateway | Role::Admin) {
        let asked = caller
            .call(door, call_of(Method::MetadataStatus, Bytes::new()), ANSWER_DEADLINE)
            .await;
        assert!(
            matches!(&asked, Err(RpcError::Refused(failure)) if failure.code == "wrong_role"),
            "{}: {asked:?}",
            door.process
        );
    }
}

/// The door refused us by this alert, not we the door.
fn is_refused_by(alert: u8, result: &Result<Answer, RpcError>) -> bool {
    let wanted = format!("error {alert}");
    matches!(result, Err(RpcError::Untrusted { detail, .. })
        if detail.starts_with("aborted by peer") && detail.contains(&wanted))
}

/// Who listens at each UDP port, by its certificate.
async fn doors(world: &Secured, udp: &[u16]) -> Vec<Peer> {
    let gateway = caller(&world.identity("gateway-1"));
    let nobody = ProcessId {
        role: Role::Admin,
        number: 999,
    };
    let mut doors = Vec::new();
    for port in udp {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
        let peer = Peer {
            process: nobody,
            address,
        };
        match ask(&gateway, &peer).await {
            Err(RpcError::WrongPeer { found, .. }) => doors.push(Peer {
                process: found,
                address,
            }),
            other => panic!("who listens at {address}? {other:?}"),
        }
    }
    doors
}

/// The HTTPS port, the status ports that dev.json names, and one UDP port of each process; nothing else.
async fn assert_known_ports(world: &Secured) -> Vec<Peer> {
    let pid = world.child.id();
    let status = world.facts.processes.iter().filter_map(|process| process.status);
    let mut tcp: Vec<u16> = status.map(|address| address.port()).collect();
    assert_eq!(
        tcp.len(),
        world.facts.processes.len(),
        "each process has its status port"
    );
    tcp.push(world.https().port());
    tcp.sort_unstable();
    assert_eq!(ports(pid, "tcp", Some("0A")), tcp);
    assert_eq!(ports(pid, "tcp6", Some("0A")), [0; 0]);
    assert_eq!(ports(pid, "udp6", None), [0; 0]);
    let doors = doors(world, &ports(pid, "udp", None)).await;
    let mut found: Vec<String> = doors.iter().map(|door| door.process.to_string()).collect();
    let processes = world.facts.processes.iter();
    let mut known: Vec<String> = processes
        .map(|process| format!("{}-{}", process.role, process.id))
        .collect();
    assert_eq!(known.len(), 10);
    // Registers the nodes of a dev cluster and switches them.
    known.push("admin-1".to_owned());
    known.sort();
    found.sort();
    assert_eq!(found, known);
    doors
}

/// Identities that are refused, and by which alert. All dial with the cluster's real authority as their own, so that they trust the
/// door and the door alone can refuse.
fn wrong_identities(world: &Secured) -> Vec<(&'static str, u8, IdentityPem)> {
    let (ours, now) = (world.authority(), SystemClock::new().wall());
    let theirs = ClusterAuthority::create(ours.cluster(), now, DAY).unwrap();
    let process = ProcessId {
        role: Role::Gateway,
        number: 1,
    };
    let trusting = |pem: IdentityPem| IdentityPem {
        authority: ours.certificate_pem().to_owned(),
        ..pem
    };
    let issue = |authority: &ClusterAuthority, at: u64| authority.issue(process, WallTime(at), DAY).unwrap();
    let (now, ten_days_ms) = (now.0, 10 * 86_400_000);
    vec![
        (
            "of another authority",
            NO_VALID_SIGNATURE,
            trusting(issue(&theirs, now)),
        ),
        ("expired", EXPIRED, issue(&ours, now - ten_days_ms)),
        ("not yet valid", EXPIRED, issue(&ours, now + ten_days_ms)),
    ]
}

/// The right certificate of a role that may not make the call.
async fn assert_roles(world: &Secured, doors: &[Peer]) {
    for (role, methods) in FORBIDDEN {
        let insider = caller(&world.identity(&format!("{}-1", role.as_str())));
        for door in doors {
            for name in methods.split(' ') {
                let method = Method::ALL.into_iter().find(|method| format!("{method:?}") == name);
                let call = call_of(method.unwrap(), Bytes::new());
                let error = insider.call(door, call, ANSWER_DEADLINE).await.unwrap_err();
                let code = error.refusal().map(|failure| failure.code.to_string());
                assert_eq!(
                    code.as_deref(),
                    Some("role_not_allowed"),
                    "{role:?} {name} {door:?}: {error:?}"
                );
            }
        }
    }
}

/// What a node may call of the metadata and not with this content.
async fn assert_nodes_are_no_gateways(world: &Secured, doors: &[Peer]) {
    let node = caller(&world.identity("node-1"));
    let command = Command::Control(ControlCommand::SetNode {
        node: NodeId(2),
        membership: Membership::Out,
    });
    let envelope = Envelope {
        request_id: None,
        wall: SystemClock::new().wall(),
        command,
    };
    let proposal = ProposeRequest {
        group: CONTROL_GROUP,
        envelope: encode(&envelope).unwrap(),
    };
    let question = QueryRequest {
        group: GroupId(1),
        query: encode(&Query::Control(ControlQuery::Groups)).unwrap(),
    };
    for door in doors.iter().filter(|door| door.process.role == Role::Metadata) {
        for call in [
            call_of(Method::Propose, encode(&proposal).unwrap()),
            call_of(Method::Query, encode(&question).unwrap()),
        ] {
            let refused = node.call(door, call, ANSWER_DEADLINE).await.unwrap_err();
            assert!(
                refused.refusal().is_some_and(|failure| failure.code == "denied"),
                "{refused:?}"
            );
        }
    }
}

/// An identity that the command made is answered, and refused everywhere once the command revoked it.
async fn assert_revocation(world: &Secured, doors: &[Peer]) {
    let said = world.identities(&["issue", "gateway"]);
    assert!(said.starts_with("gateway-2"), "{said}");
    let second = caller(&world.identity("gateway-2"));
    for door in doors {
        assert_answered(&second, door).await;
    }
    world.identities(&["revoke", "gateway-2"]);
    for door in doors {
        eventually("revoked", async || {
            let result = ask(&second, door).await;
            if is_refused_by(REVOKED, &result) {
                return Ok(());
            }
            Err(format!("{}: {result:?}", door.process))
        })
        .await;
    }
}

/// shows: QAS-017
/// shows: F38
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_port_of_a_cluster_is_known_and_answers_only_those_with_the_right_certificate() {
    let world = Secured::start().await;
    let doors = assert_known_ports(&world).await;
    let right = caller(&world.identity("gateway-1"));
    let foreign = ClusterAuthority::create(ClusterId(77), SystemClock::new().wall(), DAY).unwrap();
    let foreign = foreign.issue(right.process(), SystemClock::new().wall(), DAY).unwrap();
    let wrong: Vec<_> = wrong_identities(&world)
        .into_iter()
        .map(|(what, alert, pem)| (what, alert, caller(&pem)))
        .collect();
    for door in &doors {
        assert_answered(&right, door).await;
        assert_stranger_is_refused(door, None, CERTIFICATE_REQUIRED).await;
        assert_stranger_is_refused(door, Some(&foreign), UNKNOWN_AUTHORITY).await;
        for (what, alert, stranger) in &wrong {
            let result = ask(stranger, door).await;
            assert!(is_refused_by(*alert, &result), "{what}: {}: {result:?}", door.process);
        }
        assert_no_plain_text(door).await;
    }
    assert_roles(&world, &doors).await;
    assert_nodes_are_no_gateways(&world, &doors).await;
    assert_revocation(&world, &doors).await;
    assert_https(world.https());
    for door in &doors {
        assert_answered(&right, door).await;
    }
    assert_known_ports(&world).await;
}
