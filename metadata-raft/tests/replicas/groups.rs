//! Several drive groups on the same processes: one journal and one store for all, killed under interleaved load; who leads them.

use crate::drive::{Drive, names};
use crate::world::{PATIENCE, Wires, World};
use metadata_raft::service::MetadataService;
use model::error_kind::ErrorKind;
use model::id::{CONTROL_GROUP, GroupId, RaftId, SLOTS, Slot};
use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

const GROUPS: u32 = 4;

/// A name whose slot the group serves: slots are dealt out in equal runs.
fn name_in(group: GroupId) -> String {
    let run = SLOTS / u16::try_from(GROUPS).unwrap();
    let first = run * u16::try_from(group.0 - 1).unwrap();
    (0..)
        .map(|number| format!("user{number}"))
        .find(|name| (first..first + run).contains(&Slot::of_username(name).number()))
        .unwrap()
}

async fn drives(world: &World) -> Vec<Drive> {
    let mut drives = Vec::new();
    for group in (1..=GROUPS).map(GroupId) {
        drives.push(Drive::create_in(world, group, &name_in(group)).await);
    }
    drives
}

/// How many groups each of the running replicas leads, as the first of them sees it.
async fn led(world: &World) -> BTreeMap<u64, usize> {
    let mut led = BTreeMap::new();
    for group in std::iter::once(CONTROL_GROUP).chain((1..=GROUPS).map(GroupId)) {
        *led.entry(world.leader(group).await).or_default() += 1;
    }
    led
}

/// All processes end at once while all groups are written to; each group comes back with everything that it acknowledged.
///
/// shows: B-3 scale=1/2
/// shows: CMP-shard side=subset
/// shows: D-3.1 side=one-slot
#[tokio::test(flavor = "multi_thread")]
async fn four_groups_share_a_journal_and_lose_nothing_when_all_processes_are_killed() {
    let mut world = World::new(Wires::memory(), 3, GROUPS);
    let all = world.numbers();
    world.start(&all).await;
    let drives = drives(&world).await;
    let mut made = 0;
    for _ in 0..2 {
        let writes = drives.iter().map(|drive| drive.make(&world, made..made + 25));
        futures_util::future::join_all(writes).await;
        made += 25;
        for number in &all {
            world.kill(*number).await;
        }
        world.start(&all).await;
        for drive in &drives {
            assert_eq!(drive.names(&world).await, names(0..made), "group {}", drive.group);
        }
    }
    for number in &all {
        let logs = fs::read_dir(world.directory(*number).join("disk")).unwrap();
        let journals = logs
            .filter(|entry| entry.as_ref().unwrap().file_type().unwrap().is_dir())
            .count();
        assert_eq!(journals, 1, "replica {number} has one journal for {GROUPS} groups");
    }
}

/// Each replica stands in a region of its own. Who leads at once after a planned stop is shown beside `Group` (`handover`).
#[tokio::test(flavor = "multi_thread")]
async fn leaders_spread_over_processes_and_regions_and_again_when_one_stops() {
    let mut world = World::up(Wires::memory(), 3, GROUPS).await;
    let spread = async |world: &World, replicas: usize, most: usize| {
        let look = async {
            loop {
                let led = led(world).await;
                if led.len() == replicas && led.values().all(|count| *count <= most) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        // A hand-over that did not end in time is tried again after half a minute.
        tokio::time::timeout(PATIENCE * 4, look).await.unwrap();
    };
    // Five groups over three processes.
    spread(&world, 3, 2).await;
    world.stop(2).await;
    spread(&world, 2, 3).await;
    world.start(&[2]).await;
    spread(&world, 3, 2).await;
}

/// Who says of itself that it leads the group: what others say may be of before.
async fn leader_by_itself(world: &World, group: GroupId) -> u64 {
    let look = async {
        loop {
            let leads = |(_, service): &(u64, Arc<MetadataService>)| service.groups()[&group].is_leader();
            if let Some((number, _)) = world.services().into_iter().find(leads) {
                return number;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.unwrap()
}

/// Hands both groups to one replica; whether that came about.
async fn gather(world: &World, groups: [GroupId; 2], at: u64) -> bool {
    for group in groups {
        let leader = leader_by_itself(world, group).await;
        let handed = world.replica(leader).service.groups()[&group].clone();
        if leader != at && !handed.hand_over(RaftId(at)).await {
            return false;
        }
    }
    true
}

/// The first two replicas share a region. By their numbers each of them would hand to the other.
#[tokio::test(flavor = "multi_thread")]
async fn of_replicas_that_lead_nothing_the_one_in_the_other_region_is_handed_a_group() {
    let mut world = World::new(Wires::memory(), 3, 1);
    world.regions = vec!["a", "a", "b"];
    let all = world.numbers();
    world.start(&all).await;
    world.caught_up(&all).await;
    let groups = [CONTROL_GROUP, GroupId(1)];
    for full in [1, 2] {
        let handed = async {
            let mut is_gathered = false;
            loop {
                let [first, second] = groups.map(|group| leader_by_itself(&world, group));
                let mut leaders = [first.await, second.await];
                leaders.sort_unstable();
                if is_gathered && leaders == [full, 3] {
                    return;
                }
                // An election may have moved them too, and then they rest where they are.
                if leaders != [full, full] {
                    is_gathered = gather(&world, groups, full).await;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        // A hand-over that did not end in time is tried again after half a minute.
        tokio::time::timeout(PATIENCE * 4, handed).await.unwrap();
    }
}

/// shows: CMP-replica side=reads
/// shows: SCL-1 side=replicas
#[tokio::test(flavor = "multi_thread")]
async fn any_replica_answers_a_query_with_what_was_acknowledged_and_counts_it() {
    let world = World::up(Wires::quic(), 3, GROUPS).await;
    let all = world.numbers();
    let drives = drives(&world).await;
    let (mut made, mut answered) = (0, 0);
    for _ in 0..10 {
        for drive in &drives {
            drive.make(&world, made..made + 1).await;
            for number in &all {
                // A replica that has just lost its leader may refuse; what it answers is complete.
                if let Ok(answer) = world.query_at(*number, drive.group, &drive.listing()).await {
                    let protocol::metadata::QueryAnswer::Listing(listing) = answer else {
                        panic!("{answer:?}")
                    };
                    let found: Vec<String> = listing.entries.into_iter().map(|entry| entry.name).collect();
                    assert_eq!(found, names(0..made + 1), "replica {number}, group {}", drive.group);
                    answered += 1;
                }
            }
        }
        made += 1;
    }
    assert!(answered > 100, "{answered} of 120 queries were answered");
    let counted: u64 = all
        .iter()
        .map(|number| {
            let text = world.replica(*number).metrics.encode();
            let line = text
                .lines()
                .find(|line| line.starts_with("metadata_follower_reads_total{kind=\"drive\"}"));
            line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
        })
        .sum();
    assert!(counted > 60, "{counted} of {answered} answers came from followers");
}

/// Two of its three replicas stop; processes, journals and stores go on with the other groups.
///
/// shows: D-3.9 side=isolation
#[tokio::test(flavor = "multi_thread")]
async fn a_group_without_a_majority_costs_the_users_of_the_others_nothing() {
    let world = World::up(Wires::memory(), 3, GROUPS).await;
    let all = world.numbers();
    let drives = drives(&world).await;
    let lost = GroupId(2);
    for number in [1, 2] {
        world.replica(number).service.groups()[&lost].stop().await;
    }
    for drive in &drives {
        if drive.group == lost {
            for number in &all {
                let refused = world.query_at(*number, lost, &drive.listing()).await;
                let kind = refused.map_err(|failure| failure.kind);
                assert_eq!(kind, Err(ErrorKind::Unavailable), "replica {number}");
            }
        } else {
            drive.make(&world, 0..10).await;
            assert_eq!(drive.names(&world).await, names(0..10), "group {}", drive.group);
        }
    }
}

/// The group of drive 1 rests while that of drive 2 fills segment after segment.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_groups_tail_is_carried_forward_so_that_old_segments_go() {
    let mut world = World::new(Wires::memory(), 3, GROUPS);
    let all = world.numbers();
    world.start(&all).await;
    let drives = drives(&world).await;
    let (idle, busy) = (&drives[0], &drives[1]);
    idle.make(&world, 0..20).await;
    let segments = |number: u64| -> Vec<String> {
        let files = fs::read_dir(world.directory(number).join("disk/raft")).unwrap();
        let mut names: Vec<String> = files
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let first = segments(1)[0].clone();
    // Five segments of eight MiB: the log keeper keeps two full ones.
    for _ in 0..48 {
        busy.fill(&world).await;
    }
    let gone = async {
        while segments(1).contains(&first) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    // The log keeper looks every ten seconds.
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
    for number in &all {
        world.kill(*number).await;
    }
    world.start(&all).await;
    assert_eq!(
        idle.names(&world).await,
        names(0..20),
        "the idle group has its entries and its votes"
    );
    idle.make(&world, 20..22).await;
    assert_eq!(idle.names(&world).await, names(0..22));
}
