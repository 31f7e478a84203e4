//! Documents: golden folders explain themselves, metrics and error codes are written up, the pages that code relies on exist.

use crate::tree::{CODE_FOLDERS, Fault, relative, root, sources, walk};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

const PAGES: [&str; 9] = [
    "README.md",
    "ARCHITECTURE.md",
    "LICENSE",
    "docs/glossary.md",
    "docs/limits.md",
    "docs/errors.md",
    "docs/metrics.md",
    "docs/testing.md",
    "docs/api.md",
];

/// Every gap between the tree and its documents.
pub(crate) fn incomplete() -> Vec<Fault> {
    let mut faults: Vec<Fault> = PAGES
        .iter()
        .filter(|page| fs::read_to_string(root().join(page)).map_or(true, |text| text.len() < 200))
        .map(|page| Fault::new(page, 1, "is missing or empty"))
        .collect();
    faults.extend(golden_folders());
    faults.extend(metrics());
    faults.extend(limits());
    faults
}

fn golden_folders() -> Vec<Fault> {
    let mut files = Vec::new();
    for folder in CODE_FOLDERS {
        walk(&root().join(folder), &mut files);
    }
    let folders: BTreeSet<PathBuf> = files
        .iter()
        .filter_map(|file| file.parent())
        .filter(|folder| folder.file_name().is_some_and(|name| name == "golden"))
        .map(PathBuf::from)
        .collect();
    let mut faults = Vec::new();
    for folder in folders {
        let readme = fs::read_to_string(folder.join("README.md")).unwrap_or_default();
        for file in files.iter().filter(|file| file.parent() == Some(folder.as_path())) {
            let name = file.file_name().expect("a file has a name").to_string_lossy();
            if name != "README.md" && !readme.contains(name.as_ref()) {
                faults.push(Fault::new(
                    &relative(file),
                    1,
                    "its folder's README.md does not name it",
                ));
            }
        }
    }
    faults
}

/// Names of metrics are string constants of files called metrics.rs that begin with a service's name.
fn metrics() -> Vec<Fault> {
    let page = fs::read_to_string(root().join("docs/metrics.md")).unwrap_or_default();
    let mut faults = Vec::new();
    for source in sources()
        .iter()
        .filter(|source| source.path.ends_with("metrics.rs") && source.path.contains("/src/"))
    {
        for (number, line) in source.text.lines().enumerate() {
            for word in line.split('"').skip(1).step_by(2) {
                let is_metric = ["node_", "metadata_", "gateway_", "rpc_", "process_"]
                    .iter()
                    .any(|service| word.starts_with(service));
                if is_metric && !word.contains(' ') && !page.contains(word) {
                    faults.push(Fault::new(
                        &source.path,
                        number + 1,
                        format!("docs/metrics.md lacks `{word}`"),
                    ));
                }
            }
        }
    }
    faults
}

fn limits() -> Vec<Fault> {
    let page = fs::read_to_string(root().join("docs/limits.md")).unwrap_or_default();
    let source = fs::read_to_string(root().join("crates/model/src/limits.rs")).unwrap();
    source
        .lines()
        .enumerate()
        .filter_map(|(number, line)| Some((number, line.strip_prefix("pub const ")?.split(':').next()?)))
        .filter(|(_, name)| !page.contains(name))
        .map(|(number, name)| {
            Fault::new(
                "crates/model/src/limits.rs",
                number + 1,
                format!("docs/limits.md lacks `{name}`"),
            )
        })
        .collect()
}
