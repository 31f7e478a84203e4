//! `Holdfast-Age-Hour`: answers tell the aged hour of the caller's slot, and a request under an id says in which hour that was made
//! (decision 0052).
//!
//! Invariant: the hour is told to whoever proved that the slot is his, as a metadata group told it last, and never made up from a clock.
//! Not here: how an id is judged by it (`metadata-raft/src/state/request.rs`); polls, whose answers need none.

use super::App;
use crate::codes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use model::id::Slot;
use protocol::wire_error::Failure;
use std::cell::Cell;
use std::sync::Arc;

/// The header, in requests and answers.
pub const HEADER: &str = "holdfast-age-hour";

tokio::task_local! {
    static SLOT: Cell<Option<Slot>>;
}

/// Notes whose request the present one is, once that is proved.
pub fn note(slot: Slot) {
    // A poll has no place for it, and is told nothing.
    let _ = SLOT.try_with(|noted| noted.set(Some(slot)));
}

/// Adds to the answer the aged hour of the slot that was noted.
pub async fn layer(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let answered = async {
        let response = next.run(request).await;
        let slot = SLOT.try_with(Cell::get).ok().flatten();
        (response, slot)
    };
    let (mut response, slot) = SLOT.scope(Cell::new(None), answered).await;
    if let Some(hour) = slot.and_then(|slot| app.core.metadata.age_hour(slot)) {
        response.headers_mut().insert(HEADER, HeaderValue::from(hour));
    }
    response
}

/// The hour in which the client made the id that it sends, if it says so.
///
/// Errors: `bad_header` for anything but one number of hours.
pub fn sent(headers: &HeaderMap) -> Result<Option<u32>, Failure> {
    let mut values = headers.get_all(HEADER).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or("");
    // `parse` would take a sign as well.
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit()) && values.next().is_none();
    let hour = text.parse().ok().filter(|_| is_number);
    hour.map(Some)
        .ok_or_else(|| codes::BAD_HEADER.because("Holdfast-Age-Hour is one number of hours, as an answer told it"))
}

#[cfg(test)]
mod tests {
    use super::{HEADER, sent};
    use axum::http::{HeaderMap, HeaderValue};

    #[test]
    fn an_hour_is_one_number_and_anything_else_is_refused() {
        type Read = Result<Option<u32>, &'static str>;
        let cases: [(&[&str], Read); 10] = [
            (&[], Ok(None)),
            (&["0"], Ok(Some(0))),
            (&["4294967295"], Ok(Some(u32::MAX))),
            (&["4294967296"], Err("bad_header")),
            (&[""], Err("bad_header")),
            (&["-1"], Err("bad_header")),
            (&["+1"], Err("bad_header")),
            (&["1.5"], Err("bad_header")),
            (&["1, 1"], Err("bad_header")),
            (&["1", "1"], Err("bad_header")),
        ];
        for (values, expected) in cases {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(HEADER, HeaderValue::from_str(value).unwrap());
            }
            let read = sent(&headers).map_err(|failure| failure.code);
            assert_eq!(read, expected.map_err(str::to_owned), "{values:?}");
        }
    }
}
