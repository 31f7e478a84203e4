//! Accounts from their making to their deletion, signing in, quotas.
//!
//! Not here: what one account can do with another's ids (permissions), the form of tokens and hashes (gateway), the erasing of a deleted account after thirty aged days (metadata-raft).

use crate::world::{Answer, PASSWORD, World, noise, tree_of};
use api::me::Me;
use client_sdk::client::{Client, Target};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

pub(crate) const USERS: &str = "/api/v1/users";
const METADATA: &str = "/api/v1/metadata";
const UPLOAD: &str = "/api/v1/files/upload";

async fn grant(world: &World, form: &[(&str, &str)]) -> Answer {
    let stranger = Client::new(&world.cluster.facts.url).unwrap();
    world
        .send(stranger.request(Method::POST, "/api/v1/auth/token").form(form))
        .await
}

pub(crate) async fn sign_in(world: &World, name: &str, password: &str) -> Answer {
    grant(
        world,
        &[("grant_type", "password"), ("username", name), ("password", password)],
    )
    .await
}

/// A refusal in the shape of RFC 6749; its description.
fn no_grant(answer: &Answer, error: &str) -> String {
    assert_eq!(
        (answer.status.as_u16(), answer.json()["error"].clone()),
        (400, json!(error)),
        "{answer:?}"
    );
    let description = answer.json()["error_description"].as_str().unwrap().to_owned();
    assert!(description.len() > 10, "{description}");
    description
}

pub(crate) fn with_token(world: &World, granted: &Answer, which: &str) -> Client {
    assert_eq!(granted.status, 200, "{granted:?}");
    let token = granted.json()[which].as_str().unwrap().to_owned();
    Client::new(&world.cluster.facts.url).unwrap().with_token(&token)
}

async fn me(world: &World, client: &Client) -> Answer {
    world.call_as(client, Method::GET, "/api/v1/me", None).await
}

pub(crate) async fn patch_user(world: &World, id: &str, wanted: Value) -> Answer {
    let admin = world.cluster.admin().unwrap();
    world
        .call_as(&admin, Method::PATCH, &format!("{USERS}/{id}"), Some(&wanted))
        .await
}

async fn delete_user(world: &World, id: &str) -> Answer {
    let admin = world.cluster.admin().unwrap();
    world
        .call_as(&admin, Method::DELETE, &format!("{USERS}/{id}"), None)
        .await
}

/// shows: SC-in-1
#[tokio::test]
async fn an_account_is_made_used_disabled_and_enabled() {
    let world = World::start().await;
    let admin = world.cluster.admin().unwrap();
    let wanted = json!({"username": "Ada.L", "password": PASSWORD});
    let made = world.call_as(&admin, Method::POST, USERS, Some(&wanted)).await;
    assert_eq!(made.status, 201);
    let (id, user) = (made.json()["id"].as_str().unwrap().to_owned(), made.json());
    assert_eq!(
        (&user["username"], &user["disabled"], &user["is_admin"]),
        (&json!("ada.l"), &json!(false), &json!(false))
    );
    world
        .call_as(&admin, Method::POST, USERS, Some(&wanted))
        .await
        .refused(409, "user_exists");

    let granted = sign_in(&world, "ADA.l", PASSWORD).await;
    assert_eq!(
        (
            granted.json()["token_type"].clone(),
            granted.json()["expires_in"].clone()
        ),
        (json!("Bearer"), json!(3600))
    );
    assert_eq!(granted.header("cache-control"), Some("no-store"));
    let ada = with_token(&world, &granted, "access_token");
    let mine: Me = serde_json::from_value(me(&world, &ada).await.json()).unwrap();
    assert_eq!(
        (&mine.id, mine.username.as_str(), json!(mine.drive)),
        (&id, "ada.l", user["drive"].clone())
    );
    ada.put(&Target::new_file("/notes/a"), b"hers".to_vec().into())
        .await
        .unwrap();
    let tree = tree_of(&ada).await;

    // Disabled: no token and no password is good for anything.
    let disabled = patch_user(&world, &id, json!({"disabled": true})).await;
    assert_eq!(
        (disabled.status.as_u16(), disabled.json()["disabled"].clone()),
        (200, json!(true))
    );
    me(&world, &ada).await.refused(403, "user_disabled");
    let put = ada
        .request(Method::POST, UPLOAD)
        .query(&[("uploadType", "media"), ("path", "/b")])
        .body("x");
    world.send(put).await.refused(403, "user_disabled");
    let refused = no_grant(&sign_in(&world, "ada.l", PASSWORD).await, "invalid_grant");
    assert!(refused.contains("disabled"), "{refused}");
    let refresh = granted.json()["refresh_token"].as_str().unwrap().to_owned();
    let trade = [("grant_type", "refresh_token"), ("refresh_token", refresh.as_str())];
    no_grant(&grant(&world, &trade).await, "invalid_grant");

    // Enabled: the password is good again, the tokens stay ended.
    assert_eq!(
        patch_user(&world, &id, json!({"disabled": false})).await.json()["disabled"],
        false
    );
    me(&world, &ada).await.refused(401, "token_unknown");
    no_grant(&grant(&world, &trade).await, "invalid_grant");
    let ada = with_token(&world, &sign_in(&world, "ada.l", PASSWORD).await, "access_token");
    assert_eq!(tree_of(&ada).await, tree);
}

/// shows: SC-in-1
#[tokio::test]
async fn a_deleted_account_ends_at_once_and_can_be_taken_back() {
    let world = World::start().await;
    let admin = world.cluster.admin().unwrap();
    let (ada, id) = world.user("ada", 1 << 20).await;
    let file = ada
        .put(&Target::new_file("/notes/a"), b"hers".to_vec().into())
        .await
        .unwrap()
        .entry;
    let tree = tree_of(&ada).await;

    // Deleted: as if disabled, the name stays taken, a repeat is no error; enabled in time everything is there.
    for _ in 0..2 {
        assert_eq!(delete_user(&world, &id).await.status, 204);
    }
    me(&world, &ada).await.refused(403, "user_disabled");
    no_grant(&sign_in(&world, "ada", PASSWORD).await, "invalid_grant");
    let wanted = json!({"username": "ada", "password": PASSWORD});
    world
        .call_as(&admin, Method::POST, USERS, Some(&wanted))
        .await
        .refused(409, "user_exists");
    assert_eq!(patch_user(&world, &id, json!({"disabled": false})).await.status, 200);
    let ada = with_token(&world, &sign_in(&world, "ada", PASSWORD).await, "access_token");
    assert_eq!(tree_of(&ada).await, tree);
    assert_eq!(
        ada.get(&file.id, None).await.unwrap().bytes().await.unwrap(),
        &b"hers"[..]
    );

    // Nobody disables or deletes the account that asks.
    let own = world.call_as(&admin, Method::GET, "/api/v1/me", None).await.json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    patch_user(&world, &own, json!({"disabled": true}))
        .await
        .refused(422, "own_account");
    delete_user(&world, &own).await.refused(422, "own_account");
    let nobody = model::id::UserId(model::id::UserId::parse(&id).unwrap().0 ^ 1).to_string();
    patch_user(&world, &nobody, json!({"disabled": true}))
        .await
        .refused(404, "user_not_found");
    delete_user(&world, &nobody).await.refused(404, "user_not_found");
    delete_user(&world, "short").await.refused(400, "bad_id");
}

#[tokio::test]
async fn a_wrong_name_and_a_wrong_password_cannot_be_told_apart() {
    let world = World::start().await;
    world.user("ada", 1 << 20).await;
    let long = "x".repeat(2_000);
    let wrong = [
        ("ada", "not her password"),
        ("nobody", PASSWORD),
        ("No Name!", PASSWORD),
        ("", PASSWORD),
        ("ada", ""),
        ("ada", &long),
    ];
    let mut answers = Vec::new();
    for (name, password) in wrong {
        let answer = sign_in(&world, name, password).await;
        no_grant(&answer, "invalid_grant");
        answers.push(answer.json());
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");

    // About the same work: without the decoy a name that nobody has is answered a hundred times faster.
    let mut took: [Vec<Duration>; 2] = [Vec::new(), Vec::new()];
    for round in 0..14 {
        let name = ["ada", "nobody"][round % 2];
        let begun = Instant::now();
        no_grant(&sign_in(&world, name, "not her password").await, "invalid_grant");
        took[round % 2].push(begun.elapsed());
    }
    took.iter_mut().for_each(|times| times.sort_unstable());
    // The quickest of each: a neighbour of the test makes others slower, and none quicker.
    let (known, unknown) = (took[0][0], took[1][0]);
    assert!(unknown * 2 > known && known * 2 > unknown, "{known:?} and {unknown:?}");

    for form in [
        &[("grant_type", "password"), ("username", "ada")][..],
        &[("username", "ada"), ("password", PASSWORD)],
        &[
            ("grant_type", "password"),
            ("grant_type", "password"),
            ("username", "ada"),
            ("password", PASSWORD),
        ],
    ] {
        no_grant(&grant(&world, form).await, "invalid_request");
    }
    no_grant(
        &grant(&world, &[("grant_type", "client_credentials")]).await,
        "unsupported_grant_type",
    );
    let stranger = Client::new(&world.cluster.facts.url).unwrap();
    let as_json = stranger
        .request(Method::POST, "/api/v1/auth/token")
        .json(&json!({"grant_type": "password"}));
    no_grant(&world.send(as_json).await, "invalid_request");
}

#[tokio::test]
async fn a_refresh_token_buys_one_pair_and_another_password_ends_all_tokens() {
    let world = World::start().await;
    let (_, id) = world.user("ada", 1 << 20).await;
    let granted = sign_in(&world, "ada", PASSWORD).await;
    let refresh = granted.json()["refresh_token"].as_str().unwrap().to_owned();
    me(&world, &with_token(&world, &granted, "refresh_token"))
        .await
        .refused(401, "wrong_token_use");
    let trade = [("grant_type", "refresh_token"), ("refresh_token", refresh.as_str())];
    let renewed = with_token(&world, &grant(&world, &trade).await, "access_token");
    assert_eq!(me(&world, &renewed).await.status, 200);
    no_grant(&grant(&world, &trade).await, "invalid_grant");
    let access = granted.json()["access_token"].as_str().unwrap().to_owned();
    no_grant(
        &grant(&world, &[("grant_type", "refresh_token"), ("refresh_token", &access)]).await,
        "invalid_grant",
    );
    no_grant(
        &grant(&world, &[("grant_type", "refresh_token"), ("refresh_token", "x.y")]).await,
        "invalid_grant",
    );

    let password = |old: &str, new: &str| {
        let body = json!({"old_password": old, "new_password": new});
        let request = renewed.request(Method::POST, "/api/v1/me/password").json(&body);
        world.send(request)
    };
    password("not her password", "another one")
        .await
        .refused(401, "wrong_password");
    password(PASSWORD, "short").await.refused(400, "bad_password");
    password(PASSWORD, &"x".repeat(1_025))
        .await
        .refused(400, "bad_password");
    assert_eq!(me(&world, &renewed).await.status, 200);
    assert_eq!(password(PASSWORD, "another password").await.status, 204);
    me(&world, &renewed).await.refused(401, "token_unknown");
    no_grant(&sign_in(&world, "ada", PASSWORD).await, "invalid_grant");
    let again = with_token(
        &world,
        &sign_in(&world, "ada", "another password").await,
        "access_token",
    );
    assert_eq!(
        patch_user(&world, &id, json!({"password": "by the admin"}))
            .await
            .status,
        200
    );
    me(&world, &again).await.refused(401, "token_unknown");
    assert_eq!(sign_in(&world, "ada", "by the admin").await.status, 200);
}

#[tokio::test]
async fn accounts_are_made_by_administrators_with_sound_names_and_once_a_key() {
    let world = World::start().await;
    let admin = world.cluster.admin().unwrap();
    let make = |wanted: Value| world.send(admin.request(Method::POST, USERS).json(&wanted));
    let wanted = |name: &str, password: &str| json!({"username": name, "password": password});
    for name in ["", "a b", "a/b", "\u{e4}da", "a\0", &"a".repeat(65)] {
        make(wanted(name, PASSWORD)).await.refused(400, "bad_name");
    }
    for password in ["", "seven77", &"x".repeat(1_025)] {
        make(wanted("ada", password)).await.refused(400, "bad_password");
    }
    make(json!({"username": "ada"})).await.refused(400, "bad_json");
    make(json!({"username": "ada", "password": PASSWORD, "admin": true}))
        .await
        .refused(400, "bad_json");
    make(json!({"username": "ada", "password": PASSWORD, "quota_bytes": -1}))
        .await
        .refused(400, "bad_json");
    world
        .call(Method::POST, USERS, Some(&wanted("ada", PASSWORD)))
        .await
        .refused(403, "admin_only");
    no_grant(&sign_in(&world, "ada", PASSWORD).await, "invalid_grant");

    let keyed = |wanted: Value| {
        world.send(
            admin
                .request(Method::POST, USERS)
                .header("idempotency-key", "k")
                .json(&wanted),
        )
    };
    let first = keyed(wanted("ada", PASSWORD)).await;
    assert_eq!(first.status, 201);
    let again = keyed(wanted("ada", PASSWORD)).await;
    assert_eq!((again.status, again.json()), (first.status, first.json()));
    keyed(wanted("ada", "another password"))
        .await
        .refused(422, "request_id_reused");
    make(wanted("ADA", PASSWORD)).await.refused(409, "user_exists");

    // One who was made an administrator can do what one can.
    let second = json!({"username": "root2", "password": PASSWORD, "is_admin": true});
    assert_eq!(make(second).await.json()["is_admin"], true);
    let root2 = with_token(&world, &sign_in(&world, "root2", PASSWORD).await, "access_token");
    let made = world
        .call_as(&root2, Method::POST, USERS, Some(&wanted("bob", PASSWORD)))
        .await;
    assert_eq!(made.status, 201);
}

/// shows: C-5 scale=1/2
#[tokio::test]
async fn usage_is_counted_and_a_quota_holds_for_its_own_account_alone() {
    let world = World::start().await;
    let (ada, _) = world.user("ada", 100_000).await;
    let (bob, _) = world.user("bob", 50_000).await;
    let bytes = async |client: &Client| client.me().await.unwrap().usage.bytes;
    let put = |client: &Client, path: &str, bytes: Vec<u8>| {
        let request = client
            .request(Method::POST, UPLOAD)
            .query(&[("uploadType", "media"), ("path", path)]);
        world.send(request.body(bytes))
    };
    assert_eq!(
        (bytes(&ada).await, ada.me().await.unwrap().usage.quota_bytes),
        (0, 100_000)
    );
    assert_eq!(put(&ada, "/small", noise(1, 100)).await.status, 201);
    assert_eq!(put(&ada, "/large", noise(2, 60_000)).await.status, 201);
    assert_eq!(bytes(&ada).await, 60_100);
    assert_eq!(put(&ada, "/copy", noise(2, 60_000)).await.status, 201);
    assert_eq!(bytes(&ada).await, 60_100, "the same content counts once");
    let before = tree_of(&ada).await;
    for length in [40_000, 4_000_000] {
        put(&ada, "/more", noise(3, length))
            .await
            .refused(507, "quota_exceeded");
    }
    let version =
        ada.request(Method::POST, UPLOAD)
            .query(&[("uploadType", "media"), ("path", "/small"), ("base_version", "1")]);
    world
        .send(version.body(noise(3, 40_000)))
        .await
        .refused(507, "quota_exceeded");
    assert_eq!((tree_of(&ada).await, bytes(&ada).await), (before, 60_100));
    assert_eq!(put(&ada, "/exact", noise(3, 39_900)).await.status, 201);
    assert_eq!(bytes(&ada).await, 100_000);
    put(&ada, "/one", vec![7]).await.refused(507, "quota_exceeded");
    assert_eq!(
        put(&ada, "/empty", Vec::new()).await.status,
        201,
        "what takes no room passes"
    );

    // Nobody else notices, and nobody shares.
    assert_eq!(put(&bob, "/large", noise(2, 50_000)).await.status, 201);
    assert_eq!((bytes(&bob).await, bytes(&ada).await), (50_000, 100_000));
}

#[tokio::test]
async fn the_trash_counts_what_is_gone_for_good_does_not_and_a_quota_can_be_changed() {
    let world = World::start().await;
    let (ada, id) = world.user("ada", 100_000).await;
    let bytes = async |client: &Client| client.me().await.unwrap().usage.bytes;
    let put = |path: &'static str, bytes: Vec<u8>| {
        let request = ada
            .request(Method::POST, UPLOAD)
            .query(&[("uploadType", "media"), ("path", path)]);
        world.send(request.body(bytes))
    };
    assert_eq!(put("/large", noise(2, 60_000)).await.status, 201);
    let exact = put("/exact", noise(3, 40_000)).await.json()["entry"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("{METADATA}/{exact}");
    assert_eq!(world.call_as(&ada, Method::DELETE, &path, None).await.status, 204);
    put("/one", vec![7]).await.refused(507, "quota_exceeded");
    assert_eq!(
        patch_user(&world, &id, json!({"quota_bytes": 100_001})).await.status,
        200
    );
    assert_eq!(put("/one", vec![7]).await.status, 201);
    assert_eq!(patch_user(&world, &id, json!({"quota_bytes": 10})).await.status, 200);
    put("/two", vec![8]).await.refused(507, "quota_exceeded");
    assert_eq!(
        world
            .call_as(&ada, Method::DELETE, &format!("{path}?permanent=true"), None)
            .await
            .status,
        204
    );
    let begun = Instant::now();
    while bytes(&ada).await > 60_001 {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "the space does not come back"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
