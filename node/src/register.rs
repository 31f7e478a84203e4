//! The node's register of disks: which disks it has had, kept in its own directory and not on any of them.
//!
//! Place in the picture: a mount point whose disk is away is an empty directory, just like a new disk; only what is remembered
//! elsewhere tells them apart. Decision 0010; bytes in docs/format/place-index.md.
//! Invariants: a disk that is known is never formatted, whatever its directory looks like; entries are written once and never
//! removed, since ids are never used again; a register that is new beside disks that are not takes every configured disk as known.
//! Not here: opening disks (`open.rs`); their own identity files (`store/identity.rs`).

use crate::store::identity::{Plate, read_plate, write_plate};
use disk::{Disk, DiskError};
use model::id::{ClusterId, DiskId, NodeId};
use std::collections::BTreeSet;
use std::sync::Arc;
use thiserror::Error;

const DISKS_DIR: &str = "disks";
const NODE_FILE: &str = "node";
const NODE_MAGIC: [u8; 4] = *b"HFNO";
const DISK_MAGIC: [u8; 4] = *b"HFKD";

/// Why a node cannot use its own directory.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RegisterError {
    /// It is another cluster's.
    #[error("the data directory belongs to another cluster; correct node.data_dir")]
    OtherCluster,
    /// It is another node's of this cluster.
    #[error("the data directory of node {expected} belongs to node {found}; correct node.data_dir")]
    OtherNode {
        /// Whose it should be.
        expected: NodeId,
        /// Whose it is.
        found: NodeId,
    },
    /// The file that says whose it is does not read.
    #[error(
        "the file `node` of the data directory is damaged or of a newer release; restore it, or move the directory away while all disks are mounted"
    )]
    Unreadable,
    /// The directory itself failed.
    #[error("use the data directory: {0}")]
    Disk(#[from] DiskError),
}

/// The disks that a node has had.
pub struct DiskRegister {
    directory: Arc<dyn Disk>,
    cluster: ClusterId,
    known: BTreeSet<DiskId>,
    is_new: bool,
}

impl DiskRegister {
    /// Reads the register in the node's own directory; an empty directory is a new register.
    pub fn open(directory: Arc<dyn Disk>, cluster: ClusterId, node: NodeId) -> Result<Self, RegisterError> {
        let is_new = match read_plate(directory.as_ref(), NODE_FILE, NODE_MAGIC)? {
            Plate::Absent => true,
            Plate::Unreadable => return Err(RegisterError::Unreadable),
            Plate::Says(found, _) if found != cluster => return Err(RegisterError::OtherCluster),
            Plate::Says(_, found) if found != node.0 => {
                return Err(RegisterError::OtherNode {
                    expected: node,
                    found: NodeId(found),
                });
            }
            Plate::Says(..) => false,
        };
        directory.make_dir(DISKS_DIR)?;
        // The name alone makes a disk known: a damaged entry must not make its disk look new.
        let number = |name: &String| name.parse::<u32>().ok().map(DiskId);
        let known = directory.list(DISKS_DIR)?.iter().filter_map(number).collect();
        Ok(Self {
            directory,
            cluster,
            known,
            is_new,
        })
    }

    /// Settles a register that is new: `carries_data` tells whether any configured disk bears an identity already.
    ///
    /// If one does, the node is not new, only its register: then each of `configured` counts as known from now on, so that a mount
    /// point whose disk is away is not taken for a new disk. Durable on return; nothing happens on a register that is not new.
    pub fn settle(
        &mut self,
        node: NodeId,
        configured: impl Iterator<Item = DiskId>,
        carries_data: bool,
    ) -> Result<(), RegisterError> {
        if !self.is_new {
            return Ok(());
        }
        if carries_data {
            tracing::warn!(%node, "the register of disks is new and the disks are not; every configured disk counts as known");
            for disk in configured {
                self.remember(disk)?;
            }
        }
        // Last, so that a crash before it settles the same way again.
        write_plate(self.directory.as_ref(), "", NODE_FILE, NODE_MAGIC, self.cluster, node.0)?;
        self.is_new = false;
        Ok(())
    }

    /// Whether the node has had this disk.
    #[must_use]
    pub fn knows(&self, disk: DiskId) -> bool {
        self.known.contains(&disk)
    }

    /// Remembers a disk for good, durably on return; again: nothing.
    pub fn remember(&mut self, disk: DiskId) -> Result<(), RegisterError> {
        if !self.knows(disk) {
            let name = format!("{DISKS_DIR}/{disk}");
            write_plate(
                self.directory.as_ref(),
                DISKS_DIR,
                &name,
                DISK_MAGIC,
                self.cluster,
                disk.0,
            )?;
            self.known.insert(disk);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{DiskRegister, RegisterError};
    use disk::sim::{Faults, Survivors};
    use disk::{Disk, SimDisk};
    use model::id::{ClusterId, DiskId, NodeId};
    use std::sync::Arc;

    const CLUSTER: ClusterId = ClusterId(9);
    const NODE: NodeId = NodeId(3);

    fn open(directory: &SimDisk) -> Result<DiskRegister, RegisterError> {
        DiskRegister::open(Arc::new(directory.clone()), CLUSTER, NODE)
    }

    #[test]
    fn a_register_is_its_nodes_alone_and_remembers_through_a_power_cut() {
        let directory = SimDisk::new(1 << 20);
        let mut register = open(&directory).unwrap();
        register
            .settle(NODE, [DiskId(1), DiskId(2)].into_iter(), false)
            .unwrap();
        assert!(
            !register.knows(DiskId(1)),
            "a new node's disks are not known before they are formatted"
        );
        register.remember(DiskId(1)).unwrap();
        register.remember(DiskId(1)).unwrap();
        let after = directory.crash(Survivors::None);
        let register = open(&after).unwrap();
        assert!(register.knows(DiskId(1)) && !register.knows(DiskId(2)));
        let shared: Arc<dyn Disk> = Arc::new(after.clone());
        let other = |cluster, node| DiskRegister::open(Arc::clone(&shared), ClusterId(cluster), NodeId(node)).err();
        assert_eq!(other(8, 3), Some(RegisterError::OtherCluster));
        assert_eq!(
            other(9, 4),
            Some(RegisterError::OtherNode {
                expected: NodeId(4),
                found: NODE
            })
        );
        after.flip_bit("disks/1", 20, 1).unwrap();
        assert!(
            open(&after).unwrap().knows(DiskId(1)),
            "a damaged entry does not make its disk look new"
        );
        after.flip_bit("node", 20, 1).unwrap();
        assert_eq!(open(&after).err(), Some(RegisterError::Unreadable));
    }

    /// A lost register is settled again and again until it is through: at no cut does an unmounted disk become unknown.
    #[test]
    fn a_register_that_was_lost_takes_every_configured_disk_as_known_at_whatever_io_it_is_cut() {
        for cut in 0.. {
            let directory = SimDisk::new(1 << 20);
            directory.set_faults(Faults {
                cut_after_io: Some(cut),
                ..Faults::default()
            });
            let settle = |directory: &SimDisk| {
                open(directory).and_then(|mut register| {
                    register.settle(NODE, [DiskId(1), DiskId(2)].into_iter(), true)?;
                    Ok(register)
                })
            };
            let is_through = settle(&directory).is_ok();
            for seed in 0..16 {
                let register = settle(&directory.crash(Survivors::Seed(seed))).unwrap();
                assert!(
                    register.knows(DiskId(1)) && register.knows(DiskId(2)),
                    "cut {cut} seed {seed}"
                );
            }
            if is_through {
                return;
            }
        }
    }
}
