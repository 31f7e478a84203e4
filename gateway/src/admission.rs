//! What a gateway takes on: who is let in, and who is told to come again before anything was done for them (decision 0032).
//!
//! Three gates, each with room for so many: `requests` (short ones), `transfers` (contents that take long), and `passwords` in
//! `auth`. Invariants: whoever is refused has cost a look at the request's head and nothing more; nobody takes what
//! is left for others; health, readiness, metrics and long polls pass none of the gates of requests.
//! Not here: connections (`connections`), bytes in memory (`drive::budget`), which calls pass which gate (`http::admit`).

pub mod gate;
pub mod pace;
pub mod places;

use crate::config::AdmissionLimits;
use crate::drive::remembered::Remembered;
use crate::seams::Seams;
use daemon::clock::Clock;
use gate::{Gate, Patience};
use model::id::UserId;
use places::Sizes;
use protocol::metadata::user::TokenHash;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Contents longer than this, or of unknown length, are transfers. A guess: some ten milliseconds of work.
pub const SHORT_BYTES_MAX: u64 = 1 << 20;
/// For so long a token counts as its user's after it was proven, for sharing places and for nothing else.
const PROVEN_FOR: Duration = Duration::from_secs(600);
/// Tokens that are known so; some 100 bytes each.
const PROVEN_MAX: usize = 16_384;

/// Whose share something counts for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// An account whose token was proven lately: nobody else can use up its share.
    User(UserId),
    /// Everybody else at this address, however many accounts they name; behind a proxy, everybody whose token is not known yet.
    Stranger(IpAddr),
}

/// The address that a connection comes from.
#[derive(Clone, Copy, Debug)]
pub struct ClientAddress(pub IpAddr);

/// The gates of a gateway.
pub struct Admission {
    /// Short requests.
    pub requests: Gate,
    /// Contents that take long.
    pub transfers: Gate,
    proven: Remembered<TokenHash, UserId>,
    clock: Arc<dyn Clock>,
}

impl Admission {
    /// All gates open.
    pub fn new(limits: &AdmissionLimits, seams: &Seams) -> Self {
        let gate = |name, sizes, service_target| {
            let patience = Patience {
                wait_max: limits.wait_max,
                service_target,
            };
            Gate::new(name, sizes, patience, Arc::clone(&seams.clock), &seams.metrics)
        };
        let all_at_once = |count| Sizes {
            in_service_max: count,
            held_max: count,
            is_service_shared: true,
        };
        let requests = Sizes {
            in_service_max: limits.requests_in_service_max,
            held_max: limits.requests_held_max,
            is_service_shared: true,
        };
        Self {
            requests: gate("requests", requests, Some(limits.service_target)),
            transfers: gate("transfers", all_at_once(limits.transfers_max), None),
            proven: Remembered::new(PROVEN_FOR, PROVEN_MAX),
            clock: Arc::clone(&seams.clock),
        }
    }

    /// Whose request this is, as far as is known without asking anybody.
    pub fn who(&self, token: Option<(UserId, TokenHash)>, from: IpAddr) -> Who {
        let proven = token.and_then(|(user, hash)| {
            let known = self.proven.get(&hash, self.clock.monotonic()).ok()?;
            (known == user).then_some(user)
        });
        proven.map_or(Who::Stranger(from), Who::User)
    }

    /// Notes that a token is its user's.
    pub fn prove(&self, hash: TokenHash, user: UserId) {
        if let Err(asking) = self.proven.get(&hash, self.clock.monotonic()) {
            self.proven.put(hash, user, asking);
        }
    }
}
