//! A call as two datagrams, one each way: what a network that carries whole messages needs, such as the simulation's.
//!
//! Place in the picture: chaos builds its transport from these over turmoil's datagrams; heads, checks and breakers are those of
//! the other transports.
//! Invariants: a datagram says of itself nothing about who sent it: that is the network's to know, as certificates are of QUIC;
//! what does not read is refused, never guessed.
//! Not here: sending, numbering of calls, and waiting for answers.

use crate::admission::{check_request, run_handler};
use crate::breaker::PeerBreakers;
use crate::limits::DEADLINE_MAX;
use crate::transport::{Handler, Peer, RpcError};
use crate::wire::{Frame, PREAMBLE_BYTES};
use crate::wire::{decode_answer_head, decode_request_head, encode_answer, encode_request};
use bytes::{BufMut, Bytes, BytesMut};
use daemon::clock::Clock;
use model::error_kind::ErrorKind;
use model::id::ClusterId;
use model::process::ProcessId;
use protocol::frame::{Answer, AnswerHead, Call, RequestHead};
use protocol::wire_error::Failure;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Bytes before each head: its length.
const LENGTH_BYTES: usize = 4;

/// The breakers of a transport of datagrams.
pub struct Breakers {
    peers: PeerBreakers,
    clock: Arc<dyn Clock>,
}

impl Breakers {
    /// Breakers that are all closed and go by `clock`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            peers: PeerBreakers::default(),
            clock,
        }
    }

    /// Makes `call` by `exchange` unless the peer's breaker is open, and tells the breaker what became of it.
    ///
    /// Errors: `BreakerOpen`, and those of `exchange`.
    pub async fn call(
        &self,
        peer: &Peer,
        call: &Call,
        exchange: impl Future<Output = Result<Answer, RpcError>>,
    ) -> Result<Answer, RpcError> {
        self.peers.ask(peer, call.method, self.clock.monotonic())?;
        let result = exchange.await;
        self.peers.tell(peer, call.method, self.clock.monotonic(), &result);
        result
    }
}

/// The request datagram of `call` to `peer`.
///
/// Errors: `TooLarge`; `Refused` when it cannot be encoded.
pub fn request(cluster: ClusterId, peer: &Peer, call: &Call, deadline: Duration) -> Result<Bytes, RpcError> {
    let deadline = deadline.min(DEADLINE_MAX);
    let head = RequestHead {
        cluster,
        target: peer.process,
        method: call.method,
        deadline_ms: u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX),
        request_id: call.request_id,
    };
    Ok(joined(&encode_request(&head, call)?))
}

/// Has `handler` answer the request of `caller`; `None` when its deadline passed, as nobody waits for the answer then.
///
/// May be dropped midway, which drops the handler's work at its next await.
pub async fn serve(
    handler: &dyn Handler,
    own: ProcessId,
    cluster: ClusterId,
    caller: ProcessId,
    request: &Bytes,
) -> Option<Bytes> {
    let taken = take(request).and_then(|(head, payload)| {
        let (fields, message) = decode_request_head(&head)?;
        check_request(own, cluster, caller, &fields)?;
        Ok((fields, message, payload))
    });
    let answer = match taken {
        Err(failure) => Err(failure),
        Ok((fields, message, payload)) => {
            let call = Call {
                method: fields.method,
                request_id: fields.request_id,
                message,
                payload,
            };
            let deadline = Duration::from_millis(u64::from(fields.deadline_ms)).min(DEADLINE_MAX);
            timeout(deadline, run_handler(handler, own, caller, call)).await.ok()?
        }
    };
    Some(joined(&encode_answer(answer)))
}

/// What the answer datagram of `peer` says.
///
/// Errors: `Refused` as answered; `Malformed`.
pub fn answer(peer: &Peer, datagram: &Bytes) -> Result<Answer, RpcError> {
    let read = take(datagram).and_then(|(head, payload)| Ok((decode_answer_head(&head)?, payload)));
    match read {
        Ok((AnswerHead::Done(message), payload)) => Ok(Answer { message, payload }),
        Ok((AnswerHead::Failed(failure), _)) => Err(RpcError::Refused(failure)),
        Err(failure) => Err(RpcError::Malformed {
            peer: peer.process,
            detail: failure.detail,
        }),
    }
}

fn joined(frame: &Frame) -> Bytes {
    let fields = &frame.front[PREAMBLE_BYTES..];
    let head_bytes = fields.len() + frame.message.len();
    let mut datagram = BytesMut::with_capacity(LENGTH_BYTES + head_bytes + frame.payload.len());
    datagram.put_u32_le(u32::try_from(head_bytes).expect("the frame's limits keep a head below 2^32 bytes"));
    datagram.put_slice(fields);
    datagram.put_slice(&frame.message);
    datagram.put_slice(&frame.payload);
    datagram.freeze()
}

/// Head and payload.
fn take(datagram: &Bytes) -> Result<(Bytes, Bytes), Failure> {
    let short = || Failure::new(ErrorKind::Invalid, "malformed_message", "the datagram ends too early");
    let (length, rest) = datagram.split_first_chunk::<LENGTH_BYTES>().ok_or_else(short)?;
    let head_bytes = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
    if head_bytes > rest.len() {
        return Err(short());
    }
    let at = LENGTH_BYTES + head_bytes;
    Ok((datagram.slice(LENGTH_BYTES..at), datagram.slice(at..)))
}

#[cfg(test)]
mod tests {
    use super::{answer, request, serve};
    use crate::transport::{Handler, Peer, RpcError};
    use async_trait::async_trait;
    use bytes::Bytes;
    use model::id::ClusterId;
    use model::process::{ProcessId, Role};
    use proptest::prelude::{any, prop, proptest};
    use protocol::frame::{Answer, Call, Method};
    use protocol::wire_error::Failure;
    use std::time::Duration;

    const NODE: ProcessId = ProcessId {
        role: Role::Node,
        number: 1,
    };
    const CALLER: ProcessId = ProcessId {
        role: Role::Gateway,
        number: 1,
    };

    struct Echo;

    #[async_trait]
    impl Handler for Echo {
        async fn handle(&self, _: ProcessId, call: Call) -> Result<Answer, Failure> {
            Ok(Answer {
                message: call.message,
                payload: call.payload,
            })
        }
    }

    fn peer() -> Peer {
        Peer {
            process: NODE,
            address: "127.0.0.1:1".parse().unwrap(),
        }
    }

    #[tokio::test]
    async fn a_call_and_its_answer_keep_their_bytes() {
        let call = Call {
            method: Method::Ping,
            request_id: 0,
            message: Bytes::from_static(b"message"),
            payload: Bytes::from_static(b"payload"),
        };
        let sent = request(ClusterId(7), &peer(), &call, Duration::from_secs(1)).unwrap();
        let back = serve(&Echo, NODE, ClusterId(7), CALLER, &sent).await.unwrap();
        let answered = answer(&peer(), &back).unwrap();
        assert_eq!((answered.message, answered.payload), (call.message, call.payload));
        let refused = serve(&Echo, NODE, ClusterId(8), CALLER, &sent).await.unwrap();
        assert!(
            matches!(answer(&peer(), &refused), Err(RpcError::Refused(failure)) if failure.code == "other_cluster")
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_refused_and_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let bytes = Bytes::from(bytes);
            drop(answer(&peer(), &bytes));
            drop(super::take(&bytes));
        }
    }
}
