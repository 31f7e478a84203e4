//! clippy's lists of what a package may not call, and the pure machines inside of a package that may call more.
//!
//! Clippy reads the nearest list alone, so each list must repeat what all forbid, and a pure package must not have a list of its own.
//! Not here: whether the code keeps to the lists, which clippy says.

use crate::tree::{Fault, Source};

/// What every list but that of the attackers forbids.
const EVERYWHERE: [&str; 6] = [
    "std::time::SystemTime::now",
    "std::time::Instant::now",
    "std::thread::spawn",
    "getrandom::fill",
    "std::collections::HashMap",
    "std::collections::HashSet",
];
/// What the list of services forbids besides.
const IN_SERVICES: [&str; 4] = [
    "tokio::time::Instant::now",
    "std::thread::sleep",
    "std::fs::read",
    "std::fs::File",
];
/// What the list of pure packages forbids besides.
const IN_PURE: [&str; 5] = [
    "tokio::time::sleep",
    "tokio::spawn",
    "tokio::task::spawn_blocking",
    "std::thread::Builder::spawn",
    "std::env::var",
];
const SERVICES: [&str; 4] = ["node", "metadata-raft", "gateway", "client-sdk"];
const DOORS: [&str; 4] = ["crates/rpc", "crates/disk", "crates/kv", "crates/daemon"];
const PURE: [&str; 5] = [
    "crates/model",
    "crates/codec",
    "crates/placement",
    "crates/protocol",
    "crates/api",
];
/// Files that decide where time and failure meet: events in, actions out.
const MACHINES: [&str; 2] = ["gateway/src/drive/fanout.rs", "gateway/src/drive/gather.rs"];
const NOT_IN_MACHINES: [&str; 5] = ["tokio", ".await", "Instant::", "SystemTime", "thread::"];

/// Lists that are missing, that stand where they would loosen another, or that lack what they must forbid.
///
/// `read` gives the text of `<folder>/clippy.toml`, `None` where there is none.
pub(crate) fn loose(read: impl Fn(&str) -> Option<String>) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut wanted: Vec<(&str, Vec<&str>)> = vec![
        (".", EVERYWHERE.to_vec()),
        ("crates", [&EVERYWHERE[..], &IN_SERVICES, &IN_PURE].concat()),
    ];
    wanted.extend(SERVICES.map(|folder| (folder, [&EVERYWHERE[..], &IN_SERVICES].concat())));
    wanted.extend(DOORS.map(|folder| (folder, EVERYWHERE.to_vec())));
    for (folder, paths) in wanted {
        let list = read(folder).unwrap_or_default();
        for path in paths
            .iter()
            .filter(|path| !list.contains(&format!("path = \"{path}\"")))
        {
            faults.push(Fault::new(
                &format!("{folder}/clippy.toml"),
                1,
                format!("does not forbid `{path}`"),
            ));
        }
    }
    for folder in PURE.iter().filter(|folder| read(folder).is_some()) {
        faults.push(Fault::new(
            &format!("{folder}/clippy.toml"),
            1,
            "takes the place of the strict list of pure packages",
        ));
    }
    faults
}

/// What a pure machine may not name, where it does.
pub(crate) fn impure(source: &Source) -> Vec<Fault> {
    if !MACHINES.contains(&source.path.as_str()) {
        return Vec::new();
    }
    let mut faults = Vec::new();
    for (number, line) in source.text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        for word in NOT_IN_MACHINES.iter().filter(|word| code.contains(**word)) {
            faults.push(Fault::new(
                &source.path,
                number + 1,
                format!("a pure machine names `{word}`"),
            ));
        }
    }
    faults
}
