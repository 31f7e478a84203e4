//! Tests of configuration loading: what an operator is told for each kind of mistake.

use super::{ConfigError, Problem, RawConfig, load, parse};
use serde::Deserialize;
use std::path::Path;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    node: RawNode,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNode {
    listen: String,
    disks: Vec<RawDisk>,
    queue_max: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDisk {
    path: String,
}

#[derive(Debug, PartialEq)]
struct Checked {
    listen: std::net::SocketAddr,
    paths: Vec<String>,
}

impl RawConfig for Raw {
    type Checked = Checked;

    fn check(self) -> Result<Checked, Vec<Problem>> {
        let mut problems = Vec::new();
        if self.node.queue_max == 0 {
            problems.push(Problem::new("node.queue_max", "is 0", "set it to at least 1"));
        }
        for (index, disk) in self.node.disks.iter().enumerate() {
            if !disk.path.starts_with('/') {
                problems.push(Problem::new(
                    format!("node.disks.{index}.path"),
                    "is relative",
                    "give an absolute path",
                ));
            }
        }
        match (self.node.listen.parse(), problems.is_empty()) {
            (Ok(listen), true) => Ok(Checked {
                listen,
                paths: self.node.disks.into_iter().map(|disk| disk.path).collect(),
            }),
            (Ok(_), false) => Err(problems),
            (Err(_), _) => {
                problems.push(Problem::new("node.listen", "is no address", "give it as 10.0.0.1:7000"));
                Err(problems)
            }
        }
    }
}

const GOOD: &str =
    "[node]\nlisten = \"127.0.0.1:7000\"\nqueue_max = 4\ndisks = [\n  { path = \"/a\" },\n  { path = \"/b\" },\n]\n";

fn errors(text: &str) -> Vec<String> {
    let error: ConfigError = parse::<Raw>(Path::new("hf.toml"), text).unwrap_err();
    error.to_string().lines().map(str::to_owned).collect()
}

#[test]
fn a_good_file_is_loaded() {
    let checked = parse::<Raw>(Path::new("hf.toml"), GOOD).unwrap();
    assert_eq!(checked.paths, ["/a", "/b"]);
}

#[test]
fn an_unknown_key_is_refused_with_its_line() {
    let errors = errors(&GOOD.replace("queue_max = 4", "queue_max = 4\nqeue = 1"));
    assert_eq!(errors.len(), 1);
    assert!(errors[0].starts_with("hf.toml:4: unknown field `qeue`"), "{errors:?}");
    assert!(errors[0].ends_with("; remove it or correct its spelling"), "{errors:?}");
}

#[test]
fn a_missing_a_mistyped_and_a_malformed_value_say_what_to_do() {
    let missing = errors(&GOOD.replace("queue_max = 4\n", ""));
    assert!(
        missing[0].contains("missing field `queue_max`") && missing[0].ends_with("; add it"),
        "{missing:?}"
    );
    let mistyped = errors(&GOOD.replace("queue_max = 4", "queue_max = \"4\""));
    assert!(mistyped[0].starts_with("hf.toml:3: invalid type"), "{mistyped:?}");
    let malformed = errors("[node\n");
    assert!(malformed[0].starts_with("hf.toml:1: "), "{malformed:?}");
}

#[test]
fn all_problems_of_the_check_are_told_at_once_with_their_lines() {
    let text = GOOD
        .replace("\"/b\"", "\"b\"")
        .replace("= 4", "= 0")
        .replace("127.0.0.1:7000", "here");
    assert_eq!(
        errors(&text),
        [
            "hf.toml:3: `node.queue_max` is 0; set it to at least 1",
            "hf.toml:6: `node.disks.1.path` is relative; give an absolute path",
            "hf.toml:2: `node.listen` is no address; give it as 10.0.0.1:7000",
        ]
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("absent.toml");
    let error = load::<Raw>(&absent).unwrap_err().to_string();
    assert!(
        error.starts_with(&absent.display().to_string()) && error.contains("give the path"),
        "{error}"
    );
    let binary = folder.path().join("binary.toml");
    std::fs::write(&binary, [0xff, 0xfe]).unwrap();
    assert!(load::<Raw>(&binary).is_err());
    let long = folder.path().join("long.toml");
    std::fs::write(&long, vec![b'#'; 2 << 20]).unwrap();
    assert!(load::<Raw>(&long).unwrap_err().to_string().contains("below 1 MiB"));
}
