//! Calls that take a content in, made by hand: for tests that go through all of them.
//!
//! Each answers what its last request was answered, or the first that was refused.
//! Not here: what is told of the content and what is expected, which each test says; calls of several files and of blocks.

use crate::world::{Answer, World, answer};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reqwest::Method;
use serde_json::Value;

const UPLOAD: &str = "/api/v1/files/upload";
/// No line of a content.
const BOUNDARY: &str = "no such line";

/// The content as the body, of this type if any is given.
pub(crate) async fn send_media(world: &World, path: &str, media: Option<&str>, bytes: Bytes) -> Answer {
    let mut request = world.client.request(Method::POST, UPLOAD);
    request = request.query(&[("uploadType", "media"), ("path", path)]);
    if let Some(media) = media {
        request = request.header("content-type", media);
    }
    world.send(request.body(bytes)).await
}

/// The content in parts behind what is told of it.
pub(crate) async fn send_multipart(world: &World, told: &Value, media: Option<&str>, bytes: &[u8]) -> Answer {
    send_parts(world, &format!("{UPLOAD}?uploadType=multipart"), told, media, bytes).await
}

/// The same to another address.
pub(crate) async fn send_parts(
    world: &World,
    address: &str,
    told: &Value,
    media: Option<&str>,
    bytes: &[u8],
) -> Answer {
    let media = media
        .map(|media| format!("Content-Type: {media}\r\n"))
        .unwrap_or_default();
    let head = format!("--{BOUNDARY}\r\nContent-Type: application/json\r\n\r\n{told}\r\n--{BOUNDARY}\r\n{media}\r\n");
    let end = format!("\r\n--{BOUNDARY}--\r\n");
    let body = [head.as_bytes(), bytes, end.as_bytes()].concat();
    let request = world.client.request(Method::POST, address).body(body);
    let related = format!("multipart/related; boundary=\"{BOUNDARY}\"");
    world.send(request.header("content-type", related)).await
}

/// An upload that is begun by what is told of it, and one chunk with all of the content, which is not empty.
pub(crate) async fn send_resumable(world: &World, told: &Value, bytes: Bytes) -> Answer {
    let begin = format!("{UPLOAD}?uploadType=resumable");
    let begun = world.call(Method::POST, &begin, Some(told)).await;
    if begun.status != 200 {
        return begun;
    }
    let address = format!("/upload/{}", begun.json()["upload_id"].as_str().unwrap());
    let length = bytes.len();
    let range = format!("bytes 0-{}/{length}", length - 1);
    let chunk = world.client.request(Method::PUT, &address).body(bytes);
    world.send(chunk.header("content-range", range)).await
}

/// An upload by tus, whose beginning brings the content if there is any.
pub(crate) async fn send_tus(world: &World, told: &[(&str, &str)], bytes: Bytes) -> Answer {
    let told = told
        .iter()
        .map(|(key, value)| format!("{key} {}", STANDARD.encode(value)));
    let told: Vec<String> = told.collect();
    let mut request = world.client.request(Method::POST, "/api/v1/tus");
    request = request
        .header("tus-resumable", "1.0.0")
        .header("upload-length", bytes.len())
        .header("upload-metadata", told.join(","));
    if !bytes.is_empty() {
        request = request
            .header("content-type", "application/offset+octet-stream")
            .body(bytes);
    }
    answer(request).await
}
