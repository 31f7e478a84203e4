//! A bug of logs, for `oracle::raft`: a leader that sends a command to one of its followers with another byte at its end.
//!
//! Not here: how entries are sent (metadata-raft `raft::network`).

use super::Plant;
use async_trait::async_trait;
use bytes::Bytes;
use model::process::ProcessId;
use protocol::frame::{Answer, Call, Method, decode};
use protocol::metadata::ProposeRequest;
use protocol::wire_error::Failure;
use rpc::transport::{Handler, Peer, RpcError, Transport};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Of how many commands one is altered.
const ALTERED_ONE_OF: u64 = 8;

/// What was proposed at a replica in one life of it; clones are the same.
#[derive(Clone, Default)]
pub struct Proposed {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    count: u64,
    /// The next one to be altered.
    doomed: Option<Bytes>,
}

impl Proposed {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A number and a whole command.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, call: &Call) {
        let Ok(request) = decode::<ProposeRequest>(&call.message) else {
            return;
        };
        let mut inner = self.inner();
        inner.count += 1;
        if inner.count.is_multiple_of(ALTERED_ONE_OF) && !request.envelope.is_empty() {
            inner.doomed = Some(request.envelope);
        }
    }

    /// What is sent instead, once for each command.
    fn altered(&self, payload: &Bytes) -> Option<Bytes> {
        let mut inner = self.inner();
        let doomed = inner.doomed.as_ref()?;
        let at = payload
            .windows(doomed.len())
            .position(|window| window == doomed.as_ref())?;
        let mut bytes = payload.to_vec();
        bytes[at + doomed.len() - 1] ^= 1;
        inner.doomed = None;
        Some(Bytes::from(bytes))
    }
}

/// A replica's transport that alters what it sends.
pub struct AlteredEntries {
    inner: Arc<dyn Transport>,
    proposed: Proposed,
}

impl AlteredEntries {
    /// `transport`, or the same with the bug in front of it.
    #[must_use]
    pub fn around(inner: Arc<dyn Transport>, proposed: &Proposed, plant: Option<Plant>) -> Arc<dyn Transport> {
        match plant {
            Some(Plant::AltersEntries) => Arc::new(Self {
                inner,
                proposed: proposed.clone(),
            }),
            _ => inner,
        }
    }
}

#[async_trait]
impl Transport for AlteredEntries {
    async fn call(&self, peer: &Peer, call: Call, deadline: Duration) -> Result<Answer, RpcError> {
        let altered = match call.method {
            Method::RaftAppend => self.proposed.altered(&call.payload),
            _ => None,
        };
        let payload = altered.unwrap_or_else(|| call.payload.clone());
        self.inner.call(peer, Call { payload, ..call }, deadline).await
    }
}

/// A replica's service that tells its transport what was proposed.
pub(super) struct Listening {
    service: Arc<dyn Handler>,
    proposed: Proposed,
}

impl Listening {
    /// `service`, listened to.
    pub(super) fn around(service: Arc<dyn Handler>, proposed: Proposed) -> Arc<dyn Handler> {
        Arc::new(Self { service, proposed })
    }
}

#[async_trait]
impl Handler for Listening {
    async fn handle(&self, caller: ProcessId, call: Call) -> Result<Answer, Failure> {
        if call.method == Method::Propose {
            self.proposed.note(&call);
        }
        self.service.handle(caller, call).await
    }
}
