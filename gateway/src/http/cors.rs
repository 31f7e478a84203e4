//! Calls by pages of other origins in a browser: allowed to the origins that the configuration names, and by default to none
//! (decision 0044).
//!
//! A browser asks with an OPTIONS of its own before most of its calls and hides from the page what no answer exposes (the CORS
//! protocol of the Fetch standard).
//! Invariants: an origin is compared whole, and none that is not named is ever told back; there is no wildcard and no leave for
//! credentials, since a token or a secret address says who calls and never a cookie; an answer that depends on the origin says so.
//! Not here: who may do what, which a page that is kept out could find out without a browser.

use super::App;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE");
/// What a page may send beside what any page may.
const SENT: HeaderValue = HeaderValue::from_static(
    "authorization, content-range, content-type, holdfast-age-hour, idempotency-key, if-match, if-none-match, if-range, \
     range, tus-resumable, upload-checksum, upload-defer-length, upload-length, upload-metadata, upload-offset, \
     x-http-method-override, x-request-id, x-upload-content-length, x-upload-content-type",
);
/// What a page may read beside the body.
const READ: HeaderValue = HeaderValue::from_static(
    "content-disposition, content-range, etag, holdfast-age-hour, holdfast-committed-at, holdfast-digest, location, range, \
     retry-after, tus-checksum-algorithm, tus-extension, tus-max-size, tus-resumable, tus-version, upload-defer-length, \
     upload-expires, upload-length, upload-metadata, upload-offset, www-authenticate, x-request-id, x-upload-expires",
);
/// How long a browser may keep the answer to its question, in seconds: browsers cap it at that or at less.
const KEPT_S: HeaderValue = HeaderValue::from_static("7200");

/// Answers what a browser asks in the name of a page, and lets named origins read the other answers.
pub async fn layer(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN);
    let origin = origin.filter(|origin| app.browser_origins.iter().any(|named| *origin == named.as_str()));
    // Copied: a header of a request keeps the buffer of its whole head, and a poll waits for long.
    let origin = origin.and_then(|origin| HeaderValue::from_bytes(origin.as_bytes()).ok());
    let mut response = match &origin {
        Some(_) if is_question(request.method(), request.headers()) => question(),
        _ => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, READ);
    }
    response
}

/// Whether a browser asks for a page; other OPTIONS are the tus protocol's.
fn is_question(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

fn question() -> Response {
    let headers = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, SENT),
        (header::ACCESS_CONTROL_MAX_AGE, KEPT_S),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}
