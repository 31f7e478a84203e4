//! `/api/v1/metadata`: list, create, copy, change, delete and restore entries.

use super::App;
use super::copies;
use super::entries;
use super::extract::{Authenticated, Id, Json, MaybeJson, NoQuery, Query, request_id};
use super::precondition::{Precondition, precondition};
use super::problem::HttpError;
use super::range::names_weakly;
use crate::codes;
use crate::drive::copies::Copied;
use crate::drive::upload::UploadOrder;
use crate::drive::{Caller, tree};
use api::entry::Entry;
use api::metadata::{ChangeEntry, CopyEntry, Creatable, CreateEntry, DeleteQuery, ListQuery, Listing, RestoreEntry};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use model::id::EntryId;
use model::limits::LIST_PAGE_MAX;
use protocol::codes::{self as group_codes, Code};
use protocol::metadata::RequestKey;
use protocol::metadata::drive::{EntryRef, EntryView, PatchTo};
use protocol::metadata::upload::UploadTarget;
use protocol::wire_error::Failure;
use std::sync::Arc;

/// An entry and a page of its children.
#[utoipa::path(get, path = "/api/v1/metadata", operation_id = "list_entry", security(("bearer" = [])),
    params(ListQuery, ("If-None-Match" = Option<String>, Header, description = "Tags of answers that the caller still has.")),
    responses((status = 200, body = Listing, headers(("ETag" = String, description = "Names this very answer."))),
        (status = 304, headers(("ETag" = String, description = "Names this very answer."))), (status = 404), (status = 422), (status = "default", body = api::problem::Problem)))]
pub async fn list(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    Query(query): Query<ListQuery>,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let wanted = match (&query.path, &query.id) {
        (Some(_), Some(_)) => return Err(codes::BAD_QUERY.because("give `path` or `id`, not both").into()),
        (Some(path), None) => EntryRef::Path(tree::path(path)?),
        (None, Some(id)) => EntryRef::Id(tree::entry_id(id)?),
        (None, None) => EntryRef::Id(caller.home.root()),
    };
    let limit = limit_of(query.limit)?;
    let listing = match app
        .core
        .list(&caller, wanted.clone(), limit, query.page_token.as_deref())
        .await
    {
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
    let body = serde_json::to_vec(&listing).map_err(|error| Failure::bug(format!("encode listing: {error}")))?;
    // A folder's revision does not count its children's changes, nor an entry's those of the folders in its path: the tag names
    // the very answer.
    let (entry, print) = (&listing.entry, tree::fingerprint(&body));
    let tag = format!("\"{}-{}-{print}\"", entry.id, entry.revision);
    let known = headers.get_all(header::IF_NONE_MATCH).iter();
    if known
        .filter_map(|value| value.to_str().ok())
        .any(|known| names_weakly(known, &tag))
    {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    let json = (header::CONTENT_TYPE, "application/json".to_owned());
    Ok(([(header::ETAG, tag), json], body).into_response())
}

/// Makes a folder or an empty file.
#[utoipa::path(post, path = "/api/v1/metadata", operation_id = "create_entry", request_body = CreateEntry, security(("bearer" = [])),
    params(("Idempotency-Key" = Option<String>, Header, description = "A repeat under the same key gets the first answer.")),
    responses((status = 201, body = Entry, headers(("ETag" = String, description = "The entry's id and revision."))), (status = 404), (status = 409), (status = 415), (status = 422), (status = "default", body = api::problem::Problem)))]
pub async fn create(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    _: NoQuery,
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
                is_body_held_back: false,
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
        Ok(view) => Ok((StatusCode::CREATED, tagged(&view)).into_response()),
        Err(failure) => Err(enrich(&app, &caller, failure).await),
    }
}

/// Renames or moves an entry.
#[utoipa::path(patch, path = "/api/v1/metadata/{id}", operation_id = "change_entry", request_body = ChangeEntry,
    params(("id" = String, Path,), ("If-Match" = Option<String>, Header, description = "Tags of which one must be the entry's.")),
    security(("bearer" = [])), responses((status = 200, body = Entry, headers(("ETag" = String, description = "The entry's id and revision."))), (status = 404), (status = 409), (status = 412), (status = 415), (status = 422), (status = "default", body = api::problem::Problem)))]
pub async fn change(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    _: NoQuery,
    Id(id): Id,
    headers: HeaderMap,
    body: Json<ChangeEntry>,
) -> Result<Response, HttpError> {
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
    let condition = precondition(&headers, id);
    let base = base_of(&app, &caller, id, (&condition, wanted.base_revision), &REVISIONS).await?;
    match app.core.patch(&caller, id, to, base).await {
        Ok(view) => Ok(tagged(&view).into_response()),
        Err(failure) => Err(enrich(&app, &caller, judged(failure, &condition, &REVISIONS)).await),
    }
}

/// Puts an entry into the trash, or removes it for good.
#[utoipa::path(delete, path = "/api/v1/metadata/{id}", operation_id = "delete_entry", security(("bearer" = [])),
    params(("id" = String, Path,), ("If-Match" = Option<String>, Header, description = "Tags of which one must be the entry's."), DeleteQuery),
    responses((status = 204), (status = 404), (status = 409), (status = 412), (status = 422), (status = "default", body = api::problem::Problem)))]
pub async fn delete(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    Id(id): Id,
    headers: HeaderMap,
    Query(query): Query<DeleteQuery>,
) -> Result<StatusCode, HttpError> {
    let id = tree::entry_id(&id)?;
    let condition = precondition(&headers, id);
    let base = base_of(&app, &caller, id, (&condition, query.base_revision), &REVISIONS).await?;
    let done = match query.permanent {
        true => app.core.purge(&caller, id, base).await,
        false => app.core.trash(&caller, id, base).await,
    };
    match done {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(failure) => Err(enrich(&app, &caller, judged(failure, &condition, &REVISIONS)).await),
    }
}

/// Copies a file, or a folder with all below it, inside its drive; moves no data and takes no quota. A folder that takes more than one
/// command is copied by a job.
#[utoipa::path(post, path = "/api/v1/metadata/{id}/copy", operation_id = "copy_entry", request_body = CopyEntry, security(("bearer" = [])),
    params(("id" = String, Path,), ("Idempotency-Key" = Option<String>, Header, description = "A repeat under the same key gets the first answer.")),
    responses((status = 201, body = Entry, headers(("ETag" = String, description = "The entry's id and revision."))),
        (status = 202, body = api::copy::CopyJob, headers(("Location" = String, description = "The job's address."))), (status = 404), (status = 409), (status = 413), (status = 415), (status = 422), (status = "default", body = api::problem::Problem)))]
pub async fn copy(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    _: NoQuery,
    Id(id): Id,
    headers: HeaderMap,
    body: Json<CopyEntry>,
) -> Result<Response, HttpError> {
    let wanted = body.value;
    let place = tree::place(wanted.path.as_deref(), wanted.parent.as_deref(), wanted.name.as_deref())?;
    let asked = [b"POST copy ", id.as_bytes(), b" ", &body.raw[..]].concat();
    let key = client_key(&app, &caller, &headers, &asked)?;
    let entry = tree::entry_id(&id)?;
    match app.core.copy(&caller, entry, (place, wanted.parents), key).await {
        Ok(Copied::There(view)) => Ok((StatusCode::CREATED, tagged(&view)).into_response()),
        Ok(Copied::Begun(facts)) => Ok(copies::accepted(&facts)),
        Err(failure) => Err(enrich(&app, &caller, failure).await),
    }
}

/// Takes an entry out of the trash.
#[utoipa::path(post, path = "/api/v1/metadata/{id}/restore", operation_id = "restore_entry", params(("id" = String, Path,)),
    request_body = Option<RestoreEntry>, security(("bearer" = [])), responses((status = 200, body = Entry, headers(("ETag" = String, description = "The entry's id and revision."))), (status = 404), (status = 409), (status = 415), (status = 422), (status = "default", body = api::problem::Problem)))]
pub async fn restore(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    _: NoQuery,
    Id(id): Id,
    MaybeJson(wanted): MaybeJson<RestoreEntry>,
) -> Result<Response, HttpError> {
    let parent = wanted.parent.as_deref().map(tree::entry_id).transpose()?;
    let name = wanted.name.as_deref().map(tree::name).transpose()?;
    match app.core.restore(&caller, tree::entry_id(&id)?, parent, name).await {
        Ok(view) => Ok(tagged(&view).into_response()),
        Err(failure) => Err(enrich(&app, &caller, failure).await),
    }
}

/// An entry with its tag.
fn tagged(view: &EntryView) -> impl IntoResponse {
    let entry = entries::view(view);
    let tag = format!("\"{}-{}\"", entry.id, entry.revision);
    ([(header::ETAG, tag)], axum::Json(entry))
}

/// How many entries, or versions, a page of a list shall have.
pub(super) fn limit_of(asked: Option<u32>) -> Result<u16, Failure> {
    let limit = u16::try_from(asked.unwrap_or(LIST_PAGE_MAX as u32)).ok();
    let limit = limit.filter(|limit| (1..=LIST_PAGE_MAX as u16).contains(limit));
    limit.ok_or_else(|| group_codes::BAD_LIMIT.failure())
}

/// What counts the changes that a condition may demand to know.
pub(super) struct Count {
    present: fn(&EntryView) -> u64,
    conflict: &'static Code,
}

/// Every change of the entry.
pub(super) const REVISIONS: Count = Count {
    present: |view| view.entry.revision,
    conflict: &group_codes::REVISION_CONFLICT,
};
/// Contents of a file.
pub(super) const VERSIONS: Count = Count {
    present: |view| view.entry.version,
    conflict: &group_codes::VERSION_CONFLICT,
};

/// The revision or version that a change is based on: as the body or query says, and as `If-Match` demands.
pub(super) async fn base_of(
    app: &App,
    caller: &Caller,
    id: EntryId,
    (condition, base): (&Precondition, Option<u64>),
    count: &Count,
) -> Result<Option<u64>, HttpError> {
    let Precondition::OneOf(known) = condition else {
        return Ok(base);
    };
    let allowed = |known: &u64| base.is_none_or(|base| base == *known);
    let mut fitting = known.iter().copied().filter(allowed);
    match (fitting.next(), fitting.next()) {
        (Some(only), None) => return Ok(Some(only)),
        (Some(_), Some(_)) => {
            let view = app.core.entry(caller, EntryRef::Id(id)).await?;
            let present = (count.present)(&view);
            if known.contains(&present) {
                return Ok(Some(present));
            }
        }
        (None, _) => {}
    }
    let changed = count.conflict.failure().with("entry", id);
    Err(enrich(app, caller, judged(changed, condition, count)).await)
}

/// The same conflict has another status for whoever asked by `If-Match` (RFC 9110).
pub(super) fn judged(failure: Failure, condition: &Precondition, count: &Count) -> Failure {
    if *condition == Precondition::Any || !count.conflict.is(&failure) {
        return failure;
    }
    let precondition = codes::PRECONDITION_FAILED.because("the entry is another by now; read it again and decide");
    Failure {
        fields: failure.fields,
        ..precondition
    }
}

/// The request id of a client's own one for a request described by `asked`.
pub fn client_key(
    app: &App,
    caller: &Caller,
    headers: &HeaderMap,
    asked: &[u8],
) -> Result<Option<RequestKey>, Failure> {
    Ok(request_id(headers)?.map(|key| app.core.client_key(caller, &key, asked)))
}

/// Adds the entry that stands in the way: `existing` where a name is taken, `current` where a version is stale.
pub async fn enrich(app: &App, caller: &Caller, failure: Failure) -> HttpError {
    let field = match failure.code.as_str() {
        "name_taken" => "existing",
        "version_conflict" | "revision_conflict" | "precondition_failed" => "current",
        _ => return failure.into(),
    };
    let mut failure = failure;
    let named = ["existing", "entry"]
        .into_iter()
        .find_map(|key| failure.fields.remove(key));
    let id = named.and_then(|text| EntryId::parse(&text));
    let mut error = HttpError::from(failure);
    let Some(id) = id else {
        return error;
    };
    // Not read again: whoever asks a group repeats its call for as long as that may help.
    let read = app.core.entry(caller, EntryRef::Id(id)).await;
    let shown = read.and_then(|view| {
        serde_json::to_value(entries::view(&view)).map_err(|error| Failure::bug(format!("encode entry: {error}")))
    });
    match shown {
        Ok(json) => {
            error.fields.insert(field.to_owned(), json);
        }
        // Gone since, not to be seen by the caller, or its group does not answer: then there is nothing to show.
        Err(failure) => tracing::debug!(entry = %id, field, %failure, "a refusal shows no entry"),
    }
    error
}
