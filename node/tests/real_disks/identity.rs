//! Which directory is which disk: unmounted, swapped, foreign, doubled, nameless; and that none of it is touched.

use crate::world::{Running, World, contents};
use model::id::{ClusterId, DiskId, NodeId};
use node::register::RegisterError;
use node::serve::StartError;
use protocol::node::{DiskState, code};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

const LEN: usize = 9000;

/// Takes a disk away from its mount point, as unmounting does.
fn unmount(mount_point: &Path) -> PathBuf {
    let away = mount_point.with_extension("away");
    fs::rename(mount_point, &away).unwrap();
    fs::create_dir(mount_point).unwrap();
    away
}

fn mount(away: &Path, mount_point: &Path) {
    fs::remove_dir(mount_point).unwrap();
    fs::rename(away, mount_point).unwrap();
}

async fn filled(world: &World) {
    let running = world.start().await;
    for disk in world.config.disks.iter().map(|disk| disk.disk.0) {
        for number in 0..4 {
            running.put(disk, number, LEN).await.unwrap();
        }
    }
    running.stop().await;
}

async fn check_serves(running: &Running, disk: u32) {
    assert_eq!(running.status(disk).state, DiskState::Ready);
    for number in 0..4 {
        assert_eq!(running.get(disk, number, LEN).await, Ok(()));
    }
}

/// Errors that were logged on this thread.
#[derive(Clone, Default)]
struct Errors(Arc<Mutex<Vec<String>>>);

impl Subscriber for Errors {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        struct Text(String);
        impl Visit for Text {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                self.0 += &format!("{field}={value:?} ");
            }
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        self.0.lock().unwrap().push(text.0);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// shows: F22 scale=1/4
#[tokio::test]
async fn a_node_starts_with_the_disks_that_it_has_and_says_which_are_missing() {
    let world = World::new(2);
    filled(&world).await;
    let away = unmount(&world.path(2));

    let errors = Errors::default();
    let guard = tracing::subscriber::set_default(errors.clone());
    let running = world.start().await;
    drop(guard);
    check_serves(&running, 1).await;
    let reason = running.missing(2);
    assert!(reason.contains("mount it") && reason.contains("disk-2"), "{reason}");
    assert_eq!(running.put(2, 9, LEN).await, Err(code::DISK_MISSING.to_owned()));
    assert_eq!(running.get(2, 0, LEN).await, Err(code::DISK_MISSING.to_owned()));
    assert_eq!(running.metric("node_disk_is_missing{disk=\"1\"}"), Some(0));
    assert_eq!(running.metric("node_disk_is_missing{disk=\"2\"}"), Some(1));
    let told = errors.0.lock().unwrap().join("\n");
    assert!(told.contains("disk is missing") && told.contains("mount it"), "{told}");
    running.stop().await;
    assert_eq!(
        contents(&world.path(2)).len(),
        0,
        "an unmounted mount point is left alone"
    );

    mount(&away, &world.path(2));
    let running = world.start().await;
    check_serves(&running, 1).await;
    check_serves(&running, 2).await;
    assert_eq!(running.metric("node_disk_is_missing{disk=\"2\"}"), Some(0));
    running.stop().await;
}

#[tokio::test]
async fn a_node_whose_disks_are_all_missing_runs_and_says_so() {
    let world = World::new(2);
    filled(&world).await;
    let away = unmount(&world.path(1));
    // The other one has not even its mount point.
    fs::rename(world.path(2), world.path(2).with_extension("away")).unwrap();
    let running = world.start().await;
    for disk in [1, 2] {
        assert!(running.missing(disk).contains("mount it"));
        assert_eq!(running.put(disk, 1, LEN).await, Err(code::DISK_MISSING.to_owned()));
    }
    running.stop().await;
    assert_eq!(contents(&world.path(1)).len(), 0);
    assert!(!world.path(2).exists(), "a mount point is never made");
    mount(&away, &world.path(1));
    let running = world.start().await;
    check_serves(&running, 1).await;
    running.stop().await;
}

#[tokio::test]
async fn disks_swapped_between_nodes_are_refused_and_serve_again_when_they_are_back() {
    let (first, mut second) = (World::new(2), World::new(2));
    second.config.node = NodeId(2);
    for (number, disk) in (3..).zip(&mut second.config.disks) {
        disk.disk = DiskId(number);
    }
    filled(&first).await;
    filled(&second).await;
    let swap = || {
        let (one, other) = (first.path(1), second.path(1));
        let between = one.with_extension("between");
        fs::rename(&one, &between).unwrap();
        fs::rename(&other, &one).unwrap();
        fs::rename(&between, &other).unwrap();
    };
    swap();
    let before = (contents(&first.path(1)), contents(&second.path(1)));
    for (world, wrong, right, found) in [(&first, 1, 2, 3), (&second, 3, 4, 1)] {
        let running = world.start().await;
        let reason = running.missing(wrong);
        assert!(
            reason.contains(&format!("disk {found} lies in its directory")),
            "{reason}"
        );
        check_serves(&running, right).await;
        running.stop().await;
    }
    assert!(
        before == (contents(&first.path(1)), contents(&second.path(1))),
        "untouched"
    );
    swap();
    let running = first.start().await;
    check_serves(&running, 1).await;
    running.stop().await;
}

#[tokio::test]
async fn a_disk_of_another_cluster_is_refused_and_not_touched() {
    let (ours, mut theirs) = (World::new(2), World::new(1));
    theirs.cluster = ClusterId(78);
    filled(&ours).await;
    filled(&theirs).await;
    let away = unmount(&ours.path(1));
    mount(&theirs.path(1), &ours.path(1));
    let before = contents(&ours.path(1));
    let running = ours.start().await;
    let reason = running.missing(1);
    assert!(reason.contains("belongs to another cluster"), "{reason}");
    check_serves(&running, 2).await;
    running.stop().await;
    assert!(before == contents(&ours.path(1)));
    // The same on a disk that the node has never had.
    let mut fresh = World::new(1);
    fresh.config.disks[0].path = ours.path(1);
    let running = fresh.start().await;
    assert!(running.missing(1).contains("belongs to another cluster"));
    running.stop().await;
    assert!(before == contents(&ours.path(1)));
    drop(away);
}

#[tokio::test]
async fn two_paths_to_one_disk_are_one_disk() {
    for is_new in [true, false] {
        let world = World::new(2);
        if !is_new {
            filled(&world).await;
            fs::rename(world.path(2), world.path(2).with_extension("away")).unwrap();
        } else {
            fs::remove_dir(world.path(2)).unwrap();
        }
        std::os::unix::fs::symlink(world.path(1), world.path(2)).unwrap();
        let running = world.start().await;
        assert_eq!(running.status(1).state, DiskState::Ready);
        let reason = running.missing(2);
        assert!(
            reason.contains("two paths lead to one disk") || reason.contains("disk 1 lies in its directory"),
            "{reason}"
        );
        running.put(1, 7, LEN).await.unwrap();
        assert_eq!(running.put(2, 7, LEN).await, Err(code::DISK_MISSING.to_owned()));
        running.stop().await;
    }
}

#[tokio::test]
async fn data_without_an_identity_is_not_adopted() {
    let world = World::new(1);
    filled(&world).await;
    let identity = world.path(1).join("store").join("identity");
    let kept = fs::read(&identity).unwrap();
    fs::remove_file(&identity).unwrap();
    let before = contents(&world.path(1));
    let running = world.start().await;
    running.missing(1);
    running.stop().await;
    assert!(before == contents(&world.path(1)));
    // Also by a node that has never had it.
    let mut other = World::new(1);
    other.config.disks[0].path = world.path(1);
    let running = other.start().await;
    assert!(running.missing(1).contains("holds data but no identity"));
    running.stop().await;
    assert!(before == contents(&world.path(1)));
    fs::write(&identity, kept).unwrap();
    let running = world.start().await;
    check_serves(&running, 1).await;
    running.stop().await;
}

#[tokio::test]
async fn a_new_disk_is_formatted_once_and_never_after() {
    let mut world = World::new(1);
    filled(&world).await;
    // A disk that was added later, at first without a mount point.
    let path = world.directory.path().join("disk-2");
    let mut added = world.config.disks[0].clone();
    (added.disk, added.path) = (DiskId(2), path.clone());
    world.config.disks.push(added);
    let running = world.start().await;
    assert!(running.missing(2).contains("make or mount its directory"));
    running.stop().await;
    fs::create_dir(&path).unwrap();
    let running = world.start().await;
    running.put(2, 1, LEN).await.unwrap();
    running.stop().await;
    // Wiped: its id is never used again.
    fs::remove_dir_all(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let running = world.start().await;
    assert!(running.missing(2).contains("a new disk under a new id"));
    check_serves(&running, 1).await;
    running.stop().await;
    assert_eq!(contents(&path).len(), 0);
}

#[tokio::test]
async fn a_lost_register_makes_no_unmounted_disk_new() {
    let world = World::new(2);
    filled(&world).await;
    fs::remove_dir_all(&world.config.data_dir).unwrap();
    let away = unmount(&world.path(2));
    for _ in 0..2 {
        let running = world.start().await;
        check_serves(&running, 1).await;
        assert!(running.missing(2).contains("mount it"));
        running.stop().await;
    }
    mount(&away, &world.path(2));
    let running = world.start().await;
    check_serves(&running, 2).await;
    running.stop().await;
}

#[tokio::test]
async fn the_data_directory_of_another_node_or_cluster_is_refused() {
    let mut world = World::new(1);
    filled(&world).await;
    let before = contents(&world.config.data_dir);
    world.config.node = NodeId(2);
    let refused = world.try_start().await.err();
    assert!(
        matches!(&refused, Some(StartError::Register(RegisterError::OtherNode { found, .. })) if *found == NodeId(1)),
        "{refused:?}"
    );
    world.config.node = NodeId(1);
    world.cluster = ClusterId(5);
    let refused = world.try_start().await.err();
    assert!(
        matches!(refused, Some(StartError::Register(RegisterError::OtherCluster))),
        "{refused:?}"
    );
    assert!(before == contents(&world.config.data_dir));
}

/// A path that is a file, and a directory in which nothing can be made: each is that disk's trouble alone.
#[tokio::test]
async fn a_path_that_is_no_directory_is_a_missing_disk() {
    let world = World::new(2);
    fs::remove_dir(world.path(2)).unwrap();
    fs::write(world.path(2), b"a file").unwrap();
    let running = world.start().await;
    assert_eq!(running.status(1).state, DiskState::Ready);
    let reason = running.missing(2);
    assert!(reason.contains("the rights of its directory"), "{reason}");
    running.stop().await;
    assert_eq!(fs::read(world.path(2)).unwrap(), b"a file");
}
