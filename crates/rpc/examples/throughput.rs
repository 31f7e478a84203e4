//! Measures the transport on loopback: megabytes a second of 1 MiB payloads, and small calls a second.
//!
//! Both ends in this process. The bench (`make bench`) reads the printed JSON as the machine's QUIC limit.

use async_trait::async_trait;
use bytes::Bytes;
use daemon::clock::{Clock, SystemClock};
use model::id::ClusterId;
use model::process::{ProcessId, Role};
use protocol::frame::{Answer, Call, Method};
use protocol::wire_error::Failure;
use rpc::authority::ClusterAuthority;
use rpc::identity::{Identity, Revocations};
use rpc::limits::RpcLimits;
use rpc::quic::{QuicOptions, QuicTransport};
use rpc::transport::{Handler, Peer, Transport};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(86_400);
const DEADLINE: Duration = Duration::from_secs(30);

/// What a step of this program gives; it ends with the first error.
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Answers nothing but that it was called.
struct Sink;

#[async_trait]
impl Handler for Sink {
    async fn handle(&self, _caller: ProcessId, _call: Call) -> Result<Answer, Failure> {
        Ok(Answer {
            message: Bytes::new(),
            payload: Bytes::new(),
        })
    }
}

fn bind(authority: &ClusterAuthority, process: ProcessId) -> Outcome<(Arc<QuicTransport>, SocketAddr)> {
    let clock = SystemClock::new();
    let identity = Identity::from_pem(&authority.issue(process, clock.wall(), DAY)?)?;
    let options = QuicOptions {
        identity,
        listen: ([127, 0, 0, 1], 0).into(),
        clock: Arc::new(clock),
        limits: RpcLimits::default(),
        revocations: Revocations::default(),
        has_jumbo_frames: false,
    };
    Ok(QuicTransport::bind(options, Arc::new(Sink))?)
}

/// Makes `calls` calls with `payload`, `at_once` at once; returns the seconds that they took.
async fn run(caller: &Arc<QuicTransport>, peer: Peer, payload: Bytes, calls: usize, at_once: usize) -> Outcome<f64> {
    let clock = SystemClock::new();
    let tasks: Vec<_> = (0..at_once)
        .map(|_| {
            let (caller, payload) = (Arc::clone(caller), payload.clone());
            tokio::spawn(async move {
                for _ in 0..calls / at_once {
                    let call = Call {
                        method: Method::StoreFragment,
                        request_id: 0,
                        message: Bytes::new(),
                        payload: payload.clone(),
                    };
                    caller.call(&peer, call, DEADLINE).await?;
                }
                Ok::<(), rpc::transport::RpcError>(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(clock.monotonic().as_secs_f64())
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let authority = ClusterAuthority::create(ClusterId(1), SystemClock::new().wall(), DAY)?;
    let node = ProcessId {
        role: Role::Node,
        number: 1,
    };
    let (_server, address) = bind(&authority, node)?;
    let (caller, _) = bind(
        &authority,
        ProcessId {
            role: Role::Gateway,
            number: 1,
        },
    )?;
    let peer = Peer { process: node, address };
    run(&caller, peer, Bytes::from(vec![7; 1 << 20]), 256, 8).await?;
    let large_s = run(&caller, peer, Bytes::from(vec![7; 1 << 20]), 4_096, 8).await?;
    let small_s = run(&caller, peer, Bytes::new(), 200_000, 64).await?;
    let mib_per_s = 4_096.0 / large_s;
    println!(
        "{{\"quic_bytes_per_s\":{:.0},\"quic_calls_per_s\":{:.0}}}",
        mib_per_s * 1_048_576.0,
        200_000.0 / small_s
    );
    Ok(())
}
