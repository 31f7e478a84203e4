//! `holdfast dev --processes`: one process a role, killed one by one, started again on their data, stopped without leaving any behind.
//!
//! Not here: how long writes stand still when a leader dies (`make kills`), processes that an operator made by hand
//! (`separate_processes`).

use crate::served::{eventually, run};
use crate::world::{World, answer, noise};
use api::sync::SyncRequest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chaos::dev_cluster::{DevFacts, DevProcess};
use chaos::process_attack;
use client_sdk::client::{Client, Target};
use client_sdk::delta::CutContent;
use client_sdk::error::ClientError;
use codec::delta::Splice;
use reqwest::Method;
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::time::Duration;

/// What the kernel says that a process runs, with its arguments.
fn command_line(pid: u32) -> Option<Vec<String>> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    let words: Vec<String> = words.map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    // A process that has ended and was not waited for has none.
    (!words.is_empty()).then_some(words)
}

fn check_pids(facts: &DevFacts, parent: u32) {
    let mut seen = BTreeSet::from([parent]);
    for process in &facts.processes {
        let pid = process.pid.unwrap_or_else(|| panic!("{} is dead", process.name()));
        assert!(seen.insert(pid), "{} shares its process", process.name());
        let words = command_line(pid).unwrap_or_else(|| panic!("{} is no process", process.name()));
        let config = process.config.as_ref().unwrap().to_str().unwrap();
        assert!(
            words.iter().any(|word| word == config),
            "{words:?} is not {}",
            process.name()
        );
    }
}

async fn check_files(client: &Client, files: &[(String, Vec<u8>)]) {
    for (id, expected) in files {
        let bytes = eventually("download", async || {
            Ok::<_, ClientError>(client.get(id, None).await?.bytes().await?)
        });
        assert!(bytes.await == expected.as_slice(), "{id} came back altered");
    }
}

async fn put(client: &Client, path: &str, seed: u64, length: usize) -> (String, Vec<u8>) {
    let bytes = noise(seed, length);
    let target = Target::new_file(path);
    let uploaded = eventually("upload", async || client.put(&target, bytes.clone().into()).await).await;
    (uploaded.entry.id, bytes)
}

fn admin(world: &World, words: &[&str]) -> (bool, String) {
    let data_dir = world.data_dir();
    let output = run(&[&["admin", "--data-dir", data_dir.to_str().unwrap()], words].concat());
    (
        output.status.success(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[tokio::test]
async fn killed_processes_stay_dead_until_they_are_started_again_and_none_outlives_the_cluster() {
    let mut world = World::start_with(&["--processes", "--groups", "1", "--cache-bytes", "0"]).await;
    let facts = &world.cluster.facts;
    assert_eq!(facts.processes.len(), 10, "{facts:?}");
    check_pids(facts, world.cluster.pid());
    let mut files = vec![
        put(&world.client, "/one", 1, 300_000).await,
        put(&world.client, "/two", 2, 9 << 20).await,
    ];

    let leader = process_attack::leader(&world.cluster).await.unwrap();
    for victim in ["node-3", &leader] {
        process_attack::kill(&world.cluster, victim).await.unwrap();
        check_files(&world.client, &files).await;
        let path = format!("/without-{victim}");
        files.push(put(&world.client, &path, files.len() as u64 + 2, 5 << 20).await);
    }
    let next = process_attack::leader(&world.cluster).await.unwrap();
    assert_ne!(next, leader);
    let dead: Vec<String> = dead(&world.cluster.facts_now().unwrap());
    assert_eq!(
        dead.iter().collect::<BTreeSet<_>>(),
        BTreeSet::from([&"node-3".to_owned(), &leader])
    );

    for victim in ["node-3", &leader] {
        process_attack::start(&world.cluster, victim).await.unwrap();
    }
    check_pids(&world.cluster.facts_now().unwrap(), world.cluster.pid());
    // Those without which the first two could not be missed: now they must do their part again.
    for victim in ["node-4", &next] {
        process_attack::kill(&world.cluster, victim).await.unwrap();
    }
    check_files(&world.client, &files).await;
    files.push(put(&world.client, "/again", 9, 3 << 20).await);

    let (is_done, said) = admin(&world, &["process", "stop", "node-9"]);
    assert!(
        !is_done && said.contains("the cluster has no process node-9; it has"),
        "{said}"
    );
    let (is_done, said) = admin(&world, &["node", "stop", "5"]);
    assert!(is_done, "{said}");
    let stopped = process_attack::process(&world.cluster, "node-5").unwrap();
    assert_eq!(stopped.pid, None);
    let (is_done, said) = admin(&world, &["node", "start", "5"]);
    assert!(is_done, "{said}");

    let running: Vec<DevProcess> = world.cluster.facts_now().unwrap().processes;
    world.cluster.stop().unwrap();
    for process in running.iter().filter_map(|process| process.pid) {
        assert_eq!(command_line(process), None, "process {process} outlives the cluster");
    }
    check_other_form(&mut world, &files).await;
}

fn dead(facts: &DevFacts) -> Vec<String> {
    let dead = facts.processes.iter().filter(|process| process.pid.is_none());
    dead.map(DevProcess::name).collect()
}

/// The same data in one process, then again in many, which end with a parent that is killed.
async fn check_other_form(world: &mut World, files: &[(String, Vec<u8>)]) {
    world.change_options(&["--groups", "1"]);
    world.start_again().await;
    check_files(&world.client, files).await;
    let (is_done, said) = admin(world, &["process", "stop", "node-5"]);
    assert!(!is_done && said.contains("runs in one process"), "{said}");
    world.cluster.stop().unwrap();
    world.change_options(&["--processes", "--groups", "1"]);
    world.start_again().await;
    check_files(&world.client, files).await;
    let running = world.cluster.facts.processes.clone();
    world.cluster.kill().unwrap();
    for pid in running.iter().filter_map(|process| process.pid) {
        let ended = async || match command_line(pid) {
            None => Ok(()),
            Some(words) => Err(format!("{words:?}")),
        };
        eventually("a child outlives its parent", ended).await;
    }
}

/// The URL of a gateway by its number.
pub(crate) fn url(world: &World, number: u64) -> String {
    let mut gateways = world.cluster.facts.processes.iter();
    let found = gateways.find(|process| process.role == "gateway" && process.id == number);
    found.unwrap().url.clone().unwrap()
}

/// Each function answers at its own gateway, and the other one says that it is the wrong one.
async fn check_functions(world: &World) -> (String, Vec<u8>) {
    let (api, block) = (url(world, 1), url(world, 2));
    assert_eq!(world.cluster.facts.url, api, "people sign in where api is");
    let token = world.client.token().unwrap().to_owned();
    let at_block = Client::new(&block).unwrap().with_token(&token);
    let file = put(&at_block, "/file", 1, 2 << 20).await;
    check_files(&at_block, std::slice::from_ref(&file)).await;
    assert_eq!(world.tree().await, ["/file"], "the tree is at the other one");
    let content = format!("/api/v1/files/{}/content", file.0);
    for (client, method, path, function) in [
        (&world.client, Method::GET, content.as_str(), "block"),
        (
            &world.client,
            Method::POST,
            "/api/v1/files/upload?uploadType=media&path=/other",
            "block",
        ),
        (&world.client, Method::PUT, "/api/v1/blocks/0?ticket=x", "block"),
        (&at_block, Method::POST, "/api/v1/blocks/upload-url", "api"),
        (&at_block, Method::POST, "/api/v1/files/new/sync", "api"),
        (&at_block, Method::GET, "/api/v1/changes/list", "api"),
        (&at_block, Method::GET, "/api/v1/notifications/poll", "notify"),
        (&at_block, Method::POST, "/api/v1/events", "notify"),
        (&at_block, Method::GET, "/api/v1/metadata", "api"),
        (&at_block, Method::POST, "/api/v1/auth/token", "api"),
        (&at_block, Method::GET, "/api/v1/admin/status", "api"),
    ] {
        let refused = answer(client.request(method, path)).await;
        let problem = refused.refused(421, "function_off");
        assert_eq!(problem.fields["function"], function, "{path}");
    }
    for client in [&world.client, &at_block] {
        assert_eq!(answer(client.request(Method::GET, "/readyz")).await.status, 200);
        let nowhere = answer(client.request(Method::GET, "/api/v1/nowhere")).await;
        nowhere.refused(404, "route_not_found");
    }
    file
}

const FUNCTIONS: [&str; 6] = ["--gateways", "2", "--functions", "api,notify", "--functions", "block"];

#[tokio::test]
async fn gateways_of_one_process_serve_the_functions_that_they_were_given() {
    let world = World::start_with(&FUNCTIONS).await;
    check_functions(&world).await;
}

/// How a content comes in chunks to an address that is its own permission.
#[derive(Clone, Copy, Debug)]
enum Chunked {
    Resumable,
    Tus,
}

impl Chunked {
    /// Begins an upload at a gateway; the path of its address there.
    async fn begin(self, gateway: &str, token: &str, name: &str, content: &[u8]) -> String {
        let client = Client::new(gateway).unwrap().with_token(token);
        let begun = answer(match self {
            Self::Resumable => client
                .request(Method::POST, "/api/v1/files/upload?uploadType=resumable")
                .json(&json!({"name": name, "size": content.len()})),
            Self::Tus => client
                .request(Method::POST, "/api/v1/tus")
                .header("tus-resumable", "1.0.0")
                .header("upload-length", content.len().to_string())
                .header("upload-metadata", format!("filename {}", STANDARD.encode(name)))
                .body(""),
        })
        .await;
        assert!(begun.status.is_success(), "{begun:?}");
        let address = begun.header("location").unwrap();
        address.strip_prefix(gateway).unwrap().to_owned()
    }

    /// Brings a part of the content with nothing but the address.
    async fn bring(self, gateway: &str, path: &str, content: &[u8], part: Range<usize>) {
        let is_last = part.end == content.len();
        let stranger = Client::new(gateway).unwrap();
        let (request, status): (_, u16) = match self {
            Self::Resumable => {
                let range = format!("bytes {}-{}/{}", part.start, part.end - 1, content.len());
                let request = stranger.request(Method::PUT, path).header("content-range", range);
                (request, if is_last { 201 } else { 308 })
            }
            Self::Tus => {
                let request = stranger.request(Method::PATCH, path).header("tus-resumable", "1.0.0");
                let request = request.header("content-type", "application/offset+octet-stream");
                (request.header("upload-offset", part.start.to_string()), 204)
            }
        };
        let brought = answer(request.body(content[part].to_vec())).await;
        assert_eq!(brought.status, status, "{self:?}: {brought:?}");
    }
}

/// Contents go in and out with a token that was given before, while the process that serves the rest of the API is dead: at once, and
/// in chunks of uploads that were begun before it died and after.
///
/// shows: D-0.1 side=functions
#[tokio::test]
async fn contents_go_in_and_out_while_the_process_of_the_api_is_dead() {
    let world = World::start_with(&[&["--processes"][..], &FUNCTIONS].concat()).await;
    let file = check_functions(&world).await;
    let token = world.client.token().unwrap().to_owned();
    let block = url(&world, 2);
    let content = noise(3, 3 << 20);
    let half = content.len() / 2;
    let mut halves = Vec::new();
    for chunked in [Chunked::Resumable, Chunked::Tus] {
        let name = format!("{chunked:?} begun before");
        let path = chunked.begin(&block, &token, &name, &content).await;
        chunked.bring(&block, &path, &content, 0..half).await;
        halves.push((chunked, path));
    }

    process_attack::kill(&world.cluster, "gateway-1").await.unwrap();
    assert!(world.client.me().await.is_err(), "the api is dead");
    let at_block = Client::new(&block).unwrap().with_token(&token);
    check_files(&at_block, &[file]).await;
    let more = put(&at_block, "/more", 2, 5 << 20).await;
    check_files(&at_block, std::slice::from_ref(&more)).await;
    for (chunked, path) in halves {
        chunked.bring(&block, &path, &content, half..content.len()).await;
        let name = format!("{chunked:?} begun meanwhile");
        let path = chunked.begin(&block, &token, &name, &content).await;
        for part in [0..half, half..content.len()] {
            chunked.bring(&block, &path, &content, part).await;
        }
    }

    process_attack::start(&world.cluster, "gateway-1").await.unwrap();
    let chunked = [
        "/Resumable begun before",
        "/Resumable begun meanwhile",
        "/Tus begun before",
        "/Tus begun meanwhile",
    ];
    assert_eq!(world.tree().await, [&chunked[..], &["/file", "/more"]].concat());
    let listed = world.client.list("/", 100, None).await.unwrap().entries;
    let of_chunks = listed
        .into_iter()
        .filter(|entry| chunked.contains(&entry.path.as_str()));
    let files: Vec<(String, Vec<u8>)> = of_chunks.map(|entry| (entry.id, content.clone())).collect();
    assert_eq!(files.len(), chunked.len());
    check_files(&at_block, &files).await;
}

/// Uploads that were begun go on without the process that began them: blocks by ticket and by token, and what is read; the commit
/// waits for it.
///
/// shows: IF-1 side=blocks, D-0.1 side=sessions, H-P5
#[tokio::test]
async fn blocks_of_an_upload_that_was_begun_go_in_while_the_process_of_the_api_is_dead() {
    let world = World::start_with(&[&["--processes"][..], &FUNCTIONS].concat()).await;
    let key = world.client.digest_key().await.unwrap();
    let token = world.client.token().unwrap().to_owned();
    let stranger = Client::new(&url(&world, 2)).unwrap();
    let at_block = stranger.clone().with_token(&token);
    let old = CutContent::of(noise(1, 6 << 20).into(), &key);
    let first = put(&at_block, "/file", 1, 6 << 20).await;
    let content = CutContent::of(noise(2, 12 << 20).into(), &key);
    let wanted = SyncRequest {
        current_version: Some(1),
        new_block_hashes: Some(content.rows.iter().map(|row| row.digest.to_hex()).collect()),
        ..SyncRequest::default()
    };
    let begun = world.client.sync(&first.0, &wanted).await.unwrap();
    let half = content.rows.len() / 2;
    let mut tickets = Vec::new();
    for row in &content.rows[..half] {
        tickets.push(world.client.block_ticket(&begun.upload_id, row).await.unwrap());
    }
    process_attack::kill(&world.cluster, "gateway-1").await.unwrap();

    assert!(world.client.me().await.is_err(), "the api is dead");
    for (ticket, bytes) in tickets.iter().zip(&content.blocks) {
        stranger.put_by_ticket(ticket, bytes.clone()).await.unwrap();
    }
    let other = stranger
        .put_by_ticket(&tickets[0], content.blocks[1].clone())
        .await
        .unwrap_err();
    assert!(other.to_string().contains("422"), "{other}");
    for (row, bytes) in content.rows.iter().zip(&content.blocks).skip(half) {
        at_block
            .put_block(&begun.upload_id, &row.digest, bytes.clone())
            .await
            .unwrap();
    }
    check_files(&at_block, std::slice::from_ref(&first)).await;
    let range = at_block.get(&first.0, Some((0, 99_999))).await.unwrap();
    assert_eq!(range.bytes().await.unwrap(), old.blocks[0].slice(..100_000));

    process_attack::start(&world.cluster, "gateway-1").await.unwrap();
    let made = world.client.commit(&first.0, &begun.upload_id).await.unwrap();
    assert_eq!(made.entry.version, 2);
    // The list is read where the api is, the bytes where blocks are.
    let (version, changes) = world.client.changes_since(&first.0, None, 1).await.unwrap();
    assert_eq!((version, changes), (2, vec![Splice::Blocks(content.rows.clone())]));
    let back = at_block.get(&first.0, None).await.unwrap().bytes().await.unwrap();
    assert!(back == content.blocks.concat(), "the blocks came back altered");
}

/// Polls are answered by a process that serves nothing else. While it is dead commits go on, and what they changed is told behind it.
///
/// shows: IF-1 side=notify, D-2.4 side=nothing-missed
#[tokio::test]
async fn commits_go_on_while_the_process_that_notifies_is_dead_and_nothing_is_missed() {
    let functions = ["--functions", "api,block", "--functions", "notify"];
    let world =
        World::start_with(&[&["--processes", "--groups", "1", "--gateways", "2"][..], &functions].concat()).await;
    let token = world.client.token().unwrap().to_owned();
    let notifier = Client::new(&url(&world, 2)).unwrap().with_token(&token);
    let start = world.client.changes(None, 100, false).await.unwrap().cursor;
    let wait = Duration::from_secs(60);
    let (told, made) = tokio::join!(notifier.poll(&start, wait), world.client.make_folder("/first"));
    let (told, made) = (told.unwrap(), made.unwrap());
    assert_eq!(told.file_id, Some(made.id));
    for (client, path, function) in [
        (&world.client, "/api/v1/notifications/poll", "notify"),
        (&notifier, "/api/v1/changes/list", "api"),
    ] {
        let refused = answer(client.request(Method::GET, path))
            .await
            .refused(421, "function_off");
        assert_eq!(refused.fields["function"], function, "{path}");
    }

    process_attack::kill(&world.cluster, "gateway-2").await.unwrap();
    assert!(notifier.poll(&told.cursor, wait).await.is_err(), "the notifier is dead");
    for number in 0..5 {
        world.client.make_folder(&format!("/{number}")).await.unwrap();
    }
    process_attack::start(&world.cluster, "gateway-2").await.unwrap();
    let missed = eventually("poll", async || notifier.poll(&told.cursor, wait).await).await;
    let names = missed
        .events
        .iter()
        .map(|event| event.entry.as_ref().unwrap().name.as_str());
    assert_eq!(names.collect::<Vec<_>>(), ["0", "1", "2", "3", "4"]);
}

const EACH_ITS_OWN: [&str; 11] = [
    "--processes",
    "--groups",
    "1",
    "--gateways",
    "3",
    "--functions",
    "api",
    "--functions",
    "block",
    "--functions",
    "notify",
];

/// Three processes of one function each: every one of them is dead once, and the two others go on.
///
/// shows: IF-1 side=notify, D-0.1 side=functions
#[tokio::test]
async fn api_blocks_and_notifications_run_in_processes_of_their_own_and_miss_no_other() {
    let world = World::start_with(&EACH_ITS_OWN).await;
    check_pids(&world.cluster.facts, world.cluster.pid());
    let token = world.client.token().unwrap().to_owned();
    let [at_block, notifier] = [2, 3].map(|number| Client::new(&url(&world, number)).unwrap().with_token(&token));
    for (path, function) in [
        ("/api/v1/metadata?path=/", "api"),
        ("/api/v1/files/0/content", "block"),
        ("/api/v1/notifications/poll?timeout=1", "notify"),
    ] {
        for (own, client) in [("api", &world.client), ("block", &at_block), ("notify", &notifier)] {
            let answered = answer(client.request(Method::GET, path)).await;
            if own == function {
                assert_ne!(answered.status, 421, "{path} at {own}");
            } else {
                let refused = answered.refused(421, "function_off");
                assert_eq!(refused.fields["function"], function, "{path} at {own}");
            }
        }
    }
    let wait = Duration::from_secs(60);
    let start = world.client.changes(None, 100, false).await.unwrap().cursor;

    process_attack::kill(&world.cluster, "gateway-1").await.unwrap();
    let (told, file) = tokio::join!(notifier.poll(&start, wait), put(&at_block, "/file", 1, 2 << 20));
    let told = told.unwrap();
    assert!(told.events.iter().any(|change| change.file_id == file.0), "{told:?}");
    check_files(&at_block, std::slice::from_ref(&file)).await;
    process_attack::start(&world.cluster, "gateway-1").await.unwrap();
    assert_eq!(world.tree().await, ["/file"]);

    process_attack::kill(&world.cluster, "gateway-2").await.unwrap();
    let (told, made) = tokio::join!(notifier.poll(&told.cursor, wait), world.client.make_folder("/folder"));
    let (told, made) = (told.unwrap(), made.unwrap());
    assert!(told.events.iter().any(|change| change.file_id == made.id), "{told:?}");
    process_attack::start(&world.cluster, "gateway-2").await.unwrap();
    check_files(&at_block, std::slice::from_ref(&file)).await;

    process_attack::kill(&world.cluster, "gateway-3").await.unwrap();
    world.client.make_folder("/more").await.unwrap();
    put(&at_block, "/other", 2, 3 << 20).await;
    process_attack::start(&world.cluster, "gateway-3").await.unwrap();
    let missed = eventually("poll", async || notifier.poll(&told.cursor, wait).await).await;
    let names = missed
        .events
        .iter()
        .map(|event| event.entry.as_ref().unwrap().name.as_str());
    assert_eq!(names.collect::<Vec<_>>(), ["more", "other"]);
}
