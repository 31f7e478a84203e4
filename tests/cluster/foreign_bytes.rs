//! Bytes that nobody should send, at every port of a cluster: nothing panics, nothing hangs, everything goes on.
//!
//! Half of them are random, half are valid ones with a few bytes altered, which come further. All follow from fixed seeds.
//! Not here: frames below the typed calls of an authenticated connection (`rpc`'s conformance suite), each decoder by itself
//! (a property beside each of them).

use crate::insider::Insider;
use crate::world::{World, noise};
use bytes::Bytes;
use model::digest::StripeHash;
use model::id::{CONTROL_GROUP, DiskId, GroupId, RowVersion};
use model::process::{ProcessId, Role};
use model::profile::ProfileId;
use model::stripe::{FragmentName, StripeForm, StripeId};
use protocol::frame::{Call, Method, encode};
use protocol::metadata::query::ControlQuery;
use protocol::metadata::{Query, QueryRequest};
use protocol::node::{ByteRange, ConfirmFragment, NodeStatus, PayloadHash, ReadFragment, StoreFragment};
use rpc::quic::QuicTransport;
use rpc::transport::{Peer, RpcError, Transport as _};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const STRINGS: u64 = 10_000;
const AT_ONCE: usize = 64;
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// The bytes of string `number`: random, or `valid` with one to eight alterations.
fn foreign(number: u64, valid: &[Vec<u8>]) -> Vec<u8> {
    let dice = noise(number, 64);
    let draw = |at: usize, below: usize| usize::from(u16::from_le_bytes([dice[at], dice[at + 1]])) % below.max(1);
    if number.is_multiple_of(2) {
        return noise(number + 1_000_000, 1 + draw(0, 600));
    }
    let mut bytes = valid[draw(2, valid.len())].clone();
    for step in 0..=draw(4, 8) {
        let (at, what) = (draw(8 + 4 * step, bytes.len()), dice[10 + 4 * step]);
        match what % 5 {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << (what >> 5),
            1 if !bytes.is_empty() => bytes[at] = what,
            2 => bytes.truncate(at),
            3 => bytes.splice(at..at, noise(u64::from(what), 9)).for_each(drop),
            _ => bytes.extend_from_within(at..),
        }
    }
    bytes
}

/// Asserts that the cluster still takes and gives contents and that nothing in it panicked.
async fn assert_serves(world: &World, path: &str) {
    let bytes = noise(7, 300_000);
    let id = world.put(path, &bytes).await.entry.id;
    assert!(world.content(&id, &[]).await.body == bytes);
    let log = fs::read_to_string(world.data_dir().join("dev.log")).unwrap();
    let panics: Vec<&str> = log.lines().filter(|line| line.contains("panicked")).collect();
    assert!(panics.is_empty(), "{panics:?}");
}

/// Requests as clients send them.
fn requests(token: &str) -> Vec<Vec<u8>> {
    let request = |line: &str, header: &str, body: &str| {
        let (authorization, length) = (format!("authorization: Bearer {token}"), body.len());
        let head = format!("{line} HTTP/1.1\r\nhost: h\r\n{authorization}\r\n{header}\r\ncontent-length: {length}");
        format!("{head}\r\n\r\n{body}").into_bytes()
    };
    let (json, form) = (
        "content-type: application/json",
        "content-type: application/x-www-form-urlencoded",
    );
    let related = "content-type: multipart/related; boundary=b";
    let parts = "--b\r\ncontent-type: application/json\r\n\r\n{\"name\":\"m\"}\r\n--b\r\n\r\nbytes\r\n--b--\r\n";
    let folder = "{\"type\":\"folder\",\"path\":\"/g\",\"parents\":true}";
    let login = "grant_type=refresh_token&refresh_token=nothing";
    vec![
        request("GET /api/v1/metadata?path=/&limit=10", "accept: */*", ""),
        request(
            "POST /api/v1/files/upload?uploadType=media&path=/f",
            "accept: */*",
            "some bytes of a file",
        ),
        request("POST /api/v1/files/upload?uploadType=multipart", related, parts),
        request("POST /api/v1/metadata", json, folder),
        request("POST /api/v1/auth/token", form, login),
        request("GET /api/v1/me", "if-none-match: \"x\"", ""),
        request("GET /api/v1/files/aaaa/content", "range: bytes=1-2,5-", ""),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00".to_vec(),
        b"GET /readyz HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_vec(),
    ]
}

/// shows: F42
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_foreign_strings_at_the_http_port_change_nothing() {
    let world = World::start().await;
    let address: SocketAddr = world.cluster.facts.url.trim_start_matches("http://").parse().unwrap();
    let valid = Arc::new(requests(&world.cluster.facts.admin_token));
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    for number in 0..STRINGS {
        let (valid, place) = (Arc::clone(&valid), Arc::clone(&room).acquire_owned().await.unwrap());
        tasks.spawn(async move {
            let bytes = foreign(number, &valid);
            let head = answer_to(address, &bytes).await;
            drop(place);
            // A refusal is typed; a server error would be our own fault.
            let shown = String::from_utf8_lossy(&bytes);
            assert!(
                !head.starts_with(b"HTTP/1.1 500"),
                "{number}: {shown:?}: {}",
                String::from_utf8_lossy(&head)
            );
            head.starts_with(b"HTTP/1.1 ")
        });
    }
    let answered = tasks
        .join_all()
        .await
        .into_iter()
        .filter(|is_answered| *is_answered)
        .count();
    assert!(
        answered as u64 > STRINGS / 4,
        "only {answered} of {STRINGS} were answered"
    );
    assert_serves(&world, "/after").await;
}

/// Sends and ends the sending half; whatever comes back until the end, which must come.
async fn answer_to(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may have refused and closed before it was told everything.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut back = Vec::new();
    let reading = tokio::time::timeout(ANSWER_DEADLINE, stream.read_to_end(&mut back)).await;
    assert!(
        reading.is_ok(),
        "no end of the answer to {:?}",
        String::from_utf8_lossy(bytes)
    );
    back
}

/// Messages as gateways send them to nodes and replicas.
fn messages() -> Vec<(Method, Vec<u8>)> {
    let name = FragmentName {
        profile: ProfileId::Dev,
        stripe: StripeId::from_bytes([7; 16]),
        index: 1,
    };
    let form = StripeForm {
        stripe_bytes: 400,
        k: 4,
        m: 2,
        stripe_hash: StripeHash([9; 32]),
    };
    let (disk, row_version) = (DiskId(1), RowVersion(1));
    let query = |group, query: &Query| {
        let query = encode(query).unwrap();
        encode(&QueryRequest { group, query }).unwrap()
    };
    let store = StoreFragment {
        name,
        form,
        payload_hash: PayloadHash([1; 32]),
        disk,
        row_version,
    };
    let confirm = ConfirmFragment {
        name,
        form,
        disk,
        row_version,
    };
    let read = ReadFragment {
        name,
        disk,
        ranges: vec![ByteRange { offset: 0, len: 10 }],
    };
    let all = [
        (Method::StoreFragment, encode(&store).unwrap()),
        (Method::ConfirmFragment, encode(&confirm).unwrap()),
        (Method::ReadFragment, encode(&read).unwrap()),
        (Method::NodeStatus, encode(&NodeStatus {}).unwrap()),
        (
            Method::Query,
            query(
                CONTROL_GROUP,
                &Query::Control(ControlQuery::Layout(Some(ProfileId::Dev))),
            ),
        ),
        (Method::Query, query(GroupId(1), &Query::Control(ControlQuery::Groups))),
        (Method::MetadataStatus, Bytes::new()),
    ];
    all.into_iter()
        .map(|(method, message)| (method, message.to_vec()))
        .collect()
}

/// shows: F42
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_foreign_messages_and_datagrams_at_the_ports_between_processes_change_nothing() {
    let world = World::start().await;
    let insider = Arc::new(Insider::of_dev(&world.data_dir(), "gateway-1"));
    let peers: Vec<Peer> = insider.metadata.iter().copied().chain(insider.nodes().await).collect();
    assert_eq!(peers.len(), 9);
    let valid = messages();
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    for number in 0..STRINGS {
        let (method, message) = &valid[number as usize / 2 % valid.len()];
        // Random bytes go to every method; those that the caller's role may not use are refused before they are read.
        let method = if number.is_multiple_of(2) {
            Method::ALL[number as usize / 2 % Method::ALL.len()]
        } else {
            *method
        };
        let call = Call {
            method,
            request_id: 0,
            message: foreign(number, std::slice::from_ref(message)).into(),
            payload: noise(number, number as usize % 200).into(),
        };
        let place = Arc::clone(&room).acquire_owned().await.unwrap();
        let (insider, peer) = (Arc::clone(&insider), peers[number as usize % peers.len()]);
        tasks.spawn(async move {
            let answered = insider.transport.call(&peer, call, ANSWER_DEADLINE).await;
            drop(place);
            match answered {
                Ok(_) => false,
                Err(RpcError::Refused(failure)) => {
                    assert!(
                        failure.kind != model::error_kind::ErrorKind::Bug,
                        "{number}: {failure:?}"
                    );
                    true
                }
                Err(other) => panic!("{number}, {method:?} to {}: {other:?}", peer.process),
            }
        });
    }
    let refused = tasks
        .join_all()
        .await
        .into_iter()
        .filter(|is_refused| *is_refused)
        .count();
    assert!(refused as u64 > STRINGS / 2, "only {refused} were refused");

    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let valid = first_datagrams(&insider.transport).await;
    for number in 0..STRINGS {
        let mut datagram = foreign(number, &valid);
        datagram.truncate(1_452);
        // A port that takes no more at the moment drops it, as a network would.
        let _ = socket.send_to(&datagram, peers[number as usize % peers.len()].address);
    }
    assert_all_answer(&insider, &peers).await;
    assert_serves(&world, "/after").await;
}

/// Each process still answers what its peers ask it all the time.
async fn assert_all_answer(insider: &Insider, peers: &[Peer]) {
    for peer in peers {
        let (method, message) = match peer.process.role {
            Role::Node => (Method::NodeStatus, encode(&NodeStatus {}).unwrap()),
            _ => (Method::Ping, Bytes::new()),
        };
        let call = Call {
            method,
            request_id: 0,
            message,
            payload: Bytes::new(),
        };
        insider.transport.call(peer, call, ANSWER_DEADLINE).await.unwrap();
    }
}

/// What a process sends first when it dials: caught by a port that never answers.
async fn first_datagrams(transport: &QuicTransport) -> Vec<Vec<u8>> {
    let silent = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let peer = Peer {
        process: ProcessId {
            role: Role::Node,
            number: 77,
        },
        address: silent.local_addr().unwrap(),
    };
    let ping = Call {
        method: Method::Ping,
        request_id: 0,
        message: Bytes::new(),
        payload: Bytes::new(),
    };
    let mut datagram = vec![0; 2_000];
    let dialling = transport.call(&peer, ping, ANSWER_DEADLINE);
    let length = tokio::select! {
        received = silent.recv(&mut datagram) => received.unwrap(),
        outcome = dialling => panic!("nobody answers there, and yet: {outcome:?}"),
    };
    datagram.truncate(length);
    vec![datagram]
}
