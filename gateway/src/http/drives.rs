//! `/api/v1/drives/{id}`: what a drive's contents are named and cut by, and how long it keeps old versions.

use super::App;
use super::extract::{Authenticated, Id, Json, NoQuery};
use super::problem::HttpError;
use crate::codes;
use crate::drive::Caller;
use api::drive::{ChangeDrive, Drive};
use api::me::Cut;
use axum::extract::State;
use model::id::DriveId;
use protocol::wire_error::Failure;
use std::sync::Arc;

/// A drive.
#[utoipa::path(get, path = "/api/v1/drives/{id}", operation_id = "drive", params(("id" = String, Path,)), security(("bearer" = [])),
    responses((status = 200, body = Drive), (status = 404), (status = "default", body = api::problem::Problem)))]
pub async fn show(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    _: NoQuery,
    Id(id): Id,
) -> Result<axum::Json<Drive>, HttpError> {
    Ok(axum::Json(drive(&app, &caller, drive_id(&id)?).await?))
}

/// Changes how long a drive keeps old versions; what is beyond the new rules goes within seconds.
#[utoipa::path(patch, path = "/api/v1/drives/{id}", operation_id = "change_drive", params(("id" = String, Path,)), request_body = ChangeDrive,
    security(("bearer" = [])), responses((status = 200, body = Drive), (status = 404), (status = 415), (status = "default", body = api::problem::Problem)))]
pub async fn change(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    _: NoQuery,
    Id(id): Id,
    body: Json<ChangeDrive>,
) -> Result<axum::Json<Drive>, HttpError> {
    let (id, wanted) = (drive_id(&id)?, body.value);
    app.core
        .set_retention(&caller, id, wanted.versions_max, wanted.version_age_s)
        .await?;
    Ok(axum::Json(drive(&app, &caller, id).await?))
}

fn drive_id(text: &str) -> Result<DriveId, Failure> {
    DriveId::parse(text).ok_or_else(|| codes::BAD_ID.failure())
}

async fn drive(app: &App, caller: &Caller, id: DriveId) -> Result<Drive, Failure> {
    let retention = app.core.retention(caller, id).await?;
    Ok(Drive {
        id: id.to_string(),
        cut: Cut::fixed(),
        digest_key: app.core.digest_key_hex(caller, id).await?,
        versions_max: retention.versions_max,
        version_age_s: retention.version_age_s,
    })
}
