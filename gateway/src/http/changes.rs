//! `/api/v1/changes`: pages of the feed, in our shape and in Google's.
//!
//! Not here: waiting for the next change (`notify`).

use super::App;
use super::entries;
use super::extract::{Authenticated, NoQuery, Query};
use super::problem::HttpError;
use crate::codes;
use crate::drive::Caller;
use crate::drive::feed::{Read, Told};
use api::change::{Change, ChangeKind, ChangesPage, ChangesQuery};
use api::google::{DriveChange, DriveChangeList, DriveChangesQuery, DriveFile, StartPageToken};
use axum::extract::State;
use model::limits::{CHANGES_PAGE, LIST_PAGE_MAX};
use protocol::codes as group_codes;
use protocol::metadata::query::ChangeType;
use protocol::wire_error::Failure;
use std::sync::Arc;

/// Changes behind a cursor; the present end without one.
#[utoipa::path(get, path = "/api/v1/changes/list", operation_id = "list_changes", params(ChangesQuery), security(("bearer" = [])),
    responses((status = 200, body = ChangesPage), (status = 410), (status = "default", body = api::problem::Problem)))]
pub async fn list(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    Query(query): Query<ChangesQuery>,
) -> Result<axum::Json<ChangesPage>, HttpError> {
    let limit = limit(query.limit)?;
    let read = app.core.changes(&caller, query.since_token.as_deref(), limit).await?;
    let read = if query.fold.unwrap_or(true) {
        read.folded()
    } else {
        read
    };
    let cursor = app.core.receipts.cursor(caller.principal.user, &read.places);
    Ok(axum::Json(ChangesPage {
        changes: read.told.iter().map(change).collect(),
        next_page_token: read.has_more.then(|| cursor.clone()),
        new_start_page_token: (!read.has_more).then(|| cursor.clone()),
        has_more: read.has_more,
        cursor,
    }))
}

fn limit(asked: Option<u32>) -> Result<usize, Failure> {
    let limit = asked.map_or(CHANGES_PAGE, |asked| usize::try_from(asked).unwrap_or(0));
    if (1..=LIST_PAGE_MAX).contains(&limit) {
        Ok(limit)
    } else {
        Err(group_codes::BAD_LIMIT.failure())
    }
}

/// A change in our shape.
pub(super) fn change(told: &Told) -> Change {
    let (change, view) = (&told.change.change, &told.change.view);
    Change {
        sequence: change.sequence,
        scope: told.scope.to_string(),
        kind: match change.change {
            ChangeType::Created => ChangeKind::Created,
            ChangeType::Updated => ChangeKind::Updated,
            ChangeType::Moved => ChangeKind::Moved,
            ChangeType::Trashed => ChangeKind::Trashed,
            ChangeType::Restored => ChangeKind::Restored,
            ChangeType::Deleted => ChangeKind::Deleted,
        },
        file_id: change.entry.to_string(),
        entry: view.as_ref().map(entries::view),
        time: change.time.into(),
        device: change.device.map(|device| device.to_string()),
    }
}

/// Where to begin following, as Google's drive says it.
#[utoipa::path(get, path = "/api/v1/changes/startPageToken", operation_id = "start_page_token", security(("bearer" = [])),
    responses((status = 200, body = StartPageToken), (status = "default", body = api::problem::Problem)))]
pub async fn start_page_token(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    _: NoQuery,
) -> Result<axum::Json<StartPageToken>, HttpError> {
    let read = app.core.changes(&caller, None, 1).await?;
    Ok(axum::Json(StartPageToken {
        kind: "drive#startPageToken".to_owned(),
        start_page_token: app.core.receipts.cursor(caller.principal.user, &read.places),
    }))
}

/// Changes behind a token, as Google's drive says them.
#[utoipa::path(get, path = "/api/v1/changes", operation_id = "drive_changes", params(DriveChangesQuery), security(("bearer" = [])),
    responses((status = 200, body = DriveChangeList), (status = 410), (status = "default", body = api::problem::Problem)))]
pub async fn drive_list(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    Query(query): Query<DriveChangesQuery>,
) -> Result<axum::Json<DriveChangeList>, HttpError> {
    let Some(token) = &query.page_token else {
        return Err(codes::BAD_QUERY
            .because("give `pageToken`; the first one comes from startPageToken")
            .into());
    };
    let read = app.core.changes(&caller, Some(token), limit(query.page_size)?).await?;
    Ok(axum::Json(drive_page(&app, &caller, read.folded())))
}

fn drive_page(app: &App, caller: &Caller, read: Read) -> DriveChangeList {
    let token = app.core.receipts.cursor(caller.principal.user, &read.places);
    let changes = read.told.iter().map(change).map(|change| DriveChange {
        kind: "drive#change".to_owned(),
        change_type: "file".to_owned(),
        time: change.time,
        removed: change.entry.is_none(),
        file: change.entry.as_ref().map(DriveFile::from),
        file_id: change.file_id,
    });
    DriveChangeList {
        kind: "drive#changeList".to_owned(),
        changes: changes.collect(),
        next_page_token: read.has_more.then(|| token.clone()),
        new_start_page_token: (!read.has_more).then_some(token),
    }
}
