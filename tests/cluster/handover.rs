//! A metadata process that is stopped in good order hands the groups that it leads over before it goes.
//!
//! Seen without a clock: of three replicas one is dead, so whoever leads after the stop was elected while the one that was stopped still
//! gave its voice. Not here: replicas alone with elections of minutes (metadata-raft), who leads what (`metadata-raft/tests/replicas`).

use crate::served::eventually;
use crate::world::World;
use chaos::process_attack;
use std::time::Duration;

const REPLICAS: [&str; 3] = ["metadata-1", "metadata-2", "metadata-3"];
/// For so long a leader takes one that died for alive, and might hand over to it: an election of far replicas.
const TAKEN_FOR_ALIVE: Duration = Duration::from_millis(2_100);
/// A replica that answers its leader too late for an election is no successor, which happens on a machine with much else to do. An
/// election instead of a hand-over would be seen in none of the rounds.
const ROUNDS: usize = 4;

/// Stops whoever leads while another replica is dead, and starts both again. Whether the third one led meanwhile.
async fn hands_over(world: &World) -> bool {
    let cluster = &world.cluster;
    let leader = process_attack::leader(cluster).await.unwrap();
    let mut others = REPLICAS.into_iter().filter(|replica| *replica != leader);
    let (dead, successor) = (others.next().unwrap(), others.next().unwrap());
    process_attack::kill(cluster, dead).await.unwrap();
    tokio::time::sleep(TAKEN_FOR_ALIVE).await;
    // Leaders spread by themselves at times; then this round shows nothing.
    let still_leads = process_attack::leader(cluster).await.unwrap() == leader;
    process_attack::stop(cluster, &leader).await.unwrap();
    // One voice of three elects nobody, however long it is tried.
    let next = process_attack::leader(cluster).await;
    let is_handed_over = still_leads && next.is_ok_and(|next| next == successor);
    for gone in [dead, &leader] {
        process_attack::start(cluster, gone).await.unwrap();
    }
    is_handed_over
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
    let mut rounds = 0;
    loop {
        rounds += 1;
        let is_handed_over = hands_over(&world).await;
        let name = format!("after-{rounds}");
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
        if is_handed_over {
            return;
        }
        assert!(rounds < ROUNDS, "a leader that was stopped never handed over");
    }
}
