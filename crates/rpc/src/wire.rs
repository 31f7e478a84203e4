//! Requests and answers as bytes: the twelve bytes in front, the head, and what must hold of them.
//!
//! docs/format/frames.md is this file's page. Pure; quinn's streams are in frame_stream.rs.
//! Invariants: lengths are checked before anything is allocated; any bytes are either decoded or refused, never a panic.

use crate::transport::RpcError;
use bytes::{Bytes, BytesMut};
use model::error_kind::ErrorKind;
use protocol::frame::{
    ANSWER_MAGIC, Answer, AnswerHead, Call, HEAD_BYTES_MAX, PAYLOAD_BYTES_MAX, REQUEST_MAGIC, RequestHead, decode,
    decode_prefix, encode,
};
use protocol::wire_error::Failure;

/// Bytes in front of every head: magic, head length, payload length.
pub(crate) const PREAMBLE_BYTES: usize = 12;

/// The lengths that a preamble announces, within their limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lengths {
    /// Bytes of the head.
    pub(crate) head: usize,
    /// Bytes of the payload.
    pub(crate) payload: usize,
}

/// One frame, ready to be written part by part without copying the payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Preamble and head.
    pub(crate) front: Bytes,
    /// The message of a request, behind the head's own fields; empty in answers.
    pub(crate) message: Bytes,
    /// The payload.
    pub(crate) payload: Bytes,
}

/// Reads a preamble that must begin with `magic`.
pub(crate) fn decode_preamble(bytes: &[u8; PREAMBLE_BYTES], magic: [u8; 4]) -> Result<Lengths, Failure> {
    let [m0, m1, m2, m3, h0, h1, h2, h3, p0, p1, p2, p3] = *bytes;
    if [m0, m1, m2, m3] != magic {
        return Err(Failure::new(
            ErrorKind::Invalid,
            "malformed_message",
            "the frame begins with a foreign magic",
        ));
    }
    let length = |bytes: [u8; 4], bytes_max: usize| {
        let length = usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX);
        if length > bytes_max {
            let detail = format!("a part of {length} bytes is announced, {bytes_max} are allowed");
            return Err(Failure::new(ErrorKind::TooLarge, "message_too_large", detail));
        }
        Ok(length)
    };
    Ok(Lengths {
        head: length([h0, h1, h2, h3], HEAD_BYTES_MAX)?,
        payload: length([p0, p1, p2, p3], PAYLOAD_BYTES_MAX)?,
    })
}

/// The frame of a request. `TooLarge` when message or payload pass their limits.
pub(crate) fn encode_request(head: &RequestHead, call: &Call) -> Result<Frame, RpcError> {
    let fields = encode(head).map_err(RpcError::Refused)?;
    let front = preamble(REQUEST_MAGIC, &fields, call.message.len(), call.payload.len())?;
    Ok(Frame {
        front,
        message: call.message.clone(),
        payload: call.payload.clone(),
    })
}

/// Takes a request's head apart: its fields and its message.
pub(crate) fn decode_request_head(head: &Bytes) -> Result<(RequestHead, Bytes), Failure> {
    let (fields, taken) = decode_prefix::<RequestHead>(head)?;
    Ok((fields, head.slice(taken..)))
}

/// The frame of an answer. An answer that passes its limits becomes a failure of kind `Bug`: the handler must not make such.
pub(crate) fn encode_answer(answer: Result<Answer, Failure>) -> Frame {
    let (head, payload) = match answer {
        // The message is copied into the head here, and out of it at the caller: answers' messages are small, what is large
        // travels as the payload.
        Ok(answer) => (AnswerHead::Done(answer.message), answer.payload),
        Err(failure) => (AnswerHead::Failed(shorten(failure)), Bytes::new()),
    };
    encode_answer_head(&head, payload).unwrap_or_else(|error| {
        let failure = AnswerHead::Failed(Failure::bug(format!("encode answer: {error}")));
        encode_answer_head(&failure, Bytes::new()).expect("a failure of two short strings fits a frame")
    })
}

/// Takes an answer's head apart.
pub(crate) fn decode_answer_head(head: &Bytes) -> Result<AnswerHead, Failure> {
    decode::<AnswerHead>(head)
}

fn encode_answer_head(head: &AnswerHead, payload: Bytes) -> Result<Frame, RpcError> {
    let fields = encode(head).map_err(RpcError::Refused)?;
    let front = preamble(ANSWER_MAGIC, &fields, 0, payload.len())?;
    Ok(Frame {
        front,
        message: Bytes::new(),
        payload,
    })
}

fn preamble(magic: [u8; 4], fields: &Bytes, message_len: usize, payload_len: usize) -> Result<Bytes, RpcError> {
    let checked = |bytes: usize, bytes_max: usize| match u32::try_from(bytes) {
        Ok(length) if bytes <= bytes_max => Ok(length),
        _ => Err(RpcError::TooLarge { bytes, bytes_max }),
    };
    let head_len = checked(fields.len().saturating_add(message_len), HEAD_BYTES_MAX)?;
    let payload_len = checked(payload_len, PAYLOAD_BYTES_MAX)?;
    let mut front = BytesMut::with_capacity(PREAMBLE_BYTES + fields.len());
    front.extend_from_slice(&magic);
    front.extend_from_slice(&head_len.to_le_bytes());
    front.extend_from_slice(&payload_len.to_le_bytes());
    front.extend_from_slice(fields);
    Ok(front.freeze())
}

/// Cuts a failure's texts to what an operator would read, so that a failure always fits a frame.
fn shorten(mut failure: Failure) -> Failure {
    const TEXT_BYTES_MAX: usize = 4_096;
    const FIELDS_MAX: usize = 64;
    let cut = |text: &mut String| text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    cut(&mut failure.code);
    cut(&mut failure.detail);
    failure.fields = failure
        .fields
        .into_iter()
        .filter(|(key, _)| key.len() <= TEXT_BYTES_MAX)
        .take(FIELDS_MAX)
        .map(|(key, mut value)| {
            cut(&mut value);
            (key, value)
        })
        .collect();
    failure
}

#[cfg(test)]
mod tests {
    use super::{
        Lengths, PREAMBLE_BYTES, decode_answer_head, decode_preamble, decode_request_head, encode_answer,
        encode_request,
    };
    use crate::transport::RpcError;
    use bytes::Bytes;
    use model::error_kind::ErrorKind;
    use model::id::ClusterId;
    use model::process::{ProcessId, Role};
    use proptest::prelude::{any, prop, proptest};
    use protocol::frame::{
        ANSWER_MAGIC, Answer, AnswerHead, Call, HEAD_BYTES_MAX, Method, PAYLOAD_BYTES_MAX, REQUEST_MAGIC, RequestHead,
    };
    use protocol::wire_error::Failure;

    fn head() -> RequestHead {
        let target = ProcessId {
            role: Role::Node,
            number: 3,
        };
        RequestHead {
            cluster: ClusterId(1),
            target,
            method: Method::Ping,
            deadline_ms: 1_000,
            request_id: 9,
        }
    }

    fn call(message: usize, payload: usize) -> Call {
        Call {
            method: Method::Ping,
            request_id: 9,
            message: vec![1; message].into(),
            payload: vec![2; payload].into(),
        }
    }

    fn lengths(front: &[u8], magic: [u8; 4]) -> Result<Lengths, Failure> {
        decode_preamble(front[..PREAMBLE_BYTES].try_into().unwrap(), magic)
    }

    #[test]
    fn a_request_reads_back() {
        let frame = encode_request(&head(), &call(5, 7)).unwrap();
        let found = lengths(&frame.front, REQUEST_MAGIC).unwrap();
        let joined: Bytes = [&frame.front[PREAMBLE_BYTES..], &frame.message[..]].concat().into();
        assert_eq!(
            found,
            Lengths {
                head: joined.len(),
                payload: 7
            }
        );
        assert_eq!(decode_request_head(&joined).unwrap(), (head(), Bytes::from(vec![1; 5])));
    }

    #[test]
    fn the_bytes_of_a_request_are_those_of_the_format_page() {
        let frame = encode_request(&head(), &call(2, 0)).unwrap();
        let expected: Vec<u8> = [
            &b"HFQ1"[..],
            &[9, 0, 0, 0],
            &[0, 0, 0, 0],
            &[1],
            &[0, 3],
            &[0],
            &[0xe8, 0x07],
            &[9],
        ]
        .concat();
        assert_eq!((frame.front.to_vec(), frame.message.to_vec()), (expected, vec![1, 1]));
    }

    #[test]
    fn what_passes_a_limit_is_refused_before_it_is_sent_and_before_it_is_allocated() {
        let error = encode_request(&head(), &call(HEAD_BYTES_MAX, 0)).unwrap_err();
        assert!(
            matches!(
                error,
                RpcError::TooLarge {
                    bytes_max: HEAD_BYTES_MAX,
                    ..
                }
            ) && error.is_surely_not_executed()
        );
        assert!(encode_request(&head(), &call(0, PAYLOAD_BYTES_MAX)).is_ok());
        assert!(encode_request(&head(), &call(0, PAYLOAD_BYTES_MAX + 1)).is_err());
        for large in [
            [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0],
            [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
        ] {
            let preamble = [&REQUEST_MAGIC[..], &large[..]].concat();
            assert_eq!(lengths(&preamble, REQUEST_MAGIC).unwrap_err().kind, ErrorKind::TooLarge);
        }
    }

    #[test]
    fn an_answer_is_no_request() {
        let frame = encode_answer(Err(
            Failure::new(ErrorKind::Busy, "busy", "later").with("retry_after_ms", 5)
        ));
        assert!(lengths(&frame.front, REQUEST_MAGIC).is_err());
        assert!(lengths(&frame.front, ANSWER_MAGIC).is_ok());
        let decoded = decode_answer_head(&frame.front.slice(PREAMBLE_BYTES..)).unwrap();
        assert!(matches!(decoded, AnswerHead::Failed(failure) if failure.fields["retry_after_ms"] == "5"));
    }

    #[test]
    fn an_answer_too_large_for_a_frame_becomes_a_bug_and_a_long_failure_is_cut() {
        let large = Answer {
            message: vec![0; HEAD_BYTES_MAX + 1].into(),
            payload: Bytes::new(),
        };
        let frame = encode_answer(Ok(large));
        let decoded = decode_answer_head(&frame.front.slice(PREAMBLE_BYTES..)).unwrap();
        assert!(matches!(decoded, AnswerHead::Failed(failure) if failure.kind == ErrorKind::Bug));
        let long = Failure::new(ErrorKind::Corrupt, "long", "ä".repeat(HEAD_BYTES_MAX));
        let frame = encode_answer(Err(long));
        let decoded = decode_answer_head(&frame.front.slice(PREAMBLE_BYTES..)).unwrap();
        assert!(matches!(decoded, AnswerHead::Failed(failure) if failure.kind == ErrorKind::Corrupt));
    }

    proptest! {
        /// shows: F42 scale=1/2
        #[test]
        fn any_bytes_are_decoded_or_refused(front in any::<[u8; PREAMBLE_BYTES]>(), bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let _ = decode_preamble(&front, REQUEST_MAGIC);
            let bytes = Bytes::from(bytes);
            let _ = decode_request_head(&bytes);
            let _ = decode_answer_head(&bytes);
        }
    }
}
