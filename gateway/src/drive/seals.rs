//! Opened drive keys, kept while they are in use.
//!
//! Invariants: a key is opened from the drive's own record and with the cluster's KEK only; at most `SEALS_MAX` are kept; keys
//! leave this process in no form.

use crate::codes;
use codec::cipher::Cipher;
use codec::keys::{DriveKey, Kek, WrappedKey};
use codec::seal::DriveSeal;
use daemon::random::Random;
use model::id::DriveId;
use protocol::metadata::query::DriveFacts;
use protocol::wire_error::Failure;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Drives whose keys are kept open; each takes some hundred bytes.
const SEALS_MAX: usize = 4096;

type Cached = (bytes::Bytes, Arc<DriveSeal>);

/// The KEK and the keys opened with it.
pub struct Seals {
    kek: Kek,
    random: Random,
    cipher: Arc<dyn Cipher>,
    open: Mutex<BTreeMap<DriveId, Cached>>,
}

impl Seals {
    /// Opens drive keys with `kek`; the seals use `cipher`.
    pub fn new(kek: Kek, random: Random, cipher: Arc<dyn Cipher>) -> Self {
        Self {
            kek,
            random,
            cipher,
            open: Mutex::default(),
        }
    }

    /// The seal of a drive; `key_unusable` when its key was wrapped by another KEK or is damaged.
    pub fn of(&self, facts: &DriveFacts) -> Result<Arc<DriveSeal>, Failure> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((wrapped, seal)) = open.get(&facts.drive)
            && *wrapped == facts.wrapped_key
        {
            return Ok(Arc::clone(seal));
        }
        let unusable = |error| codes::KEY_UNUSABLE.because(format!("open the drive's key: {error}"));
        let wrapped = WrappedKey::from_bytes(&facts.wrapped_key).map_err(unusable)?;
        let key = self.kek.unwrap(facts.drive, &wrapped).map_err(unusable)?;
        let seal = Arc::new(DriveSeal::with_cipher(facts.drive, key, Arc::clone(&self.cipher)));
        if open.len() >= SEALS_MAX {
            open.pop_first();
        }
        open.insert(facts.drive, (facts.wrapped_key.clone(), Arc::clone(&seal)));
        Ok(seal)
    }

    /// The public name of the KEK, from which nothing of the key follows.
    pub fn kek_id(&self) -> String {
        self.kek.id().to_string()
    }

    /// A fresh key for `drive`, wrapped, with the name of the KEK.
    pub fn new_key(&self, drive: DriveId) -> (bytes::Bytes, String) {
        let mut random = |bytes: &mut [u8]| self.random.fill(bytes);
        let key = DriveKey::generate(&mut random);
        let wrapped = self.kek.wrap(drive, &key, &mut random);
        (wrapped.to_bytes().into(), self.kek.id().to_string())
    }
}
