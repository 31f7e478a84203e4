//! A socket whose reads are observed, as a connection of HTTP/2 has it.
//!
//! Not here: HTTP/1.1, whose connections have a socket of their own kind (`parking`).

use crate::drive::upload::source::Inlet;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite};

/// See the file.
pub(super) struct Observed<S> {
    socket: TokioIo<S>,
    inlet: Inlet,
}

impl<S> Observed<S> {
    pub(super) fn new(socket: S, inlet: Inlet) -> Self {
        Self {
            socket: TokioIo::new(socket),
            inlet,
        }
    }
}

impl<S: AsyncRead + Unpin> Read for Observed<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, room: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let Self { socket, inlet } = self.get_mut();
        inlet.read(context, |context| Read::poll_read(Pin::new(socket), context, room))
    }
}

impl<S: AsyncWrite + Unpin> Write for Observed<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Write::poll_write(Pin::new(&mut self.get_mut().socket), context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Write::poll_flush(Pin::new(&mut self.get_mut().socket), context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Write::poll_shutdown(Pin::new(&mut self.get_mut().socket), context)
    }

    fn is_write_vectored(&self) -> bool {
        Write::is_write_vectored(&self.socket)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Write::poll_write_vectored(Pin::new(&mut self.get_mut().socket), context, slices)
    }
}
