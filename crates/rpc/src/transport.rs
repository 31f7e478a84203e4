//! The transport seam: one call to one process, with a deadline, and what can become of it.
//!
//! `QuicTransport` and `MemoryTransport` implement it and pass one conformance suite.
//! Invariants: a call is sent at most once; every call has a deadline; an error says whether the call surely was not executed.
//! Not here: retries (retry.rs), which process to call (the callers), what a call means (protocol).

use async_trait::async_trait;
use model::error_kind::ErrorKind;
use model::process::ProcessId;
use protocol::frame::{Answer, Call};
use protocol::wire_error::Failure;
use std::net::SocketAddr;
use std::time::Duration;
use thiserror::Error;

/// A process to call and where it listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    /// Who must answer there; anybody else's certificate is refused.
    pub process: ProcessId,
    /// Its address.
    pub address: SocketAddr,
}

/// Makes calls to other processes.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Sends `call` to `peer` once and returns its answer within `deadline`.
    ///
    /// May be dropped midway: the peer is told, and drops what it does for the call at its next await.
    /// Errors: see `RpcError`; `is_surely_not_executed` tells which leave no trace at the peer.
    async fn call(&self, peer: &Peer, call: Call, deadline: Duration) -> Result<Answer, RpcError>;
}

/// Answers calls of other processes.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Answers `call` of `caller`, whose certificate was verified and whose role may make this call.
    ///
    /// Dropped at any await when the caller goes away or its deadline passes: what must finish runs in a worker.
    /// A panic is answered as a failure of kind `Bug`.
    async fn handle(&self, caller: ProcessId, call: Call) -> Result<Answer, Failure>;
}

/// What became of a call that brought no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RpcError {
    /// No connection came about: nothing was sent.
    #[error("connect to {peer}: {detail}")]
    Unreachable {
        /// Whom we called.
        peer: ProcessId,
        /// What went wrong.
        detail: String,
    },
    /// The peer missed deadlines lately and its next probe is not due: nothing was sent.
    #[error("{peer} missed its deadlines lately; next probe in {} ms", probe_in.as_millis())]
    BreakerOpen {
        /// Whom we called.
        peer: ProcessId,
        /// When a call would be let through as a probe.
        probe_in: Duration,
    },
    /// The peer's certificate does not prove a process of this cluster, or it refused ours: nothing was executed.
    #[error("no trust between us and {peer}: {detail}")]
    Untrusted {
        /// Whom we called.
        peer: ProcessId,
        /// Which check failed.
        detail: String,
    },
    /// Another process of the cluster answers at the address: nothing was sent. Ask for the process's address again.
    #[error("{found} answers at the address of {expected}")]
    WrongPeer {
        /// Whom we called.
        expected: ProcessId,
        /// Who is there.
        found: ProcessId,
    },
    /// The call passes a frame limit: nothing was sent.
    #[error("{bytes} bytes are more than the {bytes_max} that a frame may carry")]
    TooLarge {
        /// The size of the part that is too large.
        bytes: usize,
        /// Its limit.
        bytes_max: usize,
    },
    /// No answer came in time.
    #[error("{peer} missed the deadline (request sent: {was_sent})")]
    DeadlineMissed {
        /// Whom we called.
        peer: ProcessId,
        /// Whether any byte of the request had left; when not, nothing was executed.
        was_sent: bool,
    },
    /// The connection broke after the request had begun to leave.
    #[error("connection to {peer} lost: {detail}")]
    Lost {
        /// Whom we called.
        peer: ProcessId,
        /// What broke.
        detail: String,
    },
    /// The peer sent bytes that are no answer.
    #[error("answer of {peer} is malformed: {detail}")]
    Malformed {
        /// Whom we called.
        peer: ProcessId,
        /// What is wrong with it.
        detail: String,
    },
    /// The peer answered with a failure; its kind says whether something was executed.
    #[error("{0}")]
    Refused(Failure),
}

impl RpcError {
    /// What it means for the caller. `Ambiguous` when the call perhaps was executed.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unreachable { .. }
            | Self::BreakerOpen { .. }
            | Self::WrongPeer { .. }
            | Self::DeadlineMissed { was_sent: false, .. } => ErrorKind::Unavailable,
            Self::Untrusted { .. } => ErrorKind::Denied,
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            Self::DeadlineMissed { was_sent: true, .. } | Self::Lost { .. } | Self::Malformed { .. } => {
                ErrorKind::Ambiguous
            }
            Self::Refused(failure) => failure.kind,
        }
    }

    /// Whether the call left no trace at the peer. A refusal is an answer and is judged by its kind instead: false.
    #[must_use]
    pub fn is_surely_not_executed(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::BreakerOpen { .. }
            | Self::Untrusted { .. }
            | Self::WrongPeer { .. }
            | Self::TooLarge { .. }
            | Self::DeadlineMissed { was_sent: false, .. } => true,
            Self::DeadlineMissed { was_sent: true, .. }
            | Self::Lost { .. }
            | Self::Malformed { .. }
            | Self::Refused(_) => false,
        }
    }

    /// The failure that the peer answered, when it answered one.
    #[must_use]
    pub fn refusal(&self) -> Option<&Failure> {
        match self {
            Self::Refused(failure) => Some(failure),
            _ => None,
        }
    }

    /// The same as a failure to hand on: a refusal as it came, everything else under a code of its own.
    #[must_use]
    pub fn into_failure(self) -> Failure {
        let code = match &self {
            Self::Refused(_) => "refused",
            Self::Unreachable { .. } | Self::BreakerOpen { .. } | Self::WrongPeer { .. } => "peer_unreachable",
            Self::Untrusted { .. } => "peer_untrusted",
            Self::TooLarge { .. } => "message_too_large",
            Self::DeadlineMissed { was_sent: false, .. } => "peer_unreachable",
            Self::DeadlineMissed { was_sent: true, .. } | Self::Lost { .. } | Self::Malformed { .. } => {
                "outcome_unknown"
            }
        };
        match self {
            Self::Refused(failure) => failure,
            other => Failure::new(other.kind(), code, other.to_string()),
        }
    }
}
