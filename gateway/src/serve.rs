//! A gateway from its configuration to its end.
//!
//! Invariants: it listens before `start` returns, so that port 0 can be told; it answers `/healthz` at once and is ready once the
//! control group answers it; when asked to stop it takes no new connection and lets running requests end, for a while.
//! Not here: what becomes of a connection of HTTP/1.1 whose request waits (`parking`).

mod observed;
mod parking;

use crate::admission::{Admission, ClientAddress};
use crate::auth::password::{COST, Passwords};
use crate::auth::setup::SetupToken;
use crate::config::{GatewayConfig, KekError, read_kek};
use crate::connections::{Connections, Seat};
use crate::drive::Core;
use crate::drive::account::{
    DRIVE_REMEMBERED, DRIVES_REMEMBERED_MAX, POLL_TOKEN_REMEMBERED, TOKEN_REMEMBERED, TOKENS_REMEMBERED_MAX,
};
use crate::drive::answers::Answers;
use crate::drive::budget::Budget;
use crate::drive::directory::Directory;
use crate::drive::feed::SharedPages;
use crate::drive::metadata_client::MetadataClient;
use crate::drive::notices::Notices;
use crate::drive::opened::Opened;
use crate::drive::readiness::LastLook;
use crate::drive::receipt::ReceiptKey;
use crate::drive::remembered::Remembered;
use crate::drive::seals::Seals;
use crate::drive::upload::source::Inlet;
use crate::http::{self, App, NodeSwitch};
use crate::metrics;
use crate::seams::Seams;
use axum::body::{Body, HttpBody as _};
use axum::routing::future::RouteFuture;
use daemon::secret::{self, SecretError};
use daemon::shutdown::Shutdown;
use futures_util::{FutureExt as _, TryFutureExt as _};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use model::limits::{HEADER_BYTES_MAX, HTTP2_NARROW_WINDOW_BYTES, HTTP2_WINDOW_BYTES};
use observed::Observed;
use parking::Socket;
use rpc::transport::Peer;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use socket2::{SockRef, TcpKeepalive};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// How long running requests may take after the stop was asked for.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// How often it is asked without a reason whether map, rows and routes are still what they were.
const REFRESH_EVERY: Duration = Duration::from_secs(5);
/// In one of so many turns all of it is fetched, whatever the control group's entries tell: a minute. A guess.
const REFRESH_ALL_TURNS: u32 = 12;
const REFRESH_AGAIN: Duration = Duration::from_millis(200);
/// Pause after a connection that could not be accepted: without descriptors the next one cannot either.
const ACCEPT_AGAIN: Duration = Duration::from_millis(20);
/// How long a connection is silent before the kernel asks whether its client is still there, how long it waits for an answer, and how
/// often it asks: a client that vanished is noticed within two minutes, however long its poll would wait. Guesses: nothing that
/// forgets silent connections on the way does so within 30 s, and three losses in a row are no chance.
const PROBE_AFTER: Duration = Duration::from_secs(30);
const PROBE_AGAIN: Duration = Duration::from_secs(30);
const PROBES_MAX: u32 = 3;
/// What a client that speaks HTTP/2 without TLS says first; no request of HTTP/1.1 has this method (RFC 9113, 3.4).
const HTTP2_METHOD: &[u8] = b"PRI ";
/// HTTP/2 as clients with TLS ask for it.
const HTTP2_NAME: &[u8] = b"h2";

/// Why a gateway did not start; its text is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The KEK cannot be used.
    #[error(transparent)]
    Kek(#[from] KekError),
    /// The address cannot be listened on.
    #[error("listen on {0}: {1}; choose another gateway.listen or stop who has it")]
    Listen(SocketAddr, std::io::Error),
    /// The TLS key file cannot be used.
    #[error("tls: {0}")]
    TlsKey(#[from] SecretError),
    /// Certificate or key are not what they should be.
    #[error("tls file {0}: {1}; give a PEM certificate chain and its key")]
    Tls(PathBuf, String),
}

/// What a gateway is told beside its own section.
pub struct Place {
    /// Its number in the cluster.
    pub number: u64,
    /// Replicas of the control group to begin with.
    pub metadata: Vec<Peer>,
    /// Stops and starts nodes, in dev.
    pub nodes: Option<Arc<dyn NodeSwitch>>,
}

/// A gateway that listens.
pub struct Gateway {
    address: SocketAddr,
    app: Arc<App>,
    work: tokio::task::JoinHandle<()>,
}

impl Gateway {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its use cases and password hasher, for whoever makes the first user.
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// Waits until it has stopped.
    pub async fn ended(self) {
        // A panic in the accept loop was told by the runtime already.
        let _ = self.work.await;
    }
}

/// Puts the use cases together; needs no listener.
pub fn core(config: &GatewayConfig, place: &Place, seams: &Seams) -> Result<Arc<Core>, StartError> {
    seams.metrics.define(metrics::ALL);
    let (kek, text) = read_kek(&config.kek_file)?;
    let metadata = MetadataClient::new(seams.clone(), place.number, place.metadata.clone());
    let metadata = Arc::new(metadata.reading(config.metadata_reads));
    metadata.show_silent();
    let answers = Answers::new(Arc::clone(&metadata), seams, config.cache.answers_bytes);
    Ok(Arc::new(Core {
        answers: Arc::new(answers),
        opened: Opened::new(seams, config.cache.blocks_bytes),
        directory: Directory::new(Arc::clone(&metadata)),
        metadata,
        seals: Seals::new(kek, seams.random.clone(), Arc::clone(&seams.cipher)),
        budget: Budget::new(config.upload_budget_bytes, &seams.metrics),
        receipts: ReceiptKey::derive(&text),
        turns: Arc::default(),
        notices: Arc::new(Notices::new(config.limits.polls, &seams.metrics)),
        shared_pages: SharedPages::default(),
        tokens: Remembered::new(TOKEN_REMEMBERED, TOKENS_REMEMBERED_MAX),
        poll_tokens: Remembered::new(POLL_TOKEN_REMEMBERED, TOKENS_REMEMBERED_MAX),
        drives: Remembered::new(DRIVE_REMEMBERED, DRIVES_REMEMBERED_MAX),
        last_look: LastLook::default(),
        setup: SetupToken::derive(&text),
        limits: config.limits,
        seams: seams.clone(),
    }))
}

/// Starts a gateway; on return it listens.
///
/// Errors: see `StartError`; nothing is left running then.
pub async fn start(
    config: GatewayConfig,
    place: Place,
    seams: Seams,
    shutdown: Shutdown,
) -> Result<Gateway, StartError> {
    let core = core(&config, &place, &seams)?;
    let tls = config
        .tls
        .as_ref()
        .map(|(certificate, key)| acceptor(certificate, key))
        .transpose()?;
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|error| StartError::Listen(config.listen, error))?;
    let address = listener
        .local_addr()
        .map_err(|error| StartError::Listen(config.listen, error))?;
    let admission = Admission::new(&config.admission, &seams);
    let app = Arc::new(App {
        core,
        admission,
        passwords: Passwords::new(seams, COST),
        nodes: place.nodes,
        shutdown: shutdown.clone(),
        has_tls: config.tls.is_some(),
        browser_origins: config.browser_origins,
    });
    let router = http::router(Arc::clone(&app), config.functions);
    let connections = Connections::new(config.limits.connections_max, &app.core.seams.metrics);
    let core = Arc::clone(&app.core);
    let front = Front {
        tls,
        router,
        head_patience: config.limits.head_patience,
        wide_windows: Arc::new(Semaphore::new(config.limits.wide_windows_max)),
        shutdown: shutdown.clone(),
    };
    let work = async move {
        // A task of its own: it adds up much at a time, and the others share theirs with who accepts connections.
        let (mut looking, looker) = (JoinSet::new(), Arc::clone(&core));
        looking.spawn(async move { looker.keep_looking_for_orphans().await });
        tokio::select! {
            () = accept(listener, &connections, front, shutdown) => {}
            () = keep_fresh(&core) => {}
            () = core.keep_probing() => {}
            () = core.keep_collecting() => {}
            () = core.keep_watching() => {}
            () = core.keep_letting_go() => {}
            _ = looking.join_next() => {}
        }
        looking.shutdown().await;
    };
    Ok(Gateway {
        address,
        app,
        work: tokio::spawn(work),
    })
}

/// Starts a gateway and waits until it has stopped.
pub async fn serve(config: GatewayConfig, place: Place, seams: Seams, shutdown: Shutdown) -> Result<(), StartError> {
    start(config, place, seams, shutdown).await?.ended().await;
    Ok(())
}

async fn keep_fresh(core: &Core) {
    let (mut is_told, mut turn) = (false, 0);
    loop {
        let refreshed = if turn == 0 {
            core.directory.refresh(0).await.map(drop)
        } else {
            core.directory.keep_up(0).await
        };
        turn = (turn + 1) % REFRESH_ALL_TURNS;
        let pause = match refreshed {
            Ok(()) => {
                is_told = false;
                REFRESH_EVERY
            }
            Err(failure) => {
                if !is_told {
                    tracing::warn!(%failure, "metadata groups do not answer");
                }
                is_told = true;
                REFRESH_AGAIN
            }
        };
        core.seams.clock.sleep(pause).await;
    }
}

/// What a connection needs.
#[derive(Clone)]
struct Front {
    tls: Option<TlsAcceptor>,
    router: axum::Router,
    head_patience: Duration,
    /// One for each connection of HTTP/2 whose client may send much ahead.
    wide_windows: Arc<Semaphore>,
    shutdown: Shutdown,
}

/// Sockets are real, so the pause between two looks at one is.
#[allow(clippy::disallowed_methods, reason = "the listener is no part of a simulation")]
async fn pause() {
    tokio::time::sleep(ACCEPT_AGAIN).await;
}

async fn accept(listener: TcpListener, connections: &Arc<Connections>, front: Front, shutdown: Shutdown) {
    let graceful = GracefulShutdown::new();
    loop {
        let stream = tokio::select! {
            () = shutdown.requested() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, or a connection that died while it waited: neither ends the gateway.
                    tracing::warn!(%error, "accept connection");
                    pause().await;
                    continue;
                }
            },
        };
        let Some(seat) = connections.enter() else {
            // Closed without a word: an answer would cost what there is too little of.
            continue;
        };
        let (watcher, front) = (graceful.watcher(), front.clone());
        tokio::spawn(async move {
            let seat = Arc::new(seat);
            let served = tokio::select! {
                served = front.served(stream, watcher, Arc::clone(&seat)) => served,
                () = seat.displaced() => return,
            };
            if let Err(error) = served {
                tracing::debug!(error, "connection ended");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(STOP_PATIENCE, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were cut off at the stop");
    }
}

impl Front {
    async fn served(&self, stream: TcpStream, watcher: Watcher, seat: Arc<Seat>) -> Result<(), axum::BoxError> {
        let from = ClientAddress(stream.peer_addr()?.ip());
        let greeted = tokio::select! {
            greeted = Box::pin(tokio::time::timeout(self.head_patience, self.greeted(stream))) => greeted,
            // Who has said nothing yet is waited for by nobody at a stop.
            () = self.shutdown.requested() => return Ok(()),
        };
        let Ok(greeted) = greeted else {
            return Ok(());
        };
        match greeted? {
            (Stream::Plain(stream), language) => self.connection(language, stream, from, watcher, seat).await,
            (Stream::Secured(stream), language) => self.connection(language, stream, from, watcher, seat).await,
        }
    }

    /// A connection of which is known what it speaks.
    async fn greeted(&self, stream: TcpStream) -> std::io::Result<(Stream, Language)> {
        let stream = self.secured(stream).await?;
        let language = match &stream {
            Stream::Plain(stream) => language(stream).await?,
            Stream::Secured(stream) if stream.get_ref().1.alpn_protocol() == Some(HTTP2_NAME) => Language::Http2,
            Stream::Secured(_) => Language::Http1,
        };
        Ok((stream, language))
    }

    async fn secured(&self, stream: TcpStream) -> std::io::Result<Stream> {
        stream.set_nodelay(true)?;
        probe(&stream)?;
        match &self.tls {
            None => Ok(Stream::Plain(stream)),
            Some(acceptor) => {
                let stream = acceptor.accept(stream).await?;
                Ok(Stream::Secured(Box::new(stream)))
            }
        }
    }

    /// Serves a connection to its end. One whose first request does not come in time is closed, in HTTP/2 too, of which hyper awaits
    /// only answers to its pings.
    ///
    /// What the connection needs is boxed: the task is no larger than that, and not as large as the larger of both languages.
    async fn connection<S: Socket>(
        &self,
        language: Language,
        stream: S,
        from: ClientAddress,
        watcher: Watcher,
        seat: Arc<Seat>,
    ) -> Result<(), axum::BoxError> {
        let asked = Arc::new(Notify::new());
        let clerk = Clerk {
            router: self.router.clone(),
            from,
            seat,
            asked: Arc::clone(&asked),
            has_asked: AtomicBool::new(false),
            inlet: Inlet::default(),
        };
        let served = match language {
            Language::Http1 => parking::serve(self, stream, clerk, watcher).err_into().boxed(),
            Language::Http2 => {
                let wide = Arc::clone(&self.wide_windows).try_acquire_owned().ok();
                let builder = self.http2(wide.is_some());
                let stream = Observed::new(stream, clerk.inlet.clone());
                let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                    clerk.take(request.map(Body::new))
                });
                let served = watcher.watch(builder.serve_connection(stream, service));
                // The window is the connection's until its end.
                served.inspect(move |_| drop(wide)).err_into().boxed()
            }
        };
        let never_asked = async {
            if tokio::time::timeout(self.head_patience, asked.notified()).await.is_ok() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            served = served => served,
            () = never_asked => Ok(()),
        }
    }

    fn http1(&self) -> http1::Builder {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(self.head_patience)
            .max_buf_size(HEADER_BYTES_MAX);
        builder
    }

    fn http2(&self, is_wide: bool) -> http2::Builder<TokioExecutor> {
        let headers_max = HEADER_BYTES_MAX as u32;
        let window_bytes = if is_wide {
            HTTP2_WINDOW_BYTES
        } else {
            HTTP2_NARROW_WINDOW_BYTES
        };
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_header_list_size(headers_max)
            .initial_connection_window_size(window_bytes)
            .initial_stream_window_size(window_bytes)
            .keep_alive_interval(self.head_patience);
        builder
    }
}

/// Takes the requests of a connection on.
struct Clerk {
    router: axum::Router,
    from: ClientAddress,
    seat: Arc<Seat>,
    /// Told of the first request.
    asked: Arc<Notify>,
    has_asked: AtomicBool,
    /// Where its socket is read.
    inlet: Inlet,
}

impl Clerk {
    fn take(&self, mut request: hyper::Request<Body>) -> RouteFuture<Infallible> {
        request.extensions_mut().insert(self.from);
        // A request that waits for long has mostly no body, and need not hold this either.
        if !request.body().is_end_stream() {
            request.extensions_mut().insert(self.inlet.clone());
        }
        // Only the first request changes anything, and all connections share the lock of their seats.
        if !self.has_asked.swap(true, Ordering::Relaxed) {
            self.seat.asked();
            self.asked.notify_one();
        }
        tower::Service::call(&mut self.router.clone(), request)
    }
}

/// What a client speaks.
#[derive(Clone, Copy)]
enum Language {
    Http1,
    Http2,
}

/// The language of a client without TLS, by its first bytes, which stay where they are. hyper-util's own look takes them, and has
/// a buffer of twice the size for each connection of HTTP/1.1 from then on.
async fn language(stream: &TcpStream) -> std::io::Result<Language> {
    let mut first = [0; HTTP2_METHOD.len()];
    loop {
        let is_all = stream.ready(Interest::READABLE).await?.is_read_closed();
        let said = stream.peek(&mut first).await?;
        if said == 0 || !HTTP2_METHOD.starts_with(&first[..said]) {
            return Ok(Language::Http1);
        }
        if said == HTTP2_METHOD.len() {
            return Ok(Language::Http2);
        }
        if is_all {
            return Ok(Language::Http1);
        }
        // Nothing tells when more has come than was looked at already.
        pause().await;
    }
}

/// Has the kernel end a connection whose client is gone without a word (RFC 9293, 3.8.4): a poll of HTTP/1.1 says nothing for minutes,
/// and a gateway that writes nothing notices nothing.
fn probe(stream: &TcpStream) -> std::io::Result<()> {
    let probes = TcpKeepalive::new()
        .with_time(PROBE_AFTER)
        .with_interval(PROBE_AGAIN)
        .with_retries(PROBES_MAX);
    SockRef::from(stream).set_tcp_keepalive(&probes)
}

enum Stream {
    Plain(TcpStream),
    Secured(Box<tokio_rustls::server::TlsStream<TcpStream>>),
}

fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, StartError> {
    let wrong = |path: &Path, error: &dyn std::fmt::Display| StartError::Tls(path.to_owned(), error.to_string());
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
        .map_err(|error| wrong(certificate, &error))?;
    let secret = secret::read(key)?;
    let private = PrivateKeyDer::from_pem_slice(secret.expose()).map_err(|error| wrong(key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(certificate, &error))?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| wrong(certificate, &error))?;
    config.alpn_protocols = vec![HTTP2_NAME.to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::{PROBE_AFTER, PROBE_AGAIN, PROBES_MAX, probe};
    use socket2::SockRef;
    use tokio::net::{TcpListener, TcpStream};

    #[tokio::test]
    async fn the_kernel_asks_whether_a_silent_client_is_still_there() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let socket = SockRef::from(&stream);
        assert!(!socket.keepalive().unwrap(), "a socket of its own accord asks nothing");
        probe(&stream).unwrap();
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), PROBE_AFTER);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), PROBE_AGAIN);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), PROBES_MAX);
    }
}
