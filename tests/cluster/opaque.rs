//! Contents are opaque: whatever the bytes are, whatever the name ends in and whatever type a client gave, the same comes back.
//!
//! A call that takes a content is a `Way`; each meets every case. Not here: libraries that must not be linked (tests/tidy), lengths of
//! every edge (`uploads`), names (`name_corpus`).

use crate::content_calls::{send_media, send_multipart, send_resumable, send_tus};
use crate::entries::make_folder;
use crate::world::World;
use api::entry::Entry;
use api::file_batch::{BatchFile, FileResult};
use api::sync::SyncRequest;
use bytes::Bytes;
use client_sdk::delta::CutContent;
use futures_util::future::join_all;
use serde_json::json;

/// A call that takes a content.
#[derive(Clone, Copy, Debug)]
enum Way {
    Media,
    Multipart,
    Batch,
    Resumable,
    Tus,
    Delta,
}

const WAYS: [Way; 6] = [
    Way::Media,
    Way::Multipart,
    Way::Batch,
    Way::Resumable,
    Way::Tus,
    Way::Delta,
];

/// A content under a name and a type that may say something else of it.
struct Case {
    name: &'static str,
    media: &'static str,
    bytes: Vec<u8>,
}

/// Every byte behind every byte, then beginnings by which programs tell files apart, and ends that a careless reader would stop at.
fn cases() -> Vec<Case> {
    let pairs = (0..=u8::MAX).flat_map(|first| (0..=u8::MAX).flat_map(move |second| [first, second]));
    let padded =
        |begin: &[u8], length: usize| [begin, &b"0123456789abcdef".repeat(length.div_ceil(16))[..length]].concat();
    let case = |name, media, bytes| Case { name, media, bytes };
    vec![
        case("pairs.txt", "text/plain; charset=utf-8", pairs.collect()),
        case("zeros", "application/x-nothing", vec![0; 300_000]),
        case("ones.json", "application/json", vec![0xff; 5_000]),
        case("photo.jpg", "image/jpeg", padded(b"PK\x03\x04../../etc/passwd", 9_000)),
        case(
            "archive.zip",
            "image/png",
            padded(b"\xff\xd8\xff\xe0\0\x10JFIF\0", 9_000),
        ),
        case("picture", "text/html", padded(b"\x89PNG\r\n\x1a\n", 70_000)),
        case(
            "page.pdf",
            "TEXT/Html;Charset=\"UTF-8\"",
            padded(b"\x1f\x8b\x08\0", 9_000),
        ),
        case(
            "plain.txt",
            "text/plain",
            b"<!DOCTYPE html><script>alert(1)</script>".repeat(50),
        ),
        case("run.exe", "no type at all", padded(b"\x7fELF\x02\x01\x01", 9_000)),
        case("frame.zst", "a/b", padded(b"\x28\xb5\x2f\xfd", 9_000)),
        case(
            "wide",
            "text/plain; charset=utf-16",
            padded(b"\xff\xfeh\0t\0t\0p\0", 9_000),
        ),
        case(
            "marked",
            "x-unknown/x+y",
            b"\xef\xbb\xbfone\r\ntwo\rthree\nfour".to_vec(),
        ),
        case(
            "ended",
            "message/http",
            b"\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n".to_vec(),
        ),
        case(
            "parts",
            "multipart/related; boundary=cut",
            b"\r\n--cut\r\n\r\n--cut--\r\n".to_vec(),
        ),
        case("dos", "text/plain", b"before\x1aafter\0behind\x04".to_vec()),
    ]
}

/// Puts a content into a folder.
async fn put(world: &World, way: Way, folder: &Entry, case: &Case) {
    let (client, path) = (&world.client, format!("{}/{}", folder.path, case.name));
    let bytes = Bytes::from(case.bytes.clone());
    let sent = match way {
        Way::Media => send_media(world, &path, Some(case.media), bytes).await,
        Way::Multipart => send_multipart(world, &json!({"path": path}), Some(case.media), &bytes).await,
        Way::Batch => {
            let file = BatchFile {
                path: Some(path),
                parent: None,
                name: None,
                size: 0,
                base_version: None,
                parents: false,
                content_type: Some(case.media.to_owned()),
            };
            let results = client.create_batch(&[(file, bytes)], true).await.unwrap();
            assert!(
                matches!(results[..], [FileResult::Stored(_)]),
                "{}: {results:?}",
                case.name
            );
            return;
        }
        Way::Resumable => {
            let told = json!({"path": path, "size": bytes.len(), "mimeType": case.media});
            send_resumable(world, &told, bytes).await
        }
        Way::Tus => {
            let told = [
                ("filename", case.name),
                ("filetype", case.media),
                ("parent", folder.id.as_str()),
            ];
            send_tus(world, &told, bytes).await
        }
        Way::Delta => return put_delta(world, path, case).await,
    };
    assert_eq!(sent.status, 201, "{}: {sent:?}", case.name);
}

/// Puts it by its blocks.
async fn put_delta(world: &World, path: String, case: &Case) {
    let client = &world.client;
    let key = client.digest_key().await.unwrap();
    let content = CutContent::of(Bytes::from(case.bytes.clone()), &key);
    let wanted = SyncRequest {
        path: Some(path),
        content_type: Some(case.media.to_owned()),
        new_block_hashes: Some(content.rows.iter().map(|row| row.digest.to_hex()).collect()),
        ..SyncRequest::default()
    };
    let begun = client.sync("new", &wanted).await.unwrap();
    for (row, block) in content.rows.iter().zip(&content.blocks) {
        if begun.missing_blocks.contains(&row.digest.to_hex()) {
            let sent = client.put_block(&begun.upload_id, &row.digest, block.clone());
            sent.await.unwrap();
        }
    }
    client.commit("new", &begun.upload_id).await.unwrap();
}

/// shows: A-3 side=as-given
#[tokio::test]
async fn every_content_comes_back_as_it_was_under_the_type_that_was_given_whichever_call_brought_it() {
    let world = World::start().await;
    let cases = cases();
    let plain: &[(&str, &str)] = &[];
    let check = async |way: Way| {
        let folder = make_folder(&world, &format!("/{way:?}")).await;
        for case in &cases {
            put(&world, way, &folder, case).await;
        }
        let entries = world.client.list(&folder.path, 100, None).await.unwrap().entries;
        assert_eq!(entries.len(), cases.len(), "{way:?}");
        for case in &cases {
            let what = format!("{way:?} of {}", case.name);
            let entry = entries.iter().find(|entry| entry.name == case.name).unwrap();
            assert_eq!(entry.content_type.as_deref(), Some(case.media), "{what}");
            // Also to those who would take it in another form.
            let other: &[(&str, &str)] = &[("accept-encoding", "gzip, br, zstd"), ("accept", "text/html")];
            for headers in [plain, other] {
                let read = world.content(&entry.id, headers).await;
                assert!(
                    read.status == 200 && read.body == case.bytes,
                    "{what} came back altered"
                );
                assert_eq!(read.header("content-type"), Some(case.media), "{what}");
                assert_eq!(read.header("content-encoding"), None, "{what}");
                assert_eq!(read.header("x-content-type-options"), Some("nosniff"), "{what}");
                assert_eq!(read.header("content-disposition"), Some("attachment"), "{what}");
            }
        }
    };
    join_all(WAYS.map(check)).await;
}
