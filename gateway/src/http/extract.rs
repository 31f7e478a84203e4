//! What comes in, checked: the caller, JSON, queries, ids.
//!
//! Invariants: bodies are bounded before they are read; unknown fields are refused; a caller comes out of a living token only.

use super::App;
use super::age_hour;
use super::incoming::{LetIn, body_failure};
use super::problem::HttpError;
use super::trace;
use crate::admission::ClientAddress;
use crate::auth::token;
use crate::codes;
use crate::drive::{Caller, ClientKey};
use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, header};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use model::id::UserId;
use model::limits::{IDEMPOTENCY_KEY_BYTES_MAX, JSON_BYTES_MAX};
use protocol::metadata::user::{TokenFacts, TokenHash, TokenUse};
use protocol::wire_error::Failure;
use serde::de::DeserializeOwned;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// The caller of a request, from its bearer token.
pub struct Authenticated(pub Caller);

impl FromRequestParts<Arc<App>> for Authenticated {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, HttpError> {
        let token = Token::from_request_parts(parts, app).await?;
        let trace = trace::current();
        let facts = app.core.token_facts(token.user, token.hash, trace).await?;
        Ok(Self(let_in(parts, app, token, &facts, trace)?))
    }
}

/// The caller of a poll, from a bearer token that may have been looked at some time ago (`Core::poll_token_facts`).
pub struct Polling(pub Caller);

impl FromRequestParts<Arc<App>> for Polling {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, HttpError> {
        let token = Token::from_request_parts(parts, app).await?;
        let trace = trace::current();
        let facts = app.core.poll_token_facts(token.user, token.hash, trace).await?;
        Ok(Self(let_in(parts, app, token, &facts, trace)?))
    }
}

/// Whoever is let in by `token`, which lives, and all that is noted of that.
fn let_in(parts: &Parts, app: &App, token: Token, facts: &TokenFacts, trace: u128) -> Result<Caller, HttpError> {
    if facts.token_use != TokenUse::Access {
        return Err(codes::WRONG_TOKEN_USE.failure().into());
    }
    app.admission.prove(token.hash, token.user);
    age_hour::note(token.user.slot());
    if let Some(let_in) = parts.extensions.get::<LetIn>() {
        let_in.by(token);
    }
    Ok(Caller {
        principal: facts.principal,
        home: facts.user.home,
        trace,
    })
}

/// The bearer token of a request: whose it claims to be, and which. It proves nothing by itself. Who reads it first notes it among the
/// request's extensions for all who come later (`admit`).
#[derive(Clone, Copy)]
pub struct Token {
    /// The user whom it names.
    pub user: UserId,
    /// Under which it is kept, if it is a living one.
    pub hash: TokenHash,
}

impl Token {
    /// Reads it from the head.
    ///
    /// Errors: as `bearer`; it has not the form of a token.
    pub fn read(headers: &HeaderMap) -> Result<Self, Failure> {
        let (user, hash) = token::read(bearer(headers)?).ok_or_else(|| codes::TOKEN_MALFORMED.failure())?;
        Ok(Self { user, hash })
    }
}

impl FromRequestParts<Arc<App>> for Token {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, HttpError> {
        match parts.extensions.get::<Self>() {
            Some(noted) => Ok(*noted),
            None => Ok(Self::read(&parts.headers)?),
        }
    }
}

impl FromRequestParts<Arc<App>> for ClientAddress {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, HttpError> {
        Ok(client_address(&parts.extensions))
    }
}

/// Where a request comes from, as its connection noted it.
pub fn client_address(extensions: &Extensions) -> ClientAddress {
    let nowhere = ClientAddress(Ipv4Addr::UNSPECIFIED.into());
    extensions.get().copied().unwrap_or(nowhere)
}

/// The bearer token of a request.
///
/// Errors: there is none, or not one alone.
pub fn bearer(headers: &HeaderMap) -> Result<&str, Failure> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or_else(|| codes::UNAUTHENTICATED.failure())?;
    if values.next().is_some() {
        // Which of two a proxy before us looked at is not known, so neither counts.
        return Err(codes::TOKEN_MALFORMED.because("send one Authorization header"));
    }
    let text = value.to_str().map_err(|_| codes::TOKEN_MALFORMED.failure())?;
    let (scheme, token) = text.split_once(' ').ok_or_else(|| codes::TOKEN_MALFORMED.failure())?;
    if scheme.eq_ignore_ascii_case("bearer") {
        Ok(token.trim())
    } else {
        Err(codes::UNAUTHENTICATED.failure())
    }
}

/// A JSON body of at most `BYTES_MAX`.
pub struct Json<T, const BYTES_MAX: usize = JSON_BYTES_MAX> {
    /// The value.
    pub value: T,
    /// The body as it came, for request ids.
    pub raw: Bytes,
}

impl<T: DeserializeOwned, const BYTES_MAX: usize> FromRequest<Arc<App>> for Json<T, BYTES_MAX> {
    type Rejection = HttpError;

    async fn from_request(request: Request, _: &Arc<App>) -> Result<Self, HttpError> {
        let media = media_type(request.headers());
        if media.as_deref() != Some("application/json") {
            return Err(codes::UNSUPPORTED_MEDIA
                .because("send Content-Type: application/json")
                .into());
        }
        let raw = read_all(request.into_body(), BYTES_MAX).await?;
        let value = serde_json::from_slice(&raw).map_err(|error| codes::BAD_JSON.because(error.to_string()))?;
        Ok(Self { value, raw })
    }
}

/// A JSON body of at most 1 MiB that may be left out.
pub struct MaybeJson<T>(pub T);

impl<T: DeserializeOwned + Default> FromRequest<Arc<App>> for MaybeJson<T> {
    type Rejection = HttpError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, HttpError> {
        let (parts, body) = request.into_parts();
        let raw = read_all(body, JSON_BYTES_MAX).await?;
        if raw.is_empty() {
            return Ok(Self(T::default()));
        }
        let request = Request::from_parts(parts, Body::from(raw));
        Json::<T, JSON_BYTES_MAX>::from_request(request, app)
            .await
            .map(|json| Self(json.value))
    }
}

/// The id in the address.
pub struct Id(pub String);

impl FromRequestParts<Arc<App>> for Id {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, HttpError> {
        // What is refused here are bytes that are no UTF-8, which no id has.
        match Path::<String>::from_request_parts(parts, app).await {
            Ok(Path(id)) => Ok(Self(id)),
            Err(_) => Err(codes::BAD_ID.failure().into()),
        }
    }
}

/// Reads a whole body of at most `bytes_max`.
///
/// Errors: `body_too_large`, `body_cut`, `body_stalled`.
pub async fn read_all(body: Body, bytes_max: usize) -> Result<Bytes, Failure> {
    match Limited::new(body, bytes_max).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(codes::BODY_TOO_LARGE.failure()),
        Err(error) => Err(body_failure(error.as_ref())),
    }
}

/// The media type without parameters, in lower case.
pub fn media_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    text.split(';').next().map(|media| media.trim().to_ascii_lowercase())
}

/// The query string as `T`.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<Arc<App>> for Query<T> {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, HttpError> {
        check_utf8(parts.uri.query().unwrap_or(""))?;
        axum::extract::Query::<T>::try_from_uri(&parts.uri)
            .map(|query| Self(query.0))
            .map_err(|error| codes::BAD_QUERY.because(error.body_text()).into())
    }
}

/// Refuses any query: for routes that take none, so that a misplaced parameter is not silently ignored.
pub struct NoQuery;

impl FromRequestParts<Arc<App>> for NoQuery {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, HttpError> {
        match parts.uri.query() {
            None | Some("") => Ok(Self),
            Some(_) => Err(codes::BAD_QUERY.because("this call takes no query parameters").into()),
        }
    }
}

/// Percent-encoded bytes that are no UTF-8 would be replaced silently by the decoder; a name must not change on its way.
pub fn check_utf8(query: &str) -> Result<(), Failure> {
    let mut bytes = Vec::with_capacity(query.len());
    let mut rest = query.bytes();
    while let Some(byte) = rest.next() {
        let decoded = match byte {
            b'%' => {
                let mut digit = || rest.next().and_then(|letter| char::from(letter).to_digit(16));
                let decoded = digit().zip(digit()).map(|(high, low)| (high * 16 + low) as u8);
                decoded.ok_or_else(|| codes::BAD_QUERY.because("the query has a broken percent escape"))?
            }
            other => other,
        };
        bytes.push(decoded);
    }
    match std::str::from_utf8(&bytes) {
        Ok(_) => Ok(()),
        Err(_) => Err(codes::BAD_NAME.because("names and paths are UTF-8; the query holds other bytes")),
    }
}

/// The client's own id of the request, if it sent one: its `Idempotency-Key`, and when that was made.
///
/// Errors: `bad_idempotency_key`; `bad_header` for an hour that is none.
pub fn request_id(headers: &HeaderMap) -> Result<Option<ClientKey>, Failure> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(text) if !text.is_empty() && text.len() <= IDEMPOTENCY_KEY_BYTES_MAX => Ok(Some(ClientKey {
            text: text.to_owned(),
            made_hour: age_hour::sent(headers)?,
        })),
        _ => Err(codes::BAD_IDEMPOTENCY_KEY.failure()),
    }
}

/// The length that a body was declared to have.
pub fn declared_length(headers: &HeaderMap) -> Result<Option<u64>, Failure> {
    let Some(value) = headers.get(header::CONTENT_LENGTH) else {
        return Ok(None);
    };
    let length = value.to_str().ok().and_then(|text| text.parse().ok());
    length
        .map(Some)
        .ok_or_else(|| codes::BAD_HEADER.because("Content-Length is no number"))
}
