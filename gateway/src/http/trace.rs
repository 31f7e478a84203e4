//! The request id: drawn for each request or taken from the client, in every log line and call that the request causes, and in its
//! answer.
//!
//! Invariants: what is logged of a request is one line at debug, and one at warn when we were slow; the time in which the client was
//! awaited is not ours. Not here: ids on other processes (rpc opens a span for each call that carries one).

use super::App;
use crate::metrics;
use axum::BoxError;
use axum::body::{Body, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use daemon::clock::Clock;
use hyper::body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tracing::{Instrument, Span};

/// The header of the id, in requests and answers.
pub const HEADER: &str = "x-request-id";
/// Methods that are told apart in metrics: those that routes have.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
/// A request that takes us longer than this is worth a line.
const SLOW: Duration = Duration::from_secs(1);

tokio::task_local! {
    static TRACE: u128;
}

/// The id of the present request; 0 outside of one.
pub fn current() -> u128 {
    TRACE.try_with(|trace| *trace).unwrap_or(0)
}

/// The same as text.
pub fn current_text() -> String {
    text(current())
}

/// Whether a request waits at present for something to happen, for whoever has its connection and need not keep it ready meanwhile.
#[derive(Clone, Default)]
pub struct Waits(Arc<AtomicBool>);

impl Waits {
    /// It does from now on, or no longer.
    pub fn set(&self, waits: bool) {
        self.0.store(waits, Ordering::Relaxed);
    }

    /// Whether it does.
    pub fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The time of a request in which it was waited for the client, or for something to happen.
#[derive(Clone)]
pub struct Awaited {
    span_ns: Arc<AtomicU64>,
    waits: Option<Waits>,
}

impl Awaited {
    /// From now on something is waited for.
    pub fn begin(&self) {
        self.told(true);
    }

    /// So much more of it, and now it is over.
    pub fn end(&self, span: Duration) {
        self.told(false);
        let span_ns = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        self.span_ns.fetch_add(span_ns, Ordering::Relaxed);
    }

    fn told(&self, is_waiting: bool) {
        if let Some(waits) = &self.waits {
            waits.set(is_waiting);
        }
    }
}

/// Runs `work` as a part of the request `trace`.
#[cfg(test)]
pub(super) async fn within<T>(trace: u128, work: impl Future<Output = T>) -> T {
    TRACE.scope(trace, work).await
}

fn text(trace: u128) -> String {
    format!("{trace:032x}")
}

/// Gives the request its id, counts, times and logs it, and puts the id into the answer.
pub async fn layer(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let seams = &app.core.seams;
    let trace = asked(request.headers()).unwrap_or_else(|| seams.random.u128().max(1));
    let path = request.extensions().get::<MatchedPath>().cloned();
    let route = path.as_ref().map_or("none", MatchedPath::as_str);
    let method = METHODS.into_iter().find(|known| *known == request.method().as_str());
    let method = method.unwrap_or("other");
    let process = format!("gateway-{}", app.core.metadata.source());
    let span = tracing::info_span!("request", request_id = %text(trace), %process, %method, %route);
    let awaited = Arc::new(AtomicU64::new(0));
    let mut request = timed(request, &seams.clock, &awaited);
    let waits = request.extensions_mut().remove::<Waits>();
    request.extensions_mut().insert(Awaited {
        span_ns: Arc::clone(&awaited),
        waits,
    });
    let started = seams.clock.monotonic();
    let response = TRACE.scope(trace, next.run(request)).instrument(span.clone()).await;
    let took = seams.clock.monotonic().saturating_sub(started);
    let ours = took.saturating_sub(Duration::from_nanos(awaited.load(Ordering::Relaxed)));
    let status = response.status();
    span.in_scope(|| {
        let (status, took_ms, ours_ms) = (status.as_u16(), took.as_millis(), ours.as_millis());
        if ours > SLOW {
            tracing::warn!(status, took_ms, ours_ms, "slow request");
        } else {
            tracing::debug!(status, took_ms, ours_ms, "request answered");
        }
    });
    seams
        .metrics
        .counter(&metrics::HTTP_REQUESTS)
        .with_label_values(&[route, method, status.as_str()])
        .inc();
    seams
        .metrics
        .histogram(&metrics::HTTP_LATENCY)
        .with_label_values(&[route])
        .observe(took.as_secs_f64());
    marked(response, trace, span)
}

/// The client's own id: 32 digits of hex or a UUID, in either case; anything else is left aside, and one is drawn.
fn asked(headers: &HeaderMap) -> Option<u128> {
    let given = headers.get(HEADER)?.to_str().ok()?;
    let digits = match given.len() {
        32 => given.to_owned(),
        36 if [8, 13, 18, 23].iter().all(|at| given.as_bytes()[*at] == b'-') => given.replace('-', ""),
        _ => return None,
    };
    let is_hex = digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    // 0 stands for no request at all.
    u128::from_str_radix(&digits, 16).ok().filter(|id| is_hex && *id != 0)
}

fn marked(mut response: Response, trace: u128, span: Span) -> Response {
    if let Ok(value) = HeaderValue::from_str(&text(trace)) {
        response.headers_mut().insert(HEADER, value);
    }
    response
        .headers_mut()
        .insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    // A body of unknown length is still being made when this function has returned: what is logged by that belongs to the request.
    if response.body().size_hint().exact().is_some() {
        return response;
    }
    response.map(|body| {
        Body::new(Traced {
            body,
            around: Around::Span(span),
        })
    })
}

fn timed(request: Request, clock: &Arc<dyn Clock>, awaited_ns: &Arc<AtomicU64>) -> Request {
    if request.body().is_end_stream() {
        return request;
    }
    let (clock, awaited_ns) = (Arc::clone(clock), Arc::clone(awaited_ns));
    request.map(|body| {
        Body::new(Traced {
            body,
            around: Around::Wait {
                clock,
                awaited_ns,
                since: None,
            },
        })
    })
}

/// A body with something around each look at it.
struct Traced {
    body: Body,
    around: Around,
}

enum Around {
    /// It is made in this span.
    Span(Span),
    /// The time in which its sender was awaited is added up.
    Wait {
        clock: Arc<dyn Clock>,
        awaited_ns: Arc<AtomicU64>,
        since: Option<Duration>,
    },
}

impl HttpBody for Traced {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Self { body, around } = self.get_mut();
        let polled = match around {
            Around::Span(span) => span.in_scope(|| Pin::new(body).poll_frame(context)),
            Around::Wait {
                clock,
                awaited_ns,
                since,
            } => {
                let polled = Pin::new(body).poll_frame(context);
                match (&polled, *since) {
                    (Poll::Pending, None) => *since = Some(clock.monotonic()),
                    (Poll::Ready(_), Some(began)) => {
                        *since = None;
                        let waited = clock.monotonic().saturating_sub(began).as_nanos();
                        awaited_ns.fetch_add(u64::try_from(waited).unwrap_or(u64::MAX), Ordering::Relaxed);
                    }
                    _ => {}
                }
                polled
            }
        };
        polled.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::asked;
    use axum::http::{HeaderMap, HeaderValue};

    #[test]
    fn an_id_of_the_client_is_32_digits_of_hex_or_a_uuid_and_nothing_else() {
        let cases = [
            (
                "0123456789abcdef0123456789ABCDEF",
                Some(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef),
            ),
            (
                "01234567-89ab-cdef-0123-456789abcdef",
                Some(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef),
            ),
            ("00000000000000000000000000000000", None),
            ("+123456789abcdef0123456789abcdef", None),
            ("0123456789abcdef0123456789abcde", None),
            ("0123456789abcdef0123456789abcdefa", None),
            ("01234567-89ab-cdef-0123-456789abcde-", None),
            ("01234567089ab-cdef-0123-456789abcdef", None),
            ("", None),
        ];
        for (given, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert("x-request-id", HeaderValue::from_static(given));
            assert_eq!(asked(&headers), expected, "{given}");
        }
        assert_eq!(asked(&HeaderMap::new()), None);
    }
}
