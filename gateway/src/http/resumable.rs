//! Resumable uploads in the shape that clients of Google's drive have: a start, then chunks with `Content-Range` to an address that
//! is a secret of its own.
//!
//! Invariants: a chunk is answered 308 with the range that is durable, never with more; an answer that was lost is given again.
//! Not here: what is kept of a chunk and when (`drive::upload::resume`).

use super::extract::{Authenticated, Id, NoQuery, Query, bearer, declared_length};
use super::incoming::body_failure;
use super::metadata::{client_key, enrich};
use super::problem::HttpError;
use super::upload::{media, uploaded};
use super::{App, extract, trace};
use crate::auth::token;
use crate::codes;
use crate::drive::upload::resume::{Chunk, Standing, Total};
use crate::drive::upload::source::{Inlet, Source};
use crate::drive::upload::{Body, UploadOrder};
use crate::drive::{Caller, tree};
use api::timestamp::Timestamp;
use api::upload::{
    ChunkAnswer, Parents, ReplaceQuery, ResumableMetadata, ResumableQuery, ResumableStarted, UploadProgress,
    UploadQuery, UploadType, Uploaded,
};
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use model::authorize::Principal;
use model::id::UploadId;
use model::limits::JSON_BYTES_MAX;
use model::time::WallTime;
use protocol::frame::encode;
use protocol::metadata::drive::EntryRef;
use protocol::metadata::upload::UploadTarget;
use protocol::wire_error::Failure;
use std::sync::Arc;

const CONTENT_LENGTH: &str = "x-upload-content-length";
const CONTENT_TYPE: &str = "x-upload-content-type";
/// Of libraries that follow every 308, and of ours for them.
const NO_308: &str = "x-guploader-no-308";
const STATUS_OVERRIDE: HeaderName = HeaderName::from_static("x-http-status-code-override");
const EXPIRES: HeaderName = HeaderName::from_static("x-upload-expires");

/// Begins an upload, as `POST /api/v1/files/upload?uploadType=resumable` does.
#[utoipa::path(post, path = "/files/upload", operation_id = "start_upload", security(("bearer" = [])), params(ResumableQuery),
    request_body = ResumableMetadata,
    responses((status = 200, body = ResumableStarted, headers(("Location" = String, description = "The upload's address."),
        ("X-Upload-Expires" = String, description = "When the upload ends by its age, unless more is sent before."))), (status = 404), (status = 409), (status = 422), (status = "default", body = api::problem::Problem)))]
pub async fn start_alias(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    Query(query): Query<ResumableQuery>,
    request: Request,
) -> Result<Response, HttpError> {
    if !query.resumable {
        return Err(codes::BAD_QUERY
            .because("this address begins resumable uploads: send resumable=true")
            .into());
    }
    let query = UploadQuery {
        upload_type: UploadType::Resumable,
        path: query.path,
        base_version: query.base_version,
        parents: query.parents,
    };
    start(&app, &caller, &query, request).await
}

/// Begins an upload: `POST /api/v1/files/upload?uploadType=resumable`.
pub async fn start(
    app: &Arc<App>,
    caller: &Caller,
    query: &UploadQuery,
    request: Request,
) -> Result<Response, HttpError> {
    let (parts, body) = request.into_parts();
    let named = metadata(body).await?;
    let order = order(app, caller, query, &parts.headers, named)?;
    begin(app, caller, &parts, order).await
}

/// Begins an upload that replaces the content of a file; by `PATCH`, or by `PUT` for the clients that say it so.
#[utoipa::path(method(patch, put), path = "/api/v1/files/{id}", operation_id = "replace_content", security(("bearer" = [])),
    params(("id" = String, Path,), ReplaceQuery, ("Idempotency-Key" = Option<String>, Header, description = "A repeat under the same key begins no second upload.")),
    request_body = ResumableMetadata,
    responses((status = 200, body = ResumableStarted, headers(("Location" = String, description = "The upload's address."),
        ("X-Upload-Expires" = String, description = "When the upload ends by its age, unless more is sent before."))), (status = 404), (status = 409), (status = 422), (status = "default", body = api::problem::Problem)))]
pub async fn replace(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    Id(id): Id,
    Query(query): Query<ReplaceQuery>,
    request: Request,
) -> Result<Response, HttpError> {
    let id = tree::entry_id(&id)?;
    if query.upload_type != UploadType::Resumable {
        return Err(codes::BAD_QUERY
            .because("this address begins resumable uploads: send uploadType=resumable")
            .into());
    }
    let (parts, body) = request.into_parts();
    let named = metadata(body).await?;
    let said = named.base_version.or(query.base_version);
    let base_version = match said {
        Some(version) => version,
        None => app.core.entry(&caller, EntryRef::Id(id)).await?.entry.version,
    };
    let mut order = UploadOrder {
        target: UploadTarget::Entry(id),
        base_version: Some(base_version),
        declared_bytes: declared(&parts.headers, &named)?,
        is_body_held_back: true,
        content_type: described(&parts.headers, &named)?,
        key: None,
    };
    // What was asked, not what was found: a repeat comes when another version may be there.
    let asked = encode(&(
        "replace",
        &order.target,
        said,
        (order.declared_bytes, &order.content_type),
    ))?;
    order.key = client_key(&app, &caller, &parts.headers, &asked)?;
    begin(&app, &caller, &parts, order).await
}

async fn metadata(body: axum::body::Body) -> Result<ResumableMetadata, Failure> {
    let raw = extract::read_all(body, JSON_BYTES_MAX).await?;
    if raw.is_empty() {
        return Ok(ResumableMetadata::default());
    }
    serde_json::from_slice(&raw).map_err(|error| codes::BAD_JSON.because(error.to_string()))
}

async fn begin(app: &Arc<App>, caller: &Caller, parts: &Parts, order: UploadOrder) -> Result<Response, HttpError> {
    app.core.require_file_size(order.declared_bytes)?;
    let upload = app.core.open_resumable(caller, order).await;
    let upload = match upload {
        Ok(upload) => upload,
        Err(failure) => return Err(enrich(app, caller, failure).await),
    };
    let key = app.core.receipts.upload_key(caller.principal.user, upload);
    let url = format!("{}/upload/{key}", origin(app, parts));
    let location = HeaderValue::from_str(&url).map_err(|_| codes::BAD_HEADER.because("Host is no host name"))?;
    // Not from now on: a repeat under its key is told of an upload that was begun before.
    let expires = expires(app, caller, upload).await?;
    let answer = ResumableStarted {
        upload_url: url,
        upload_id: key,
        expires,
    };
    let headers = [(header::LOCATION, location), (EXPIRES, expires_header(expires))];
    Ok((StatusCode::OK, headers, axum::Json(answer)).into_response())
}

fn order(
    app: &App,
    caller: &Caller,
    query: &UploadQuery,
    headers: &HeaderMap,
    named: ResumableMetadata,
) -> Result<UploadOrder, Failure> {
    let (parent, with_parents) = match &named.parents {
        Parents::Made(are_made) => (named.parent.as_deref(), *are_made),
        Parents::Folders(folders) => (one_parent(&named, folders)?, false),
    };
    let path = named
        .path
        .as_deref()
        .or(query.path.as_deref().filter(|_| named.name.is_none()));
    let at_root = named.name.as_ref().filter(|_| path.is_none() && parent.is_none());
    let at_root = at_root.map(|name| format!("/{name}"));
    let place = match &at_root {
        Some(path) => tree::place(Some(path), None, None)?,
        None => tree::place(path, parent, named.name.as_deref())?,
    };
    let mut order = UploadOrder {
        target: UploadTarget::Place {
            place,
            with_parents: with_parents || query.parents,
        },
        base_version: named.base_version.or(query.base_version),
        declared_bytes: declared(headers, &named)?,
        is_body_held_back: true,
        content_type: described(headers, &named)?,
        key: None,
    };
    let described = (order.declared_bytes, &order.content_type);
    let asked = encode(&("resumable", &order.target, order.base_version, described))?;
    order.key = client_key(app, caller, headers, &asked)?;
    Ok(order)
}

/// The one folder of a list of them.
fn one_parent<'a>(named: &'a ResumableMetadata, folders: &'a [String]) -> Result<Option<&'a str>, Failure> {
    match (folders, &named.parent) {
        ([], parent) => Ok(parent.as_deref()),
        ([folder], None) => Ok(Some(folder)),
        _ => Err(codes::BAD_JSON.because("an entry lies in one folder: name one parent")),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Bytes of the whole content, as header and body say alike.
fn declared(headers: &HeaderMap, named: &ResumableMetadata) -> Result<Option<u64>, Failure> {
    let said = text(headers, CONTENT_LENGTH).map(|text| text.parse::<u64>());
    let said = said
        .transpose()
        .map_err(|_| codes::BAD_HEADER.because("X-Upload-Content-Length is no number"))?;
    match (said, named.size) {
        (Some(one), Some(other)) if one != other => {
            Err(codes::BAD_HEADER.because("X-Upload-Content-Length and `size` name two lengths"))
        }
        _ => Ok(said.or(named.size)),
    }
}

/// Its media type.
fn described(headers: &HeaderMap, named: &ResumableMetadata) -> Result<Option<String>, Failure> {
    media(named.content_type.as_deref().or(text(headers, CONTENT_TYPE)))
}

/// Scheme and host as the client used them: a proxy in front says the scheme.
pub fn origin(app: &App, parts: &Parts) -> String {
    let text = |name: HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let authority = parts.uri.authority().map(|authority| authority.as_str());
    let Some(host) = text(header::HOST).or(authority) else {
        return String::new();
    };
    let proto = text(HeaderName::from_static("x-forwarded-proto"));
    let scheme = if app.has_tls || proto == Some("https") {
        "https"
    } else {
        "http"
    };
    format!("{scheme}://{host}")
}

/// Until when an upload, or the answer to its commit, is surely there when nothing is sent to it.
pub async fn expires(app: &App, caller: &Caller, upload: UploadId) -> Result<Timestamp, Failure> {
    let life = app.core.life(caller, upload).await?;
    let now = app.core.seams.clock.wall();
    Ok(Timestamp(WallTime(now.0.saturating_add(life.as_millis() as u64))))
}

fn expires_header(expires: Timestamp) -> HeaderValue {
    HeaderValue::from_str(&expires.to_string()).unwrap_or(HeaderValue::from_static(""))
}

/// Who goes on with which upload: by its address alone, or by a token of the same user too.
pub struct Holder {
    /// Whoever began it.
    pub caller: Caller,
    /// Which.
    pub upload: UploadId,
}

impl FromRequestParts<Arc<App>> for Holder {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, HttpError> {
        NoQuery::from_request_parts(parts, app).await?;
        let invalid = || codes::UPLOAD_URL_INVALID.failure();
        let key = Path::<String>::from_request_parts(parts, app).await;
        let Path(key) = key.map_err(|_| invalid())?;
        let (user, upload) = app.core.receipts.read_upload_key(&key).ok_or_else(invalid)?;
        let trace = trace::current();
        let principal = Principal {
            user,
            device: None,
            is_admin: false,
        };
        if parts.headers.contains_key(header::AUTHORIZATION) {
            let text = bearer(&parts.headers)?;
            let (_, hash) = token::read(text).ok_or_else(|| codes::TOKEN_MALFORMED.failure())?;
            let own = Authenticated::from_request_parts(parts, app).await?.0;
            if own.principal.user != user {
                return Err(invalid().into());
            }
            app.admission.prove(hash, user);
        } else if app.core.user(&principal, trace).await?.is_disabled {
            return Err(protocol::codes::USER_DISABLED.failure().into());
        }
        let home = upload.drive;
        let caller = Caller { principal, home, trace };
        Ok(Self { caller, upload })
    }
}

/// Sends a chunk, or asks how far the upload is; by `PUT`, or by `POST` for the clients that use it.
#[utoipa::path(method(put, post), path = "/upload/{key}", operation_id = "put_chunk",
    params(("key" = String, Path, description = "As it was given at the start."),
        ("Content-Range" = Option<String>, Header, description = "`bytes 0-262143/*` with a chunk, `bytes */*` to ask.")),
    request_body(content = String, content_type = "application/octet-stream"),
    responses((status = 200, body = ChunkAnswer, headers(("ETag" = Option<String>, description = "Of a content that is whole."),
            ("Range" = Option<String>, description = "`bytes=0-` and the last byte that is stored, while some are and others lack."),
            ("X-Upload-Expires" = Option<String>, description = "When the upload ends by its age, while bytes lack."),
            ("X-HTTP-Status-Code-Override" = Option<String>, description = "308 for whoever sends `X-GUploader-No-308: yes`."))),
        (status = 201, body = Uploaded, headers(("ETag" = String, description = "The entry's id and the version of its content."))),
        (status = 308, body = UploadProgress, headers(("Range" = Option<String>, description = "`bytes=0-` and the last byte that is stored, if any is."),
            ("X-Upload-Expires" = String, description = "When the upload ends by its age, unless more is sent before."))),
        (status = 404), (status = 409), (status = 422), (status = "default", body = api::problem::Problem)))]
pub async fn chunk(State(app): State<Arc<App>>, holder: Holder, request: Request) -> Result<Response, HttpError> {
    let headers = request.headers().clone();
    let chunk = read_range(&headers)?;
    let end = chunk
        .first
        .zip(chunk.declared_bytes)
        .map(|(first, bytes)| first.saturating_add(bytes));
    app.core.require_file_size(end)?;
    if let Total::Known(total) = chunk.total {
        app.core.require_file_size(Some(total))?;
    }
    let admitted = app.core.admit(None)?;
    let inlet = request.extensions().get::<Inlet>().cloned();
    let stream = request.into_body().into_data_stream();
    let body: Body = stream.map(|chunk| chunk.map_err(|error| body_failure(&error))).boxed();
    let standing = app
        .core
        .resume(&holder.caller, admitted, holder.upload, chunk, Source::new(body, inlet))
        .await;
    match standing {
        Ok(standing) => answer(&app, &holder, &headers, standing).await,
        Err(failure) => Err(enrich(&app, &holder.caller, failure).await),
    }
}

/// How far the upload is.
#[utoipa::path(get, path = "/upload/{key}", operation_id = "upload_progress",
    params(("key" = String, Path, description = "As it was given at the start.")),
    responses((status = 200, body = UploadProgress), (status = 404), (status = "default", body = api::problem::Problem)))]
pub async fn get(State(app): State<Arc<App>>, holder: Holder) -> Result<axum::Json<UploadProgress>, HttpError> {
    let progress = match app.core.standing(&holder.caller, holder.upload).await? {
        Standing::Open {
            stored_bytes,
            declared_bytes,
        } => {
            let expires = expires(&app, &holder.caller, holder.upload).await?;
            progress(stored_bytes, declared_bytes, Some(expires))
        }
        Standing::Finished(done) => progress(done.committed.version.size, Some(done.committed.version.size), None),
    };
    Ok(axum::Json(progress))
}

/// Ends the upload; nothing of it is kept.
#[utoipa::path(delete, path = "/upload/{key}", operation_id = "cancel_upload",
    params(("key" = String, Path, description = "As it was given at the start.")),
    responses((status = 204), (status = 404), (status = "default", body = api::problem::Problem)))]
pub async fn delete(State(app): State<Arc<App>>, holder: Holder) -> Result<StatusCode, HttpError> {
    app.core.abandon(&holder.caller, holder.upload).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn progress(size: u64, total: Option<u64>, expires: Option<Timestamp>) -> UploadProgress {
    UploadProgress {
        size,
        saved_range: size.checked_sub(1).map(|last| format!("0-{last}")),
        total,
        expires,
    }
}

async fn answer(app: &App, holder: &Holder, headers: &HeaderMap, standing: Standing) -> Result<Response, HttpError> {
    let (stored_bytes, declared_bytes) = match standing {
        Standing::Finished(done) => return Ok(uploaded(*done)),
        Standing::Open {
            stored_bytes,
            declared_bytes,
        } => (stored_bytes, declared_bytes),
    };
    let expires = expires(app, &holder.caller, holder.upload).await?;
    let progress = progress(stored_bytes, declared_bytes, Some(expires));
    let range = progress.saved_range.as_ref().map(|range| format!("bytes={range}"));
    let mut response = (StatusCode::PERMANENT_REDIRECT, axum::Json(progress)).into_response();
    if headers
        .get(NO_308)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"yes"))
    {
        *response.status_mut() = StatusCode::OK;
        response
            .headers_mut()
            .insert(STATUS_OVERRIDE, HeaderValue::from_static("308"));
    }
    if let Some(Ok(range)) = range.map(|range| HeaderValue::from_str(&range)) {
        response.headers_mut().insert(header::RANGE, range);
    }
    response.headers_mut().insert(EXPIRES, expires_header(expires));
    Ok(response)
}

/// What a request brings, by `Content-Range` and `Content-Length`. Without a range its body is the whole content.
fn read_range(headers: &HeaderMap) -> Result<Chunk, Failure> {
    let length = declared_length(headers)?;
    let mut values = headers.get_all(header::CONTENT_RANGE).iter();
    let Some(value) = values.next() else {
        return Ok(Chunk {
            first: Some(0),
            declared_bytes: length,
            total: length.map_or(Total::Here, Total::Known),
        });
    };
    if values.next().is_some() {
        return Err(codes::BAD_CONTENT_RANGE.because("send one Content-Range"));
    }
    let malformed =
        || codes::BAD_CONTENT_RANGE.because("write `bytes 0-262143/1000000`, `bytes 0-262143/*` or `bytes */*`");
    let text = value.to_str().map_err(|_| malformed())?;
    let text = text.strip_prefix("bytes").ok_or_else(malformed)?.trim();
    let (range, total) = text.split_once('/').ok_or_else(malformed)?;
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u64>().ok().filter(|_| is_number)
    };
    let total = match total {
        "*" => Total::Unknown,
        text => Total::Known(number(text).ok_or_else(malformed)?),
    };
    if range == "*" {
        return match length {
            None | Some(0) => Ok(Chunk {
                first: None,
                declared_bytes: Some(0),
                total,
            }),
            Some(_) => Err(codes::BAD_CONTENT_RANGE.because("a request that asks brings no bytes")),
        };
    }
    let (first, last) = range.split_once('-').ok_or_else(malformed)?;
    let (first, last) = (
        number(first).ok_or_else(malformed)?,
        number(last).ok_or_else(malformed)?,
    );
    let bytes = last
        .checked_sub(first)
        .and_then(|span| span.checked_add(1))
        .ok_or_else(malformed)?;
    if length.is_some_and(|length| length != bytes) {
        return Err(codes::BAD_CONTENT_RANGE.because("Content-Range and Content-Length name two lengths"));
    }
    if matches!(total, Total::Known(total) if last >= total) {
        return Err(codes::BAD_CONTENT_RANGE.because("the range ends behind the total"));
    }
    Ok(Chunk {
        first: Some(first),
        declared_bytes: Some(bytes),
        total,
    })
}

#[cfg(test)]
mod tests {
    use super::read_range;
    use crate::drive::upload::resume::{Chunk, Total};
    use axum::http::{HeaderMap, HeaderValue};

    fn read(range: Option<&str>, length: Option<u64>) -> Result<Chunk, String> {
        let mut headers = HeaderMap::new();
        if let Some(range) = range {
            headers.insert("content-range", HeaderValue::from_str(range).unwrap());
        }
        if let Some(length) = length {
            headers.insert("content-length", HeaderValue::from(length));
        }
        read_range(&headers).map_err(|failure| failure.code)
    }

    #[test]
    fn ranges_say_what_a_request_brings() {
        let chunk = |first, declared_bytes, total| {
            Ok(Chunk {
                first,
                declared_bytes,
                total,
            })
        };
        assert_eq!(read(None, Some(5)), chunk(Some(0), Some(5), Total::Known(5)));
        assert_eq!(read(None, None), chunk(Some(0), None, Total::Here));
        assert_eq!(
            read(Some("bytes 0-9/*"), None),
            chunk(Some(0), Some(10), Total::Unknown)
        );
        assert_eq!(
            read(Some("bytes 5-9/10"), Some(5)),
            chunk(Some(5), Some(5), Total::Known(10))
        );
        assert_eq!(
            read(Some("bytes */10"), Some(0)),
            chunk(None, Some(0), Total::Known(10))
        );
        assert_eq!(read(Some("bytes */*"), None), chunk(None, Some(0), Total::Unknown));
        assert_eq!(read(Some("bytes */0"), None), chunk(None, Some(0), Total::Known(0)));
        for (range, length) in [
            ("0-9/10", None),
            ("bytes 0-9", None),
            ("bytes 9-0/10", None),
            ("bytes 0-9/+10", None),
            ("bytes +0-9/10", None),
            ("bytes 0-9/9", None),
            ("bytes 0-9/10", Some(9)),
            ("bytes */10", Some(1)),
            ("bytes 0-18446744073709551615/*", None),
            ("bytes 0-99999999999999999999/*", None),
            ("items 0-9/10", None),
            ("bytes -/10", None),
        ] {
            assert_eq!(
                read(Some(range), length),
                Err("bad_content_range".to_owned()),
                "{range} {length:?}"
            );
        }
    }
}
