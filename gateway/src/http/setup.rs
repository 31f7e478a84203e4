//! `/api/v1/admin/setup`: makes the first administrator with the one-time setup token.

use super::App;
use super::extract::{Json, NoQuery};
use super::problem::HttpError;
use super::trace;
use super::users;
use crate::admission::{ClientAddress, Who};
use crate::codes;
use crate::drive::account::NewUser;
use api::user::{Setup, User};
use axum::extract::State;
use axum::http::StatusCode;
use model::name::Username;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Makes the first administrator. The token is spent by it.
#[utoipa::path(post, path = "/api/v1/admin/setup", operation_id = "setup", request_body = Setup,
    responses((status = 201, body = User), (status = 401), (status = 409), (status = 415), (status = "default", body = api::problem::Problem)))]
pub async fn setup(
    State(app): State<Arc<App>>,
    ClientAddress(from): ClientAddress,
    _: NoQuery,
    body: Json<Setup>,
) -> Result<(StatusCode, axum::Json<User>), HttpError> {
    let wanted = body.value;
    if !app.core.setup.is(&wanted.setup_token) {
        return Err(codes::SETUP_TOKEN_WRONG.failure().into());
    }
    let name =
        Username::new(&wanted.username).map_err(|error| codes::BAD_NAME.because(format!("{}.", error.advice())))?;
    // Hashed first: a password that is refused must not spend the token.
    let password_hash = app
        .passwords
        .hash(Who::Stranger(from), Zeroizing::new(wanted.password))
        .await?;
    let trace = trace::current();
    // Claimed before the account is made, so that two at once make one; cut off between, the same name goes on.
    app.core.claim_setup(&name, trace).await?;
    let new = NewUser {
        name,
        password_hash,
        quota_bytes: None,
        is_admin: true,
    };
    let record = app.core.create_user(new, None, trace).await?;
    Ok((StatusCode::CREATED, axum::Json(users::user(&record))))
}
