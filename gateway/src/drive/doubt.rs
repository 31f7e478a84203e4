//! Doubting a replica that does not answer: whether another one leads its group by now, before the call's deadline tells.
//!
//! A process that was killed or paused answers nothing at all, and a deadline that lets a slow disk through is longer than an
//! election. So while a call waits, the group's other replicas are asked, and the call is given up once one of them says that it
//! leads and that a majority confirmed it. That is news only when it was said after the call had begun.
//! Invariants: one caller asks for all that wait; what a replica believes of another one counts for nothing.
//! Not here: what is done with the news (`metadata_client`).

use crate::seams::Seams;
use bytes::Bytes;
use model::id::GroupId;
use model::process::ProcessId;
use protocol::frame::{Call, Method, decode};
use protocol::status::MetadataStatus;
use rpc::transport::Peer;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// A commit takes a few milliseconds, ten times that when its disk is slow; shorter than the shortest election, and no shorter, so
/// that a busy leader is left in peace.
pub(super) const DOUBT_AFTER: Duration = Duration::from_millis(400);
/// Between two looks: what a failover takes longer at most.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A leader asks a majority before it answers.
const LOOK_DEADLINE: Duration = Duration::from_millis(500);

/// The leader of a group as it said itself, and when.
#[derive(Clone, Copy)]
struct Confirmed {
    at: Duration,
    leader: Peer,
}

/// What was found out about leaders.
pub(super) struct Doubts {
    confirmed: Mutex<BTreeMap<GroupId, Confirmed>>,
    asking: Semaphore,
}

impl Doubts {
    pub(super) fn new() -> Self {
        Self {
            confirmed: Mutex::new(BTreeMap::new()),
            asking: Semaphore::new(1),
        }
    }

    /// Returns once a replica other than `asked` leads `group`, and never otherwise; `peers` are the group's replicas. May be dropped
    /// midway.
    pub(super) async fn another_leads(&self, seams: &Seams, group: GroupId, asked: ProcessId, peers: &[Peer]) -> Peer {
        let begun = seams.clock.monotonic();
        loop {
            seams.clock.sleep(LOOK_EVERY).await;
            if let Some(leader) = self.news(group, asked, begun) {
                return leader;
            }
            if seams.clock.monotonic().saturating_sub(begun) < DOUBT_AFTER {
                continue;
            }
            let Ok(_asking) = self.asking.try_acquire() else {
                continue;
            };
            if let Some(leader) = look(seams, group, asked, peers).await {
                let at = seams.clock.monotonic();
                let mut confirmed = self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
                confirmed.insert(group, Confirmed { at, leader });
            }
        }
    }

    /// Another leader than `asked` that was confirmed after `begun`.
    fn news(&self, group: GroupId, asked: ProcessId, begun: Duration) -> Option<Peer> {
        // Every change under the lock is one map operation.
        let confirmed = self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        let found = confirmed.get(&group)?;
        (found.at > begun && found.leader.process != asked).then_some(found.leader)
    }
}

/// The first of the other replicas that says that it leads the group with a majority.
async fn look(seams: &Seams, group: GroupId, asked: ProcessId, peers: &[Peer]) -> Option<Peer> {
    let mut looks = JoinSet::new();
    for peer in peers.iter().filter(|peer| peer.process != asked).copied() {
        let seams = seams.clone();
        looks.spawn(async move { leads(&seams, group, &peer).await.then_some(peer) });
    }
    while let Some(looked) = looks.join_next().await {
        if let Ok(Some(leader)) = looked {
            return Some(leader);
        }
    }
    None
}

async fn leads(seams: &Seams, group: GroupId, peer: &Peer) -> bool {
    let call = Call {
        method: Method::MetadataStatus,
        request_id: 0,
        message: Bytes::new(),
        payload: Bytes::new(),
    };
    let Ok(answer) = seams.transport.call(peer, call, LOOK_DEADLINE).await else {
        return false;
    };
    let status = decode::<MetadataStatus>(&answer.message);
    status.is_ok_and(|status| {
        let mut groups = status.groups.iter();
        groups.any(|found| found.group == group && found.has_quorum)
    })
}

#[cfg(test)]
mod tests {
    use super::{DOUBT_AFTER, Doubts};
    use crate::seams::Seams;
    use async_trait::async_trait;
    use bytes::Bytes;
    use codec::cipher::Aes256Gcm;
    use daemon::clock::{Clock, SystemClock};
    use daemon::metrics::Metrics;
    use daemon::pool::Pool;
    use daemon::random::Random;
    use model::id::{ClusterId, GroupId, RaftId};
    use model::process::{ProcessId, Role};
    use protocol::frame::{Answer, Call, Method, encode};
    use protocol::status::{GroupStatus, MetadataStatus};
    use protocol::wire_error::Failure;
    use rpc::memory::MemoryNetwork;
    use rpc::transport::{Handler, Peer};
    use std::sync::Arc;

    const GROUP: GroupId = GroupId(1);

    /// Believes that the first replica leads; whether it leads itself, a majority told it.
    struct Replica {
        number: u64,
        has_quorum: bool,
    }

    #[async_trait]
    impl Handler for Replica {
        async fn handle(&self, _: ProcessId, call: Call) -> Result<Answer, Failure> {
            assert_eq!(call.method, Method::MetadataStatus);
            let status = MetadataStatus {
                replica: RaftId(self.number),
                groups: vec![GroupStatus {
                    group: GROUP,
                    leader: Some(RaftId(1)),
                    term: 2,
                    applied_index: 1,
                    last_index: 1,
                    has_quorum: self.has_quorum,
                    voters: vec![RaftId(1), RaftId(2), RaftId(3)],
                    stopped: None,
                }],
                is_volume_encrypted: None,
            };
            Ok(Answer {
                message: encode(&status)?,
                payload: Bytes::new(),
            })
        }
    }

    #[tokio::test]
    async fn only_another_replica_that_a_majority_confirmed_is_news_and_all_who_wait_hear_it() {
        let clock = Arc::new(SystemClock::new());
        let network = MemoryNetwork::new(clock.clone());
        let cluster = ClusterId(1);
        let mut transports = Vec::new();
        let peers: Vec<Peer> = (1..=3)
            .map(|number| {
                let process = ProcessId {
                    role: Role::Metadata,
                    number,
                };
                // The first would say that it leads: it is the one that was asked, and silence is its answer.
                let replica = Replica {
                    number,
                    has_quorum: number != 2,
                };
                let (transport, address) = network.attach(process, cluster, Arc::new(replica));
                transports.push(transport);
                Peer { process, address }
            })
            .collect();
        let own = ProcessId {
            role: Role::Gateway,
            number: 1,
        };
        let silent = Replica {
            number: 0,
            has_quorum: false,
        };
        let seams = Seams {
            transport: network.attach(own, cluster, Arc::new(silent)).0,
            clock: clock.clone(),
            pool: Pool::inline(),
            random: Random::seeded(1),
            metrics: Metrics::new(),
            cipher: Arc::new(Aes256Gcm),
        };
        let (doubts, begun) = (Doubts::new(), clock.monotonic());
        let wait = || doubts.another_leads(&seams, GROUP, peers[0].process, &peers);
        let (first, second) = tokio::join!(wait(), wait());
        assert_eq!((first.process.number, second.process.number), (3, 3));
        assert!(
            clock.monotonic() - begun >= DOUBT_AFTER,
            "a slow leader is left in peace"
        );
    }
}
