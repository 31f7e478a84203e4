//! The use cases of a drive: what every front calls, and all that it may call.
//!
//! Invariants: the caller's identity is the first argument of every use case and goes with it to the drive's group, which decides;
//! only this folder names codec, placement and rpc.

pub mod account;
pub mod answers;
pub mod budget;
pub mod collector;
pub mod copies;
pub mod cursor;
pub mod delta;
pub mod directory;
mod doubt;
pub mod download;
pub mod fanout;
pub mod feed;
pub mod gather;
pub mod kept;
pub mod metadata_client;
pub mod notices;
pub mod opened;
pub mod poll;
pub mod probe;
pub mod readiness;
pub mod receipt;
pub mod remembered;
pub mod rewind;
pub mod seals;
pub mod sparing;
pub mod status;
pub mod stripe_reader;
pub mod stripe_writer;
pub mod ticket;
pub mod tree;
pub mod upload;
pub mod versions;
pub mod watching;

use crate::auth::setup::SetupToken;
use crate::config::Limits;
use crate::drive::answers::Answers;
use crate::drive::budget::Budget;
use crate::drive::directory::Directory;
use crate::drive::feed::SharedPages;
use crate::drive::metadata_client::{MetadataClient, unexpected};
use crate::drive::notices::Notices;
use crate::drive::opened::Opened;
use crate::drive::readiness::LastLook;
use crate::drive::receipt::ReceiptKey;
use crate::drive::remembered::Remembered;
use crate::drive::seals::Seals;
use crate::drive::upload::turns::Turns;
use crate::seams::Seams;
use model::authorize::Principal;
use model::id::{DriveId, GroupId};
use protocol::metadata::query::{DriveAsk, DriveFacts, DriveQuery};
use protocol::metadata::user::{TokenFacts, TokenHash};
use protocol::metadata::{Command, CommandAnswer, Query, QueryAnswer, RequestKey, SlotTime};
use protocol::wire_error::Failure;
use std::sync::Arc;

/// Who asks, and in which request.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// The verified owner of the token.
    pub principal: Principal,
    /// The account's home drive.
    pub home: DriveId,
    /// The request, for logs of all processes that it touches.
    pub trace: u128,
}

/// A request's id as its client made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientKey {
    /// The `Idempotency-Key`.
    pub text: String,
    /// The aged hour of the caller's own slot in which it was made (`Holdfast-Age-Hour`), if the client says so.
    pub made_hour: Option<u32>,
}

/// Everything that use cases share.
pub struct Core {
    /// Network, time, threads, randomness, metrics.
    pub seams: Seams,
    /// The cluster as last known.
    pub directory: Directory,
    /// Asks and commands metadata groups.
    pub metadata: Arc<MetadataClient>,
    /// Opened keys of drives.
    pub seals: Seals,
    /// Living tokens, for as long as a revocation may take to count.
    pub tokens: Remembered<TokenHash, Arc<TokenFacts>>,
    /// Living tokens that polls begin with, and the groups that tell of their ends.
    pub poll_tokens: Remembered<TokenHash, (GroupId, Arc<TokenFacts>)>,
    /// What is needed to cut and seal in a drive.
    pub drives: Remembered<DriveId, DriveFacts>,
    /// What uploads may hold in memory.
    pub budget: Budget,
    /// Signs receipts.
    pub receipts: ReceiptKey,
    /// Who goes on with which resumable upload.
    pub turns: Arc<Turns>,
    /// Who waits for changes.
    pub notices: Arc<Notices>,
    /// Answers that are used again once the drive's group has said that they hold.
    pub answers: Arc<Answers>,
    /// Opened blocks of small contents.
    pub opened: Opened,
    /// Pages of feeds that several polls ask for at once.
    pub shared_pages: SharedPages,
    /// What the last look at the control group showed.
    pub last_look: LastLook,
    /// Makes the first administrator.
    pub setup: SetupToken,
    /// What clients may do.
    pub limits: Limits,
}

impl Core {
    /// Asks a drive's group in the name of the caller.
    pub async fn ask(&self, caller: &Caller, drive: DriveId, ask: DriveAsk) -> Result<QueryAnswer, Failure> {
        self.ask_with_time(caller, drive, ask).await.map(|(answer, _)| answer)
    }

    /// As `ask`, of what follows from the drive alone (decision 0043): an answer that is kept is used when the group says that it holds.
    pub async fn ask_kept(&self, caller: &Caller, drive: DriveId, ask: DriveAsk) -> Result<QueryAnswer, Failure> {
        let query = DriveQuery {
            drive,
            principal: Some(caller.principal),
            ask,
        };
        self.answers.ask(query, caller.trace).await
    }

    /// As `ask`, with the time of the drive's slot as the answer told it.
    pub async fn ask_with_time(
        &self,
        caller: &Caller,
        drive: DriveId,
        ask: DriveAsk,
    ) -> Result<(QueryAnswer, Option<SlotTime>), Failure> {
        let query = Query::Drive(DriveQuery {
            drive,
            principal: Some(caller.principal),
            ask,
        });
        self.metadata.query(&query, caller.trace).await
    }

    /// Commands a group; `key` is the client's own request id, when it gave one. Of a command to another slot than the caller's own
    /// the hour of its making is left out: slots age apart.
    pub async fn command(
        &self,
        caller: &Caller,
        command: Command,
        key: Option<RequestKey>,
    ) -> Result<CommandAnswer, Failure> {
        let is_own = command.slot() == Some(caller.home.slot());
        let key = key.map(|key| RequestKey {
            made_hour: key.made_hour.filter(|_| is_own),
            ..key
        });
        self.metadata
            .command(command, key, caller.trace)
            .await
            .map(|(answer, _)| answer)
    }

    /// The request id of a client's own id for a request that is described by `asked`.
    pub fn client_key(&self, caller: &Caller, key: &ClientKey, asked: &[u8]) -> RequestKey {
        let mut id = [0; 16];
        id.copy_from_slice(&codec::digest::request_digest(key.text.as_bytes())[..16]);
        let source = caller
            .principal
            .device
            .map_or(caller.principal.user.0, |device| device.0);
        RequestKey {
            source,
            id: u128::from_le_bytes(id),
            asked: codec::digest::request_digest(asked),
            life: protocol::metadata::RequestLife::Day,
            made_hour: key.made_hour,
        }
    }

    /// `count` random numbers for new entries; 0 and 1 are never given, since 1 is the root.
    pub fn fresh(&self, count: usize) -> Vec<u64> {
        (0..count.max(1)).map(|_| self.seams.random.u64().max(2)).collect()
    }
}

/// Takes the one answer that a question has, or says that it is of another type.
pub(crate) fn expect<T>(taken: Option<T>) -> Result<T, Failure> {
    taken.ok_or_else(unexpected)
}
