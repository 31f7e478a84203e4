//! What every disk promises, as one suite that runs on the real and on the simulated one.
//!
//! Place in the picture: called by tests; a third kind of disk would call it too.
//! Not here: what a power cut leaves (only the simulated disk can show it, `tests/`).

use crate::seam::{Disk, DiskError};

/// Checks an empty disk against the contract of the seam; panics with the broken sentence. Leaves files behind.
pub fn check(disk: &dyn Disk) {
    names_are_exclusive_and_listed(disk);
    bytes_read_back(disk);
    renames_move_and_never_replace(disk);
    removed_files_stay_readable_while_open(disk);
    foreign_names_are_refused(disk);
    let space = disk.space().expect("space answers");
    assert!(space.free_bytes <= space.total_bytes, "free is a part of total");
}

fn names_are_exclusive_and_listed(disk: &dyn Disk) {
    disk.make_dir("names/inner").expect("make_dir makes all parts");
    disk.make_dir("names/inner").expect("make_dir twice is no error");
    drop(disk.create("names/b").expect("create"));
    drop(disk.create("names/a").expect("create"));
    drop(disk.create("names/inner/c").expect("create in a directory below"));
    assert!(
        matches!(disk.create("names/a"), Err(DiskError::Exists(_))),
        "create is exclusive"
    );
    assert!(
        matches!(disk.open("names/c"), Err(DiskError::NotFound(_))),
        "open does not create"
    );
    assert!(
        matches!(disk.create("absent/a"), Err(DiskError::NotFound(_))),
        "create makes no directories"
    );
    assert_eq!(
        disk.list("names").expect("list"),
        ["a", "b"],
        "list is sorted and holds files alone"
    );
    assert_eq!(disk.list("names/inner").expect("list"), ["c"]);
    assert!(
        matches!(disk.list("absent"), Err(DiskError::NotFound(_))),
        "an absent directory is not an empty one"
    );
    disk.sync_dir("names").expect("sync_dir");
    disk.sync_dir("").expect("sync_dir of the root");
}

fn bytes_read_back(disk: &dyn Disk) {
    disk.make_dir("bytes").expect("make_dir");
    let file = disk.create("bytes/f").expect("create");
    assert_eq!(file.len_bytes(), Ok(0));
    file.allocate(1 << 16).expect("allocate");
    assert_eq!(file.len_bytes(), Ok(0), "allocate keeps the length");
    file.write_at(0, &[b"abc", b"", b"defg"]).expect("write");
    file.write_at(8192, &[b"z"]).expect("write beyond the end");
    file.write_at(8193, &[]).expect("write nothing");
    assert_eq!(file.len_bytes(), Ok(8193));
    assert_eq!(&file.read_at(1, 5).expect("read")[..], b"bcdef");
    assert!(
        file.read_at(7, 8185).expect("read").iter().all(|byte| *byte == 0),
        "a hole reads as zeros"
    );
    assert_eq!(&file.read_at(8192, 1).expect("read")[..], b"z");
    assert_eq!(file.read_at(8193, 0).expect("read nothing at the end").len(), 0);
    let short = file.read_at(8190, 4);
    assert!(
        matches!(
            short,
            Err(DiskError::ShortRead {
                wanted_bytes: 4,
                read_bytes: 3,
                ..
            })
        ),
        "a short read is an error: {short:?}"
    );
    file.sync().expect("sync");
    let many: Vec<Vec<u8>> = (0..1500_u16).map(|number| number.to_le_bytes().to_vec()).collect();
    let parts: Vec<&[u8]> = many.iter().map(Vec::as_slice).collect();
    file.write_at(10_000, &parts).expect("write of many parts");
    assert_eq!(&file.read_at(10_000, 3000).expect("read")[..], &many.concat()[..]);
    let again = disk.open("bytes/f").expect("open");
    assert_eq!(&again.read_at(0, 3).expect("read by another handle")[..], b"abc");
}

fn renames_move_and_never_replace(disk: &dyn Disk) {
    disk.make_dir("from").expect("make_dir");
    disk.make_dir("to").expect("make_dir");
    disk.create("from/a")
        .expect("create")
        .write_at(0, &[b"a"])
        .expect("write");
    drop(disk.create("from/b").expect("create"));
    let open = disk.open("from/a").expect("open");
    disk.rename("from/a", "to/a").expect("rename");
    assert_eq!(&open.read_at(0, 1).expect("read after rename")[..], b"a");
    assert_eq!(disk.list("from").expect("list"), ["b"]);
    assert_eq!(disk.list("to").expect("list"), ["a"]);
    assert!(
        matches!(disk.rename("from/b", "to/a"), Err(DiskError::Exists(_))),
        "rename never replaces"
    );
    assert!(matches!(disk.rename("from/x", "to/x"), Err(DiskError::NotFound(_))));
}

fn removed_files_stay_readable_while_open(disk: &dyn Disk) {
    disk.make_dir("gone").expect("make_dir");
    let file = disk.create("gone/a").expect("create");
    file.write_at(0, &[b"still"]).expect("write");
    disk.remove("gone/a").expect("remove");
    assert!(matches!(disk.remove("gone/a"), Err(DiskError::NotFound(_))));
    assert!(matches!(disk.open("gone/a"), Err(DiskError::NotFound(_))));
    assert_eq!(&file.read_at(0, 5).expect("read after remove")[..], b"still");
}

fn foreign_names_are_refused(disk: &dyn Disk) {
    for name in ["", "/etc", "../up", "a/../b", "a//b", "a/", ".", "a b", "a\0b"] {
        assert!(
            matches!(disk.create(name), Err(DiskError::BadName(_))),
            "{name:?} is refused"
        );
        assert!(
            matches!(disk.open(name), Err(DiskError::BadName(_))),
            "{name:?} is refused"
        );
    }
}
