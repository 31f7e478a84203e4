//! Logs, errors and answers tell no secret, also at debug level and when everything goes wrong.
//!
//! Not here: files other than the log (`secrecy`).

use crate::search::{Needle, search};
use crate::world::{Answer, answer, holdfast, noise};
use chaos::dev_cluster::DevCluster;
use client_sdk::client::Client;
use reqwest::Method;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

const USER: &str = "canary";
const PASSWORDS: [&str; 5] = [
    "first canary of passwords",
    "wrong canary of passwords",
    "next canary of passwords",
    "canary of passwords in broken json",
    "canary of passwords in a wrong field",
];
const FOREIGN_TOKENS: [&str; 3] = [
    "canary.of.foreign.bearer.tokens",
    "canary-of-tokens-in-a-query",
    "Y2FuYXJ5IG9mIGJhc2ljIGNyZWRlbnRpYWxz",
];

/// What must not be told, by name.
type Secrets = Vec<(String, Vec<u8>)>;

async fn post(client: &Client, path: &str, body: &str) -> Answer {
    let request = client
        .request(Method::POST, path)
        .header("content-type", "application/json");
    answer(request.body(body.to_owned())).await
}

async fn grant(client: &Client, form: &[(&str, &str)]) -> Answer {
    answer(client.request(Method::POST, "/api/v1/auth/token").form(form)).await
}

/// Everything that a user does with a password or a token, right and wrong. Answers all that came back.
async fn use_secrets(cluster: &DevCluster, secrets: &mut Secrets) -> Vec<Answer> {
    let (anybody, admin) = (Client::new(&cluster.facts.url).unwrap(), cluster.admin().unwrap());
    let [first, wrong, next, broken, misplaced] = PASSWORDS;
    let mut answers = Vec::new();
    let user = json!({"username": USER, "password": first}).to_string();
    answers.push(post(&admin, "/api/v1/users", &user).await);
    answers.push(post(&admin, "/api/v1/users", &user).await);
    answers.push(
        post(
            &admin,
            "/api/v1/users",
            &format!("{{\"username\": \"x\", \"password\": \"{broken}\", }}"),
        )
        .await,
    );
    let unknown_field = json!({"username": "x", "password": first, "passwort": misplaced});
    answers.push(post(&admin, "/api/v1/users", &unknown_field.to_string()).await);
    let short = json!({"username": "x", "password": "short"});
    answers.push(post(&admin, "/api/v1/users", &short.to_string()).await);
    let sign_in = |password| [("grant_type", "password"), ("username", USER), ("password", password)];
    answers.push(grant(&anybody, &sign_in(wrong)).await);
    answers.push(grant(&anybody, &[("grant_type", "password"), ("password", wrong)]).await);
    let granted: Value = grant(&anybody, &sign_in(first)).await.json();
    let refresh = granted["refresh_token"].as_str().unwrap();
    let renewed: Value = grant(&anybody, &[("grant_type", "refresh_token"), ("refresh_token", refresh)])
        .await
        .json();
    for (name, pair) in [("granted", &granted), ("renewed", &renewed)] {
        for field in ["access_token", "refresh_token"] {
            let token = pair[field].as_str().unwrap();
            secrets.push((format!("{name} {field}"), token.as_bytes().to_vec()));
        }
    }
    let user = anybody.clone().with_token(renewed["access_token"].as_str().unwrap());
    let change = |old, new| json!({"old_password": old, "new_password": new}).to_string();
    answers.push(post(&user, "/api/v1/me/password", &change(wrong, next)).await);
    answers.push(post(&user, "/api/v1/me/password", &change(first, next)).await);
    let [bearer, in_query, basic] = FOREIGN_TOKENS;
    answers.push(answer(anybody.clone().with_token(bearer).request(Method::GET, "/api/v1/me")).await);
    answers.push(answer(anybody.request(Method::GET, &format!("/api/v1/me?access_token={in_query}"))).await);
    let request = anybody.request(Method::GET, "/api/v1/me");
    answers.push(answer(request.header("authorization", format!("Basic {basic}"))).await);
    answers.push(answer(anybody.with_token(bearer).request(Method::GET, "/no/such/route")).await);
    answers
}

/// Uploads that end well and badly, over HTTP/1.1 and over HTTP/2.
async fn send_contents(cluster: &DevCluster, secrets: &mut Secrets) -> Vec<Answer> {
    let user = cluster.client().await.unwrap();
    let mut answers = Vec::new();
    for (number, length) in [(1, 3_000), (2, 300_000), (3, 5 << 20)] {
        let content = noise(number, length);
        for path in [format!("/{number}"), format!("/{number}"), format!("/no/such/{number}")] {
            let query = [("uploadType", "media"), ("path", path.as_str())];
            let request = user.request(Method::POST, "/api/v1/files/upload").query(&query);
            answers.push(answer(request.body(content.clone())).await);
        }
        secrets.push((format!("content {number}"), content));
    }
    let token = cluster.facts.admin_token.clone();
    let http2 = client_sdk::http::builder(&client_sdk::http::Authorities::Nobody)
        .unwrap()
        .http2_prior_knowledge()
        .build()
        .unwrap();
    let status = http2
        .get(format!("{}/api/v1/admin/status", cluster.facts.url))
        .bearer_auth(&token);
    let status = answer(status).await;
    assert!(status.status.is_success());
    answers.push(status);
    answers
}

fn log_of(data_dir: &Path) -> String {
    fs::read_to_string(data_dir.join("dev.log")).unwrap()
}

/// shows: F49
#[tokio::test]
async fn no_log_line_error_or_answer_tells_a_password_a_token_a_key_or_a_content() {
    let directory = TempDir::new().unwrap();
    let data_dir = directory.path().join("data");
    let arguments = ["--disk-capacity", "4G"];
    // RocksDB and QUIC would write megabytes at trace level; everything that ever holds a secret does so at debug.
    let filter = Some("debug,gateway=trace,metadata_raft=trace,node=trace,hyper=trace,h2=trace");
    let mut cluster = DevCluster::start_logging(holdfast(), &data_dir, &arguments, filter)
        .await
        .unwrap();
    let mut secrets: Secrets = vec![
        ("admin token".to_owned(), cluster.facts.admin_token.as_bytes().to_vec()),
        ("demo password".to_owned(), cluster.facts.password.as_bytes().to_vec()),
    ];
    for text in PASSWORDS.into_iter().chain(FOREIGN_TOKENS) {
        secrets.push((text.to_owned(), text.as_bytes().to_vec()));
    }
    let mut answers = use_secrets(&cluster, &mut secrets).await;
    answers.extend(send_contents(&cluster, &mut secrets).await);
    cluster.stop().unwrap();
    let kek_path = data_dir.join("cluster/kek");
    let kek = fs::read_to_string(&kek_path).unwrap();
    let kek_hex = kek.split_ascii_whitespace().nth(1).unwrap().to_owned();
    secrets.push(("kek".to_owned(), kek_hex.into_bytes()));

    // A start that is refused for its key says so without it.
    fs::write(
        &kek_path,
        kek.replace(' ', "  ").replacen("holdfast-kek-1", "holdfast-kek-9", 1),
    )
    .unwrap();
    let refused = Command::new(holdfast())
        .args(["dev", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(&data_dir)
        .output();
    let refused = refused.unwrap();
    assert!(!refused.status.success(), "a KEK of unknown form was taken");
    fs::write(data_dir.join("refused.log"), [refused.stdout, refused.stderr].concat()).unwrap();

    let mut told = String::new();
    for answer in &answers {
        told += &format!("{:?}\n{}\n", answer.headers, String::from_utf8_lossy(&answer.body));
    }
    fs::write(data_dir.join("answers.log"), told).unwrap();
    let needles: Vec<Needle> = secrets.iter().map(|(name, secret)| needle(name, secret)).collect();
    let found = search(&data_dir, &needles);
    for (name, _) in &secrets {
        found.assert_absent(name, |file| file.extension().is_some_and(|ending| ending == "log"));
    }
    // The search can fail: what must be told somewhere is found there, and the log is what it should be.
    assert_eq!(found.files_with("kek"), [Path::new("cluster/kek")]);
    assert!(!found.files_with("demo password").is_empty());
    let log = log_of(&data_dir);
    assert!(log.contains("DEBUG"), "no log at debug level");
    assert!(log.len() > 10_000);
    for header in ["authorization:", "Authorization:", "Bearer "] {
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(header)).collect();
        assert!(lines.is_empty(), "{lines:?}");
    }
}

fn needle(name: &str, secret: &[u8]) -> Needle {
    if name.starts_with("content") {
        Needle::content(name, secret)
    } else {
        Needle::secret(name, secret)
    }
}
