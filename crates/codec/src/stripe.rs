//! Stripes: sealed blocks laid end to end, the unit that is erasure coded (docs/format/stripe.md).
//!
//! Invariants: a stripe of several blocks is at most `STRIPE_TARGET_BYTES` long and has at most `STRIPE_BLOCKS_MAX` blocks; a
//! block that is longer lies in a stripe of its own, up to `STRIPE_BYTES_MAX`. There is nothing between or around blocks:
//! where each lies is known to the metadata alone, so a stripe without its metadata is noise.
//! Not here: the id, which is drawn when a stripe closes (gateway), and the cut into fragments (`erasure`).

use bytes::{Bytes, BytesMut};
use model::error_kind::ErrorKind;
use model::stripe::{STRIPE_BLOCKS_MAX, STRIPE_BYTES_MAX, STRIPE_TARGET_BYTES};
use std::ops::Range;

/// Why a block was not laid into a stripe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StripeError {
    /// A sealed block is never empty.
    #[error("lay block: it is empty")]
    Empty,
    /// Longer than any stripe.
    #[error("lay block: {sealed_bytes} sealed bytes, {STRIPE_BYTES_MAX} allowed")]
    TooLarge {
        /// Its length.
        sealed_bytes: usize,
    },
}

impl StripeError {
    /// What it means for the caller.
    #[must_use]
    pub fn kind(self) -> ErrorKind {
        match self {
            Self::Empty => ErrorKind::Bug,
            Self::TooLarge { .. } => ErrorKind::TooLarge,
        }
    }
}

/// A sealed block's place in its stripe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Its first byte.
    pub offset: u32,
    /// Its sealed bytes.
    pub sealed_bytes: u32,
}

impl Placement {
    /// Its bytes of the stripe.
    #[must_use]
    pub fn range(self) -> Range<usize> {
        let first = self.offset as usize;
        first..first + self.sealed_bytes as usize
    }
}

/// A stripe to which nothing is added any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosedStripe<T> {
    /// Its bytes.
    pub bytes: Bytes,
    /// What was laid into it, in order, each with its place.
    pub blocks: Vec<(T, Placement)>,
}

/// Lays sealed blocks end to end; `T` is whatever the caller must know a block by when its stripe closes.
///
/// Memory: the sealed blocks of one stripe, and at its closing once more.
pub struct StripeBuilder<T> {
    sealed: Vec<Bytes>,
    blocks: Vec<(T, Placement)>,
    length: usize,
}

impl<T> Default for StripeBuilder<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> StripeBuilder<T> {
    /// Starts without blocks.
    #[must_use]
    pub fn new() -> Self {
        Self {
            sealed: Vec::new(),
            blocks: Vec::new(),
            length: 0,
        }
    }

    /// Sealed bytes of the stripe that has not closed.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.length
    }

    /// Lays the next block; answers the stripe that closed before it, when it would have passed a limit.
    ///
    /// Errors: `Empty`, `TooLarge`; the builder is then unchanged.
    pub fn push(&mut self, block: T, sealed: Bytes) -> Result<Option<ClosedStripe<T>>, StripeError> {
        let sealed_bytes = sealed.len();
        if sealed_bytes == 0 {
            return Err(StripeError::Empty);
        }
        if sealed_bytes > STRIPE_BYTES_MAX {
            return Err(StripeError::TooLarge { sealed_bytes });
        }
        let is_full = self.length + sealed_bytes > STRIPE_TARGET_BYTES || self.blocks.len() == STRIPE_BLOCKS_MAX;
        let closed = if is_full { self.close() } else { None };
        let narrow = |bytes: usize| u32::try_from(bytes).expect("offsets and lengths in a stripe fit 32 bits");
        self.blocks.push((
            block,
            Placement {
                offset: narrow(self.length),
                sealed_bytes: narrow(sealed_bytes),
            },
        ));
        self.sealed.push(sealed);
        self.length += sealed_bytes;
        Ok(closed)
    }

    /// Closes the stripe; `None` when it has no block. The builder may go on with the next.
    pub fn close(&mut self) -> Option<ClosedStripe<T>> {
        if self.sealed.is_empty() {
            return None;
        }
        let bytes = if self.sealed.len() == 1 {
            self.sealed.remove(0)
        } else {
            // The one copy of the write path behind sealing: fragments are contiguous ranges of the stripe, and a block
            // usually crosses a fragment's edge.
            let mut bytes = BytesMut::with_capacity(self.length);
            for sealed in self.sealed.drain(..) {
                bytes.extend_from_slice(&sealed);
            }
            bytes.freeze()
        };
        self.length = 0;
        Some(ClosedStripe {
            bytes,
            blocks: std::mem::take(&mut self.blocks),
        })
    }
}
