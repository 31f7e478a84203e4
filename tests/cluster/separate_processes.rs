//! Three metadata replicas, six nodes and a gateway as processes of their own, killed and started again.

use crate::served::{Plan, Served, eventually, run, run_well};
use crate::world::noise;
use bytes::Bytes;
use client_sdk::client::{Client, Target};
use client_sdk::error::ClientError;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;

/// All processes of a plan.
pub(crate) struct Cluster {
    pub(crate) plan: Plan,
    running: BTreeMap<String, Served>,
}

impl Cluster {
    /// None of them running yet.
    pub(crate) fn of(plan: Plan) -> Self {
        Self {
            plan,
            running: BTreeMap::new(),
        }
    }

    pub(crate) fn start_all(&mut self) {
        for name in self.plan.names() {
            let served = self.plan.start(&name);
            self.running.insert(name, served);
        }
    }

    pub(crate) fn kill(&mut self, name: &str) {
        self.running.remove(name).unwrap().kill();
    }

    pub(crate) fn start(&mut self, name: &str) {
        let served = self.plan.start(name);
        self.running.insert(name.to_owned(), served);
    }

    pub(crate) async fn ready(&mut self) {
        let client = self.plan.client();
        let ready = eventually("the gateway is not ready", async || {
            self.check_running();
            client.text("/readyz").await
        });
        ready.await;
    }

    /// Takes a process in that the test has started itself.
    pub(crate) fn take_in(&mut self, name: &str, served: Served) {
        self.running.insert(name.to_owned(), served);
    }

    /// Nobody may have ended by himself.
    pub(crate) fn check_running(&mut self) {
        for (name, served) in &mut self.running {
            assert!(served.is_running(), "{name} ended:\n{}", served.text());
        }
    }
}

pub(crate) async fn put(client: &Client, path: &str, bytes: &[u8]) -> String {
    let target = Target::new_file(path);
    let uploaded = eventually("upload", async || {
        client.put(&target, Bytes::copy_from_slice(bytes)).await
    })
    .await;
    uploaded.entry.id
}

pub(crate) async fn check_all(client: &Client, files: &[(String, Vec<u8>)]) {
    for (id, expected) in files {
        let bytes = eventually("download", async || {
            Ok::<_, ClientError>(client.get(id, None).await?.bytes().await?)
        });
        assert!(bytes.await == expected.as_slice(), "{id} came back altered");
    }
}

/// The password that `admin user create` printed.
fn drawn_password(printed: &str) -> String {
    let line = printed.lines().find_map(|line| line.strip_prefix("password "));
    line.unwrap_or_else(|| panic!("no password in {printed}")).to_owned()
}

/// Makes the first administrator with the one-time token, and by him a user; answers the user's client.
pub(crate) async fn accounts(plan: &Plan) -> (Client, Client) {
    let text = |name: &str| plan.path(name).to_str().unwrap().to_owned();
    let (url, ca, token) = (plan.url(), text("tls.pem"), text("cluster/setup-token"));
    let setup = |name| {
        let token = token.as_str();
        [
            "admin",
            "--url",
            &url,
            "--ca-file",
            &ca,
            "user",
            "create",
            name,
            "--setup-token-file",
            token,
        ]
        .map(str::to_owned)
    };
    let words = |words: [String; 10]| run(&words.each_ref().map(String::as_str));
    let made = eventually("the first administrator", async || {
        let output = words(setup("ann"));
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout).unwrap()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    });
    let password = drawn_password(&made.await);
    let again = words(setup("eve"));
    assert!(!again.status.success(), "the token makes one account");
    assert!(
        String::from_utf8_lossy(&again.stderr).contains("setup_done"),
        "{again:?}"
    );
    fs::write(plan.path("password"), &password).unwrap();
    let (file, of_user) = (text("password"), ["user", "create", "bob"]);
    let signed_in = [
        "admin",
        "--url",
        &url,
        "--ca-file",
        &ca,
        "--user",
        "ann",
        "--password-file",
        &file,
    ];
    let bobs = drawn_password(&run_well(&[&signed_in[..], &of_user[..]].concat()));
    let admin = plan.client().login("ann", &password).await.unwrap();
    (admin, plan.client().login("bob", &bobs).await.unwrap())
}

async fn status(admin: &Client) -> Value {
    eventually("status", async || {
        admin.json(reqwest::Method::GET, "/api/v1/admin/status", None).await
    })
    .await
}

/// Each process is killed on its own, then all at once, then all stop in order and come back on other ports.
#[tokio::test]
async fn a_cluster_of_the_example_files_serves_and_survives_every_death() {
    let mut cluster = Cluster::of(Plan::make());
    cluster.start_all();
    cluster.ready().await;
    let (admin, user) = accounts(&cluster.plan).await;
    let mut files = Vec::new();
    for (seed, length) in [(1, 10_usize), (2, 100_000), (3, 9 << 20)] {
        let bytes = noise(seed, length);
        files.push((put(&user, &format!("/a/{seed}"), &bytes).await, bytes));
    }
    let seen = status(&admin).await;
    assert_eq!(seen["nodes"].as_array().unwrap().len(), 6, "{seen}");

    cluster.kill("node-3");
    check_all(&user, &files).await;
    let bytes = noise(4, 5 << 20);
    files.push((put(&user, "/a/4", &bytes).await, bytes));
    cluster.start("node-3");

    let leader = status(&admin).await["groups"][1]["leader"].as_u64().unwrap_or(1);
    let leader = format!("metadata-{leader}");
    cluster.kill(&leader);
    check_all(&user, &files).await;
    let bytes = noise(5, 3 << 20);
    files.push((put(&user, "/a/5", &bytes).await, bytes));
    cluster.start(&leader);

    cluster.kill("gateway-1");
    cluster.start("gateway-1");
    cluster.ready().await;
    check_all(&user, &files).await;

    for name in cluster.plan.names() {
        cluster.kill(&name);
    }
    cluster.start_all();
    cluster.ready().await;
    check_all(&user, &files).await;
    let bytes = noise(6, 3 << 20);
    files.push((put(&user, "/a/6", &bytes).await, bytes));
    cluster.check_running();
}
