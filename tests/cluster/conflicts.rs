//! Requests that rest on what is no longer so: revisions, tags, base versions. The first wins, the others learn what is there.
//!
//! Not here: conflicts of names (entries, names).

use crate::entries::{METADATA, UPLOAD, by_id, change, delete, entry, entry_of, entry_that_never_was, make_folder};
use crate::world::{Answer, World, noise};
use api::entry::Entry;
use reqwest::Method;
use serde_json::{Value, json};

/// shows: D-2.2 scale=1/2
#[tokio::test]
async fn stale_requests_are_refused_with_the_present_state() {
    let world = World::start().await;
    let first = make_folder(&world, "/a").await;
    let now = entry(&change(&world, &first.id, json!({"name": "b", "base_revision": 1})).await);
    let check = |answer: &Answer, status: u16, code: &str| {
        let problem = answer.refused(status, code);
        let current: Entry = serde_json::from_value(problem.fields["current"].clone()).unwrap();
        assert_eq!(current, now);
        assert!(!problem.fields.contains_key("entry"), "{problem:?}");
    };
    let stale = change(&world, &first.id, json!({"name": "c", "base_revision": 1})).await;
    check(&stale, 409, "revision_conflict");
    check(
        &delete(&world, &first.id, "?base_revision=1").await,
        409,
        "revision_conflict",
    );
    check(
        &delete(&world, &first.id, "?base_revision=3&permanent=true").await,
        409,
        "revision_conflict",
    );

    let path = format!("{METADATA}/{}", first.id);
    let tagged = |method: Method, tag: String, body: Option<Value>| {
        let request = world.client.request(method, &path).header("if-match", tag);
        world.send(match body {
            Some(body) => request.json(&body),
            None => request,
        })
    };
    let tag = |revision: u64| format!("\"{}-{revision}\"", first.id);
    for none in [
        tag(1),
        format!("W/{}", tag(2)),
        format!("\"{}-2\"", entry_that_never_was(&first)),
        format!("{}, {}", tag(1), tag(7)),
    ] {
        let answer = tagged(Method::PATCH, none.clone(), Some(json!({"name": "c"}))).await;
        check(&answer, 412, "precondition_failed");
        check(&tagged(Method::DELETE, none, None).await, 412, "precondition_failed");
    }
    let both = tagged(Method::PATCH, tag(2), Some(json!({"name": "c", "base_revision": 1}))).await;
    check(&both, 412, "precondition_failed");
    assert_eq!(entry_of(&by_id(&world, &first.id).await), now);
    // The listing's own tag serves as well, whatever lies in the folder by then.
    let listed = by_id(&world, &first.id).await.header("etag").unwrap().to_owned();
    make_folder(&world, "/b/new").await;
    let named = entry(&tagged(Method::PATCH, listed, Some(json!({"name": "d"}))).await);
    assert_eq!(named.revision, 3);
    let of_several = format!("{}, {}", tag(1), tag(3));
    assert_eq!(
        entry(&tagged(Method::PATCH, of_several, Some(json!({"name": "e"}))).await).revision,
        4
    );
    assert_eq!(tagged(Method::DELETE, "*".to_owned(), None).await.status, 204);
}

/// shows: D-2.6 scale=1/2
#[tokio::test]
async fn of_many_writers_on_one_version_the_first_wins_and_the_others_learn_what_is_there() {
    let world = World::start().await;
    let put = |query: [(&'static str, String); 2], bytes: Vec<u8>| {
        let request = world
            .client
            .request(Method::POST, UPLOAD)
            .query(&[("uploadType", "media")]);
        world.send(request.query(&query).body(bytes))
    };
    let id = world.put("/f", b"one").await.entry.id;
    let mut winners = vec![b"one".to_vec()];
    for base in 1..=6_u64 {
        let writers = (0..12).map(|writer| {
            put(
                [("path", "/f".to_owned()), ("base_version", base.to_string())],
                noise(base * 100 + writer, 5_000),
            )
        });
        let answers = futures_util::future::join_all(writers).await;
        let won: Vec<usize> = (0..12).filter(|writer| answers[*writer].status == 200).collect();
        assert_eq!(won.len(), 1, "of base version {base}");
        winners.push(noise(base * 100 + won[0] as u64, 5_000));
        let current = entry_of(&by_id(&world, &id).await);
        assert_eq!(current.version, base + 1);
        for lost in answers.iter().filter(|answer| answer.status != 200) {
            let problem = lost.refused(409, "version_conflict");
            assert_eq!(problem.fields["current"], serde_json::to_value(&current).unwrap());
        }
    }
    for (at, bytes) in winners.iter().enumerate() {
        let path = format!("/api/v1/files/{id}/content?version={}", at + 1);
        assert!(
            world.send(world.client.request(Method::GET, &path)).await.body == *bytes,
            "version {}",
            at + 1
        );
    }
    // Equal content is no conflict, and no version.
    let stale = |base: u64| [("path", "/f".to_owned()), ("base_version", base.to_string())];
    let equal = put(stale(1), winners[6].clone()).await;
    assert_eq!(
        (equal.status.as_u16(), equal.json()["entry"]["version"].clone()),
        (200, json!(7))
    );
    put(stale(99), b"other".to_vec()).await.refused(409, "version_conflict");
    let of_nothing = [("path", "/none".to_owned()), ("base_version", "1".to_owned())];
    put(of_nothing, b"x".to_vec()).await.refused(404, "not_found");
    assert_eq!(world.tree().await, ["/f"]);
}
