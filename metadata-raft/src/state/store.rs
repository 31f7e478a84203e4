//! Reading and writing stored records, and the two ways in which a command can end early.
//!
//! Invariant: every record is a versioned enum in postcard; bytes that cannot be read stop the replica, they never become a default.

use bytes::Bytes;
use kv::overlay::Overlay;
use kv::seam::{KvError, KvRead, Scan};
use protocol::codes::Code;
use protocol::wire_error::Failure;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Why a command or query ended early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The same on every replica: the caller is told.
    Refused(Box<Failure>),
    /// This replica's store failed: it must stop.
    Store(KvError),
}

/// The result of every step.
pub(crate) type Outcome<T> = Result<T, Stop>;

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Refused(Box::new(failure))
    }
}

impl From<&Code> for Stop {
    fn from(code: &Code) -> Self {
        code.failure().into()
    }
}

impl From<KvError> for Stop {
    fn from(error: KvError) -> Self {
        Self::Store(error)
    }
}

/// Refuses with `code` unless `is_met`.
pub(crate) fn require(is_met: bool, code: &Code) -> Outcome<()> {
    if is_met { Ok(()) } else { Err(code.into()) }
}

/// Something that other records say must be there is not.
pub(crate) fn broken(what: &str) -> Stop {
    Failure::bug(format!("the state does not agree with itself: {what}")).into()
}

/// The stored form of a record. A later form of a record gets an enum of its own with the same first variant.
#[derive(Serialize, Deserialize)]
enum Stored<T> {
    V1(T),
}

/// Reads stored bytes; the error names the key.
pub(crate) fn decode<T: DeserializeOwned>(key: &[u8], bytes: &[u8]) -> Result<T, KvError> {
    match postcard::take_from_bytes::<Stored<T>>(bytes) {
        Ok((Stored::V1(record), [])) => Ok(record),
        Ok(_) => Err(KvError::Corrupt(format!("record {key:02x?}: bytes behind its end"))),
        Err(error) => Err(KvError::Corrupt(format!("record {key:02x?}: {error}"))),
    }
}

/// The stored bytes of a record.
pub(crate) fn encode<T: Serialize>(record: &T) -> Outcome<Bytes> {
    postcard::to_stdvec(&Stored::V1(record))
        .map(Bytes::from)
        .map_err(|error| Failure::bug(format!("encode record: {error}")).into())
}

/// The record under `key`.
pub(crate) fn load<T: DeserializeOwned>(kv: &dyn KvRead, key: &[u8]) -> Outcome<Option<T>> {
    match kv.get(key)? {
        Some(bytes) => Ok(Some(decode(key, &bytes)?)),
        None => Ok(None),
    }
}

/// Puts a record under `key`.
pub(crate) fn save<T: Serialize>(tx: &mut Overlay<'_>, key: Bytes, record: &T) -> Outcome<()> {
    let bytes = encode(record)?;
    tx.put(key, bytes);
    Ok(())
}

/// At most `rows_max` records whose keys begin with `prefix`, upwards, behind `after`.
pub(crate) fn list<T: DeserializeOwned>(
    kv: &dyn KvRead,
    prefix: &[u8],
    after: Option<&[u8]>,
    rows_max: usize,
) -> Outcome<Vec<(Bytes, T)>> {
    let mut scan = Scan::prefix(prefix, rows_max);
    if let Some(after) = after {
        scan = scan.after(after);
    }
    let rows = kv.scan(&scan)?;
    rows.into_iter()
        .map(|(key, bytes)| Ok((key.clone(), decode(&key, &bytes)?)))
        .collect()
}

/// Makes changes that may be refused without what was written before the refusal; answers the refusal.
pub(crate) fn attempt<T>(
    tx: &mut Overlay<'_>,
    change: impl FnOnce(&mut Overlay<'_>) -> Outcome<T>,
) -> Outcome<Result<T, Box<Failure>>> {
    let mut own = Overlay::new(&*tx);
    let done = match change(&mut own) {
        Ok(done) => done,
        Err(Stop::Refused(failure)) => return Ok(Err(failure)),
        Err(stop @ Stop::Store(_)) => return Err(stop),
    };
    let changes = own.into_batch();
    tx.absorb(changes);
    Ok(Ok(done))
}
