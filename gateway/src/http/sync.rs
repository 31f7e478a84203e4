//! Delta sync of a file: `/sync`, `/commit` and the list of a version's blocks.
//!
//! Order matters: who asks, then the budget for a long list, and only then the list.
//! Not here: the blocks' bytes (`blocks`).

use super::App;
use super::extract::{Authenticated, Id, Json, NoQuery, Query};
use super::metadata::{client_key, enrich};
use super::problem::HttpError;
use super::upload::{media, uploaded};
use crate::codes;
use crate::drive::delta::{self, SyncOrder, Synced};
use crate::drive::upload::Admitted;
use crate::drive::{Caller, tree};
use api::sync::{BlockList, BlocksQuery, CommitRequest, SyncAnswer, SyncRequest};
use axum::extract::{FromRequest, Request, State};
use axum::http::HeaderMap;
use axum::response::Response;
use model::id::{EntryId, UploadId};
use model::limits::SYNC_JSON_BYTES_MAX;
use protocol::codes as group_codes;
use protocol::frame::encode;
use protocol::metadata::upload::UploadTarget;
use protocol::wire_error::Failure;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::Arc;

/// Stands in an address for the id of a file that is to be made.
const NEW: &str = "new";

type Listed<T> = Json<T, SYNC_JSON_BYTES_MAX>;

/// Begins an upload of which only the missing blocks are sent; `new` as the id makes a file.
#[utoipa::path(post, path = "/api/v1/files/{id}/sync", operation_id = "sync_file", request_body = SyncRequest, security(("bearer" = [])),
    params(("id" = String, Path,), ("Idempotency-Key" = Option<String>, Header, description = "A repeat under the same key begins no second upload.")),
    responses((status = 200, body = SyncAnswer), (status = 404), (status = 409), (status = 415), (status = 422), (status = "default", body = api::problem::Problem)))]
pub async fn sync(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    _: NoQuery,
    Id(id): Id,
    request: Request,
) -> Result<axum::Json<SyncAnswer>, HttpError> {
    let headers = request.headers().clone();
    let (_admitted, body) = list::<SyncRequest>(&app, request).await?;
    let begun = begin(&app, &caller, &id, &headers, &body.value, &body.raw).await?;
    Ok(axum::Json(SyncAnswer {
        status: "ok".to_owned(),
        missing_blocks: begun.missing.iter().map(|digest| digest.to_hex()).collect(),
        upload_id: begun.upload.to_string(),
    }))
}

/// Commits an upload whose blocks are all there, or a list of blocks that the drive has.
#[utoipa::path(post, path = "/api/v1/files/{id}/commit", operation_id = "commit_file", request_body = CommitRequest, security(("bearer" = [])),
    params(("id" = String, Path,), ("Idempotency-Key" = Option<String>, Header, description = "A repeat of a list under the same key commits it once.")),
    responses((status = 201, body = api::upload::Uploaded, headers(("ETag" = String, description = "The entry's id and the version of its content."))),
        (status = 200, body = api::upload::Uploaded, headers(("ETag" = String, description = "The entry's id and the version of its content."))), (status = 404), (status = 409), (status = 415), (status = 422), (status = "default", body = api::problem::Problem)))]
pub async fn commit(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    _: NoQuery,
    Id(id): Id,
    request: Request,
) -> Result<Response, HttpError> {
    let headers = request.headers().clone();
    let (_admitted, body) = list::<CommitRequest>(&app, request).await?;
    let upload = match &body.value {
        CommitRequest::Begun(begun) => upload_id(&begun.upload_id)?,
        CommitRequest::List(wanted) => begin(&app, &caller, &id, &headers, wanted, &body.raw).await?.upload,
    };
    match app.core.commit_blocks(&caller, entry(&id)?, upload).await {
        Ok(done) => Ok(uploaded(done)),
        Err(failure) if group_codes::NEED_BLOCKS.is(&failure) => Err(lacking(failure, upload)),
        Err(failure) => Err(enrich(&app, &caller, failure).await),
    }
}

/// A version's list of blocks, or how it differs from another version's.
#[utoipa::path(get, path = "/api/v1/files/{id}/blocks", operation_id = "list_blocks", params(("id" = String, Path,), BlocksQuery), security(("bearer" = [])),
    responses((status = 200, body = BlockList), (status = 404), (status = 422), (status = "default", body = api::problem::Problem)))]
pub async fn blocks(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    Id(id): Id,
    Query(query): Query<BlocksQuery>,
) -> Result<axum::Json<BlockList>, HttpError> {
    let list = app.core.blocks(&caller, tree::entry_id(&id)?, &query).await?;
    Ok(axum::Json(list))
}

/// An upload's id as a client gave it.
pub fn upload_id(text: &str) -> Result<UploadId, Failure> {
    UploadId::parse(text).ok_or_else(|| codes::BAD_ID.failure())
}

/// Reads a body that may hold a long list, under the byte budget, which is held for as long as the list is: what it becomes in memory
/// is no more than three times as long.
async fn list<T: DeserializeOwned>(app: &Arc<App>, request: Request) -> Result<(Admitted, Listed<T>), HttpError> {
    let length = super::extract::declared_length(request.headers())?;
    let longest = SYNC_JSON_BYTES_MAX as u64;
    let admitted = app
        .core
        .admit(Some(length.map_or(longest, |bytes| bytes.min(longest))))?;
    let listed = Listed::<T>::from_request(request, app).await?;
    Ok((admitted, listed))
}

async fn begin(
    app: &App,
    caller: &Caller,
    id: &str,
    headers: &HeaderMap,
    wanted: &SyncRequest,
    raw: &[u8],
) -> Result<Synced, HttpError> {
    let order = SyncOrder {
        target: target(id, wanted)?,
        base_version: wanted.current_version,
        wanted: delta::wanted(wanted)?,
        content_type: media(wanted.content_type.as_deref())?,
        key: client_key(app, caller, headers, &encode(&("sync", id, raw))?)?,
    };
    match app.core.sync(caller, order).await {
        Ok(begun) => Ok(begun),
        Err(failure) => Err(enrich(app, caller, failure).await),
    }
}

fn entry(id: &str) -> Result<Option<EntryId>, Failure> {
    if id == NEW {
        return Ok(None);
    }
    tree::entry_id(id).map(Some)
}

fn target(id: &str, wanted: &SyncRequest) -> Result<UploadTarget, Failure> {
    let (path, parent, name) = (wanted.path.as_deref(), wanted.parent.as_deref(), wanted.name.as_deref());
    match entry(id)? {
        None => Ok(UploadTarget::Place {
            place: tree::place(path, parent, name)?,
            with_parents: wanted.parents,
        }),
        Some(_) if path.or(parent).or(name).is_some() || wanted.parents => {
            Err(codes::BAD_JSON.because("`path`, `parent`, `name` and `parents` are for a new file, whose id is `new`"))
        }
        Some(entry) => Ok(UploadTarget::Entry(entry)),
    }
}

/// A commit that lacks blocks is told them as a sync is, with the upload to send them for.
fn lacking(mut failure: Failure, upload: UploadId) -> HttpError {
    let missing = failure.fields.remove("blocks").unwrap_or_default();
    let missing = missing.split(',').map(|digest| Value::String(digest.to_owned()));
    let missing = Value::Array(missing.collect());
    let mut error = HttpError::from(failure);
    error.fields.insert("missing_blocks".to_owned(), missing);
    error
        .fields
        .insert("upload_id".to_owned(), Value::String(upload.to_string()));
    error
}
