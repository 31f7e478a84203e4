//! A handler that is known before what it serves exists.
//!
//! A transport needs its handler when it is opened, and what handles the calls needs the transport: so the transport gets this
//! one, and the service is put into it once it stands. Until then every call is answered `starting`, which may be retried.

use async_trait::async_trait;
use model::error_kind::ErrorKind;
use model::process::ProcessId;
use protocol::frame::{Answer, Call};
use protocol::wire_error::Failure;
use rpc::transport::Handler;
use std::sync::{Arc, OnceLock};

/// Passes calls on to the service that is put into it.
#[derive(Default)]
pub(crate) struct LateHandler {
    service: OnceLock<Arc<dyn Handler>>,
}

impl LateHandler {
    /// Puts the service in; false when there is one already.
    pub(crate) fn put(&self, service: Arc<dyn Handler>) -> bool {
        self.service.set(service).is_ok()
    }
}

#[async_trait]
impl Handler for LateHandler {
    async fn handle(&self, caller: ProcessId, call: Call) -> Result<Answer, Failure> {
        match self.service.get() {
            Some(service) => service.handle(caller, call).await,
            None => Err(Failure::new(
                ErrorKind::Unavailable,
                "starting",
                "the process is starting; try again",
            )),
        }
    }
}
