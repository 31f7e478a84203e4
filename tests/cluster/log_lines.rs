//! Log lines of every role: one request is found by its id in the logs of all processes that took part, and `--log` chooses the form.
//!
//! The processes are those of the example files, each with a log file and data directories of its own; so it is also seen here that
//! no two of them open one database. Not here: secrets in logs (`quiet_log`).

use crate::insider::Insider;
use crate::separate_processes::{accounts, put};
use crate::served::{Plan, Served, eventually, run};
use crate::world::{answer, noise};
use bytes::Bytes;
use client_sdk::client::{Client, Target};
use codec::cut::Cutter;
use reqwest::Method;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use toml::Table;

const GIVEN: &str = "0123456789abcdef0123456789abcdef";

/// The objects of a log in JSON; every line must be one.
fn lines(text: &str) -> Vec<Value> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let object = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    whole.lines().map(object).collect()
}

/// Processes whose spans with the request's id stand in their own log.
fn who_tells(running: &BTreeMap<String, Served>, id: &str) -> BTreeSet<String> {
    let tells = |name: &str, served: &Served| {
        lines(&served.text()).iter().any(|line| {
            let spans = line["spans"].as_array().into_iter().flatten();
            let mut own = spans.filter(|span| span["process"] == name);
            own.any(|span| span["request_id"] == id)
        })
    };
    let telling = running.iter().filter(|(name, served)| tells(name, served));
    telling.map(|(name, _)| name.clone()).collect()
}

/// Uploads `length` bytes, too many to lie inline, and answers the request's id.
async fn upload(user: &Client, path: &str, length: usize, id: Option<&str>) -> String {
    // Of each another content: what the drive has already goes to no node.
    let content = noise(u64::from(id.is_some()), length);
    let path = format!("/api/v1/files/upload?uploadType=media&path={path}");
    let mut request = user.request(Method::POST, &path).body(content);
    if let Some(id) = id {
        request = request.header("x-request-id", id);
    }
    let answer = answer(request).await;
    assert!(answer.status.is_success(), "{answer:?}");
    let header = answer.headers.iter().find(|(name, _)| name == "x-request-id");
    header.expect("every answer carries the request's id").1.clone()
}

/// Databases that a process holds open, by their lock files.
fn databases(served: &Served) -> BTreeSet<String> {
    let open = fs::read_dir(format!("/proc/{}/fd", served.id())).unwrap();
    let target = open.filter_map(|row| fs::read_link(row.unwrap().path()).ok());
    let locks = target.filter(|path| path.ends_with("LOCK"));
    locks.map(|path| path.display().to_string()).collect()
}

/// No two processes open one database, and a gateway opens none.
fn expected_databases(name: &str) -> usize {
    match name.split_once('-').unwrap().0 {
        "metadata" => 1,
        "node" => 2,
        _ => 0,
    }
}

fn each_process_has_databases_of_its_own(running: &BTreeMap<String, Served>) {
    let mut owners: BTreeMap<String, &str> = BTreeMap::new();
    for (name, served) in running {
        let found = databases(served);
        assert_eq!(found.len(), expected_databases(name), "{name}: {found:?}");
        for database in found {
            let before = owners.insert(database.clone(), name);
            assert_eq!(before, None, "{name} opens {database} too");
        }
    }
}

#[tokio::test]
async fn one_request_is_found_by_its_id_in_the_logs_of_gateway_metadata_and_nodes() {
    let plan = Plan::make();
    let mut running = BTreeMap::new();
    for name in plan.names() {
        plan.edit(&name, |table| {
            let log = table["log"].as_table_mut().unwrap();
            log.insert("filter".to_owned(), "info,openraft=warn,rpc=debug,gateway=debug".into());
        });
        running.insert(name.clone(), plan.start(&name));
    }
    let client = plan.client();
    eventually("the gateway is not ready", async || client.text("/readyz").await).await;
    let (_, user) = accounts(&plan).await;

    let given = upload(&user, "/given", 1 << 20, Some(GIVEN)).await;
    assert_eq!(given, GIVEN);
    let drawn = upload(&user, "/drawn", 1 << 20, None).await;
    assert_eq!(drawn.len(), 32, "{drawn}");
    assert_ne!(drawn, given);
    for id in [&given, &drawn] {
        eventually("the request stands in too few logs", async || {
            let told = who_tells(&running, id);
            let of = |role: &str| told.iter().filter(|name| name.starts_with(role)).count();
            // 4+2 fragments go to six disks on as many nodes or fewer; the slowest may still be on its way.
            match of("gateway-") == 1 && of("metadata-") >= 1 && of("node-") >= 2 {
                true => Ok(()),
                false => Err(format!("{id}: {told:?}")),
            }
        })
        .await;
    }
    assert!(who_tells(&running, "00000000000000000000000000000001").is_empty());
}

/// shows: H-P4
#[tokio::test]
async fn services_share_no_database_and_versions_keep_how_they_were_cut() {
    let plan = Plan::make();
    let start = |name: String| (name.clone(), plan.start(&name));
    let running: BTreeMap<String, Served> = plan.names().into_iter().map(start).collect();
    let client = plan.client();
    eventually("the gateway is not ready", async || client.text("/readyz").await).await;
    // A gateway is ready before every node has opened its disks.
    for (name, served) in &running {
        eventually("too few databases", async || match databases(served).len() {
            opened if opened >= expected_databases(name) => Ok(()),
            opened => Err(format!("{name} has opened {opened}")),
        })
        .await;
    }
    each_process_has_databases_of_its_own(&running);

    let (_, user) = accounts(&plan).await;
    let insider = Insider::of_plan(&plan, "gateway-1");
    let told = user.me().await.unwrap().cut;
    let contents = [noise(1, 9 << 20), noise(2, 3_000_001)];
    let first = put(&user, "/f", &contents[0]).await;
    let second = Target {
        base_version: Some(1),
        ..Target::new_file("/f")
    };
    user.put(&second, contents[1].clone().into()).await.unwrap();
    for (version, content) in (1..).zip(&contents) {
        let manifest = insider.manifest(&user, &first, Some(version)).await;
        let cut = manifest.drive.cut;
        assert_eq!(
            [cut.min_bytes, cut.avg_bytes, cut.max_bytes].map(u64::from),
            [told.min, told.avg, told.max]
        );
        // The lengths are those that the parameters give for this content, each of its own.
        let found: Vec<usize> = manifest
            .blocks
            .iter()
            .map(|block| block.block.row.size as usize)
            .collect();
        let mut cutter = Cutter::new();
        let mut blocks = cutter.push(Bytes::copy_from_slice(content));
        blocks.extend(cutter.finish());
        let expected: Vec<usize> = blocks.iter().map(Bytes::len).collect();
        assert_eq!(found, expected, "version {version}");
        assert!(found.len() > 1 && found[0] != found[1], "{found:?}");
    }
}

#[test]
fn the_form_of_log_lines_is_chosen_on_the_command_line() {
    let plan = Plan::make();
    let config = plan.config("node-1");
    // Without its identity the process says why and ends.
    fs::remove_dir_all(plan.identity("node-1")).unwrap();
    let serve = |form: &[&str]| {
        let arguments = [&["serve", "--config", config.to_str().unwrap()][..], form].concat();
        let output = run(&arguments);
        assert!(!output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let is_json = |text: &str| lines(text).iter().any(|line| line["why"].is_string());
    assert!(is_json(&serve(&["--log", "json"])));
    assert!(is_json(&serve(&[])), "as the file says");
    let human = serve(&["--log", "human"]);
    assert!(human.contains("holdfast: ") && !human.starts_with('{'), "{human}");
    plan.edit("node-1", |table: &mut Table| {
        table["log"]
            .as_table_mut()
            .unwrap()
            .insert("json".to_owned(), false.into());
    });
    assert!(is_json(&serve(&["--log", "json"])), "the command line wins");
    assert!(serve(&[]).contains("holdfast: "));
    assert!(serve(&["--log", "xml"]).contains("write human or json"));
    // A file that cannot be read says nothing of a form.
    plan.edit("node-1", |table: &mut Table| {
        table.insert("disk".to_owned(), 7.into());
    });
    assert!(is_json(&serve(&["--log", "json"])));
    assert!(serve(&[]).contains("holdfast: "));

    let data = plan.path("dev");
    let dev = |form: &str| {
        let data_dir = data.to_str().unwrap();
        let output = run(&["dev", "--data-dir", data_dir, "--profile", "none", "--log", form]);
        assert!(!output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(is_json(&dev("json")));
    assert!(dev("human").contains("holdfast: --profile none is unknown; use dev"));
}

/// What a user mistypes is told once, with what to do.
#[test]
fn a_mistake_on_the_command_line_is_told_once_and_with_a_remedy() {
    let plan = Plan::make();
    let token = plan.path("token");
    fs::write(&token, "token\n").unwrap();
    let token = token.to_str().unwrap();
    let told = |arguments: &[&str]| {
        let output = run(arguments);
        assert!(!output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let url = told(&["admin", "--url", "nonsense", "--token-file", token, "status"]);
    assert_eq!(
        url,
        "holdfast: --url nonsense is no address of a gateway; write it as https://files.example.org\n"
    );
    // No KEK: the error passes through two layers that both name their cause.
    fs::remove_file(plan.path("cluster/kek")).unwrap();
    let config = plan.config("gateway-1");
    let refused = told(&["serve", "--config", config.to_str().unwrap(), "--log", "human"]);
    let last = refused.lines().last().unwrap();
    assert_eq!(last.matches("is missing").count(), 1, "{last}");
    assert!(last.contains("restore it from where you keep it"), "{last}");
}
