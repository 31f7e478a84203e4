//! One block that is sent singly for an upload that was announced: checked against its digest, stored, and named without a reference.
//!
//! Invariants: no byte is kept unless the whole block is the one that was promised; a block that the drive has is not stored again,
//! and its bytes are checked all the same, so that who names a digest alone gets nothing by it.
//! Not here: lists of blocks and their commit (`delta`), tickets (`ticket`).

use crate::codes;
use crate::drive::account::CUT;
use crate::drive::upload::Stage;
use crate::drive::upload::batch::Batch;
use crate::drive::upload::session::Unnamed;
use crate::drive::{Caller, Core, expect};
use crate::metrics;
use bytes::Bytes;
use daemon::pool::Urgency;
use model::entry::BlockRow;
use model::id::UploadId;
use model::limits::BLOCK_BYTES_MAX;
use protocol::codes as group_codes;
use protocol::metadata::query::{DriveAsk, DriveQuery};
use protocol::metadata::upload::UploadCommand;
use protocol::metadata::{Command, Query, QueryAnswer};
use protocol::wire_error::Failure;
use std::sync::Arc;

/// A block that may come in.
pub struct Expected {
    stage: Stage,
    upload: UploadId,
    row: BlockRow,
    is_known: bool,
}

impl Expected {
    /// The longest body that can be it.
    pub fn bytes_max(&self) -> usize {
        match self.row.size {
            0 => BLOCK_BYTES_MAX,
            size => size as usize,
        }
    }
}

impl Core {
    /// Prepares to take a block of an upload in, before its body is read. `sender` is who sends it, `None` when a ticket stands for
    /// that; a `row` of size 0 is of unknown length.
    ///
    /// Errors: `session_not_found`, `quota_exceeded`, `size_mismatch`, `block_too_large`.
    pub async fn expect_block(
        self: &Arc<Self>,
        sender: Option<&Caller>,
        upload: UploadId,
        row: BlockRow,
        trace: u128,
    ) -> Result<Expected, Failure> {
        require_block_size(u64::from(row.size))?;
        let query = Query::Drive(DriveQuery {
            drive: upload.drive,
            principal: sender.map(|caller| caller.principal),
            ask: DriveAsk::Staging { upload, row },
        });
        let staging = match self.metadata.query(&query, trace).await {
            Ok((QueryAnswer::Staging(staging), _)) => staging,
            Ok(_) => return expect(None),
            Err(failure) => return Err(of_upload(failure)),
        };
        if staging.drive.cut != CUT {
            return Err(Failure::bug(
                "the drive is cut by another table than this release knows",
            ));
        }
        let caller = Caller {
            principal: staging.principal,
            home: upload.drive,
            trace,
        };
        let stage = Stage {
            core: Arc::clone(self),
            caller,
            seal: self.seals.of(&staging.drive)?,
            facts: Arc::new(staging.drive),
        };
        Ok(Expected {
            stage,
            upload,
            row,
            is_known: staging.is_known,
        })
    }

    /// Takes the block in. Dropped midway it may be there or not.
    ///
    /// Errors: `size_mismatch`, `digest_mismatch`, and those of writing and naming a stripe.
    pub async fn take_block(&self, expected: Expected, bytes: Bytes) -> Result<(), Failure> {
        let Expected {
            stage,
            upload,
            row,
            is_known,
        } = expected;
        let is_long_enough = !bytes.is_empty() && (row.size == 0 || row.size as usize == bytes.len());
        if !is_long_enough {
            let detail = format!("the body has {} bytes, which is not the block's length", bytes.len());
            return Err(group_codes::SIZE_MISMATCH.because(detail));
        }
        let (seal, plain) = (Arc::clone(&stage.seal), bytes.clone());
        let digest = self
            .seams
            .pool
            .run(Urgency::Foreground, move || seal.digest(&plain))
            .await;
        if digest != row.digest {
            return Err(codes::DIGEST_MISMATCH.failure());
        }
        if is_known {
            return Ok(());
        }
        let length = bytes.len() as u32;
        let mut batch = Batch::default();
        // The first block of a batch never fills it.
        drop(batch.push(bytes));
        let mut unnamed = Unnamed::default();
        unnamed.push(batch.store(&stage).await?);
        let mut mends = 0;
        loop {
            let stripes = unnamed.stripes();
            if stripes.is_empty() {
                // Somebody else's bytes of the same block came first.
                return Ok(());
            }
            let command = Command::Upload(UploadCommand::StageStripes { upload, stripes });
            match self.command(&stage.caller, command, None).await {
                Ok(_) => {
                    let received = self.seams.metrics.counter(&metrics::UPLOADED_BYTES);
                    received.with_label_values::<&str>(&[]).inc_by(u64::from(length));
                    return Ok(());
                }
                Err(failure) => stage.mend(&mut unnamed, failure, &mut mends).await?,
            }
        }
    }
}

/// Refuses a block that is longer than any: `block_too_large`.
pub fn require_block_size(bytes: u64) -> Result<(), Failure> {
    if bytes <= BLOCK_BYTES_MAX as u64 {
        Ok(())
    } else {
        Err(codes::BLOCK_TOO_LARGE.failure())
    }
}

/// Whether the drive of an upload is there is nobody's business who does not own it.
pub fn of_upload(failure: Failure) -> Failure {
    if group_codes::NOT_FOUND.is(&failure) {
        return group_codes::SESSION_NOT_FOUND.failure();
    }
    failure
}
