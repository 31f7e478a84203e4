//! `POST /api/v1/files/batch`: many small files as multipart/related, first the list, then the contents one behind the other.
//!
//! Order matters: who asks, then the budget, then the list, and only when it is sound the contents.
//! Not here: what becomes of the files (`drive::upload::file_batch`).

use super::App;
use super::entries;
use super::extract::{Authenticated, NoQuery, declared_length, request_id};
use super::metadata::enrich;
use super::multipart;
use super::problem::{HttpError, status_of};
use super::upload::{incoming, media};
use crate::codes;
use crate::drive::tree;
use crate::drive::upload::UploadDone;
use crate::drive::upload::file_batch::{BatchOrder, WantedFile};
use api::file_batch::{BatchAnswer, BatchFile, FileBatch, FileResult, RefusedFile, StoredFile};
use axum::extract::{Request, State};
use axum::http::header;
use model::limits::{BATCH_BYTES_MAX, BATCH_FILES_MAX};
use protocol::frame::encode;
use protocol::metadata::upload::UploadTarget;
use protocol::wire_error::Failure;
use std::sync::Arc;

/// Puts many small files.
#[utoipa::path(post, path = "/api/v1/files/batch", operation_id = "create_batch", security(("bearer" = [])),
    params(("Idempotency-Key" = Option<String>, Header, description = "A repeat under the same key gets the first answer.")),
    request_body(content((FileBatch = "multipart/related"))),
    responses((status = 200, body = BatchAnswer), (status = 404), (status = 409), (status = 415), (status = 422), (status = "default", body = api::problem::Problem)))]
pub async fn create(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    _: NoQuery,
    request: Request,
) -> Result<axum::Json<BatchAnswer>, HttpError> {
    let headers = request.headers().clone();
    let declared = declared_length(&headers)?;
    let key = request_id(&headers)?;
    let form = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let boundary = multipart::boundary(form.unwrap_or(""))
        .ok_or_else(|| codes::UNSUPPORTED_MEDIA.because("send Content-Type: multipart/related with a boundary"))?;
    if declared.is_some_and(|bytes| bytes > BATCH_BYTES_MAX as u64 + multipart::AROUND_BYTES_MAX) {
        return Err(codes::BATCH_TOO_LARGE.failure().into());
    }
    let admitted = app.core.admit(declared)?;
    let parts = multipart::read(incoming(request), &boundary, declared).await?;
    let batch: FileBatch =
        serde_json::from_slice(&parts.json).map_err(|error| codes::BAD_JSON.because(error.to_string()))?;
    require_bounds(&batch)?;
    let files: Vec<WantedFile> = batch.files.iter().map(wanted).collect();
    let asked = encode(&("batch", batch.atomic, files.iter().map(asked).collect::<Vec<_>>()))?.to_vec();
    let order = BatchOrder {
        files,
        is_atomic: batch.atomic,
        key,
        asked,
    };
    match app.core.upload_batch(&caller, admitted, order, parts.content).await {
        Ok(done) => Ok(axum::Json(BatchAnswer {
            results: done.into_iter().map(result).collect(),
        })),
        Err(failure) => {
            let item = failure.fields.get("item").and_then(|text| text.parse::<u64>().ok());
            let mut error = enrich(&app, &caller, failure).await;
            if let Some(item) = item {
                error.fields.insert("item".to_owned(), item.into());
            }
            Err(error)
        }
    }
}

/// Refuses a list that is too short, or too long in any way.
fn require_bounds(batch: &FileBatch) -> Result<(), Failure> {
    if batch.files.is_empty() {
        return Err(codes::BAD_JSON.because("`files` is empty; a batch has at least one file"));
    }
    let bytes = batch
        .files
        .iter()
        .try_fold(0_u64, |bytes, file| bytes.checked_add(file.size));
    match bytes {
        Some(bytes) if batch.files.len() <= BATCH_FILES_MAX && bytes <= BATCH_BYTES_MAX as u64 => Ok(()),
        _ => Err(codes::BATCH_TOO_LARGE.failure()),
    }
}

/// What is asked for a file. A place that is none refuses the file and not the batch.
fn wanted(file: &BatchFile) -> WantedFile {
    let place = tree::place(file.path.as_deref(), file.parent.as_deref(), file.name.as_deref());
    let content_type = media(file.content_type.as_deref());
    let target = place.and_then(|place| {
        content_type.clone().map(|_| UploadTarget::Place {
            place,
            with_parents: file.parents,
        })
    });
    WantedFile {
        target,
        base_version: file.base_version,
        size: file.size,
        content_type: content_type.ok().flatten(),
    }
}

/// What makes a repeat the same request. The bytes are added when all are known.
fn asked(file: &WantedFile) -> (Option<&UploadTarget>, Option<u64>, u64, Option<&str>) {
    let target = file.target.as_ref().ok();
    (target, file.base_version, file.size, file.content_type.as_deref())
}

fn result(result: Result<UploadDone, Failure>) -> FileResult {
    match result {
        Ok(done) => FileResult::Stored(Box::new(StoredFile {
            status: if done.committed.is_new_entry { 201 } else { 200 },
            entry: entries::view(&done.committed.view),
            receipt: done.receipt,
        })),
        Err(mut failure) => {
            // The entry itself stands in `existing` of other answers; a thousand of them would be a thousand questions.
            if let Some(id) = failure.fields.remove("existing") {
                failure.fields.insert("existing_id".to_owned(), id);
            }
            FileResult::Refused(Box::new(RefusedFile {
                status: status_of(&failure).as_u16(),
                problem: HttpError::from(failure).into_problem(),
            }))
        }
    }
}
