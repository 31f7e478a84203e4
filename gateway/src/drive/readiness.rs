//! Whether a gateway can serve now, for `/readyz`.
//!
//! It can when a majority of the control group answers it: without one it can neither sign anybody in that it does not know nor
//! learn where things are. Drive groups are not asked: one that is away takes its own drives along and not the gateway's others,
//! and a gateway that says it is not ready takes all of them out of the balancer.
//! Invariant: however often it is asked, it asks the control group once a second at most.
//! Not here: whether it is stopping (the pages).

use crate::drive::Core;
use async_trait::async_trait;
use daemon::status_port::Readiness;
use protocol::metadata::Query;
use protocol::metadata::query::ControlQuery;
use std::time::Duration;
use tokio::sync::Mutex;

/// Shorter than the patience of whoever asks.
const PATIENCE: Duration = Duration::from_secs(2);
/// Anybody may ask for readiness, and that must not become a load of the control group.
const TRUSTED_FOR: Duration = Duration::from_secs(1);

/// When the control group was asked last, and what came of it.
#[derive(Default)]
pub struct LastLook {
    look: Mutex<Option<(Duration, Result<String, String>)>>,
}

#[async_trait]
impl Readiness for Core {
    async fn ready(&self) -> Result<String, String> {
        // Held while asking, so that all who come meanwhile share one answer.
        let mut look = self.last_look.look.lock().await;
        let clock = &self.seams.clock;
        if let Some((at, answer)) = &*look
            && clock.monotonic().saturating_sub(*at) < TRUSTED_FOR
        {
            return answer.clone();
        }
        let query = Query::Control(ControlQuery::Groups);
        let answer = match self.within(PATIENCE, self.metadata.query(&query, 0)).await {
            Some(Ok(_)) if self.directory.is_ready() => Ok(String::new()),
            Some(Ok(_)) => Err("the cluster's map is not known yet".to_owned()),
            Some(Err(failure)) => Err(format!("no majority of the control group answers: {failure}")),
            None => Err("no majority of the control group answers in time".to_owned()),
        };
        *look = Some((clock.monotonic(), answer.clone()));
        answer
    }
}
