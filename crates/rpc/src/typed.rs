//! Typed calls: a request of protocol in, its answer out.
//!
//! Not here: which request belongs to which method (protocol), retries (retry.rs).

use crate::transport::{Peer, RpcError, Transport};
use bytes::Bytes;
use protocol::frame::{Call, Method, decode, encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// What surrounds a typed call.
#[derive(Clone, Debug)]
pub struct CallOptions {
    /// The client request that causes it, for logs; 0 when none does.
    pub request_id: u128,
    /// Bytes that travel beside the request; may be empty.
    pub payload: Bytes,
    /// How long to wait.
    pub deadline: Duration,
}

impl CallOptions {
    /// A call without payload and request id.
    #[must_use]
    pub fn within(deadline: Duration) -> Self {
        Self {
            request_id: 0,
            payload: Bytes::new(),
            deadline,
        }
    }
}

/// Calls `method` of `peer` with `request`; returns the decoded answer and its payload. May be dropped midway.
///
/// Errors: those of `Transport::call`; an answer that is no `T` is `Malformed`, and perhaps the call was executed.
pub async fn ask<T: DeserializeOwned>(
    transport: &dyn Transport,
    peer: &Peer,
    method: Method,
    request: &(impl Serialize + Sync),
    options: CallOptions,
) -> Result<(T, Bytes), RpcError> {
    let message = encode(request).map_err(RpcError::Refused)?;
    let call = Call {
        method,
        request_id: options.request_id,
        message,
        payload: options.payload,
    };
    let answer = transport.call(peer, call, options.deadline).await?;
    let decoded = decode(&answer.message).map_err(|failure| RpcError::Malformed {
        peer: peer.process,
        detail: failure.detail,
    })?;
    Ok((decoded, answer.payload))
}
