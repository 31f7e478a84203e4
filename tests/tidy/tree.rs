//! The project's files as the checks see them.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// A Rust source file: its path from the root with `/`, and its text.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// Something that a check found.
pub(crate) struct Fault {
    pub(crate) path: String,
    pub(crate) line: usize,
    pub(crate) what: String,
}

impl Fault {
    pub(crate) fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line,
            what: what.into(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// The folder of the root manifest.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The folders that hold packages, and the root's own.
pub(crate) const CODE_FOLDERS: [&str; 8] = [
    "crates",
    "node",
    "metadata-raft",
    "gateway",
    "client-sdk",
    "chaos",
    "src",
    "tests",
];

/// Every Rust file of the project, sorted by path.
pub(crate) fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    for folder in CODE_FOLDERS {
        walk(&root().join(folder), &mut found);
    }
    found.sort();
    let sources: Vec<Source> = found
        .into_iter()
        .filter(|path| path.extension().is_some_and(|ending| ending == "rs"))
        .map(|path| Source {
            text: fs::read_to_string(&path).unwrap(),
            path: relative(&path),
        })
        .collect();
    assert!(sources.len() > 20, "the tree was not found");
    sources
}

/// Every file below `folder`, any ending.
pub(crate) fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(rows) = fs::read_dir(folder) else { return };
    for row in rows {
        let path = row.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                walk(&path, found);
            }
        } else {
            found.push(path);
        }
    }
}

/// Whether a module is compiled for tests alone.
pub(crate) fn is_of_tests(item: &syn::ItemMod) -> bool {
    item.attrs.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .parse_args::<syn::Ident>()
                .is_ok_and(|argument| argument == "test")
    })
}

/// `path` from the root, with `/`.
pub(crate) fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/")
}
