//! Errors as clients see them: one table from kind and code to status, one body shape.
//!
//! Invariants: every failure passes here; nothing of our own faults is shown but the request id.

use api::problem::{PROBLEM_TYPE, Problem};
use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use model::error_kind::ErrorKind;
use protocol::wire_error::Failure;
use serde_json::Value;
use std::collections::BTreeMap;

/// See `retry_after`.
const RETRY_SPREAD_S: u128 = 3;

/// A failure on its way out; `fields` beside the failure's own are JSON.
#[derive(Debug)]
pub struct HttpError {
    /// What went wrong.
    pub failure: Failure,
    /// Additions that are more than text, such as `existing`.
    pub fields: BTreeMap<String, Value>,
}

impl From<Failure> for HttpError {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            fields: BTreeMap::new(),
        }
    }
}

/// The status of a failure: by its code where the kind has several, else by its kind.
pub fn status_of(failure: &Failure) -> StatusCode {
    match (failure.kind, failure.code.as_str()) {
        (ErrorKind::Conflict, "precondition_failed") => StatusCode::PRECONDITION_FAILED,
        (ErrorKind::Conflict, "tus_version") => StatusCode::PRECONDITION_FAILED,
        // What the tus protocol has for it.
        (ErrorKind::Invalid, "checksum_mismatch") => StatusCode::from_u16(460).unwrap_or(StatusCode::BAD_REQUEST),
        (ErrorKind::NotFound, "function_off") => StatusCode::MISDIRECTED_REQUEST,
        (ErrorKind::Invalid, "range_not_satisfiable") => StatusCode::RANGE_NOT_SATISFIABLE,
        (ErrorKind::Invalid, "body_stalled") => StatusCode::REQUEST_TIMEOUT,
        (ErrorKind::Invalid, "method_not_allowed") => StatusCode::METHOD_NOT_ALLOWED,
        (ErrorKind::Invalid, "unsupported_media") => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        (
            ErrorKind::Invalid,
            "cross_drive"
            | "cycle"
            | "too_deep"
            | "root_fixed"
            | "parent_not_folder"
            | "not_a_file"
            | "not_a_folder"
            | "path_too_long"
            | "request_id_reused"
            | "base_version_missing"
            | "size_mismatch"
            | "bad_splices"
            | "digest_mismatch"
            | "own_account"
            | "rewind_in_future"
            | "rewind_too_old",
        ) => StatusCode::UNPROCESSABLE_ENTITY,
        (ErrorKind::Denied, "denied" | "admin_only" | "user_disabled" | "ticket_invalid" | "ticket_expired") => {
            StatusCode::FORBIDDEN
        }
        (ErrorKind::Exhausted, "rate_exceeded") => StatusCode::TOO_MANY_REQUESTS,
        (kind, _) => status_of_kind(kind),
    }
}

fn status_of_kind(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Exists | ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::Denied => StatusCode::UNAUTHORIZED,
        ErrorKind::Invalid => StatusCode::BAD_REQUEST,
        ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::Exhausted => StatusCode::INSUFFICIENT_STORAGE,
        ErrorKind::Busy | ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Ambiguous => StatusCode::GATEWAY_TIMEOUT,
        ErrorKind::Reset => StatusCode::GONE,
        ErrorKind::Corrupt | ErrorKind::Bug => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Seconds after which it makes sense to come again; `None` where it never does. Spread over three, so that all who are refused
/// together do not come together again: ids of requests are random, so they tell how.
pub fn retry_after(failure: &Failure) -> Option<u64> {
    let status = status_of(failure);
    if !matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
        return None;
    }
    let least = failure.fields.get("retry_after_s").and_then(|text| text.parse().ok());
    let spread = (super::trace::current() % RETRY_SPREAD_S) as u64;
    Some(least.unwrap_or(1_u64) + spread)
}

impl HttpError {
    /// The body that tells of it.
    pub fn into_problem(self) -> Problem {
        let status = status_of(&self.failure);
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(code = %self.failure.code, detail = %self.failure.detail, "request failed by our own fault");
        }
        let again = retry_after(&self.failure);
        let detail = match self.failure.kind {
            ErrorKind::Bug => "Something happened that must not; report it with the request id.".to_owned(),
            _ => self.failure.detail,
        };
        let mut fields = self.fields;
        for (key, value) in self.failure.fields {
            fields.entry(key).or_insert(Value::String(value));
        }
        if let Some(field) = fields.get_mut("retry_after_s") {
            *field = again.into();
        }
        Problem {
            problem_type: format!("urn:holdfast:error:{}", self.failure.code),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            code: self.failure.code,
            detail,
            request_id: super::trace::current_text(),
            fields,
        }
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response<Body> {
        let status = status_of(&self.failure);
        let again = retry_after(&self.failure);
        let body = serde_json::to_vec(&self.into_problem()).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_TYPE));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = again {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::{retry_after, status_of};
    use model::error_kind::ErrorKind;
    use protocol::wire_error::Failure;

    #[test]
    fn every_code_has_a_status_that_fits_its_kind() {
        let all = protocol::codes::ALL.iter().chain(crate::codes::ALL);
        for code in all {
            let status = status_of(&Failure::new(code.kind, code.word, ""));
            assert!(status.is_client_error() || status.is_server_error(), "{}", code.word);
            assert_eq!(code.kind.is_retryable(), status.as_u16() == 503, "{}", code.word);
            let again = retry_after(&Failure::new(code.kind, code.word, ""));
            assert_eq!(again.is_some(), matches!(status.as_u16(), 429 | 503), "{}", code.word);
        }
    }

    #[tokio::test]
    async fn those_who_are_refused_together_are_not_told_to_come_together_again() {
        let failure = Failure::new(ErrorKind::Busy, "too_busy", "").with("retry_after_s", 2);
        let mut told = [0; 3];
        for trace in 0..300 {
            let after = super::super::trace::within(trace, async { retry_after(&failure) })
                .await
                .unwrap();
            told[usize::try_from(after).unwrap() - 2] += 1;
        }
        assert_eq!(told, [100; 3]);
    }
}
