//! The request id: drawn for each request, in every log line and call that it causes, and in its answer.

use super::App;
use crate::metrics;
use axum::extract::{MatchedPath, Request, State};
use axum::http::HeaderValue;
use axum::middleware::Next;
use axum::response::Response;
use std::sync::Arc;
use tracing::Instrument;

tokio::task_local! {
    static TRACE: u128;
}

/// The id of the present request; 0 outside of one.
pub fn current() -> u128 {
    TRACE.try_with(|trace| *trace).unwrap_or(0)
}

/// The same as text.
pub fn current_text() -> String {
    format!("{:032x}", current())
}

/// Draws the id, counts and times the request, and puts the id into the answer.
pub async fn layer(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let trace = app.core.seams.random.u128();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let method = match request.method().as_str() {
        known @ ("GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE") => known.to_owned(),
        _ => "other".to_owned(),
    };
    let span = tracing::info_span!("request", id = %format!("{trace:032x}"), %method, %route);
    let started = app.core.seams.clock.monotonic();
    let mut response = TRACE.scope(trace, next.run(request)).instrument(span).await;
    let took = app.core.seams.clock.monotonic().saturating_sub(started);
    let metrics = &app.core.seams.metrics;
    let status = response.status().as_str().to_owned();
    metrics
        .counter(&metrics::HTTP_REQUESTS)
        .with_label_values(&[&route, &method, &status])
        .inc();
    metrics
        .histogram(&metrics::HTTP_LATENCY)
        .with_label_values(&[&route])
        .observe(took.as_secs_f64());
    if let Ok(value) = HeaderValue::from_str(&format!("{trace:032x}")) {
        response.headers_mut().insert("x-request-id", value);
    }
    response
        .headers_mut()
        .insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}
