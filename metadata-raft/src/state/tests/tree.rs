//! Names, places, trash, purge.

use super::{Bench, code, path, place, row};
use kv::overlay::Overlay;
use kv::seam::Kv;
use model::id::{DriveId, EntryId};
use model::name::EntryName;
use protocol::frame;
use protocol::metadata::drive::{DriveCommand, PatchTo};
use protocol::metadata::query::{ChangeType, DriveAsk};
use protocol::metadata::{Command, Envelope, QueryAnswer};

/// shows: DM-4
#[test]
fn of_two_crossing_moves_exactly_one_succeeds() {
    for a_first in [true, false] {
        let mut bench = Bench::new(1 << 30);
        let (a, b) = (bench.mkdir("/a").unwrap(), bench.mkdir("/b").unwrap());
        let (first, second) = if a_first { (a, b) } else { (b, a) };
        let under = |bench: &mut Bench, entry: EntryId, parent: EntryId| {
            let to = PatchTo::Parts {
                name: None,
                parent: Some(parent),
            };
            bench.drive_command(DriveCommand::PatchEntry {
                principal: bench.owner,
                entry,
                base_revision: None,
                to,
            })
        };
        under(&mut bench, first, second).unwrap();
        assert_eq!(code(under(&mut bench, second, first)), "cycle");
        bench.sound();
    }
}

/// shows: SC-in-3 scale=100/1000000
#[test]
fn a_tree_is_a_hundred_deep_and_no_deeper() {
    let mut bench = Bench::new(1 << 30);
    let mut at = String::new();
    for depth in 0..100 {
        at.push_str("/d");
        bench
            .mkdir(&at)
            .unwrap_or_else(|failure| panic!("depth {depth}: {failure}"));
    }
    let deepest = bench.get(&at).unwrap();
    assert_eq!(deepest.path, at);
    let (principal, drive, fresh) = (bench.owner, bench.drive, vec![bench.fresh()]);
    let place = protocol::metadata::drive::Place::In {
        parent: deepest.entry.id,
        name: EntryName::new("x").unwrap(),
    };
    let below = DriveCommand::CreateFolder {
        principal,
        drive,
        place,
        with_parents: false,
        fresh,
    };
    assert_eq!(code(bench.drive_command(below)), "too_deep");
    // A folder with something below it cannot go where that something would pass the depth.
    bench.mkdir("/e").unwrap();
    bench.mkdir("/e/f").unwrap();
    let e = bench.get("/e").unwrap().entry.id;
    let ninety_ninth = "/d".repeat(99);
    assert_eq!(code(bench.rename(e, &format!("{ninety_ninth}/e"))), "too_deep");
    bench.rename(e, &format!("{}/e", "/d".repeat(98))).unwrap();
    bench.sound();
}

/// shows: FR-003
/// shows: TST-4 side=one-change
#[test]
fn a_folder_moves_by_the_same_few_writes_whatever_lies_below() {
    let mut bench = Bench::new(1 << 30);
    let (small, large) = (bench.mkdir("/small").unwrap(), bench.mkdir("/large").unwrap());
    bench.mkdir("/to").unwrap();
    bench.mkdir("/to/deep").unwrap();
    bench.mkdir("/to/deep/er").unwrap();
    bench.put("/small/f", None, &[row("s", 100)]).unwrap();
    for at in 0..10_000 {
        bench.put(&format!("/large/f{at}"), None, &[row("s", 100)]).unwrap();
    }
    let before = bench.get("/large/f7").unwrap();
    bench.rename(small, "/to/small").unwrap();
    let writes = bench.writes;
    let changed = bench.rename(large, "/to/large").unwrap();
    assert_eq!(bench.writes, writes);
    let after = bench.get("/to/large/f7").unwrap();
    assert_eq!(
        after.entry, before.entry,
        "what lies below keeps id, version and revision"
    );
    let ask = DriveAsk::ScopeChanges {
        scope: bench.drive.root(),
        after: changed.position.sequence - 1,
        limit: 10,
    };
    let QueryAnswer::Changes(changes) = bench.ask(ask).unwrap() else {
        panic!()
    };
    assert_eq!(changes.changes.len(), 1, "one change");
    assert_eq!(
        (changes.changes[0].change, changes.changes[0].entry),
        (ChangeType::Moved, large)
    );
    bench.sound();
}

#[test]
fn a_path_of_the_greatest_length_can_be_made_and_named_and_none_longer() {
    let mut bench = Bench::new(1 << 30);
    let mut at = String::new();
    // Fifteen names of 255 bytes with their slashes leave 256 of 4,096.
    for _ in 0..15 {
        at.push_str(&format!("/{}", "n".repeat(255)));
        bench.mkdir(&at).unwrap();
    }
    let parent = bench.get(&at).unwrap().entry.id;
    let (principal, drive) = (bench.owner, bench.drive);
    let mut make = |name: &str| {
        let fresh = vec![bench.fresh()];
        let name = EntryName::new(name).unwrap();
        let place = protocol::metadata::drive::Place::In { parent, name };
        bench.drive_command(DriveCommand::CreateFolder {
            principal,
            drive,
            place,
            with_parents: false,
            fresh,
        })
    };
    let last = make(&"m".repeat(255)).unwrap();
    assert_eq!(last.view.path.len(), 4096);
    assert_eq!(bench.get(&last.view.path).unwrap().entry.id, last.view.entry.id);
    let (principal, fresh) = (bench.owner, vec![bench.fresh()]);
    let place = protocol::metadata::drive::Place::In {
        parent: last.view.entry.id,
        name: EntryName::new("x").unwrap(),
    };
    let longer = DriveCommand::CreateFolder {
        principal,
        drive,
        place,
        with_parents: false,
        fresh,
    };
    assert_eq!(code(bench.drive_command(longer)), "path_too_long");
}

#[test]
fn names_collide_by_their_composed_form_and_case_does_not() {
    let mut bench = Bench::new(1 << 30);
    let first = bench.mkdir("/Caf\u{e9}").unwrap();
    let failure = bench.mkdir("/Cafe\u{301}").unwrap_err();
    assert_eq!(
        (failure.code.as_str(), failure.fields["existing"].clone()),
        ("name_taken", first.to_string())
    );
    bench.mkdir("/caf\u{e9}").unwrap();
    // A rename to another spelling of the same name is no collision with itself.
    bench.rename(first, "/Cafe\u{301}").unwrap();
    bench.sound();
}

#[test]
fn missing_parents_are_made_when_asked_and_refused_when_not() {
    let mut bench = Bench::new(1 << 30);
    assert_eq!(code(bench.mkdir("/a/b/c")), "parent_not_found");
    let (principal, drive) = (bench.owner, bench.drive);
    let make = |fresh| DriveCommand::CreateFolder {
        principal,
        drive,
        place: place("/a/b/c"),
        with_parents: true,
        fresh,
    };
    assert_eq!(code(bench.drive_command(make(vec![51]))), "malformed_command");
    let made = bench.drive_command(make(vec![51, 52, 53])).unwrap();
    assert_eq!((made.view.path.as_str(), made.position.sequence), ("/a/b/c", 3));
    bench.put("/f", None, &[row("x", 10)]).unwrap();
    assert_eq!(code(bench.mkdir("/f/x")), "parent_not_folder");
    assert_eq!(code(bench.mkdir("/")), "name_taken");
    bench.sound();
}

#[test]
fn the_root_stays_and_foreigners_see_nothing() {
    let mut bench = Bench::new(1 << 30);
    let root = bench.drive.root();
    assert_eq!(code(bench.trash(root)), "root_fixed");
    assert_eq!(code(bench.purge(root)), "root_fixed");
    assert_eq!(code(bench.rename(root, "/x")), "root_fixed");
    let a = bench.mkdir("/a").unwrap();
    let foreign = EntryId {
        drive: DriveId(bench.drive.0 ^ 1),
        number: 1,
    };
    let to = PatchTo::Parts {
        name: None,
        parent: Some(foreign),
    };
    let command = DriveCommand::PatchEntry {
        principal: bench.owner,
        entry: a,
        base_revision: None,
        to,
    };
    assert_eq!(code(bench.drive_command(command)), "cross_drive");
    let mut stranger = bench.owner;
    stranger.user.0 ^= 1;
    let command = DriveCommand::TrashEntry {
        principal: stranger,
        entry: a,
        base_revision: None,
    };
    assert_eq!(code(bench.drive_command(command)), "not_found");
    assert_eq!(code(bench.ask_as(Some(stranger), DriveAsk::Usage)), "not_found");
}

/// shows: D-2.2
#[test]
fn a_stale_revision_is_refused_whatever_the_clocks_say() {
    let mut bench = Bench::new(1 << 30);
    let a = bench.mkdir("/a").unwrap();
    bench.rename(a, "/b").unwrap();
    bench.wall += 24 * 3_600_000;
    let late = DriveCommand::TrashEntry {
        principal: bench.owner,
        entry: a,
        base_revision: Some(1),
    };
    assert_eq!(code(bench.drive_command(late)), "revision_conflict");
    bench.wall -= 48 * 3_600_000;
    let right = DriveCommand::TrashEntry {
        principal: bench.owner,
        entry: a,
        base_revision: Some(2),
    };
    bench.drive_command(right).unwrap();
}

#[test]
fn trash_and_restore_keep_ids_and_mind_names_and_folders() {
    let mut bench = Bench::new(1 << 30);
    let a = bench.mkdir("/a").unwrap();
    let b = bench.mkdir("/a/b").unwrap();
    let file = bench.put("/a/b/f", None, &[row("x", 10)]).unwrap().view.entry.id;
    bench.trash(b).unwrap();
    assert_eq!(code(bench.get("/a/b/f")), "not_found");
    assert_eq!(code(bench.restore(file)), "not_in_trash");
    assert_eq!(code(bench.rename(file, "/f")), "in_trash");
    bench.mkdir("/a/b").unwrap();
    assert_eq!(code(bench.restore(b)), "name_taken");
    bench.trash(a).unwrap();
    assert_eq!(code(bench.restore(b)), "in_trash");
    let name = Some(EntryName::new("back").unwrap());
    let elsewhere = Some(bench.drive.root());
    let command = DriveCommand::RestoreEntry {
        principal: bench.owner,
        entry: b,
        parent: elsewhere,
        name,
    };
    bench.drive_command(command).unwrap();
    assert_eq!(bench.get("/back/f").unwrap().entry.id, file);
    bench.sound();
    // What was trashed on its own outlives its folder.
    bench.restore(a).unwrap();
    let c = bench.mkdir("/a/c").unwrap();
    bench.trash(c).unwrap();
    let job = bench.purge(a).unwrap().job.unwrap();
    bench.sound();
    bench.finish_job(job);
    assert_eq!(code(bench.restore(c)), "parent_not_found");
    bench.sound();
}

#[test]
fn purge_of_a_folder_is_one_command_and_a_job_of_bounded_ones() {
    let mut bench = Bench::new(1 << 40);
    let a = bench.mkdir("/a").unwrap();
    for at in 0..700 {
        bench
            .put(&format!("/a/f{at}"), None, &[row(&format!("x{at}"), 10)])
            .unwrap();
    }
    let job = bench.purge(a).unwrap().job.unwrap();
    assert!(bench.writes < 12, "{}", bench.writes);
    assert_eq!(code(bench.get("/a/f3")), "not_found");
    bench.mkdir("/a").unwrap();
    bench.sound();
    let sweep = Command::Drive(DriveCommand::SweepJob {
        drive: bench.drive,
        job,
    });
    let first = bench.sweep(sweep.clone()).unwrap();
    assert!(!first.is_done && first.operations <= 100);
    bench.sound();
    bench.finish_job(job);
    bench.reap();
    bench.sound();
    let usage = bench.usage();
    assert_eq!(
        (usage.files, usage.folders, usage.charged_bytes, usage.released_bytes),
        (0, 1, 0, 7000)
    );
    assert_eq!(code(bench.sweep(sweep)), "job_not_found");
}

#[test]
fn the_trash_empties_by_age_and_not_by_the_clock() {
    let mut bench = Bench::with_epoch(1 << 30, 3_600_000);
    bench.put("/f", None, &[row("x", 10)]).unwrap();
    let f = bench.get("/f").unwrap().entry.id;
    bench.trash(f).unwrap();
    bench.wall += 60 * 24 * 3_600_000;
    let sweep = Command::Drive(DriveCommand::SweepTrash {
        drive: bench.drive,
        job: 99,
    });
    assert!(
        bench.sweep(sweep.clone()).unwrap().is_done,
        "a clock sixty days ahead destroys nothing"
    );
    bench.restore(f).unwrap();
    bench.trash(f).unwrap();
    bench.advance(30 * 24 * 3_600_000);
    assert!(!bench.sweep(sweep.clone()).unwrap().is_done);
    assert!(bench.sweep(sweep).unwrap().is_done);
    bench.sound();
    assert_eq!(code(bench.restore(f)), "not_found");
    assert_eq!(bench.usage().files, 0);
}

#[test]
fn a_listing_is_in_the_order_of_name_keys_page_by_page() {
    let mut bench = Bench::new(1 << 30);
    let names = ["b", "a", "Z", "\u{e9}", "aa", "10", "9"];
    for name in names {
        bench.mkdir(&format!("/{name}")).unwrap();
    }
    let mut sorted = names.map(str::to_owned);
    sorted.sort();
    let mut seen = Vec::new();
    let mut token = None;
    loop {
        let page = bench.list("/", 3, token).unwrap();
        assert!(page.entries.len() <= 3);
        seen.extend(page.entries.into_iter().map(|entry| entry.name));
        token = page.next_page_token;
        if token.is_none() {
            break;
        }
    }
    assert_eq!(seen, sorted);
    assert_eq!(code(bench.list("/", 0, None)), "bad_limit");
    assert_eq!(code(bench.list("/", 5, Some("a/b".to_owned()))), "bad_page_token");
}

#[test]
fn a_refused_command_leaves_no_trace_and_any_bytes_are_refused() {
    let mut bench = Bench::new(1 << 30);
    bench.mkdir("/a").unwrap();
    let before = bench.everything();
    // The second folder's number is taken, after the first was already made.
    let (principal, drive) = (bench.owner, bench.drive);
    let taken = bench.get("/a").unwrap().entry.id.number;
    let command = DriveCommand::CreateFolder {
        principal,
        drive,
        place: place("/x/y"),
        with_parents: true,
        fresh: vec![500, taken],
    };
    assert_eq!(code(bench.drive_command(command.clone())), "id_taken");
    assert_eq!(bench.everything(), before);
    let envelope = Envelope {
        request_id: None,
        wall: Default::default(),
        command: Command::Drive(command),
    };
    let good = frame::encode(&envelope).unwrap();
    for cut in 0..good.len() {
        let mut bytes = good.to_vec();
        bytes[cut] ^= 0x55;
        for bytes in [&good[..cut], bytes.as_slice()] {
            let mut overlay = Overlay::new(&bench.kv);
            bench.state.apply(&mut overlay, 1, bytes).unwrap();
            bench.state.query(&bench.kv, bytes).unwrap();
        }
    }
    bench.kv.write(Vec::new()).unwrap();
    assert!(path("/x").names().len() == 1);
}
