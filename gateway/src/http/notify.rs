//! `/api/v1/notifications/poll`, also as `/api/v1/events`: one request that waits for the next change.
//!
//! Invariants: a place among the requests that are worked on is held until the poll waits; who is woken is never sent away, since
//! thousands may be woken together, and takes a turn instead; a token that
//! has ended is told nothing any more; a gateway that stops answers at once that nothing changed.
//! Not here: who is woken by what (`drive::poll`, `drive::notices`).

use super::App;
use super::admit::{Entered, EnteredWith};
use super::changes;
use super::extract::{Authenticated, MaybeJson, Query, bearer};
use super::problem::HttpError;
use super::trace::Awaited;
use crate::auth::token;
use crate::codes;
use crate::drive::Caller;
use crate::drive::feed::Read;
use crate::drive::poll::Waiting;
use crate::metrics;
use api::change::{PollAnswer, PollRequest};
use axum::Extension;
use axum::extract::State;
use axum::http::HeaderMap;
use model::id::UserId;
use model::limits::{POLL_WAIT, POLL_WAIT_MAX, POLL_WAIT_MIN};
use protocol::metadata::user::TokenHash;
use protocol::wire_error::Failure;
use std::sync::Arc;
use std::time::Duration;

/// Who polls and for what, when a body says so.
type Asked = (Authenticated, Query<PollRequest>, MaybeJson<PollRequest>);

/// Waits for a change behind a cursor.
#[utoipa::path(get, path = "/api/v1/notifications/poll", operation_id = "poll", security(("bearer" = [])),
    params(PollRequest, ("Timeout" = Option<String>, Header, description = "Seconds to wait, when the query does not say.")),
    responses((status = 200, body = PollAnswer), (status = 410), (status = "default", body = api::problem::Problem)))]
pub async fn poll(
    State(app): State<Arc<App>>,
    entered: Entered,
    Authenticated(caller): Authenticated,
    Extension(awaited): Extension<Awaited>,
    Query(query): Query<PollRequest>,
    headers: HeaderMap,
) -> Result<axum::Json<PollAnswer>, HttpError> {
    answer(&app, entered, &caller, &awaited, headers, query).await
}

/// The same with cursor and time in the body.
#[utoipa::path(post, path = "/api/v1/notifications/poll", operation_id = "poll_by_body", security(("bearer" = [])), request_body = PollRequest,
    params(PollRequest, ("Timeout" = Option<String>, Header, description = "Seconds to wait, when neither query nor body say.")),
    responses((status = 200, body = PollAnswer), (status = 410), (status = 415), (status = "default", body = api::problem::Problem)))]
pub async fn poll_by_body(
    State(app): State<Arc<App>>,
    Extension(awaited): Extension<Awaited>,
    headers: HeaderMap,
    EnteredWith(entered, (caller, query, body)): EnteredWith<Asked>,
) -> Result<axum::Json<PollAnswer>, HttpError> {
    let (Authenticated(caller), Query(query), MaybeJson(body)) = (caller, query, body);
    let wanted = PollRequest {
        cursor: query.cursor.or(body.cursor),
        timeout: query.timeout.or(body.timeout),
    };
    answer(&app, entered, &caller, &awaited, headers, wanted).await
}

/// The other name of the poll.
#[utoipa::path(get, path = "/api/v1/events", operation_id = "events", security(("bearer" = [])),
    params(PollRequest, ("Timeout" = Option<String>, Header, description = "Seconds to wait, when the query does not say.")),
    responses((status = 200, body = PollAnswer), (status = 410), (status = "default", body = api::problem::Problem)))]
pub async fn events(
    state: State<Arc<App>>,
    entered: Entered,
    caller: Authenticated,
    awaited: Extension<Awaited>,
    query: Query<PollRequest>,
    headers: HeaderMap,
) -> Result<axum::Json<PollAnswer>, HttpError> {
    poll(state, entered, caller, awaited, query, headers).await
}

/// The other name of the poll, with cursor and time in the body.
#[utoipa::path(post, path = "/api/v1/events", operation_id = "events_by_body", security(("bearer" = [])), request_body = PollRequest,
    params(PollRequest, ("Timeout" = Option<String>, Header, description = "Seconds to wait, when neither query nor body say.")),
    responses((status = 200, body = PollAnswer), (status = 410), (status = 415), (status = "default", body = api::problem::Problem)))]
pub async fn events_by_body(
    state: State<Arc<App>>,
    awaited: Extension<Awaited>,
    headers: HeaderMap,
    asked: EnteredWith<Asked>,
) -> Result<axum::Json<PollAnswer>, HttpError> {
    poll_by_body(state, awaited, headers, asked).await
}

/// Query and body come first, then the header.
fn wait(asked_s: Option<u64>, headers: &HeaderMap) -> Result<Duration, Failure> {
    let asked_s = match (asked_s, headers.get("timeout")) {
        (Some(seconds), _) => Some(seconds),
        (None, None) => None,
        (None, Some(value)) => {
            let seconds = value.to_str().ok().and_then(|text| text.trim().parse().ok());
            let wrong = || codes::BAD_HEADER.because("Timeout is a number of whole seconds");
            Some(seconds.ok_or_else(wrong)?)
        }
    };
    Ok(asked_s
        .map_or(POLL_WAIT, Duration::from_secs)
        .clamp(POLL_WAIT_MIN, POLL_WAIT_MAX))
}

async fn answer(
    app: &Arc<App>,
    entered: Entered,
    caller: &Caller,
    awaited: &Awaited,
    headers: HeaderMap,
    wanted: PollRequest,
) -> Result<axum::Json<PollAnswer>, HttpError> {
    let begun = app.core.seams.clock.monotonic();
    let wait = wait(wanted.timeout, &headers)?;
    let token = token::read(bearer(&headers)?).ok_or_else(|| codes::TOKEN_MALFORMED.failure())?;
    // What is done before and after the wait is boxed, so that a poll that waits takes no memory for it.
    let mut waiting = Box::pin(app.core.begin_poll(caller, wanted.cursor.as_deref())).await?;
    // The smallest header keeps the buffer of a whole head of a request.
    drop((wanted, entered, headers));
    let outcome = until(app, caller, token, &mut waiting, begun + wait, awaited).await;
    let word = match &outcome {
        Ok(Some(_)) => "changes",
        Ok(None) => "silence",
        Err(_) => "refused",
    };
    let polls = app.core.seams.metrics.counter(&metrics::POLLS);
    polls.with_label_values(&[word]).inc();
    let read = outcome?;
    Ok(axum::Json(told(app, caller, &waiting, read)))
}

/// Waits until something has come or the time is over.
async fn until(
    app: &Arc<App>,
    caller: &Caller,
    token: (UserId, TokenHash),
    waiting: &mut Waiting,
    end: Duration,
    awaited: &Awaited,
) -> Result<Option<Read>, Failure> {
    let clock = &app.core.seams.clock;
    loop {
        let begun = clock.monotonic();
        let left = end.saturating_sub(begun);
        let is_woken = tokio::select! {
            () = waiting.woken() => true,
            () = clock.sleep(left) => false,
            () = app.shutdown.requested() => false,
        };
        awaited.add(clock.monotonic().saturating_sub(begun));
        if !is_woken {
            return Ok(None);
        }
        if let Some(read) = Box::pin(look(app, caller, token, waiting)).await? {
            return Ok(Some(read));
        }
    }
}

/// Looks whether the token still lives and what has come.
async fn look(
    app: &Arc<App>,
    caller: &Caller,
    (user, hash): (UserId, TokenHash),
    waiting: &mut Waiting,
) -> Result<Option<Read>, Failure> {
    let _turn = app.core.notices.turn().await;
    app.core.token_facts(user, hash, caller.trace).await?;
    app.core.look(caller, waiting).await
}

fn told(app: &App, caller: &Caller, waiting: &Waiting, read: Option<Read>) -> PollAnswer {
    let user = caller.principal.user;
    let Some(read) = read else {
        return PollAnswer {
            changes: false,
            cursor: app.core.receipts.cursor(user, waiting.places()),
            events: Vec::new(),
            event_type: None,
            file_id: None,
            timestamp: None,
            backoff: None,
        };
    };
    let events: Vec<_> = read.told.iter().map(changes::change).collect();
    let last = events.last();
    PollAnswer {
        changes: true,
        cursor: app.core.receipts.cursor(user, &read.places),
        event_type: last.map(|event| event.kind),
        file_id: last.map(|event| event.file_id.clone()),
        timestamp: last.map(|event| event.time),
        backoff: waiting.backoff_s(&app.core),
        events,
    }
}

#[cfg(test)]
mod tests {
    use super::wait;
    use axum::http::{HeaderMap, HeaderValue};
    use std::time::Duration;

    /// shows: I-04 scale=1/2
    #[test]
    fn the_time_comes_from_query_or_body_then_from_the_header_and_is_1_to_480_seconds() {
        let headers = |text: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            text.map(|text| headers.insert("timeout", HeaderValue::from_static(text)));
            headers
        };
        for (asked, header, expected) in [
            (None, None, 55),
            (Some(7), None, 7),
            (Some(7), Some("9"), 7),
            (None, Some("60"), 60),
            (Some(0), None, 1),
            (Some(481), None, 480),
            (Some(u64::MAX), Some("x"), 480),
        ] {
            let waited = wait(asked, &headers(header)).unwrap();
            assert_eq!(waited, Duration::from_secs(expected), "{asked:?} {header:?}");
        }
        for header in ["", "x", "-1", "1.5", "99999999999999999999"] {
            assert_eq!(wait(None, &headers(Some(header))).unwrap_err().code, "bad_header");
        }
    }
}
