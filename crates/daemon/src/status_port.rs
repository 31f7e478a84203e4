//! The status port: `/metrics`, `/healthz` and `/readyz` over plain HTTP, for whoever watches a process.
//!
//! Every process has one, also those that serve no HTTP otherwise. It answers from the event loop that does the work, so an answer
//! of `/healthz` is the proof that this loop runs; `/readyz` asks each role whether it can do its work now.
//! Invariants: it listens before its roles start and says `starting` for each until it stands; nothing that it shows is secret, and
//! no request changes anything; connections, heads and answers are bounded.
//! Not here: what ready means (each role's `Readiness`), and the gateway's own HTTP listener, which answers the same three.

use crate::metrics::{Metrics, TEXT_CONTENT_TYPE};
use crate::shutdown::Shutdown;
use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Scrapers and probes are few; whoever opens more waits.
const CONNECTIONS_MAX: usize = 64;
/// Request heads come at once or not at all.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// A probe waits a few seconds at most: a role that cannot tell by then is not ready.
const READY_PATIENCE: Duration = Duration::from_secs(3);
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Tells whether a role can do its work now.
#[async_trait]
pub trait Readiness: Send + Sync + 'static {
    /// `Ok` when it can, with what is worth knowing nevertheless (may be empty); `Err` with what is missing. Words for a person,
    /// in one line. May be dropped midway.
    async fn ready(&self) -> Result<String, String>;
}

/// Why a status port was not opened.
#[derive(Debug, thiserror::Error)]
#[error("listen on {address}: {error}; choose another status.listen or stop who has it")]
pub struct StatusPortError {
    /// Where it was to listen.
    pub address: SocketAddr,
    /// What the operating system says.
    pub error: std::io::Error,
}

/// The roles behind a status port, by name; clones are the same list.
#[derive(Clone, Default)]
pub struct Roles {
    known: Arc<Mutex<BTreeMap<String, Life>>>,
}

/// Where a role is in its life.
#[derive(Clone)]
enum Life {
    Starting,
    Standing(Arc<dyn Readiness>),
    Stopping,
}

impl Roles {
    /// Lists the role `name` as starting.
    pub fn announce(&self, name: &str) {
        self.known().insert(name.to_owned(), Life::Starting);
    }

    /// The role `name` stops: it is not asked any more, and what it was asked through is let go.
    pub fn stops(&self, name: &str) {
        self.known().insert(name.to_owned(), Life::Stopping);
    }

    /// The role `name` stands: from now on it is asked.
    pub fn stands(&self, name: &str, readiness: Arc<dyn Readiness>) {
        self.known().insert(name.to_owned(), Life::Standing(readiness));
    }

    /// Whether all roles can do their work, and a line for each. Asks them side by side, for three seconds at most.
    pub async fn ready(&self) -> (bool, String) {
        let known: Vec<_> = self
            .known()
            .iter()
            .map(|(name, role)| (name.clone(), role.clone()))
            .collect();
        let asked: Vec<_> = known
            .into_iter()
            .map(|(name, role)| tokio::spawn(async move { (name, answer_of(role, READY_PATIENCE).await) }))
            .collect();
        let (mut is_ready, mut text) = (!asked.is_empty(), String::new());
        for task in asked {
            let Ok((name, answer)) = task.await else {
                return (false, "asking a role panicked\n".to_owned());
            };
            is_ready &= answer.is_ok();
            text += &match answer {
                Ok(note) if note.is_empty() => format!("{name}: ready\n"),
                Ok(note) => format!("{name}: ready; {note}\n"),
                Err(why) => format!("{name}: not ready: {why}\n"),
            };
        }
        (is_ready, text)
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Life>> {
        // Every change is one map operation.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer_of(role: Life, patience: Duration) -> Result<String, String> {
    match role {
        Life::Starting => Err("starting".to_owned()),
        Life::Stopping => Err("stopping".to_owned()),
        Life::Standing(role) => timeout(patience, role.ready())
            .await
            .unwrap_or_else(|_| Err(format!("it did not tell within {} ms", patience.as_millis()))),
    }
}

/// What the page `/metrics` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// The part of one role.
    Role,
    /// All parts of the process.
    Process,
}

/// An open status port; closes when dropped.
pub struct StatusPort {
    address: SocketAddr,
    closed: Shutdown,
}

impl StatusPort {
    /// Opens a port at `listen` (0 takes a free one). Must be called inside a tokio runtime.
    ///
    /// Once `stopping` is requested `/readyz` says so; the port itself stays until this value is dropped, so that a role can be
    /// watched while it ends.
    ///
    /// Errors: the address cannot be listened on.
    pub fn open(
        listen: SocketAddr,
        roles: Roles,
        metrics: Metrics,
        page: Page,
        stopping: Shutdown,
    ) -> Result<Self, StatusPortError> {
        let failed = |error| StatusPortError { address: listen, error };
        let listener = std::net::TcpListener::bind(listen).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let listener = TcpListener::from_std(listener).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let closed = Shutdown::new();
        let pages = Pages {
            roles,
            metrics,
            page,
            stopping,
            closed: closed.clone(),
        };
        tokio::spawn(accept(listener, Arc::new(pages)));
        Ok(Self { address, closed })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for StatusPort {
    fn drop(&mut self) {
        self.closed.request();
    }
}

struct Pages {
    roles: Roles,
    metrics: Metrics,
    page: Page,
    stopping: Shutdown,
    closed: Shutdown,
}

async fn accept(listener: TcpListener, pages: Arc<Pages>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let stream = tokio::select! {
            () = pages.closed.requested() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, or a connection that died while it waited: neither ends the port.
                    tracing::warn!(%error, "accept connection of the status port");
                    tokio::task::yield_now().await;
                    continue;
                }
            },
        };
        let pages = Arc::clone(&pages);
        tokio::spawn(async move {
            pages.serve(stream).await;
            drop(place);
        });
    }
}

impl Pages {
    async fn serve(self: Arc<Self>, stream: TcpStream) {
        let service = service_fn(|request: Request<Incoming>| {
            let pages = Arc::clone(&self);
            async move { Ok::<_, Infallible>(pages.answer(request.method(), request.uri().path()).await) }
        });
        let mut builder = Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_PATIENCE)
            .max_buf_size(HEAD_BYTES_MAX);
        tokio::select! {
            served = builder.serve_connection(TokioIo::new(stream), service) => {
                if let Err(error) = served {
                    tracing::debug!(%error, "connection of the status port ended");
                }
            }
            // An idle connection would otherwise outlive its role by the time that its client keeps it.
            () = self.closed.requested() => {}
        }
    }

    async fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if method != Method::GET && method != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "use GET\n".to_owned());
        }
        match path {
            "/healthz" => text(StatusCode::OK, "ok\n".to_owned()),
            "/readyz" if self.stopping.is_requested() => text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n".to_owned()),
            "/readyz" => {
                let (is_ready, lines) = self.roles.ready().await;
                text(status_of(is_ready), lines)
            }
            "/metrics" => {
                let (metrics, page) = (self.metrics.clone(), self.page);
                let encoded = tokio::task::spawn_blocking(move || match page {
                    Page::Role => metrics.encode(),
                    Page::Process => metrics.encode_process(),
                });
                match encoded.await {
                    Ok(encoded) => {
                        let mut response = text(StatusCode::OK, encoded);
                        let media = HeaderValue::from_static(TEXT_CONTENT_TYPE);
                        response.headers_mut().insert(CONTENT_TYPE, media);
                        response
                    }
                    Err(_) => text(
                        StatusCode::INTERNAL_SERVER_ERROR,
                        "reading a metric panicked\n".to_owned(),
                    ),
                }
            }
            _ => text(
                StatusCode::NOT_FOUND,
                "there are /metrics, /healthz and /readyz\n".to_owned(),
            ),
        }
    }
}

fn status_of(is_ready: bool) -> StatusCode {
    if is_ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests;
