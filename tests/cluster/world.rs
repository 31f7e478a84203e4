//! One cluster for one test, the demo user's client, and requests below what a well-behaved client can send.
//!
//! Invariant: the child process ends and its directory goes with the `World`, also when the test fails.
//! Not here: expectations; each test file says its own.

use crate::contract::Contract;
use api::problem::Problem;
use api::upload::Uploaded;
use chaos::dev_cluster::DevCluster;
use client_sdk::client::{Client, Target};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpStream;

/// No answer may take longer; far above what a loaded two-core machine needs.
pub(crate) const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// Of every account that a test makes.
pub(crate) const PASSWORD: &str = "correct horse battery";
/// Every code that a test meets must be written up there.
const ERRORS: &str = include_str!("../../docs/errors.md");

/// The binary under test.
pub(crate) fn holdfast() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_holdfast"))
}

/// A running cluster with its data directory.
pub(crate) struct World {
    pub(crate) cluster: DevCluster,
    pub(crate) client: Client,
    /// The served description, against which every answer of `call` and `send` is checked.
    pub(crate) contract: Contract,
    options: Vec<String>,
    directory: TempDir,
}

/// What came back: status, headers as (lower-case name, value), body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl World {
    /// Starts `holdfast dev` with its defaults but small disks.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same with gateways that keep nothing in memory: each read comes from the disks.
    pub(crate) async fn start_uncached() -> Self {
        Self::start_with(&["--cache-bytes", "0"]).await
    }

    /// Starts `holdfast dev` with further arguments.
    pub(crate) async fn start_with(options: &[&str]) -> Self {
        let directory = TempDir::new().unwrap();
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let cluster = start(&data_dir_in(&directory), &options).await;
        let client = cluster.client().await.unwrap();
        let contract = Contract::fetch(&client).await;
        Self {
            cluster,
            client,
            contract,
            options,
            directory,
        }
    }

    /// Where the cluster keeps everything.
    pub(crate) fn data_dir(&self) -> PathBuf {
        data_dir_in(&self.directory)
    }

    /// Stops it in order and starts it again on the same data.
    pub(crate) async fn restart(&mut self) {
        self.cluster.stop().unwrap();
        self.start_again().await;
    }

    /// `kill -9`, then a start on the same data.
    pub(crate) async fn kill_and_restart(&mut self) {
        self.cluster.kill().unwrap();
        self.start_again().await;
    }

    /// Starts it on the same data after it ended in whatever way.
    pub(crate) async fn start_again(&mut self) {
        self.cluster = start(&self.data_dir(), &self.options).await;
        self.client = self.cluster.client().await.unwrap();
    }

    /// Other arguments for the next start.
    pub(crate) fn change_options(&mut self, options: &[&str]) {
        self.options = options.iter().map(|option| (*option).to_owned()).collect();
    }

    /// A call as the demo user; `body` is sent as JSON.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        self.call_as(&self.client, method, path, body).await
    }

    /// The same as whoever `client` is signed in as.
    pub(crate) async fn call_as(&self, client: &Client, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let request = client.request(method, path);
        self.send(match body {
            Some(body) => request.json(body),
            None => request,
        })
        .await
    }

    /// A request made ready by hand.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Answer {
        let request = request.timeout(ANSWER_DEADLINE);
        let (client, built) = request.build_split();
        let built = built.unwrap();
        let (method, path) = (built.method().clone(), built.url().path().to_owned());
        let answer = answer(RequestBuilder::from_parts(client, built)).await;
        self.contract.check(&method, &path, &answer);
        answer
    }

    /// A client of a new account, made by the administrator; the account's id too.
    pub(crate) async fn user(&self, name: &str, quota_bytes: u64) -> (Client, String) {
        let admin = self.cluster.admin().unwrap();
        let wanted = json!({"username": name, "password": PASSWORD, "quota_bytes": quota_bytes});
        let made = self.call_as(&admin, Method::POST, "/api/v1/users", Some(&wanted)).await;
        assert_eq!(made.status, 201, "{made:?}");
        let stranger = Client::new(&self.cluster.facts.url).unwrap();
        let client = stranger.login(name, PASSWORD).await.unwrap();
        (client, made.json()["id"].as_str().unwrap().to_owned())
    }

    /// A bare connection to the gateway.
    pub(crate) async fn connect(&self) -> TcpStream {
        let address = self.cluster.facts.url.trim_start_matches("http://");
        TcpStream::connect(address).await.unwrap()
    }

    /// Ids of the storage nodes.
    pub(crate) fn nodes(&self) -> Vec<u64> {
        let processes = self.cluster.facts.processes.iter();
        processes
            .filter(|process| process.role == "node")
            .map(|process| process.id)
            .collect()
    }

    /// Stops a storage node, as `holdfast admin node stop` does.
    pub(crate) async fn stop_node(&self, node: u64) {
        self.switch_node(node, "stop").await;
    }

    /// Starts a stopped storage node again; the gateway uses it from then on.
    pub(crate) async fn start_node(&self, node: u64) {
        self.switch_node(node, "start").await;
    }

    async fn switch_node(&self, node: u64, what: &str) {
        let path = format!("/api/v1/admin/nodes/{node}/{what}");
        let admin = self.cluster.admin().unwrap();
        admin.json(Method::POST, &path, None).await.unwrap();
    }

    /// A counter or gauge of the gateway's page, summed over its labels; 0 before its first event.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let page = self.client.text("/metrics").await.unwrap();
        chaos::meter::sum(&page, name).unwrap_or(0.0)
    }

    /// Puts a new file, with the folders above it.
    pub(crate) async fn put(&self, path: &str, bytes: &[u8]) -> Uploaded {
        let target = Target::new_file(path);
        self.client.put(&target, bytes.to_vec().into()).await.unwrap()
    }

    /// What is answered to a GET of a file's content with further headers.
    pub(crate) async fn content(&self, id: &str, headers: &[(&str, &str)]) -> Answer {
        let path = format!("/api/v1/files/{id}/content");
        let mut request = self.client.request(Method::GET, &path).timeout(ANSWER_DEADLINE);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request).await
    }

    /// Names and ids of everything below the root of the home drive, for "nothing was left behind".
    pub(crate) async fn tree(&self) -> Vec<String> {
        tree_of(&self.client).await
    }
}

/// The same of another account's drive.
pub(crate) async fn tree_of(client: &Client) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec!["/".to_owned()];
    while let Some(folder) = folders.pop() {
        let mut token: Option<String> = None;
        loop {
            let page = client.list(&folder, 1000, token.as_deref()).await.unwrap();
            for entry in &page.entries {
                let path = format!("{}/{}", folder.trim_end_matches('/'), entry.name);
                if entry.entry_type == api::entry::Kind::Folder {
                    folders.push(path.clone());
                }
                found.push(path);
            }
            token = page.next_page_token;
            if token.is_none() {
                break;
            }
        }
    }
    found.sort();
    found
}

impl Answer {
    /// The value of a header by its lower-case name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {}", String::from_utf8_lossy(&self.body)))
    }

    /// Asserts a typed refusal: status, `application/problem+json`, the code, and a detail that says something.
    pub(crate) fn refused(&self, status: u16, code: &str) -> Problem {
        let body = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status.as_u16(), status, "{body}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{body}");
        let problem: Problem = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem.code, code, "{body}");
        assert!(
            ERRORS.contains(&format!("\n| `{code}` |")),
            "docs/errors.md lacks {code}"
        );
        assert_eq!(problem.status, status, "{body}");
        assert!(problem.detail.len() > 10, "the detail says nothing: {body}");
        problem
    }
}

/// Sends a prepared request and reads the whole answer.
pub(crate) async fn answer(request: reqwest::RequestBuilder) -> Answer {
    try_answer(request).await.unwrap()
}

/// The same; an error where no answer came.
pub(crate) async fn try_answer(request: reqwest::RequestBuilder) -> reqwest::Result<Answer> {
    let response = request.send().await?;
    let status = response.status();
    let headers = response.headers().iter();
    let headers = headers
        .map(|(name, value)| {
            (
                name.as_str().to_owned(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            )
        })
        .collect();
    Ok(Answer {
        status,
        headers,
        body: response.bytes().await?.to_vec(),
    })
}

/// Bytes that do not compress and follow from `seed`.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    let mut bytes = vec![0; length];
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

fn data_dir_in(directory: &TempDir) -> PathBuf {
    directory.path().join("data")
}

async fn start(data_dir: &Path, options: &[String]) -> DevCluster {
    let mut arguments: Vec<&str> = options.iter().map(String::as_str).collect();
    if !arguments.contains(&"--disk-capacity") {
        arguments.extend(["--disk-capacity", "4G"]);
    }
    DevCluster::start(holdfast(), data_dir, &arguments).await.unwrap()
}
