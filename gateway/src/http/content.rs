//! `GET /api/v1/files/{id}/content`: bytes with ranges and conditions, streamed for as long as the token lives.

use super::App;
use super::extract::{Authenticated, Id, Query, Token};
use super::incoming::{Looked, TokenLook, look_at};
use super::problem::HttpError;
use super::range::{Wanted, names_strongly, names_weakly, wanted};
use super::trace;
use crate::admission::gate::Place;
use crate::admission::places::Refusal;
use crate::admission::{SHORT_BYTES_MAX, Who};
use crate::codes;
use crate::drive::download::Bits;
use crate::drive::tree;
use api::timestamp::Timestamp;
use api::version::ContentQuery;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use axum::response::IntoResponse;
use futures_util::{StreamExt, stream};
use protocol::metadata::query::Manifest;
use protocol::wire_error::Failure;
use std::sync::Arc;
use std::time::Duration;

/// How long a piece waits to hear whether the token still lives: a guess, many times what an answer takes. Longer would make a download
/// crawl where nobody can be asked.
const LOOK_WAIT: Duration = Duration::from_millis(250);

/// Only the client's own cache keeps content, and asks each time whether it is still the present one.
const CACHING: &str = "private, no-cache";

/// The bytes of a file, or a range of them.
#[utoipa::path(get, path = "/api/v1/files/{id}/content", params(("id" = String, Path,), ContentQuery), security(("bearer" = [])),
    responses((status = 200, content_type = "application/octet-stream", headers(("ETag" = String, description = "The entry's id and the version of its content."), ("Accept-Ranges" = String, description = "bytes"),
            ("Content-Disposition" = String, description = "attachment"), ("Holdfast-Digest" = String, description = "The digest of the whole content."),
            ("Holdfast-Committed-At" = String, description = "When the content was committed."))),
        (status = 206, content_type = "application/octet-stream", headers(("Content-Range" = String, description = "Which bytes, and of how many."),
            ("ETag" = String, description = "The entry's id and the version of its content."), ("Accept-Ranges" = String, description = "bytes"),
            ("Content-Disposition" = String, description = "attachment"), ("Holdfast-Digest" = String, description = "The digest of the whole content."),
            ("Holdfast-Committed-At" = String, description = "When the content was committed."))),
        (status = 304, headers(("ETag" = String, description = "The entry's id and the version of its content."))),
        (status = 416, headers(("Content-Range" = String, description = "How many bytes the content has."))),
        (status = 404), (status = 412), (status = 422), (status = "default", body = api::problem::Problem)))]
pub async fn content(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    token: Token,
    method: Method,
    Id(id): Id,
    Query(query): Query<ContentQuery>,
    headers: HeaderMap,
) -> Result<Response<Body>, HttpError> {
    let entry = tree::entry_id(&id)?;
    // One question for a whole content. A range needs the length first: an empty range of a content is always inside of it.
    let facts_only = (method == Method::HEAD || headers.contains_key(header::RANGE)).then_some((0, 0));
    let first = app.core.manifest(&caller, entry, query.version, facts_only).await?;
    let (size, version) = (first.version.size, first.version.number);
    let tag = format!("\"{id}-{version}\"");
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if text(header::IF_MATCH).is_some_and(|named| !names_strongly(named, &tag)) {
        return Err(codes::PRECONDITION_FAILED.failure().into());
    }
    if text(header::IF_NONE_MATCH).is_some_and(|named| names_weakly(named, &tag)) {
        // A cache is told again how long it may keep what it has (RFC 9110, 15.4.5).
        let told = [(header::ETAG, tag.as_str()), (header::CACHE_CONTROL, CACHING)];
        return Ok((StatusCode::NOT_MODIFIED, told).into_response());
    }
    let is_fresh = text(header::IF_RANGE).is_none_or(|named| named.trim() == tag);
    let asked = text(header::RANGE).filter(|_| is_fresh && method == Method::GET);
    let (status, range) = match wanted(asked, size) {
        Wanted::Whole => (StatusCode::OK, 0..size),
        Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Wanted::Outside => return Ok(outside(size)),
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    describe(response.headers_mut(), &first, &tag, range.end - range.start)?;
    if status == StatusCode::PARTIAL_CONTENT {
        let text = format!("bytes {}-{}/{size}", range.start, range.end - 1);
        insert(response.headers_mut(), header::CONTENT_RANGE, &text)?;
    }
    if method == Method::HEAD || range.is_empty() {
        return Ok(response);
    }
    let manifest = match facts_only {
        None => first,
        Some(_) => {
            let part = Some((range.start, range.end));
            app.core.manifest(&caller, entry, Some(version), part).await?
        }
    };
    let is_long = range.end - range.start > SHORT_BYTES_MAX;
    let place = match is_long.then(|| app.admission.transfers.enter_now(Who::User(caller.principal.user))) {
        Some(entered) => Some(entered.map_err(Refusal::failure)?),
        None => None,
    };
    let length = range.end - range.start;
    let bits = app.core.stream(caller, entry, manifest, range);
    *response.body_mut() = body((app, token), bits, length, place).await?;
    Ok(response)
}

/// Waits for the first bytes before the head goes out, so that what cannot be read at present is refused and not broken off.
/// What is long holds a place for as long as it is being sent; what is short and comes in one piece needs no stream.
async fn body(
    (app, token): (Arc<App>, Token),
    mut bits: Bits,
    length: u64,
    place: Option<Place>,
) -> Result<Body, Failure> {
    let first = bits.next().await.transpose()?.unwrap_or_default();
    if place.is_none() && first.len() as u64 == length {
        return Ok(Body::from(first));
    }
    let rest = bits.map(move |piece| {
        let _held = &place;
        // The head is gone: all that is left is to break the body off, so that the client sees it cut.
        piece
            .inspect_err(|failure| tracing::warn!(%failure, "download broken off"))
            .map_err(std::io::Error::other)
    });
    let bearer = Bearer {
        app,
        token,
        trace: trace::current(),
        under_way: None,
        is_expired: false,
    };
    let rest = stream::unfold((rest, bearer), |(mut rest, mut bearer)| async move {
        let piece = match rest.next().await? {
            Ok(piece) => match bearer.ended().await {
                Some(failure) => Err(std::io::Error::other(failure)),
                None => Ok(piece),
            },
            broken_off => broken_off,
        };
        Some((piece, (rest, bearer)))
    });
    Ok(Body::from_stream(
        stream::once(std::future::ready(Ok(first))).chain(rest),
    ))
}

/// The token of a download, which is looked at with each piece.
struct Bearer {
    app: Arc<App>,
    token: Token,
    trace: u128,
    /// A look that an earlier piece did not wait out.
    under_way: Option<TokenLook>,
    is_expired: bool,
}

impl Bearer {
    /// Why the token has ended, if it has. Waits for `LOOK_WAIT` at most, and not at all for a look that was waited for already.
    async fn ended(&mut self) -> Option<Failure> {
        let earlier = match self.under_way.take_if(|look| look.is_finished()) {
            Some(look) => look.await.unwrap_or(Looked::Fine),
            None => Looked::Fine,
        };
        let looked = match earlier {
            Looked::Fine if self.under_way.is_none() && !self.is_expired => self.look().await,
            earlier => earlier,
        };
        match looked {
            Looked::Ended(failure) => return Some(failure),
            Looked::Expired => self.is_expired = true,
            Looked::Fine => {}
        }
        None
    }

    async fn look(&mut self) -> Looked {
        let mut look = look_at(&self.app, self.token, self.trace);
        tokio::select! {
            // One that panicked says nothing either.
            looked = &mut look => looked.unwrap_or(Looked::Fine),
            () = self.app.core.seams.clock.sleep(LOOK_WAIT) => {
                self.under_way = Some(look);
                Looked::Fine
            }
        }
    }
}

fn describe(headers: &mut HeaderMap, manifest: &Manifest, tag: &str, length: u64) -> Result<(), Failure> {
    let media = manifest
        .view
        .entry
        .content_type
        .as_deref()
        .unwrap_or("application/octet-stream");
    let media = HeaderValue::from_str(media).unwrap_or(HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_TYPE, media);
    // Whatever a user uploaded is never run in our origin.
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("sandbox; default-src 'none'"),
    );
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(CACHING));
    insert(headers, header::ETAG, tag)?;
    insert(headers, header::CONTENT_LENGTH, &length.to_string())?;
    insert(
        headers,
        header::HeaderName::from_static("holdfast-digest"),
        &manifest.version.digest.to_hex(),
    )?;
    let committed = Timestamp(manifest.version.created_at).to_string();
    insert(
        headers,
        header::HeaderName::from_static("holdfast-committed-at"),
        &committed,
    )
}

fn insert(headers: &mut HeaderMap, name: header::HeaderName, text: &str) -> Result<(), Failure> {
    let value = HeaderValue::from_str(text).map_err(|error| Failure::bug(format!("write header: {error}")))?;
    headers.insert(name, value);
    Ok(())
}

fn outside(size: u64) -> Response<Body> {
    let mut response = HttpError::from(codes::RANGE_NOT_SATISFIABLE.failure()).into_response();
    if let Ok(value) = HeaderValue::from_str(&format!("bytes */{size}")) {
        response.headers_mut().insert(header::CONTENT_RANGE, value);
    }
    response
}
