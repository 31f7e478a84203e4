//! Requests made up from the served OpenAPI document, against a running cluster: schemathesis sends them, we start and judge.
//!
//! Every operation is asked with a token and with values that the document allows and that it does not; also operations one after the
//! other, with ids that earlier answers gave. What counts as a fault: an answer of 5xx, a status, header, media type or body that is not
//! described, and an operation that needs a token and does not ask for it. A status is described when it is named: what the document
//! says of all others (`default`) would allow any, so schemathesis is given the document without it.
//! What stops nodes is asked by itself, while they are started again: everything else needs them.
//! Invariants: it ends in bounded time, and what it started ends with it; the cluster serves as before when it is over.
//! Not here: whether a refusal is the right one (tests/cluster); that good clients are answered so (tests/cluster/contract.rs).

use crate::dev_cluster::DevCluster;
use anyhow::{Context, bail, ensure};
use clap::Parser;
use client_sdk::client::{Client, Target};
use client_sdk::error::ClientError;
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// What counts as a fault. Whether a made up value should have been taken is no such thing: the document cannot say all of it.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
                      response_schema_conformance,ignored_auth";
/// Stops nodes and starts them.
const NODES: &str = "/api/v1/admin/nodes/";
/// Seconds of made up requests to these alone, for each of the two accounts: two operations of one number.
const NODES_SECONDS: u64 = 20;
/// What schemathesis is taught: the media type of chunks of tus, which are any bytes.
const TAUGHT: &str = r#"from hypothesis import strategies
import schemathesis

schemathesis.openapi.media_type("application/offset+octet-stream", strategies.binary(max_size=4096))
"#;
/// No answer may take longer; a poll that may wait for minutes is woken by a change (`TICK`).
const ANSWER_SECONDS: u32 = 60;
/// The account's drive changes so often, so that no poll waits for long.
const TICK: Duration = Duration::from_millis(250);
/// What schemathesis may take beyond its time, for what is under way then.
const ENDING: Duration = Duration::from_secs(180);
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Arguments.
#[derive(Debug, Parser)]
pub struct Arguments {
    /// The server binary.
    #[arg(long, default_value = "target/release/holdfast")]
    holdfast: PathBuf,
    /// schemathesis, as `make api-fuzz` installs it.
    #[arg(long, default_value = "target/api-fuzz/venv/bin/schemathesis")]
    schemathesis: PathBuf,
    /// Where the cluster keeps its data; wiped before, and after a success.
    #[arg(long, default_value = "target/api-fuzz/data")]
    data_dir: PathBuf,
    /// Made up requests for each operation and phase.
    #[arg(long, default_value_t = 40)]
    examples: u32,
    /// Seconds of made up requests for each of the two accounts.
    #[arg(long, default_value_t = 150)]
    seconds: u64,
    /// Seed of the requests.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Which operations are asked, and for how long.
struct Share {
    /// Takes them in, or out.
    filter: &'static str,
    seconds: u64,
    /// Whether they stop nodes, which are started again meanwhile.
    stops_nodes: bool,
}

/// The document and what schemathesis is taught, as files.
struct Files {
    document: PathBuf,
    taught: PathBuf,
}

/// Ended when it is dropped, whatever happened.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Nothing can be done about a failure while dropping; one that has ended answers with one.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Asks as the demo user and as an administrator; an error when a fault was found.
pub async fn run() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let options = ["--disk-capacity", "8G"];
    DevCluster::with_fresh(&arguments.holdfast, &arguments.data_dir, &options, async |cluster| {
        attack(cluster, &arguments).await
    })
    .await?;
    println!("api-fuzz passed");
    Ok(())
}

async fn attack(cluster: &DevCluster, arguments: &Arguments) -> anyhow::Result<()> {
    let client = cluster.client().await?;
    let token = client.token().context("signed in")?;
    let nodes: Vec<u64> = cluster
        .facts
        .processes
        .iter()
        .filter(|one| one.role == "node")
        .map(|one| one.id)
        .collect();
    let files = write_files(&client, arguments, &nodes).await?;
    let most = Share {
        filter: "--exclude-path-regex",
        seconds: arguments.seconds,
        stops_nodes: false,
    };
    let of_nodes = Share {
        filter: "--include-path-regex",
        seconds: NODES_SECONDS.min(arguments.seconds),
        stops_nodes: true,
    };
    let mut faults = Vec::new();
    for (who, token) in [("a user", token), ("an administrator", &cluster.facts.admin_token)] {
        // In this order: what is made up for accounts may end the administrator's token, by which nodes are started.
        for share in [&of_nodes, &most] {
            println!("as {who}, {} {NODES}", share.filter);
            let ticks = tokio::spawn(tick(Client::new(&cluster.facts.url)?.with_token(token)));
            let clean = if share.stops_nodes {
                let admin = cluster.admin()?;
                let starts = tokio::spawn(keep_started(cluster.admin()?, nodes.clone()));
                let clean = is_clean(cluster, arguments, (token, share, &files)).await;
                starts.abort();
                start(&admin, &nodes).await.context("start the nodes")?;
                clean
            } else {
                is_clean(cluster, arguments, (token, share, &files)).await
            };
            ticks.abort();
            if !clean? {
                faults.push(who);
            }
        }
    }
    let bytes = "still served";
    let put = cluster
        .client()
        .await?
        .put(&Target::new_file("/after"), bytes.into())
        .await?;
    let read = cluster.client().await?.get(&put.entry.id, None).await?.bytes().await?;
    ensure!(read == bytes.as_bytes(), "what was put afterwards came back altered");
    ensure!(faults.is_empty(), "faults were found as {}", faults.join(" and as "));
    Ok(())
}

/// The served document as schemathesis gets it, and what it is taught.
async fn write_files(client: &Client, arguments: &Arguments, nodes: &[u64]) -> anyhow::Result<Files> {
    let mut document = serde_json::from_str(&client.text("/api/v1/openapi.json").await?)?;
    let taken = name_statuses(&mut document);
    ensure!(
        taken > 0,
        "no operation of the document describes what it does not name"
    );
    narrow_nodes(&mut document, nodes);
    // It runs in the folder, so the paths must hold there.
    let folder = std::fs::canonicalize(&arguments.data_dir)?;
    let files = Files {
        document: folder.join("openapi.json"),
        taught: folder.join("taught.py"),
    };
    std::fs::write(&files.document, document.to_string())?;
    std::fs::write(&files.taught, TAUGHT)?;
    Ok(files)
}

/// The operations of a document, with their paths.
fn operations(document: &mut Value) -> impl Iterator<Item = (&str, &mut Value)> {
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    paths.flat_map(|(path, item)| {
        let operations = item.as_object_mut().into_iter().flatten();
        operations.map(move |(_, operation)| (path.as_str(), operation))
    })
}

/// Takes out of a document what it says of statuses that it does not name. Answers how many operations said something.
fn name_statuses(document: &mut Value) -> usize {
    operations(document)
        .filter_map(|(_, operation)| operation.get_mut("responses")?.as_object_mut()?.remove("default"))
        .count()
}

/// Says which nodes there are, so that some are met: to any number of 32 bits the answer is that there is no such node.
fn narrow_nodes(document: &mut Value, nodes: &[u64]) {
    for (_, operation) in operations(document).filter(|(path, _)| path.starts_with(NODES)) {
        for parameter in operation["parameters"].as_array_mut().into_iter().flatten() {
            if parameter["name"] == "id" {
                parameter["schema"]["maximum"] = nodes.iter().max().copied().unwrap_or_default().into();
            }
        }
    }
}

/// Starts what was stopped, again and again. What is refused, or not answered, is tried again soon enough.
async fn keep_started(admin: Client, nodes: Vec<u64>) {
    loop {
        drop(start(&admin, &nodes).await);
        tokio::time::sleep(TICK).await;
    }
}

/// Starts what is stopped of these nodes.
async fn start(admin: &Client, nodes: &[u64]) -> Result<(), ClientError> {
    for node in nodes {
        let path = format!("{NODES}{node}/start");
        admin.json(reqwest::Method::POST, &path, None).await?;
    }
    Ok(())
}

/// Changes the account's drive from time to time. What is refused, or not answered, is tried again soon enough.
async fn tick(client: Client) {
    for number in 0_u64.. {
        drop(client.make_folder(&format!("/ticks/{number}")).await);
        tokio::time::sleep(TICK).await;
    }
}

/// Whether schemathesis found nothing in this share of the operations, as the bearer of the token.
async fn is_clean(
    cluster: &DevCluster,
    arguments: &Arguments,
    (token, share, files): (&str, &Share, &Files),
) -> anyhow::Result<bool> {
    let program = std::fs::canonicalize(&arguments.schemathesis)
        .with_context(|| format!("find {}; `make api-fuzz` installs it", arguments.schemathesis.display()))?;
    let mut command = Command::new(program);
    // It leaves what it has learnt where it runs.
    command
        .current_dir(&arguments.data_dir)
        .env("SCHEMATHESIS_HOOKS", &files.taught)
        .arg("run")
        .arg(&files.document)
        .args(["--url", &cluster.facts.url])
        .args(["--header", &format!("Authorization: Bearer {token}")])
        .args(["--checks", CHECKS])
        .args([share.filter, &format!("^{NODES}")])
        .args(["--max-time", &share.seconds.to_string()])
        .args(["--max-examples", &arguments.examples.to_string()])
        .args(["--request-timeout", &ANSWER_SECONDS.to_string()])
        .args(["--seed", &arguments.seed.to_string()])
        .args(["--workers", "1", "--continue-on-failure", "--no-color"]);
    let child = command.spawn().context("start schemathesis")?;
    let mut running = Running(child);
    let begun = Instant::now();
    loop {
        if let Some(status) = running.0.try_wait()? {
            return match status.code() {
                Some(0) => Ok(true),
                Some(1) => Ok(false),
                _ => bail!("schemathesis ended with {status}"),
            };
        }
        if begun.elapsed() > Duration::from_secs(share.seconds) + ENDING {
            bail!("schemathesis did not end; look whether an answer never came");
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::{name_statuses, narrow_nodes};
    use serde_json::json;

    #[test]
    fn what_a_document_does_not_name_is_taken_out_and_all_else_stays() {
        let of_node = |maximum: serde_json::Value| json!({"name": "id", "in": "path", "schema": maximum});
        let served = json!({"info": {"default": 1}, "paths": {
            "/a": {"get": {"responses": {"200": {"description": "x"}, "default": {"description": "y"}}},
                "put": {"responses": {"404": {"description": "z"}}}},
            "/api/v1/admin/nodes/{id}/stop": {"post": {"parameters": [of_node(json!({"minimum": 0}))],
                "responses": {"204": {}, "default": {}}}}}});
        let mut given = served.clone();
        assert_eq!(name_statuses(&mut given), 2);
        narrow_nodes(&mut given, &[1, 6]);
        assert_eq!(
            given,
            json!({"info": {"default": 1}, "paths": {
                "/a": {"get": {"responses": {"200": {"description": "x"}}},
                    "put": {"responses": {"404": {"description": "z"}}}},
                "/api/v1/admin/nodes/{id}/stop": {"post": {"parameters": [of_node(json!({"minimum": 0, "maximum": 6}))],
                    "responses": {"204": {}}}}}})
        );
        assert_eq!(name_statuses(&mut given), 0);
    }
}
