//! `/api/v1/notifications/poll`, also as `/api/v1/events`: one request that waits for the next change.
//!
//! Invariants: a place among the requests that are worked on is held until the poll waits; who is woken is never sent away, since
//! thousands may be woken together, and takes a turn instead; a poll ends when its token has: it looks again when the token's group says
//! that it may have ended, and when its time is over; one that begins by a token that was looked at some time ago tells nothing before it
//! has looked again (decision 0055); a gateway that stops answers at once that nothing changed.
//! Not here: who is woken by what (`drive::poll`, `drive::notices`).

use super::App;
use super::admit::{Entered, EnteredWith};
use super::changes;
use super::extract::{MaybeJson, Polling, Query, Token};
use super::problem::HttpError;
use super::trace::Awaited;
use crate::codes;
use crate::drive::Caller;
use crate::drive::feed::Read;
use crate::drive::poll::Waiting;
use crate::metrics;
use api::change::{PollAnswer, PollRequest};
use axum::Extension;
use axum::extract::{FromRequestParts, State};
use axum::http::HeaderValue;
use axum::http::request::Parts;
use model::limits::{POLL_WAIT, POLL_WAIT_MAX, POLL_WAIT_MIN};
use model::time::WallTime;
use protocol::metadata::user::TokenFacts;
use protocol::wire_error::Failure;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// Ends of polls fall on multiples of this, so that many end by one wake-up of a thread: with 200,000 of eight minutes, some hundred,
/// which take some 15 ms of a core.
const ENDS_EVERY: Duration = Duration::from_millis(250);
/// A poll lasts longer by less than one in so many parts of its wait.
const LATE_PARTS: u32 = 100;

/// Who polls and for what, when a body says so.
type Asked = (Polling, Token, Query<PollRequest>, MaybeJson<PollRequest>);

/// The header `Timeout`, when there is one.
pub struct Timeout(Option<HeaderValue>);

impl FromRequestParts<Arc<App>> for Timeout {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, Infallible> {
        Ok(Self(parts.headers.get("timeout").cloned()))
    }
}

/// Waits for a change behind a cursor.
#[utoipa::path(get, path = "/api/v1/notifications/poll", operation_id = "poll", security(("bearer" = [])),
    params(PollRequest, ("Timeout" = Option<String>, Header, description = "Seconds to wait, when the query does not say.")),
    responses((status = 200, body = PollAnswer), (status = 410), (status = "default", body = api::problem::Problem)))]
pub async fn poll(
    State(app): State<Arc<App>>,
    entered: Entered,
    Polling(caller): Polling,
    token: Token,
    Extension(awaited): Extension<Awaited>,
    Query(query): Query<PollRequest>,
    timeout: Timeout,
) -> Result<axum::Json<PollAnswer>, HttpError> {
    answer(&app, entered, (&caller, token), &awaited, timeout, query).await
}

/// The same with cursor and time in the body.
#[utoipa::path(post, path = "/api/v1/notifications/poll", operation_id = "poll_by_body", security(("bearer" = [])), request_body = PollRequest,
    params(PollRequest, ("Timeout" = Option<String>, Header, description = "Seconds to wait, when neither query nor body say.")),
    responses((status = 200, body = PollAnswer), (status = 410), (status = 415), (status = "default", body = api::problem::Problem)))]
pub async fn poll_by_body(
    State(app): State<Arc<App>>,
    Extension(awaited): Extension<Awaited>,
    timeout: Timeout,
    EnteredWith(entered, (caller, token, query, body)): EnteredWith<Asked>,
) -> Result<axum::Json<PollAnswer>, HttpError> {
    let (Polling(caller), Query(query), MaybeJson(body)) = (caller, query, body);
    let wanted = PollRequest {
        cursor: query.cursor.or(body.cursor),
        timeout: query.timeout.or(body.timeout),
    };
    answer(&app, entered, (&caller, token), &awaited, timeout, wanted).await
}

/// The other name of the poll.
#[utoipa::path(get, path = "/api/v1/events", operation_id = "events", security(("bearer" = [])),
    params(PollRequest, ("Timeout" = Option<String>, Header, description = "Seconds to wait, when the query does not say.")),
    responses((status = 200, body = PollAnswer), (status = 410), (status = "default", body = api::problem::Problem)))]
pub async fn events(
    state: State<Arc<App>>,
    entered: Entered,
    caller: Polling,
    token: Token,
    awaited: Extension<Awaited>,
    query: Query<PollRequest>,
    timeout: Timeout,
) -> Result<axum::Json<PollAnswer>, HttpError> {
    poll(state, entered, caller, token, awaited, query, timeout).await
}

/// The other name of the poll, with cursor and time in the body.
#[utoipa::path(post, path = "/api/v1/events", operation_id = "events_by_body", security(("bearer" = [])), request_body = PollRequest,
    params(PollRequest, ("Timeout" = Option<String>, Header, description = "Seconds to wait, when neither query nor body say.")),
    responses((status = 200, body = PollAnswer), (status = 410), (status = 415), (status = "default", body = api::problem::Problem)))]
pub async fn events_by_body(
    state: State<Arc<App>>,
    awaited: Extension<Awaited>,
    timeout: Timeout,
    asked: EnteredWith<Asked>,
) -> Result<axum::Json<PollAnswer>, HttpError> {
    poll_by_body(state, awaited, timeout, asked).await
}

/// Query and body come first, then the header.
fn wait(asked_s: Option<u64>, header: Option<&HeaderValue>) -> Result<Duration, Failure> {
    let asked_s = match (asked_s, header) {
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

/// When a poll ends that waits for so long from `begun` on.
fn end_of(begun: Duration, wait: Duration) -> Duration {
    let (end, step) = (begun + wait, ENDS_EVERY.min(wait / LATE_PARTS));
    // Less than a step, which is no longer than `ENDS_EVERY`; a wait is at least `POLL_WAIT_MIN`, so no step is zero.
    let over_ns = (end.as_nanos() % step.as_nanos()) as u64;
    match over_ns {
        0 => end,
        _ => end + step - Duration::from_nanos(over_ns),
    }
}

/// When a token's time is over, on a clock that shows `now` while the wall's shows `wall`. On multiples of `ENDS_EVERY` as well.
fn life_of(expires_at: WallTime, now: Duration, wall: WallTime) -> Duration {
    let left = Duration::from_millis(expires_at.0.saturating_sub(wall.0));
    let steps = now.saturating_add(left).as_nanos().div_ceil(ENDS_EVERY.as_nanos());
    // What does not fit lies decades ahead.
    ENDS_EVERY.saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX))
}

async fn answer(
    app: &Arc<App>,
    entered: Entered,
    (caller, token): (&Caller, Token),
    awaited: &Awaited,
    timeout: Timeout,
    wanted: PollRequest,
) -> Result<axum::Json<PollAnswer>, HttpError> {
    let begun = app.core.seams.clock.monotonic();
    let end = end_of(begun, wait(wanted.timeout, timeout.0.as_ref())?);
    if wanted.cursor.is_none() {
        // Where the feed stands is more than that nothing came.
        Box::pin(app.core.token_facts(token.user, token.hash, caller.trace)).await?;
    }
    // What is done before and after the wait is boxed, so that a poll that waits takes no memory for it.
    let mut waiting = Box::pin(app.core.begin_poll(caller, wanted.cursor.as_deref())).await?;
    // The smallest header keeps the buffer of a whole head of a request.
    drop((wanted, entered, timeout));
    let outcome = until(app, caller, token, &mut waiting, end, awaited).await;
    let word = match &outcome {
        Ok(Some(_)) => "changes",
        Ok(None) => "silence",
        Err(_) => "refused",
    };
    let polls = app.core.seams.metrics.counter(&metrics::POLLS);
    polls.with_label_values(&[word]).inc();
    let read = outcome?;
    if let (Some(_), Some(lag)) = (&read, waiting.lag(app.core.seams.clock.monotonic())) {
        let lags = app.core.seams.metrics.histogram(&metrics::POLL_LAG);
        lags.with_label_values::<&str>(&[]).observe(lag.as_secs_f64());
    }
    Ok(axum::Json(told(app, caller, &waiting, read)))
}

/// Waits until something has come or the time is over.
async fn until(
    app: &Arc<App>,
    caller: &Caller,
    token: Token,
    waiting: &mut Waiting,
    end: Duration,
    awaited: &Awaited,
) -> Result<Option<Read>, Failure> {
    let clock = &app.core.seams.clock;
    // What was told of the token before the poll had entered, nobody tells it again.
    waiting.trust();
    let mut life = Box::pin(known_life(app, caller, token)).await?;
    loop {
        let begun = clock.monotonic();
        let is_last = end <= life;
        let left = end.min(life).saturating_sub(begun);
        awaited.begin();
        let is_over = tokio::select! {
            () = waiting.woken() => false,
            () = clock.sleep(left) => is_last,
            () = app.shutdown.requested() => true,
        };
        awaited.end(clock.monotonic().saturating_sub(begun));
        if is_over {
            return Ok(None);
        }
        let (read, lives) = Box::pin(look(app, caller, token, waiting)).await?;
        if read.is_some() {
            return Ok(read);
        }
        life = lives;
    }
}

/// Looks whether the token still lives and what has come. Answers until when the token lives with it.
async fn look(
    app: &Arc<App>,
    caller: &Caller,
    token: Token,
    waiting: &mut Waiting,
) -> Result<(Option<Read>, Duration), Failure> {
    let _turn = app.core.notices.turn().await;
    // Before the look: what ends it behind it wakes again.
    waiting.trust();
    let facts = app.core.token_facts(token.user, token.hash, caller.trace).await?;
    let life = life(app, &facts);
    Ok((app.core.look(caller, waiting).await?, life))
}

/// Until when the token lives, which it does as far as its group has told.
async fn known_life(app: &Arc<App>, caller: &Caller, token: Token) -> Result<Duration, Failure> {
    let facts = app.core.poll_token_facts(token.user, token.hash, caller.trace).await?;
    Ok(life(app, &facts))
}

fn life(app: &App, facts: &TokenFacts) -> Duration {
    let clock = &app.core.seams.clock;
    life_of(facts.expires_at, clock.monotonic(), clock.wall())
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
    use super::{ENDS_EVERY, LATE_PARTS, end_of, life_of, wait};
    use axum::http::HeaderValue;
    use model::time::WallTime;
    use proptest::prelude::proptest;
    use std::time::Duration;

    /// shows: I-04 scale=1/2
    #[test]
    fn the_time_comes_from_query_or_body_then_from_the_header_and_is_1_to_480_seconds() {
        for (asked, header, expected) in [
            (None, None, 55),
            (Some(7), None, 7),
            (Some(7), Some("9"), 7),
            (None, Some("60"), 60),
            (Some(0), None, 1),
            (Some(481), None, 480),
            (Some(u64::MAX), Some("x"), 480),
        ] {
            let header = header.map(HeaderValue::from_static);
            let waited = wait(asked, header.as_ref()).unwrap();
            assert_eq!(waited, Duration::from_secs(expected), "{asked:?} {header:?}");
        }
        for header in ["", "x", "-1", "1.5", "99999999999999999999"] {
            let header = HeaderValue::from_static(header);
            assert_eq!(wait(None, Some(&header)).unwrap_err().code, "bad_header");
        }
    }

    proptest! {
        #[test]
        fn a_poll_lasts_no_less_than_was_asked_and_hardly_longer(begun_ns in 0..1_u64 << 50, wait_s in 1_u64..=480) {
            let (begun, wait) = (Duration::from_nanos(begun_ns), Duration::from_secs(wait_s));
            let lasts = end_of(begun, wait) - begun;
            assert!(lasts >= wait && lasts - wait < ENDS_EVERY.min(wait / LATE_PARTS), "{lasts:?}");
        }
    }

    #[test]
    fn a_tokens_time_is_over_when_it_has_expired_and_hardly_later() {
        let (now, wall) = (Duration::from_millis(10_100), WallTime(1_000_000));
        let life = |expires_ms| life_of(WallTime(expires_ms), now, wall);
        assert_eq!(life(1_000_000 + 5_000), Duration::from_millis(15_250));
        assert_eq!(life(1_000_000 + 4_900), Duration::from_millis(15_000));
        assert_eq!(life(7), Duration::from_millis(10_250), "it is over already");
        assert!(life(u64::MAX) > now + Duration::from_secs(1 << 29));
    }

    #[test]
    fn polls_that_begin_at_almost_the_same_time_end_together() {
        let end = |begun_ms| end_of(Duration::from_millis(begun_ms), Duration::from_secs(480));
        assert_eq!((end(1_001), end(1_249)), (end(1_250), end(1_250)));
        assert!(end(1_251) > end(1_250));
    }
}
