//! What loopback does: calls over our own QUIC transport, and HTTP bodies into a sink.
//!
//! Both ends run in this process on all of its cores; the cost a byte is the CPU time of both together, which is what a bound
//! for a cluster and its load on one machine needs.
//! Invariant: the sink counts what arrives, so that a rate of lost bytes is an error and not a figure.

use super::limit::{self, Limit, LimitName, Unit};
use anyhow::{Context, anyhow, ensure};
use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::routing::post;
use bytes::Bytes;
use daemon::clock::{Clock, SystemClock};
use futures_util::StreamExt;
use model::id::ClusterId;
use model::process::{ProcessId, Role};
use protocol::frame::{Answer, Call, Method};
use protocol::wire_error::Failure;
use rpc::authority::ClusterAuthority;
use rpc::identity::{Identity, Revocations};
use rpc::limits::RpcLimits;
use rpc::quic::{QuicOptions, QuicTransport};
use rpc::transport::{Handler, Peer, RpcError, Transport};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

const PASSES: usize = 2;
const DAY: Duration = Duration::from_secs(86_400);
const DEADLINE: Duration = Duration::from_secs(30);
/// A full stripe's fragment in 4+2.
const PAYLOAD_BYTES: usize = 1 << 20;
/// Enough to keep both of a peer's connections busy; measured by rpc's example.
const LARGE_CALLS_AT_ONCE: usize = 8;
const SMALL_CALLS_AT_ONCE: usize = 64;
const BODY_PART_BYTES: usize = 256 << 10;
const BODIES_AT_ONCE: u64 = 2;
/// On two cores, the low ends of decision 0021.
const QUIC_REFERENCE: f64 = 1.2e9;
const QUIC_CALLS_REFERENCE: f64 = 118_000.0;
const HTTP_REFERENCE: f64 = 4.3e9;
const BASIS: &str = "both ends, all cores";

/// Measures QUIC and HTTP.
pub(super) async fn measure(quick: bool) -> anyhow::Result<Vec<Limit>> {
    println!("measuring loopback: QUIC, HTTP sink");
    let mut limits = quic(quick).await.map_err(|error| anyhow!("measure QUIC: {error}"))?;
    limits.push(
        http_sink(if quick { 256 << 20 } else { 2 << 30 })
            .await
            .context("measure the HTTP sink")?,
    );
    Ok(limits)
}

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

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

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

async fn quic(quick: bool) -> Outcome<Vec<Limit>> {
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
    let payload = Bytes::from(vec![7; PAYLOAD_BYTES]);
    let (large, small) = if quick { (512, 19_200) } else { (2_048, 96_000) };

    calls(&caller, peer, &payload, 128, LARGE_CALLS_AT_ONCE).await?;
    let mut best = Spent {
        wall_s: f64::INFINITY,
        cpu_s: f64::INFINITY,
    };
    let mut small_s = f64::INFINITY;
    for _ in 0..PASSES {
        best = best.least(calls(&caller, peer, &payload, large, LARGE_CALLS_AT_ONCE).await?);
        small_s = small_s.min(
            calls(&caller, peer, &Bytes::new(), small, SMALL_CALLS_AT_ONCE)
                .await?
                .wall_s,
        );
    }
    let bytes = (large * PAYLOAD_BYTES) as f64;
    let per_s = small as f64 / small_s;
    let (title, unit) = ("QUIC, 1 MiB payloads", Unit::BytesPerSecond);
    let rate = Limit::new(
        LimitName::QuicBytes,
        title,
        unit,
        bytes / best.wall_s,
        BASIS,
        Some(QUIC_REFERENCE),
    );
    let (title, unit) = ("QUIC, calls without payload", Unit::CallsPerSecond);
    let count = Limit::new(
        LimitName::QuicCalls,
        title,
        unit,
        per_s,
        BASIS,
        Some(QUIC_CALLS_REFERENCE),
    );
    Ok(vec![rate.costing(best.cpu_s * 1e9 / bytes), count])
}

/// What a pass took.
#[derive(Clone, Copy)]
struct Spent {
    wall_s: f64,
    cpu_s: f64,
}

impl Spent {
    fn since(begun: Instant, cpu: Duration) -> Self {
        Self {
            wall_s: begun.elapsed().as_secs_f64(),
            cpu_s: (limit::process_cpu() - cpu).as_secs_f64(),
        }
    }

    fn least(self, other: Self) -> Self {
        Self {
            wall_s: self.wall_s.min(other.wall_s),
            cpu_s: self.cpu_s.min(other.cpu_s),
        }
    }
}

/// Makes `count` calls with `payload`, `at_once` at once; `at_once` divides `count`.
async fn calls(
    caller: &Arc<QuicTransport>,
    peer: Peer,
    payload: &Bytes,
    count: usize,
    at_once: usize,
) -> Outcome<Spent> {
    let (begun, cpu) = (Instant::now(), limit::process_cpu());
    let tasks: Vec<_> = (0..at_once)
        .map(|_| {
            let (caller, payload) = (Arc::clone(caller), payload.clone());
            tokio::spawn(async move {
                for _ in 0..count / at_once {
                    let (method, message) = (Method::StoreFragment, Bytes::new());
                    let call = Call {
                        method,
                        request_id: 0,
                        message,
                        payload: payload.clone(),
                    };
                    caller.call(&peer, call, DEADLINE).await?;
                }
                Ok::<(), RpcError>(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(Spent::since(begun, cpu))
}

async fn http_sink(body_bytes: u64) -> anyhow::Result<Limit> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("http://{}/", listener.local_addr()?);
    let router = Router::new().route("/", post(count_body));
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let client = client_sdk::http::builder(&client_sdk::http::Authorities::Nobody)?
        .tcp_nodelay(true)
        .build()?;
    let mut best = Spent {
        wall_s: f64::INFINITY,
        cpu_s: f64::INFINITY,
    };
    for _ in 0..=PASSES {
        let (begun, cpu) = (Instant::now(), limit::process_cpu());
        let tasks: Vec<_> = (0..BODIES_AT_ONCE)
            .map(|_| tokio::spawn(send(client.clone(), url.clone(), body_bytes)))
            .collect();
        for task in tasks {
            task.await??;
        }
        best = best.least(Spent::since(begun, cpu));
    }
    server.abort();
    let bytes = (body_bytes * BODIES_AT_ONCE) as f64;
    let (title, rate) = ("HTTP body into a sink", bytes / best.wall_s);
    let reference = Some(HTTP_REFERENCE);
    let limit = Limit::new(LimitName::HttpSink, title, Unit::BytesPerSecond, rate, BASIS, reference);
    Ok(limit.costing(best.cpu_s * 1e9 / bytes))
}

async fn send(client: reqwest::Client, url: String, body_bytes: u64) -> anyhow::Result<()> {
    let part = Bytes::from(vec![7; BODY_PART_BYTES]);
    let parts = usize::try_from(body_bytes)? / BODY_PART_BYTES;
    let stream = futures_util::stream::iter((0..parts).map(move |_| Ok::<_, std::io::Error>(part.clone())));
    let request = client.post(url).header(reqwest::header::CONTENT_LENGTH, body_bytes);
    let answer = request
        .body(reqwest::Body::wrap_stream(stream))
        .send()
        .await?
        .error_for_status()?
        .text()
        .await?;
    ensure!(
        answer == body_bytes.to_string(),
        "{body_bytes} bytes were sent, {answer} arrived"
    );
    Ok(())
}

async fn count_body(body: Body) -> Result<String, axum::http::StatusCode> {
    let mut parts = body.into_data_stream();
    let mut arrived_bytes = 0;
    while let Some(part) = parts.next().await {
        arrived_bytes += part.map_err(|_| axum::http::StatusCode::BAD_REQUEST)?.len();
    }
    Ok(arrived_bytes.to_string())
}
