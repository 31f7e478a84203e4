//! A metadata process that is stopped in good order hands the groups that it leads over before it goes.
//!
//! Seen without a clock: of three replicas one is dead, so whoever leads after the stop was elected while the one that was stopped still
//! gave its voice. Every round must end so; where a replica could not hand over, its own log says why.
//! Not here: replicas alone with elections of minutes (metadata-raft), who leads what (`metadata-raft/tests/replicas`).

use crate::served::eventually;
use crate::world::World;
use chaos::process_attack::{self, DRIVE_GROUP};
use std::fs;
use std::time::Duration;

const REPLICAS: [&str; 3] = ["metadata-1", "metadata-2", "metadata-3"];
/// For so long a leader takes one that died for alive, and might hand over to it: an election of far replicas.
const TAKEN_FOR_ALIVE: Duration = Duration::from_millis(2_100);
/// Rounds in which it handed over. No other round may end in an election instead.
const ROUNDS: usize = 2;
/// Rounds that prove nothing, for a reason that the replica wrote down itself. Each is rare on a machine with little else to do.
const EXCUSED_MAX: usize = 4;

/// What one round showed.
enum Round {
    HandedOver,
    /// It could not hand over; why.
    Excused(&'static str),
}

/// What a replica has written since its log had `from` bytes.
fn written(world: &World, replica: &str, from: usize) -> String {
    let log = world.data_dir().join("log").join(format!("{replica}.log"));
    fs::read_to_string(log).unwrap().split_off(from)
}

/// The line in which the replica says what became of the drives' group at its stop.
fn said_at_the_stop(text: &str) -> Option<&str> {
    let of_group = |line: &&str| {
        let group = format!("group={DRIVE_GROUP}");
        (line.contains("handed over at the stop") || line.contains("stops as leader"))
            && line.split_whitespace().any(|word| word == group)
    };
    text.lines().rfind(of_group)
}

/// Stops whoever leads while another replica is dead, and starts both again.
///
/// Excused is only a leader that led no more when it was stopped, since leaders spread by themselves, and one that nobody had answered
/// in the time of an election, which happens on a machine with much else to do.
async fn round(world: &World) -> Round {
    let cluster = &world.cluster;
    let leader = process_attack::leader(cluster).await.unwrap();
    let mut others = REPLICAS.into_iter().filter(|replica| *replica != leader);
    let (dead, successor) = (others.next().unwrap(), others.next().unwrap());
    process_attack::kill(cluster, dead).await.unwrap();
    tokio::time::sleep(TAKEN_FOR_ALIVE).await;
    let from = written(world, &leader, 0).len();
    process_attack::stop(cluster, &leader).await.unwrap();
    let text = written(world, &leader, from);
    let shown = match said_at_the_stop(&text) {
        None => Round::Excused("it led no more"),
        Some(line) if line.contains("stops as leader") => Round::Excused("nobody had answered it lately"),
        Some(line) => {
            let number = successor.rsplit_once('-').unwrap().1;
            assert!(
                line.contains(&format!("successor={number}")) && line.contains("is_done=true"),
                "{leader} was to hand over to {successor}: {line}"
            );
            // One voice of three elects nobody, however long it is tried.
            let next = process_attack::leader(cluster).await.unwrap();
            assert_eq!(next, successor, "{line}");
            Round::HandedOver
        }
    };
    for gone in [dead, &leader] {
        process_attack::start(cluster, gone).await.unwrap();
    }
    shown
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_stopped_in_good_order_leaves_another_in_its_place() {
    let world = World::start_with(&["--processes", "--groups", "1"]).await;
    // Hand-overs have the time of an election, which is longest there.
    for replica in REPLICAS {
        let (near, far) = ("timing = \"lan\"", "timing = \"wan\"");
        process_attack::reconfigure(&world.cluster, replica, near, far)
            .await
            .unwrap();
    }
    let (mut handed_over, mut excused) = (0, 0);
    for number in 1.. {
        let shown = round(&world).await;
        let name = format!("after-{number}");
        let write = async || match world.client.make_folder(&format!("/{name}")).await {
            Ok(_) => Ok(()),
            Err(error) => {
                let listed = world.client.list("/", 100, None).await?.entries;
                // An earlier try was done, and its answer was lost.
                let is_there = listed.iter().any(|entry| entry.name == name);
                if is_there { Ok(()) } else { Err(error) }
            }
        };
        eventually("a write after the stop", write).await;
        match shown {
            Round::HandedOver => handed_over += 1,
            Round::Excused(why) => {
                println!("round {number} proves nothing: {why}");
                excused += 1;
            }
        }
        if handed_over == ROUNDS {
            return;
        }
        assert!(
            excused <= EXCUSED_MAX,
            "{excused} rounds proved nothing, {handed_over} handed over"
        );
    }
}
