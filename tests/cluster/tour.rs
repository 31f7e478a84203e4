//! The README's tour: every shell block of it as it stands there, run by bash and curl against a fresh cluster.
//!
//! Invariants: each command succeeds and prints what stands below it and nothing else; together they reach every route that the served
//! OpenAPI document describes, as the gateway's own counters tell; the one refusal among them is announced.
//! Not here: what a call should do (the file of its topic).

use crate::world::{World, holdfast};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

const README: &str = include_str!("../../README.md");
/// The tour begins with one of these lines and ends before the other.
const FROM: &str = "## First upload";
const TO: &str = "## Stop and wipe";
/// What a command prints stands behind this, below the command, in as many lines as it prints.
const SAID: &str = "# => ";
/// Stands there for any text.
const ANY: &str = "...";
/// Printed where the README says what was printed before; in no answer.
const MARK: char = '\u{1e}';
/// What bash is told before the first line: a command that fails ends it, and is named with its line.
const STRICT: &str = "set -euo pipefail; trap 'echo \"README.md:$LINENO: $BASH_COMMAND\" >&2' ERR";
/// Some ten times what it takes on a loaded two-core machine: in place of a loop that never ends.
const DEADLINE: Duration = Duration::from_secs(120);
/// Calls that the tour shows being refused.
const REFUSED: [(&str, &str, &str); 1] = [("/api/v1/admin/setup", "post", "401")];

/// All blocks as one script, each line where it stands in the document, and what is said of their outputs.
struct Tour {
    script: String,
    said: Vec<Said>,
}

/// What the commands since the last mark print.
#[derive(Debug, PartialEq)]
struct Said {
    /// Of the document, counted from 1.
    line: usize,
    text: String,
}

/// Requests by route, method in small letters, and status.
type Counts = BTreeMap<(String, String, String), u64>;

fn read(document: &str) -> Tour {
    let (mut script, mut said) = (vec![STRICT.to_owned()], Vec::<Said>::new());
    let (mut is_tour, mut is_shell, mut is_saying) = (false, false, false);
    for (at, line) in document.lines().enumerate().skip(1) {
        match line {
            FROM => is_tour = true,
            TO => is_tour = false,
            "```sh" => is_shell = is_tour,
            "```" => is_shell = false,
            _ => {}
        }
        let text = line.strip_prefix(SAID).filter(|_| is_shell);
        script.push(match text {
            Some(text) if is_saying => {
                let last = &mut said.last_mut().unwrap().text;
                last.push('\n');
                last.push_str(text);
                String::new()
            }
            Some(text) => {
                said.push(Said {
                    line: at + 1,
                    text: text.to_owned(),
                });
                format!("printf '\\{:03o}'", u32::from(MARK))
            }
            None if is_shell && line != "```sh" => line.to_owned(),
            None => String::new(),
        });
        is_saying = text.is_some();
    }
    script.push(String::new());
    Tour {
        script: script.join("\n"),
        said,
    }
}

/// Whether `text` is what is said: the pieces around `...` in their order, from its first letter to its last.
fn is_as_said(said: &str, text: &str) -> bool {
    let Some((first, rest)) = said.split_once(ANY) else {
        return said == text;
    };
    let Some(mut text) = text.strip_prefix(first) else {
        return false;
    };
    let (inner, last) = rest.rsplit_once(ANY).unwrap_or(("", rest));
    for piece in inner.split(ANY) {
        match text.split_once(piece) {
            Some((_, behind)) => text = behind,
            None => return false,
        }
    }
    text.ends_with(last)
}

/// Where what was printed departs from what is said.
fn departures(said: &[Said], printed: &str) -> Vec<String> {
    let parts: Vec<&str> = printed.split(MARK).map(str::trim).collect();
    let (unsaid, parts) = parts.split_last().unwrap();
    let mut found = Vec::new();
    if parts.len() != said.len() {
        found.push(format!("{} outputs and {} lines about them", parts.len(), said.len()));
    }
    for (said, part) in said.iter().zip(parts) {
        if !is_as_said(&said.text, part) {
            found.push(format!("README.md:{} says\n{}\nand not\n{part}", said.line, said.text));
        }
    }
    if !unsaid.is_empty() {
        found.push(format!("nothing is said of the end of the output: {unsaid}"));
    }
    found
}

/// Runs the blocks in `folder`: what they printed. Errors: what one said that failed, or all of them, behind what was printed.
async fn run(tour: &Tour, folder: &Path) -> Result<String, String> {
    let file = folder.join("tour.sh");
    fs::write(&file, &tour.script).unwrap();
    let mut command = Command::new("bash");
    command
        .arg(&file)
        .current_dir(folder)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    // No settings of whoever runs the tests, and no proxy between loopback and itself.
    command.env("CURL_HOME", folder).env("no_proxy", "*").env("LC_ALL", "C");
    let Ok(output) = tokio::time::timeout(DEADLINE, command.output()).await else {
        return Err(format!("the tour is not over after {DEADLINE:?}"));
    };
    let output = output.unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.success() {
        true => Ok(printed),
        false => Err(format!("{}{printed}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// A label's value in a series of the metrics page.
fn label<'a>(series: &'a str, name: &str) -> &'a str {
    let start = format!("{name}=\"");
    let (_, value) = series
        .split_once(&start)
        .unwrap_or_else(|| panic!("{series} has no {name}"));
    value.split('"').next().unwrap()
}

fn counts(page: &str) -> Counts {
    let lines = page
        .lines()
        .filter(|line| line.starts_with("gateway_http_requests_total{"));
    let mut counts = Counts::new();
    for line in lines {
        let (series, count) = line.rsplit_once(' ').unwrap();
        let method = label(series, "method").to_lowercase();
        let key = (
            label(series, "route").to_owned(),
            method,
            label(series, "status").to_owned(),
        );
        *counts.entry(key).or_default() += count.parse::<u64>().unwrap();
    }
    counts
}

/// Which grew from `before` to `after`.
fn grown(before: &Counts, after: &Counts) -> Vec<(String, String, String)> {
    let grown = after
        .iter()
        .filter(|(key, count)| before.get(*key).copied().unwrap_or(0) < **count);
    grown.map(|(key, _)| key.clone()).collect()
}

#[tokio::test]
async fn the_tour_of_the_readme_runs_as_it_stands_there_and_reaches_every_route() {
    let curl = Command::new("curl").arg("--version").output().await;
    assert!(curl.is_ok(), "curl is missing: `make tools` installs it or says how");
    let world = World::start().await;
    let data_dir = world.data_dir();
    let folder = data_dir.parent().unwrap();
    let release = folder.join("target/release");
    fs::create_dir_all(&release).unwrap();
    symlink(holdfast(), release.join("holdfast")).unwrap();

    let mut before = counts(&world.client.text("/metrics").await.unwrap());
    // A page is made before the request for it is counted.
    let look = ("/metrics".to_owned(), "get".to_owned(), "200".to_owned());
    *before.entry(look).or_default() += 1;
    let tour = read(README);
    let printed = run(&tour, folder).await.unwrap_or_else(|fault| panic!("{fault}"));
    let departures = departures(&tour.said, &printed);
    assert!(departures.is_empty(), "{}", departures.join("\n\n"));

    let reached = grown(&before, &counts(&world.client.text("/metrics").await.unwrap()));
    let refused: Vec<_> = reached
        .iter()
        .map(|(route, method, status)| (route.as_str(), method.as_str(), status.as_str()))
        .filter(|(_, _, status)| *status >= "400")
        .collect();
    assert_eq!(refused, REFUSED);
    let reached: BTreeSet<_> = reached
        .iter()
        .map(|(route, method, _)| (route.as_str(), method.as_str()))
        .collect();
    let served: BTreeSet<_> = world.contract.operations().into_keys().collect();
    let lacking: Vec<_> = served.difference(&reached).collect();
    assert!(lacking.is_empty(), "the tour does not show {lacking:?}");
    let unknown: Vec<_> = reached.difference(&served).collect();
    assert!(unknown.is_empty(), "the document does not describe {unknown:?}");
}

#[test]
fn what_is_printed_is_compared_from_its_first_letter_to_its_last() {
    for (said, text, expected) in [
        ("204", "204", true),
        ("204", "2040", false),
        ("", "", true),
        ("{\"a\":...}", "{\"a\":1}", true),
        ("{\"a\":...}", "{\"b\":1}", false),
        ("{\"a\":...}", "{\"a\":1", false),
        ("{...\"b\":2...}", "{\"a\":1,\"b\":2,\"c\":3}", true),
        ("{...\"b\":2...\"a\":1...}", "{\"a\":1,\"b\":2,\"c\":3}", false),
        ("one...one", "one", false),
        ("...end", "the end", true),
        ("first...", "second", false),
    ] {
        assert_eq!(is_as_said(said, text), expected, "{said} of {text}");
    }
}

/// A document with one block between the headings of the tour, and one outside of it.
fn document(block: &str) -> String {
    format!("# Title\n\n```sh\nexit 9\n```\n\n{FROM}\n\n```sh\n{block}\n```\n\n{TO}\n\n```sh\nexit 9\n```\n")
}

#[tokio::test]
async fn a_command_that_fails_or_prints_something_else_is_caught() {
    let folder = tempfile::tempdir().unwrap();
    let tour = read(&document("X=two\necho one; echo $X\n# => one\n# => t...\n\ntrue"));
    let said = Said {
        line: 12,
        text: "one\nt...".to_owned(),
    };
    assert_eq!(tour.said, [said]);
    let printed = run(&tour, folder.path()).await.unwrap();
    assert_eq!(departures(&tour.said, &printed), Vec::<String>::new());

    for (block, expected) in [
        ("echo two\n# => one", "README.md:11 says\none\nand not\ntwo"),
        (
            "echo one\n# => one\necho two",
            "nothing is said of the end of the output: two",
        ),
        ("exit\n# => one", "0 outputs and 1 lines about them"),
    ] {
        let tour = read(&document(block));
        let printed = run(&tour, folder.path()).await.unwrap();
        assert_eq!(departures(&tour.said, &printed), [expected], "{block}");
    }
    for (block, line) in [
        ("true\nfalse\ntrue", 11),
        ("X=$(echo one | grep two)", 10),
        ("false &\nwait $!", 11),
        ("echo $NOBODY_SET_THIS", 10),
    ] {
        let failed = run(&read(&document(block)), folder.path()).await.unwrap_err();
        let at = [format!("README.md:{line}:"), format!("line {line}:")];
        assert!(at.iter().any(|at| failed.contains(at.as_str())), "{block}: {failed}");
    }
}

#[test]
fn requests_are_read_off_the_page_and_only_new_ones_count() {
    let page = "# HELP gateway_http_requests_total x\n\
                gateway_http_requests_total{method=\"GET\",process=\"gateway-1\",route=\"/a/{id}\",status=\"200\"} 2\n\
                gateway_http_requests_total{method=\"PUT\",process=\"gateway-1\",route=\"/a/{id}\",status=\"404\"} 1\n\
                gateway_http_requests_totals 7\n";
    let before = counts(page);
    let after = counts(&page.replace("\"200\"} 2", "\"200\"} 3"));
    let get = ("/a/{id}".to_owned(), "get".to_owned(), "200".to_owned());
    assert_eq!(before.get(&get), Some(&2));
    assert_eq!(before.len(), 2);
    assert_eq!(grown(&before, &after), [get]);
    assert_eq!(grown(&Counts::new(), &before).len(), 2);
}
