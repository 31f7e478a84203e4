//! Rewinding: `/api/v1/metadata/{id}/rewind` and the job at `/api/v1/jobs/{id}`; twins of a folder at `/api/v1/metadata/{id}/twins`.

use super::App;
use super::copies;
use super::entries;
use super::extract::{Authenticated, Id, Json, NoQuery, Query};
use super::metadata::{client_key, limit_of};
use super::problem::HttpError;
use crate::drive::tree;
use api::copy::{CopyReport, JobAnswer};
use api::rewind::{
    CreatedSince, JobQuery, JobReport, JobState, Rewind, RewindAction, RewindItem, RewindJob, RewindOutcome,
};
use api::twins::{TwinList, Twins, TwinsQuery};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use model::id::EntryId;
use protocol::codes as group_codes;
use protocol::metadata::rewind as group;
use std::sync::Arc;

/// Makes the files of a folder, or a file, what they were at an instant, by a job. Contents, what was made and what was trashed since
/// are rewound; names and places are not.
#[utoipa::path(post, path = "/api/v1/metadata/{id}/rewind", operation_id = "rewind_entry", request_body = Rewind, security(("bearer" = [])),
    params(("id" = String, Path,), ("Idempotency-Key" = Option<String>, Header, description = "A repeat under the same key gets the first answer.")),
    responses((status = 202, body = RewindJob, headers(("Location" = String, description = "The job's address."))),
        (status = 404), (status = 409), (status = 415), (status = 422), (status = "default", body = api::problem::Problem)))]
pub async fn begin(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    _: NoQuery,
    Id(id): Id,
    headers: HeaderMap,
    body: Json<Rewind>,
) -> Result<Response, HttpError> {
    let wanted = body.value;
    let asked = [b"POST rewind ", id.as_bytes(), b" ", &body.raw[..]].concat();
    let key = client_key(&app, &caller, &headers, &asked)?;
    let order = group::RewindOrder {
        entry: tree::entry_id(&id)?,
        to: wanted.to.0,
        keeps_created: wanted.created == CreatedSince::Keep,
        is_dry_run: wanted.dry_run,
    };
    let facts = app.core.begin_rewind(&caller, order, key).await?;
    Ok(accepted(&facts))
}

/// A job: of a rewind with a page of what it has listed, of a copy alone.
#[utoipa::path(get, path = "/api/v1/jobs/{id}", operation_id = "job", params(("id" = String, Path,), JobQuery), security(("bearer" = [])),
    responses((status = 200, body = JobAnswer), (status = 404), (status = "default", body = api::problem::Problem)))]
pub async fn show(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    Id(id): Id,
    Query(query): Query<JobQuery>,
) -> Result<axum::Json<JobAnswer>, HttpError> {
    let (job, limit) = (tree::entry_id(&id)?, limit_of(query.limit)?);
    let rewind = app.core.rewind(&caller, job, limit, query.page_token.as_deref());
    let (page, next_page_token) = match rewind.await {
        Err(failure) if group_codes::JOB_NOT_FOUND.is(&failure) => {
            let job = copies::shown(&app.core.copy_job(&caller, job).await?);
            return Ok(axum::Json(JobAnswer::Copy(CopyReport { job })));
        }
        answered => answered?,
    };
    Ok(axum::Json(JobAnswer::Rewind(JobReport {
        job: shown(&page.facts),
        items: page.items.into_iter().map(item).collect(),
        next_page_token,
    })))
}

/// Has what a dry run has listed carried out as it stands; what was changed since is left alone.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/run", operation_id = "run_job", security(("bearer" = [])),
    params(("id" = String, Path,), ("Idempotency-Key" = Option<String>, Header, description = "A repeat under the same key gets the first answer.")),
    responses((status = 202, body = RewindJob, headers(("Location" = String, description = "The job's address."))),
        (status = 404), (status = 409), (status = 422), (status = "default", body = api::problem::Problem)))]
pub async fn run(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    _: NoQuery,
    Id(id): Id,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let key = client_key(&app, &caller, &headers, &[b"POST run ", id.as_bytes()].concat())?;
    let job = tree::entry_id(&id)?;
    let facts = app.core.run_rewind(&caller, (job.drive, job.number), key).await?;
    Ok(accepted(&facts))
}

/// Entries of a folder whose names are equal but for case.
#[utoipa::path(get, path = "/api/v1/metadata/{id}/twins", operation_id = "list_twins", params(("id" = String, Path,), TwinsQuery),
    security(("bearer" = [])), responses((status = 200, body = TwinList), (status = 404), (status = 422), (status = "default", body = api::problem::Problem)))]
pub async fn twins(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    Id(id): Id,
    Query(query): Query<TwinsQuery>,
) -> Result<axum::Json<TwinList>, HttpError> {
    let (folder, limit) = (tree::entry_id(&id)?, limit_of(query.limit)?);
    let token = query.page_token.as_deref();
    let (listing, next_page_token) = app.core.twins(&caller, folder, limit, token).await?;
    let of_folder = |stored| entries::child(&listing.folder, stored);
    let twins = listing.twins.iter().map(|twins| Twins {
        folded: twins.folded.clone(),
        entries: twins.entries.iter().map(of_folder).collect(),
    });
    Ok(axum::Json(TwinList {
        twins: twins.collect(),
        next_page_token,
    }))
}

fn accepted(facts: &group::RewindFacts) -> Response {
    let job = shown(facts);
    let address = format!("/api/v1/jobs/{}", job.id);
    (StatusCode::ACCEPTED, [(header::LOCATION, address)], axum::Json(job)).into_response()
}

fn shown(facts: &group::RewindFacts) -> RewindJob {
    let (order, counts) = (&facts.order, &facts.counts);
    let id = EntryId {
        drive: order.entry.drive,
        number: facts.job,
    };
    let (state, reason) = match &facts.stage {
        group::RewindStage::Looking => (JobState::Looking, None),
        group::RewindStage::Planned => (JobState::Planned, None),
        group::RewindStage::Working => (JobState::Working, None),
        group::RewindStage::Done => (JobState::Done, None),
        group::RewindStage::Stopped(code) => (JobState::Stopped, Some(code.clone())),
    };
    RewindJob {
        id: id.to_string(),
        entry: order.entry.to_string(),
        to: order.to.into(),
        created: if order.keeps_created {
            CreatedSince::Keep
        } else {
            CreatedSince::Trash
        },
        dry_run: order.is_dry_run,
        begun_at: facts.begun.into(),
        state,
        reason,
        looked_at: counts.looked_at,
        listed: counts.listed,
        done: counts.done,
        left: counts.left,
    }
}

fn item(stored: group::RewindItem) -> RewindItem {
    let (action, version) = match stored.action {
        group::RewindAction::Content { version } => (RewindAction::RestoreContent, Some(version)),
        group::RewindAction::Trash => (RewindAction::MoveToTrash, None),
        group::RewindAction::Untrash => (RewindAction::TakeOutOfTrash, None),
        group::RewindAction::Gone => (RewindAction::Nothing, None),
    };
    let (outcome, reason) = match stored.outcome {
        group::RewindOutcome::Planned => (RewindOutcome::Planned, None),
        group::RewindOutcome::Done => (RewindOutcome::Done, None),
        group::RewindOutcome::Left(code) => (RewindOutcome::Left, Some(code)),
    };
    RewindItem {
        entry: stored.entry.to_string(),
        path: stored.path,
        action,
        version,
        outcome,
        reason,
    }
}
