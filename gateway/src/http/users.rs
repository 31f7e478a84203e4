//! Accounts: `/api/v1/users` for admins, `/api/v1/me` for everybody.

use super::App;
use super::extract::{Authenticated, Id, Json, NoQuery};
use super::metadata::client_key;
use super::problem::HttpError;
use crate::admission::Who;
use crate::codes;
use crate::drive::account::{NewUser, require_admin};
use api::me::{Cut, Me, Usage};
use api::user::{ChangePassword, ChangeUser, CreateUser, User};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use model::id::UserId;
use model::name::Username;
use protocol::metadata::user::UserRecord;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Makes an account with a home drive.
#[utoipa::path(post, path = "/api/v1/users", operation_id = "create_user", request_body = CreateUser, security(("bearer" = [])),
    params(("Idempotency-Key" = Option<String>, Header, description = "A repeat of the same account gets the first answer.")),
    responses((status = 201, body = User), (status = 409), (status = 415), (status = 422), (status = "default", body = api::problem::Problem)))]
pub async fn create(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    _: NoQuery,
    headers: HeaderMap,
    body: Json<CreateUser>,
) -> Result<(StatusCode, axum::Json<User>), HttpError> {
    require_admin(&caller)?;
    let wanted = body.value;
    let name =
        Username::new(&wanted.username).map_err(|error| codes::BAD_NAME.because(format!("{}.", error.advice())))?;
    let asked = app
        .core
        .receipts
        .secret_request(&[b"POST users ", &body.raw[..]].concat());
    let key = client_key(&app, &caller, &headers, &asked)?;
    let password_hash = app
        .passwords
        .hash(Who::User(caller.principal.user), Zeroizing::new(wanted.password))
        .await?;
    let new = NewUser {
        name,
        password_hash,
        quota_bytes: wanted.quota_bytes,
        is_admin: wanted.is_admin,
    };
    let record = app.core.create_user(new, key, caller.trace).await?;
    Ok((StatusCode::CREATED, axum::Json(user(&record))))
}

/// Changes an account.
#[utoipa::path(patch, path = "/api/v1/users/{id}", operation_id = "change_user", params(("id" = String, Path,)), request_body = ChangeUser,
    security(("bearer" = [])), responses((status = 200, body = User), (status = 404), (status = 415), (status = 422), (status = "default", body = api::problem::Problem)))]
pub async fn change(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    _: NoQuery,
    Id(id): Id,
    body: Json<ChangeUser>,
) -> Result<axum::Json<User>, HttpError> {
    require_admin(&caller)?;
    let id = UserId::parse(&id).ok_or_else(|| codes::BAD_ID.failure())?;
    let ChangeUser {
        quota_bytes,
        disabled,
        password,
    } = body.value;
    let hash = match password {
        Some(password) => Some(
            app.passwords
                .hash(Who::User(caller.principal.user), Zeroizing::new(password))
                .await?,
        ),
        None => None,
    };
    let record = app.core.patch_user(&caller, id, quota_bytes, disabled, hash).await?;
    Ok(axum::Json(user(&record)))
}

/// Deletes an account: it ends at once, and after 30 aged days its name, its key and all that it holds are gone for good.
#[utoipa::path(delete, path = "/api/v1/users/{id}", operation_id = "delete_user", params(("id" = String, Path,)),
    security(("bearer" = [])), responses((status = 204), (status = 404), (status = 422), (status = "default", body = api::problem::Problem)))]
pub async fn delete(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    _: NoQuery,
    Id(id): Id,
) -> Result<StatusCode, HttpError> {
    require_admin(&caller)?;
    let id = UserId::parse(&id).ok_or_else(|| codes::BAD_ID.failure())?;
    app.core.delete_user(&caller, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The caller's own account.
#[utoipa::path(get, path = "/api/v1/me", security(("bearer" = [])),
    responses((status = 200, body = Me), (status = 404), (status = "default", body = api::problem::Problem)))]
pub async fn me(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    _: NoQuery,
) -> Result<axum::Json<Me>, HttpError> {
    let record = app.core.user(&caller.principal, caller.trace).await?;
    let usage = app.core.usage(&caller).await?;
    Ok(axum::Json(Me {
        id: record.user.to_string(),
        username: record.name.as_str().to_owned(),
        drive: record.home.to_string(),
        usage: Usage {
            bytes: usage.charged_bytes,
            quota_bytes: usage.quota_bytes,
            // No worker counts these two yet, so `as_of` is absent.
            trash_bytes: 0,
            version_bytes: 0,
            as_of: None,
        },
        cut: Cut::fixed(),
        digest_key: app.core.digest_key_hex(&caller, caller.home).await?,
    }))
}

/// Changes the caller's own password; all of the account's tokens end with it.
#[utoipa::path(post, path = "/api/v1/me/password", request_body = ChangePassword, security(("bearer" = [])),
    responses((status = 204), (status = 404), (status = 415), (status = "default", body = api::problem::Problem)))]
pub async fn change_password(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    _: NoQuery,
    body: Json<ChangePassword>,
) -> Result<StatusCode, HttpError> {
    let ChangePassword {
        old_password,
        new_password,
    } = body.value;
    let who = Who::User(caller.principal.user);
    let turn = app.passwords.turn(who.clone()).await?;
    let record = app.core.user(&caller.principal, caller.trace).await?;
    let facts = app.core.login_facts(record.name, caller.trace).await?;
    let hash = facts.map(|facts| facts.password_hash);
    let old_password = Zeroizing::new(old_password);
    if !app.passwords.verify(turn, old_password, hash).await? {
        return Err(codes::WRONG_PASSWORD.failure().into());
    }
    let hash = app.passwords.hash(who, Zeroizing::new(new_password)).await?;
    app.core
        .patch_user(&caller, caller.principal.user, None, None, Some(hash))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The account as clients see it.
pub(super) fn user(record: &UserRecord) -> User {
    User {
        id: record.user.to_string(),
        username: record.name.as_str().to_owned(),
        drive: record.home.to_string(),
        is_admin: record.is_admin,
        disabled: record.is_disabled,
    }
}
