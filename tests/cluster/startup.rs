//! What a process must refuse at its start: each case alters one thing of a good set of files, and the process must end by itself
//! with code 1 and words that name what is wrong and where.
//!
//! Invariant: nothing else runs; every refusal here comes before a peer is needed.
//! Not here: refusals that the cluster gives (`registration` has them), texts as such (the packages' own tests).

use crate::served::{Plan, Served, eventually, run, run_well};
use crate::world::{World, holdfast};
use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use toml::{Table, Value};

/// A refusal takes no more than the reading of some files, and a loaded machine.
const REFUSED_WITHIN: Duration = Duration::from_secs(30);

/// A shape that holds `single` and not `dev`.
const SMALL: [&str; 6] = ["--regions", "1", "--nodes-per-region", "1", "--disks-per-node", "3"];

/// One thing altered.
struct Case {
    name: &'static str,
    process: &'static str,
    alter: fn(&Plan),
    /// All must be in what the process says.
    words: &'static [&'static str],
}

fn table<'a>(root: &'a mut Table, name: &str) -> &'a mut Table {
    root[name].as_table_mut().unwrap()
}

fn put(plan: &Plan, process: &str, section: &str, key: &str, value: impl Into<Value>) {
    plan.edit(process, |root| {
        let at = if section.is_empty() { root } else { table(root, section) };
        at.insert(key.to_owned(), value.into());
    });
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Takes a file of another identity in place of the process's own.
fn take_file(plan: &Plan, process: &str, file: &str, from: &Path) {
    let own = plan.identity(process).join(file);
    fs::remove_file(&own).unwrap();
    fs::copy(from.join(file), own).unwrap();
}

/// Gives `process` the whole identity in `from`.
fn be(plan: &Plan, process: &str, from: &Path) {
    for file in ["certificate.pem", "key.pem", "authority.pem"] {
        take_file(plan, process, file, from);
    }
}

/// Starts the process and answers what it said until it ended with code 1.
pub(crate) async fn refused(plan: &Plan, process: &str) -> String {
    refused_by_itself(plan.start(process), process).await
}

/// The same of a process that was started already.
pub(crate) async fn refused_by_itself(mut served: Served, process: &str) -> String {
    let status = tokio::time::timeout(REFUSED_WITHIN, served.ended()).await;
    let text = served.text();
    let status = status.unwrap_or_else(|_| panic!("{process} is not refused:\n{text}"));
    assert_eq!(status.code(), Some(1), "{status}:\n{text}");
    fs::remove_file(&served.log).unwrap();
    text
}

pub(crate) fn says(name: &str, text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{name}: `{word}` is missing in:\n{text}");
    }
    assert!(!text.contains("panicked"), "{name}:\n{text}");
}

async fn all_refused(cases: &[Case]) {
    for case in cases {
        let plan = Plan::make();
        (case.alter)(&plan);
        let text = refused(&plan, case.process).await;
        says(case.name, &text, case.words);
    }
}

const CONFIGURATIONS: &[Case] = &[
    Case {
        name: "unknown key at the top",
        process: "node-1",
        alter: |plan| put(plan, "node-1", "", "nodde", 1),
        words: &[
            "node-1.toml:",
            "unknown field `nodde`",
            "remove it or correct its spelling",
        ],
    },
    Case {
        name: "unknown key in a section",
        process: "metadata-1",
        alter: |plan| put(plan, "metadata-1", "metadata", "require_encryption", true),
        words: &["metadata-1.toml:", "unknown field `require_encryption`"],
    },
    Case {
        name: "unknown key in the gateway's section",
        process: "gateway-1",
        alter: |plan| put(plan, "gateway-1", "gateway", "kek", "in the file"),
        words: &["gateway-1.toml:", "unknown field `kek`"],
    },
    Case {
        name: "no file",
        process: "node-1",
        alter: |plan| fs::remove_file(plan.config("node-1")).unwrap(),
        words: &[
            "node-1.toml",
            "No such file",
            "give the path of an existing, readable file",
        ],
    },
    Case {
        name: "no TOML",
        process: "node-1",
        alter: |plan| fs::write(plan.config("node-1"), "[site]\nregion = \"r1\n").unwrap(),
        words: &["node-1.toml:2:"],
    },
    Case {
        name: "no role",
        process: "node-1",
        alter: |plan| fs::write(plan.config("node-1"), "").unwrap(),
        words: &["names no role", "[node], [metadata], [gateway]"],
    },
    Case {
        name: "two disks on one path",
        process: "node-1",
        alter: |plan| {
            let path = plan.disk(1).to_str().unwrap().to_owned();
            plan.edit("node-1", |root| {
                let disks = table(root, "node")["disks"].as_array_mut().unwrap();
                disks[1].as_table_mut().unwrap().insert("path".to_owned(), path.into());
            });
        },
        words: &["node.disks.1.path", "twice"],
    },
    Case {
        name: "plain HTTP beyond loopback",
        process: "gateway-1",
        alter: |plan| {
            plan.edit("gateway-1", |root| {
                let gateway = table(root, "gateway");
                gateway.remove("tls_certificate");
                gateway.remove("tls_key");
                gateway.insert("listen".to_owned(), "0.0.0.0:0".into());
            });
        },
        words: &["gateway.listen", "behind_proxy"],
    },
    Case {
        name: "the metadata directory is not there",
        process: "metadata-1",
        alter: |plan| fs::remove_dir(plan.path("data/metadata-1")).unwrap(),
        words: &[
            "metadata.data_dir",
            "data/metadata-1",
            "is no directory",
            "mount its volume",
        ],
    },
];

const IDENTITIES: &[Case] = &[
    Case {
        name: "no identity",
        process: "node-1",
        alter: |plan| fs::remove_dir_all(plan.identity("node-1")).unwrap(),
        words: &["identities/node-1/certificate.pem", "identity_dir must hold"],
    },
    Case {
        name: "another role's identity",
        process: "gateway-1",
        alter: |plan| be(plan, "gateway-1", &plan.identity("node-1")),
        words: &[
            "holds the identity of node-1",
            "the section is of a gateway",
            "identities/gateway-1",
        ],
    },
    Case {
        name: "another node's identity",
        process: "node-1",
        alter: |plan| be(plan, "node-1", &plan.identity("node-2")),
        words: &[
            "holds the identity of node-2",
            "the section is of node-1",
            "identity_dir",
        ],
    },
    Case {
        name: "another replica's identity",
        process: "metadata-1",
        alter: |plan| be(plan, "metadata-1", &plan.identity("metadata-3")),
        words: &["holds the identity of metadata-3", "the section is of metadata-1"],
    },
    Case {
        name: "another cluster's authority beside the certificate",
        process: "node-1",
        alter: |plan| {
            let other = plan.path("other");
            run_well(&["init", "--directory", other.to_str().unwrap()]);
            take_file(plan, "node-1", "authority.pem", &other.join("identities/node-1"));
        },
        words: &[
            "identities/node-1",
            "not of the authority beside it",
            "files of one identity together",
        ],
    },
    Case {
        name: "another process's key",
        process: "node-1",
        alter: |plan| take_file(plan, "node-1", "key.pem", &plan.identity("node-2")),
        words: &["identities/node-1", "key does not belong to the certificate"],
    },
];

const SECRETS: &[Case] = &[
    Case {
        name: "a node's key open to others",
        process: "node-1",
        alter: |plan| set_mode(&plan.identity("node-1").join("key.pem"), 0o644),
        words: &["identities/node-1/key.pem", "has mode 0644", "chmod 600"],
    },
    Case {
        name: "no key",
        process: "metadata-1",
        alter: |plan| fs::remove_file(plan.identity("metadata-1").join("key.pem")).unwrap(),
        words: &["identities/metadata-1/key.pem", "is missing"],
    },
    Case {
        name: "no KEK",
        process: "gateway-1",
        alter: |plan| fs::remove_file(plan.path("cluster/kek")).unwrap(),
        words: &["cluster/kek", "is missing", "there is no default"],
    },
    Case {
        name: "a KEK of one byte repeated",
        process: "gateway-1",
        alter: |plan| fs::write(plan.path("cluster/kek"), [b'0'; 64]).unwrap(),
        words: &["cluster/kek", "is a default or too weak", "put the right file back"],
    },
    Case {
        name: "an empty KEK",
        process: "gateway-1",
        alter: |plan| fs::write(plan.path("cluster/kek"), "").unwrap(),
        words: &["cluster/kek", "is a default or too weak", "put the right file back"],
    },
    Case {
        name: "a KEK that is none",
        process: "gateway-1",
        alter: |plan| fs::write(plan.path("cluster/kek"), "changeme-changeme-changeme-changeme\n").unwrap(),
        words: &["cluster/kek", "restore the file"],
    },
    Case {
        name: "a KEK open to others",
        process: "gateway-1",
        alter: |plan| set_mode(&plan.path("cluster/kek"), 0o644),
        words: &["cluster/kek", "has mode 0644", "chmod 600"],
    },
    Case {
        name: "a TLS key open to others",
        process: "gateway-1",
        alter: |plan| set_mode(&plan.path("tls.key"), 0o644),
        words: &["tls.key", "has mode 0644"],
    },
];

#[tokio::test]
async fn a_configuration_that_cannot_be_meant_is_refused_by_name() {
    all_refused(CONFIGURATIONS).await;
}

#[tokio::test]
async fn an_identity_that_is_not_of_the_section_is_refused() {
    all_refused(IDENTITIES).await;
}

/// shows: F39
#[tokio::test]
async fn an_absent_weak_or_open_secret_is_refused() {
    all_refused(SECRETS).await;
}

#[test]
fn check_config_tells_good_from_bad_and_runs_nothing() {
    let plan = Plan::make();
    for name in plan.names() {
        let config = plan.config(&name);
        let said = run_well(&["serve", "--check-config", "--config", config.to_str().unwrap()]);
        assert!(said.contains(&format!("{name}.toml: good")), "{said}");
    }
    put(&plan, "node-1", "node", "segment_mib", 1);
    put(&plan, "node-1", "node", "scrub_days", 0);
    let config = plan.config("node-1");
    let output = run(&["serve", "--check-config", "--config", config.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8(output.stderr).unwrap();
    let both = [
        "node-1.toml:",
        "`node.segment_mib` is out of range",
        "`node.scrub_days` is 0",
    ];
    says("both problems at once", &text, &both);
    assert_eq!(
        fs::read_dir(plan.path("data/node-1")).unwrap().count(),
        0,
        "nothing ran"
    );
}

#[tokio::test]
async fn a_taken_address_is_refused_by_address() {
    let plan = Plan::make();
    for (process, role) in [("metadata-1", "metadata"), ("node-1", "node"), ("gateway-1", "gateway")] {
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let before = fs::read(plan.config(process)).unwrap();
        plan.edit(process, |root| {
            let endpoint = table(table(root, "transport"), role);
            endpoint.insert("listen".to_owned(), address.clone().into());
        });
        let text = refused(&plan, process).await;
        says(process, &text, &[&address, "in use", "choose a free address"]);
        fs::write(plan.config(process), before).unwrap();
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    put(&plan, "node-1", "status", "listen", address.clone());
    let text = refused(&plan, "node-1").await;
    says("status port", &text, &[&address, "in use", "status.listen"]);
    put(&plan, "gateway-1", "gateway", "listen", address.clone());
    let text = refused(&plan, "gateway-1").await;
    says("HTTPS port", &text, &[&address, "in use", "gateway.listen"]);
}

/// Runs `holdfast dev` on `data` and answers what it said until it ended with code 1.
async fn dev_refused(data: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(holdfast());
    command.arg("dev").arg("--data-dir").arg(data).args(arguments);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(REFUSED_WITHIN, command.output()).await;
    let output = output
        .unwrap_or_else(|_| panic!("{arguments:?} is not refused"))
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}:\n{text}");
    text
}

#[tokio::test]
async fn dev_refuses_what_it_cannot_hold_or_must_not_do() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let small = [&SMALL[..], &["--listen", "127.0.0.1:0"]].concat();
    let cases: [(&[&str], &[&str]); 4] = [
        (
            &small,
            &[
                "1 regions of 1 nodes with 3 disks cannot hold the profile dev",
                "--profile single or solo",
            ],
        ),
        (
            &["--profile", "best"],
            &[
                "--profile best is unknown",
                "dev or standard or single or solo or copies",
            ],
        ),
        (
            &["--listen", "0.0.0.0:0"],
            &[
                "--listen 0.0.0.0:0 is not loopback",
                "--tls-certificate",
                "--behind-proxy",
            ],
        ),
        (&["--listen", &address], &[&address, "in use", "--listen"]),
    ];
    for (arguments, words) in cases {
        let text = dev_refused(&data, arguments).await;
        says(&arguments.join(" "), &text, words);
        assert!(!data.exists(), "{arguments:?} made {}", data.display());
    }
    // What it named does fit.
    let world = World::start_with(&[&SMALL[..], &["--profile", "single"]].concat()).await;
    world.client.text("/readyz").await.unwrap();
}

#[tokio::test]
async fn dev_refuses_a_data_directory_in_use_and_leaves_its_owner_alone() {
    let world = World::start().await;
    let text = dev_refused(&world.data_dir(), &["--listen", "127.0.0.1:0"]).await;
    says("in use", &text, &["is in use by another holdfast dev", "--data-dir"]);
    world.client.text("/readyz").await.unwrap();
}

/// A disk that is another's is never used; a node that has none left ends.
#[tokio::test]
async fn a_node_whose_disks_are_not_its_own_is_refused() {
    let plan = Plan::make();
    for disk in [1, 2] {
        let store = plan.disk(disk).join("store");
        fs::create_dir(&store).unwrap();
        fs::write(store.join("identity"), "of somebody else").unwrap();
    }
    let text = refused(&plan, "node-1").await;
    says(
        "foreign disks",
        &text,
        &["no disk of the node works", "disk 1", "disk 2"],
    );
}

/// A disk that cannot be used is told by its number and left out; the node serves with the other.
#[tokio::test]
async fn a_disk_that_is_missing_or_a_file_is_left_out_and_told() {
    let plan = Plan::make();
    fs::remove_dir(plan.disk(2)).unwrap();
    fs::remove_dir(plan.disk(4)).unwrap();
    fs::write(plan.disk(4), "no directory").unwrap();
    let metadata = ["metadata-1", "metadata-2", "metadata-3"].map(|name| plan.start(name));
    for (name, words) in [
        (
            "node-1",
            ["disk 2: ", "disks/2", "make or mount its directory", "serving"],
        ),
        ("node-2", ["disk 4: ", "disks/4", "look at the device", "serving"]),
    ] {
        let mut node = plan.start(name);
        let serves = eventually(name, async || {
            assert!(node.is_running(), "{}", node.text());
            let text = node.text();
            match words.iter().find(|word| !text.contains(**word)) {
                None => Ok(text),
                Some(word) => Err(format!("`{word}` is missing in:\n{text}")),
            }
        });
        says(name, &serves.await, &["disk is missing"]);
    }
    assert!(!plan.disk(2).exists(), "a missing mount point is never made");
    drop(metadata);
}
