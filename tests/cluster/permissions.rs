//! Who may what: one account and another's ids, and every route against every caller that it must refuse.
//!
//! Not here: grants and links, which come with sharing.

use crate::accounts::{USERS, patch_user, sign_in, with_token};
use crate::entries::{METADATA, UPLOAD, make_folder};
use crate::world::{Answer, PASSWORD, World};
use client_sdk::client::Client;
use reqwest::Method;
use serde_json::json;

/// Everything that a stranger can try with an id.
async fn attempts_on(world: &World, stranger: &Client, id: &str) -> Vec<Answer> {
    let content = format!("/api/v1/files/{id}/content");
    let calls = [
        (Method::GET, format!("{METADATA}?id={id}"), None),
        (Method::PATCH, format!("{METADATA}/{id}"), Some(json!({"name": "x"}))),
        (Method::DELETE, format!("{METADATA}/{id}"), None),
        (Method::DELETE, format!("{METADATA}/{id}?permanent=true"), None),
        (Method::POST, format!("{METADATA}/{id}/restore"), None),
        (Method::GET, content.clone(), None),
        (Method::GET, format!("{content}?version=1"), None),
        (Method::GET, format!("/api/v1/files/{id}/blocks"), None),
        (Method::GET, format!("/api/v1/files/{id}/versions"), None),
        (
            Method::POST,
            format!("/api/v1/files/{id}/restore"),
            Some(json!({"version": 1})),
        ),
        (
            Method::POST,
            format!("{METADATA}/{id}/copy"),
            Some(json!({"path": "/mine"})),
        ),
        (
            Method::POST,
            format!("{METADATA}/{id}/rewind"),
            Some(json!({"to": "2026-11-22T00:00:00.000Z"})),
        ),
        (Method::GET, format!("{METADATA}/{id}/twins"), None),
        (
            Method::POST,
            format!("/api/v1/files/{id}/sync"),
            Some(json!({"current_version": 1, "new_block_hashes": []})),
        ),
        (
            Method::POST,
            format!("/api/v1/files/{id}/commit"),
            Some(json!({"current_version": 1, "new_block_hashes": []})),
        ),
        (
            Method::POST,
            METADATA.to_owned(),
            Some(json!({"type": "folder", "parent": id, "name": "x"})),
        ),
        (
            Method::POST,
            METADATA.to_owned(),
            Some(json!({"type": "file", "parent": id, "name": "x"})),
        ),
    ];
    let mut answers = Vec::new();
    for (method, path, body) in calls {
        answers.push(world.call_as(stranger, method, &path, body.as_ref()).await);
    }
    let tagged = stranger.request(Method::DELETE, &format!("{METADATA}/{id}"));
    answers.push(world.send(tagged.header("if-match", format!("\"{id}-1\""))).await);
    let named = json!({"parent": id, "name": "x"});
    let body = format!("--c\r\nContent-Type: application/json\r\n\r\n{named}\r\n--c\r\n\r\nbytes\r\n--c--\r\n");
    let related = stranger.request(Method::POST, &format!("{UPLOAD}?uploadType=multipart"));
    let related = related.header("content-type", "multipart/related; boundary=c");
    answers.push(world.send(related.body(body)).await);
    answers
}

/// shows: QAS-018 scale=2/7
#[tokio::test]
async fn what_belongs_to_one_account_is_not_there_for_another() {
    let world = World::start().await;
    let folder = make_folder(&world, "/folder").await;
    let file = world.put("/folder/file", b"mine").await.entry;
    let trashed = world.put("/folder/old", b"old").await.entry;
    assert_eq!(
        world
            .call(Method::DELETE, &format!("{METADATA}/{}", trashed.id), None)
            .await
            .status,
        204
    );
    let before = world.tree().await;
    let (other, _) = world.user("other", 1 << 20).await;
    let theirs = other.make_folder("/theirs").await.unwrap();
    // An administrator of the cluster is no more than another account here.
    for stranger in [other, world.cluster.admin().unwrap()] {
        for id in [&folder.id, &file.id, &trashed.id] {
            for answer in attempts_on(&world, &stranger, id).await {
                answer.refused(404, "not_found");
            }
        }
        let by_path = format!("{METADATA}?path=/folder/file");
        let answer = world.call_as(&stranger, Method::GET, &by_path, None).await;
        answer.refused(404, "not_found");
    }
    // Not even into the other's own folder, in either direction.
    let into = json!({"parent": theirs.id});
    world
        .call(Method::PATCH, &format!("{METADATA}/{}", file.id), Some(&into))
        .await
        .refused(422, "cross_drive");
    let restored = world
        .call(Method::POST, &format!("{METADATA}/{}/restore", trashed.id), Some(&into))
        .await;
    restored.refused(422, "cross_drive");
    assert_eq!(world.tree().await, before);
    assert_eq!(world.content(&file.id, &[]).await.body, b"mine");
}

/// shows: QAS-018 scale=4/7
#[tokio::test]
async fn every_route_refuses_every_caller_that_it_must_refuse() {
    let world = World::start().await;
    let folder = make_folder(&world, "/folder").await;
    let (_, id) = world.user("ended", 1 << 20).await;
    let granted = sign_in(&world, "ended", PASSWORD).await;
    let (ended, refresh) = (
        with_token(&world, &granted, "access_token"),
        with_token(&world, &granted, "refresh_token"),
    );
    assert_eq!(patch_user(&world, &id, json!({"disabled": true})).await.status, 200);
    let url = &world.cluster.facts.url;
    let token = |text: &str| Client::new(url).unwrap().with_token(text);
    let anonymous = Client::new(url).unwrap();
    let unknown = world.client.request(Method::GET, "/").build().unwrap();
    let unknown = unknown.headers()["authorization"]
        .to_str()
        .unwrap()
        .replace("Bearer ", "");
    // The secret of nobody: the first letter behind the point is another.
    let (user, secret) = unknown.split_once('.').unwrap();
    let first = if secret.starts_with('0') { '1' } else { '0' };
    let unknown = format!("{user}.{first}{}", &secret[1..]);
    let callers = [
        (anonymous, 401, "unauthenticated"),
        (token("x"), 401, "token_malformed"),
        (token(&unknown), 401, "token_unknown"),
        (ended, 403, "user_disabled"),
    ];
    let admins: [&str; 3] = [USERS, "/api/v1/admin", "/api/v1/users/"];
    let guarded = world.contract.guarded();
    assert!(guarded.len() >= 14, "{guarded:?}");
    for (method, path) in &guarded {
        let method: Method = method.parse().unwrap();
        let id = if path.contains("nodes") { "1" } else { &folder.id };
        let path = path.replace("{id}", id).replace("{digest}", &"0".repeat(64));
        for (caller, status, code) in &callers {
            let answer = world.call_as(caller, method.clone(), &path, None).await;
            answer.refused(*status, code);
            assert_eq!(
                answer.header("www-authenticate"),
                (*status == 401).then_some("Bearer"),
                "{path}"
            );
        }
        let by_refresh = world.call_as(&refresh, method.clone(), &path, None).await;
        assert!(!by_refresh.status.is_success(), "{method} {path}");
        if admins.iter().any(|prefix| path.starts_with(prefix)) {
            let body = match path.as_str() {
                USERS => json!({"username": "x", "password": PASSWORD}),
                _ => json!({}),
            };
            let has_body = method == Method::PATCH || path == USERS;
            let answer = world.call(method.clone(), &path, has_body.then_some(&body)).await;
            answer.refused(403, "admin_only");
        }
    }
    for header in ["Basic YTpi", "Bearer", "bearer x.y", "Token abc"] {
        let stranger = Client::new(url).unwrap();
        let answer = world
            .send(
                stranger
                    .request(Method::GET, "/api/v1/me")
                    .header("authorization", header),
            )
            .await;
        assert_eq!(answer.status, 401, "{header}");
    }
    assert_eq!(world.tree().await, ["/folder"]);
}
