//! multipart/related with two parts, streamed: JSON first, then the content (RFC 2387, as Google's clients send it).
//!
//! Invariants: the JSON part and each part's head are bounded; the content is passed on as it comes, less the few bytes that might
//! begin the boundary; a body that ends before the closing boundary is an error, so it commits nothing.

use crate::codes;
use bytes::{Buf, Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use model::limits::JSON_BYTES_MAX;
use protocol::wire_error::Failure;

/// A part's header lines, together.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// RFC 2046 allows 70.
const BOUNDARY_BYTES_MAX: usize = 70;

type Input = BoxStream<'static, Result<Bytes, Failure>>;

/// The parts of a body.
pub struct Related {
    /// The JSON part.
    pub json: Bytes,
    /// The content part's `Content-Type`.
    pub content_type: Option<String>,
    /// The content.
    pub content: Input,
}

/// The boundary that a `Content-Type` header names; `None` when it is not multipart/related or names none that is allowed.
pub fn boundary(content_type: &str) -> Option<String> {
    let (media, parameters) = content_type.split_once(';')?;
    if !media.trim().eq_ignore_ascii_case("multipart/related") {
        return None;
    }
    let named = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("boundary")
            .then(|| value.trim().trim_matches('"').to_owned())
    })?;
    (!named.is_empty() && named.len() <= BOUNDARY_BYTES_MAX && named.is_ascii()).then_some(named)
}

/// Reads a body up to its content part.
///
/// Errors: `bad_multipart`, `body_cut`, and those of the input.
pub async fn read(input: Input, boundary: &str) -> Result<Related, Failure> {
    let mut body = Buffered {
        input,
        held: BytesMut::new(),
    };
    // A delimiter is a line break, two dashes and the boundary; the first may stand at the very beginning.
    body.held.extend_from_slice(b"\r\n");
    let delimiter = format!("\r\n--{boundary}").into_bytes();
    body.until(&delimiter, HEAD_BYTES_MAX).await?;
    body.line_end().await?;
    let head = body.head().await?;
    if !content_type(&head).is_some_and(|media| media.to_ascii_lowercase().starts_with("application/json")) {
        return Err(bad("the first part is not application/json"));
    }
    let json = body.until(&delimiter, JSON_BYTES_MAX).await?;
    body.line_end().await?;
    let head = body.head().await?;
    Ok(Related {
        json,
        content_type: content_type(&head),
        content: body.content(delimiter),
    })
}

struct Buffered {
    input: Input,
    held: BytesMut,
}

impl Buffered {
    async fn more(&mut self) -> Result<(), Failure> {
        match self.input.next().await {
            Some(Ok(bytes)) => {
                self.held.extend_from_slice(&bytes);
                Ok(())
            }
            Some(Err(failure)) => Err(failure),
            None => {
                Err(codes::BODY_CUT
                    .because("the body ends before its closing boundary; nothing was kept, send it again"))
            }
        }
    }

    /// Takes what lies before `mark` and the mark; refuses more than `bytes_max` bytes before it.
    async fn until(&mut self, mark: &[u8], bytes_max: usize) -> Result<Bytes, Failure> {
        let mut from = 0;
        loop {
            if let Some(at) = find(&self.held[from..], mark) {
                let taken = self.held.split_to(from + at).freeze();
                self.held.advance(mark.len());
                return Ok(taken);
            }
            if self.held.len() > bytes_max + mark.len() {
                return Err(bad("a part before the content is too long"));
            }
            from = self.held.len().saturating_sub(mark.len() - 1);
            self.more().await?;
        }
    }

    /// A delimiter is followed by a line end; two dashes instead would mean that no part follows.
    async fn line_end(&mut self) -> Result<(), Failure> {
        let rest = self.until(b"\r\n", HEAD_BYTES_MAX).await?;
        if rest.iter().all(|byte| matches!(byte, b' ' | b'\t')) {
            Ok(())
        } else {
            Err(bad("a part is missing"))
        }
    }

    async fn head(&mut self) -> Result<String, Failure> {
        // A part without header lines begins with the empty line at once.
        let mut lines = String::new();
        loop {
            let line = self.until(b"\r\n", HEAD_BYTES_MAX).await?;
            if line.is_empty() {
                return Ok(lines);
            }
            lines.push_str(std::str::from_utf8(&line).map_err(|_| bad("a part's header is not text"))?);
            lines.push('\n');
            if lines.len() > HEAD_BYTES_MAX {
                return Err(bad("a part's header is too long"));
            }
        }
    }

    fn content(self, delimiter: Vec<u8>) -> Input {
        stream::try_unfold(Some(self), move |body| {
            let delimiter = delimiter.clone();
            async move {
                let Some(mut body) = body else { return Ok(None) };
                loop {
                    if let Some(at) = find(&body.held, &delimiter) {
                        let last = body.held.split_to(at).freeze();
                        return Ok(Some((last, None)));
                    }
                    let safe = body.held.len().saturating_sub(delimiter.len() - 1);
                    if safe > 0 {
                        let bytes = body.held.split_to(safe).freeze();
                        return Ok(Some((bytes, Some(body))));
                    }
                    body.more().await?;
                }
            }
        })
        .boxed()
    }
}

fn find(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    let first = *mark.first()?;
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|byte| *byte == first) {
        let at = from + at;
        if bytes[at..].starts_with(mark) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

fn content_type(head: &str) -> Option<String> {
    head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim()
            .eq_ignore_ascii_case("content-type")
            .then(|| value.trim().to_owned())
    })
}

fn bad(detail: &str) -> Failure {
    codes::BAD_MULTIPART.because(detail)
}

#[cfg(test)]
mod tests {
    use super::{boundary, read};
    use bytes::Bytes;
    use futures_util::StreamExt;
    use futures_util::stream;

    const BODY: &[u8] = b"--b1\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{\"path\":\"/x\"}\r\n\
        --b1\r\nContent-Type: image/png\r\n\r\nline\r\n--b0 is no boundary\r\n\r\n--b1--\r\n";

    async fn check(body: &[u8], step: usize) -> Result<(Vec<u8>, Option<String>, Vec<u8>), String> {
        let chunks: Vec<_> = body
            .chunks(step)
            .map(|chunk| Ok(Bytes::copy_from_slice(chunk)))
            .collect();
        let mut related = read(stream::iter(chunks).boxed(), "b1")
            .await
            .map_err(|failure| failure.code)?;
        let mut content = Vec::new();
        while let Some(bytes) = related.content.next().await {
            content.extend_from_slice(&bytes.map_err(|failure| failure.code)?);
        }
        Ok((related.json.to_vec(), related.content_type, content))
    }

    #[tokio::test]
    async fn parts_read_back_however_the_body_is_cut_into_chunks() {
        for step in 1..BODY.len() {
            let (json, media, content) = check(BODY, step).await.unwrap();
            assert_eq!(json, b"{\"path\":\"/x\"}");
            assert_eq!(media.as_deref(), Some("image/png"));
            assert_eq!(content, b"line\r\n--b0 is no boundary\r\n");
        }
    }

    #[tokio::test]
    async fn a_body_that_ends_early_is_cut_wherever_it_ends() {
        for length in 0..BODY.len() - b"\r\n--b1--\r\n".len() {
            assert_eq!(check(&BODY[..length], 7).await.unwrap_err(), "body_cut", "{length}");
        }
    }

    #[test]
    fn boundaries_are_read_and_bounded() {
        assert_eq!(boundary("multipart/related; boundary=\"a b\"").as_deref(), Some("a b"));
        assert_eq!(boundary("multipart/form-data; boundary=x"), None);
        assert_eq!(
            boundary(&format!("multipart/related; boundary={}", "x".repeat(71))),
            None
        );
        assert_eq!(boundary("multipart/related; boundary="), None);
    }
}
