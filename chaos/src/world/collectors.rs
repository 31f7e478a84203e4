//! What the gateway of a world of collection does by itself: it removes dead stripes, and looks for those that were never named.
//!
//! While faults last, both are dropped now and again wherever they stand and begin anew, as those of a gateway that died.
//! Not here: the rest of collection, which the replicas' own workers do.

use crate::world::phase::{Phase, Phases};
use daemon::random::Random;
use futures_util::future::join;
use gateway::drive::Core;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

const LIFE_MIN: Duration = Duration::from_secs(2);
/// Longer than a look for orphans waits for its turn, so that some come to their end under attack.
const LIFE_MAX: Duration = Duration::from_secs(60);
/// Longer than any world lasts.
const ENDLESS: Duration = Duration::from_secs(7 * 24 * 3600);

/// Runs until it is dropped.
pub async fn keep(core: Arc<Core>, phases: Phases, random: Random) {
    loop {
        let life = match phases.now() {
            Phase::Rise | Phase::Faults => LIFE_MIN + random.up_to(LIFE_MAX - LIFE_MIN),
            Phase::Peace => ENDLESS,
        };
        let both = join(core.keep_collecting(), core.keep_looking_for_orphans());
        // Neither ends.
        drop(timeout(life, both).await);
    }
}
