//! Documents: golden folders explain themselves, limits are written up, formats have whole pages, the pages that code relies on exist.
//!
//! Not here: metrics (`metrics`), decisions and the glossary (`decisions`), ARCHITECTURE.md (`architecture`).

use crate::tree::{CODE_FOLDERS, Fault, relative, root, walk};
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
    faults.extend(limits());
    faults.extend(format_pages());
    faults
}

/// Each page of a format shows its grammar, its fields and an example.
fn format_pages() -> Vec<Fault> {
    let mut pages = Vec::new();
    walk(&root().join("docs/format"), &mut pages);
    assert!(pages.len() > 8, "the pages of formats were not found");
    pages.sort();
    let mut faults = Vec::new();
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        let headings: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        let has = |words: &[&str]| {
            headings
                .iter()
                .any(|heading| words.iter().any(|word| heading.starts_with(word)))
        };
        let parts: [(&str, &[&str]); 2] = [("grammar", &["Grammar"]), ("example", &["Example", "Worked example"])];
        for (part, words) in parts {
            if !has(words) {
                faults.push(Fault::new(
                    &relative(&page),
                    1,
                    format!("has no section with its {part}"),
                ));
            }
        }
        if !text.contains("\n|---|") {
            faults.push(Fault::new(&relative(&page), 1, "has no table of fields"));
        }
    }
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
