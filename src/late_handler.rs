//! A handler that is known before what it serves exists.
//!
//! A transport needs its handler when it is opened, and what handles the calls needs the transport: so the transport gets this
//! one, and the service is put into it once it stands. Until then every call is answered `starting`, which may be retried.
//! A role that only calls, as a gateway, is told so here: it answers that it is there and nothing else.
//! The two hold each other through it, so whoever stops them takes the service out again, or neither would ever be dropped.

use async_trait::async_trait;
use bytes::Bytes;
use model::error_kind::ErrorKind;
use model::process::ProcessId;
use protocol::codes;
use protocol::frame::{Answer, Call, Method};
use protocol::wire_error::Failure;
use rpc::transport::Handler;
use std::sync::{Arc, PoisonError, RwLock};

/// Passes calls on to the service that is put into it.
#[derive(Default)]
pub(crate) struct LateHandler {
    stage: RwLock<Stage>,
}

#[derive(Clone, Default)]
enum Stage {
    #[default]
    Starting,
    Serves(Arc<dyn Handler>),
    OnlyCalls,
}

impl LateHandler {
    /// Puts the service in.
    pub(crate) fn put(&self, service: Arc<dyn Handler>) {
        self.enter(Stage::Serves(service));
    }

    /// Says that this role serves no calls.
    pub(crate) fn only_calls(&self) {
        self.enter(Stage::OnlyCalls);
    }

    /// Takes it out again; calls under way keep it until they end.
    pub(crate) fn let_go(&self) {
        self.enter(Stage::Starting);
    }

    fn enter(&self, stage: Stage) {
        // Plain assignments only, so a panic elsewhere leaves nothing half done.
        *self.stage.write().unwrap_or_else(PoisonError::into_inner) = stage;
    }
}

#[async_trait]
impl Handler for LateHandler {
    async fn handle(&self, caller: ProcessId, call: Call) -> Result<Answer, Failure> {
        let stage = self.stage.read().unwrap_or_else(PoisonError::into_inner).clone();
        match stage {
            Stage::Starting => Err(Failure::new(
                ErrorKind::Unavailable,
                "starting",
                "the process is starting; try again",
            )),
            Stage::Serves(_) | Stage::OnlyCalls if call.method == Method::Ping => Ok(Answer {
                message: Bytes::new(),
                payload: Bytes::new(),
            }),
            Stage::Serves(service) => service.handle(caller, call).await,
            Stage::OnlyCalls => Err(codes::WRONG_ROLE.because("this process makes calls and serves none")),
        }
    }
}
