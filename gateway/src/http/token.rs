//! `POST /api/v1/auth/token`: the password and refresh grants of RFC 6749, in its own error shape.

use super::App;
use super::extract::{check_utf8, media_type, read_all};
use super::problem::{retry_after, status_of};
use super::trace;
use crate::admission::{ClientAddress, Who};
use crate::auth::token::{draw, read};
use crate::codes;
use crate::metrics;
use api::problem::TokenProblem;
use api::token::{TokenAnswer, TokenRequest};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use model::error_kind::ErrorKind;
use model::id::UserId;
use model::limits::{ACCESS_TOKEN_LIFE, FORM_BYTES_MAX, REFRESH_TOKEN_LIFE};
use model::name::Username;
use model::time::WallTime;
use protocol::metadata::user::{NewToken, TokenHash};
use protocol::wire_error::Failure;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

enum Refused {
    Oauth(&'static str, &'static str),
    Failure(Failure),
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

/// Trades a password or a refresh token for a pair of tokens.
#[utoipa::path(post, path = "/api/v1/auth/token",
    request_body(content = TokenRequest, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200, body = TokenAnswer), (status = "default", body = TokenProblem)))]
pub async fn token(State(app): State<Arc<App>>, ClientAddress(from): ClientAddress, request: Request) -> Response {
    let outcome = match form(request).await {
        Ok(form) => grant(&app, Who::Stranger(from), form).await,
        Err(refused) => Err(refused),
    };
    let word = if outcome.is_ok() { "granted" } else { "refused" };
    app.core
        .seams
        .metrics
        .counter(&metrics::SIGN_INS)
        .with_label_values(&[word])
        .inc();
    let response = match outcome {
        Ok(answer) => axum::Json(answer).into_response(),
        Err(Refused::Oauth(error, description)) => refuse(StatusCode::BAD_REQUEST, error, description.to_owned()),
        Err(Refused::Failure(failure)) => return failed(failure),
    };
    no_store(response)
}

/// A failure in the shape of RFC 6749.
pub(super) fn failed(failure: Failure) -> Response {
    let (status, again) = (status_of(&failure), retry_after(&failure));
    let error = match failure.kind {
        ErrorKind::Denied | ErrorKind::NotFound => {
            return no_store(refuse(StatusCode::BAD_REQUEST, "invalid_grant", failure.detail));
        }
        ErrorKind::Bug | ErrorKind::Corrupt => "server_error",
        ErrorKind::Busy | ErrorKind::Unavailable | ErrorKind::Ambiguous | ErrorKind::Exhausted => {
            "temporarily_unavailable"
        }
        _ => "invalid_request",
    };
    let detail = if error == "server_error" {
        "our own fault".to_owned()
    } else {
        failure.detail
    };
    let mut response = refuse(status, error, detail);
    if let Some(seconds) = again {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    no_store(response)
}

async fn form(request: Request) -> Result<TokenRequest, Refused> {
    let is_form = |headers: &HeaderMap| media_type(headers).as_deref() == Some("application/x-www-form-urlencoded");
    if !is_form(request.headers()) {
        return Err(Refused::Oauth(
            "invalid_request",
            "send the grant as application/x-www-form-urlencoded",
        ));
    }
    if request.uri().query().is_some() {
        // RFC 6749, 2.3.1: what is secret does not belong into an address, which is logged on its way.
        return Err(Refused::Oauth(
            "invalid_request",
            "send the grant in the body, not in the address",
        ));
    }
    let body = read_all(request.into_body(), FORM_BYTES_MAX).await?;
    // The same decoder as for queries; a form has the same syntax.
    let text = std::str::from_utf8(&body).ok().filter(|text| check_utf8(text).is_ok());
    let uri = text.and_then(|text| format!("/?{text}").parse().ok());
    let uri = uri.ok_or(Refused::Oauth(
        "invalid_request",
        "the form has bytes that are not percent-encoded UTF-8",
    ))?;
    let form = axum::extract::Query::<TokenRequest>::try_from_uri(&uri);
    form.map(|form| form.0)
        .map_err(|_| Refused::Oauth("invalid_request", "the form lacks grant_type or repeats a field"))
}

async fn grant(app: &App, who: Who, form: TokenRequest) -> Result<TokenAnswer, Refused> {
    match form.grant_type.as_str() {
        "password" => by_password(app, who, form).await,
        "refresh_token" => by_refresh(app, form).await,
        _ => Err(Refused::Oauth(
            "unsupported_grant_type",
            "use password or refresh_token",
        )),
    }
}

async fn by_password(app: &App, who: Who, form: TokenRequest) -> Result<TokenAnswer, Refused> {
    let (Some(name), Some(password)) = (form.username, form.password.map(Zeroizing::new)) else {
        return Err(Refused::Oauth("invalid_request", "give username and password"));
    };
    // Before anything is asked: whoever tries names has cost nothing until there is time to hash.
    let turn = app.passwords.turn(who).await?;
    let facts = match Username::new(&name) {
        Ok(name) => app.core.login_facts(name, trace::current()).await?,
        Err(_) => None,
    };
    let hash = facts.as_ref().map(|facts| facts.password_hash.clone());
    if !app.passwords.verify(turn, password, hash).await? {
        return Err(codes::WRONG_PASSWORD.failure().into());
    }
    let user = facts.ok_or_else(|| codes::WRONG_PASSWORD.failure())?.user;
    if user.is_disabled {
        return Err(protocol::codes::USER_DISABLED.failure().into());
    }
    let (answer, access, refresh) = pair(app, user.user);
    app.core
        .issue_tokens(user.user, access, refresh, trace::current())
        .await?;
    Ok(answer)
}

async fn by_refresh(app: &App, form: TokenRequest) -> Result<TokenAnswer, Refused> {
    let shown = form.refresh_token.map(Zeroizing::new);
    let (user, old): (UserId, TokenHash) = shown.as_ref().and_then(|text| read(text)).ok_or(Refused::Oauth(
        "invalid_grant",
        "the refresh token has not the form of one",
    ))?;
    let (answer, access, refresh) = pair(app, user);
    app.core
        .rotate_tokens(user, old, (access, refresh), trace::current())
        .await?;
    Ok(answer)
}

fn pair(app: &App, user: UserId) -> (TokenAnswer, NewToken, NewToken) {
    let now = app.core.seams.clock.wall();
    let expires_at = |life: Duration| WallTime(now.0.saturating_add(life.as_millis() as u64));
    let (access, access_hash) = draw(user, &app.core.seams.random);
    let (refresh, refresh_hash) = draw(user, &app.core.seams.random);
    let answer = TokenAnswer {
        access_token: access.to_string(),
        token_type: "Bearer".to_owned(),
        expires_in: ACCESS_TOKEN_LIFE.as_secs(),
        refresh_token: Some(refresh.to_string()),
        scope: "drive".to_owned(),
    };
    let access = NewToken {
        hash: access_hash,
        expires_at: expires_at(ACCESS_TOKEN_LIFE),
    };
    (
        answer,
        access,
        NewToken {
            hash: refresh_hash,
            expires_at: expires_at(REFRESH_TOKEN_LIFE),
        },
    )
}

fn refuse(status: StatusCode, error: &str, error_description: String) -> Response {
    (
        status,
        axum::Json(TokenProblem {
            error: error.to_owned(),
            error_description,
        }),
    )
        .into_response()
}

fn no_store(mut response: Response) -> Response {
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
