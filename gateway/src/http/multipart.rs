//! multipart/related with two parts, streamed: JSON first, then the content (RFC 2387, as Google's clients send it).
//!
//! Invariants: the JSON part, each part's head and what lies around the parts are bounded; the content is passed on as it comes, less
//! the few bytes that might begin the boundary; it ends well only when the closing boundary and the end of the body follow it, so a
//! body that is cut or has a third part commits nothing.

use crate::codes;
use bytes::{Buf, Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use model::limits::JSON_BYTES_MAX;
use protocol::wire_error::Failure;

/// A part's header lines, together; and what may stand before the first boundary.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// What may follow the closing boundary: a line end, mostly.
const EPILOGUE_BYTES_MAX: usize = 1 << 10;
/// RFC 2046 allows 70.
const BOUNDARY_BYTES_MAX: usize = 70;
/// Everything of a body that is not its content, at most: what stands before the first part, both heads, the JSON part and three
/// boundaries with their line ends.
pub const AROUND_BYTES_MAX: u64 = (3 * HEAD_BYTES_MAX + JSON_BYTES_MAX + EPILOGUE_BYTES_MAX + 1024) as u64;

type Input = BoxStream<'static, Result<Bytes, Failure>>;

/// The parts of a body.
pub struct Related {
    /// The JSON part.
    pub json: Bytes,
    /// The content part's `Content-Type`.
    pub content_type: Option<String>,
    /// The content's length is at least this, when the body's was declared.
    pub content_bytes_min: Option<u64>,
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

/// Reads a body of `declared_bytes` up to its content part.
///
/// Errors: `bad_multipart`, `body_too_large` for the JSON part, and those of the input.
pub async fn read(input: Input, boundary: &str, declared_bytes: Option<u64>) -> Result<Related, Failure> {
    let mut body = Buffered {
        input,
        held: BytesMut::new(),
        received_bytes: 0,
    };
    // A delimiter is a line break, two dashes and the boundary; the first may stand at the very beginning.
    body.held.extend_from_slice(b"\r\n");
    let delimiter = format!("\r\n--{boundary}").into_bytes();
    let outside = || bad("what stands before the first part is too long");
    body.until(&delimiter, HEAD_BYTES_MAX, outside).await?;
    body.line_end().await?;
    let head = body.head().await?;
    let media = field(&head, "content-type").unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim();
    if !media.eq_ignore_ascii_case("application/json") {
        return Err(bad("the first part is not application/json"));
    }
    require_plain(&head)?;
    let too_long = || codes::BODY_TOO_LARGE.because("the JSON part passes 1 MiB");
    let json = body.until(&delimiter, JSON_BYTES_MAX, too_long).await?;
    body.line_end().await?;
    let head = body.head().await?;
    require_plain(&head)?;
    // Behind the content come its closing boundary and, mostly, a line end.
    let behind = delimiter.len() as u64 + 4;
    let consumed = body.received_bytes - body.held.len() as u64;
    Ok(Related {
        json,
        content_type: field(&head, "content-type"),
        content_bytes_min: declared_bytes.map(|declared| declared.saturating_sub(consumed + behind)),
        content: body.content(delimiter),
    })
}

struct Buffered {
    input: Input,
    held: BytesMut,
    received_bytes: u64,
}

impl Buffered {
    async fn more(&mut self) -> Result<(), Failure> {
        match self.chunk().await? {
            true => Ok(()),
            false => {
                Err(codes::BODY_CUT
                    .because("the body ends before its closing boundary; nothing was kept, send it again"))
            }
        }
    }

    /// True unless the input has ended.
    async fn chunk(&mut self) -> Result<bool, Failure> {
        let Some(bytes) = self.input.next().await.transpose()? else {
            return Ok(false);
        };
        self.received_bytes += bytes.len() as u64;
        self.held.extend_from_slice(&bytes);
        Ok(true)
    }

    /// Takes what lies before `mark` and the mark; refuses more than `bytes_max` bytes before it.
    async fn until(&mut self, mark: &[u8], bytes_max: usize, too_long: impl Fn() -> Failure) -> Result<Bytes, Failure> {
        let mut from = 0;
        loop {
            if let Some(at) = find(&self.held[from..], mark) {
                if from + at > bytes_max {
                    return Err(too_long());
                }
                let taken = self.held.split_to(from + at).freeze();
                self.held.advance(mark.len());
                return Ok(taken);
            }
            if self.held.len() > bytes_max + mark.len() {
                return Err(too_long());
            }
            from = self.held.len().saturating_sub(mark.len() - 1);
            self.more().await?;
        }
    }

    /// A delimiter is followed by a line end; two dashes instead would mean that no part follows.
    async fn line_end(&mut self) -> Result<(), Failure> {
        let rest = self.until(b"\r\n", HEAD_BYTES_MAX, head_too_long).await?;
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
            let line = self.until(b"\r\n", HEAD_BYTES_MAX, head_too_long).await?;
            if line.is_empty() {
                return Ok(lines);
            }
            lines.push_str(std::str::from_utf8(&line).map_err(|_| bad("a part's header is not text"))?);
            lines.push('\n');
            if lines.len() > HEAD_BYTES_MAX {
                return Err(head_too_long());
            }
        }
    }

    fn content(self, delimiter: Vec<u8>) -> Input {
        stream::try_unfold((self, false), move |(mut body, is_behind)| {
            let delimiter = delimiter.clone();
            async move {
                if is_behind {
                    return body.end().await.map(|()| None);
                }
                loop {
                    if let Some(at) = find(&body.held, &delimiter) {
                        let last = body.held.split_to(at).freeze();
                        body.held.advance(delimiter.len());
                        return Ok(Some((last, (body, true))));
                    }
                    let safe = body.held.len().saturating_sub(delimiter.len() - 1);
                    if safe > 0 {
                        let bytes = body.held.split_to(safe).freeze();
                        return Ok(Some((bytes, (body, false))));
                    }
                    body.more().await?;
                }
            }
        })
        .boxed()
    }

    /// Behind the boundary that ended the content: two dashes, little else, and the end of the body.
    async fn end(&mut self) -> Result<(), Failure> {
        while self.held.len() < 2 {
            self.more().await?;
        }
        if !self.held.starts_with(b"--") {
            return Err(bad("there is a third part, or the boundary lies in the content"));
        }
        loop {
            if self.held.len() > 2 + EPILOGUE_BYTES_MAX {
                return Err(bad("something follows the closing boundary"));
            }
            if !self.chunk().await? {
                return Ok(());
            }
        }
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

/// The value of a part's header by its lower-case name.
fn field(head: &str, wanted: &str) -> Option<String> {
    head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim()
            .eq_ignore_ascii_case(wanted)
            .then(|| value.trim().to_owned())
    })
}

/// A part in base64 or quoted-printable would be stored in that form: HTTP carries bytes, so nobody needs them.
fn require_plain(head: &str) -> Result<(), Failure> {
    let encoding = field(head, "content-transfer-encoding")
        .unwrap_or_default()
        .to_ascii_lowercase();
    if matches!(encoding.as_str(), "" | "binary" | "8bit" | "7bit") {
        Ok(())
    } else {
        Err(bad("send the parts as they are, without Content-Transfer-Encoding"))
    }
}

fn head_too_long() -> Failure {
    bad("a part's header is too long")
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

    type Parts = (Vec<u8>, Option<String>, Vec<u8>);

    async fn check(body: &[u8], step: usize) -> Result<Parts, String> {
        let chunks: Vec<_> = body
            .chunks(step)
            .map(|chunk| Ok(Bytes::copy_from_slice(chunk)))
            .collect();
        let declared = Some(body.len() as u64);
        let mut related = read(stream::iter(chunks).boxed(), "b1", declared)
            .await
            .map_err(|failure| failure.code)?;
        let mut content = Vec::new();
        while let Some(bytes) = related.content.next().await {
            content.extend_from_slice(&bytes.map_err(|failure| failure.code)?);
        }
        assert_eq!(
            related.content_bytes_min,
            Some(content.len() as u64),
            "with the usual line end"
        );
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
        let closed = BODY.len() - b"\r\n".len();
        for length in 0..closed {
            assert_eq!(check(&BODY[..length], 7).await.unwrap_err(), "body_cut", "{length}");
        }
    }

    /// A part as it should be, and one that is wrong: each wrong body is refused by its own code, whatever the chunks.
    #[tokio::test]
    async fn every_wrong_form_is_refused() {
        const JSON: &str = "--b1\r\nContent-Type: application/json\r\n\r\n{}\r\n";
        const MEDIA: &str = "--b1\r\nContent-Type: text/plain\r\n\r\nx\r\n";
        let long = |bytes: usize| "x".repeat(bytes);
        let bodies = [
            (format!("{MEDIA}{JSON}--b1--\r\n"), "bad_multipart"),
            (format!("{MEDIA}--b1--\r\n"), "bad_multipart"),
            (format!("{JSON}--b1--\r\n"), "bad_multipart"),
            ("--b1--\r\n".to_owned(), "bad_multipart"),
            (format!("{JSON}{MEDIA}{MEDIA}--b1--\r\n"), "bad_multipart"),
            (format!("{JSON}{MEDIA}--b1\r\n"), "bad_multipart"),
            (format!("{JSON}{MEDIA}--b1x--\r\n"), "bad_multipart"),
            (format!("{JSON}{MEDIA}--b1--\r\n{}", long(2000)), "bad_multipart"),
            (format!("{}\r\n{JSON}{MEDIA}--b1--\r\n", long(9000)), "bad_multipart"),
            (format!("--b1\r\nX: {}\r\n\r\n", long(9000)), "bad_multipart"),
            (
                format!("--b1\r\nContent-Type: application/jsonx\r\n\r\n{{}}\r\n{MEDIA}--b1--"),
                "bad_multipart",
            ),
            (
                format!("{JSON}--b1\r\nContent-Transfer-Encoding: base64\r\n\r\neA==\r\n--b1--\r\n"),
                "bad_multipart",
            ),
            (
                format!(
                    "--b1\r\nContent-Type: application/json\r\n\r\n{}\r\n{MEDIA}--b1--\r\n",
                    long((1 << 20) + 1)
                ),
                "body_too_large",
            ),
            (JSON.replace("b1", "b2"), "body_cut"),
        ];
        for (body, code) in bodies {
            for step in [5, 1 << 12, 1 << 22] {
                let what = &body[..body.len().min(120)];
                assert_eq!(check(body.as_bytes(), step).await.unwrap_err(), code, "{what:?}");
            }
        }
    }

    #[tokio::test]
    async fn the_longest_json_part_is_taken_and_binary_parts_are_plain() {
        let json = " ".repeat(1 << 20);
        let body = format!(
            "--b1\r\nContent-Type: application/json\r\n\r\n{json}\r\n--b1\r\nContent-Transfer-Encoding: Binary\r\n\r\nx\r\n--b1--\r\n"
        );
        let (read, _, content) = check(body.as_bytes(), 1 << 16).await.unwrap();
        assert_eq!((read.len(), content.as_slice()), (1 << 20, b"x".as_slice()));
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
