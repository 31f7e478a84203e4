//! Resumable uploads in the shape of tus 1.0.0 (https://tus.io/protocols/resumable-upload), over the same sessions as `resumable`.
//!
//! Of its extensions: creation, creation-with-upload, creation-defer-length, expiration, checksum (SHA-1) and termination.
//! Invariants: every answer but to OPTIONS says the version; an offset is told only when what lies before it is durable; a length that
//! came late is told from then on; a chunk with a checksum is held whole, under the byte budget, and nothing of it is kept when it
//! does not fit.
//! Not here: what is kept of a chunk and when (`drive::upload::resume`), whose an address is (`resumable::Holder`).

use super::App;
use super::extract::{Authenticated, NoQuery, declared_length, read_all};
use super::incoming::body_failure;
use super::metadata::{client_key, enrich};
use super::problem::HttpError;
use super::resumable::{self, Holder, origin};
use super::upload::media;
use crate::codes;
use crate::drive::upload::resume::{Chunk, Standing, Total};
use crate::drive::upload::source::{Inlet, Source};
use crate::drive::upload::{Body, UploadOrder};
use crate::drive::{Caller, tree};
use api::timestamp::Timestamp;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{StreamExt, stream};
use model::id::UploadId;
use model::time::WallTime;
use protocol::frame::encode;
use protocol::metadata::upload::UploadTarget;
use protocol::wire_error::Failure;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

const VERSION: &str = "1.0.0";
const EXTENSIONS: &str = "creation,creation-with-upload,creation-defer-length,expiration,checksum,termination";
const RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
const VERSIONS: HeaderName = HeaderName::from_static("tus-version");
const OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const LENGTH: HeaderName = HeaderName::from_static("upload-length");
const DEFER_LENGTH: HeaderName = HeaderName::from_static("upload-defer-length");
const EXPIRES: HeaderName = HeaderName::from_static("upload-expires");
const METADATA: HeaderName = HeaderName::from_static("upload-metadata");
const CHECKSUM: HeaderName = HeaderName::from_static("upload-checksum");
const OVERRIDE: HeaderName = HeaderName::from_static("x-http-method-override");
const CHUNK_TYPE: &str = "application/offset+octet-stream";
/// A chunk with a checksum is held until all of it is there, so it takes as much of the byte budget before its body is read.
const CHECKED_BYTES_MAX: usize = 16 << 20;

/// Says our version in every answer, and in the refusal of another all that we know.
pub async fn layer(request: Request, next: Next) -> Response {
    let is_asking = request.method() == axum::http::Method::OPTIONS;
    let mut response = next.run(request).await;
    if response.status() == StatusCode::PRECONDITION_FAILED {
        response
            .headers_mut()
            .insert(VERSIONS, HeaderValue::from_static(VERSION));
    }
    if !is_asking {
        response
            .headers_mut()
            .insert(RESUMABLE, HeaderValue::from_static(VERSION));
    }
    response
}

/// Somebody who speaks our version of the protocol.
pub struct Spoken;

impl FromRequestParts<Arc<App>> for Spoken {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, _app: &Arc<App>) -> Result<Self, HttpError> {
        match parts.headers.get(RESUMABLE).is_some_and(|value| value == VERSION) {
            true => Ok(Self),
            false => Err(codes::TUS_VERSION.failure().into()),
        }
    }
}

/// What this gateway can do.
#[utoipa::path(options, path = "/api/v1/tus", operation_id = "tus_options",
    responses((status = 204, headers(("Tus-Version" = String, description = "1.0.0"), ("Tus-Extension" = String, description = "Names of extensions."),
            ("Tus-Max-Size" = u64, description = "Bytes of the longest file."), ("Tus-Checksum-Algorithm" = String, description = "sha1"))),
        (status = "default", body = api::problem::Problem)))]
pub async fn options(State(app): State<Arc<App>>) -> Response {
    let headers = [
        (VERSIONS, HeaderValue::from_static(VERSION)),
        (
            HeaderName::from_static("tus-extension"),
            HeaderValue::from_static(EXTENSIONS),
        ),
        (
            HeaderName::from_static("tus-max-size"),
            HeaderValue::from(app.core.limits.file_bytes_max),
        ),
        (
            HeaderName::from_static("tus-checksum-algorithm"),
            HeaderValue::from_static("sha1"),
        ),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// Begins an upload, with its first bytes if they come along.
#[utoipa::path(post, path = "/api/v1/tus", operation_id = "tus_create", security(("bearer" = [])),
    params(("Tus-Resumable" = String, Header, description = "1.0.0"),
        ("Idempotency-Key" = Option<String>, Header, description = "A repeat under the same key begins no second upload."),
        ("Upload-Length" = Option<u64>, Header, description = "Bytes of the whole content."),
        ("Upload-Defer-Length" = Option<u64>, Header, description = "1 when the length comes later."),
        ("Upload-Metadata" = Option<String>, Header,
            description = "`path`, or `filename` with `parent`; `filetype`, `base_version`, `parents`: keys with values in Base64.")),
    request_body(content = String, content_type = "application/offset+octet-stream"),
    responses((status = 201, headers(("Location" = String, description = "The upload's address."),
            ("Upload-Expires" = String, description = "When the upload ends by its age, unless more is sent before."),
            ("Upload-Offset" = Option<u64>, description = "What is stored, when bytes came along."))),
        (status = 404), (status = 409), (status = 412), (status = 422), (status = 460), (status = "default", body = api::problem::Problem)))]
pub async fn create(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    _: NoQuery,
    _: Spoken,
    request: Request,
) -> Result<Response, HttpError> {
    let (parts, body) = request.into_parts();
    let declared_bytes = number(&parts.headers, &LENGTH)?;
    let is_deferred = parts.headers.get(DEFER_LENGTH).is_some_and(|value| value == "1");
    if declared_bytes.is_some() == is_deferred {
        return Err(codes::BAD_HEADER
            .because("send either Upload-Length, or Upload-Defer-Length: 1")
            .into());
    }
    app.core.require_file_size(declared_bytes)?;
    let order = order(&app, &caller, &parts.headers, declared_bytes)?;
    let upload = match app.core.open_resumable(&caller, order).await {
        Ok(upload) => upload,
        Err(failure) => return Err(enrich(&app, &caller, failure).await),
    };
    let key = app.core.receipts.upload_key(caller.principal.user, upload);
    let url = format!("{}/api/v1/tus/{key}", origin(&app, &parts));
    let location = HeaderValue::from_str(&url).map_err(|_| codes::BAD_HEADER.because("Host is no host name"))?;
    let mut headers = vec![(header::LOCATION, location)];
    let has_bytes = parts
        .headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value == CHUNK_TYPE);
    if has_bytes || declared_bytes == Some(0) {
        let length = if has_bytes {
            declared_length(&parts.headers)?
        } else {
            Some(0)
        };
        let chunk = chunk(0, length, declared_bytes)?;
        let sent = (parts.extensions.get::<Inlet>().cloned(), body);
        let offset = bring(&app, (&caller, upload), chunk, &parts.headers, sent).await?;
        headers.push((OFFSET, HeaderValue::from(offset)));
    }
    headers.push((EXPIRES, expires(&app, &caller, upload).await?));
    let mut response = StatusCode::CREATED.into_response();
    response.headers_mut().extend(headers);
    Ok(response)
}

/// How far the upload is.
#[utoipa::path(head, path = "/api/v1/tus/{key}", operation_id = "tus_offset",
    params(("key" = String, Path, description = "As it was given at the start."),
        ("Tus-Resumable" = String, Header, description = "1.0.0")),
    responses((status = 200, headers(("Upload-Offset" = u64, description = "What is stored."),
            ("Upload-Length" = Option<u64>, description = "Bytes of the whole content, once they are known."),
            ("Upload-Defer-Length" = Option<String>, description = "1 until they are."))),
        (status = 404), (status = 412), (status = "default", description = "Why not; without the body of a problem.")))]
pub async fn offset(State(app): State<Arc<App>>, holder: Holder, _: Spoken) -> Result<Response, HttpError> {
    let (stored, declared) = standing(&app, &holder).await?;
    let length = match declared {
        Some(bytes) => (LENGTH, HeaderValue::from(bytes)),
        None => (DEFER_LENGTH, HeaderValue::from_static("1")),
    };
    let headers = [
        (OFFSET, HeaderValue::from(stored)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        length,
    ];
    Ok((StatusCode::OK, headers).into_response())
}

/// Sends what follows the offset.
#[utoipa::path(patch, path = "/api/v1/tus/{key}", operation_id = "tus_append",
    params(("key" = String, Path, description = "As it was given at the start."),
        ("Tus-Resumable" = String, Header, description = "1.0.0"),
        ("Upload-Offset" = u64, Header, description = "Where these bytes begin: what HEAD tells."),
        ("Upload-Length" = Option<u64>, Header, description = "Bytes of the whole content, when they were deferred."),
        ("Upload-Checksum" = Option<String>, Header, description = "`sha1` and the digest of these bytes in Base64.")),
    request_body(content = String, content_type = "application/offset+octet-stream"),
    responses((status = 204, headers(("Upload-Offset" = u64, description = "What is stored."),
            ("Upload-Expires" = String, description = "When the upload ends by its age, unless more is sent before."))),
        (status = 404), (status = 409), (status = 412), (status = 415), (status = 422), (status = 460), (status = "default", body = api::problem::Problem)))]
pub async fn append(
    State(app): State<Arc<App>>,
    holder: Holder,
    _: Spoken,
    request: Request,
) -> Result<Response, HttpError> {
    let (parts, body) = request.into_parts();
    if parts
        .headers
        .get(header::CONTENT_TYPE)
        .is_none_or(|value| value != CHUNK_TYPE)
    {
        return Err(codes::UNSUPPORTED_MEDIA
            .because(format!("send Content-Type: {CHUNK_TYPE}"))
            .into());
    }
    let first = number(&parts.headers, &OFFSET)?.ok_or_else(|| codes::BAD_HEADER.because("send Upload-Offset"))?;
    let said = number(&parts.headers, &LENGTH)?;
    app.core.require_file_size(said)?;
    let (stored, declared) = standing(&app, &holder).await?;
    if said.is_some() && declared.is_some() && said != declared {
        return Err(codes::BAD_HEADER
            .because("the upload was begun with another Upload-Length")
            .into());
    }
    if first != stored {
        return Err(codes::OFFSET_CONFLICT.failure().with("offset", stored).into());
    }
    let chunk = chunk(first, declared_length(&parts.headers)?, declared.or(said))?;
    let sent = (parts.extensions.get::<Inlet>().cloned(), body);
    let offset = bring(&app, (&holder.caller, holder.upload), chunk, &parts.headers, sent).await?;
    let expires = expires(&app, &holder.caller, holder.upload).await?;
    let headers = [(OFFSET, HeaderValue::from(offset)), (EXPIRES, expires)];
    Ok((StatusCode::NO_CONTENT, headers).into_response())
}

/// Ends the upload; nothing of it is kept.
#[utoipa::path(delete, path = "/api/v1/tus/{key}", operation_id = "tus_terminate",
    params(("key" = String, Path, description = "As it was given at the start."),
        ("Tus-Resumable" = String, Header, description = "1.0.0")),
    responses((status = 204), (status = 404), (status = 412), (status = "default", body = api::problem::Problem)))]
pub async fn terminate(State(app): State<Arc<App>>, holder: Holder, _: Spoken) -> Result<StatusCode, HttpError> {
    app.core.abandon(&holder.caller, holder.upload).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// PATCH or DELETE of clients that cannot send them.
#[utoipa::path(post, path = "/api/v1/tus/{key}", operation_id = "tus_override",
    params(("key" = String, Path, description = "As it was given at the start."),
        ("Tus-Resumable" = String, Header, description = "1.0.0"),
        ("X-HTTP-Method-Override" = String, Header, description = "PATCH or DELETE."),
        ("Upload-Offset" = Option<u64>, Header, description = "Where these bytes begin: what HEAD tells. PATCH needs it."),
        ("Upload-Length" = Option<u64>, Header, description = "Bytes of the whole content, when they were deferred; of PATCH."),
        ("Upload-Checksum" = Option<String>, Header, description = "`sha1` and the digest of these bytes in Base64; of PATCH.")),
    request_body(content = String, content_type = "application/offset+octet-stream"),
    responses((status = 204, headers(("Upload-Offset" = Option<u64>, description = "What is stored; of PATCH."),
            ("Upload-Expires" = Option<String>, description = "When the upload ends by its age; of PATCH."))),
        (status = 404), (status = 409), (status = 412), (status = 415), (status = 422), (status = 460), (status = "default", body = api::problem::Problem)))]
pub async fn overridden(
    app: State<Arc<App>>,
    holder: Holder,
    spoken: Spoken,
    request: Request,
) -> Result<Response, HttpError> {
    let wanted = request.headers().get(OVERRIDE).map(HeaderValue::as_bytes);
    match wanted {
        Some(b"PATCH") => append(app, holder, spoken, request).await,
        Some(b"DELETE") => Ok(terminate(app, holder, spoken).await?.into_response()),
        _ => Err(codes::BAD_HEADER
            .because("send X-HTTP-Method-Override: PATCH or DELETE")
            .into()),
    }
}

/// Bytes that need not be sent again, and how many there will be.
///
/// At its length a client takes an upload for done. One that has all of its bytes, and whose commit was refused, is committed now, or
/// refused again: the quota may have been lowered meanwhile.
async fn standing(app: &Arc<App>, holder: &Holder) -> Result<(u64, Option<u64>), HttpError> {
    let (stored, declared) = match app.core.settled(&holder.caller, holder.upload).await? {
        Standing::Open {
            stored_bytes,
            declared_bytes,
        } => (stored_bytes, declared_bytes),
        Standing::Finished(done) => {
            let size = done.committed.version.size;
            return Ok((size, Some(size)));
        }
    };
    if declared == Some(stored) {
        let nothing = chunk(stored, Some(0), declared)?;
        let whole = (&holder.caller, holder.upload);
        let sent = (None, axum::body::Body::empty());
        bring(app, whole, nothing, &HeaderMap::new(), sent).await?;
    }
    Ok((stored, declared))
}

/// Takes a chunk in; the offset behind it.
async fn bring(
    app: &Arc<App>,
    (caller, upload): (&Caller, UploadId),
    chunk: Chunk,
    headers: &HeaderMap,
    (inlet, body): (Option<Inlet>, axum::body::Body),
) -> Result<u64, HttpError> {
    // Before any byte of the body is read.
    let (admitted, source) = match checksum(headers)? {
        None => {
            let stream = body.into_data_stream();
            let body: Body = stream.map(|part| part.map_err(|error| body_failure(&error))).boxed();
            (app.core.admit(None)?, Source::new(body, inlet))
        }
        Some(wanted) => {
            let bytes_max = CHECKED_BYTES_MAX as u64;
            let bytes = chunk.declared_bytes.unwrap_or(bytes_max);
            if bytes > bytes_max {
                return Err(codes::BODY_TOO_LARGE.failure().into());
            }
            (app.core.admit_held(bytes)?, Source::from(checked(&wanted, body).await?))
        }
    };
    match app.core.resume(caller, admitted, upload, chunk, source).await {
        Ok(Standing::Open { stored_bytes, .. }) => Ok(stored_bytes),
        Ok(Standing::Finished(done)) => Ok(done.committed.version.size),
        Err(failure) => Err(enrich(app, caller, failure).await),
    }
}

fn chunk(first: u64, length: Option<u64>, whole: Option<u64>) -> Result<Chunk, Failure> {
    let is_past = |(whole, length): (u64, u64)| first.checked_add(length).is_none_or(|end| end > whole);
    if whole.zip(length).is_some_and(is_past) {
        return Err(codes::BAD_HEADER.because("the bytes pass the upload's length"));
    }
    Ok(Chunk {
        first: (length != Some(0)).then_some(first),
        declared_bytes: length,
        total: whole.map_or(Total::Unknown, Total::Known),
    })
}

/// The SHA-1 that the bytes must have, where one is named.
fn checksum(headers: &HeaderMap) -> Result<Option<Vec<u8>>, Failure> {
    let Some(value) = headers.get(CHECKSUM) else {
        return Ok(None);
    };
    let wanted = value.to_str().ok().and_then(|text| text.split_once(' '));
    let wanted = wanted.filter(|(algorithm, _)| *algorithm == "sha1");
    let wanted = wanted.and_then(|(_, digest)| STANDARD.decode(digest.trim()).ok());
    wanted
        .map(Some)
        .ok_or_else(|| codes::BAD_HEADER.because("write Upload-Checksum as `sha1` and its Base64"))
}

/// The whole body, if it fits.
async fn checked(wanted: &[u8], body: axum::body::Body) -> Result<Body, Failure> {
    let whole = read_all(body, CHECKED_BYTES_MAX).await?;
    // The checksum guards against accidents on the way; what is stored has digests of its own.
    let found = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &whole);
    if found.as_ref() != wanted {
        return Err(codes::CHECKSUM_MISMATCH.failure());
    }
    Ok(stream::iter([Ok(whole)]).boxed())
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Result<Option<u64>, Failure> {
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    let text = value
        .to_str()
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let number = text.and_then(|text| text.parse().ok());
    number
        .map(Some)
        .ok_or_else(|| codes::BAD_HEADER.because(format!("{name} is no number of bytes")))
}

fn order(app: &App, caller: &Caller, headers: &HeaderMap, declared_bytes: Option<u64>) -> Result<UploadOrder, Failure> {
    let named = read_metadata(headers)?;
    let text = |name: &str| named.get(name).map(String::as_str);
    let filename = text("filename").or(text("name"));
    if text("path").is_none() && filename.is_none() {
        return Err(codes::BAD_HEADER.because("say in Upload-Metadata where it goes: `path`, or `filename`"));
    }
    let at_root = filename
        .filter(|_| text("parent").is_none())
        .map(|name| format!("/{name}"));
    let place = match text("path").or(at_root.as_deref()) {
        Some(path) => tree::place(Some(path), None, None)?,
        None => tree::place(None, text("parent"), filename)?,
    };
    let base_version = text("base_version").map(str::parse::<u64>).transpose();
    let base_version = base_version.map_err(|_| codes::BAD_HEADER.because("base_version is no number"))?;
    let mut order = UploadOrder {
        target: UploadTarget::Place {
            place,
            with_parents: text("parents") == Some("true"),
        },
        base_version,
        declared_bytes,
        is_body_held_back: true,
        content_type: media(text("filetype").or(text("type")))?,
        key: None,
    };
    let described = (order.declared_bytes, &order.content_type);
    let asked = encode(&("tus", &order.target, order.base_version, described))?;
    order.key = client_key(app, caller, headers, &asked)?;
    Ok(order)
}

/// `key base64, key base64`; a key alone has an empty value.
fn read_metadata(headers: &HeaderMap) -> Result<BTreeMap<String, String>, Failure> {
    let malformed = || codes::BAD_HEADER.because("write Upload-Metadata as keys with values of UTF-8 in Base64");
    let Some(value) = headers.get(METADATA) else {
        return Ok(BTreeMap::new());
    };
    let pairs = value.to_str().map_err(|_| malformed())?.split(',');
    let read = |pair: &str| {
        let (key, value) = pair.trim().split_once(' ').unwrap_or((pair.trim(), ""));
        let bytes = STANDARD.decode(value.trim()).ok()?;
        Some((key.to_owned(), String::from_utf8(bytes).ok()?))
    };
    let read: Option<BTreeMap<String, String>> = pairs.map(read).collect();
    read.ok_or_else(malformed)
}

/// Until when an upload is surely there when nothing is sent to it, as an HTTP date.
async fn expires(app: &App, caller: &Caller, upload: UploadId) -> Result<HeaderValue, Failure> {
    let Timestamp(WallTime(at)) = resumable::expires(app, caller, upload).await?;
    let at = UNIX_EPOCH + Duration::from_millis(at);
    Ok(HeaderValue::from_str(&httpdate::fmt_http_date(at)).unwrap_or(HeaderValue::from_static("")))
}

#[cfg(test)]
mod tests {
    use super::{METADATA, OFFSET, chunk, number, read_metadata};
    use crate::drive::upload::resume::{Chunk, Total};
    use axum::http::{HeaderMap, HeaderValue};

    fn metadata(text: &'static str) -> Option<Vec<(String, String)>> {
        let headers = HeaderMap::from_iter([(METADATA, HeaderValue::from_static(text))]);
        read_metadata(&headers).ok().map(|read| read.into_iter().collect())
    }

    #[test]
    fn metadata_are_keys_with_values_in_base64() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(
            metadata("filename d29ybGQudHh0, is_secret"),
            Some(vec![pair("filename", "world.txt"), pair("is_secret", "")])
        );
        assert_eq!(metadata("filename d29y*"), None);
        assert_eq!(metadata("filename /w=="), None, "not UTF-8");
        assert_eq!(read_metadata(&HeaderMap::new()).unwrap().len(), 0);
    }

    #[test]
    fn a_chunk_stays_within_the_length_and_numbers_are_digits() {
        let made = |first, length, whole| chunk(first, length, whole).ok();
        let wanted = |first, declared_bytes, total| {
            Some(Chunk {
                first,
                declared_bytes,
                total,
            })
        };
        assert_eq!(made(5, Some(5), Some(10)), wanted(Some(5), Some(5), Total::Known(10)));
        assert_eq!(made(0, None, None), wanted(Some(0), None, Total::Unknown));
        assert_eq!(made(0, Some(0), Some(0)), wanted(None, Some(0), Total::Known(0)));
        assert_eq!(made(5, Some(6), Some(10)), None);
        assert_eq!(made(u64::MAX, Some(1), Some(10)), None);
        for (text, read) in [
            ("7", Some(Some(7))),
            ("+7", None),
            ("7.0", None),
            ("99999999999999999999", None),
        ] {
            let headers = HeaderMap::from_iter([(OFFSET, HeaderValue::from_static(text))]);
            assert_eq!(number(&headers, &OFFSET).ok(), read, "{text}");
        }
    }
}
