//! Twins: names that are equal but for case are found by pages of any size, and nothing else is.

use super::{Bench, code, row};
use model::id::EntryId;
use protocol::metadata::QueryAnswer;
use protocol::metadata::query::{DriveAsk, TwinListing};
use protocol::wire_error::Failure;
use std::collections::{BTreeMap, BTreeSet};

fn page(bench: &Bench, folder: EntryId, after: Option<(String, u64)>, limit: u16) -> Result<TwinListing, Failure> {
    match bench.ask(DriveAsk::Twins { folder, after, limit })? {
        QueryAnswer::Twins(listing) => Ok(listing),
        other => panic!("{other:?}"),
    }
}

/// All names of a folder's twins by their folded name, read by pages of `limit`.
fn all(bench: &Bench, folder: EntryId, limit: u16) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut after = None;
    loop {
        let page = page(bench, folder, after, limit).unwrap();
        for twins in page.twins {
            let names = found.entry(twins.folded).or_default();
            for entry in twins.entries {
                assert!(names.insert(entry.name), "an entry is told twice");
            }
        }
        after = page.next;
        if after.is_none() {
            return found;
        }
    }
}

#[test]
fn twins_are_found_by_pages_of_any_size() {
    let mut bench = Bench::new(1 << 30);
    let folder = bench.mkdir("/f").unwrap();
    assert_eq!(all(&bench, folder, 10), BTreeMap::new());
    let names = [
        "a",
        "A",
        "b",
        "README",
        "Readme",
        "readme",
        "ReadMe",
        "caf\u{e9}",
        "CAFE\u{301}",
        "\u{3a3}",
        "\u{3c3}",
        "stra\u{df}e",
        "STRASSE",
        "z",
    ];
    for name in names {
        bench.put(&format!("/f/{name}"), None, &[row(name, 5)]).unwrap();
    }
    bench.mkdir("/f/B").unwrap();
    bench.mkdir("/other").unwrap();
    bench.mkdir("/F").unwrap();
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let wanted: BTreeMap<String, BTreeSet<String>> = [
        ("a", set(&["a", "A"])),
        ("b", set(&["b", "B"])),
        ("readme", set(&["README", "Readme", "readme", "ReadMe"])),
        ("caf\u{e9}", set(&["caf\u{e9}", "CAFE\u{301}"])),
        ("\u{3c3}", set(&["\u{3a3}", "\u{3c3}"])),
    ]
    .map(|(folded, names)| (folded.to_owned(), names))
    .into();
    for limit in [1, 2, 3, 5, 1000] {
        assert_eq!(all(&bench, folder, limit), wanted, "pages of {limit}");
    }
    assert_eq!(
        all(&bench, bench.drive.root(), 2).into_keys().collect::<Vec<_>>(),
        ["f"]
    );

    // A rename, the trash and a restore are seen at once.
    let upper = bench.get("/f/A").unwrap().entry.id;
    bench.rename(upper, "/f/other").unwrap();
    let b = bench.get("/f/B").unwrap().entry.id;
    bench.trash(b).unwrap();
    let found = all(&bench, folder, 3);
    assert!(!found.contains_key("a") && !found.contains_key("b"), "{found:?}");
    bench.restore(b).unwrap();
    assert!(all(&bench, folder, 3).contains_key("b"));
    bench.sound();
}

#[test]
fn twins_of_what_is_no_folder_are_refused() {
    let mut bench = Bench::new(1 << 30);
    let file = bench.put("/f", None, &[row("x", 5)]).unwrap().view.entry.id;
    assert_eq!(code(page(&bench, file, None, 10)), "not_a_folder");
    let nowhere = EntryId { number: 99_999, ..file };
    assert_eq!(code(page(&bench, nowhere, None, 10)), "not_found");
    let root = bench.drive.root();
    assert_eq!(code(page(&bench, root, None, 0)), "bad_limit");
    let beyond = Some(("\u{10ffff}".to_owned(), u64::MAX));
    assert!(page(&bench, root, beyond, 10).unwrap().twins.is_empty());
}
