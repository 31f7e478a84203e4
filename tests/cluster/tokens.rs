//! Tokens and sign-ins that are wrong, late, foreign or too many.
//!
//! Not here: which caller may do what (`accounts`), refresh tokens and names that nobody has (`accounts`).

use crate::inside::Inside;
use crate::wire::{Sender, head, read, token_of};
use crate::world::{Answer, PASSWORD, World, noise};
use api::problem::TokenProblem;
use client_sdk::client::Client;
use codec::cipher::Aes256Gcm;
use model::time::WallTime;
use protocol::metadata::user::NewToken;
use reqwest::Method;
use std::sync::Arc;
use std::time::Duration;

const ME: &str = "/api/v1/me";
const TOKEN: &str = "/api/v1/auth/token";

fn holder(world: &World, token: &str) -> Client {
    Client::new(&world.cluster.facts.url).unwrap().with_token(token)
}

#[track_caller]
fn unauthorized(answer: &Answer, code: &str) {
    answer.refused(401, code);
    assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
}

/// The same text with another letter of its alphabet at `at`.
fn altered(token: &str, at: usize) -> String {
    let mut letters: Vec<char> = token.chars().collect();
    letters[at] = if letters[at] == 'b' { 'c' } else { 'b' };
    letters.into_iter().collect()
}

#[tokio::test]
async fn a_token_is_refused_however_it_is_malformed() {
    let world = World::start().await;
    let other = World::start().await;
    let token = token_of(&world.client);
    let (user, secret) = token.split_once('.').unwrap();
    let me = async |token: &str| world.call_as(&holder(&world, token), Method::GET, ME, None).await;
    assert_eq!(me(&token).await.status, 200);

    // An unsigned JSON web token, as somebody may try who expects one.
    let unsigned = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJkZW1vIn0.";
    for malformed in [
        "x",
        ".",
        user,
        secret,
        &format!("{user}{secret}"),
        &format!("{user}."),
        &format!(".{secret}"),
        &format!("{user}.{secret}.x"),
        &format!("{user}.{}", &secret[..secret.len() - 1]),
        &format!("{user}.{secret}a"),
        &format!("{user}.!{}", &secret[1..]),
        &format!("{}.{secret}", &user[..user.len() - 1]),
        &format!("{user} {secret}"),
        &"x".repeat(8_000),
        unsigned,
    ] {
        unauthorized(&me(malformed).await, "token_malformed");
    }
    // Every letter counts; one that says nothing any more (the last of a part has spare bits) makes it malformed.
    for at in (0..token.len()).filter(|at| *at != user.len()) {
        let answer = me(&altered(&token, at)).await;
        let code = answer.json()["code"].as_str().unwrap().to_owned();
        assert!(
            ["token_unknown", "token_malformed"].contains(&code.as_str()),
            "letter {at}: {answer:?}"
        );
        unauthorized(&answer, &code);
    }
    unauthorized(&me(&token_of(&other.client)).await, "token_unknown");
    unauthorized(&me(&other.cluster.facts.admin_token).await, "token_unknown");
    assert_eq!(me(&token).await.status, 200);
}

/// One head for each wrong way to bring a good token.
#[tokio::test]
async fn a_token_counts_in_the_authorization_header_alone() {
    let world = World::start().await;
    let token = token_of(&world.client);
    let ask = async |target: &str, headers: String| {
        let mut sender = Sender::open(&world).await;
        let text = format!("GET {target} HTTP/1.1\r\nhost: h\r\n{headers}\r\n");
        sender.send(text.as_bytes()).await;
        sender.finish().await
    };
    unauthorized(&ask(ME, String::new()).await, "unauthenticated");
    for key in ["access_token", "token", "authorization"] {
        unauthorized(
            &ask(&format!("{ME}?{key}={token}"), String::new()).await,
            "unauthenticated",
        );
    }
    unauthorized(
        &ask(ME, format!("cookie: access_token={token}\r\n")).await,
        "unauthenticated",
    );
    unauthorized(
        &ask(ME, format!("x-access-token: {token}\r\n")).await,
        "unauthenticated",
    );
    unauthorized(
        &ask(ME, format!("authorization: Basic {token}\r\n")).await,
        "unauthenticated",
    );
    unauthorized(&ask(ME, format!("authorization: {token}\r\n")).await, "token_malformed");
    unauthorized(
        &ask(ME, "authorization: Bearer\r\n".to_owned()).await,
        "token_malformed",
    );
    let twice = format!("authorization: Bearer {token}\r\nauthorization: Bearer {token}\r\n");
    unauthorized(&ask(ME, twice).await, "token_malformed");
    assert_eq!(ask(ME, format!("authorization: bearer {token}\r\n")).await.status, 200);
    // A token beside a query that the call does not take is not looked at twice.
    let beside = ask(
        &format!("{ME}?access_token={token}"),
        format!("authorization: Bearer {token}\r\n"),
    )
    .await;
    beside.refused(400, "bad_query");
    // A head over its limit never reaches a route.
    let mut sender = Sender::open(&world).await;
    let long = format!(
        "GET {ME} HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {}\r\n\r\n",
        "x".repeat(64 << 10)
    );
    sender.send(long.as_bytes()).await;
    assert_eq!(read(&sender.rest().await).status, 431);
    assert_eq!(world.call(Method::GET, ME, None).await.status, 200);
}

/// The cluster keeps this token as it keeps every other; only its time is over.
#[tokio::test]
async fn an_expired_token_is_refused_and_its_upload_leaves_nothing() {
    let inside = Inside::start(Arc::new(Aes256Gcm)).await;
    let core = Arc::clone(inside.core());
    let (caller, _) = inside.demo().await;
    let now = core.seams.clock.wall().0;
    let token = async |expires_at: u64| {
        let user = caller.principal.user;
        let draw = || gateway::auth::token::draw(user, &core.seams.random);
        let expires_at = WallTime(expires_at);
        let ((text, hash), (_, other)) = (draw(), draw());
        let [access, refresh] = [hash, other].map(|hash| NewToken { hash, expires_at });
        core.issue_tokens(user, access, refresh, 1).await.unwrap();
        Client::new(&inside.facts().url).unwrap().with_token(&text)
    };
    // The expired one comes last: each log-in takes those away that are over.
    let living = token(now + 600_000).await;
    let late = token(now - 1).await;
    let ask = |client: &Client, method: Method, path: &str| client.request(method, path).body(noise(1, 100_000));
    assert_eq!(crate::world::answer(ask(&living, Method::GET, ME)).await.status, 200);
    for (method, path) in [
        (Method::GET, ME),
        (Method::GET, "/api/v1/metadata?path=/"),
        (Method::POST, "/api/v1/files/upload?uploadType=media&path=/late"),
        (Method::POST, "/api/v1/files/upload?uploadType=multipart"),
        (Method::GET, "/api/v1/admin/status"),
    ] {
        let answer = crate::world::answer(ask(&late, method, path)).await;
        unauthorized(&answer, "token_expired");
    }
    assert_eq!(crate::world::tree_of(&inside.client).await, [""; 0]);
    assert_eq!(inside.client.me().await.unwrap().usage.bytes, 0);
    inside.stop().await;
}

async fn grant(world: &World, media: &str, body: Vec<u8>) -> Answer {
    let stranger = Client::new(&world.cluster.facts.url).unwrap();
    let request = stranger.request(Method::POST, TOKEN).header("content-type", media);
    world.send(request.body(body)).await
}

#[tokio::test]
async fn a_form_that_is_no_grant_is_refused_in_the_shape_of_rfc_6749() {
    let world = World::start().await;
    const FORM: &str = "application/x-www-form-urlencoded";
    let good = format!(
        "grant_type=password&username={}&password={}",
        world.cluster.facts.user, world.cluster.facts.password
    );
    let invalid = "invalid_request";
    let table: [(&str, Vec<u8>, u16, &str); 11] = [
        (FORM, Vec::new(), 400, invalid),
        (FORM, b"grant_type".to_vec(), 400, "unsupported_grant_type"),
        (FORM, b"grant_type=implicit".to_vec(), 400, "unsupported_grant_type"),
        (FORM, b"grant_type=password&username=demo".to_vec(), 400, invalid),
        (FORM, b"grant_type=refresh_token".to_vec(), 400, "invalid_grant"),
        (
            FORM,
            b"grant_type=password&username=%ff&password=%fe".to_vec(),
            400,
            invalid,
        ),
        (
            FORM,
            b"grant_type=password&username=\xff&password=x".to_vec(),
            400,
            invalid,
        ),
        (
            FORM,
            format!("{good}&x={}", "y".repeat(16 << 10)).into_bytes(),
            413,
            invalid,
        ),
        (FORM, format!("{good}&grant_type=password").into_bytes(), 400, invalid),
        ("application/json", good.clone().into_bytes(), 400, invalid),
        ("text/plain", good.clone().into_bytes(), 400, invalid),
    ];
    for (media, body, status, error) in table {
        let shown = String::from_utf8_lossy(&body[..body.len().min(100)]).into_owned();
        let answer = grant(&world, media, body).await;
        let problem: TokenProblem = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(
            (answer.status.as_u16(), problem.error.as_str()),
            (status, error),
            "{media} {shown}"
        );
        assert!(problem.error_description.len() > 10, "{shown}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{shown}");
    }
    let mut in_the_address = Sender::open(&world).await;
    let headers = format!("content-type: {FORM}\r\ncontent-length: 0\r\n");
    in_the_address
        .send(&head(&world.client, &format!("POST {TOKEN}?{good}"), &headers))
        .await;
    let answer = in_the_address.finish().await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()["error"].as_str()),
        (400, Some(invalid))
    );
    assert_eq!(grant(&world, FORM, good.into_bytes()).await.status, 200);
}

/// The greatest memory that the process had, in KiB.
fn peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// One hash takes 64 MiB: a hundred at once would take six gigabytes.
#[tokio::test]
async fn many_wrong_sign_ins_at_once_are_bounded_in_memory_and_hold_nobody_else_up() {
    let world = World::start().await;
    let before = peak_kib(world.cluster.pid());
    let long = "p".repeat(4_000);
    let trials = (0..100).map(|number| {
        let stranger = Client::new(&world.cluster.facts.url).unwrap();
        let password = if number % 4 == 3 {
            long.clone()
        } else {
            format!("wrong {number}")
        };
        let form = [
            ("grant_type", "password".to_owned()),
            ("username", "demo".to_owned()),
            ("password", password),
        ];
        tokio::spawn(crate::world::answer(stranger.request(Method::POST, TOKEN).form(&form)))
    });
    let trials: Vec<_> = trials.collect();
    for _ in 0..5 {
        let listed = tokio::time::timeout(Duration::from_secs(10), world.tree()).await;
        assert_eq!(listed.unwrap(), [""; 0], "others wait behind the sign-ins");
    }
    let (mut wrong, mut busy) = (0, 0);
    for trial in trials {
        let answer = trial.await.unwrap();
        let problem: TokenProblem = serde_json::from_slice(&answer.body).unwrap();
        match (answer.status.as_u16(), problem.error.as_str()) {
            (400, "invalid_grant") => wrong += 1,
            (429, "temporarily_unavailable") => {
                assert!(answer.header("retry-after").unwrap().parse::<u32>().unwrap() >= 1);
                busy += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(
        wrong > 0 && busy > 0,
        "{wrong} were wrong, {busy} were told to come again"
    );
    let cores = std::thread::available_parallelism().unwrap().get() as u64;
    let grown = peak_kib(world.cluster.pid()).saturating_sub(before);
    // A hash a core, and as much again for everything else that ran meanwhile.
    assert!(grown < (cores + 2) * (64 << 10), "the process grew by {grown} KiB");
    let (ada, _) = world.user("ada", 1 << 20).await;
    assert_eq!(ada.me().await.unwrap().username, "ada");
    assert_eq!(
        PASSWORD.len(),
        21,
        "the account that was just made signed in by password"
    );
}
