//! A connection of HTTP/1.1, parked while the request on it waits (decision 0047).
//!
//! hyper has a buffer of 8 KiB for reading and one for writing for as long as it has a connection, and neither has a smaller size. So the
//! work on a request lies beside hyper's connection and not in it: once it waits, that connection is taken apart, and work and socket
//! are watched here. When the work is done, or the client says something or goes, hyper gets the socket again and reads a head
//! that stands for the request's; the work goes on where it was, or is answered.
//! Invariants: a request is taken on once; nothing that hyper read or wrote is lost when it lets go, and nothing is read here; what hyper
//! does with a client that speaks or goes is not decided here; all wakers are those of the connection's one task, and whatever is
//! watched is looked at in the same step in which hyper let go, so no wake-up is lost between the two.
//! Not here: who says that a request waits (`http::notify`), HTTP/2, whose streams share the buffers of a connection.

use super::{Clerk, Front};
use crate::http::trace::Waits;
use axum::body::{Body, HttpBody};
use axum::response::Response;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::header::{CONNECTION, TE, TRANSFER_ENCODING, UPGRADE};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1::Parts;
use hyper::service::service_fn;
use hyper::{Method, Request, Version};
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::Watcher;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// Heads that hyper reads in place of one that it has read already. What it writes depends on the version, on whether the method is HEAD
/// or CONNECT, and on whether the connection goes on.
const GOES_ON: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
const CLOSES: &[u8] = b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n";

/// A socket, with TLS or without.
pub(super) trait Socket: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Ready when a read would find something: bytes, the end, or a failure. Perhaps too early, never too late.
    fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<()>;
}

impl Socket for TcpStream {
    fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.poll_read_ready(context).map(drop)
    }
}

impl Socket for Box<TlsStream<TcpStream>> {
    /// A read that found nothing has left nothing in the buffers of TLS, so more comes from the socket alone.
    fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.get_ref().0.poll_read_ready(context).map(drop)
    }
}

/// Why hyper no longer has a connection.
enum Parted {
    Ended(Result<(), hyper::Error>),
    /// The request on it waits, and this head stands for its own.
    Waits(&'static [u8]),
}

/// Serves a connection to its end; the watcher is kept until then, so that a stop waits for it.
///
/// May be dropped midway: the connection closes and the request on it is given up.
pub(super) async fn serve<S: Socket>(
    front: &Front,
    socket: S,
    clerk: Clerk,
    _watcher: Watcher,
) -> Result<(), hyper::Error> {
    let desk = Arc::new(Desk::new(clerk));
    let stop = pin!(front.shutdown.requested());
    let mut stop = Seldom::new(stop);
    let (mut is_stopping, mut is_resumed) = (false, false);
    let mut wire = Wire::new(socket, Bytes::new(), &desk);
    loop {
        let service = {
            let desk = Arc::clone(&desk);
            service_fn(move |request: Request<Incoming>| desk.take(request))
        };
        let mut connection = Box::new(front.http1().serve_connection(wire, service));
        let parted = poll_fn(|context| {
            loop {
                // At a stop hyper closes a connection that has read nothing yet: a head of ours is read before it is told.
                if !is_resumed && !is_stopping && stop.poll(context).is_ready() {
                    is_stopping = true;
                    Pin::new(&mut *connection).graceful_shutdown();
                }
                if let Poll::Ready(ended) = Pin::new(&mut *connection).poll(context) {
                    return Poll::Ready(Parted::Ended(ended));
                }
                if let Some(head) = desk.head_to_leave_by() {
                    return Poll::Ready(Parted::Waits(head));
                }
                if !std::mem::take(&mut is_resumed) {
                    return Poll::Pending;
                }
            }
        })
        .await;
        let head = match parted {
            Parted::Ended(ended) => return ended,
            Parted::Waits(head) => head,
        };
        // The box goes with this block, and not only once the wait is over.
        let (mut socket, rest) = {
            let whole = connection;
            taken_apart(whole.into_parts())
        };
        desk.parked(&mut socket, rest.is_empty()).await;
        let head = if front.shutdown.is_requested() { CLOSES } else { head };
        let ahead = if rest.is_empty() {
            Bytes::from_static(head)
        } else {
            Bytes::from([head, &rest[..]].concat())
        };
        wire = Wire::new(socket, ahead, &desk);
        is_resumed = true;
    }
}

/// A future that is looked at once, and then only when it has called: each look at a stop takes a lock that all connections share, and
/// every step of every connection passes by it.
struct Seldom<F> {
    future: F,
    called: Option<Arc<Called>>,
}

/// Whether a future has called its task since it was looked at.
struct Called {
    is_so: AtomicBool,
    task: Waker,
}

impl Wake for Called {
    fn wake(self: Arc<Self>) {
        // Before the task is woken, which looks here first.
        self.is_so.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

impl<F: Future + Unpin> Seldom<F> {
    fn new(future: F) -> Self {
        Self { future, called: None }
    }

    fn poll(&mut self, context: &Context<'_>) -> Poll<F::Output> {
        let task = context.waker();
        let known = self.called.take().filter(|called| called.task.will_wake(task));
        let is_quiet = known
            .as_ref()
            .is_some_and(|called| !called.is_so.swap(false, Ordering::Acquire));
        // A task that has another waker by now is called by nobody yet, as one that comes for the first time.
        let called = known.unwrap_or_else(|| {
            Arc::new(Called {
                is_so: AtomicBool::new(false),
                task: task.clone(),
            })
        });
        self.called = Some(Arc::clone(&called));
        if is_quiet {
            return Poll::Pending;
        }
        Pin::new(&mut self.future).poll(&mut Context::from_waker(&Waker::from(called)))
    }
}

/// The socket of a connection, and what was read from it and belongs to the next request; nothing else of the connection is left.
fn taken_apart<S, T>(parts: Parts<Wire<S>, T>) -> (S, Vec<u8>) {
    // Copied, since even an empty rest would keep hyper's buffer.
    let rest = [&parts.read_buf[..], &parts.io.ahead[..]].concat();
    (parts.io.socket.into_inner(), rest)
}

/// What stands for a request's head while its work waits; `None` where more of the answer may depend on it, or of the way its body came.
fn stand_in<B>(request: &Request<B>) -> Option<&'static [u8]> {
    let headers = request.headers();
    let is_plain = request.version() == Version::HTTP_11
        && [Method::GET, Method::POST].contains(request.method())
        && ![TE, TRANSFER_ENCODING, UPGRADE]
            .iter()
            .any(|name| headers.contains_key(name));
    let is_last = headers.get_all(CONNECTION).iter().any(|value| {
        let mut words = value.to_str().unwrap_or("").split(',');
        words.any(|word| word.trim().eq_ignore_ascii_case("close"))
    });
    is_plain.then_some(if is_last { CLOSES } else { GOES_ON })
}

type Work = BoxFuture<'static, Result<Response, Infallible>>;

/// A request that is worked on.
struct Present {
    work: Work,
    /// See `stand_in`.
    head: Option<&'static [u8]>,
    /// Whether its body was read to its end, and hyper is done with it therefore.
    is_read: Arc<AtomicBool>,
    waits: Waits,
}

/// Where hyper gives a request of a connection in and gets its answer, and where the work on it lies.
struct Desk {
    clerk: Clerk,
    present: Mutex<Option<Present>>,
    /// Whether all that hyper has written is on its way.
    is_flushed: AtomicBool,
}

impl Desk {
    fn new(clerk: Clerk) -> Self {
        Self {
            clerk,
            present: Mutex::default(),
            is_flushed: AtomicBool::new(true),
        }
    }

    fn present(&self) -> MutexGuard<'_, Option<Present>> {
        // Each change under the lock is complete on its own, so a panic elsewhere leaves nothing half done.
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a request on. While there is one already, what comes is a head of ours, and the answer is that one's.
    fn take(self: &Arc<Self>, mut request: Request<Incoming>) -> Answer {
        if self.present().is_none() {
            let head = stand_in(&request);
            // New for each request: the rest of an earlier body may still be read by somebody else.
            let (waits, is_read) = (Waits::default(), Arc::new(AtomicBool::new(false)));
            request.extensions_mut().insert(waits.clone());
            let request = if request.body().is_end_stream() {
                is_read.store(true, Ordering::Relaxed);
                request.map(Body::new)
            } else {
                let is_read = Arc::clone(&is_read);
                request.map(|body| Body::new(Followed { body, is_read }))
            };
            let work = Box::pin(self.clerk.take(request));
            *self.present() = Some(Present {
                work,
                head,
                is_read,
                waits,
            });
        }
        Answer(Arc::clone(self))
    }

    fn poll_answer(&self, context: &mut Context<'_>) -> Poll<Result<Response, Infallible>> {
        // Not under the lock, since the work takes its time.
        let taken = self.present().take();
        let Some(mut present) = taken else {
            // Nobody asks without a request.
            return Poll::Pending;
        };
        let polled = present.work.as_mut().poll(context);
        if polled.is_pending() {
            *self.present() = Some(present);
        }
        polled
    }

    /// The head by which hyper may let the connection go: its request waits, and hyper has nothing more to read or to write for it.
    fn head_to_leave_by(&self) -> Option<&'static [u8]> {
        let present = self.present();
        let present = present.as_ref()?;
        let is_idle = present.waits.is_so() && present.is_read.load(Ordering::Relaxed);
        let may_leave = is_idle && self.is_flushed.load(Ordering::Relaxed);
        present.head.filter(|_| may_leave)
    }

    /// Returns when the present request is answered, or there is something to read from a socket that is watched. May be dropped midway.
    ///
    /// A socket is not watched where something was read already: hyper reads no further then either before it has answered.
    async fn parked<S: Socket>(&self, socket: &mut S, is_watched: bool) {
        let _parked = self.clerk.seat.parked();
        poll_fn(|context| {
            if let Poll::Ready(answer) = self.poll_answer(context) {
                *self.present() = Some(Present {
                    work: Box::pin(std::future::ready(answer)),
                    head: None,
                    is_read: Arc::default(),
                    waits: Waits::default(),
                });
                return Poll::Ready(());
            }
            if is_watched {
                ready!(socket.poll_readable(context));
                return Poll::Ready(());
            }
            Poll::Pending
        })
        .await;
    }
}

/// The answer to the present request, wherever its work went on. Dropping it does not end the work: that ends with the desk.
struct Answer(Arc<Desk>);

impl Future for Answer {
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_answer(context)
    }
}

/// A body of which is noted when it was read to its end.
struct Followed {
    body: Incoming,
    is_read: Arc<AtomicBool>,
}

impl HttpBody for Followed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        if frame.is_none() {
            this.is_read.store(true, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A socket as hyper has it: what was read before comes first.
struct Wire<S> {
    socket: TokioIo<S>,
    ahead: Bytes,
    desk: Arc<Desk>,
}

impl<S: Socket> Wire<S> {
    fn new(socket: S, ahead: Bytes, desk: &Arc<Desk>) -> Self {
        Self {
            socket: TokioIo::new(socket),
            ahead,
            desk: Arc::clone(desk),
        }
    }

    fn note(&self, is_flushed: bool) {
        self.desk.is_flushed.store(is_flushed, Ordering::Relaxed);
    }
}

impl<S: Socket> Read for Wire<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, mut room: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ahead.is_empty() {
            let (socket, inlet) = (&mut this.socket, &this.desk.clerk.inlet);
            return inlet.read(context, |context| Read::poll_read(Pin::new(socket), context, room));
        }
        let length = this.ahead.len().min(room.remaining());
        room.put_slice(&this.ahead.split_to(length));
        Poll::Ready(Ok(()))
    }
}

/// hyper flushes a socket only when it has written all to it that it had to write, and does so whenever that is so.
impl<S: Socket> Write for Wire<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.note(false);
        Write::poll_write(Pin::new(&mut this.socket), context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Write::poll_flush(Pin::new(&mut this.socket), context);
        this.note(matches!(flushed, Poll::Ready(Ok(()))));
        flushed
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
        let this = self.get_mut();
        this.note(false);
        Write::poll_write_vectored(Pin::new(&mut this.socket), context, slices)
    }
}

#[cfg(test)]
mod tests {
    use super::{CLOSES, Clerk, Front, GOES_ON, Seldom, serve, stand_in};
    use crate::admission::ClientAddress;
    use crate::connections::Connections;
    use crate::drive::upload::source::Inlet;
    use crate::http::trace::Waits;
    use axum::routing::get;
    use axum::{Extension, Router};
    use daemon::metrics::Metrics;
    use daemon::shutdown::Shutdown;
    use futures_util::future::join;
    use hyper::Request;
    use hyper_util::server::graceful::GracefulShutdown;
    use std::cell::{Cell, RefCell};
    use std::future::poll_fn;
    use std::net::Ipv4Addr;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::Semaphore;

    /// The steps in which its work is looked at, and whether its connection was parked in each.
    async fn steps(waits: Waits, metrics: Metrics) -> String {
        let mut seen = Vec::new();
        waits.set(true);
        poll_fn(|context| {
            seen.push(metrics.encode().contains("gateway_connections_parked 1\n"));
            // Woken by nobody else, and before its connection is parked.
            context.waker().wake_by_ref();
            match seen.len() {
                3 => Poll::Ready(()),
                _ => Poll::Pending,
            }
        })
        .await;
        waits.set(false);
        format!("{seen:?}")
    }

    #[tokio::test]
    async fn what_is_woken_in_the_step_in_which_its_connection_is_parked_goes_on() {
        let metrics = Metrics::new();
        let seen = metrics.clone();
        let router: Router = Router::new().route(
            "/",
            get(move |Extension(waits): Extension<Waits>| steps(waits, seen.clone())),
        );
        let front = Front {
            tls: None,
            router: router.clone(),
            head_patience: Duration::from_secs(60),
            wide_windows: Arc::new(Semaphore::new(0)),
            shutdown: Shutdown::new(),
        };
        let clerk = Clerk {
            router,
            from: ClientAddress(Ipv4Addr::LOCALHOST.into()),
            seat: Arc::new(Connections::new(1, &metrics).enter().unwrap()),
            asked: Arc::default(),
            has_asked: AtomicBool::new(false),
            inlet: Inlet::default(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        let asking = async {
            // The second comes behind the first at once, and is parked when that is answered.
            client.write_all(&[GOES_ON, CLOSES].concat()).await.unwrap();
            let mut answers = String::new();
            client.read_to_string(&mut answers).await.unwrap();
            answers
        };
        let watcher = GracefulShutdown::new().watcher();
        let both = join(serve(&front, socket, clerk, watcher), asking);
        let (served, answers) = tokio::time::timeout(Duration::from_secs(60), both).await.unwrap();
        served.unwrap();
        assert_eq!(answers.matches("[false, true, true]").count(), 2, "{answers}");
        assert_eq!(answers.matches("HTTP/1.1 200 ").count(), 2, "{answers}");
        assert_eq!(answers.matches("connection: close").count(), 1, "{answers}");
    }

    #[test]
    fn a_stop_is_looked_at_when_it_has_called_and_not_at_each_step() {
        let (looks, caller) = (Cell::new(0), RefCell::new(None::<Waker>));
        let mut stop = Seldom::new(poll_fn(|context: &mut Context<'_>| {
            looks.set(looks.get() + 1);
            *caller.borrow_mut() = Some(context.waker().clone());
            match looks.get() {
                3 => Poll::Ready(()),
                _ => Poll::Pending,
            }
        }));
        let context = Context::from_waker(Waker::noop());
        // Looked at once, however many steps there are.
        for _ in 0..3 {
            assert!(stop.poll(&context).is_pending());
            assert_eq!(looks.get(), 1);
        }
        // A call brings one look, and no more.
        caller.borrow().as_ref().unwrap().wake_by_ref();
        for _ in 0..2 {
            assert!(stop.poll(&context).is_pending());
            assert_eq!(looks.get(), 2);
        }
        caller.borrow().as_ref().unwrap().wake_by_ref();
        assert!(stop.poll(&context).is_ready());
    }

    #[test]
    fn a_head_is_stood_in_for_where_nothing_of_the_answer_depends_on_more_of_it() {
        type Case = (
            &'static str,
            &'static [(&'static str, &'static str)],
            Option<&'static [u8]>,
        );
        let cases: [Case; 11] = [
            ("GET", &[], Some(GOES_ON)),
            ("POST", &[("content-length", "7")], Some(GOES_ON)),
            ("GET", &[("connection", "keep-alive")], Some(GOES_ON)),
            ("GET", &[("connection", "closed, x")], Some(GOES_ON)),
            ("GET", &[("connection", "close")], Some(CLOSES)),
            (
                "GET",
                &[("connection", "x , CLOSE"), ("connection", "keep-alive")],
                Some(CLOSES),
            ),
            ("HEAD", &[], None),
            ("PUT", &[], None),
            ("POST", &[("transfer-encoding", "chunked")], None),
            ("GET", &[("te", "trailers")], None),
            ("GET", &[("upgrade", "h2c"), ("connection", "upgrade")], None),
        ];
        for (method, headers, expected) in cases {
            let mut request = Request::builder().method(method);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            assert_eq!(stand_in(&request.body(()).unwrap()), expected, "{method} {headers:?}");
        }
        let old = Request::builder().version(hyper::Version::HTTP_10).body(()).unwrap();
        assert_eq!(stand_in(&old), None);
    }
}
