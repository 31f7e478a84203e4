//! What a node has read of its disks and not yet sent: bounded, since gateways may ask for more at once than it has memory.
//!
//! Invariants: a read waits for room before a byte of it is read, in the order of arrival; the room is given back when the bytes
//! are, which is when the network has done with them. How many may wait is the transport's bound; each has its caller's deadline.
//! Not here: bytes that come in, which the transport bounds itself.

use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// As many bytes as may come in at once. A guess: sixteen of the largest answers, a second of reading from a fast disk.
pub const READ_BYTES_MAX: usize = 256 << 20;
/// Bytes are counted in units of this; also the least that a read counts for.
const UNIT_BYTES: usize = 4 << 10;

/// The room of a node; clones are the same one.
#[derive(Clone)]
pub(crate) struct ReadRoom(Arc<Semaphore>);

/// A part of the room; dropping it gives it back.
pub(crate) struct Reserved {
    _permit: OwnedSemaphorePermit,
}

/// Bytes with the room that they take.
struct Held {
    bytes: Bytes,
    _room: Reserved,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl ReadRoom {
    pub(crate) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes / UNIT_BYTES)))
    }

    /// Waits until there is room for `bytes`, which are at most a payload. `None` when the room was closed, which it never is.
    pub(crate) async fn enter(&self, bytes: u64) -> Option<Reserved> {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES as u64).max(1)).ok()?;
        let permit = Arc::clone(&self.0).acquire_many_owned(units).await.ok();
        permit.map(|permit| Reserved { _permit: permit })
    }
}

impl Reserved {
    /// The same bytes, which give the room back when the last view of them is dropped. Copies nothing.
    pub(crate) fn keep(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Held { bytes, _room: self })
    }
}

const _: () = assert!(
    READ_BYTES_MAX >= protocol::frame::PAYLOAD_BYTES_MAX,
    "the largest answer must fit, or it would wait for ever"
);

#[cfg(test)]
mod tests {
    use super::{ReadRoom, UNIT_BYTES};
    use bytes::Bytes;
    use std::pin::{Pin, pin};
    use std::task::{Context, Waker};

    const UNIT: u64 = UNIT_BYTES as u64;

    fn is_ready(work: Pin<&mut impl Future>) -> bool {
        work.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[tokio::test]
    async fn a_read_waits_for_room_until_bytes_that_were_read_are_gone() {
        let room = ReadRoom::new(3 * UNIT_BYTES);
        let first = room.enter(1).await.unwrap().keep(Bytes::from_static(b"one"));
        let second = room.enter(2 * UNIT).await.unwrap();
        let mut third = pin!(room.enter(UNIT + 1));
        assert!(!is_ready(third.as_mut()));
        let view = first.slice(1..2);
        drop(first);
        drop(second);
        assert!(is_ready(third), "two of three units are free");
        let mut whole = pin!(room.enter(3 * UNIT));
        assert!(!is_ready(whole.as_mut()), "a view is left");
        assert_eq!(view, "n");
        drop(view);
        assert!(is_ready(whole));
    }
}
