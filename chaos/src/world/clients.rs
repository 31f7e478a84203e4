//! The clients of a world: each does one operation after the other for as long as faults last.
//!
//! Invariant: each client draws from a generator of its own, whose seed follows from the world's, so that what one draws is nobody
//! else's to shift.
//! Not here: what they do (`workload`, `turnover`).

use crate::world::phase::{Phase, Phases};
use daemon::random::Random;
use std::time::Duration;
use tokio::time::sleep;

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
    /// Each operation is an `act`, which draws from what it is given; the clients' seeds are drawn from `random`.
    pub async fn work<A>(
        self,
        phases: &Phases,
        random: &Random,
        act: impl Fn(Random) -> A + Clone + 'static,
        accuse: impl Fn(String),
    ) where
        A: Future<Output = ()> + 'static,
    {
        let Self { count, pause_max } = self;
        let client = |number: u64| {
            let (act, phases) = (act.clone(), phases.clone());
            let own = Random::seeded(random.u64().wrapping_add(number));
            tokio::task::spawn_local(async move {
                while phases.now() == Phase::Faults {
                    act(own.clone()).await;
                    sleep(own.up_to(pause_max)).await;
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
