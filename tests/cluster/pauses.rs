//! Processes that stand still in the middle of uploads for longer than every deadline.
//!
//! Not here: the judging, which `make pauses` shares with a whole minute for each role (`chaos::long_pause`).

use crate::world::World;
use chaos::{long_pause, process_attack};
use std::time::Duration;

/// Longer than an idle connection (6 s), a proposal (5 s), the breakers and an election last.
const SPAN: Duration = Duration::from_secs(12);

/// A gateway, the leader of the drive's group and a node at once: the other gateway serves everybody who works there.
///
/// shows: D-3.4 scale=1/2, F30 scale=1/2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_paused_in_the_middle_of_commits_leave_nothing_half_and_lose_nothing() {
    let world = World::start_with(&["--processes", "--gateways", "2", "--groups", "1"]).await;
    let leader = process_attack::leader(&world.cluster).await.unwrap();
    let shown = long_pause::strike(&world.cluster, &["gateway-1", &leader, "node-3"], SPAN, "/pause").await;
    let shown = shown.unwrap();
    assert!(
        shown.meanwhile > 0 && shown.caught > 0 && shown.in_commit > 0,
        "{shown:?}"
    );
}
