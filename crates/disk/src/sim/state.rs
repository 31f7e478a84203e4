//! The state of a simulated disk: what the cache shows, what the platter holds, and what lies between.
//!
//! Place in the picture: behind `SimDisk`, under its lock.
//! Invariants: a block of a file is unsynced exactly when the cache and the platter may differ in it and a sync would write it;
//! directory operations become durable in their order when the directories that they touch are synced.
//! Not here: the seam's types.

use crate::seam::{DiskError, Space, check_name, parent};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const BLOCK_BYTES: usize = 4096;

/// Faults that are to come; counts are of the disk's whole life and begin at 0.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// The power is cut when so many changing I/Os were done: every later call fails.
    pub cut_after_io: Option<u64>,
    /// This file sync fails and drops what it should have covered.
    pub failing_sync: Option<u64>,
    /// This read answers a short read.
    pub short_read: Option<u64>,
    /// This changing I/O fails and changes nothing; those after it succeed. A sync that fails so has lost nothing yet.
    pub failing_io: Option<u64>,
}

/// Which unsynced changes a power cut leaves. Blocks come first (by file and offset), then directory operations in their order.
#[derive(Clone, Copy, Debug)]
pub enum Survivors {
    /// Nothing.
    None,
    /// Everything.
    All,
    /// Change number i survives when bit i is set; those from 64 on do not.
    Mask(u64),
    /// Each by a coin that this seed throws; sometimes a file keeps its length and loses its blocks, which then read as zeros.
    Seed(u64),
}

/// How many changes a power cut could lose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unsynced {
    /// Blocks of files.
    pub blocks: usize,
    /// Operations on names.
    pub dir_operations: usize,
}

impl Unsynced {
    /// All of them.
    #[must_use]
    pub fn count(&self) -> usize {
        self.blocks + self.dir_operations
    }
}

#[derive(Clone, Default)]
struct Inode {
    // Shared between a disk and what its power cuts leave: the suites look at thousands of cuts of one disk.
    cache: Arc<Vec<u8>>,
    platter: Arc<Vec<u8>>,
    unsynced: BTreeSet<usize>,
    /// Space set aside for so many first bytes; a power cut gives it back.
    allocated_bytes: usize,
}

impl Inode {
    fn used_bytes(&self) -> usize {
        self.cache.len().max(self.allocated_bytes)
    }
}

#[derive(Clone)]
enum DirOperation {
    Create { name: String, file: u64 },
    Rename { from: String, to: String },
    Remove { name: String },
}

#[derive(Clone)]
struct Pending {
    operation: DirOperation,
    /// Directories that still have to be synced before it is durable.
    dirs: BTreeSet<String>,
}

#[derive(Clone)]
pub(super) struct State {
    files: BTreeMap<u64, Inode>,
    next_file: u64,
    dirs: BTreeSet<String>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    pending: Vec<Pending>,
    pub(super) read_count: u64,
    pub(super) capacity_bytes: u64,
    pub(super) faults: Faults,
    pub(super) io_count: u64,
    pub(super) sync_count: u64,
    pub(super) overwritten_bytes: u64,
    pub(super) trace: Vec<String>,
}

impl State {
    pub(super) fn new(capacity_bytes: u64) -> Self {
        Self {
            files: BTreeMap::new(),
            next_file: 0,
            dirs: BTreeSet::from([String::new()]),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending: Vec::new(),
            read_count: 0,
            capacity_bytes,
            faults: Faults::default(),
            io_count: 0,
            sync_count: 0,
            overwritten_bytes: 0,
            trace: Vec::new(),
        }
    }

    fn check_power(&self) -> Result<(), DiskError> {
        match self.faults.cut_after_io {
            Some(limit) if self.io_count >= limit => Err(DiskError::Io("power is cut".to_owned())),
            _ => Ok(()),
        }
    }

    fn begin_io(&mut self, line: String) -> Result<(), DiskError> {
        self.check_power()?;
        self.io_count += 1;
        if self.faults.failing_io == Some(self.io_count - 1) {
            return Err(DiskError::Io(format!("{line}: injected I/O error")));
        }
        self.trace.push(line);
        Ok(())
    }

    fn check_dir(&self, dir: &str) -> Result<(), DiskError> {
        if self.dirs.contains(dir) {
            Ok(())
        } else {
            Err(DiskError::NotFound(dir.to_owned()))
        }
    }

    fn inode(&self, file: u64) -> &Inode {
        self.files
            .get(&file)
            .expect("handles keep inodes: none is ever dropped")
    }

    fn inode_mut(&mut self, file: u64) -> &mut Inode {
        self.files
            .get_mut(&file)
            .expect("handles keep inodes: none is ever dropped")
    }

    pub(super) fn create(&mut self, name: &str) -> Result<u64, DiskError> {
        self.check_dir(parent(name))?;
        if self.names.contains_key(name) || self.dirs.contains(name) {
            return Err(DiskError::Exists(name.to_owned()));
        }
        self.begin_io(format!("create {name}"))?;
        let file = self.next_file;
        self.next_file += 1;
        self.files.insert(file, Inode::default());
        self.names.insert(name.to_owned(), file);
        self.push_pending(
            DirOperation::Create {
                name: name.to_owned(),
                file,
            },
            &[parent(name)],
        );
        Ok(file)
    }

    pub(super) fn find(&self, name: &str) -> Result<u64, DiskError> {
        self.check_power()?;
        self.names
            .get(name)
            .copied()
            .ok_or_else(|| DiskError::NotFound(name.to_owned()))
    }

    pub(super) fn list(&self, dir: &str) -> Result<Vec<String>, DiskError> {
        self.check_power()?;
        self.check_dir(dir)?;
        let names = self.names.keys().filter(|name| parent(name) == dir);
        Ok(names
            .map(|name| name.rsplit('/').next().unwrap_or(name).to_owned())
            .collect())
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError> {
        self.check_dir(parent(to))?;
        let file = self.find(from)?;
        if self.names.contains_key(to) {
            return Err(DiskError::Exists(to.to_owned()));
        }
        self.begin_io(format!("rename {from} {to}"))?;
        self.names.remove(from);
        self.names.insert(to.to_owned(), file);
        let operation = DirOperation::Rename {
            from: from.to_owned(),
            to: to.to_owned(),
        };
        self.push_pending(operation, &[parent(from), parent(to)]);
        Ok(())
    }

    pub(super) fn remove(&mut self, name: &str) -> Result<(), DiskError> {
        self.find(name)?;
        self.begin_io(format!("remove {name}"))?;
        self.names.remove(name);
        self.push_pending(DirOperation::Remove { name: name.to_owned() }, &[parent(name)]);
        Ok(())
    }

    fn push_pending(&mut self, operation: DirOperation, dirs: &[&str]) {
        self.pending.push(Pending {
            operation,
            dirs: dirs.iter().map(|dir| (*dir).to_owned()).collect(),
        });
    }

    pub(super) fn sync_dir(&mut self, dir: &str) -> Result<(), DiskError> {
        self.check_dir(dir)?;
        self.begin_io(format!("sync_dir {dir:?}"))?;
        let mut waiting = Vec::new();
        for mut pending in std::mem::take(&mut self.pending) {
            pending.dirs.remove(dir);
            if pending.dirs.is_empty() {
                apply(&mut self.durable_names, &pending.operation);
            } else {
                waiting.push(pending);
            }
        }
        self.pending = waiting;
        Ok(())
    }

    pub(super) fn make_dir(&mut self, dir: &str) -> Result<(), DiskError> {
        check_name(dir)?;
        self.begin_io(format!("make_dir {dir}"))?;
        let ends = dir.match_indices('/').map(|(at, _)| at).chain([dir.len()]);
        for end in ends {
            self.dirs.insert(dir[..end].to_owned());
        }
        Ok(())
    }

    pub(super) fn space(&self) -> Space {
        let used: usize = self.names.values().map(|file| self.inode(*file).used_bytes()).sum();
        Space {
            total_bytes: self.capacity_bytes,
            free_bytes: self.capacity_bytes.saturating_sub(used as u64),
        }
    }

    pub(super) fn write(&mut self, file: u64, name: &str, offset: u64, parts: &[&[u8]]) -> Result<(), DiskError> {
        let bytes = parts.concat();
        if bytes.is_empty() {
            return self.check_power();
        }
        self.begin_io(format!("write {name} {offset} {}", bytes.len()))?;
        let free_bytes = usize::try_from(self.space().free_bytes).unwrap_or(usize::MAX);
        let offset = usize::try_from(offset).map_err(|_| DiskError::Full(name.to_owned()))?;
        let inode = self.inode_mut(file);
        let old_len = inode.cache.len();
        let end = offset + bytes.len();
        // A full disk takes what fits and then refuses, as a file system does.
        let allowed_end = end.min(inode.used_bytes().saturating_add(free_bytes));
        let taken = allowed_end.saturating_sub(offset);
        if taken > 0 {
            let cache = Arc::make_mut(&mut inode.cache);
            if cache.len() < allowed_end {
                cache.resize(allowed_end, 0);
            }
            cache[offset..allowed_end].copy_from_slice(&bytes[..taken]);
            inode
                .unsynced
                .extend(offset / BLOCK_BYTES..allowed_end.div_ceil(BLOCK_BYTES));
        }
        self.overwritten_bytes += old_len.min(allowed_end).saturating_sub(offset) as u64;
        if allowed_end < end {
            Err(DiskError::Full(name.to_owned()))
        } else {
            Ok(())
        }
    }

    pub(super) fn read(&mut self, file: u64, name: &str, offset: u64, len_bytes: usize) -> Result<Bytes, DiskError> {
        self.check_power()?;
        self.read_count += 1;
        let is_cut_short = self.faults.short_read == Some(self.read_count - 1) && len_bytes > 0;
        let cache = &self.inode(file).cache;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(cache.len());
        let there = (cache.len() - start).min(len_bytes);
        let there = if is_cut_short { there.min(len_bytes / 2) } else { there };
        if there < len_bytes {
            let (wanted_bytes, read_bytes) = (len_bytes as u64, there as u64);
            return Err(DiskError::ShortRead {
                name: name.to_owned(),
                offset,
                wanted_bytes,
                read_bytes,
            });
        }
        Ok(Bytes::copy_from_slice(&cache[start..start + len_bytes]))
    }

    pub(super) fn sync(&mut self, file: u64, name: &str) -> Result<(), DiskError> {
        self.begin_io(format!("sync {name}"))?;
        self.sync_count += 1;
        let fails = self.faults.failing_sync == Some(self.sync_count - 1);
        let inode = self.inode_mut(file);
        let blocks = std::mem::take(&mut inode.unsynced);
        if fails {
            return Err(DiskError::Io(format!("sync {name}: injected I/O error")));
        }
        for block in blocks {
            persist(inode, block);
        }
        Ok(())
    }

    pub(super) fn allocate(&mut self, file: u64, name: &str, len_bytes: u64) -> Result<(), DiskError> {
        self.begin_io(format!("allocate {name} {len_bytes}"))?;
        let wanted = usize::try_from(len_bytes).map_err(|_| DiskError::Full(name.to_owned()))?;
        let more = wanted.saturating_sub(self.inode(file).used_bytes());
        if more as u64 > self.space().free_bytes {
            return Err(DiskError::Full(name.to_owned()));
        }
        let inode = self.inode_mut(file);
        inode.allocated_bytes = inode.allocated_bytes.max(wanted);
        Ok(())
    }

    pub(super) fn len_bytes(&self, file: u64) -> Result<u64, DiskError> {
        self.check_power()?;
        Ok(self.inode(file).cache.len() as u64)
    }

    pub(super) fn flip_bit(&mut self, name: &str, offset: u64, bit: u8) -> Result<(), DiskError> {
        let file = self.find(name)?;
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        let inode = self.inode_mut(file);
        let Some(byte) = Arc::make_mut(&mut inode.cache).get_mut(at) else {
            return Err(DiskError::ShortRead {
                name: name.to_owned(),
                offset,
                wanted_bytes: 1,
                read_bytes: 0,
            });
        };
        *byte ^= 1 << (bit % 8);
        if let Some(byte) = Arc::make_mut(&mut inode.platter).get_mut(at) {
            *byte ^= 1 << (bit % 8);
        }
        Ok(())
    }

    pub(super) fn unsynced(&self) -> Unsynced {
        Unsynced {
            blocks: self.files.values().map(|inode| inode.unsynced.len()).sum(),
            dir_operations: self.pending.len(),
        }
    }

    pub(super) fn crash(&self, survivors: Survivors) -> Self {
        let mut choice = Choice { survivors, next: 0 };
        let mut after = Self::new(self.capacity_bytes);
        after.dirs.clone_from(&self.dirs);
        after.next_file = self.next_file;
        for (file, inode) in &self.files {
            let mut left = Inode {
                allocated_bytes: 0,
                ..inode.clone()
            };
            let blocks = std::mem::take(&mut left.unsynced);
            let has_unsynced = !blocks.is_empty();
            for block in blocks {
                if choice.keeps() {
                    persist(&mut left, block);
                }
            }
            if has_unsynced && choice.keeps_length() && left.platter.len() < left.cache.len() {
                Arc::make_mut(&mut left.platter).resize(left.cache.len(), 0);
            }
            left.cache = Arc::clone(&left.platter);
            after.files.insert(*file, left);
        }
        after.durable_names.clone_from(&self.durable_names);
        for pending in &self.pending {
            if choice.keeps() {
                apply(&mut after.durable_names, &pending.operation);
            }
        }
        after.names.clone_from(&after.durable_names);
        after
    }
}

fn persist(inode: &mut Inode, block: usize) {
    let start = block * BLOCK_BYTES;
    let end = (start + BLOCK_BYTES).min(inode.cache.len());
    let platter = Arc::make_mut(&mut inode.platter);
    if platter.len() < end {
        platter.resize(end, 0);
    }
    platter[start..end].copy_from_slice(&inode.cache[start..end]);
}

/// Applies an operation where it makes sense: one whose name is not there (since an earlier one was lost) does nothing.
fn apply(names: &mut BTreeMap<String, u64>, operation: &DirOperation) {
    match operation {
        DirOperation::Create { name, file } => {
            names.insert(name.clone(), *file);
        }
        DirOperation::Rename { from, to } => {
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
        DirOperation::Remove { name } => {
            names.remove(name);
        }
    }
}

struct Choice {
    survivors: Survivors,
    next: u32,
}

impl Choice {
    fn keeps(&mut self) -> bool {
        let index = self.next;
        self.next += 1;
        match self.survivors {
            Survivors::None => false,
            Survivors::All => true,
            Survivors::Mask(mask) => index < 64 && (mask >> index) & 1 == 1,
            Survivors::Seed(seed) => coin(seed, index),
        }
    }

    fn keeps_length(&self) -> bool {
        matches!(self.survivors, Survivors::Seed(seed) if coin(seed.rotate_left(17), self.next))
    }
}

/// The finaliser of MurmurHash3 over seed and index: spread well enough for coins, and the same for ever.
fn coin(seed: u64, index: u32) -> bool {
    let mut hash = seed ^ u64::from(index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (hash ^ (hash >> 33)) & 1 == 1
}
