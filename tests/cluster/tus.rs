//! tus 1.0.0 over HTTP: every step of the protocol, wrong versions, offsets and checksums, and a connection that breaks.
//!
//! Not here: what is kept of a chunk and when (`resumable`, over the same sessions).

use crate::world::{Answer, World, answer, noise};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use client_sdk::client::{Client, Target};
use futures_util::{StreamExt as _, stream};
use reqwest::{Body, Method, RequestBuilder, StatusCode};
use std::convert::Infallible;

const CREATE: &str = "/api/v1/tus";
const CHUNK_TYPE: &str = "application/offset+octet-stream";
const MIB: usize = 1 << 20;

fn named(pairs: &[(&str, &str)]) -> String {
    let pairs = pairs
        .iter()
        .map(|(key, value)| format!("{key} {}", STANDARD.encode(value)));
    pairs.collect::<Vec<_>>().join(",")
}

fn spoken(client: &Client, method: Method, path: &str) -> RequestBuilder {
    client.request(method, path).header("tus-resumable", "1.0.0")
}

struct Upload {
    /// Without a token: the address is enough.
    anonymous: Client,
    path: String,
}

impl Upload {
    /// Begins one with these headers; the answer too.
    async fn create(world: &World, headers: &[(&str, &str)], body: &[u8]) -> (Self, Answer) {
        let mut request = spoken(&world.client, Method::POST, CREATE).body(body.to_vec());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let created = answer(request).await;
        assert_eq!(created.status, StatusCode::CREATED, "{created:?}");
        assert!(created.header("upload-expires").unwrap().ends_with(" GMT"));
        assert_eq!(created.header("tus-resumable"), Some("1.0.0"));
        let url = created.header("location").unwrap();
        let path = url.strip_prefix(&world.cluster.facts.url).unwrap().to_owned();
        let anonymous = Client::new(&world.cluster.facts.url).unwrap();
        (Self { anonymous, path }, created)
    }

    /// What HEAD tells: the offset and the length.
    async fn head(&self) -> (u64, Option<u64>) {
        let told = answer(spoken(&self.anonymous, Method::HEAD, &self.path)).await;
        assert_eq!(told.status, StatusCode::OK, "{told:?}");
        assert_eq!(told.header("cache-control"), Some("no-store"));
        let number = |name: &str| told.header(name).map(|text| text.parse().unwrap());
        assert_eq!(
            number("upload-length").is_none(),
            told.header("upload-defer-length") == Some("1")
        );
        (number("upload-offset").unwrap(), number("upload-length"))
    }

    fn request(&self, offset: u64, body: impl Into<Body>) -> RequestBuilder {
        spoken(&self.anonymous, Method::PATCH, &self.path)
            .header("content-type", CHUNK_TYPE)
            .header("upload-offset", offset)
            .body(body)
    }

    /// Brings bytes; the new offset.
    async fn patch(&self, offset: u64, body: &[u8]) -> u64 {
        Self::taken(&answer(self.request(offset, body.to_vec())).await)
    }

    fn taken(answer: &Answer) -> u64 {
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{answer:?}");
        assert_eq!(answer.header("tus-resumable"), Some("1.0.0"));
        assert!(answer.header("upload-expires").unwrap().ends_with(" GMT"));
        answer.header("upload-offset").unwrap().parse().unwrap()
    }
}

async fn content_at(world: &World, path: &str) -> Vec<u8> {
    let listed = world.client.list("/", 1_000, None).await.unwrap().entries;
    let entry = listed.iter().find(|entry| entry.path == path);
    let entry = entry.unwrap_or_else(|| panic!("{path} is not in {listed:?}"));
    world.content(&entry.id, &[]).await.body
}

/// shows: I-09 scale=1/2
#[tokio::test]
async fn an_upload_goes_through_every_step_of_the_protocol() {
    let world = World::start().await;
    let told = answer(world.client.request(Method::OPTIONS, CREATE)).await;
    assert_eq!(told.status, StatusCode::NO_CONTENT);
    assert_eq!(told.header("tus-version"), Some("1.0.0"));
    assert_eq!(told.header("tus-max-size"), Some("10737418240"));
    assert_eq!(told.header("tus-checksum-algorithm"), Some("sha1"));
    let extensions: Vec<&str> = told.header("tus-extension").unwrap().split(',').collect();
    assert!(extensions.contains(&"creation-with-upload") && extensions.contains(&"termination"));

    let content = noise(1, 9 * MIB + 5);
    let length = content.len().to_string();
    let metadata = named(&[("filename", "nine"), ("filetype", "image/x-raw")]);
    let headers = [("upload-length", length.as_str()), ("upload-metadata", &metadata)];
    let (upload, _) = Upload::create(&world, &headers, b"").await;
    assert_eq!(upload.head().await, (0, Some(content.len() as u64)));
    let mut at = 0;
    for end in [1, 3 * MIB, 3 * MIB + 1, content.len()] {
        let offset = upload.patch(at as u64, &content[at..end]).await;
        assert_eq!(offset, end as u64);
        at = end;
    }
    assert_eq!(upload.head().await, (content.len() as u64, Some(content.len() as u64)));
    assert!(content_at(&world, "/nine").await == content);

    // The length comes later, bytes come with the creation, and nothing at all is a content too.
    let headers = [
        ("upload-defer-length", "1"),
        ("upload-metadata", &named(&[("path", "/later")])),
    ];
    let (upload, _) = Upload::create(&world, &headers, b"").await;
    assert_eq!(upload.patch(0, b"first ").await, 6);
    assert_eq!(upload.head().await, (6, None));
    let with_length =
        |offset, body: &'static str, length: u64| upload.request(offset, body).header("upload-length", length);
    assert_eq!(Upload::taken(&answer(with_length(6, "sec", 12)).await), 9);
    assert_eq!(upload.head().await, (9, Some(12)));
    answer(with_length(9, "ond", 13)).await.refused(400, "bad_header");
    assert_eq!(upload.patch(9, b"ond").await, 12);
    assert_eq!(upload.head().await, (12, Some(12)));
    assert_eq!(content_at(&world, "/later").await, b"first second");
    let metadata = named(&[("path", "/at-once")]);
    let headers = [
        ("upload-length", "5"),
        ("upload-metadata", &metadata),
        ("content-type", CHUNK_TYPE),
    ];
    let (_, created) = Upload::create(&world, &headers, b"whole").await;
    assert_eq!(created.header("upload-offset"), Some("5"));
    assert_eq!(content_at(&world, "/at-once").await, b"whole");
    let headers = [
        ("upload-length", "0"),
        ("upload-metadata", &named(&[("path", "/empty")])),
    ];
    let (_, created) = Upload::create(&world, &headers, b"").await;
    assert_eq!(created.header("upload-offset"), Some("0"));
    assert_eq!(content_at(&world, "/empty").await, b"");

    // A new version of a file, by the client that cannot say PATCH.
    let metadata = named(&[("path", "/empty"), ("base_version", "1")]);
    let (upload, _) = Upload::create(&world, &[("upload-length", "3"), ("upload-metadata", &metadata)], b"").await;
    let patch = spoken(&upload.anonymous, Method::POST, &upload.path)
        .header("x-http-method-override", "PATCH")
        .header("content-type", CHUNK_TYPE)
        .header("upload-offset", 0)
        .body("new");
    assert_eq!(Upload::taken(&answer(patch).await), 3);
    assert_eq!(content_at(&world, "/empty").await, b"new");
}

#[tokio::test]
async fn what_does_not_fit_is_refused_and_nothing_of_it_is_kept() {
    let world = World::start().await;
    let metadata = named(&[("path", "/f")]);
    let create = |headers: Vec<(&'static str, String)>| {
        let request = spoken(&world.client, Method::POST, CREATE);
        headers
            .into_iter()
            .fold(request, |request, (name, value)| request.header(name, value))
    };
    let silent = world.client.request(Method::POST, CREATE).header("upload-length", 1);
    let refused = answer(silent).await;
    refused.refused(412, "tus_version");
    assert_eq!(refused.header("tus-version"), Some("1.0.0"));
    let length = |text: &str| ("upload-length", text.to_owned());
    let of_f = || ("upload-metadata", metadata.clone());
    for (headers, status, code) in [
        (vec![of_f()], 400, "bad_header"),
        (
            vec![of_f(), length("5"), ("upload-defer-length", "1".to_owned())],
            400,
            "bad_header",
        ),
        (vec![of_f(), length("five")], 400, "bad_header"),
        (vec![of_f(), length("10737418241")], 413, "file_too_large"),
        (
            vec![length("5"), ("upload-metadata", "path ?".to_owned())],
            400,
            "bad_header",
        ),
        (vec![length("5")], 400, "bad_header"),
        (
            vec![length("5"), ("upload-metadata", named(&[("path", "/a/../b")]))],
            400,
            "bad_name",
        ),
    ] {
        answer(create(headers)).await.refused(status, code);
    }
    let (upload, _) = Upload::create(&world, &[("upload-length", "10"), ("upload-metadata", &metadata)], b"").await;
    assert_eq!(upload.patch(0, b"12345").await, 5);
    let conflict = answer(upload.request(4, "5")).await;
    assert_eq!(conflict.refused(409, "offset_conflict").code, "offset_conflict");
    assert_eq!(conflict.json()["offset"], "5");
    answer(upload.request(6, "7")).await.refused(409, "offset_conflict");
    answer(upload.request(5, "678901")).await.refused(400, "bad_header");
    let untyped = spoken(&upload.anonymous, Method::PATCH, &upload.path).header("upload-offset", 5);
    answer(untyped.body("6")).await.refused(415, "unsupported_media");
    let other_length = upload.request(5, "6").header("upload-length", 11);
    answer(other_length).await.refused(400, "bad_header");
    // SHA-1 of "67890", and of something else.
    let right = "sha1 IwmRq8136Bc+2wrzkuHxESAFHik=";
    let wrong = "sha1 qvTGHdzF6KLavt4PO0gs2a6pQ00=";
    let checked = |checksum: &'static str| upload.request(5, "67890").header("upload-checksum", checksum);
    answer(checked(wrong)).await.refused(460, "checksum_mismatch");
    answer(checked("md5 1B2M2Y8AsgTpgAmY7PhCfg=="))
        .await
        .refused(400, "bad_header");
    assert_eq!(upload.head().await, (5, Some(10)));
    assert_eq!(Upload::taken(&answer(checked(right)).await), 10);
    assert_eq!(content_at(&world, "/f").await, b"1234567890");

    let taken = vec![of_f(), length("5")];
    answer(create(taken)).await.refused(409, "name_taken");
}

#[tokio::test]
async fn an_upload_that_was_ended_is_gone_and_so_is_an_address_that_nobody_gave_out() {
    let world = World::start().await;
    let metadata = named(&[("path", "/g")]);
    let (upload, _) = Upload::create(&world, &[("upload-length", "10"), ("upload-metadata", &metadata)], b"").await;
    let end = spoken(&upload.anonymous, Method::DELETE, &upload.path);
    assert_eq!(answer(end).await.status, StatusCode::NO_CONTENT);
    answer(upload.request(0, "1")).await.refused(404, "session_not_found");
    let nowhere = spoken(&upload.anonymous, Method::PATCH, &format!("{CREATE}/nowhere"));
    answer(nowhere.header("content-type", CHUNK_TYPE))
        .await
        .refused(404, "upload_url_invalid");
    assert_eq!(world.tree().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_client_that_cannot_say_delete_ends_an_upload_by_post() {
    let world = World::start().await;
    let metadata = named(&[("path", "/g")]);
    let (upload, _) = Upload::create(&world, &[("upload-length", "10"), ("upload-metadata", &metadata)], b"").await;
    assert_eq!(upload.patch(0, b"four").await, 4);
    let post = || spoken(&upload.anonymous, Method::POST, &upload.path);
    answer(post()).await.refused(400, "bad_header");
    for other in ["GET", "delete", "PATCH, DELETE"] {
        let request = post().header("x-http-method-override", other);
        answer(request).await.refused(400, "bad_header");
    }
    assert_eq!(upload.head().await, (4, Some(10)));
    let ended = answer(post().header("x-http-method-override", "DELETE")).await;
    assert_eq!(ended.status, StatusCode::NO_CONTENT, "{ended:?}");
    assert_eq!(ended.header("tus-resumable"), Some("1.0.0"));
    assert_eq!(ended.header("upload-offset"), None);
    answer(upload.request(4, "more"))
        .await
        .refused(404, "session_not_found");
    // Ended is ended, however often it is said.
    let again = answer(post().header("x-http-method-override", "DELETE")).await;
    assert_eq!(again.status, StatusCode::NO_CONTENT, "{again:?}");
    assert_eq!(world.tree().await, Vec::<String>::new());
}

/// shows: QAS-003 scale=1/2
#[tokio::test]
async fn what_came_in_before_a_connection_broke_is_kept_and_its_content_is_the_same() {
    let world = World::start().await;
    let content = noise(7, 6 * MIB);
    let length = content.len().to_string();
    let metadata = named(&[("path", "/cut")]);
    let (upload, _) = Upload::create(
        &world,
        &[("upload-length", &length), ("upload-metadata", &metadata)],
        b"",
    )
    .await;
    let part = Bytes::copy_from_slice(&content[..5 * MIB]);
    let body = stream::iter([Ok::<_, Infallible>(part)]).chain(stream::pending());
    let sending = upload.request(0, Body::wrap_stream(body)).send();
    // The other protocol's question disturbs nobody; HEAD ends whoever sends.
    let progress = upload.path.replace(CREATE, "/upload");
    let seen = async {
        loop {
            let told = answer(upload.anonymous.request(Method::GET, &progress)).await;
            if told.json()["size"].as_u64().unwrap() >= MIB as u64 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        answer = sending => panic!("the body has no end, and yet: {answer:?}"),
        () = seen => {}
    }
    let (offset, _) = upload.head().await;
    assert!((MIB as u64..=5 * MIB as u64).contains(&offset));
    let whole = upload.patch(offset, &content[offset as usize..]).await;
    assert_eq!(whole, content.len() as u64);
    assert!(content_at(&world, "/cut").await == content);
    let again = world.put("/again", &content).await;
    let cut = Target {
        base_version: Some(1),
        ..Target::new_file("/cut")
    };
    let same = world.client.put(&cut, content.into()).await.unwrap();
    assert_eq!((same.entry.version, same.entry.digest), (1, again.entry.digest));
}
