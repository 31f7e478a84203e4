//! Requests made up from the served OpenAPI document, against a running cluster: schemathesis sends them, we start and judge.
//!
//! Every operation is asked with a token and with values that the document allows and that it does not; also operations one after the
//! other, with ids that earlier answers gave. What counts as a fault: an answer of 5xx, a status, header, media type or body that is not
//! described, and an operation that needs a token and does not ask for it.
//! Invariants: it ends in bounded time, and what it started ends with it; the cluster serves as before when it is over.
//! Not here: whether a refusal is the right one (tests/cluster); that good clients are answered so (tests/cluster/contract.rs).

use crate::dev_cluster::DevCluster;
use anyhow::{Context, bail, ensure};
use clap::Parser;
use client_sdk::client::{Client, Target};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// What counts as a fault. Whether a made up value should have been taken is no such thing: the document cannot say all of it.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
                      response_schema_conformance,ignored_auth";
/// Would stop the nodes that everything else needs; and tus, whose media type schemathesis cannot send (tests/cluster/tus.rs).
const LEFT_OUT: &str = "^/api/v1/(admin/nodes/|tus)";
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
    let mut faults = Vec::new();
    for (who, token) in [("a user", token), ("an administrator", &cluster.facts.admin_token)] {
        println!("as {who}");
        let ticks = tokio::spawn(tick(Client::new(&cluster.facts.url)?.with_token(token)));
        let clean = is_clean(cluster, arguments, token).await;
        ticks.abort();
        if !clean? {
            faults.push(who);
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

/// Changes the account's drive from time to time. What is refused, or not answered, is tried again soon enough.
async fn tick(client: Client) {
    for number in 0_u64.. {
        drop(client.make_folder(&format!("/ticks/{number}")).await);
        tokio::time::sleep(TICK).await;
    }
}

/// Whether schemathesis found nothing.
async fn is_clean(cluster: &DevCluster, arguments: &Arguments, token: &str) -> anyhow::Result<bool> {
    let program = std::fs::canonicalize(&arguments.schemathesis)
        .with_context(|| format!("find {}; `make api-fuzz` installs it", arguments.schemathesis.display()))?;
    let mut command = Command::new(program);
    // It leaves what it has learnt where it runs.
    command
        .current_dir(&arguments.data_dir)
        .arg("run")
        .arg(format!("{}/api/v1/openapi.json", cluster.facts.url))
        .args(["--header", &format!("Authorization: Bearer {token}")])
        .args(["--checks", CHECKS])
        .args(["--exclude-path-regex", LEFT_OUT])
        .args(["--max-time", &arguments.seconds.to_string()])
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
        if begun.elapsed() > Duration::from_secs(arguments.seconds) + ENDING {
            bail!("schemathesis did not end; look whether an answer never came");
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
