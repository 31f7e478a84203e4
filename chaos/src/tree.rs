//! A real directory tree of the host as input: regular files whose names a drive can hold.
//!
//! Links, sockets, unreadable files and names that are no UTF-8 are left out and counted, never silently.

use std::fs;
use std::path::{Path, PathBuf};

/// A regular file of the host: its path in the drive and where it lies.
#[derive(Clone, Debug)]
pub struct TreeFile {
    /// Absolute path in the drive.
    pub drive_path: String,
    /// Where it lies on the host.
    pub host_path: PathBuf,
    /// Its length when it was found.
    pub length_bytes: u64,
}

/// Files and how many names were left out.
#[derive(Debug, Default)]
pub struct Tree {
    /// In path order.
    pub files: Vec<TreeFile>,
    /// Links, special files, unreadable or unnameable ones.
    pub left_out: usize,
}

impl Tree {
    /// Bytes of all files.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.length_bytes).sum()
    }

    /// Adds everything below `folder` under `prefix` until there are `files_min` files and `bytes_min` bytes.
    pub fn gather(&mut self, folder: &Path, prefix: &str, files_min: usize, bytes_min: u64) {
        let Ok(rows) = fs::read_dir(folder) else {
            self.left_out += 1;
            return;
        };
        let mut paths: Vec<PathBuf> = rows.filter_map(|row| row.ok().map(|row| row.path())).collect();
        paths.sort();
        for path in paths {
            if self.files.len() >= files_min && self.total_bytes() >= bytes_min {
                return;
            }
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                self.left_out += 1;
                continue;
            };
            let drive_path = format!("{prefix}/{name}");
            match fs::symlink_metadata(&path) {
                Ok(facts) if facts.is_dir() => self.gather(&path, &drive_path, files_min, bytes_min),
                Ok(facts)
                    if facts.is_file()
                        && fs::File::open(&path).is_ok()
                        && name.chars().all(|letter| !letter.is_control()) =>
                {
                    self.files.push(TreeFile {
                        drive_path,
                        host_path: path,
                        length_bytes: facts.len(),
                    });
                }
                _ => self.left_out += 1,
            }
        }
    }
}

/// The host's own trees, largest first: a Rust toolchain and /usr/share.
#[must_use]
pub fn candidates() -> Vec<PathBuf> {
    let sysroot = std::process::Command::new("rustc")
        .args(["--print", "sysroot"])
        .output()
        .ok();
    let sysroot = sysroot
        .and_then(|answer| String::from_utf8(answer.stdout).ok())
        .map(|text| PathBuf::from(text.trim()));
    sysroot
        .into_iter()
        .chain([PathBuf::from("/usr/share"), PathBuf::from("/usr/lib")])
        .filter(|path| path.is_dir())
        .collect()
}
