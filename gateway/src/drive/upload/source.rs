//! Where the bytes of a request come from, and which of them are still taken in when a newer request goes on with their upload.
//!
//! A connection reads ahead of whoever takes its bytes in: what it has read was received, and is not thrown away with its request.
//! Invariants: once an upload is wanted by somebody else, its body ends as soon as the connection has looked at its socket since then,
//! found nothing, and all that it had found before was taken; a sender that goes on sending ends after `LAST_BYTES_MAX` all the same.
//! Not here: who wants an upload (`turns`), what is made of the bytes (`resume`).

use crate::drive::upload::Body;
use bytes::Bytes;
use daemon::clock::Clock;
use futures_util::future::BoxFuture;
use futures_util::task::AtomicWaker;
use futures_util::{FutureExt, StreamExt, stream};
use protocol::wire_error::Failure;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::coop;
use tokio_util::sync::CancellationToken;

/// Most that is still taken of a request whose upload somebody else wants: more than a connection reads ahead and its socket holds.
const LAST_BYTES_MAX: u64 = 16 << 20;
/// How long a connection may take for a look. It needs one step, unless its client does not read what it is told by HTTP/2, and then
/// the connection does not read either: nobody waits for that one.
const LOOK_PATIENCE: Duration = Duration::from_secs(5);

/// Where a connection reads its socket, for whoever must know that nothing is left there.
#[derive(Clone, Default)]
pub struct Inlet(Arc<Looks>);

#[derive(Default)]
struct Looks {
    /// Whoever reads.
    reader: AtomicWaker,
    /// Told of each look that found nothing.
    found_nothing: Notify,
}

impl Inlet {
    /// Carries out a read of the socket.
    pub fn read<T>(&self, context: &mut Context<'_>, read: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        // Before the read: who asks for a look behind it wakes this reader.
        self.0.reader.register(context.waker());
        let read = read(context);
        // A task that has used up its share of the thread is told the same as one whose socket is empty.
        if read.is_pending() && coop::has_budget_remaining() {
            self.0.found_nothing.notify_waiters();
        }
        read
    }

    /// Returns once the socket was looked at, from now on, and had nothing. By then all that was there before is with the request's
    /// body, since a connection reads on only when it has given away what it has. May be dropped midway.
    async fn looked(self) {
        let mut found = pin!(self.0.found_nothing.notified());
        found.as_mut().enable();
        self.0.reader.wake();
        found.await;
    }
}

/// The body of a request and its connection.
pub struct Source {
    body: Body,
    inlet: Option<Inlet>,
}

impl Source {
    /// A body that comes by a connection; without one all of it is there that is ready.
    pub fn new(body: Body, inlet: Option<Inlet>) -> Self {
        Self { body, inlet }
    }

    /// The body until its upload is `wanted` by somebody else, and then what the connection had received of it.
    pub(super) fn until(self, wanted: CancellationToken, clock: Arc<dyn Clock>) -> Body {
        let taking = Taking {
            is_dry: self.inlet.is_none(),
            source: self,
            wanted,
            clock,
            look: None,
            left: LAST_BYTES_MAX,
        };
        let next = |mut taking: Taking| async move { taking.next().await.map(|chunk| (chunk, taking)) };
        stream::unfold(taking, next).boxed()
    }
}

impl From<Body> for Source {
    fn from(body: Body) -> Self {
        Self::new(body, None)
    }
}

struct Taking {
    source: Source,
    wanted: CancellationToken,
    clock: Arc<dyn Clock>,
    /// A look at the socket, once the upload is wanted.
    look: Option<BoxFuture<'static, ()>>,
    /// Whether nothing was there.
    is_dry: bool,
    /// Bytes that may still be taken once the upload is wanted.
    left: u64,
}

impl Taking {
    async fn next(&mut self) -> Option<Result<Bytes, Failure>> {
        tokio::select! {
            biased;
            () = self.wanted.cancelled() => {}
            chunk = self.source.body.next() => return chunk,
        }
        let chunk = self.last().await?;
        if let Ok(bytes) = &chunk {
            self.left = self.left.saturating_sub(bytes.len() as u64);
        }
        Some(chunk)
    }

    /// What was received before the upload was wanted.
    async fn last(&mut self) -> Option<Result<Bytes, Failure>> {
        if self.left == 0 {
            return None;
        }
        if !self.is_dry {
            let inlet = self.source.inlet.clone()?;
            let look = self.look.get_or_insert_with(|| inlet.looked().boxed());
            tokio::select! {
                biased;
                chunk = self.source.body.next() => return chunk,
                () = look.as_mut() => self.is_dry = true,
                () = self.clock.sleep(LOOK_PATIENCE) => return None,
            }
        }
        // What the look found lies in the body already.
        self.source.body.next().now_or_never().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::{Inlet, LAST_BYTES_MAX, Source};
    use bytes::Bytes;
    use daemon::clock::ManualClock;
    use futures_util::task::noop_waker;
    use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
    use model::time::WallTime;
    use std::sync::Arc;
    use std::task::{Context, Poll};
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::UnboundedReceiverStream;
    use tokio_util::sync::CancellationToken;

    fn clock() -> Arc<ManualClock> {
        Arc::new(ManualClock::new(WallTime(1_000)))
    }

    /// A read of a socket that finds nothing.
    fn find_nothing(inlet: &Inlet) {
        let waker = noop_waker();
        let read: Poll<()> = inlet.read(&mut Context::from_waker(&waker), |_| Poll::Pending);
        assert!(read.is_pending());
    }

    #[test]
    fn a_body_that_is_wanted_by_nobody_else_goes_on_and_one_that_is_gives_what_was_received() {
        let (sender, receiver) = mpsc::unbounded_channel();
        let (inlet, wanted) = (Inlet::default(), CancellationToken::new());
        let source = Source::new(UnboundedReceiverStream::new(receiver).boxed(), Some(inlet.clone()));
        let mut body = source.until(wanted.clone(), clock());
        let send = |text: &'static str| sender.send(Ok(Bytes::from_static(text.as_bytes()))).unwrap();
        let mut step = || match body.next().now_or_never() {
            None => "waits".to_owned(),
            Some(None) => "ends".to_owned(),
            Some(Some(chunk)) => String::from_utf8(chunk.unwrap().to_vec()).unwrap(),
        };
        send("a");
        assert_eq!((step(), step()), ("a".to_owned(), "waits".to_owned()));
        // Looks before the upload is wanted say nothing of what comes until then.
        find_nothing(&inlet);
        send("b");
        wanted.cancel();
        assert_eq!((step(), step()), ("b".to_owned(), "waits".to_owned()));
        send("c");
        assert_eq!((step(), step()), ("c".to_owned(), "waits".to_owned()));
        send("d");
        find_nothing(&inlet);
        assert_eq!((step(), step()), ("d".to_owned(), "ends".to_owned()));
    }

    #[test]
    fn a_sender_that_goes_on_is_not_listened_to_for_long() {
        let part = Bytes::from(vec![0; 1 << 20]);
        let body = stream::repeat_with(move || Ok(part.clone())).boxed();
        let wanted = CancellationToken::new();
        wanted.cancel();
        let body = Source::new(body, None).until(wanted, clock());
        let taken = body.try_fold(0, |taken, part| async move { Ok(taken + part.len() as u64) });
        assert_eq!(taken.now_or_never().unwrap().unwrap(), LAST_BYTES_MAX);
    }
}
