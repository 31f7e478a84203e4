//! Every request before its route: one `Host`, and a body that cannot hold anything up.
//!
//! Invariants: a sender that falls silent in the middle of a body is given up after the patience of the configuration; time in which
//! the gateway itself does not read is not held against the sender; a sender whose request is answered before its body was read is
//! listened to for a little longer, since closing at once would reset the connection and lose the answer on its way.
//! Not here: how long a body may be (`extract`, `upload`), how long a head may take (`serve`).

use super::App;
use super::problem::HttpError;
use crate::codes;
use axum::BoxError;
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use daemon::clock::Clock;
use futures_util::future::BoxFuture;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use protocol::wire_error::Failure;
use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// How long a refused sender is listened to: a guess, enough for an answer to reach it and for it to stop.
const LINGER: Duration = Duration::from_secs(5);

/// The sender fell silent.
#[derive(Debug, thiserror::Error)]
#[error("the body stopped coming")]
struct Stalled;

/// Checks `Host` and guards the body.
pub async fn layer(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if request.version() == Version::HTTP_11 && request.headers().get_all(header::HOST).iter().count() != 1 {
        let failure = codes::BAD_HEADER.because("an HTTP/1.1 request has exactly one Host header");
        return HttpError::from(failure).into_response();
    }
    let (parts, body) = request.into_parts();
    if body.is_end_stream() {
        return next.run(Request::from_parts(parts, body)).await;
    }
    let lingers = parts.version < Version::HTTP_2;
    let guarded = Guarded {
        lingers: Lingering::of(lingers, &parts.headers),
        body: Some(body),
        patience: app.core.limits.body_patience,
        clock: Arc::clone(&app.core.seams.clock),
        silent_since: None,
        nap: None,
    };
    next.run(Request::from_parts(parts, Body::new(guarded))).await
}

/// What an error of a body means: `body_stalled`, else `body_cut`.
pub fn body_failure(error: &(dyn Error + 'static)) -> Failure {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<Stalled>() {
            return codes::BODY_STALLED.failure();
        }
        cause = error.source();
    }
    codes::BODY_CUT.failure()
}

/// Whether the rest of a body is read when nobody wants it any more.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lingering {
    /// It is read, for a while.
    Always,
    /// The sender waits to be asked for the body, and reading would ask: only a body that was begun is read.
    OnceBegun,
    /// A stream of HTTP/2 is reset alone, and its answer is not lost.
    Never,
}

impl Lingering {
    fn of(may_linger: bool, headers: &HeaderMap) -> Self {
        match (may_linger, headers.contains_key(header::EXPECT)) {
            (false, _) => Self::Never,
            (true, true) => Self::OnceBegun,
            (true, false) => Self::Always,
        }
    }
}

struct Guarded {
    /// `None` when it has ended, well or badly.
    body: Option<Body>,
    lingers: Lingering,
    patience: Duration,
    clock: Arc<dyn Clock>,
    /// Since when we wait for the sender; `None` while it is not its turn.
    silent_since: Option<Duration>,
    /// One sleep for many chunks: it is begun anew only when it is over.
    nap: Option<BoxFuture<'static, ()>>,
}

impl Guarded {
    /// Ready once the sender was silent for the whole patience.
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let now = self.clock.monotonic();
            let since = *self.silent_since.get_or_insert(now);
            let nap = self.nap.get_or_insert_with(|| {
                let (clock, left) = (Arc::clone(&self.clock), (since + self.patience).saturating_sub(now));
                Box::pin(async move { clock.sleep(left).await })
            });
            ready!(nap.as_mut().poll(context));
            self.nap = None;
            if self.clock.monotonic() >= since + self.patience {
                return Poll::Ready(());
            }
        }
    }
}

impl HttpBody for Guarded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let Some(body) = this.body.as_mut() else {
            return Poll::Ready(None);
        };
        if this.lingers == Lingering::OnceBegun {
            this.lingers = Lingering::Always;
        }
        match Pin::new(body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                this.silent_since = None;
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                this.body = None;
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                this.body = None;
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Pending => {
                ready!(this.poll_silence(context));
                this.body = None;
                Poll::Ready(Some(Err(Stalled.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let Some(mut body) = self.body.take().filter(|_| self.lingers == Lingering::Always) else {
            return;
        };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let clock = Arc::clone(&self.clock);
        runtime.spawn(async move {
            let rest = async { while let Some(Ok(_)) = body.frame().await {} };
            tokio::select! {
                () = rest => {}
                () = clock.sleep(LINGER) => {}
            }
        });
    }
}
