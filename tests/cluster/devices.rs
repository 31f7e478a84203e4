//! What a server must give to devices that sync: three of one account change a tree at random, each by what it knows, and follow its
//! feed; in the end all of them have the tree that the server has, byte for byte.
//!
//! A device here is the least that syncs: entries by their ids, contents by their versions, no files. What is refused, since another
//! device was quicker, is left alone. `HOLDFAST_DEVICES=50x1000` sets seeds and operations of each; `make devices` runs that size, and
//! there alone devices must have caught up within ten seconds of the last change: a machine with other work says nothing of that.
//! Not here: files of a machine, and copies of what was refused (the sync engine, later).

use crate::world::{PASSWORD, World, noise};
use api::change::Change;
use api::entry::{Entry, Kind};
use bytes::Bytes;
use client_sdk::client::{Client, Target};
use client_sdk::delta::{CutContent, DeltaTarget};
use client_sdk::error::ClientError;
use codec::keys::DigestKey;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

const METADATA: &str = "/api/v1/metadata";
const DEVICES: u64 = 3;
const PAGE: usize = 50;
/// Few, so that devices meet.
const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
const SEEDS_AT_ONCE: usize = 2;
/// What US-2.1 asks, from the last change until every device has it.
const CAUGHT_UP_MAX: Duration = Duration::from_secs(10);

/// How much is done.
#[derive(Clone, Copy)]
struct Sizes {
    seeds: u64,
    /// Of each seed.
    operations: u64,
    /// Whether devices must have caught up in time.
    is_timed: bool,
}

impl Sizes {
    fn read() -> Self {
        let asked = std::env::var("HOLDFAST_DEVICES").ok();
        let text = asked.as_deref().unwrap_or("2x300");
        let (seeds, operations) = text.split_once('x').expect("HOLDFAST_DEVICES is seeds x operations");
        Self {
            seeds: seeds.parse().unwrap(),
            operations: operations.parse().unwrap(),
            is_timed: asked.is_some(),
        }
    }
}

/// Numbers that follow from a seed.
struct Dice {
    seed: u64,
    drawn: u64,
}

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.drawn += 1;
        let bytes = noise(self.seed.wrapping_mul(1_000_003).wrapping_add(self.drawn), 8);
        let number = u64::from_le_bytes(bytes.try_into().unwrap());
        (number % end as u64) as usize
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        match all.len() {
            0 => None,
            count => Some(&all[self.below(count)]),
        }
    }

    fn content(&mut self) -> Bytes {
        let length = match self.below(10) {
            0 => 0,
            1 => 300_000 + self.below(1000),
            _ => self.below(8_000),
        };
        noise(self.drawn ^ self.seed, length).into()
    }
}

/// One that syncs.
struct Device {
    client: Client,
    key: DigestKey,
    root: String,
    cursor: String,
    dice: Dice,
    /// All that were told and have not gone, those below a folder that has gone too: they come back with it.
    entries: BTreeMap<String, Entry>,
    /// By the file's id, with its version.
    contents: BTreeMap<String, (u64, Bytes)>,
    gone: BTreeSet<String>,
    refused: u64,
    /// When its last operation was answered.
    changed: Instant,
}

/// A path with what lies there: nothing for a folder, the hash of a file.
type Tree = BTreeMap<String, Option<String>>;

fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

impl Device {
    async fn of(url: &str, name: &str, seed: u64) -> Self {
        let client = Client::new(url).unwrap().login(name, PASSWORD).await.unwrap();
        let listing = client.json(Method::GET, METADATA, None).await.unwrap();
        Self {
            key: client.digest_key().await.unwrap(),
            root: listing["entry"]["id"].as_str().unwrap().to_owned(),
            cursor: client.changes(None, 1, true).await.unwrap().cursor,
            client,
            dice: Dice { seed, drawn: 0 },
            entries: BTreeMap::new(),
            contents: BTreeMap::new(),
            gone: BTreeSet::new(),
            refused: 0,
            changed: Instant::now(),
        }
    }

    /// The path of an entry; none where a folder above it has gone.
    fn path(&self, entry: &Entry) -> Option<String> {
        let mut names = vec![entry.name.as_str()];
        let mut parent = entry.parent.as_ref()?;
        while *parent != self.root {
            let above = self.entries.get(parent)?;
            names.push(&above.name);
            parent = above.parent.as_ref()?;
        }
        names.reverse();
        Some(format!("/{}", names.join("/")))
    }

    /// What this device sees, by ids.
    fn seen(&self, is_meant: impl Fn(&Entry) -> bool) -> Vec<(String, String, u64)> {
        let meant = self.entries.values().filter(|entry| is_meant(entry));
        meant
            .filter_map(|entry| Some((entry.id.clone(), self.path(entry)?, entry.version)))
            .collect()
    }

    async fn fetch(&mut self, id: &str, version: u64) {
        match self.client.get_version(id, version, None).await {
            Ok(read) => {
                let bytes = read.bytes().await.unwrap();
                self.contents.insert(id.to_owned(), (version, bytes));
            }
            // It went meanwhile; if it comes back, that is told.
            Err(ClientError::Refused { status: 404, .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn take(&mut self, change: Change) {
        match change.entry.filter(|entry| entry.trashed_at.is_none()) {
            Some(entry) => {
                self.gone.remove(&entry.id);
                self.entries.insert(entry.id.clone(), entry);
            }
            None => {
                self.entries.remove(&change.file_id);
                self.gone.insert(change.file_id);
            }
        }
    }

    /// Takes in all changes there are, and contents that are lacking.
    async fn catch_up(&mut self) {
        loop {
            let page = self.client.changes(Some(&self.cursor), PAGE, true).await.unwrap();
            for change in page.changes {
                self.take(change);
            }
            self.cursor = page.cursor;
            if !page.has_more {
                break;
            }
        }
        for (id, _, version) in self.seen(|entry| entry.entry_type == Kind::File) {
            if self.contents.get(&id).is_none_or(|(own, _)| *own != version) {
                self.fetch(&id, version).await;
            }
        }
    }

    /// Counts what another device made impossible; everything else that is refused is a fault.
    fn met(&mut self, outcome: Result<(), ClientError>) {
        match outcome {
            Ok(()) => {}
            Err(ClientError::Refused {
                status: 404 | 409 | 422,
                ..
            }) => self.refused += 1,
            Err(error) => panic!("{error}"),
        }
    }

    /// A folder of its tree, as id and path.
    fn folder(&mut self) -> (String, String) {
        let mut folders = self.seen(|entry| entry.entry_type == Kind::Folder);
        folders.push((self.root.clone(), String::new(), 0));
        let (id, path, _) = self.dice.of(&folders).unwrap().clone();
        (id, path)
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Result<(), ClientError> {
        self.client.json(method, path, body.as_ref()).await.map(drop)
    }

    /// Makes a file or a folder.
    async fn create(&mut self, kind: Kind) -> Result<(), ClientError> {
        let (parent, folder) = self.folder();
        let name = NAMES[self.dice.below(NAMES.len())];
        if kind == Kind::Folder {
            let wanted = json!({"type": "folder", "parent": parent, "name": name});
            return self.call(Method::POST, METADATA, Some(wanted)).await;
        }
        let target = Target {
            path: format!("{folder}/{name}"),
            base_version: None,
            parents: false,
        };
        let content = self.dice.content();
        self.client.put(&target, content).await.map(drop)
    }

    /// Gives a file another content, behind the version that this device knows.
    async fn edit(&mut self) -> Result<(), ClientError> {
        let files = self.seen(|entry| entry.entry_type == Kind::File);
        let Some((id, _, base_version)) = self.dice.of(&files).cloned() else {
            return Ok(());
        };
        let content = CutContent::of(self.dice.content(), &self.key);
        let target = DeltaTarget::Known { id, base_version };
        self.client.put_delta(&target, &content, None).await.map(drop)
    }

    /// Makes one operation of no matter which kind.
    async fn act(&mut self) {
        let all = self.seen(|_| true);
        let one = self.dice.of(&all).map(|(id, _, _)| format!("{METADATA}/{id}"));
        let lost: Vec<String> = self.gone.iter().cloned().collect();
        let lost = self.dice.of(&lost).map(|id| format!("{METADATA}/{id}/restore"));
        let outcome = match (self.dice.below(16), one, lost) {
            (0..=3, ..) => self.create(Kind::File).await,
            (4..=5, ..) => self.create(Kind::Folder).await,
            (6..=9, ..) => self.edit().await,
            (10, Some(one), _) => {
                let name = NAMES[self.dice.below(NAMES.len())];
                self.call(Method::PATCH, &one, Some(json!({"name": name}))).await
            }
            (11..=12, Some(one), _) => {
                let (parent, _) = self.folder();
                self.call(Method::PATCH, &one, Some(json!({"parent": parent}))).await
            }
            (13, Some(one), _) => self.call(Method::DELETE, &one, None).await,
            (14, _, Some(lost)) => self.call(Method::POST, &lost, None).await,
            (15, Some(one), _) if self.dice.below(4) == 0 => {
                self.call(Method::DELETE, &format!("{one}?permanent=true"), None).await
            }
            _ => self.create(Kind::File).await,
        };
        self.changed = Instant::now();
        self.met(outcome);
    }

    /// Its share of the operations. Between some of them it looks what others did; at times it does not for long.
    async fn work(&mut self, operations: u64) {
        let mut away = 0;
        for _ in 0..operations {
            self.act().await;
            if self.dice.below(40) == 0 {
                away = 20;
            }
            if away > 0 {
                away -= 1;
            } else if self.dice.below(3) > 0 {
                self.catch_up().await;
            }
        }
    }

    /// The tree as this device has it.
    fn tree(&self) -> Tree {
        let content = |id: &String| self.contents.get(id).map(|(_, bytes)| hash(bytes));
        let mut tree = Tree::new();
        for entry in self.entries.values() {
            if let Some(path) = self.path(entry) {
                let lies = match entry.entry_type {
                    Kind::File => Some(content(&entry.id).unwrap_or_default()),
                    _ => None,
                };
                tree.insert(path, lies);
            }
        }
        tree
    }
}

/// The tree as the server has it, from its listings and downloads alone.
async fn tree_of(client: &Client) -> Tree {
    let mut tree = Tree::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let path = if folder.is_empty() { "/" } else { &folder };
        let page = client.list(path, 1000, None).await.unwrap();
        assert!(page.next_page_token.is_none(), "a folder of so many is not meant here");
        for entry in page.entries {
            let path = format!("{folder}/{}", entry.name);
            let lies = match entry.entry_type {
                Kind::File => {
                    let read = client.get(&entry.id, None).await.unwrap();
                    Some(hash(&read.bytes().await.unwrap()))
                }
                _ => {
                    folders.push(path.clone());
                    None
                }
            };
            tree.insert(path, lies);
        }
    }
    tree
}

/// Gives how long after the last change the last device had it.
async fn run(world: &World, seed: u64, operations: u64) -> Duration {
    let name = format!("devices-{seed}");
    let (owner, _) = world.user(&name, 1 << 30).await;
    let mut devices = Vec::new();
    for number in 0..DEVICES {
        devices.push(Device::of(&world.cluster.facts.url, &name, seed * DEVICES + number).await);
    }
    let share = operations.div_ceil(DEVICES);
    join_all(devices.iter_mut().map(|device| device.work(share))).await;
    let last = devices.iter().map(|device| device.changed).max().unwrap();
    join_all(devices.iter_mut().map(Device::catch_up)).await;
    let took = last.elapsed();
    let wanted = tree_of(&owner).await;
    assert!(!wanted.is_empty(), "seed {seed} left nothing");
    for device in &devices {
        assert_eq!(device.tree(), wanted, "seed {seed}");
    }
    let polls = devices
        .iter()
        .map(|device| device.client.poll(&device.cursor, Duration::from_secs(1)));
    for told in join_all(polls).await {
        assert!(!told.unwrap().changes, "seed {seed}: told of more than there is");
    }
    let refused: u64 = devices.iter().map(|device| device.refused).sum();
    assert!(
        refused > 0 && refused < operations,
        "seed {seed}: {refused} were refused"
    );
    took
}

/// shows: US-2.1 side=server scale=600/50000
#[tokio::test]
async fn three_devices_that_change_one_tree_at_random_end_with_the_servers_tree_byte_for_byte() {
    let sizes = Sizes::read();
    let world = World::start().await;
    let all: Vec<u64> = (1..=sizes.seeds).collect();
    let mut longest = Duration::ZERO;
    for some in all.chunks(SEEDS_AT_ONCE) {
        let took = join_all(some.iter().map(|seed| run(&world, *seed, sizes.operations))).await;
        longest = took.into_iter().fold(longest, Duration::max);
    }
    println!("caught up within {longest:?} of the last change");
    assert!(!sizes.is_timed || longest <= CAUGHT_UP_MAX, "only within {longest:?}");
}
