//! What somebody sees who watches a cluster from outside: status ports, `dev.json`, `holdfast admin` and its exit codes.
//!
//! Not here: what ready means for each role (its package shows it), what single metrics count (the test of what they count).

use crate::served::{PATIENCE, Plan, Served, eventually, free_tcp, run};
use crate::world::{Answer, World, answer, noise};
use chaos::dev_cluster::DevProcess;
use chaos::meter;
use client_sdk::client::Client;
use reqwest::Method;
use serde_json::{Value, json};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;
use std::time::Instant;

const METRICS: &str = include_str!("../../docs/metrics.md");

async fn ask(address: SocketAddr, path: &str) -> Answer {
    let client = Client::new(&format!("http://{address}")).unwrap();
    answer(client.request(Method::GET, path).timeout(PATIENCE)).await
}

pub(crate) async fn text(address: SocketAddr, path: &str) -> String {
    let answer = ask(address, path).await;
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    String::from_utf8(answer.body).unwrap()
}

/// Waits until all roles behind `address` are ready; a busy machine may hold an election meanwhile.
async fn ready(address: SocketAddr) -> String {
    eventually("a role is not ready", async || {
        let answer = ask(address, "/readyz").await;
        let body = String::from_utf8(answer.body).unwrap();
        if answer.status == 200 { Ok(body) } else { Err(body) }
    })
    .await
}

/// The metrics that docs/metrics.md gives to a role.
fn documented(role: &str) -> Vec<&'static str> {
    let heading = match role {
        "node" => "## Storage node\n",
        "metadata" => "## Metadata\n",
        _ => "## Gateway\n",
    };
    let (_, section) = METRICS.split_once(heading).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let names: Vec<&str> = rows.map(|row| row.split('`').next().unwrap()).collect();
    assert!(names.len() > 5, "{role}: {names:?}");
    names
}

/// The page of a role has its documented metrics, and no series of anybody else.
async fn page_of(process: &DevProcess) -> String {
    let name = format!("{}-{}", process.role, process.id);
    let page = text(process.status.unwrap(), "/metrics").await;
    for metric in documented(&process.role) {
        assert!(
            page.contains(&format!("# TYPE {metric} ")),
            "{name} lacks {metric}:\n{page}"
        );
    }
    let own = format!("process=\"{name}\"");
    for series in page.lines().filter(|line| !line.starts_with('#')) {
        assert!(series.contains(&own), "on the page of {name}: {series}");
    }
    page
}

/// Each role answers on an address of its own and counts what it did.
#[tokio::test]
async fn every_role_says_that_it_lives_is_ready_and_what_it_counted() {
    let world = World::start().await;
    let length = 9 << 20;
    world.put("/watched.bin", &noise(1, length)).await;
    let processes = &world.cluster.facts.processes;
    let mut addresses: Vec<SocketAddr> = processes.iter().map(|process| process.status.unwrap()).collect();
    let (mut stored, mut proposed) = (0.0, 0.0);
    for process in processes {
        let address = process.status.unwrap();
        assert!(address.ip().is_loopback(), "{address}");
        assert_eq!(text(address, "/healthz").await, "ok\n");
        let name = format!("{}-{}", process.role, process.id);
        let said = ready(address).await;
        assert!(said.starts_with(&format!("{name}: ready")), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        let page = page_of(process).await;
        let sum = |metric: &str| meter::sum(&page, metric).unwrap_or(0.0);
        match process.role.as_str() {
            "node" => {
                stored += sum("node_fragments_stored_total");
                assert!(sum("node_disk_free_bytes") > 0.0, "{name}");
                assert_eq!(sum("node_disk_is_writable"), 2.0, "{name}");
            }
            "metadata" => {
                proposed += sum("metadata_propose_seconds_count");
                assert!(sum("metadata_applied_index") > 0.0, "{name}");
            }
            _ => {
                assert_eq!(sum("gateway_uploaded_bytes_total"), length as f64, "{name}");
                assert!(sum("gateway_stripes_written_total") > 0.0, "{name}");
                assert!(sum("gateway_http_requests_total") > 0.0, "{name}");
            }
        }
    }
    assert!(stored >= 6.0, "{stored}");
    assert!(proposed > 0.0, "{proposed}");
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), 10, "{addresses:?}");
}

fn admin(arguments: &[&str]) -> Output {
    run(&[&["admin"], arguments].concat())
}

/// Nobody could be asked: exit code 2, and one line that says what to do.
fn assert_nobody(output: &Output, advice: &str) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(output.stdout.is_empty(), "{output:?}");
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(error.contains(advice), "{error}");
}

fn login_in(facts: &Path) -> (String, String) {
    let facts: Value = serde_json::from_slice(&fs::read(facts).unwrap()).unwrap();
    let word = |key: &str| facts[key].as_str().unwrap().to_owned();
    (word("user"), word("password"))
}

/// The login outlives the cluster, and `admin` knows a stopped cluster from a running one.
#[tokio::test]
async fn dev_json_stays_after_a_stop_and_admin_says_when_nobody_answers() {
    let mut world = World::start().await;
    let (data, facts) = (world.data_dir(), world.data_dir().join("dev.json"));
    let of_dev = ["--data-dir", data.to_str().unwrap(), "status", "--json"];
    let output = admin(&of_dev);
    assert!(output.status.success(), "{output:?}");
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(status["nodes"].as_array().unwrap().len(), 6, "{status}");
    let login = login_in(&facts);

    world.cluster.stop().unwrap();
    assert_eq!(login_in(&facts), login);
    assert_eq!(fs::metadata(&facts).unwrap().permissions().mode() & 0o777, 0o600);
    let left: Value = serde_json::from_slice(&fs::read(&facts).unwrap()).unwrap();
    assert_eq!((&left["admin_token"], &left["processes"]), (&json!(""), &json!([])));
    assert_nobody(&admin(&of_dev), "start it with `holdfast dev --data-dir");
    assert!(facts.exists());
    let token = data.join("token");
    fs::write(&token, "a token of nobody\n").unwrap();
    let dead = format!("http://{}", free_tcp());
    let named = ["--url", &dead, "--token-file", token.to_str().unwrap(), "status"];
    assert_nobody(&admin(&named), &format!("no gateway answers at {dead}"));

    world.start_again().await;
    assert_eq!(login_in(&facts), login);
    assert!(admin(&of_dev).status.success());
    let named = [
        "--url",
        world.cluster.facts.url.as_str(),
        "--token-file",
        token.to_str().unwrap(),
        "status",
    ];
    let refused = admin(&named);
    assert_eq!(refused.status.code(), Some(1), "a refusal is no silence: {refused:?}");
}

/// The address that a served process logged for its status port.
async fn status_of(served: &Served) -> SocketAddr {
    eventually("no status port in the log", async || {
        let text = served.text();
        let objects = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut found = objects.filter(|line| line["message"] == "status port listens");
        let line = found.next_back().ok_or_else(|| text.clone())?;
        line["address"]
            .as_str()
            .unwrap_or("")
            .parse()
            .map_err(|error| format!("{error} in {line}"))
    })
    .await
}

/// A process of its own is watched from before its role stands: it lives and is not ready, until it has found its cluster.
#[tokio::test]
async fn a_served_process_is_watched_before_it_is_ready() {
    let plan = Plan::make();
    let node = plan.start("node-1");
    let address = status_of(&node).await;
    assert_eq!(text(address, "/healthz").await, "ok\n");
    let early = ask(address, "/readyz").await;
    assert_eq!(early.status, 503, "{early:?}");
    assert_eq!(early.body, b"node-1: not ready: starting\n", "{early:?}");

    let begun = Instant::now();
    let replicas: Vec<Served> = ["metadata-1", "metadata-2", "metadata-3"]
        .map(|name| plan.start(name))
        .into();
    assert_eq!(ready(address).await, "node-1: ready\n");
    let page = text(address, "/metrics").await;
    assert!(meter::sum(&page, "node_disk_free_bytes{process=\"node-1\"}").unwrap() > 0.0);
    for (served, number) in replicas.iter().zip(1..) {
        let address = status_of(served).await;
        assert_eq!(ready(address).await, format!("metadata-{number}: ready\n"));
        let page = text(address, "/metrics").await;
        let applied = format!("metadata_applied_index{{process=\"metadata-{number}\"}}");
        assert!(meter::sum(&page, &applied).unwrap() > 0.0, "{page}");
    }
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    node.stop().await;
}
