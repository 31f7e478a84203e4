//! Clients that make folders, perhaps with files among them, at replicas of this process, for the measurements of this package.

use super::drive::Drive;
use super::files::{self, Epoch};
use super::world::{World, propose_anywhere};
use metadata_raft::service::MetadataService;
use model::id::EntryId;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Folders of one drive, each with the next number, made wherever the group is led.
#[derive(Clone)]
pub(crate) struct Folders {
    services: Vec<Arc<MetadataService>>,
    drive: Drive,
    parent: EntryId,
    next: Arc<AtomicU64>,
    led_at: Arc<AtomicUsize>,
    /// Where some of them are files, the epoch in which their stripes are born.
    files: Option<Epoch>,
}

impl Folders {
    /// In the folder `parent` of `drive`, from number `first`.
    pub(crate) fn new(world: &World, drive: Drive, parent: EntryId, first: u64) -> Self {
        Self {
            services: world.services().into_iter().map(|(_, service)| service).collect(),
            drive,
            parent,
            next: Arc::new(AtomicU64::new(first)),
            led_at: Arc::default(),
            files: None,
        }
    }

    /// With a file in the place of a folder each so often (`files`); `epoch` is kept up to date by somebody else.
    pub(crate) fn with_files(self, epoch: Epoch) -> Self {
        Self {
            files: Some(epoch),
            ..self
        }
    }

    /// How many there are, with those under way.
    pub(crate) fn made(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// What a client does over and over.
    pub(crate) fn write(&self) -> impl Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Clone + Send + use<> {
        let folders = self.clone();
        move || {
            let folders = folders.clone();
            Box::pin(async move {
                let number = folders.next.fetch_add(1, Ordering::Relaxed);
                let command = match &folders.files {
                    Some(epoch) => files::entry_in(&folders.drive, folders.parent, number, epoch),
                    None => folders.drive.folder_in(folders.parent, number),
                };
                let mut at = folders.led_at.load(Ordering::Relaxed);
                propose_anywhere(&folders.services, &mut at, folders.drive.group, &command).await;
                folders.led_at.store(at, Ordering::Relaxed);
            })
        }
    }
}
