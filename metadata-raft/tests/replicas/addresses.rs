//! Replicas that come back at other addresses than those that their groups remember.

use crate::drive::{Drive, GROUP, names};
use crate::world::{Wires, World};

async fn check(wires: Wires) {
    let mut world = World::up(wires, 3, 1).await;
    let all = world.numbers();
    let drive = Drive::create(&world).await;
    drive.make(&world, 0..5).await;
    let mut made = 5;
    // One after the other ends and comes back elsewhere; the others keep running on the addresses that they were started with.
    for moved in [2, 3, 1] {
        let before = world.address(moved);
        world.kill(moved).await;
        drive.make(&world, made..made + 5).await;
        world.start(&[moved]).await;
        assert_ne!(world.address(moved), before, "the world gives other addresses");
        world.caught_up(&[moved]).await;
        made += 5;
    }
    // Each of them is needed for a majority now, and each may lead.
    for away in all.clone() {
        world.kill(away).await;
        drive.make(&world, made..made + 5).await;
        made += 5;
        assert_ne!(world.leader(GROUP).await, away);
        world.start(&[away]).await;
        world.caught_up(&[away]).await;
    }
    assert_eq!(drive.names(&world).await, names(0..made));
    for number in all {
        world.stop(number).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_comes_back_elsewhere_is_found() {
    check(Wires::memory()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_comes_back_elsewhere_is_found_over_quic() {
    check(Wires::quic()).await;
}
