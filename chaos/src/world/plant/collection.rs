//! Bugs of collection, for `oracle::collection`: a count that is too low, a removal that asks nobody, a removal that does not happen.
//!
//! Not here: how collection works (metadata-raft `state::collection`, the gateway's collector).

use super::Plant;
use crate::world::shape;
use async_trait::async_trait;
use bytes::Bytes;
use kv::seam::{Batch, Change, Kv, KvError, KvRead, Scan};
use metadata_raft::state::keys;
use model::id::EntryId;
use model::profile::ProfileId;
use model::stripe::StripeId;
use protocol::frame::{Answer, Call, Method, decode, encode};
use protocol::metadata::drive::DriveCommand;
use protocol::metadata::upload::UploadCommand;
use protocol::metadata::{Command, CommandAnswer, Envelope, GroupReply, ProposeRequest, Reply};
use protocol::node::{RemoveStripe, StripeRemoved};
use rpc::transport::{Peer, RpcError, Transport};
use rpc::typed::{self, CallOptions};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const REMOVAL_DEADLINE: Duration = Duration::from_secs(1);
/// Group, install, slot, table, drive and digest.
const PAGE_KEY_BYTES: usize = 4 + 4 + 2 + 1 + 8 + 32;
const TABLE_AT: usize = 4 + 4 + 2;
/// A stored count of one: the record's form, then the number.
const COUNT_ONE: &[u8] = &[0, 1];

/// A replica's store in which no page is held more than once, however many versions name it: as if a copy raised no count. The same in
/// every replica, since it follows from what is written.
pub struct CountedOnce {
    inner: Arc<dyn Kv>,
}

impl CountedOnce {
    /// `store`, or the same with the bug in front of it.
    #[must_use]
    pub fn around(inner: Arc<dyn Kv>, plant: Option<Plant>) -> Arc<dyn Kv> {
        match plant {
            Some(Plant::CountsSharedOnce) => Arc::new(Self { inner }),
            _ => inner,
        }
    }
}

fn counted_once(change: Change) -> Change {
    match change {
        Change::Put(key, value)
            if key.len() == PAGE_KEY_BYTES && key[TABLE_AT] == keys::PAGE && value.as_ref() > COUNT_ONE =>
        {
            Change::Put(key, Bytes::from_static(COUNT_ONE))
        }
        other => other,
    }
}

impl KvRead for CountedOnce {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        self.inner.get(key)
    }

    fn scan(&self, scan: &Scan) -> Result<Vec<(Bytes, Bytes)>, KvError> {
        self.inner.scan(scan)
    }
}

impl Kv for CountedOnce {
    fn write(&self, batch: Batch) -> Result<(), KvError> {
        self.inner.write(batch.into_iter().map(counted_once).collect())
    }

    fn sync(&self) -> Result<(), KvError> {
        self.inner.sync()
    }

    fn snapshot(&self) -> Box<dyn KvRead + '_> {
        self.inner.snapshot()
    }
}

/// `transport` of a gateway, or the same with a bug of removals in front of it.
#[must_use]
pub fn around(inner: Arc<dyn Transport>, plant: Option<Plant>) -> Arc<dyn Transport> {
    match plant {
        Some(Plant::PurgeRemovesAtOnce) => Arc::new(RemovesAtOnce {
            inner,
            written: Mutex::default(),
        }),
        Some(Plant::RemovesNothing) => Arc::new(RemovesNothing { inner }),
        _ => inner,
    }
}

/// Stripes that commits of a file named first.
type Written = BTreeMap<EntryId, Vec<(ProfileId, StripeId)>>;

/// A gateway that has the stripes of a purged file removed, whoever else has their blocks.
struct RemovesAtOnce {
    inner: Arc<dyn Transport>,
    written: Mutex<Written>,
}

impl RemovesAtOnce {
    fn written(&self) -> MutexGuard<'_, Written> {
        // Single operations on a map.
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn remove(&self, entry: EntryId) {
        let stripes = self.written().remove(&entry).unwrap_or_default();
        for (profile, stripe) in stripes {
            let request = RemoveStripe { profile, stripe };
            for node in shape::nodes() {
                let (peer, options) = (shape::peer(node), CallOptions::within(REMOVAL_DEADLINE));
                let told =
                    typed::ask::<StripeRemoved>(self.inner.as_ref(), &peer, Method::RemoveStripe, &request, options);
                // Who does not hear it keeps its fragment.
                drop(told.await);
            }
        }
    }
}

fn commanded(call: &Call) -> Option<Command> {
    if !matches!(call.method, Method::Propose) {
        return None;
    }
    let request: ProposeRequest = decode(&call.message).ok()?;
    let envelope: Envelope = decode(&request.envelope).ok()?;
    Some(envelope.command)
}

fn answered(answer: &Answer) -> Option<CommandAnswer> {
    let reply: GroupReply = decode(&answer.message).ok()?;
    Reply::<CommandAnswer>::from_bytes(&reply.reply).ok()?.result.ok()
}

#[async_trait]
impl Transport for RemovesAtOnce {
    async fn call(&self, peer: &Peer, call: Call, deadline: Duration) -> Result<Answer, RpcError> {
        let command = commanded(&call);
        let answer = self.inner.call(peer, call, deadline).await?;
        match (command, answered(&answer)) {
            (
                Some(Command::Upload(UploadCommand::CommitUpload { content, .. })),
                Some(CommandAnswer::Committed(done)),
            ) => {
                let stripes = content.stripes.iter().map(|stripe| (stripe.profile, stripe.id));
                self.written().entry(done.view.entry.id).or_default().extend(stripes);
            }
            (Some(Command::Drive(DriveCommand::PurgeEntry { entry, .. })), Some(CommandAnswer::Purged(_))) => {
                self.remove(entry).await;
            }
            _ => {}
        }
        Ok(answer)
    }
}

/// A gateway whose nodes are said to have removed what they never heard of.
struct RemovesNothing {
    inner: Arc<dyn Transport>,
}

#[async_trait]
impl Transport for RemovesNothing {
    async fn call(&self, peer: &Peer, call: Call, deadline: Duration) -> Result<Answer, RpcError> {
        if !matches!(call.method, Method::RemoveStripe) {
            return self.inner.call(peer, call, deadline).await;
        }
        let removed = StripeRemoved {
            fragments: 0,
            disks_failed: Vec::new(),
        };
        Ok(Answer {
            message: encode(&removed).map_err(RpcError::Refused)?,
            payload: Bytes::new(),
        })
    }
}
