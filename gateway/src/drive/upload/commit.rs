//! The commit of a content that came in whole: with its blocks in the metadata, as one command, or by its session.
//!
//! Invariant: a repeat under the client's request id is the same request only when the bytes are the same.
//! Not here: naming rows and the commit of a session (`session`).

use crate::drive::tree::entries_made;
use crate::drive::upload::{Stage, Upload};
use crate::drive::{Core, expect};
use bytes::Bytes;
use model::entry::BlockRow;
use model::id::Slot;
use model::profile::Domain;
use protocol::metadata::upload::{Committed, DirectContent, InlineBlock, Survival, UploadCommand, UploadTarget};
use protocol::metadata::{Command, CommandAnswer, RequestKey};
use protocol::wire_error::Failure;
use std::collections::BTreeMap;

impl Upload {
    /// Commits a content that goes into the metadata whole: at most `block`.
    pub(super) async fn commit_inline(&mut self, block: Option<Bytes>) -> Result<Committed, Failure> {
        let survives = self.stage.core.inline_survival(self.drive().slot());
        self.survival = Some(survives);
        let mut inline = None;
        if let Some(block) = block {
            // At most 4 KiB: cheaper than the way to the pool and back.
            let Stage { core, seal, .. } = &self.stage;
            let digest = seal.digest(&block);
            let mut random = |bytes: &mut [u8]| core.seams.random.fill(bytes);
            let sealed = seal.seal_block(&digest, &block, &mut random);
            let row = BlockRow {
                digest,
                size: block.len() as u32,
            };
            inline = Some(InlineBlock { row, sealed });
            self.open_rows.push(row);
        }
        self.end_last_page();
        self.commit_direct(inline).await
    }

    /// Commits what is durable by now.
    pub(super) async fn commit(&mut self) -> Result<Committed, Failure> {
        self.end_last_page();
        if self.session.is_some() {
            self.name_all().await?;
            return self.commit_session().await;
        }
        self.commit_direct(None).await
    }

    async fn commit_direct(&mut self, inline: Option<InlineBlock>) -> Result<Committed, Failure> {
        let key = self.commit_key();
        let mut mends = 0;
        loop {
            let content = DirectContent {
                size: self.size,
                digest: self.file.finish(),
                pages: self.pages.clone(),
                stripes: self.waiting.stripes(),
                inline: inline.clone(),
            };
            let command = UploadCommand::CommitUpload {
                principal: self.stage.caller.principal,
                drive: self.drive(),
                target: self.order.target.clone(),
                base_version: self.order.base_version,
                fresh: self.fresh(),
                content,
                content_type: self.order.content_type.clone(),
                survival: self.survival()?,
            };
            let Stage { core, caller, .. } = &self.stage;
            match core.command(caller, Command::Upload(command), key).await {
                Ok(CommandAnswer::Committed(committed)) => return Ok(committed),
                Ok(_) => return expect(None),
                Err(failure) => self.stage.mend(&mut self.waiting, failure, &mut mends).await?,
            }
        }
    }

    /// The client's request id for this very content: a repeat with other bytes is another request.
    pub(super) fn commit_key(&self) -> Option<RequestKey> {
        self.order.key.map(|key| {
            let asked = [&key.asked[..], &self.file.finish().0, &self.size.to_le_bytes()].concat();
            RequestKey {
                asked: codec::digest::request_digest(&asked),
                ..key
            }
        })
    }

    pub(super) fn fresh(&self) -> Vec<u64> {
        let count = match &self.order.target {
            UploadTarget::Place { place, with_parents } => entries_made(place, *with_parents),
            UploadTarget::Entry(_) => 1,
        };
        self.stage.core.fresh(count)
    }

    pub(super) fn survival(&self) -> Result<Survival, Failure> {
        let survival = self
            .survival
            .into_iter()
            .chain(self.waiting.survival())
            .reduce(Survival::least);
        survival.ok_or_else(|| Failure::bug("a content without blocks has no survival"))
    }
}

impl Core {
    /// What a block in the metadata of a slot's group survives: the largest domain whose loss leaves a majority of the voters.
    pub fn inline_survival(&self, slot: Slot) -> Survival {
        let voters = self.metadata.voters_of(slot);
        let leaves_majority = |key: &dyn Fn(usize) -> String| {
            let mut lost = BTreeMap::<String, usize>::new();
            for at in 0..voters.len() {
                *lost.entry(key(at)).or_default() += 1;
            }
            let worst = lost.values().copied().max().unwrap_or(0);
            (voters.len() - worst) * 2 > voters.len()
        };
        let survives = if leaves_majority(&|at| voters[at].region.clone()) {
            Domain::Region
        } else if leaves_majority(&|at| format!("{}/{}", voters[at].region, voters[at].zone)) {
            Domain::Zone
        } else if leaves_majority(&|at| at.to_string()) {
            Domain::Node
        } else {
            Domain::Disk
        };
        Survival {
            survives,
            is_degraded: false,
        }
    }
}
