//! Reading contents: ranges, conditions, and going on after a cut.

use crate::world::{ANSWER_DEADLINE, Answer, PASSWORD, World, answer, noise};
use api::entry::Entry;
use client_sdk::client::Target;
use reqwest::{Method, StatusCode};
use serde_json::json;

const LENGTH: usize = (9 << 20) + 17;

fn tag_of(entry: &Entry) -> String {
    format!("\"{}-{}\"", entry.id, entry.version)
}

/// The headers that every answer with content has, and that HEAD has without it.
fn check_head(answer: &Answer, entry: &Entry, length: usize) {
    let tag = tag_of(entry);
    let expected = [
        ("etag", tag.as_str()),
        ("content-length", &length.to_string()),
        ("accept-ranges", "bytes"),
        ("cache-control", "private, no-cache"),
        ("content-disposition", "attachment"),
        ("content-security-policy", "sandbox; default-src 'none'"),
        ("holdfast-digest", entry.digest.as_deref().unwrap()),
        ("holdfast-committed-at", &entry.modified_at.to_string()),
    ];
    for (name, value) in expected {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
}

/// What a `Range` must come to.
enum Expected {
    Whole,
    Part(usize, usize),
    Outside,
}

/// shows: US-1.3 scale=1/2, FR-002, I-02
#[tokio::test]
async fn ranges_give_the_bytes_that_they_name_and_wrong_ones_what_the_rfc_says() {
    let world = World::start().await;
    let bytes = noise(1, LENGTH);
    let file = world.put("/file", &bytes).await.entry;
    let last = LENGTH - 1;
    let cases = [
        ("bytes=0-0".to_owned(), Expected::Part(0, 0)),
        ("bytes=5-99".to_owned(), Expected::Part(5, 99)),
        (format!("bytes=0-{last}"), Expected::Part(0, last)),
        (format!("bytes={last}-{last}"), Expected::Part(last, last)),
        (format!("bytes=4194300-{LENGTH}"), Expected::Part(4_194_300, last)),
        ("bytes=0-99999999999999999999".to_owned(), Expected::Part(0, last)),
        ("bytes=4194304-".to_owned(), Expected::Part(4 << 20, last)),
        (format!("bytes={last}-"), Expected::Part(last, last)),
        ("bytes=-1".to_owned(), Expected::Part(last, last)),
        ("bytes=-5000000".to_owned(), Expected::Part(LENGTH - 5_000_000, last)),
        (format!("bytes=-{}", LENGTH * 2), Expected::Part(0, last)),
        (format!("bytes={LENGTH}-"), Expected::Outside),
        (format!("bytes={LENGTH}-{}", LENGTH + 5), Expected::Outside),
        ("bytes=99999999999999999999-".to_owned(), Expected::Outside),
        ("bytes=-0".to_owned(), Expected::Outside),
        // Several ranges are answered with the whole content, and what is no range is none.
        ("bytes=0-1,5-9".to_owned(), Expected::Whole),
        ("bytes=0-1, -1".to_owned(), Expected::Whole),
        (format!("bytes={LENGTH}-,0-0"), Expected::Whole),
        ("bytes=9-5".to_owned(), Expected::Whole),
        ("bytes=a-b".to_owned(), Expected::Whole),
        ("bytes=".to_owned(), Expected::Whole),
        ("bytes=-".to_owned(), Expected::Whole),
        ("bytes=1-2-3".to_owned(), Expected::Whole),
        ("bytes=--1".to_owned(), Expected::Whole),
        ("lines=0-1".to_owned(), Expected::Whole),
        ("0-1".to_owned(), Expected::Whole),
    ];
    for (range, expected) in cases {
        let back = world.content(&file.id, &[("range", &range)]).await;
        match expected {
            Expected::Whole => {
                assert_eq!(back.status, StatusCode::OK, "{range}");
                assert_eq!(back.header("content-range"), None);
                check_head(&back, &file, LENGTH);
                assert!(back.body == bytes, "{range}");
            }
            Expected::Part(first, last) => {
                assert_eq!(back.status, StatusCode::PARTIAL_CONTENT, "{range}");
                let named = format!("bytes {first}-{last}/{LENGTH}");
                assert_eq!(back.header("content-range"), Some(named.as_str()));
                check_head(&back, &file, last - first + 1);
                assert!(back.body == bytes[first..=last], "{range}");
            }
            Expected::Outside => {
                back.refused(416, "range_not_satisfiable");
                let named = format!("bytes */{LENGTH}");
                assert_eq!(back.header("content-range"), Some(named.as_str()), "{range}");
            }
        }
    }
    let empty = world.put("/empty", b"").await.entry;
    let back = world.content(&empty.id, &[]).await;
    check_head(&back, &empty, 0);
    assert_eq!((back.status, back.body.len()), (StatusCode::OK, 0));
    for range in ["bytes=0-0", "bytes=0-", "bytes=-1"] {
        let back = world.content(&empty.id, &[("range", range)]).await;
        back.refused(416, "range_not_satisfiable");
        assert_eq!(back.header("content-range"), Some("bytes */0"));
    }
}

/// shows: US-1.3 scale=1/2, FR-002
#[tokio::test]
async fn conditions_compare_the_tag_that_stays_until_the_content_changes() {
    let world = World::start().await;
    let (old, new) = (noise(1, 6000), noise(2, 7000));
    let file = world.put("/file", &old).await.entry;
    let tag = tag_of(&file);
    let weak = format!("W/{tag}");
    let both = format!("\"other\", {tag}");
    let check = async |headers: &[(&str, &str)], status: u16, length: usize| {
        let back = world.content(&file.id, headers).await;
        assert_eq!((back.status.as_u16(), back.body.len()), (status, length), "{headers:?}");
        back
    };
    for named in [&tag, &weak, &both, "*"] {
        let back = check(&[("if-none-match", named)], 304, 0).await;
        assert_eq!(back.header("etag"), Some(tag.as_str()));
        assert_eq!(back.header("cache-control"), Some("private, no-cache"));
        // The condition comes before the range.
        check(&[("if-none-match", named), ("range", "bytes=0-9")], 304, 0).await;
    }
    check(&[("if-none-match", "\"other\"")], 200, 6000).await;
    for named in [&tag, &both, "*"] {
        check(&[("if-match", named)], 200, 6000).await;
        check(&[("if-match", named), ("range", "bytes=0-9")], 206, 10).await;
    }
    for named in [&weak, "\"other\""] {
        let back = world.content(&file.id, &[("if-match", named)]).await;
        back.refused(412, "precondition_failed");
    }
    check(&[("if-range", &tag), ("range", "bytes=0-9")], 206, 10).await;
    check(&[("if-range", &weak), ("range", "bytes=0-9")], 200, 6000).await;
    check(&[("if-range", "\"other\""), ("range", "bytes=0-9")], 200, 6000).await;
    check(&[("if-range", "\"other\""), ("range", "bytes=7000-")], 200, 6000).await;

    // A rename is no new content, a new version is.
    let path = format!("/api/v1/metadata/{}", file.id);
    world
        .call(Method::PATCH, &path, Some(&json!({"name": "renamed"})))
        .await;
    check(&[("if-none-match", &tag)], 304, 0).await;
    let target = Target {
        base_version: Some(1),
        ..Target::new_file("/renamed")
    };
    let second = world.client.put(&target, new.clone().into()).await.unwrap().entry;
    assert_eq!((&second.id, second.version), (&file.id, 2));
    let back = check(&[("if-none-match", &tag)], 200, 7000).await;
    assert_eq!(back.header("etag"), Some(tag_of(&second).as_str()));
    let back = check(&[("if-range", &tag), ("range", "bytes=0-9")], 200, 7000).await;
    assert!(back.body == new);
    let first = world.call(Method::GET, &content_path(&file, "?version=1"), None).await;
    assert_eq!(first.header("etag"), Some(tag.as_str()));
    assert!(first.body == old);
    let missing = world.call(Method::GET, &content_path(&file, "?version=3"), None).await;
    missing.refused(404, "version_not_found");
}

fn content_path(entry: &Entry, query: &str) -> String {
    format!("/api/v1/files/{}/content{query}", entry.id)
}

#[tokio::test]
async fn head_tells_what_get_would_without_a_byte() {
    let world = World::start().await;
    for (path, length) in [("/empty", 0), ("/inline", 100), ("/stripes", 5 << 20)] {
        let file = world.put(path, &noise(1, length)).await.entry;
        let head = async |headers: &[(&str, &str)]| {
            let mut request = world.client.request(Method::HEAD, &content_path(&file, ""));
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            answer(request).await
        };
        // A range has a meaning for GET only.
        for headers in [&[][..], &[("range", "bytes=0-0")], &[("range", "bytes=99999999-")]] {
            let back = head(headers).await;
            assert_eq!((back.status, back.body.len()), (StatusCode::OK, 0));
            check_head(&back, &file, length);
        }
        let back = head(&[("if-none-match", &tag_of(&file))]).await;
        assert_eq!(back.status, StatusCode::NOT_MODIFIED);
        assert_eq!(
            head(&[("if-match", "\"other\"")]).await.status,
            StatusCode::PRECONDITION_FAILED
        );
    }
    let folder = world.client.make_folder("/folder").await.unwrap();
    world.content(&folder.id, &[]).await.refused(422, "not_a_file");
    world.content("nonsense", &[]).await.refused(400, "bad_id");
}

/// Reads a file of `length` bytes and drops the connection each time that this many bytes are there; goes on where it ended.
async fn read_with_cuts(world: &World, file: &Entry, length: usize, cuts: &[usize]) -> Vec<u8> {
    let mut have: Vec<u8> = Vec::new();
    for cut_at in cuts {
        let mut request = world.client.request(Method::GET, &content_path(file, ""));
        if !have.is_empty() {
            request = request.header("range", format!("bytes={}-", have.len()));
            request = request.header("if-range", tag_of(file));
        }
        let mut response = request.send().await.unwrap();
        let expected = if have.is_empty() { 200 } else { 206 };
        assert_eq!(response.status().as_u16(), expected);
        assert_eq!(response.content_length(), Some((length - have.len()) as u64));
        while have.len() < *cut_at {
            let Some(part) = response.chunk().await.unwrap() else {
                break;
            };
            have.extend_from_slice(&part);
        }
        // Dropping an unread body closes the connection.
    }
    have
}

/// The client drops its connection in the middle, several times, and never fetches a byte twice.
///
/// shows: US-1.3 scale=1/2, FR-002
#[tokio::test]
async fn a_download_that_was_cut_goes_on_where_it_ended() {
    let world = World::start().await;
    let bytes = noise(1, 40 << 20);
    let file = world.put("/file", &bytes).await.entry;
    let tag = tag_of(&file);
    let cuts = [1, 3_000_000, 4 << 20, 20_000_000, 39_999_999, usize::MAX];
    assert!(read_with_cuts(&world, &file, bytes.len(), &cuts).await == bytes);

    // New content meanwhile: going on is refused the polite way, by sending all of it.
    let target = Target {
        base_version: Some(1),
        ..Target::new_file("/file")
    };
    let new = noise(2, 1 << 20);
    world.client.put(&target, new.clone().into()).await.unwrap();
    let back = world
        .content(&file.id, &[("range", "bytes=1000-"), ("if-range", &tag)])
        .await;
    assert_eq!(back.status, StatusCode::OK);
    assert!(back.body == new);
    // Who insists on the old version gets the rest of it.
    let request = world.client.request(Method::GET, &content_path(&file, "?version=1"));
    let rest = answer(request.header("range", "bytes=1000-").header("if-range", &tag)).await;
    assert_eq!(rest.status, StatusCode::PARTIAL_CONTENT);
    assert!(rest.body == bytes[1000..]);
}

/// shows: US-1.3
#[tokio::test]
async fn every_form_of_a_download_gives_the_same_bytes_while_two_fragments_of_each_stripe_are_missing() {
    let world = World::start_uncached().await;
    let bytes = noise(3, LENGTH);
    let file = world.put("/file", &bytes).await.entry;
    let tag = tag_of(&file);
    let (nodes, last) = (world.nodes(), LENGTH - 1);
    // Six fragments lie on six nodes, so each of these pairs takes m = 2 of every stripe away, and over the three every fragment.
    for pair in nodes.chunks(2) {
        for node in pair {
            world.stop_node(*node).await;
        }
        let whole = world.content(&file.id, &[]).await;
        check_head(&whole, &file, LENGTH);
        assert!(whole.body == bytes, "without {pair:?}");
        for (range, first, last) in [
            ("bytes=5-99".to_owned(), 5, 99),
            (format!("bytes=4194300-{last}"), 4_194_300, last),
            ("bytes=-5000000".to_owned(), LENGTH - 5_000_000, last),
        ] {
            let part = world.content(&file.id, &[("range", &range)]).await;
            assert_eq!(part.status, StatusCode::PARTIAL_CONTENT, "{range} without {pair:?}");
            check_head(&part, &file, last - first + 1);
            assert!(part.body == bytes[first..=last], "{range} without {pair:?}");
        }
        let unchanged = world.content(&file.id, &[("if-none-match", &tag)]).await;
        assert_eq!(unchanged.status, StatusCode::NOT_MODIFIED);
        let cuts = [1, 4 << 20, 6_000_000, usize::MAX];
        assert!(
            read_with_cuts(&world, &file, LENGTH, &cuts).await == bytes,
            "without {pair:?}"
        );
        for node in pair {
            world.start_node(*node).await;
        }
    }
    assert!(world.metric("gateway_rebuilt_reads_total").await > 0.0);
    assert_eq!(world.metric("gateway_corrupt_fragments_total").await, 0.0);
}

/// It is longer than what sockets hold, so that it is still being sent.
#[tokio::test]
async fn a_download_is_broken_off_when_its_token_has_ended() {
    let world = World::start().await;
    let (ada, _) = world.user("ada", 1 << 30).await;
    let bytes = noise(9, 48 << 20);
    let length = bytes.len();
    let file = ada.put(&Target::new_file("/large"), bytes.into()).await.unwrap().entry;
    let path = format!("/api/v1/files/{}/content", file.id);
    let request = ada.request(Method::GET, &path).timeout(ANSWER_DEADLINE);
    let mut download = request.send().await.unwrap();
    assert_eq!(download.status(), StatusCode::OK);
    let mut read = download.chunk().await.unwrap().unwrap().len();
    let change = json!({"old_password": PASSWORD, "new_password": "another horse battery"});
    let changed = world
        .call_as(&ada, Method::POST, "/api/v1/me/password", Some(&change))
        .await;
    assert_eq!(changed.status, StatusCode::NO_CONTENT);
    let end = loop {
        match download.chunk().await {
            Ok(Some(chunk)) => read += chunk.len(),
            end => break end,
        }
    };
    assert!(end.is_err() && read < length, "{read} of {length} bytes came");
}
