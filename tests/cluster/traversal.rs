//! Names and addresses that would lead somewhere else if anything made a path of the file system of them: nothing does.
//!
//! Paths on disks are looked at, not only answers. Not here: other names (`name_corpus`), archives, which nothing unpacks (tests/tidy).

use crate::name_corpus::{WAYS, Way, Ways};
use crate::search::files_below;
use crate::wire::{Sender, head};
use futures_util::future::join_all;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// What each of the names has.
const CANARY: &str = "escape-canary";

/// Names that are none.
const REFUSED: [&str; 6] = [
    "..",
    "../escape-canary",
    "../../../../../../../../tmp/escape-canary",
    "/tmp/escape-canary",
    "inner/../../escape-canary",
    "escape-canary/..",
];

/// Names that are kept as they are, and would be paths to somebody else.
const KEPT: [&str; 10] = [
    "..\\..\\escape-canary",
    "C:\\escape-canary",
    "\\\\host\\share\\escape-canary",
    "%2e%2e%2f%2e%2e%2fescape-canary",
    "..%2fescape-canary",
    "..%c0%afescape-canary",
    "..;escape-canary",
    "..\u{2215}escape-canary",
    "..\u{ff0f}escape-canary",
    "~escape-canary",
];

/// Names in a folder of this machine that hold the canary.
fn escaped_to(folder: &Path) -> Vec<String> {
    // Not every folder above may be read.
    let rows = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = rows.map(|row| row.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.contains(CANARY)).collect()
}

/// Asserts that no path below `data_dir` was made of what a user said, and nothing lies beside it.
fn paths_are_our_own(data_dir: &Path) {
    let mut paths = 0;
    for path in files_below(data_dir) {
        let own = path.strip_prefix(data_dir).unwrap().to_str().unwrap();
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-".contains(letter);
        assert!(own.chars().all(is_plain) && !own.contains(".."), "{own}");
        assert!(!own.contains("escape") && !own.contains("canary"), "{own}");
        paths += 1;
    }
    assert!(paths > 20, "the files of the cluster were not found");
    let around = data_dir.parent().unwrap();
    assert_eq!(
        fs::read_dir(around).unwrap().count(),
        1,
        "something lies beside the data"
    );
    let here = std::env::current_dir().unwrap();
    for folder in data_dir.ancestors().chain(here.ancestors()) {
        assert_eq!(escaped_to(folder), [""; 0], "{}", folder.display());
    }
}

/// shows: F40 side=names
#[tokio::test]
async fn no_name_is_a_path_of_the_file_system_whichever_call_brings_it() {
    let mut ways = Ways::start().await;
    let check = async |way: Way| {
        let folder = ways.folder(&format!("{way:?}")).await;
        for name in REFUSED {
            ways.take(way, &folder, name).await.refused(400, "bad_name");
        }
        for name in KEPT {
            let answer = ways.take(way, &folder, name).await;
            assert!(answer.status.is_success(), "{way:?} of {name:?}: {answer:?}");
        }
        let children = ways.children(&folder).await;
        let names = children.iter().map(|child| child.name.as_str());
        let kept: BTreeSet<&str> = names.filter(|name| name.contains(CANARY)).collect();
        assert_eq!(kept, BTreeSet::from(KEPT), "{way:?}");
    };
    join_all(WAYS.map(check)).await;
    let tree = ways.world.tree().await;
    let canaries = tree.iter().filter(|path| path.contains(CANARY)).count();
    assert_eq!(
        canaries,
        WAYS.len() * KEPT.len(),
        "each lies in the folder that it was given for"
    );
    ways.world.cluster.stop().unwrap();
    paths_are_our_own(&ways.world.data_dir());
}

/// shows: F40 side=names
#[tokio::test]
async fn no_part_of_an_address_is_a_path_of_the_file_system() {
    let mut ways = Ways::start().await;
    let world = &ways.world;
    let before = world.tree().await;
    let parts = [
        "../../../../../../../../etc/passwd",
        "..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
        "%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "..%5c..%5cescape-canary",
        "%2ftmp%2fescape-canary",
        "escape-canary%00",
    ];
    let addresses = [
        ("GET", "/"),
        ("GET", "/api/v1/files/{}/content"),
        ("GET", "/api/v1/files/{}/versions"),
        ("GET", "/api/v1/files/{}/blocks"),
        ("GET", "/api/v1/drives/{}"),
        ("GET", "/api/v1/metadata?id={}"),
        ("GET", "/api/v1/metadata?path={}"),
        ("GET", "/api/v1/metadata?path=/&page_token={}"),
        ("GET", "/api/v1/changes/list?since_token={}"),
        ("DELETE", "/api/v1/metadata/{}"),
        ("PUT", "/upload/{}"),
        ("GET", "/upload/{}"),
        ("DELETE", "/api/v1/tus/{}"),
        ("PUT", "/api/v1/blocks/{}?upload_id=x"),
    ];
    for (method, address) in addresses {
        for part in parts {
            let path = match address {
                "/" => format!("/{part}"),
                address => address.replace("{}", part),
            };
            // By hand: a client would tidy the address up.
            let mut sender = Sender::open(world).await;
            let line = format!("{method} {path}");
            sender.send(&head(&world.client, &line, "content-length: 0\r\n")).await;
            let answer = sender.finish().await;
            assert!(answer.status.is_client_error(), "{line}: {answer:?}");
            assert!(answer.json()["code"].is_string(), "{line}: {answer:?}");
        }
    }
    assert_eq!(world.tree().await, before);
    ways.world.cluster.stop().unwrap();
    paths_are_our_own(&ways.world.data_dir());
}
