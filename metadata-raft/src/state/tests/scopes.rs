//! What every scope is told of a change: whoever follows a folder sees what enters it, leaves it and happens in it, and nothing else.
//!
//! Only a drive's root is made a scope by commands so far; folders are marked here as sharing them will mark them.
//! Not here: pages, resets and ageing of the feed (`feed`).

use super::{Bench, row};
use crate::state::change::ScopeRecord;
use crate::state::entry::EntryRecord;
use crate::state::keys;
use crate::state::store::{load, save};
use kv::overlay::Overlay;
use kv::seam::Kv;
use model::id::{EntryId, Incarnation};
use protocol::metadata::drive::DriveCommand;
use protocol::metadata::query::{ChangeType, DriveAsk, FeedPage};
use protocol::metadata::{Command, QueryAnswer};

/// A drive in which `/a`, `/a/in` and `/b` are scopes beside the root, and `/o` is none.
struct Folders {
    bench: Bench,
    a: EntryId,
    inner: EntryId,
    b: EntryId,
}

/// What root, `/a`, `/a/in` and `/b` are told; `None` for nothing.
type Told = [Option<ChangeType>; 4];

/// From now on the folder is a scope.
fn mark(bench: &Bench, folder: EntryId) {
    let mut overlay = Overlay::new(&bench.kv);
    let key = keys::entry(folder.drive, folder.number);
    let mut record: EntryRecord = load(&overlay, &key).unwrap().unwrap();
    record.is_scope = true;
    save(&mut overlay, key, &record).unwrap();
    let scope = keys::scope(folder.drive, folder.number);
    save(&mut overlay, scope, &ScopeRecord { sequence: 0 }).unwrap();
    let batch = overlay.into_batch();
    bench.kv.write(batch).unwrap();
}

fn page(bench: &Bench, scope: EntryId, after: Option<u64>) -> FeedPage {
    let after = after.map(|after| (Incarnation(1), after));
    let limit = 1000;
    match bench.ask(DriveAsk::Feed { scope, after, limit }).unwrap() {
        QueryAnswer::Feed(page) => page,
        other => panic!("{other:?}"),
    }
}

impl Folders {
    fn new() -> Self {
        let mut bench = Bench::new(1 << 30);
        let a = bench.mkdir("/a").unwrap();
        let inner = bench.mkdir("/a/in").unwrap();
        let b = bench.mkdir("/b").unwrap();
        bench.mkdir("/o").unwrap();
        for folder in [a, inner, b] {
            mark(&bench, folder);
        }
        for (number, at) in ["/a/f", "/a/in/g", "/b/h", "/o/k"].into_iter().enumerate() {
            let size = 10 + number as u32;
            bench.put(at, None, &[row(at, size)]).unwrap();
        }
        Self { bench, a, inner, b }
    }

    fn id(&self, at: &str) -> EntryId {
        self.bench.get(at).unwrap().entry.id
    }

    /// Carries out what `does` says, a word and paths behind it; answers which entry it was about.
    fn act(&mut self, does: &str) -> EntryId {
        let words: Vec<&str> = does.split(' ').collect();
        match words[..] {
            ["make", at] => self.bench.mkdir(at).unwrap(),
            ["write", at] => {
                let committed = self.bench.put(at, Some(1), &[row(does, 99)]).unwrap();
                committed.view.entry.id
            }
            ["move", from, to] => {
                let id = self.id(from);
                self.bench.rename(id, to).unwrap();
                id
            }
            ["trash", at] => {
                let id = self.id(at);
                self.bench.trash(id).unwrap();
                id
            }
            ["purge", at] => {
                let id = self.id(at);
                self.bench.purge(id).unwrap();
                id
            }
            _ => panic!("{does}"),
        }
    }

    fn scopes(&self) -> [EntryId; 4] {
        [self.bench.drive.root(), self.a, self.inner, self.b]
    }

    fn ends(&self) -> [u64; 4] {
        self.scopes()
            .map(|scope| page(&self.bench, scope, None).position.sequence)
    }

    /// Every scope is told just that of `entry` behind `before`, by the next of its own numbers, and shown the entry only where it is.
    #[track_caller]
    fn are_told(&self, before: [u64; 4], entry: EntryId, wanted: Told, what: &str) {
        for ((scope, after), wanted) in self.scopes().into_iter().zip(before).zip(wanted) {
            let page = page(&self.bench, scope, Some(after));
            let told: Vec<_> = page
                .changes
                .iter()
                .map(|told| (told.change.sequence, told.change.entry, told.change.change))
                .collect();
            let wanted: Vec<_> = wanted.into_iter().map(|change| (after + 1, entry, change)).collect();
            assert_eq!(told, wanted, "{what}: scope {scope:?}");
            assert_eq!(page.position.sequence, after + wanted.len() as u64, "{what}: {scope:?}");
            for told in &page.changes {
                let is_gone = told.change.change == ChangeType::Deleted;
                assert_eq!(told.view.is_none(), is_gone, "{what}: scope {scope:?}");
            }
        }
        self.bench.sound();
    }
}

#[test]
fn a_scope_is_told_what_enters_it_what_leaves_it_and_what_happens_in_it() {
    use ChangeType::{Created, Deleted, Moved, Trashed, Updated};
    let (created, deleted, moved) = (Some(Created), Some(Deleted), Some(Moved));
    let (trashed, updated) = (Some(Trashed), Some(Updated));
    let cases: [(&str, Told); 18] = [
        ("make /new", [created, None, None, None]),
        ("make /a/new", [created, created, None, None]),
        ("make /a/in/new", [created, created, created, None]),
        ("make /o/new", [created, None, None, None]),
        ("write /a/in/g", [updated, updated, updated, None]),
        ("write /o/k", [updated, None, None, None]),
        // Within a scope, out of one, into one, from one into another.
        ("move /a/f /a/f2", [moved, moved, None, None]),
        ("move /a/f /f", [moved, deleted, None, None]),
        ("move /o/k /b/k", [moved, None, None, created]),
        ("move /a/f /b/f", [moved, deleted, None, created]),
        // A scope below another: what leaves the inner one stays in the outer one, and the other way round.
        ("move /a/in/g /a/g", [moved, moved, deleted, None]),
        ("move /a/f /a/in/f", [moved, moved, created, None]),
        ("move /a/in/g /o/g", [moved, deleted, deleted, None]),
        ("move /o/k /a/in/k", [moved, created, created, None]),
        // A scope itself: it is told of its own move, and what holds it of its coming and going.
        ("move /a/in /b/in", [moved, deleted, moved, created]),
        ("move /a/in /o/in", [moved, deleted, moved, None]),
        ("trash /a/in/g", [trashed, trashed, trashed, None]),
        ("purge /a/in/g", [deleted, deleted, deleted, None]),
    ];
    for (does, wanted) in cases {
        let mut folders = Folders::new();
        let before = folders.ends();
        let entry = folders.act(does);
        folders.are_told(before, entry, wanted, does);
    }
}

#[test]
fn what_comes_back_from_the_trash_is_told_where_it_lies_then() {
    let restored = Some(ChangeType::Restored);
    let cases: [(Option<&str>, Told); 3] = [
        (None, [restored, restored, restored, None]),
        (Some("/a"), [restored, restored, None, None]),
        (Some("/b"), [restored, None, None, restored]),
    ];
    for (folder, wanted) in cases {
        let mut folders = Folders::new();
        let entry = folders.act("trash /a/in/g");
        let before = folders.ends();
        let parent = folder.map(|folder| folders.id(folder));
        let command = Command::Drive(DriveCommand::RestoreEntry {
            principal: folders.bench.owner,
            entry,
            parent,
            name: None,
        });
        folders.bench.run(command).unwrap();
        folders.are_told(before, entry, wanted, &format!("restored into {folder:?}"));
    }
}

#[test]
fn whoever_follows_a_scope_sees_nothing_of_what_has_left_it() {
    let mut folders = Folders::new();
    let before = folders.ends();
    let entry = folders.act("write /a/f");
    folders.act("move /a/f /o/f");
    let between = folders.ends();
    // Nothing that happens to it behind the move is told, and the earlier change shows nothing of it any more.
    folders.bench.rename(entry, "/o/f2").unwrap();
    folders.bench.trash(entry).unwrap();
    folders.bench.restore(entry).unwrap();
    assert_eq!(folders.ends()[1..], between[1..]);
    let page = page(&folders.bench, folders.a, Some(before[1]));
    let told: Vec<_> = page
        .changes
        .iter()
        .map(|told| (told.change.change, told.view.is_some()))
        .collect();
    assert_eq!(told, [(ChangeType::Updated, false), (ChangeType::Deleted, false)]);
    folders.bench.sound();
}
