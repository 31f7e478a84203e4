//! The listening side over QUIC: accepts connections of proven processes and answers their calls.
//!
//! One task for the endpoint, one for each connection, one for each call.
//! Invariants: connections, calls and payload bytes are bounded by `RpcLimits`; a handler runs only after cluster, target and
//! role were checked; it is dropped when its caller gives up or its deadline passes.

use crate::admission::{check_request, run_handler};
use crate::frame_stream::{FrameError, read_head, read_payload, write_frame};
use crate::identity::Identity;
use crate::limits::{DEADLINE_MAX, HANDSHAKE_MAX, RpcLimits};
use crate::quic::ByPath;
use crate::transport::Handler;
use crate::trust::Trust;
use crate::wire::{decode_request_head, encode_answer};
use model::id::ClusterId;
use model::process::ProcessId;
use protocol::frame::{Call, REQUEST_MAGIC};
use protocol::wire_error::Failure;
use quinn::{Connection, Endpoint, Incoming, RecvStream, SendStream, ServerConfig, VarInt};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Close code of a connection that ends as planned.
pub(crate) const CLOSE_DONE: VarInt = VarInt::from_u32(0);
/// Close code of a connection whose certificate is not, or no longer, accepted.
pub(crate) const CLOSE_UNTRUSTED: VarInt = VarInt::from_u32(1);
/// Reset code of a stream whose call was given up.
pub(crate) const RESET_CANCELLED: VarInt = VarInt::from_u32(2);

/// Everything that the calls of an endpoint share.
pub(crate) struct Listener {
    process: ProcessId,
    cluster: ClusterId,
    trust: Arc<Trust>,
    handler: Arc<dyn Handler>,
    server_configs: ByPath<Arc<ServerConfig>>,
    connections: Arc<Semaphore>,
    inbound_bytes: Semaphore,
    inbound_bytes_max: usize,
}

impl Listener {
    pub(crate) fn new(
        identity: &Identity,
        trust: Arc<Trust>,
        handler: Arc<dyn Handler>,
        limits: RpcLimits,
        server_configs: ByPath<Arc<ServerConfig>>,
    ) -> Self {
        // At least the largest payload must fit, or it would wait for ever.
        let inbound_bytes_max = limits
            .inbound_bytes_max
            .clamp(protocol::frame::PAYLOAD_BYTES_MAX, Semaphore::MAX_PERMITS);
        Self {
            process: identity.process,
            cluster: identity.cluster,
            trust,
            handler,
            server_configs,
            connections: Arc::new(Semaphore::new(limits.connections_max)),
            inbound_bytes: Semaphore::new(inbound_bytes_max),
            inbound_bytes_max,
        }
    }

    /// Accepts connections until the endpoint is closed.
    pub(crate) async fn run(self: Arc<Self>, endpoint: Endpoint) {
        while let Some(incoming) = endpoint.accept().await {
            match Arc::clone(&self.connections).try_acquire_owned() {
                Ok(place) => {
                    let listener = Arc::clone(&self);
                    tokio::spawn(async move {
                        listener.serve_connection(incoming).await;
                        drop(place);
                    });
                }
                Err(_) => incoming.refuse(),
            }
        }
    }

    /// Bytes of payloads that are in memory or promised.
    pub(crate) fn inbound_bytes(&self) -> usize {
        self.inbound_bytes_max - self.inbound_bytes.available_permits()
    }

    async fn serve_connection(self: Arc<Self>, incoming: Incoming) {
        let from = incoming.remote_address();
        let connection = match incoming.accept_with(Arc::clone(self.server_configs.of(&from))) {
            Ok(connecting) => match timeout(HANDSHAKE_MAX, connecting).await {
                Ok(Ok(connection)) => connection,
                Ok(Err(error)) => return tracing::debug!(%from, %error, "handshake refused"),
                Err(_) => return tracing::debug!(%from, "handshake took too long"),
            },
            Err(error) => return tracing::debug!(%from, %error, "connection refused"),
        };
        let (caller, serial) = match self.trust.peer_of(&connection) {
            Ok(peer) => peer,
            Err(error) => {
                tracing::warn!(%from, %error, "connection without identity closed");
                return connection.close(CLOSE_UNTRUSTED, b"no identity");
            }
        };
        // QUIC holds the peer to the number of streams it was allowed, so there are never more tasks than that.
        while let Ok((send, recv)) = connection.accept_bi().await {
            if self.trust.is_revoked(&serial) {
                tracing::info!(%caller, "connection of a revoked certificate closed");
                return connection.close(CLOSE_UNTRUSTED, b"certificate revoked");
            }
            let listener = Arc::clone(&self);
            tokio::spawn(async move { listener.serve_call(caller, send, recv).await });
        }
        Self::note_end(&connection, caller);
    }

    fn note_end(connection: &Connection, caller: ProcessId) {
        if let Some(reason) = connection.close_reason() {
            tracing::debug!(%caller, %reason, "connection ended");
        }
    }

    async fn serve_call(&self, caller: ProcessId, mut send: SendStream, mut recv: RecvStream) {
        let stopped = send.stopped();
        let answering = timeout(DEADLINE_MAX, self.read_and_handle(caller, &mut recv));
        let frame = tokio::select! {
            outcome = answering => match outcome {
                Ok(Some(answer)) => encode_answer(answer),
                // The deadline passed or the caller gave up; nobody reads an answer.
                Ok(None) | Err(_) => {
                    let _ = send.reset(RESET_CANCELLED);
                    return;
                }
            },
            // The caller gave up, or its connection is gone: the handler was dropped by this branch being taken.
            _ = stopped => {
                let _ = send.reset(RESET_CANCELLED);
                return;
            }
        };
        // What is left of a refused request need not be sent. On a request that was read whole this does nothing.
        let _ = recv.stop(RESET_CANCELLED);
        // A caller that stops reading its answer holds this task until the connection dies or this time has passed.
        if timeout(DEADLINE_MAX, write_frame(&mut send, frame)).await.is_err() {
            let _ = send.reset(RESET_CANCELLED);
        }
    }

    /// The answer to the call on the stream; `None` when it was given up or its deadline passed.
    async fn read_and_handle(
        &self,
        caller: ProcessId,
        recv: &mut RecvStream,
    ) -> Option<Result<protocol::frame::Answer, Failure>> {
        let (head, lengths) = match read_head(recv, REQUEST_MAGIC).await {
            Ok(found) => found,
            Err(error) => return refusal(error),
        };
        let (fields, message) = match decode_request_head(&head) {
            Ok(found) => found,
            Err(failure) => return Some(Err(failure)),
        };
        if let Err(failure) = check_request(self.process, self.cluster, caller, &fields) {
            tracing::warn!(%caller, code = %failure.code, method = ?fields.method, "call refused");
            return Some(Err(failure));
        }
        let deadline = Duration::from_millis(u64::from(fields.deadline_ms)).min(DEADLINE_MAX);
        let handling = async {
            let reserved = u32::try_from(lengths.payload).expect("a payload's length is within PAYLOAD_BYTES_MAX");
            // Waits for room before the payload is read; QUIC's windows hold the sender back meanwhile.
            let _room = self
                .inbound_bytes
                .acquire_many(reserved)
                .await
                .expect("the semaphore is never closed");
            let payload = match read_payload(recv, lengths.payload).await {
                Ok(payload) => payload,
                Err(error) => return refusal(error),
            };
            let call = Call {
                method: fields.method,
                request_id: fields.request_id,
                message,
                payload,
            };
            Some(run_handler(self.handler.as_ref(), self.process, caller, call).await)
        };
        timeout(deadline, handling).await.ok().flatten()
    }
}

fn refusal<T>(error: FrameError) -> Option<Result<T, Failure>> {
    match error {
        FrameError::Malformed(failure) => Some(Err(failure)),
        FrameError::Reset | FrameError::Lost(_) => None,
    }
}
