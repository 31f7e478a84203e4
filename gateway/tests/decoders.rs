//! Any bytes where a token, a header or a multipart body is expected: taken or refused, never a panic.

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use gateway::auth::token;
use gateway::drive::receipt::ReceiptKey;
use gateway::http::multipart;
use gateway::http::range::{Wanted, names_strongly, names_weakly, wanted};
use model::id::UserId;
use proptest::prelude::{any, prop, proptest};

fn check_headers(text: &str, size: u64) {
    if let Wanted::Part(range) = wanted(Some(text), size) {
        assert!(
            range.start < range.end && range.end <= size,
            "{text} of {size}: {range:?}"
        );
    }
    let _ = (names_weakly(text, "\"a-1\""), names_strongly(text, "\"a-1\""));
    if let Some(boundary) = multipart::boundary(text) {
        assert!(!boundary.is_empty());
    }
}

/// Reads `bytes`, which come in `parts`, as a body to its end; how many bytes of content it had.
fn read_body(bytes: &[u8], parts: usize) -> Option<usize> {
    let pieces: Vec<_> = bytes
        .chunks(bytes.len().div_ceil(parts.max(1)).max(1))
        .map(Bytes::copy_from_slice)
        .collect();
    let body = stream::iter(pieces.into_iter().map(Ok)).boxed();
    let read = async {
        let mut related = multipart::read(body, "b", None).await.ok()?;
        let mut length = 0;
        while let Some(piece) = related.content.next().await {
            length += piece.ok()?.len();
        }
        Some(length)
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime needs nothing");
    runtime.block_on(read)
}

proptest! {
    /// shows: F42
    #[test]
    fn any_header_or_token_is_taken_or_refused(text in "\\PC{0,80}", range in "(bytes=)?[0-9,-]{0,45}", media in "multipart/related;[ ;=\"a-z]{0,90}", size in any::<u64>()) {
        for text in [&text, &range, &media] {
            check_headers(text, size);
            let _ = token::read(text);
            let ours = ReceiptKey::derive(b"a kek").read_page_token(UserId(1), text);
            assert_eq!(ours, None, "{text} was never given out");
        }
    }

    /// shows: F42
    #[test]
    fn any_body_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), parts in 1_usize..9) {
        read_body(&bytes, parts);
        let mut valid = b"--b\r\ncontent-type: application/json\r\n\r\n{}\r\n--b\r\n\r\ncontent\r\n--b--\r\n".to_vec();
        assert_eq!(read_body(&valid, parts), Some(7));
        let length = valid.len();
        for (at, byte) in edits {
            valid[at.index(length)] = byte;
        }
        assert!(read_body(&valid, parts).is_none_or(|content| content < length));
    }
}
