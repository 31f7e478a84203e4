//! The clients of a world: each does one operation after the other for as long as faults last.
//!
//! Invariant: each client draws from a generator of its own, whose seed follows from the world's, so that what one draws is nobody
//! else's to shift.
//! Not here: what they do (`workload`, `turnover`).

use crate::world::phase::{Phase, Phases};
use daemon::random::Random;
use model::error_kind::ErrorKind;
use protocol::wire_error::Failure;
use std::time::Duration;
use tokio::time::sleep;

/// How long a client waits at least when it was told to come again later, and at most so long besides: what a gateway's `Retry-After`
/// is drawn from.
const COME_AGAIN: Duration = Duration::from_secs(1);
const COME_AGAIN_MORE: Duration = Duration::from_secs(2);

/// What an operation came to for the client's own pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It was answered.
    Done,
    /// The cluster cannot do it at present, or nobody knows whether it did.
    Later,
}

impl Turn {
    /// After a refusal.
    #[must_use]
    pub fn after(failure: &Failure) -> Self {
        match failure.kind {
            ErrorKind::Ambiguous | ErrorKind::Unavailable | ErrorKind::Busy | ErrorKind::Exhausted => Self::Later,
            _ => Self::Done,
        }
    }
}

/// How many there are, and how long they rest.
#[derive(Clone, Copy, Debug)]
pub struct Clients {
    /// So many work at once.
    pub count: u64,
    /// Between two operations of one, at most.
    pub pause_max: Duration,
}

impl Clients {
    /// Runs all clients until the phase of faults ends and each has its last answer; one that panics is told to `accuse`.
    ///
    /// Each operation is an `act`, which draws from what it is given; the clients' seeds are drawn from `random`. Whoever is told to
    /// come again later does so.
    pub async fn work<A>(
        self,
        phases: &Phases,
        random: &Random,
        act: impl Fn(Random) -> A + Clone + 'static,
        accuse: impl Fn(String),
    ) where
        A: Future<Output = Turn> + 'static,
    {
        let Self { count, pause_max } = self;
        let client = |number: u64| {
            let (act, phases) = (act.clone(), phases.clone());
            let own = Random::seeded(random.u64().wrapping_add(number));
            tokio::task::spawn_local(async move {
                while phases.now() == Phase::Faults {
                    let turn = act(own.clone()).await;
                    sleep(own.up_to(pause_max)).await;
                    if turn == Turn::Later {
                        sleep(COME_AGAIN + own.up_to(COME_AGAIN_MORE)).await;
                    }
                }
            })
        };
        let clients: Vec<_> = (1..=count).map(client).collect();
        for client in clients {
            if let Err(error) = client.await {
                accuse(format!("a use case panicked: {error}"));
            }
        }
    }
}
