//! Many small files in one request.
//!
//! Not here: which files belong together (the sync engine, later), retries.

use crate::client::{Client, read};
use crate::error::ClientError;
use api::file_batch::{BatchAnswer, BatchFile, FileBatch, FileResult};
use bytes::{Bytes, BytesMut};
use codec::digest::request_digest;
use reqwest::{Method, header};

/// Letters of the boundary that are drawn from the contents; 128 bits.
const BOUNDARY_BYTES: usize = 16;

impl Client {
    /// Puts small files of one drive, at most 1,000 and 12 MiB; answers what became of each, in order. Sizes are those of the
    /// contents. With `is_atomic` one refused file refuses them all, and is the error.
    pub async fn create_batch(
        &self,
        files: &[(BatchFile, Bytes)],
        is_atomic: bool,
    ) -> Result<Vec<FileResult>, ClientError> {
        let listed = files.iter().map(|(file, content)| BatchFile {
            size: content.len() as u64,
            ..file.clone()
        });
        let list = serde_json::to_vec(&FileBatch {
            atomic: is_atomic,
            files: listed.collect(),
        })?;
        let boundary = boundary(files);
        let body = body(&boundary, &list, files);
        let request = self.request(Method::POST, "/api/v1/files/batch");
        let form = format!("multipart/related; boundary={boundary}");
        let answer: BatchAnswer = read(self.send(request.header(header::CONTENT_TYPE, form).body(body)).await?).await?;
        Ok(answer.results)
    }
}

/// A line that lies in none of the contents: nobody can write the hash of a content into it.
fn boundary(files: &[(BatchFile, Bytes)]) -> String {
    let hashes: Vec<u8> = files.iter().flat_map(|(_, content)| request_digest(content)).collect();
    let hash = request_digest(&hashes);
    hash[..BOUNDARY_BYTES]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn body(boundary: &str, list: &[u8], files: &[(BatchFile, Bytes)]) -> Bytes {
    let head = format!("--{boundary}\r\nContent-Type: application/json\r\n\r\n");
    let between = format!("\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\n\r\n");
    let end = format!("\r\n--{boundary}--\r\n");
    let bytes: usize = files.iter().map(|(_, content)| content.len()).sum();
    let mut body = BytesMut::with_capacity(head.len() + list.len() + between.len() + bytes + end.len());
    body.extend_from_slice(head.as_bytes());
    body.extend_from_slice(list);
    body.extend_from_slice(between.as_bytes());
    for (_, content) in files {
        body.extend_from_slice(content);
    }
    body.extend_from_slice(end.as_bytes());
    body.freeze()
}

#[cfg(test)]
mod tests {
    use super::{body, boundary};
    use api::file_batch::BatchFile;
    use bytes::Bytes;

    fn with_content(content: &[u8]) -> (BatchFile, Bytes) {
        (BatchFile::default(), Bytes::copy_from_slice(content))
    }

    #[test]
    fn a_body_is_the_list_and_the_contents_and_a_boundary_follows_from_them() {
        let files = [with_content(b"one"), with_content(b""), with_content(b"\r\n--two")];
        let mark = boundary(&files);
        assert_eq!(mark.len(), 32);
        assert_ne!(mark, boundary(&files[..2]));
        let text = body(&mark, b"{}", &files);
        let expected = format!(
            "--{mark}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--{mark}\r\nContent-Type: application/octet-stream\r\n\r\none\r\n--two\r\n--{mark}--\r\n"
        );
        assert_eq!(text, expected);
    }
}
