//! Listings: order, pages, their tokens and tags, and what happens between two pages.
//!
//! Not here: a folder of a million children (`make wide-folder`).

use crate::entries::{in_batches, make_folder};
use crate::served::PATIENCE;
use crate::world::{Answer, World};
use api::metadata::Listing;
use client_sdk::client::Client;
use reqwest::Method;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const METADATA: &str = "/api/v1/metadata";

async fn page(world: &World, client: &Client, query: &[(&str, &str)], known: Option<&str>) -> Answer {
    let mut request = client.request(Method::GET, METADATA).query(query);
    if let Some(tag) = known {
        request = request.header("if-none-match", tag);
    }
    world.send(request).await
}

fn listing(answer: &Answer) -> Listing {
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_value(answer.json()).unwrap()
}

/// Makes folders of these names in `folder`, some at once.
async fn fill(world: &World, folder: &str, names: impl Iterator<Item = String>) {
    let calls = names.map(|name| {
        let wanted = json!({"type": "folder", "path": format!("{folder}/{name}")});
        world.send(world.client.request(Method::POST, METADATA).json(&wanted))
    });
    for made in in_batches(calls, 64).await {
        assert_eq!(made.status, 201, "{made:?}");
    }
}

/// All pages of `limit` from `token` on.
async fn rest(world: &World, folder: &str, limit: &str, mut token: Option<String>) -> Vec<String> {
    let mut names = Vec::new();
    loop {
        let mut query = vec![("path", folder), ("limit", limit)];
        if let Some(token) = &token {
            query.push(("page_token", token));
        }
        let shown = listing(&page(world, &world.client, &query, None).await);
        assert!(shown.entries.len() <= limit.parse().unwrap());
        names.extend(shown.entries.into_iter().map(|entry| entry.name));
        token = shown.next_page_token;
        if token.is_none() {
            return names;
        }
    }
}

/// shows: H-API-1 scale=3000/100000
/// shows: I-03
#[tokio::test]
async fn a_listing_is_in_the_order_of_names_page_by_page_and_quick() {
    let world = World::start().await;
    make_folder(&world, "/f").await;
    // Shuffled, of several lengths and alphabets; NFC, so that the bytes are the order.
    let name = |number: u64| {
        format!(
            "{}{}",
            ["a", "B", "\u{e9}", "10", "\u{ac00}"][number as usize % 5],
            number * 7_919 % 3_000
        )
    };
    let mut sorted: Vec<String> = (0..3_000).map(name).collect();
    fill(&world, "/f", sorted.clone().into_iter()).await;
    sorted.sort_unstable();
    for limit in ["1000", "999", "7"] {
        assert_eq!(rest(&world, "/f", limit, None).await, sorted, "by {limit}");
    }
    let first = listing(&page(&world, &world.client, &[("path", "/f")], None).await);
    assert_eq!(first.entries.len(), 1_000, "the default is the greatest page");
    assert!(
        first
            .entries
            .iter()
            .all(|entry| entry.path == format!("/f/{}", entry.name))
    );
    let exact = listing(&page(&world, &world.client, &[("path", "/"), ("limit", "1")], None).await);
    assert_eq!(
        (exact.entries.len(), exact.next_page_token),
        (1, None),
        "a full last page is the last"
    );

    // A tenth of a second is the promise on an idle machine; here others are at work, and one quiet moment is enough.
    let asking = Instant::now();
    loop {
        let begun = Instant::now();
        page(&world, &world.client, &[("path", "/f")], None).await;
        let took = begun.elapsed();
        if took < Duration::from_millis(100) {
            break;
        }
        assert!(asking.elapsed() < PATIENCE, "the last page took {took:?}");
    }

    let id = first.entry.id.as_str();
    let by_id = listing(&page(&world, &world.client, &[("id", id)], None).await);
    assert_eq!(by_id, first);
    for (query, code) in [
        ([("path", "/f"), ("limit", "0")], "bad_limit"),
        ([("path", "/f"), ("limit", "1001")], "bad_limit"),
        ([("path", "/f"), ("limit", "4294967295")], "bad_limit"),
        ([("path", "/f"), ("limit", "-1")], "bad_query"),
        ([("path", "/f"), ("limit", "ten")], "bad_query"),
        ([("path", "/f"), ("limit", "4294967296")], "bad_query"),
        ([("path", "/f"), ("id", id)], "bad_query"),
        ([("path", "/f"), ("path", "/f")], "bad_query"),
        ([("path", "/f"), ("order", "size")], "bad_query"),
        ([("id", "short"), ("limit", "1")], "bad_id"),
    ] {
        page(&world, &world.client, &query, None).await.refused(400, code);
    }
}

#[tokio::test]
async fn the_fullest_page_passes() {
    let world = World::start().await;
    make_folder(&world, "/f").await;
    // A thousand names of 255 bytes, each with the longest content type: the most that a page can hold.
    let media = format!("x/{}", "y".repeat(253));
    let calls = (0..1_000).map(|number| {
        let path = format!("/f/{number:04}{}", "n".repeat(251));
        let request = world.client.request(Method::POST, "/api/v1/files/upload");
        let request = request.query(&[("uploadType", "media"), ("path", path.as_str())]);
        world.send(request.header("content-type", &media).body("x"))
    });
    for put in in_batches(calls, 64).await {
        assert_eq!(put.status, 201, "{put:?}");
    }
    let shown = listing(&page(&world, &world.client, &[("path", "/f")], None).await);
    assert_eq!((shown.entries.len(), shown.next_page_token), (1_000, None));
    assert!(
        shown
            .entries
            .iter()
            .all(|entry| entry.content_type.as_ref() == Some(&media))
    );
}

/// shows: H-API-1 scale=20/100000
#[tokio::test]
async fn a_known_page_is_not_sent_again_and_every_change_of_it_is() {
    let world = World::start().await;
    let above = make_folder(&world, "/above").await;
    let folder = make_folder(&world, "/above/f").await;
    fill(&world, "/above/f", (0..20).map(|number| format!("{number:02}"))).await;
    let file = world.put("/above/f/file", b"x").await.entry;
    let ask = async |known: Option<&str>| page(&world, &world.client, &[("id", &folder.id)], known).await;
    let mut tag = ask(None).await.header("etag").unwrap().to_owned();
    assert!(tag.starts_with(&format!("\"{}-1-", folder.id)), "{tag}");
    for known in [tag.clone(), format!("\"x\", {tag}"), format!("W/{tag}"), "*".to_owned()] {
        let answer = ask(Some(&known)).await;
        assert_eq!(
            (answer.status.as_u16(), answer.body.len(), answer.header("etag")),
            (304, 0, Some(tag.as_str()))
        );
    }
    let change = async |method: Method, id: &str, body: serde_json::Value| {
        let answer = world.call(method, &format!("{METADATA}/{id}"), Some(&body)).await;
        assert!(answer.status.is_success(), "{answer:?}");
    };
    for step in 0..5 {
        match step {
            0 => drop(make_folder(&world, "/above/f/new").await),
            1 => change(Method::PATCH, &file.id, json!({"name": "file 2"})).await,
            2 => change(Method::PATCH, &above.id, json!({"name": "elsewhere"})).await,
            3 => {
                let query = [
                    ("uploadType", "media"),
                    ("path", "/elsewhere/f/file 2"),
                    ("base_version", "1"),
                ];
                let request = world.client.request(Method::POST, "/api/v1/files/upload").query(&query);
                assert_eq!(world.send(request.body("y")).await.status, 200);
            }
            _ => assert_eq!(
                world
                    .call(Method::DELETE, &format!("{METADATA}/{}", file.id), None)
                    .await
                    .status,
                204
            ),
        }
        let answer = ask(Some(&tag)).await;
        assert_eq!(answer.status, 200, "step {step}");
        let newer = answer.header("etag").unwrap().to_owned();
        assert_ne!(newer, tag, "step {step}");
        tag = newer;
    }
    // Another page of the same folder is another answer.
    let part = page(&world, &world.client, &[("id", &folder.id), ("limit", "5")], Some(&tag)).await;
    assert_eq!(part.status, 200);
    // Of a file it is its entry.
    let file = world.put("/one", b"x").await.entry;
    let answer = page(&world, &world.client, &[("path", "/one")], None).await;
    let shown = listing(&answer);
    assert_eq!((&shown.entry, shown.entries.len()), (&file, 0));
    let tag = answer.header("etag").unwrap();
    assert_eq!(
        page(&world, &world.client, &[("path", "/one")], Some(tag)).await.status,
        304
    );
}

#[tokio::test]
async fn a_page_token_serves_its_user_and_folder_unaltered_and_nothing_else() {
    let world = World::start().await;
    for folder in ["/f", "/g"] {
        make_folder(&world, folder).await;
        fill(&world, folder, (0..6).map(|number| number.to_string())).await;
    }
    let limited = |path: &'static str| [("path", path), ("limit", "2")];
    let first = listing(&page(&world, &world.client, &limited("/f"), None).await);
    let token = first.next_page_token.unwrap();
    let with = async |client: &Client, path: &str, token: &str| {
        let query = [("path", path), ("limit", "2"), ("page_token", token)];
        page(&world, client, &query, None).await
    };
    let again = listing(&with(&world.client, "/f", &token).await);
    assert_eq!(again.entries[0].name, "2");
    assert_eq!(
        listing(&with(&world.client, "/f", &token).await),
        again,
        "a token serves as often as it is asked for"
    );

    for at in (0..token.len()).step_by(5) {
        let mut altered = token.clone().into_bytes();
        altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
        let altered = String::from_utf8(altered).unwrap();
        with(&world.client, "/f", &altered).await.refused(400, "bad_page_token");
    }
    for none in [
        "",
        "2",
        "\u{e9}",
        &token[..token.len() - 1],
        &format!("{token}A"),
        &format!("{token}="),
    ] {
        with(&world.client, "/f", none).await.refused(400, "bad_page_token");
    }
    with(&world.client, "/g", &token).await.refused(400, "bad_page_token");
    with(&world.client, "/", &token).await.refused(400, "bad_page_token");
    let (other, _) = world.user("other", 1 << 20).await;
    with(&other, "/", &token).await.refused(400, "bad_page_token");
    page(&world, &other, &[("id", &first.entry.id), ("page_token", &token)], None)
        .await
        .refused(400, "bad_page_token");

    // By path it follows what the path means: another folder there has no page behind the first one's.
    let moved = json!({"path": "/moved"});
    assert_eq!(
        world
            .call(Method::PATCH, &format!("{METADATA}/{}", first.entry.id), Some(&moved))
            .await
            .status,
        200
    );
    make_folder(&world, "/f").await;
    with(&world.client, "/f", &token).await.refused(400, "bad_page_token");
    assert_eq!(
        listing(&with(&world.client, "/moved", &token).await).entries[0].name,
        "2"
    );
    assert_eq!(
        world
            .call(Method::DELETE, &format!("{METADATA}/{}", first.entry.id), None)
            .await
            .status,
        204
    );
    with(&world.client, "/moved", &token).await.refused(404, "not_found");
}

#[tokio::test]
async fn what_comes_and_goes_between_pages_never_doubles_or_hides_another() {
    let world = World::start().await;
    make_folder(&world, "/f").await;
    // Even numbers stay, odd ones come and go.
    let name = |number: u32| format!("{number:04}");
    fill(&world, "/f", (0..400).map(|number| name(number * 2))).await;
    fill(&world, "/f", (0..100).map(|number| name(number * 8 + 3))).await;
    let whole: BTreeMap<String, String> = {
        let shown = listing(&page(&world, &world.client, &[("path", "/f")], None).await);
        shown.entries.into_iter().map(|entry| (entry.name, entry.id)).collect()
    };
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut token: Option<String> = None;
    let mut round = 0;
    loop {
        let mut query = vec![("path", "/f"), ("limit", "23")];
        if let Some(token) = &token {
            query.push(("page_token", token));
        }
        let shown = listing(&page(&world, &world.client, &query, None).await);
        let last = shown
            .entries
            .last()
            .map_or(0, |entry| entry.name[..4].parse::<u32>().unwrap());
        for entry in shown.entries {
            *seen.entry(entry.name).or_default() += 1;
        }
        token = shown.next_page_token;
        if token.is_none() {
            break;
        }
        // Before and behind the place where the next page begins, and the very entry that the token names when it is an odd one.
        for number in (last.saturating_sub(40)..last + 40).filter(|number| number % 8 == 3) {
            if let Some(id) = whole.get(&name(number)) {
                drop(world.call(Method::DELETE, &format!("{METADATA}/{id}"), None).await);
            }
        }
        let new = [last.saturating_sub(30), last.saturating_sub(1), last + 1, last + 30];
        fill(
            &world,
            "/f",
            new.into_iter().map(|number| format!("{number:04} new {round}")),
        )
        .await;
        round += 1;
    }
    assert!(round > 15);
    for number in 0..400 {
        assert_eq!(seen.get(&name(number * 2)), Some(&1), "{number}");
    }
    assert!(seen.values().all(|count| *count == 1), "an entry was shown twice");
}
