//! Opening a node's disks: which directory is which disk, which may be formatted, and their stores.
//!
//! Steps: 1. look at every directory without touching it; 2. settle the register; 3. each disk that is there is remembered and its
//! store opened; one that was never known and is empty is formatted first; every other is missing, with what is to be done about it.
//! Invariants: a directory that does not bear the identity expected of it is neither written to nor emptied, unless its disk is new
//! to this node; what one disk fails at never keeps another from being opened.
//! Not here: what the register keeps (`register.rs`), replay (`store/replay.rs`).

use crate::config::{Config, DiskConfig};
use crate::register::{DiskRegister, RegisterError};
use crate::serve::Seams;
use crate::service::DiskSlot;
use crate::store::identity::{self, Identity};
use crate::store::replay::JOURNAL_DIR;
use crate::store::{FragmentStore, StoreError, StoreOptions};
use disk::{Disk, DiskError};
use kv::seam::{Kv, KvError};
use model::id::DiskId;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Longest batch of a journal, as decision 0009 says.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// How a disk's directory is to be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskOpening {
    /// Only where the file `identity` lies; elsewhere `NotFound`, and nothing is made or changed.
    Present,
    /// Also an empty one, which is about to be formatted; a mount point itself is never made.
    New,
}

/// How an index is to be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexOpening {
    /// The one that is there, or an empty one where there is none.
    Present,
    /// The present one does not open: put it aside and begin an empty one.
    Fresh,
}

/// Opens the directory of a disk.
pub type OpenDisk = Arc<dyn Fn(&DiskConfig, DiskOpening) -> Result<Arc<dyn Disk>, DiskError> + Send + Sync>;
/// Opens the place index of a disk.
pub type OpenIndex = Arc<dyn Fn(&DiskConfig, IndexOpening) -> Result<Arc<dyn Kv>, KvError> + Send + Sync>;

/// What looking at a disk's directory showed.
enum Look {
    /// The disk that it should be.
    Found(Arc<dyn Disk>),
    /// No disk of ours: the directory is absent, empty, or without an identity.
    Nothing,
    /// Something else, or a fault; holds the reason.
    Refused(String),
}

/// Opens what can be opened; the others are missing with their reasons. Disks are opened side by side.
///
/// Errors: the node's own directory cannot be used, so that nobody knows which disks are new.
pub(crate) async fn open_disks(config: &Config, seams: &Seams) -> Result<BTreeMap<DiskId, DiskSlot>, RegisterError> {
    let (settings, world) = (config.clone(), seams.clone());
    let found = blocking(move || find_disks(&settings, &world))
        .await
        .map_err(|panic| RegisterError::Disk(DiskError::Io(panic)))??;
    let mut opening = Vec::new();
    for (disk, found) in found {
        let (settings, whole, world) = (disk.clone(), config.clone(), seams.clone());
        let task = blocking(move || found.and_then(|found| open_store(found, &settings, &whole, &world)));
        opening.push((disk, tokio::spawn(task)));
    }
    let mut slots = BTreeMap::new();
    for (disk, task) in opening {
        let opened = task.await.unwrap_or_else(|error| Err(error.to_string()));
        let slot = match opened.unwrap_or_else(Err) {
            Ok(store) => DiskSlot::Open(store),
            Err(reason) => {
                tracing::error!(disk = %disk.disk, path = %disk.path.display(), %reason, "disk is missing");
                DiskSlot::Missing(reason)
            }
        };
        slots.insert(disk.disk, slot);
    }
    Ok(slots)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    let done = daemon::blocking::run(work).await;
    done.map_err(|panic| format!("opening panicked: {panic}"))
}

type FoundDisk = Result<Arc<dyn Disk>, String>;

fn find_disks(config: &Config, seams: &Seams) -> Result<Vec<(DiskConfig, FoundDisk)>, RegisterError> {
    let mut register = DiskRegister::open(Arc::clone(&seams.directory), seams.cluster, config.node)?;
    let looks: Vec<Look> = config.disks.iter().map(|disk| look(disk, seams)).collect();
    let carries_data = looks.iter().any(|look| matches!(look, Look::Found(_)));
    register.settle(config.node, config.disks.iter().map(|disk| disk.disk), carries_data)?;
    let mut found = Vec::new();
    for (disk, look) in config.disks.iter().zip(looks) {
        let answer = match look {
            Look::Found(seam) => {
                register.remember(disk.disk)?;
                Ok(seam)
            }
            Look::Refused(reason) => Err(reason),
            Look::Nothing if register.knows(disk.disk) => Err(format!(
                "disk {}: its directory {} holds no disk, and this node has had one there; mount it and start the node again; \
                 if it is lost, take it out of the configuration and add a new disk under a new id",
                disk.disk,
                disk.path.display()
            )),
            Look::Nothing => match format(disk, seams) {
                Ok(seam) => {
                    register.remember(disk.disk)?;
                    tracing::info!(disk = %disk.disk, path = %disk.path.display(), "new disk formatted");
                    Ok(seam)
                }
                Err(reason) => Err(reason),
            },
        };
        found.push((disk.clone(), answer));
    }
    Ok(found)
}

fn expected(config: &DiskConfig, seams: &Seams) -> Identity {
    Identity {
        cluster: seams.cluster,
        disk: config.disk,
    }
}

fn look(config: &DiskConfig, seams: &Seams) -> Look {
    let disk = match (seams.open_disk)(config, DiskOpening::Present) {
        Ok(disk) => disk,
        Err(DiskError::NotFound(_)) => return Look::Nothing,
        Err(error) => return Look::Refused(fault(config, &error)),
    };
    match identity::check(disk.as_ref(), expected(config, seams)) {
        Ok(true) => Look::Found(disk),
        Ok(false) => Look::Nothing,
        Err(error) => Look::Refused(error.to_string()),
    }
}

fn format(config: &DiskConfig, seams: &Seams) -> Result<Arc<dyn Disk>, String> {
    let disk = (seams.open_disk)(config, DiskOpening::New).map_err(|error| fault(config, &error))?;
    let holds_data = holds_segments(disk.as_ref()).map_err(|error| fault(config, &error))?;
    identity::check_or_write(disk.as_ref(), expected(config, seams), holds_data).map_err(|error| error.to_string())?;
    Ok(disk)
}

/// What failed and what to do about it.
fn fault(config: &DiskConfig, error: &DiskError) -> String {
    let advice = match error {
        DiskError::NotFound(_) => "make or mount its directory, or correct its path, and start the node again",
        DiskError::ReadOnly(_) => "mount it writable and start the node again",
        DiskError::InUse(_) => {
            "two paths lead to one disk, or another process holds it; correct the paths or end that process"
        }
        DiskError::Full(_) => "give it room and start the node again",
        _ => "look at the device and at the rights of its directory, and start the node again",
    };
    format!("disk {}: {error}; {advice}", config.disk)
}

fn open_store(
    disk: Arc<dyn Disk>,
    config: &DiskConfig,
    whole: &Config,
    seams: &Seams,
) -> Result<FragmentStore, String> {
    let told = |error: &dyn std::fmt::Display| format!("disk {}: {error}", config.disk);
    let random = seams.random.clone();
    let options = StoreOptions {
        segment_bytes: whole.segment_bytes,
        batch_bytes_max: BATCH_BYTES_MAX,
        next_salt: Arc::new(move || random.u64()),
    };
    let index = match (seams.open_index)(config, IndexOpening::Present) {
        Ok(index) => index,
        Err(KvError::Corrupt(cause)) => fresh_index(config, seams, &cause)?,
        Err(error) => return Err(told(&error)),
    };
    let opened = FragmentStore::open(config.disk, Arc::clone(&disk), Arc::clone(&index), &options);
    let (store, report) = match opened {
        Err(StoreError::IndexDamaged(cause)) => {
            drop(index);
            let fresh = fresh_index(config, seams, &cause)?;
            FragmentStore::open(config.disk, disk, fresh, &options).map_err(|error| told(&error))?
        }
        other => other.map_err(|error| told(&error))?,
    };
    let records = report.records_replayed;
    tracing::info!(disk = %config.disk, records, rebuilt = report.index_was_rebuilt, "disk opened");
    if report.damaged_found + report.damage_without_name > 0 {
        let (listed, nameless) = (report.damaged_found, report.damage_without_name);
        tracing::error!(disk = %config.disk, listed, nameless, "disk has damaged records");
    }
    Ok(store)
}

/// The index is a copy of what the segments say, so a damaged one is put aside and made anew.
fn fresh_index(config: &DiskConfig, seams: &Seams, cause: &str) -> Result<Arc<dyn Kv>, String> {
    tracing::error!(disk = %config.disk, %cause, "place index is damaged and rebuilt");
    (seams.open_index)(config, IndexOpening::Fresh).map_err(|error| format!("disk {}: {error}", config.disk))
}

fn holds_segments(disk: &dyn Disk) -> Result<bool, DiskError> {
    match disk.list(JOURNAL_DIR) {
        Ok(names) => Ok(!names.is_empty()),
        Err(DiskError::NotFound(_)) => Ok(false),
        Err(error) => Err(error),
    }
}
