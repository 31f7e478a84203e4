//! Passwords: argon2id, one at a time per core, behind a gate with a bounded wait.
//!
//! Invariants: whoever gets no turn has cost no hash and no question to a group; memory is one hash's a core, also when nobody waits
//! for the answer any more; a wrong name costs as much time as a wrong password; hashes carry their parameters, so stronger ones can follow;
//! passwords and hashes are wiped or dropped at once and never logged.

use crate::admission::Who;
use crate::admission::gate::{Gate, Patience, Place};
use crate::admission::places::Sizes;
use crate::codes;
use crate::seams::Seams;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use daemon::pool::Urgency;
use model::limits::{PASSWORD_BYTES_MAX, PASSWORD_BYTES_MIN};
use protocol::wire_error::Failure;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// What one hash costs.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes.
    pub passes: u32,
}

/// 64 MiB and three passes: decision 0017.
pub const COST: Cost = Cost {
    memory_kib: 64 << 10,
    passes: 3,
};
/// Passwords that are held for each core, one of them in work: at 150 ms each, one address has half of them and waits about a second.
const HELD_PER_CORE: usize = 16;
/// Longest wait for a turn, on a machine that has more to do.
const TURN_PATIENCE: Duration = Duration::from_secs(5);

/// Hashes and verifies passwords.
pub struct Passwords {
    seams: Seams,
    cost: Cost,
    gate: Gate,
    decoy: String,
}

/// The right to have one password hashed.
pub struct Turn {
    _place: Place,
}

impl Passwords {
    /// Works at `cost` with at most one hash a core.
    pub fn new(seams: Seams, cost: Cost) -> Self {
        let cores = seams.pool.width().max(1);
        let decoy = hash_now(cost, b"no account has this password", &seams.random.bytes::<16>()).unwrap_or_default();
        let sizes = Sizes {
            in_service_max: cores,
            held_max: cores * HELD_PER_CORE,
            is_service_shared: false,
        };
        let clock = Arc::clone(&seams.clock);
        let patience = Patience {
            wait_max: TURN_PATIENCE,
            service_target: None,
        };
        Self {
            gate: Gate::new("passwords", sizes, patience, clock, &seams.metrics),
            seams,
            cost,
            decoy,
        }
    }

    /// Waits for a turn. May be dropped midway.
    ///
    /// Errors: `rate_exceeded`, also where it is many others that sign in: a client cannot tell, and what it should do is the same.
    pub async fn turn(&self, who: Who) -> Result<Turn, Failure> {
        let entered = self.gate.enter(who).await;
        entered.map(|place| Turn { _place: place }).map_err(|_| {
            let detail = "as many passwords as can be checked in time are waiting; try again after Retry-After";
            codes::RATE_EXCEEDED.because(detail).with("retry_after_s", 2)
        })
    }

    /// Hashes a new password to PHC form.
    ///
    /// Errors: `bad_password` by its length, those of `turn`.
    pub async fn hash(&self, who: Who, password: Zeroizing<String>) -> Result<String, Failure> {
        if !(PASSWORD_BYTES_MIN..=PASSWORD_BYTES_MAX).contains(&password.len()) {
            return Err(codes::BAD_PASSWORD.failure());
        }
        let turn = self.turn(who).await?;
        let (cost, salt) = (self.cost, self.seams.random.bytes::<16>());
        self.work(turn, move || hash_now(cost, password.as_bytes(), &salt))
            .await
    }

    /// Whether `password` has this hash. Without a hash (no such account) it works as long and says no.
    ///
    /// Errors: a stored hash that cannot be read is a `Bug`.
    pub async fn verify(&self, turn: Turn, password: Zeroizing<String>, hash: Option<String>) -> Result<bool, Failure> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Ok(false);
        }
        let is_known = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.decoy.clone());
        let is_right = self.work(turn, move || verify_now(&password, &hash)).await?;
        Ok(is_right && is_known)
    }

    async fn work<T: Send + 'static>(&self, turn: Turn, work: impl FnOnce() -> T + Send + 'static) -> T {
        let work = move || {
            let done = work();
            drop(turn);
            done
        };
        self.seams.pool.run(Urgency::Foreground, work).await
    }
}

fn hash_now(cost: Cost, password: &[u8], salt: &[u8; 16]) -> Result<String, Failure> {
    let bug = |error: &dyn std::fmt::Display| Failure::bug(format!("hash password: {error}"));
    let params = Params::new(cost.memory_kib, cost.passes, 1, None).map_err(|error| bug(&error))?;
    let salt = SaltString::encode_b64(salt).map_err(|error| bug(&error))?;
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon
        .hash_password(password, &salt)
        .map(|hash| hash.to_string())
        .map_err(|error| bug(&error))
}

fn verify_now(password: &str, hash: &str) -> Result<bool, Failure> {
    let hash = PasswordHash::new(hash).map_err(|error| Failure::bug(format!("read stored password hash: {error}")))?;
    // The parameters are the hash's own; argon2 compares in constant time.
    Ok(Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}
