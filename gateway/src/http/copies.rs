//! Copies that are made by a job: how they are told, and `DELETE /api/v1/jobs/{id}`.
//!
//! Not here: asking for a copy (`metadata`), asking for its job (`rewind`, which shows jobs of both sorts).

use super::App;
use super::extract::{Authenticated, Id, NoQuery};
use super::problem::HttpError;
use crate::drive::tree;
use api::copy::{CopyJob, CopyState};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use model::id::EntryId;
use protocol::metadata::copy::{CopyFacts, CopyStage};
use std::sync::Arc;

/// Ends a copy that is under way: nothing of it stays. One that has ended stays as it is.
#[utoipa::path(delete, path = "/api/v1/jobs/{id}", operation_id = "cancel_job", params(("id" = String, Path,)), security(("bearer" = [])),
    responses((status = 200, body = CopyJob), (status = 404), (status = 409), (status = "default", body = api::problem::Problem)))]
pub async fn cancel(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    _: NoQuery,
    Id(id): Id,
) -> Result<axum::Json<CopyJob>, HttpError> {
    let facts = app.core.cancel_copy(&caller, tree::entry_id(&id)?).await?;
    Ok(axum::Json(shown(&facts)))
}

/// The answer that a job makes the copy.
pub(super) fn accepted(facts: &CopyFacts) -> Response {
    let job = shown(facts);
    let address = format!("/api/v1/jobs/{}", job.id);
    (StatusCode::ACCEPTED, [(header::LOCATION, address)], axum::Json(job)).into_response()
}

/// A copy as it is told.
pub(super) fn shown(facts: &CopyFacts) -> CopyJob {
    let id = EntryId {
        number: facts.job,
        ..facts.source
    };
    let (state, reason) = match &facts.stage {
        CopyStage::Copying => (CopyState::Copying, None),
        CopyStage::Done => (CopyState::Done, None),
        CopyStage::Stopped(code) => (CopyState::Stopped, Some(code.clone())),
    };
    CopyJob {
        id: id.to_string(),
        entry: facts.source.to_string(),
        copy: facts.copy.to_string(),
        begun_at: facts.begun.into(),
        state,
        reason,
        files: facts.files,
        folders: facts.folders,
    }
}
