//! Bytes of a replica's RocksDB that changed while it was stopped.

use crate::drive::{Drive, GROUP, names};
use crate::world::{Wires, World};
use kv::rocks::{RocksBudget, RocksKv};
use kv::seam::{KvRead, Scan};
use std::fs;
use std::path::{Path, PathBuf};

/// Files of the store whose names hold this, the largest first.
fn files(kv: &Path, part: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(kv)
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_string_lossy().contains(part))
        .collect();
    files.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).unwrap().len()));
    files
}

fn flip(file: &Path, share: f64) {
    let mut bytes = fs::read(file).unwrap();
    let at = (bytes.len() as f64 * share) as usize;
    bytes[at] ^= 0x10;
    fs::write(file, bytes).unwrap();
}

/// A key and its value.
type Row = (Vec<u8>, Vec<u8>);

/// All rows of the drive in a stopped replica's state: what only the test's commands change.
fn rows(kv: &Path) -> Result<Vec<Row>, String> {
    let budget = RocksBudget::new(8 << 20, 8 << 20).unwrap();
    let store = RocksKv::open(kv, &budget).map_err(|error| error.to_string())?;
    let rows = store
        .scan(&Scan::prefix(b"", usize::MAX))
        .map_err(|error| error.to_string())?;
    // Keys are (group, install, slot, table); what belongs to the group as a whole has the slot 0xffff and holds its age.
    let of_drive = rows
        .into_iter()
        .filter(|(key, _)| key[..4] == GROUP.0.to_be_bytes() && key.len() > 10 && key[8..10] != [0xff, 0xff]);
    Ok(of_drive.map(|(key, value)| (key.to_vec(), value.to_vec())).collect())
}

/// Whatever part of one replica's store is damaged, it either does not serve any more or is whole again from its log; the others go on.
///
/// shows: F8
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_store_stops_its_replica_or_is_made_whole_from_the_log() {
    let mut world = World::new(Wires::memory(), 3, 1);
    let all = world.numbers();
    world.start(&all).await;
    let drive = Drive::create(&world).await;
    drive.make(&world, 0..40).await;
    // A restart makes tables out of the log of the store.
    for number in &all {
        world.stop(*number).await;
    }
    world.start(&all).await;
    drive.make(&world, 40..80).await;
    world.stop(2).await;
    let kv = world.directory(2).join("kv");
    let pristine = world.directory(2).join("pristine");
    copy(&kv, &pristine);
    let mut made = 80;
    let (mut stopped, mut whole) = (0, 0);
    for (part, share) in [
        ("CURRENT", 0.5),
        ("MANIFEST", 0.4),
        (".log", 0.3),
        (".log", 0.9),
        (".sst", 0.02),
        (".sst", 0.5),
        (".sst", 0.98),
    ] {
        fs::remove_dir_all(&kv).unwrap();
        copy(&pristine, &kv);
        flip(&files(&kv, part)[0], share);
        let is_up = world.try_start(2).await.is_ok();
        drive.make(&world, made..made + 3).await;
        made += 3;
        assert_eq!(drive.names(&world).await, names(0..made), "{part} at {share}");
        if is_up {
            world.settle(2).await;
            let is_stopped = world.is_stopped(2);
            world.stop(2).await;
            if !is_stopped {
                // It ran on: then it has what the others have, or refuses to read it.
                world.stop(3).await;
                let (ours, theirs) = (rows(&kv), rows(&world.directory(3).join("kv")).unwrap());
                assert!(
                    ours.is_err() || ours.unwrap() == theirs,
                    "{part} at {share}: other rows"
                );
                world.start(&[3]).await;
                world.caught_up(&[3]).await;
                whole += 1;
                continue;
            }
        }
        stopped += 1;
    }
    assert!(stopped > 0 && whole > 0, "{stopped} stopped, {whole} went on");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}
