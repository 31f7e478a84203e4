//! Frames on QUIC streams: reads and writes the parts that wire.rs describes.
//!
//! Invariants: memory grows with what has arrived, never with what is announced beyond its limit; bytes behind a frame are refused.

use crate::wire::{Frame, Lengths, PREAMBLE_BYTES, decode_preamble};
use bytes::{Bytes, BytesMut};
use model::error_kind::ErrorKind;
use protocol::wire_error::Failure;
use quinn::{ConnectionError, ReadError, ReadExactError, RecvStream, SendStream, WriteError};

/// Why a frame could not be read.
#[derive(Debug)]
pub(crate) enum FrameError {
    /// The other side gave the stream up.
    Reset,
    /// The connection is gone.
    Lost(ConnectionError),
    /// The bytes are no frame.
    Malformed(Failure),
}

impl From<ReadError> for FrameError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::ConnectionLost(error) => Self::Lost(error),
            ReadError::Reset(_)
            | ReadError::ClosedStream
            | ReadError::IllegalOrderedRead
            | ReadError::ZeroRttRejected => Self::Reset,
        }
    }
}

impl From<Failure> for FrameError {
    fn from(failure: Failure) -> Self {
        Self::Malformed(failure)
    }
}

fn cut_off() -> FrameError {
    Failure::new(
        ErrorKind::Invalid,
        "malformed_message",
        "the stream ends in the middle of a frame",
    )
    .into()
}

/// Reads the preamble and the head behind it; the payload is left on the stream.
pub(crate) async fn read_head(recv: &mut RecvStream, magic: [u8; 4]) -> Result<(Bytes, Lengths), FrameError> {
    let mut preamble = [0; PREAMBLE_BYTES];
    recv.read_exact(&mut preamble).await.map_err(|error| match error {
        ReadExactError::FinishedEarly(_) => cut_off(),
        ReadExactError::ReadError(error) => error.into(),
    })?;
    let lengths = decode_preamble(&preamble, magic)?;
    let mut head = BytesMut::new();
    while head.len() < lengths.head {
        let chunk = recv
            .read_chunk(lengths.head - head.len(), true)
            .await?
            .ok_or_else(cut_off)?;
        if head.is_empty() && chunk.bytes.len() == lengths.head {
            return Ok((chunk.bytes, lengths));
        }
        // A head over several packets is copied together: the decoder needs it in one piece.
        head.extend_from_slice(&chunk.bytes);
    }
    Ok((head.freeze(), lengths))
}

/// Reads a payload of exactly `len` bytes and the end of the stream behind it.
pub(crate) async fn read_payload(recv: &mut RecvStream, len: usize) -> Result<Bytes, FrameError> {
    // 32 chunks are about one socket read of a full window; each chunk is one packet's bytes, not copied by quinn.
    let mut chunks: [Bytes; 32] = std::array::from_fn(|_| Bytes::new());
    let mut payload = BytesMut::new();
    let mut received = 0;
    while let Some(count) = recv.read_chunks(&mut chunks).await? {
        for chunk in &mut chunks[..count] {
            let chunk = std::mem::take(chunk);
            received += chunk.len();
            if received > len {
                let detail = "bytes follow behind the frame";
                return Err(Failure::new(ErrorKind::Invalid, "malformed_message", detail).into());
            }
            if payload.is_empty() {
                // Room for all of it once something came: the length is within its limit, and its bytes were reserved.
                payload.reserve(len);
            }
            // The one copy of a received payload: a packet holds 1.2 to 1.4 KB, and whoever checks, decodes or writes the
            // payload needs it in one piece. About 0.1 core-ns a byte against QUIC's 1.5.
            payload.extend_from_slice(&chunk);
        }
    }
    if received < len {
        return Err(cut_off());
    }
    Ok(payload.freeze())
}

/// Writes a frame and ends the stream. The payload is handed over, not copied.
pub(crate) async fn write_frame(send: &mut SendStream, frame: Frame) -> Result<(), WriteError> {
    let mut parts = [frame.front, frame.message, frame.payload];
    send.write_all_chunks(&mut parts).await?;
    send.finish()?;
    Ok(())
}
