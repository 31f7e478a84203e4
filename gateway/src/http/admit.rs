//! Before a route: whether the request is taken on at all (`admission`).
//!
//! Invariants: nothing of a refused request was read but its head, and no password, group or disk was asked; a place is held until
//! the answer's head, and given to others while the client keeps us waiting for its body.
//! Not here: health, readiness, metrics, the description and the page, which are always answered; long polls, which wait for most of
//! their time and hold a place only while they do not (`Entered`); bodies of downloads, which `content` holds a place for.

use super::App;
use super::extract::{Token, client_address, declared_length};
use super::problem::HttpError;
use crate::admission::gate::{Place, Seat};
use crate::admission::places::Refusal;
use crate::admission::{SHORT_BYTES_MAX, Who};
use axum::BoxError;
use axum::body::{Body, HttpBody};
use axum::extract::{FromRequest, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use daemon::clock::Clock;
use futures_util::future::BoxFuture;
use hyper::body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// A client may keep its place waiting for so long in all; then others have the place whenever it is waited for. A guess: a round
/// trip or two, and far more than it takes us to get to what has arrived.
const LEND_AFTER: Duration = Duration::from_millis(250);

/// A request whose content is short, if it has one.
pub async fn short(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    pass(&app, request, next, refused).await
}

/// A place among short requests that a handler gives back when it is done with its work, though not with its answer: a poll's.
pub struct Entered(Place);

impl FromRequestParts<Arc<App>> for Entered {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, HttpError> {
        let who = who(app, &parts.headers, &mut parts.extensions);
        let entered = app.admission.requests.enter(who).await;
        Ok(Self(entered.map_err(Refusal::failure)?))
    }
}

/// A place like that and what is read of the request, while whose body comes in others may have the place.
pub struct EnteredWith<T>(pub Entered, pub T);

impl<T: FromRequest<Arc<App>, Rejection: IntoResponse>> FromRequest<Arc<App>> for EnteredWith<T> {
    type Rejection = Response;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let entered = Entered::from_request_parts(&mut parts, app).await;
        let entered = entered.map_err(IntoResponse::into_response)?;
        let request = awaited(app, &entered.0, Request::from_parts(parts, body));
        let rest = T::from_request(request, app).await;
        Ok(Self(entered, rest.map_err(IntoResponse::into_response)?))
    }
}

/// A sign-in, which is refused in the shape of RFC 6749.
pub async fn sign_in(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    pass(&app, request, next, |refusal| super::token::failed(refusal.failure())).await
}

/// An upload: one that may be long takes a place among those that are, for none of which a short request waits.
pub async fn upload(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    // A length that is no number is refused by the route, at once.
    let declared = declared_length(request.headers()).unwrap_or(Some(0));
    if declared.is_some_and(|bytes| bytes <= SHORT_BYTES_MAX) {
        return short(State(app), request, next).await;
    }
    let (mut parts, body) = request.into_parts();
    let who = who(&app, &parts.headers, &mut parts.extensions);
    let request = Request::from_parts(parts, body);
    match app.admission.transfers.enter_now(who) {
        Ok(_place) => next.run(request).await,
        Err(refusal) => refused(refusal),
    }
}

/// Whose request it is. Its token is noted, so that it is read once.
fn who(app: &App, headers: &HeaderMap, extensions: &mut Extensions) -> Who {
    let token = Token::read(headers).ok();
    if let Some(token) = token {
        extensions.insert(token);
    }
    let token = token.map(|token| (token.user, token.hash));
    app.admission.who(token, client_address(extensions).0)
}

fn refused(refusal: Refusal) -> Response {
    HttpError::from(refusal.failure()).into_response()
}

async fn pass(app: &App, request: Request, next: Next, refused: fn(Refusal) -> Response) -> Response {
    let (mut parts, body) = request.into_parts();
    let who = who(app, &parts.headers, &mut parts.extensions);
    let place = match app.admission.requests.enter(who).await {
        Ok(place) => place,
        Err(refusal) => return refused(refusal),
    };
    let request = awaited(app, &place, Request::from_parts(parts, body));
    let response = next.run(request).await;
    drop(place);
    response
}

/// The request with a body during whose waits others may have the place.
fn awaited(app: &App, place: &Place, request: Request) -> Request {
    if request.body().is_end_stream() {
        return request;
    }
    let (clock, seat) = (Arc::clone(&app.core.seams.clock), place.seat());
    request.map(|body| Body::new(Awaited::new(body, clock, seat)))
}

/// A body whose sender is awaited with a place that others may have meanwhile.
struct Awaited {
    body: Body,
    clock: Arc<dyn Clock>,
    seat: Arc<Seat>,
    /// What is left of the patience.
    left: Duration,
    /// Since when the sender is awaited.
    since: Option<Duration>,
    nap: Option<BoxFuture<'static, ()>>,
}

impl Awaited {
    fn new(body: Body, clock: Arc<dyn Clock>, seat: Arc<Seat>) -> Self {
        Self {
            body,
            clock,
            seat,
            left: LEND_AFTER,
            since: None,
            nap: None,
        }
    }

    fn waits(&mut self, context: &mut Context<'_>) {
        let now = self.clock.monotonic();
        let waited = now.saturating_sub(*self.since.get_or_insert(now));
        let left = self.left.saturating_sub(waited);
        if !left.is_zero() {
            let clock = &self.clock;
            let nap = self.nap.get_or_insert_with(|| {
                let clock = Arc::clone(clock);
                Box::pin(async move { clock.sleep(left).await })
            });
            if nap.as_mut().poll(context).is_pending() {
                return;
            }
            self.nap = None;
        }
        self.seat.lend();
    }

    fn goes_on(&mut self) {
        if let Some(since) = self.since.take() {
            let waited = self.clock.monotonic().saturating_sub(since);
            self.left = self.left.saturating_sub(waited);
            self.nap = None;
            self.seat.resume();
        }
    }
}

impl HttpBody for Awaited {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(context);
        match &polled {
            Poll::Pending => this.waits(context),
            Poll::Ready(_) => this.goes_on(),
        }
        polled.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        // Whoever had enough of the body goes on to work.
        self.seat.resume();
    }
}
