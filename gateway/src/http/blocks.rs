//! `/api/v1/blocks`: one block sent for an upload, by its owner or by whoever has a ticket, and the tickets.
//!
//! Invariants: what is refused before the body is read costs nothing; beside a ticket no credential counts.
//! Not here: what becomes of the block (`drive::upload::single`).

use super::App;
use super::extract::{Authenticated, Id, Json, NoQuery, Query, declared_length, read_all};
use super::problem::HttpError;
use super::sync::upload_id;
use super::trace;
use crate::codes;
use crate::drive::delta;
use crate::drive::ticket::Ticket;
use crate::drive::upload::single::require_block_size;
use api::sync::{BlockQuery, BlockTicket, TicketRequest};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::StatusCode;
use model::entry::BlockRow;
use model::limits::{BLOCK_BYTES_MAX, BLOCK_TICKET_LIFE};
use model::time::WallTime;
use protocol::codes as group_codes;
use protocol::wire_error::Failure;
use std::sync::Arc;

/// Takes a block in.
#[utoipa::path(put, path = "/api/v1/blocks/{digest}", operation_id = "put_block", params(("digest" = String, Path,), BlockQuery), security(("bearer" = [])),
    request_body(content = String, content_type = "application/octet-stream", description = "The bytes that the digest names. A ticket in the address stands for the token."),
    responses((status = 204), (status = 404), (status = 409), (status = 422), (status = "default", body = api::problem::Problem)))]
pub async fn take(
    State(app): State<Arc<App>>,
    Id(digest): Id,
    Query(query): Query<BlockQuery>,
    request: Request,
) -> Result<StatusCode, HttpError> {
    let (mut parts, body) = request.into_parts();
    let caller = match &query.ticket {
        Some(_) => None,
        None => Some(Authenticated::from_request_parts(&mut parts, &app).await?.0),
    };
    let digest = delta::digest(&digest)?;
    let length = declared_length(&parts.headers)?;
    require_block_size(length.unwrap_or(0))?;
    let (upload, row) = match (&query.upload_id, &query.ticket) {
        (Some(upload), None) => {
            let size = u32::try_from(length.unwrap_or(0)).unwrap_or(0);
            (upload_id(upload)?, BlockRow { digest, size })
        }
        (None, Some(ticket)) => {
            let ticket = app
                .core
                .receipts
                .read_ticket(ticket, digest, app.core.seams.clock.wall())?;
            if length.is_some_and(|length| length != u64::from(ticket.row.size)) {
                let detail = format!("the ticket is for {} bytes", ticket.row.size);
                return Err(group_codes::SIZE_MISMATCH.because(detail).into());
            }
            (ticket.upload, ticket.row)
        }
        _ => return Err(codes::BAD_QUERY.because("give `upload_id` or `ticket`").into()),
    };
    let _admitted = app.core.admit(Some(length.unwrap_or(BLOCK_BYTES_MAX as u64)))?;
    let expected = app
        .core
        .expect_block(caller.as_ref(), upload, row, trace::current())
        .await?;
    let bytes = match read_all(body, expected.bytes_max()).await {
        Err(failure) if codes::BODY_TOO_LARGE.is(&failure) => Err(too_long(row)),
        read => read,
    };
    app.core.take_block(expected, bytes?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Without a declared length it shows late that a body is longer than its block.
fn too_long(row: BlockRow) -> Failure {
    match row.size {
        0 => codes::BLOCK_TOO_LARGE.failure(),
        size => group_codes::SIZE_MISMATCH.because(format!("the body has more than {size} bytes")),
    }
}

/// Gives a ticket for one block out.
#[utoipa::path(post, path = "/api/v1/blocks/upload-url", operation_id = "block_ticket", request_body = TicketRequest, security(("bearer" = [])),
    responses((status = 200, body = BlockTicket), (status = 404), (status = 409), (status = 415), (status = 422), (status = "default", body = api::problem::Problem)))]
pub async fn ticket(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    _: NoQuery,
    body: Json<TicketRequest>,
) -> Result<axum::Json<BlockTicket>, HttpError> {
    let wanted = body.value;
    if wanted.size == 0 {
        return Err(group_codes::SIZE_MISMATCH
            .because("a block has at least one byte")
            .into());
    }
    let row = BlockRow {
        digest: delta::digest(&wanted.digest)?,
        size: wanted.size,
    };
    let upload = upload_id(&wanted.upload_id)?;
    // Whether the upload is the caller's and the quota holds the block.
    app.core.expect_block(Some(&caller), upload, row, caller.trace).await?;
    let life = u64::try_from(BLOCK_TICKET_LIFE.as_millis()).unwrap_or(0);
    let expires_at = WallTime(app.core.seams.clock.wall().0.saturating_add(life));
    let text = app.core.receipts.ticket(&Ticket {
        upload,
        row,
        expires_at,
    });
    Ok(axum::Json(BlockTicket {
        url: format!("/api/v1/blocks/{}?ticket={text}", wanted.digest),
        expires_at: expires_at.into(),
    }))
}
