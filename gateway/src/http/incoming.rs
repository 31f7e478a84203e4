//! Every request before its route: one `Host`, and a body that cannot hold anything up.
//!
//! Invariants: a sender that falls silent in the middle of a body is given up after the patience of the configuration; time in which
//! the gateway itself does not read is not held against the sender; a sender whose request is answered before its body was read is
//! listened to for a little longer, since closing at once would reset the connection and lose the answer on its way; a body whose
//! sender's token was ended by somebody ends too.
//! Not here: how long a body may be (`extract`, `upload`), how long a head may take (`serve`).

use super::App;
use super::extract::Token;
use super::problem::HttpError;
use super::trace;
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
use model::error_kind::ErrorKind;
use protocol::codes as group_codes;
use protocol::wire_error::Failure;
use std::error::Error;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

/// How often it is looked whether the token of a body that lasts still lives. What is known of a token is a second old at most
/// (`TOKEN_REMEMBERED`), so one that ended elsewhere counts for a second and this much.
const TOKEN_LOOK_EVERY: Duration = Duration::from_millis(250);

/// How long a refused sender is listened to: a guess, enough for an answer to reach it and for it to stop.
const LINGER: Duration = Duration::from_secs(5);

/// The sender fell silent.
#[derive(Debug, thiserror::Error)]
#[error("the body stopped coming")]
struct Stalled;

/// The token with which the request was begun has ended.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Ended(Failure);

/// What a look at the token of something that lasts has found.
pub(super) enum Looked {
    /// Nothing against it: it lives, or nobody could be asked.
    Fine,
    /// Its hour is over, which ends nothing that was begun in it: ten gigabytes over a slow line take longer. There is nothing more to
    /// look for.
    Expired,
    /// Somebody ended it.
    Ended(Failure),
}

/// Answers what became of a token.
pub(super) type TokenLook = AbortOnDropHandle<Looked>;

/// Looks whether a token still lives; what is known of it is a second old at most.
///
/// A task of its own: a body may not be polled for long, and a call that nobody polls would count as one that its peer did not answer.
pub(super) fn look_at(app: &Arc<App>, token: Token, trace: u128) -> TokenLook {
    let app = Arc::clone(app);
    let looked = async move {
        match app.core.token_facts(token.user, token.hash, trace).await {
            Err(failure) if group_codes::TOKEN_EXPIRED.is(&failure) => Looked::Expired,
            Err(failure) if failure.kind == ErrorKind::Denied => Looked::Ended(failure),
            _ => Looked::Fine,
        }
    };
    AbortOnDropHandle::new(tokio::spawn(looked.in_current_span()))
}

/// By which token a request was let in, once it was: told by its route to its body. Nothing for one that needs no token.
#[derive(Clone, Default)]
pub struct LetIn(Arc<OnceLock<Token>>);

impl LetIn {
    /// By this one.
    pub fn by(&self, token: Token) {
        // The first is the one; a route reads its head once.
        self.0.get_or_init(|| token);
    }
}

/// Checks `Host` and guards the body.
pub async fn layer(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if request.version() == Version::HTTP_11 && request.headers().get_all(header::HOST).iter().count() != 1 {
        let failure = codes::BAD_HEADER.because("an HTTP/1.1 request has exactly one Host header");
        return HttpError::from(failure).into_response();
    }
    let (mut parts, body) = request.into_parts();
    if body.is_end_stream() {
        return next.run(Request::from_parts(parts, body)).await;
    }
    let lingers = parts.version < Version::HTTP_2;
    let let_in = LetIn::default();
    parts.extensions.insert(let_in.clone());
    let clock = Arc::clone(&app.core.seams.clock);
    let guarded = Guarded {
        lingers: Lingering::of(lingers, &parts.headers),
        body: Some(body),
        patience: app.core.limits.body_patience,
        silent_since: None,
        nap: None,
        lasting: Lasting {
            let_in,
            is_expired: false,
            looked_at: clock.monotonic(),
            look: None,
            trace: trace::current(),
            app,
        },
        has_ended: false,
        clock,
    };
    next.run(Request::from_parts(parts, Body::new(guarded))).await
}

/// What an error of a body means: `body_stalled`, why the token has ended, else `body_cut`.
pub fn body_failure(error: &(dyn Error + 'static)) -> Failure {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(Ended(failure)) = error.downcast_ref::<Ended>() {
            return failure.clone();
        }
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

/// Whether the token of a body that lasts still lives.
struct Lasting {
    let_in: LetIn,
    /// Whether the token has outlived its hour.
    is_expired: bool,
    looked_at: Duration,
    look: Option<TokenLook>,
    trace: u128,
    app: Arc<App>,
}

impl Lasting {
    /// When it is looked again; `None` where there is no token.
    fn next_look(&self, now: Duration) -> Option<Duration> {
        self.let_in.0.get().filter(|_| !self.is_expired)?;
        let since = if self.look.is_some() { now } else { self.looked_at };
        Some(since + TOKEN_LOOK_EVERY)
    }

    /// Ready with the reason once the token has ended. Whoever cannot be asked says nothing against it: what the body is for is
    /// commanded in the end, and refused then if the account has ended.
    fn poll_ended(&mut self, now: Duration, context: &mut Context<'_>) -> Poll<Failure> {
        if let (Some(due), Some(token)) = (self.next_look(now), self.let_in.0.get())
            && due <= now
        {
            self.look = Some(look_at(&self.app, *token, self.trace));
        }
        let Some(look) = self.look.as_mut() else {
            return Poll::Pending;
        };
        // One that panicked says nothing either.
        let looked = ready!(Pin::new(look).poll(context)).unwrap_or(Looked::Fine);
        (self.look, self.looked_at) = (None, now);
        match looked {
            Looked::Ended(failure) => return Poll::Ready(failure),
            Looked::Expired => self.is_expired = true,
            Looked::Fine => {}
        }
        Poll::Pending
    }
}

struct Guarded {
    /// `None` when it has ended, well or badly.
    body: Option<Body>,
    lingers: Lingering,
    patience: Duration,
    clock: Arc<dyn Clock>,
    lasting: Lasting,
    /// Whether the token has: the body is only lingered over.
    has_ended: bool,
    /// Since when we wait for the sender; `None` while it is not its turn.
    silent_since: Option<Duration>,
    /// One sleep for many chunks: it is begun anew only when it is over.
    nap: Option<BoxFuture<'static, ()>>,
}

impl Guarded {
    /// Ready once the sender was silent for the whole patience, or its token has ended.
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<BoxError> {
        loop {
            let now = self.clock.monotonic();
            let end = *self.silent_since.get_or_insert(now) + self.patience;
            if now >= end {
                return Poll::Ready(Stalled.into());
            }
            if let Poll::Ready(failure) = self.lasting.poll_ended(now, context) {
                return Poll::Ready(Ended(failure).into());
            }
            let nap = self.nap.get_or_insert_with(|| {
                let until = self.lasting.next_look(now).map_or(end, |look| look.min(end));
                let (clock, left) = (Arc::clone(&self.clock), until.saturating_sub(now));
                Box::pin(async move { clock.sleep(left).await })
            });
            ready!(nap.as_mut().poll(context));
            self.nap = None;
        }
    }
}

impl HttpBody for Guarded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let Some(body) = this.body.as_mut().filter(|_| !this.has_ended) else {
            return Poll::Ready(None);
        };
        if this.lingers == Lingering::OnceBegun {
            this.lingers = Lingering::Always;
        }
        match Pin::new(body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                this.silent_since = None;
                // Also of a sender that is never silent.
                if let Poll::Ready(failure) = this.lasting.poll_ended(this.clock.monotonic(), context) {
                    this.has_ended = true;
                    return Poll::Ready(Some(Err(Ended(failure).into())));
                }
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
                let error = ready!(this.poll_silence(context));
                if error.is::<Ended>() {
                    this.has_ended = true;
                } else {
                    this.body = None;
                }
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended || self.body.as_ref().is_none_or(Body::is_end_stream)
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
