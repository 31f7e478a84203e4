//! `POST /api/v1/files/upload`: a whole file in one request, as media or as multipart/related; or the start of one in many.
//!
//! Order matters: who asks, then what is asked, then the budget, and only then the body; whatever is refused before reads no byte.

use super::extract::{Authenticated, Query, declared_length, request_id};
use super::incoming::body_failure;
use super::metadata::{client_key, enrich};
use super::multipart;
use super::problem::HttpError;
use super::{App, entries, resumable};
use crate::codes;
use crate::drive::tree;
use crate::drive::upload::{Body, UploadDone, UploadOrder};
use api::upload::{ResumableMetadata, UploadAnswer, UploadMetadata, UploadQuery, UploadType, Uploaded};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use model::limits::CONTENT_TYPE_BYTES_MAX;
use protocol::frame::encode;
use protocol::metadata::upload::UploadTarget;
use protocol::wire_error::Failure;
use std::sync::Arc;

/// Puts a file.
#[utoipa::path(post, path = "/api/v1/files/upload", security(("bearer" = [])),
    params(UploadQuery, ("Idempotency-Key" = Option<String>, Header, description = "A repeat under the same key gets the first answer.")),
    request_body(content((String = "application/octet-stream"), (UploadMetadata = "multipart/related"),
        (ResumableMetadata = "application/json"))),
    responses((status = 201, body = Uploaded, headers(("ETag" = String, description = "The entry's id and the version of its content."))),
        (status = 200, body = UploadAnswer, headers(("ETag" = Option<String>, description = "Of a content that was replaced."),
            ("Location" = Option<String>, description = "The address of an upload that was begun."),
            ("X-Upload-Expires" = Option<String>, description = "When an upload that was begun ends by its age."))), (status = 404), (status = 409), (status = 415), (status = 422), (status = "default", body = api::problem::Problem)))]
pub async fn upload(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    Query(query): Query<UploadQuery>,
    request: Request,
) -> Result<Response, HttpError> {
    let headers = request.headers().clone();
    let declared = declared_length(&headers)?;
    // A malformed key is refused before the body is read.
    request_id(&headers)?;
    // A multipart body is a little longer than its content, whose length is known once its first part was read.
    let (target, known, around) = match query.upload_type {
        UploadType::Resumable => return resumable::start(&app, &caller, &query, request).await,
        UploadType::Media => (Some(media_target(&query)?), declared, 0),
        UploadType::Multipart => (None, None, multipart::AROUND_BYTES_MAX),
    };
    app.core
        .require_file_size(declared.map(|bytes| bytes.saturating_sub(around)))?;
    let admitted = app.core.admit(declared)?;
    let body = incoming(request);
    let (mut order, body) = match target {
        Some(target) => {
            let content_type = media(headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()))?;
            let order = UploadOrder {
                target,
                base_version: query.base_version,
                declared_bytes: known,
                is_body_held_back: headers.contains_key(header::EXPECT),
                content_type,
                key: None,
            };
            (order, body)
        }
        None => multipart_order(&app, &query, &headers, body).await?,
    };
    // What was understood, not how it was written: a repeat may draw another boundary. The bytes are added when all are known.
    let asked = encode(&("upload", &order.target, order.base_version, &order.content_type))?;
    order.key = client_key(&app, &caller, &headers, &asked)?;
    match app.core.upload(&caller, admitted, order, body).await {
        Ok(done) => Ok(uploaded(done)),
        Err(failure) => Err(enrich(&app, &caller, failure).await),
    }
}

/// The answer to a content that was committed.
pub fn uploaded(done: UploadDone) -> Response {
    let status = if done.committed.is_new_entry {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let answer = Uploaded {
        entry: entries::view(&done.committed.view),
        receipt: done.receipt,
    };
    let tag = format!("\"{}-{}\"", answer.entry.id, answer.receipt.version);
    (status, [(header::ETAG, tag)], axum::Json(answer)).into_response()
}

fn media_target(query: &UploadQuery) -> Result<UploadTarget, Failure> {
    let path = query
        .path
        .as_deref()
        .ok_or_else(|| codes::BAD_QUERY.because("uploadType=media needs `path`"))?;
    let place = tree::place(Some(path), None, None)?;
    Ok(UploadTarget::Place {
        place,
        with_parents: query.parents,
    })
}

async fn multipart_order(
    app: &App,
    query: &UploadQuery,
    headers: &HeaderMap,
    body: Body,
) -> Result<(UploadOrder, Body), Failure> {
    let declared = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    let boundary = multipart::boundary(declared)
        .ok_or_else(|| codes::UNSUPPORTED_MEDIA.because("send Content-Type: multipart/related with a boundary"))?;
    let parts = multipart::read(body, &boundary, declared_length(headers)?).await?;
    app.core.require_file_size(parts.content_bytes_min)?;
    let named: UploadMetadata =
        serde_json::from_slice(&parts.json).map_err(|error| codes::BAD_JSON.because(error.to_string()))?;
    let path = named
        .path
        .as_deref()
        .or(query.path.as_deref().filter(|_| named.parent.is_none()));
    let place = tree::place(path, named.parent.as_deref(), named.name.as_deref())?;
    let target = UploadTarget::Place {
        place,
        with_parents: named.parents || query.parents,
    };
    let content_type = media(named.content_type.as_deref().or(parts.content_type.as_deref()))?;
    let base_version = named.base_version.or(query.base_version);
    Ok((
        UploadOrder {
            target,
            base_version,
            declared_bytes: None,
            is_body_held_back: false,
            content_type,
            key: None,
        },
        parts.content,
    ))
}

/// A media type as a client gave it.
pub fn media(text: Option<&str>) -> Result<Option<String>, Failure> {
    match text {
        Some(text) if text.len() > CONTENT_TYPE_BYTES_MAX => Err(codes::BAD_HEADER.because("Content-Type is too long")),
        Some(text) => Ok(Some(text.to_owned())),
        None => Ok(None),
    }
}

/// The body as it comes in.
pub fn incoming(request: Request) -> Body {
    let stream = request.into_body().into_data_stream();
    // hyper ends a body that is shorter than declared, or whose connection is cut, with an error.
    stream.map(|chunk| chunk.map_err(|error| body_failure(&error))).boxed()
}
