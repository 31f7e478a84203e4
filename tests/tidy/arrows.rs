//! The package table of ARCHITECTURE.md against the manifests.

use crate::tree::{Fault, root};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

const TABLE_BEGIN: &str = "<!-- packages -->";
const TABLE_END: &str = "<!-- /packages -->";

/// Dependencies on our own packages that the table does not allow, packages that it does not name, and names of none.
pub(crate) fn departures() -> Vec<Fault> {
    let allowed = table();
    let mut faults = Vec::new();
    let mut seen = BTreeSet::new();
    for (package, manifest) in manifests() {
        seen.insert(package.clone());
        let Some(may_use) = allowed.get(&package) else {
            faults.push(Fault::new(
                "ARCHITECTURE.md",
                1,
                format!("the package table lacks `{package}`"),
            ));
            continue;
        };
        for (line, name) in own_dependencies(&manifest) {
            if !may_use.contains("*") && !may_use.contains(&name) {
                faults.push(Fault::new(
                    &package,
                    line,
                    format!("depends on `{name}`, which the package table does not allow"),
                ));
            }
        }
    }
    for package in allowed.keys().filter(|package| !seen.contains(*package)) {
        faults.push(Fault::new(
            "ARCHITECTURE.md",
            1,
            format!("the package table names `{package}`, which is no package"),
        ));
    }
    faults
}

fn table() -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let (_, rest) = text
        .split_once(TABLE_BEGIN)
        .expect("ARCHITECTURE.md has the package table");
    let (body, _) = rest.split_once(TABLE_END).expect("the package table ends");
    body.lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let uses = cells[3]
                .split_whitespace()
                .map(|name| name.trim_matches('`').to_owned())
                .filter(|name| name != "-")
                .collect();
            (cells[1].trim_matches('`').to_owned(), uses)
        })
        .collect()
}

pub(crate) fn manifests() -> Vec<(String, String)> {
    let text = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let members: Vec<String> = text
        .lines()
        .skip_while(|line| !line.starts_with("members"))
        .take_while(|line| !line.starts_with(']'))
        .flat_map(|line| {
            line.split('"')
                .skip(1)
                .step_by(2)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(members.len() > 8, "the members were not found");
    let mut manifests = vec![(
        "holdfast".to_owned(),
        text.split_once("[package]").expect("a root package").1.to_owned(),
    )];
    for member in members {
        let text = fs::read_to_string(root().join(&member).join("Cargo.toml")).unwrap();
        let name = text
            .lines()
            .find_map(|line| line.strip_prefix("name = "))
            .expect("a package has a name");
        manifests.push((name.trim_matches('"').to_owned(), text.clone()));
    }
    manifests
}

/// Only `[dependencies]`: tests may use anything.
fn own_dependencies(manifest: &str) -> Vec<(usize, String)> {
    const OURS: [&str; 14] = [
        "model",
        "codec",
        "placement",
        "protocol",
        "api",
        "rpc",
        "disk",
        "kv",
        "daemon",
        "node",
        "metadata-raft",
        "gateway",
        "client-sdk",
        "schedules",
    ];
    let mut in_dependencies = false;
    let mut found = Vec::new();
    for (number, line) in manifest.lines().enumerate() {
        if line.starts_with('[') {
            in_dependencies = line == "[dependencies]";
        }
        let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
        if in_dependencies && OURS.contains(&name) {
            found.push((number + 1, name.to_owned()));
        }
    }
    found
}
