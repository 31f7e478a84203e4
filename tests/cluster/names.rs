//! Names and paths at the edge: what is refused, what is kept byte for byte, what collides (decision 0013).
//!
//! Every way by which a name comes in meets every bad one. Not here: usernames (accounts).

use crate::content_calls::{send_media, send_multipart};
use crate::entries::{entry, make_folder};
use crate::world::{Answer, World};
use api::entry::Entry;
use bytes::Bytes;
use client_sdk::client::Target;
use reqwest::Method;
use serde_json::{Value, json};

const METADATA: &str = "/api/v1/metadata";
const UPLOAD: &str = "/api/v1/files/upload";

async fn get(world: &World, path: &str) -> Answer {
    let request = world.client.request(Method::GET, METADATA).query(&[("path", path)]);
    world.send(request).await
}

async fn put(world: &World, path: &str) -> Answer {
    send_media(world, path, None, Bytes::from_static(b"bytes")).await
}

async fn multipart(world: &World, named: &Value) -> Answer {
    send_multipart(world, named, None, b"bytes").await
}

async fn raw_json(world: &World, body: &[u8]) -> Answer {
    let request = world
        .client
        .request(Method::POST, METADATA)
        .header("content-type", "application/json");
    world.send(request.body(body.to_vec())).await
}

/// What is wrong with a name, as (name, what the advice says).
fn bad_names() -> Vec<(String, &'static str)> {
    let (long, wide) = ("n".repeat(256), "\u{20ac}".repeat(86));
    let control = ["a\0b", "a\nb", "\u{7f}", "\u{85}", "\u{1b}[2J"].map(|name| (name, "control"));
    let others = [
        ("", "empty"),
        (".", "absolute path without"),
        ("..", "absolute path without"),
        ("a/b", "slash"),
        (long.as_str(), "255 bytes"),
        (wide.as_str(), "255 bytes"),
    ];
    let all = control.iter().chain(&others);
    all.map(|(name, advice)| ((*name).to_owned(), *advice)).collect()
}

/// Asserts that the refusal says what is wrong and what to do.
fn advised(answer: &Answer, advice: &str) {
    let problem = answer.refused(400, "bad_name");
    assert!(problem.detail.contains(advice), "{} for {advice}", problem.detail);
}

#[tokio::test]
async fn bad_names_are_refused_wherever_they_come_in_and_leave_nothing() {
    let world = World::start().await;
    let folder = make_folder(&world, "/folder").await;
    let target = world.put("/folder/file", b"x").await.entry;
    let before = world.tree().await;
    for (name, advice) in bad_names() {
        for kind in ["folder", "file"] {
            let wanted = json!({"type": kind, "parent": folder.id, "name": name});
            advised(&world.call(Method::POST, METADATA, Some(&wanted)).await, advice);
        }
        let named = json!({"name": name});
        let renamed = world
            .call(Method::PATCH, &format!("{METADATA}/{}", target.id), Some(&named))
            .await;
        advised(&renamed, advice);
        let restored = world
            .call(Method::POST, &format!("{METADATA}/{}/restore", target.id), Some(&named))
            .await;
        advised(&restored, advice);
        advised(
            &multipart(&world, &json!({"parent": folder.id, "name": name})).await,
            advice,
        );
        if name == "a/b" {
            continue;
        }
        // In the middle of a path, where an empty name is two slashes.
        let path = format!("/folder/{name}/x");
        let wanted = json!({"type": "folder", "path": path, "parents": true});
        advised(&world.call(Method::POST, METADATA, Some(&wanted)).await, advice);
        let moved = world
            .call(
                Method::PATCH,
                &format!("{METADATA}/{}", target.id),
                Some(&json!({"path": path})),
            )
            .await;
        advised(&moved, advice);
        advised(
            &multipart(&world, &json!({"path": path, "parents": true})).await,
            advice,
        );
        advised(&put(&world, &path).await, advice);
        advised(&get(&world, &path).await, advice);
    }
    for (path, advice) in [("folder", "begin with"), ("", "empty"), ("C:\\x", "begin with")] {
        advised(&get(&world, path).await, advice);
        advised(&put(&world, path).await, advice);
    }
    assert_eq!(world.tree().await, before);
}

#[tokio::test]
async fn bytes_that_are_no_text_are_refused_before_they_become_another_name() {
    let world = World::start().await;
    for broken in ["/%ff", "/a%c3", "/%ed%a0%80", "/%f4%90%80%80", "/%c0%af"] {
        for (method, address) in [
            (Method::GET, METADATA.to_owned()),
            (Method::POST, format!("{UPLOAD}?uploadType=media")),
        ] {
            let joint = if address.contains('?') { '&' } else { '?' };
            let address = format!("{address}{joint}path={broken}");
            world.call(method, &address, None).await.refused(400, "bad_name");
        }
    }
    for escape in ["/%", "/%a", "/%zz", "/%+1"] {
        let address = format!("{METADATA}?path={escape}");
        world.call(Method::GET, &address, None).await.refused(400, "bad_query");
    }
    for body in [
        &br#"{"type":"folder","path":"/\ud800"}"#[..],
        br#"{"type":"folder","path":"/\udc00\ud800"}"#,
        b"{\"type\":\"folder\",\"path\":\"/\xff\"}",
        b"{\"type\":\"folder\",\"path\":\"/\xed\xa0\x80\"}",
        b"{\"type\":\"folder\",\"path\":\"/a\nb\"}",
        br#"{"type":"folder","path":"/a","path":"/b"}"#,
        br#"{"type":"folder","path":["/a"]}"#,
        br#"{"type":"folder""#,
        b"",
    ] {
        raw_json(&world, body).await.refused(400, "bad_json");
    }
    raw_json(&world, br#"{"type":"folder","path":"/\u0000"}"#)
        .await
        .refused(400, "bad_name");
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    raw_json(&world, deep.as_bytes()).await.refused(400, "bad_json");
    let plain = world.client.request(Method::POST, METADATA).body("{}");
    world.send(plain).await.refused(415, "unsupported_media");
    let large = json!({"type": "folder", "path": "x".repeat(1 << 20)});
    world
        .call(Method::POST, METADATA, Some(&large))
        .await
        .refused(413, "body_too_large");
    assert_eq!(world.tree().await, Vec::<String>::new());
    let pair = raw_json(&world, br#"{"type":"folder","path":"/\ud83d\ude00"}"#).await;
    assert_eq!(entry(&pair).name, "\u{1f600}");
}

#[tokio::test]
async fn every_other_name_is_kept_byte_for_byte_and_found_again() {
    let world = World::start().await;
    let long = "n".repeat(255);
    let wide = "\u{20ac}".repeat(85);
    let names = [
        " ",
        "  leading and trailing  ",
        "dot.",
        "...",
        ".hidden",
        "CON",
        "nul.txt",
        "a:b",
        "a*b?",
        "<|>",
        "\"quoted\"",
        "back\\slash",
        "%2e%2e",
        "%00",
        "100%",
        "a+b",
        "a&b=c#d",
        "?",
        "~",
        "-rf",
        "$(x)",
        "'",
        "\u{1f469}\u{200d}\u{1f680}",
        "\u{202e}txt.exe",
        "\u{feff}bom",
        "\u{a0}",
        "\u{2028}",
        "\u{d55c}\u{ae00}",
        "\u{fb03}",
        "\u{ffff}",
        long.as_str(),
        wide.as_str(),
    ];
    for name in names {
        let path = format!("/{name}");
        let made = put(&world, &path).await;
        assert_eq!(made.status, 201, "{name:?}: {made:?}");
        let made: Entry = serde_json::from_value(made.json()["entry"].clone()).unwrap();
        assert_eq!((made.name.as_str(), &made.path), (name, &path));
        let found = get(&world, &path).await;
        assert_eq!(found.json()["entry"]["id"], made.id, "{name:?}");
    }
    let listed = world.client.list("/", 1000, None).await.unwrap().entries;
    let listed: Vec<&str> = listed.iter().map(|entry| entry.name.as_str()).collect();
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    assert_eq!(listed, sorted);
}

#[tokio::test]
async fn two_spellings_of_one_name_collide_and_two_cases_do_not() {
    let world = World::start().await;
    let (composed, decomposed) = ("/Caf\u{e9}", "/Cafe\u{301}");
    let first = make_folder(&world, decomposed).await;
    let wanted = json!({"type": "folder", "path": composed});
    let problem = world
        .call(Method::POST, METADATA, Some(&wanted))
        .await
        .refused(409, "name_taken");
    assert_eq!(
        problem.fields["existing"],
        serde_json::to_value(&first).unwrap(),
        "with the name as it was given"
    );
    put(&world, composed).await.refused(409, "name_taken");
    assert_eq!(get(&world, composed).await.json()["entry"]["id"], first.id);
    // Angstrom sign, A with ring, and A with a combining ring are one name; Hangul composed and in parts too.
    for (one, other) in [("/\u{212b}", "/A\u{30a}"), ("/\u{d55c}", "/\u{1112}\u{1161}\u{11ab}")] {
        make_folder(&world, one).await;
        put(&world, other).await.refused(409, "name_taken");
    }
    for twin in [
        "/caf\u{e9}",
        "/CAF\u{c9}",
        "/stra\u{df}e",
        "/STRASSE",
        "/\u{fb03}",
        "/ffi",
    ] {
        make_folder(&world, twin).await;
    }
    // Another spelling of the own name is a rename like any other.
    let renamed = world
        .call(
            Method::PATCH,
            &format!("{METADATA}/{}", first.id),
            Some(&json!({"name": &composed[1..]})),
        )
        .await;
    assert_eq!(entry(&renamed).name, composed[1..]);
    let lower = get(&world, "/caf\u{e9}").await.json()["entry"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let taken = world
        .call(
            Method::PATCH,
            &format!("{METADATA}/{lower}"),
            Some(&json!({"name": &decomposed[1..]})),
        )
        .await;
    assert_eq!(taken.refused(409, "name_taken").fields["existing"]["id"], first.id);
    // A new version under the other spelling is one of the same file, which keeps its name.
    let file = world.put("/n\u{303}.txt", b"1").await.entry;
    let target = Target {
        path: "/\u{f1}.txt".to_owned(),
        base_version: Some(1),
        parents: false,
    };
    let second = world.client.put(&target, b"2".to_vec().into()).await.unwrap().entry;
    assert_eq!((second.id, second.name, second.version), (file.id, file.name, 2));
}

/// shows: SC-in-3 scale=100/1000000
#[tokio::test]
async fn a_tree_is_a_hundred_deep_and_a_path_4096_bytes_long_and_no_more() {
    let world = World::start().await;
    let deepest = "/d".repeat(100);
    let wanted = json!({"type": "folder", "path": deepest, "parents": true});
    let made = entry(&world.call(Method::POST, METADATA, Some(&wanted)).await);
    assert_eq!(made.path, deepest);
    assert_eq!(world.tree().await.len(), 100);
    let below = json!({"type": "folder", "parent": made.id, "name": "x"});
    world
        .call(Method::POST, METADATA, Some(&below))
        .await
        .refused(422, "too_deep");
    multipart(&world, &json!({"parent": made.id, "name": "x"}))
        .await
        .refused(422, "too_deep");
    advised(&put(&world, &format!("{deepest}/x")).await, "100 folders");
    let ninety_ninth = made.parent.unwrap();
    let file = json!({"type": "file", "parent": ninety_ninth, "name": "file"});
    assert_eq!(world.call(Method::POST, METADATA, Some(&file)).await.status, 201);
    // A folder that holds one cannot go where that one would be too deep.
    let tall = make_folder(&world, "/tall").await;
    make_folder(&world, "/tall/er").await;
    let under = json!({"parent": ninety_ninth});
    let refused = world
        .call(Method::PATCH, &format!("{METADATA}/{}", tall.id), Some(&under))
        .await;
    refused.refused(422, "too_deep");
    assert_eq!(world.tree().await.len(), 103);

    let part = "n".repeat(255);
    let long = format!("{}/{}", format!("/{part}").repeat(15), "m".repeat(255));
    assert_eq!(long.len(), 4096);
    let wanted = json!({"type": "folder", "path": long, "parents": true});
    let longest = entry(&world.call(Method::POST, METADATA, Some(&wanted)).await);
    assert_eq!(get(&world, &long).await.json()["entry"]["id"], longest.id);
    let below = json!({"type": "folder", "parent": longest.id, "name": "x"});
    world
        .call(Method::POST, METADATA, Some(&below))
        .await
        .refused(422, "path_too_long");
    let wanted = json!({"type": "folder", "path": format!("{long}/x")});
    advised(&world.call(Method::POST, METADATA, Some(&wanted)).await, "4096");
    // A request line of that length still passes, as every letter is three in a query.
    let widest = format!("/{}", "\u{20ac}".repeat(85)).repeat(15);
    let wanted = json!({"type": "folder", "path": widest, "parents": true});
    let widest_made = entry(&world.call(Method::POST, METADATA, Some(&wanted)).await);
    assert_eq!(get(&world, &widest).await.json()["entry"]["id"], widest_made.id);
}
