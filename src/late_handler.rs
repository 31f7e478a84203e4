//! A handler that is known before what it serves exists.
//!
//! A transport needs its handler when it is opened, and what handles the calls needs the transport: so the transport gets this
//! one, and the service is put into it once it stands. Until then every call is answered `starting`, which may be retried.
//! The two hold each other through it, so whoever stops them takes the service out again, or neither would ever be dropped.

use async_trait::async_trait;
use model::error_kind::ErrorKind;
use model::process::ProcessId;
use protocol::frame::{Answer, Call};
use protocol::wire_error::Failure;
use rpc::transport::Handler;
use std::sync::{Arc, PoisonError, RwLock};

/// Passes calls on to the service that is put into it.
#[derive(Default)]
pub(crate) struct LateHandler {
    service: RwLock<Option<Arc<dyn Handler>>>,
}

impl LateHandler {
    /// Puts the service in.
    pub(crate) fn put(&self, service: Arc<dyn Handler>) {
        // Plain assignments only, so a panic elsewhere leaves nothing half done.
        *self.service.write().unwrap_or_else(PoisonError::into_inner) = Some(service);
    }

    /// Takes it out again; calls under way keep it until they end.
    pub(crate) fn let_go(&self) {
        *self.service.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[async_trait]
impl Handler for LateHandler {
    async fn handle(&self, caller: ProcessId, call: Call) -> Result<Answer, Failure> {
        let service = self.service.read().unwrap_or_else(PoisonError::into_inner).clone();
        match service {
            Some(service) => service.handle(caller, call).await,
            None => Err(Failure::new(
                ErrorKind::Unavailable,
                "starting",
                "the process is starting; try again",
            )),
        }
    }
}
