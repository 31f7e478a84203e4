//! What must be nowhere: code that looks into contents of users or at what their names end in, and code that makes a connection of
//! HTTP into another kind of connection.
//!
//! Libraries are looked for in Cargo.lock, where everything that is linked stands; words in every source that is no test.
//! Not here: what the gateway answers to who asks for it (tests/cluster).

use crate::tree::{Fault, Source};

/// Beginnings of the names of libraries that tell kinds of files apart, read them, or unpack them.
const READERS: [&str; 29] = [
    "ammonia",
    "async-compression",
    "chardet",
    "content_inspector",
    "exif",
    "ffmpeg",
    "file-format",
    "flate2",
    "gif",
    "html5ever",
    "image",
    "infer",
    "jpeg",
    "kamadak-exif",
    "libarchive",
    "lopdf",
    "lzma",
    "magic",
    "mime-sniffer",
    "mime_guess",
    "new_mime_guess",
    "pdf",
    "png",
    "quick-xml",
    "sevenz",
    "tar",
    "tree_magic",
    "xz2",
    "zip",
];
/// Libraries of sockets that a connection of HTTP is upgraded to.
const SOCKETS: [&str; 6] = [
    "fastwebsockets",
    "soketto",
    "tokio-tungstenite",
    "tokio-websockets",
    "tungstenite",
    "websocket",
];
/// How hyper and axum name what takes part in an upgrade. In two parts each, so that this file names none.
const UPGRADES: [(&str, &str); 6] = [
    ("on_", "upgrade"),
    ("On", "Upgrade"),
    ("with_", "upgrades"),
    ("hyper::", "upgrade"),
    ("WebSocket", "Upgrade"),
    ("SWITCHING_", "PROTOCOLS"),
];

/// Packages of a Cargo.lock that read contents.
pub(crate) fn readers(lock: &str) -> Vec<Fault> {
    linked(lock, &READERS, "looks into contents")
}

/// Packages of a Cargo.lock that speak over upgraded connections.
pub(crate) fn sockets(lock: &str) -> Vec<Fault> {
    linked(lock, &SOCKETS, "speaks over upgraded connections")
}

fn linked(lock: &str, beginnings: &[&str], what: &str) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (number, line) in lock.lines().enumerate() {
        let Some(name) = line.strip_prefix("name = \"").and_then(|rest| rest.strip_suffix('"')) else {
            continue;
        };
        // Whole words: `target-lexicon` is no `tar`.
        let is_one = |beginning: &&str| {
            let rest = name.strip_prefix(*beginning);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_', '.']))
        };
        if beginnings.iter().any(is_one) {
            faults.push(Fault::new("Cargo.lock", number + 1, format!("`{name}` {what}")));
        }
    }
    faults
}

/// Lines of a service's source that take part in an upgrade.
pub(crate) fn upgrades(source: &Source) -> Vec<Fault> {
    let is_test = source.path.starts_with("tests/") || source.path.contains("/tests/");
    let mut faults = Vec::new();
    for (number, line) in source.text.lines().enumerate().filter(|_| !is_test) {
        let code = line.split("//").next().unwrap_or_default();
        for (first, second) in UPGRADES {
            if code.contains(&format!("{first}{second}")) {
                let what = format!("`{first}{second}` takes part in an upgrade");
                faults.push(Fault::new(&source.path, number + 1, what));
            }
        }
    }
    faults
}
