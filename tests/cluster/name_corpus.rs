//! The name policy through every call that takes a name: a corpus of composed and decomposed, upper-case and lower-case names, and of
//! names that some systems forbid (decision 0013).
//!
//! A call that takes a name is a `Way`; a new one gets a line there and in `Ways::take`, and every test meets it.
//! Not here: paths and their limits (`names`), how twins are found (metadata-raft/src/state/tests/twins.rs).

use crate::content_calls::{send_media, send_multipart, send_parts, send_resumable, send_tus};
use crate::entries::make_folder;
use crate::world::{Answer, World};
use api::entry::Entry;
use api::twins::TwinList;
use bytes::Bytes;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

const METADATA: &str = "/api/v1/metadata";
/// Of every file that a content makes.
const BYTES: &[u8] = b"bytes";

/// A call by which an entry gets a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Folder,
    File,
    FolderByPath,
    Media,
    Multipart,
    Batch,
    Resumable,
    Tus,
    Delta,
    Rename,
    Move,
    MoveByPath,
    Copy,
    CopyByPath,
    Restore,
}

pub(crate) const WAYS: [Way; 15] = [
    Way::Folder,
    Way::File,
    Way::FolderByPath,
    Way::Media,
    Way::Multipart,
    Way::Batch,
    Way::Resumable,
    Way::Tus,
    Way::Delta,
    Way::Rename,
    Way::Move,
    Way::MoveByPath,
    Way::Copy,
    Way::CopyByPath,
    Way::Restore,
];

impl Way {
    /// Whether the name is the end of a path, where an empty name or one with a slash means something else.
    fn is_by_path(self) -> bool {
        matches!(
            self,
            Self::FolderByPath | Self::Media | Self::MoveByPath | Self::CopyByPath
        )
    }
}

pub(crate) struct Ways {
    pub(crate) world: World,
    /// Where files wait that get their name by a change.
    spare: Entry,
    made: AtomicU64,
}

impl Ways {
    pub(crate) async fn start() -> Self {
        let world = World::start().await;
        let spare = make_folder(&world, "/spare").await;
        Self {
            world,
            spare,
            made: AtomicU64::new(0),
        }
    }

    pub(crate) async fn folder(&self, name: &str) -> Entry {
        make_folder(&self.world, &format!("/{name}")).await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.world.call(Method::POST, path, Some(body)).await
    }

    /// A file of no matter what name.
    async fn any(&self) -> String {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let path = format!("{}/{number}", self.spare.path);
        self.world.put(&path, b"any").await.entry.id
    }

    /// Gives an entry of the folder this name.
    pub(crate) async fn take(&self, way: Way, folder: &Entry, name: &str) -> Answer {
        let (world, parent, path) = (&self.world, &folder.id, format!("{}/{name}", folder.path));
        let placed = json!({"parent": parent, "name": name});
        match way {
            Way::Folder | Way::File => {
                let kind = if way == Way::Folder { "folder" } else { "file" };
                let wanted = json!({"type": kind, "parent": parent, "name": name});
                self.post(METADATA, &wanted).await
            }
            Way::FolderByPath => self.post(METADATA, &json!({"type": "folder", "path": path})).await,
            Way::Media => send_media(world, &path, None, Bytes::from_static(BYTES)).await,
            Way::Multipart => send_multipart(world, &placed, None, BYTES).await,
            Way::Batch => {
                let file = json!({"parent": parent, "name": name, "size": BYTES.len()});
                let told = json!({"atomic": true, "files": [file]});
                send_parts(world, "/api/v1/files/batch", &told, None, BYTES).await
            }
            Way::Resumable => send_resumable(world, &placed, Bytes::from_static(BYTES)).await,
            Way::Tus => send_tus(world, &[("filename", name), ("parent", parent.as_str())], Bytes::new()).await,
            Way::Delta => {
                let wanted = json!({"parent": parent, "name": name, "new_block_hashes": []});
                self.post("/api/v1/files/new/commit", &wanted).await
            }
            Way::Rename => {
                let number = self.made.fetch_add(1, Ordering::Relaxed);
                let path = format!("{}/to be renamed {number}", folder.path);
                let id = world.put(&path, b"any").await.entry.id;
                self.patch(&id, &json!({"name": name})).await
            }
            Way::Move => self.patch(&self.any().await, &placed).await,
            Way::MoveByPath => self.patch(&self.any().await, &json!({"path": path})).await,
            Way::Copy => self.on(&self.any().await, "copy", &placed).await,
            Way::CopyByPath => self.on(&self.any().await, "copy", &json!({"path": path})).await,
            Way::Restore => {
                let id = self.any().await;
                world.client.trash(&id).await.unwrap();
                self.on(&id, "restore", &placed).await
            }
        }
    }

    async fn patch(&self, id: &str, wanted: &Value) -> Answer {
        let path = format!("{METADATA}/{id}");
        self.world.call(Method::PATCH, &path, Some(wanted)).await
    }

    async fn on(&self, id: &str, what: &str, wanted: &Value) -> Answer {
        self.post(&format!("{METADATA}/{id}/{what}"), wanted).await
    }

    pub(crate) async fn children(&self, folder: &Entry) -> Vec<Entry> {
        self.world.client.list(&folder.path, 1000, None).await.unwrap().entries
    }

    async fn at(&self, path: &str) -> Answer {
        let request = self.world.client.request(Method::GET, METADATA);
        self.world.send(request.query(&[("path", path)])).await
    }

    async fn twins(&self, folder: &Entry) -> TwinList {
        let path = format!("{METADATA}/{}/twins", folder.id);
        let answer = self.world.call(Method::GET, &path, None).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        serde_json::from_value(answer.json()).unwrap()
    }
}

/// Names of which each has another spelling that is the same to people: as given, the other, and a case twin of both.
const SPELLINGS: [(&str, &str, Option<&str>); 7] = [
    ("Caf\u{e9}", "Cafe\u{301}", Some("CAFE\u{301}")),
    // The Angstrom sign is A with ring; the Ohm sign is omega.
    ("\u{212b}ngstrom", "A\u{30a}ngstrom", Some("\u{e5}NGSTROM")),
    ("\u{2126}", "\u{3a9}", Some("\u{3c9}")),
    // Marks above and below stand in either order.
    ("q\u{307}\u{323}", "q\u{323}\u{307}", Some("Q\u{307}\u{323}")),
    ("\u{1e9b}\u{323}", "\u{17f}\u{323}\u{307}", None),
    ("n\u{303}u\u{308}.txt", "\u{f1}\u{fc}.txt", Some("\u{d1}\u{dc}.TXT")),
    (
        "\u{d55c}\u{ae00}.a",
        "\u{1112}\u{1161}\u{11ab}\u{1100}\u{1173}\u{11af}.a",
        Some("\u{d55c}\u{ae00}.A"),
    ),
];

const FORBIDDEN_BY_WINDOWS: [&str; 28] = [
    "CON",
    "con",
    "PRN.txt",
    "AUX.h",
    "NUL",
    "nul.tar.gz",
    "COM1",
    "com9.log",
    "LPT1",
    "CONIN$",
    "a<b",
    "a>b",
    "a:b",
    "a\"b",
    "a|b",
    "a?b",
    "a*b",
    "a\\b",
    "dot.",
    "dots..",
    "space ",
    " space",
    "...",
    " ",
    "~$letter.docx",
    "desktop.ini",
    "Thumbs.db",
    "8DOT3N~1.TXT",
];

const OTHERS: [&str; 32] = [
    "README",
    "readme",
    "ReadMe",
    ".DS_Store",
    "._fork",
    "stra\u{df}e",
    "STRASSE",
    "stra\u{1e9e}e",
    "\u{130}stanbul",
    "istanbul",
    "\u{131}stanbul",
    "\u{39f}\u{394}\u{39f}\u{3a3}",
    "\u{3bf}\u{3b4}\u{3bf}\u{3c2}",
    "\u{3bf}\u{3b4}\u{3bf}\u{3c3}",
    // Equal by compatibility only, which is no equality of names.
    "\u{fb01}le",
    "file",
    "\u{2460}",
    "1",
    "\u{ff21}",
    "A",
    "\u{b2}",
    "2",
    "x\u{200d}",
    "x",
    "\u{202e}txt.exe",
    "\u{feff}bom",
    "%2e%2e",
    "%00",
    "-rf",
    "$(x)",
    "'; --",
    "a&b=c#d+e",
];

/// Names that are kept as they are, two of each other's case among them.
fn corpus() -> Vec<String> {
    let short = FORBIDDEN_BY_WINDOWS.iter().chain(&OTHERS);
    let mut all: Vec<String> = short.map(|name| (*name).to_owned()).collect();
    all.extend(SPELLINGS.iter().map(|(given, _, _)| (*given).to_owned()));
    all.extend(["n".repeat(255), format!("e\u{301}{}", "\u{20ac}".repeat(84))]);
    all
}

/// shows: N16
#[tokio::test]
async fn every_name_is_kept_byte_for_byte_whichever_call_brings_it() {
    let ways = Ways::start().await;
    let corpus = corpus();
    let check = async |way: Way| {
        let folder = ways.folder(&format!("{way:?}")).await;
        for name in &corpus {
            let answer = ways.take(way, &folder, name).await;
            assert!(answer.status.is_success(), "{way:?} of {name:?}: {answer:?}");
        }
        let children = ways.children(&folder).await;
        let kept: BTreeSet<&str> = children.iter().map(|child| child.name.as_str()).collect();
        let wanted: BTreeSet<&str> = corpus.iter().map(String::as_str).collect();
        assert_eq!(kept, wanted, "{way:?}");
        for (given, other, _) in SPELLINGS {
            let there = children.iter().find(|child| child.name == given).unwrap();
            for spelling in [given, other] {
                let found = ways.at(&format!("{}/{spelling}", folder.path)).await;
                assert_eq!(
                    found.json()["entry"]["id"],
                    there.id,
                    "{way:?} of {given:?} as {spelling:?}"
                );
            }
        }
    };
    join_all(WAYS.map(check)).await;
}

/// shows: N16
#[tokio::test]
async fn another_spelling_collides_and_another_case_is_a_twin_whichever_call_brings_it() {
    let ways = Ways::start().await;
    let check = async |way: Way| {
        let folder = ways.folder(&format!("{way:?}")).await;
        for (number, (given, other, case)) in SPELLINGS.into_iter().enumerate() {
            for (turn, (first, second)) in [(given, other), (other, given)].into_iter().enumerate() {
                let path = format!("{}/{number} {turn}", folder.path);
                let inner = make_folder(&ways.world, &path).await;
                let there = ways.world.put(&format!("{path}/{first}"), b"first").await.entry;
                for taken in [first, second] {
                    let problem = ways.take(way, &inner, taken).await.refused(409, "name_taken");
                    let existing = &problem.fields["existing"];
                    let told = (existing["id"].as_str(), existing["name"].as_str());
                    // tus says it in headers and words alone.
                    let wanted = (Some(there.id.as_str()), Some(first));
                    assert!(told == wanted || way == Way::Tus, "{way:?} of {taken:?}: {existing}");
                }
                let Some(case) = case else { continue };
                let answer = ways.take(way, &inner, case).await;
                assert!(answer.status.is_success(), "{way:?} of {case:?}: {answer:?}");
                let twins = ways.twins(&inner).await.twins;
                let names: BTreeSet<&str> = twins
                    .iter()
                    .flat_map(|twins| twins.entries.iter().map(|entry| entry.name.as_str()))
                    .collect();
                assert_eq!((twins.len(), names), (1, BTreeSet::from([first, case])), "{way:?}");
            }
        }
    };
    join_all(WAYS.map(check)).await;
}

/// shows: N16
#[tokio::test]
async fn what_is_no_name_is_refused_and_leaves_nothing_whichever_call_brings_it() {
    let ways = Ways::start().await;
    let long = "n".repeat(256);
    // 257 bytes as given, and far fewer when composed: bytes are counted as they came.
    let wide = format!("{}nn", "e\u{301}".repeat(85));
    let bad = [
        "",
        ".",
        "..",
        "a/b",
        "/",
        "nul\0",
        "tab\t",
        "line\n",
        "\u{7f}",
        "\u{85}",
        "\u{1b}[2J",
        long.as_str(),
        wide.as_str(),
    ];
    let check = async |way: Way| {
        let folder = ways.folder(&format!("{way:?}")).await;
        for name in bad {
            if way.is_by_path() && (name.is_empty() || name.contains('/')) {
                continue;
            }
            ways.take(way, &folder, name).await.refused(400, "bad_name");
        }
        let left = ways.children(&folder).await;
        let is_left = left
            .iter()
            .all(|child| way == Way::Rename && child.name.starts_with("to be renamed"));
        assert!(is_left, "{way:?} left {left:?}");
    };
    join_all(WAYS.map(check)).await;
}

#[tokio::test]
async fn twins_are_told_by_pages_and_only_of_folders() {
    let ways = Ways::start().await;
    let folder = ways.folder("twins").await;
    for name in ["a", "A", "b", "B", "c", "d", "D", "Dd"] {
        ways.world.put(&format!("/twins/{name}"), b"x").await;
    }
    let mut path = format!("{METADATA}/{}/twins?limit=2", folder.id);
    let first = path.clone();
    let mut found = Vec::new();
    loop {
        let page = ways.world.call(Method::GET, &path, None).await;
        assert_eq!(page.status, 200, "{page:?}");
        let page: TwinList = serde_json::from_value(page.json()).unwrap();
        for twins in page.twins {
            let paths = twins.entries.into_iter().map(|entry| entry.path);
            found.push((twins.folded, paths.collect::<BTreeSet<_>>()));
        }
        let Some(token) = page.next_page_token else { break };
        path = format!("{first}&page_token={token}");
    }
    let wanted = ["a", "b", "d"].map(|name| {
        let paths = [name.to_owned(), name.to_uppercase()].map(|name| format!("/twins/{name}"));
        (name.to_owned(), BTreeSet::from(paths))
    });
    assert_eq!(found, wanted);
    let file = ways.any().await;
    let asked = async |path: String| ways.world.call(Method::GET, &path, None).await;
    let twins = |id: &str| format!("{METADATA}/{id}/twins");
    asked(twins(&file)).await.refused(422, "not_a_folder");
    asked(format!("{first}&page_token=x"))
        .await
        .refused(400, "bad_page_token");
    asked(format!("{}?limit=0", twins(&folder.id)))
        .await
        .refused(400, "bad_limit");
    asked(twins("x")).await.refused(400, "bad_id");
}
