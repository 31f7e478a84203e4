//! Passwords: argon2id, one at a time per core, on a bounded queue.
//!
//! Invariants: a wrong name costs as much time as a wrong password; hashes carry their parameters, so stronger ones can follow;
//! passwords and hashes are wiped or dropped at once and never logged.

use crate::codes;
use crate::metrics;
use crate::seams::Seams;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use daemon::pool::Urgency;
use model::limits::{PASSWORD_BYTES_MAX, PASSWORD_BYTES_MIN};
use protocol::wire_error::Failure;
use std::sync::Arc;
use tokio::sync::Semaphore;
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
/// Sign-ins that may wait for a core: at 150 ms each, the last of eight a core waits about a second.
const WAITING_PER_CORE: usize = 8;

/// Hashes and verifies passwords.
pub struct Passwords {
    seams: Seams,
    cost: Cost,
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    decoy: String,
}

impl Passwords {
    /// Works at `cost` with at most one hash a core.
    pub fn new(seams: Seams, cost: Cost) -> Self {
        let cores = seams.pool.width().max(1);
        let decoy = hash_now(cost, b"no account has this password", &seams.random.bytes::<16>()).unwrap_or_default();
        Self {
            seams,
            cost,
            running: Arc::new(Semaphore::new(cores)),
            waiting: Arc::new(Semaphore::new(cores * WAITING_PER_CORE)),
            decoy,
        }
    }

    /// Hashes a new password to PHC form.
    ///
    /// Errors: `bad_password` by its length, `too_busy`.
    pub async fn hash(&self, password: Zeroizing<String>) -> Result<String, Failure> {
        if !(PASSWORD_BYTES_MIN..=PASSWORD_BYTES_MAX).contains(&password.len()) {
            return Err(codes::BAD_PASSWORD.failure());
        }
        let (cost, salt) = (self.cost, self.seams.random.bytes::<16>());
        self.work(move || hash_now(cost, password.as_bytes(), &salt)).await?
    }

    /// Whether `password` has this hash. Without a hash (no such account) it works as long and says no.
    ///
    /// Errors: `too_busy`; a stored hash that cannot be read is a `Bug`.
    pub async fn verify(&self, password: Zeroizing<String>, hash: Option<String>) -> Result<bool, Failure> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Ok(false);
        }
        let is_known = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.decoy.clone());
        let is_right = self.work(move || verify_now(&password, &hash)).await??;
        Ok(is_right && is_known)
    }

    async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
        let Ok(_waiting) = self.waiting.try_acquire() else {
            self.seams
                .metrics
                .counter(&metrics::PASSWORDS_REFUSED)
                .with_label_values::<&str>(&[])
                .inc();
            return Err(codes::TOO_BUSY.failure().with("retry_after_s", 2));
        };
        let _running = self.running.acquire().await.map_err(|_| codes::STOPPING.failure())?;
        Ok(self.seams.pool.run(Urgency::Foreground, work).await)
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
