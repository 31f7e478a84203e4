//! `/api/v1/metadata`: list, create, change, delete and restore entries.

use super::App;
use super::entries;
use super::extract::{Authenticated, Json, Query, idempotency_key};
use super::problem::HttpError;
use crate::codes;
use crate::drive::upload::UploadOrder;
use crate::drive::{Caller, tree};
use api::entry::Entry;
use api::metadata::{ChangeEntry, Creatable, CreateEntry, DeleteQuery, ListQuery, Listing};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use model::id::EntryId;
use model::limits::LIST_PAGE_MAX;
use protocol::codes as group_codes;
use protocol::metadata::RequestKey;
use protocol::metadata::drive::{EntryRef, PatchTo};
use protocol::metadata::upload::UploadTarget;
use protocol::wire_error::Failure;
use std::sync::Arc;

/// An entry and a page of its children.
#[utoipa::path(get, path = "/api/v1/metadata", params(ListQuery), security(("bearer" = [])),
    responses((status = 200, body = Listing), (status = "default", body = api::problem::Problem)))]
pub async fn list(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    Query(query): Query<ListQuery>,
) -> Result<Response, HttpError> {
    let wanted = match (&query.path, &query.id) {
        (Some(_), Some(_)) => return Err(codes::BAD_QUERY.because("give `path` or `id`, not both").into()),
        (Some(path), None) => EntryRef::Path(tree::path(path)?),
        (None, Some(id)) => EntryRef::Id(tree::entry_id(id)?),
        (None, None) => EntryRef::Id(caller.home.root()),
    };
    let limit = u16::try_from(query.limit.unwrap_or(LIST_PAGE_MAX as u32)).ok();
    let limit = limit.filter(|limit| (1..=LIST_PAGE_MAX as u16).contains(limit));
    let limit = limit.ok_or_else(|| group_codes::BAD_LIMIT.failure())?;
    let listing = match app.core.list(&caller, wanted.clone(), limit, query.page_token).await {
        Ok(listing) => Listing {
            entry: entries::view(&listing.folder),
            entries: listing
                .entries
                .iter()
                .map(|stored| entries::child(&listing.folder, stored))
                .collect(),
            next_page_token: listing.next_page_token,
        },
        Err(failure) if group_codes::NOT_A_FOLDER.is(&failure) => {
            let view = app.core.entry(&caller, wanted).await?;
            Listing {
                entry: entries::view(&view),
                entries: Vec::new(),
                next_page_token: None,
            }
        }
        Err(failure) => return Err(failure.into()),
    };
    let tag = format!("\"{}-{}\"", listing.entry.id, listing.entry.revision);
    Ok(([(header::ETAG, tag)], axum::Json(listing)).into_response())
}

/// Makes a folder or an empty file.
#[utoipa::path(post, path = "/api/v1/metadata", request_body = CreateEntry, security(("bearer" = [])),
    responses((status = 201, body = Entry), (status = "default", body = api::problem::Problem)))]
pub async fn create(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    headers: HeaderMap,
    body: Json<CreateEntry>,
) -> Result<Response, HttpError> {
    let wanted = body.value;
    let place = tree::place(wanted.path.as_deref(), wanted.parent.as_deref(), wanted.name.as_deref())?;
    let key = client_key(&app, &caller, &headers, &[b"POST metadata ", &body.raw[..]].concat())?;
    let made = match wanted.entry_type {
        Creatable::Folder => app.core.create_folder(&caller, place, wanted.parents, key).await,
        Creatable::File => {
            let admitted = app.core.admit(Some(0))?;
            let target = UploadTarget::Place {
                place,
                with_parents: wanted.parents,
            };
            let order = UploadOrder {
                target,
                base_version: None,
                declared_bytes: Some(0),
                content_type: None,
                key,
            };
            let empty = futures_util::stream::empty().boxed();
            app.core
                .upload(&caller, admitted, order, empty)
                .await
                .map(|done| done.committed.view)
        }
    };
    match made {
        Ok(view) => Ok((StatusCode::CREATED, axum::Json(entries::view(&view))).into_response()),
        Err(failure) => Err(enrich(&app, &caller, failure).await),
    }
}

/// Renames or moves an entry.
#[utoipa::path(patch, path = "/api/v1/metadata/{id}", params(("id" = String, Path,)), request_body = ChangeEntry,
    security(("bearer" = [])), responses((status = 200, body = Entry), (status = "default", body = api::problem::Problem)))]
pub async fn change(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    Path(id): Path<String>,
    body: Json<ChangeEntry>,
) -> Result<axum::Json<Entry>, HttpError> {
    let (id, wanted) = (tree::entry_id(&id)?, body.value);
    let to = match (&wanted.path, &wanted.name, &wanted.parent) {
        (Some(path), None, None) => PatchTo::Path(tree::path(path)?),
        (None, name, parent) if name.is_some() || parent.is_some() => PatchTo::Parts {
            name: name.as_deref().map(tree::name).transpose()?,
            parent: parent.as_deref().map(tree::entry_id).transpose()?,
        },
        _ => {
            return Err(codes::BAD_JSON
                .because("give `path`, or `name`, `parent` or both")
                .into());
        }
    };
    match app.core.patch(&caller, id, to, wanted.base_revision).await {
        Ok(view) => Ok(axum::Json(entries::view(&view))),
        Err(failure) => Err(enrich(&app, &caller, failure).await),
    }
}

/// Puts an entry into the trash, or removes it for good.
#[utoipa::path(delete, path = "/api/v1/metadata/{id}", params(("id" = String, Path,), DeleteQuery),
    security(("bearer" = [])), responses((status = 204), (status = "default", body = api::problem::Problem)))]
pub async fn delete(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    Path(id): Path<String>,
    Query(query): Query<DeleteQuery>,
) -> Result<StatusCode, HttpError> {
    let id = tree::entry_id(&id)?;
    if query.permanent {
        app.core.purge(&caller, id, query.base_revision).await?;
    } else {
        app.core.trash(&caller, id, query.base_revision).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Takes an entry out of the trash.
#[utoipa::path(post, path = "/api/v1/metadata/{id}/restore", params(("id" = String, Path,)),
    security(("bearer" = [])), responses((status = 200, body = Entry), (status = "default", body = api::problem::Problem)))]
pub async fn restore(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    Path(id): Path<String>,
) -> Result<axum::Json<Entry>, HttpError> {
    match app.core.restore(&caller, tree::entry_id(&id)?).await {
        Ok(view) => Ok(axum::Json(entries::view(&view))),
        Err(failure) => Err(enrich(&app, &caller, failure).await),
    }
}

/// The request id of a client's `Idempotency-Key` for a request described by `asked`.
pub fn client_key(
    app: &App,
    caller: &Caller,
    headers: &HeaderMap,
    asked: &[u8],
) -> Result<Option<RequestKey>, Failure> {
    Ok(idempotency_key(headers)?.map(|key| app.core.client_key(caller, key, asked)))
}

/// Adds the entry that stands in the way: `existing` where a name is taken, `current` where a version is stale.
pub async fn enrich(app: &App, caller: &Caller, failure: Failure) -> HttpError {
    let field = match failure.code.as_str() {
        "name_taken" => "existing",
        "version_conflict" | "revision_conflict" => "current",
        _ => return failure.into(),
    };
    let named = [field, "existing", "entry"]
        .into_iter()
        .find_map(|key| failure.fields.get(key));
    let id = named.and_then(|text| EntryId::parse(text));
    let mut error = HttpError::from(failure);
    if let Some(id) = id
        && let Ok(view) = app.core.entry(caller, EntryRef::Id(id)).await
        && let Ok(json) = serde_json::to_value(entries::view(&view))
    {
        error.fields.insert(field.to_owned(), json);
    }
    error
}
