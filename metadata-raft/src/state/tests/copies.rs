//! Copies inside a drive: they share pages, cost no quota, and are whole or not there.

use super::{Bench, code, place, request_key, row};
use crate::state::tests::versions::{numbers, rows_of};
use model::authorize::Principal;
use model::id::{DriveId, EntryId, ROOT_ENTRY, UserId};
use model::name::EntryName;
use protocol::metadata::drive::{DriveCommand, EntryChanged, Place};
use protocol::metadata::query::{Change, ChangeType, DriveAsk};
use protocol::metadata::{Command, QueryAnswer, RequestLife};
use protocol::wire_error::Failure;

fn command(bench: &mut Bench, entry: EntryId, to: Place, with_parents: bool) -> Command {
    let fresh = (0..100).map(|_| bench.fresh()).collect();
    let seed = bench.fresh();
    Command::Drive(DriveCommand::CopyEntry {
        principal: bench.owner,
        entry,
        place: to,
        with_parents,
        fresh,
        seed,
    })
}

pub(super) fn copy(bench: &mut Bench, entry: EntryId, to: &str) -> Result<EntryChanged, Failure> {
    let command = command(bench, entry, place(to), false);
    match bench.run(command)? {
        protocol::metadata::CommandAnswer::Entry(changed) => Ok(changed),
        other => panic!("{other:?}"),
    }
}

pub(super) fn changes(bench: &Bench, after: u64) -> Vec<Change> {
    let scope = EntryId {
        drive: bench.drive,
        number: ROOT_ENTRY,
    };
    let ask = DriveAsk::ScopeChanges {
        scope,
        after,
        limit: 100,
    };
    match bench.ask(ask).unwrap() {
        QueryAnswer::Changes(changes) => changes.changes,
        other => panic!("{other:?}"),
    }
}

/// Paths, sizes and digests of everything below a folder, as a listing shows it.
pub(super) fn below(bench: &Bench, at: &str) -> Vec<(String, u64, Option<model::digest::Digest>, Option<String>)> {
    let mut found = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        for entry in bench.list(&format!("{at}{folder}"), 1000, None).unwrap().entries {
            let path = format!("{folder}/{}", entry.name);
            if entry.entry_type == model::entry::EntryType::Folder {
                folders.push(path.clone());
            }
            found.push((path, entry.size, entry.digest, entry.content_type));
        }
    }
    found.sort();
    found
}

/// shows: FR-007 scale=1/2
#[test]
fn a_copied_file_shares_its_pages_and_outlives_its_source() {
    let mut bench = Bench::new(310);
    let rows = [row("a", 200), row("b", 100)];
    let id = bench.put("/f", None, &rows[..1]).unwrap().view.entry.id;
    bench.put("/f", Some(1), &rows).unwrap();
    let before = bench.usage();
    let made = copy(&mut bench, id, "/g").unwrap();
    let entry = &made.view.entry;
    assert_eq!((entry.version, entry.revision, entry.size), (1, 1, 300));
    assert_ne!(entry.id, id);
    assert_eq!(rows_of(&bench, entry.id, 1).unwrap(), rows);
    assert_eq!(numbers(&bench, entry.id), [1], "its history is its own");
    assert_eq!(
        bench.usage().charged_bytes,
        before.charged_bytes,
        "nearly full, and yet there is room"
    );
    let told = changes(&bench, made.position.sequence - 1);
    assert_eq!(
        (told.len(), told[0].change, told[0].entry, told[0].version),
        (1, ChangeType::Created, entry.id, 1)
    );
    bench.sound();
    // From now on each goes its own way.
    bench.put("/g", Some(1), &rows[1..]).unwrap();
    assert_eq!(bench.get("/f").unwrap().entry.version, 2);
    bench.purge(id).unwrap();
    bench.reap();
    assert_eq!(rows_of(&bench, made.view.entry.id, 1).unwrap(), rows);
    assert_eq!((bench.usage().charged_bytes, bench.usage().files), (300, 1));
    bench.sound();
}

#[test]
fn a_copied_folder_is_the_whole_tree_and_one_change() {
    let mut bench = Bench::new(1 << 30);
    let a = bench.mkdir("/a").unwrap();
    for folder in ["/a/b", "/a/b/c", "/a/empty"] {
        bench.mkdir(folder).unwrap();
    }
    for (at, file) in ["/a/one", "/a/b/two", "/a/b/c/three", "/a/b/c/gone"]
        .into_iter()
        .enumerate()
    {
        bench
            .put(file, None, &[row(file, 10 + at as u32), row("shared", 5)])
            .unwrap();
    }
    let empty = bench.content(&[], &[]);
    bench.commit("/a/nothing", None, empty).unwrap();
    let gone = bench.get("/a/b/c/gone").unwrap().entry.id;
    bench.trash(gone).unwrap();
    let before = (below(&bench, "/a"), bench.usage());
    bench.mkdir("/to").unwrap();
    let made = copy(&mut bench, a, "/to/a").unwrap();
    assert_eq!(below(&bench, "/to/a"), before.0, "what is in the trash is not copied");
    assert_eq!(below(&bench, "/a"), before.0);
    let usage = bench.usage();
    assert_eq!(usage.charged_bytes, before.1.charged_bytes);
    assert_eq!(
        (usage.files, usage.folders),
        (before.1.files + 4, before.1.folders + 1 + 4)
    );
    let told = changes(&bench, made.position.sequence - 1);
    assert_eq!((told.len(), told[0].entry), (1, made.view.entry.id));
    bench.sound();
    // The copy can be moved, trashed and purged as any folder, and its source stays.
    bench.rename(made.view.entry.id, "/moved").unwrap();
    let job = bench.purge(made.view.entry.id).unwrap().job.unwrap();
    bench.finish_job(job);
    bench.reap();
    assert_eq!(below(&bench, "/a"), before.0);
    assert_eq!(bench.usage().charged_bytes, before.1.charged_bytes);
    bench.sound();
}

#[test]
fn missing_folders_above_a_copy_are_made_with_it() {
    let mut bench = Bench::new(1 << 30);
    let id = bench.put("/f", None, &[row("a", 10)]).unwrap().view.entry.id;
    assert_eq!(code(copy(&mut bench, id, "/x/y/g")), "parent_not_found");
    let with_parents = command(&mut bench, id, place("/x/y/g"), true);
    bench.run(with_parents).unwrap();
    assert_eq!(bench.get("/x/y/g").unwrap().entry.size, 10);
    let parent = bench.get("/x").unwrap().entry.id;
    let name = EntryName::new("h").unwrap();
    let named = command(&mut bench, id, Place::In { parent, name }, false);
    bench.run(named).unwrap();
    assert_eq!(bench.get("/x/h").unwrap().path, "/x/h");
    bench.sound();
}

#[test]
fn what_cannot_be_copied_is_refused_and_leaves_nothing() {
    let mut bench = Bench::new(1 << 30);
    let a = bench.mkdir("/a").unwrap();
    bench.mkdir("/a/b").unwrap();
    let f = bench.put("/f", None, &[row("a", 10)]).unwrap().view.entry.id;
    let root = EntryId {
        number: ROOT_ENTRY,
        ..a
    };
    let before = bench.everything();
    let taken = copy(&mut bench, f, "/a").unwrap_err();
    assert_eq!(
        (taken.code.as_str(), &taken.fields["existing"]),
        ("name_taken", &a.to_string())
    );
    assert_eq!(code(copy(&mut bench, a, "/a/b/c")), "cycle");
    assert_eq!(code(copy(&mut bench, a, "/a/c")), "cycle");
    assert_eq!(code(copy(&mut bench, root, "/c")), "root_fixed");
    assert_eq!(code(copy(&mut bench, f, "/f/g")), "parent_not_folder");
    assert_eq!(code(copy(&mut bench, EntryId { number: 77, ..a }, "/c")), "not_found");
    let elsewhere = Place::In {
        parent: EntryId {
            drive: DriveId::new(bench.drive.slot(), 99),
            number: 5,
        },
        name: EntryName::new("c").unwrap(),
    };
    let elsewhere = command(&mut bench, f, elsewhere, false);
    assert_eq!(code(bench.run(elsewhere)), "cross_drive");
    let owner = bench.owner;
    bench.owner = Principal {
        user: UserId::new(bench.drive.slot(), 9),
        device: None,
        is_admin: true,
    };
    assert_eq!(code(copy(&mut bench, f, "/c")), "not_found");
    bench.owner = owner;
    assert_eq!(bench.everything(), before);
    bench.trash(f).unwrap();
    assert_eq!(code(copy(&mut bench, f, "/c")), "in_trash");
    bench.sound();
}

#[test]
fn a_folder_that_passes_one_command_is_refused_whole() {
    let mut bench = Bench::new(1 << 30);
    let a = bench.mkdir("/a").unwrap();
    // The folder, and two for each file: itself and its page.
    for at in 0..499 {
        bench
            .put(&format!("/a/f{at}"), None, &[row(&format!("x{at}"), 10)])
            .unwrap();
    }
    copy(&mut bench, a, "/fits").unwrap();
    bench.sound();
    bench.put("/a/one more", None, &[row("y", 10)]).unwrap();
    let before = bench.everything();
    assert_eq!(code(copy(&mut bench, a, "/b")), "copy_too_large");
    assert_eq!(bench.everything(), before);
}

#[test]
fn a_copy_too_deep_is_refused_before_it_is_begun() {
    let mut bench = Bench::new(1 << 30);
    let mut deep = String::new();
    for _ in 0..60 {
        deep.push_str("/d");
        bench.mkdir(&deep).unwrap();
    }
    let top = bench.get("/d").unwrap().entry.id;
    let mut other = String::new();
    for _ in 0..41 {
        other.push_str("/e");
        bench.mkdir(&other).unwrap();
    }
    assert_eq!(code(copy(&mut bench, top, &format!("{other}/d"))), "too_deep");
    let above = other.strip_suffix("/e").unwrap();
    copy(&mut bench, top, &format!("{above}/d")).unwrap();
    bench.sound();
}

#[test]
fn a_repeated_copy_is_made_once_and_authorised_again() {
    let mut bench = Bench::new(1 << 30);
    let f = bench.put("/f", None, &[row("a", 10)]).unwrap().view.entry.id;
    let key = request_key(RequestLife::Day);
    let asked = command(&mut bench, f, place("/g"), false);
    let first = bench.apply(Some(key), asked).unwrap();
    let asked = command(&mut bench, f, place("/g"), false);
    assert_eq!(bench.apply(Some(key), asked).unwrap(), first);
    bench.owner.user = UserId::new(bench.drive.slot(), 9);
    let foreign = command(&mut bench, f, place("/g"), false);
    assert_eq!(code(bench.apply(Some(key), foreign)), "not_found");
    bench.sound();
}
