//! Versions of a file: `/versions` and `/restore`.
//!
//! Not here: their bytes (`content`), restoring what is in the trash (`metadata`).

use super::App;
use super::entries;
use super::extract::{Authenticated, Id, Json, NoQuery, Query};
use super::metadata::{VERSIONS, base_of, client_key, enrich, judged, limit_of};
use super::precondition::precondition;
use super::problem::HttpError;
use crate::drive::tree;
use api::entry::Entry;
use api::version::{FileVersion, RestoreVersion, VersionList, VersionsQuery};
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use model::entry::Version;
use protocol::frame::encode;
use std::sync::Arc;

/// The versions of a file that are kept, the newest first.
#[utoipa::path(get, path = "/api/v1/files/{id}/versions", operation_id = "list_versions", params(("id" = String, Path,), VersionsQuery),
    security(("bearer" = [])), responses((status = 200, body = VersionList), (status = 404), (status = 422), (status = "default", body = api::problem::Problem)))]
pub async fn list(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    Id(id): Id,
    Query(query): Query<VersionsQuery>,
) -> Result<axum::Json<VersionList>, HttpError> {
    let (id, limit) = (tree::entry_id(&id)?, limit_of(query.limit)?);
    let token = query.page_token.as_deref();
    let (versions, next_page_token) = app.core.versions(&caller, id, limit, token).await?;
    Ok(axum::Json(VersionList {
        versions: versions.iter().map(version).collect(),
        next_page_token,
    }))
}

/// Makes the content of an old version the current one again: a new version, for which no data is moved.
#[utoipa::path(post, path = "/api/v1/files/{id}/restore", operation_id = "restore_version", request_body = RestoreVersion,
    params(("id" = String, Path,), ("If-Match" = Option<String>, Header, description = "Tags of contents of which one must be the current one's."),
        ("Idempotency-Key" = Option<String>, Header, description = "A repeat under the same key gets the first answer.")),
    security(("bearer" = [])), responses((status = 200, body = Entry, headers(("ETag" = String, description = "The entry's id and the version of its content."))), (status = 404), (status = 409), (status = 412), (status = 415), (status = 422), (status = "default", body = api::problem::Problem)))]
pub async fn restore(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    _: NoQuery,
    Id(text): Id,
    headers: HeaderMap,
    body: Json<RestoreVersion>,
) -> Result<Response, HttpError> {
    let (id, wanted) = (tree::entry_id(&text)?, body.value);
    let condition = precondition(&headers, id);
    let base = base_of(&app, &caller, id, (&condition, wanted.base_version), &VERSIONS).await?;
    // The condition too: under another one it is another request.
    let asked = encode(&("restore version", &text, wanted.version, base))?;
    let key = client_key(&app, &caller, &headers, &asked)?;
    match app.core.restore_version(&caller, id, (wanted.version, base), key).await {
        Ok(view) => {
            let entry = entries::view(&view);
            let tag = format!("\"{}-{}\"", entry.id, entry.version);
            Ok(([(header::ETAG, tag)], axum::Json(entry)).into_response())
        }
        Err(failure) => Err(enrich(&app, &caller, judged(failure, &condition, &VERSIONS)).await),
    }
}

fn version(stored: &Version) -> FileVersion {
    FileVersion {
        version: stored.number,
        size: stored.size,
        digest: stored.digest.to_hex(),
        created_at: stored.created_at.into(),
        created_by: stored.created_by.to_string(),
        device: stored.device.map(|device| device.to_string()),
    }
}
