//! The checks of documents, metrics and databases each catch a fault that was planted on purpose.
//!
//! Not here: the checks of shape (`main`).

use crate::tree::{self, Fault, Source};
use crate::{absent, architecture, decisions, lists, metrics, requirements, services};
use decisions::Record;

fn told(faults: &[Fault]) -> Vec<String> {
    faults.iter().map(|fault| fault.what.clone()).collect()
}

fn source(path: &str, text: &str) -> Source {
    Source {
        path: path.to_owned(),
        text: text.to_owned(),
    }
}

const DEFINED: &str = "//! x\npub const A: Definition = Definition::counter(\"node_a_total\", \"As.\", &[\"disk\"]);\n\
                       pub const ALL: [Definition; 1] = [A];\n";
const PAGE: &str = "| `node_a_total` | counter | `disk` | As. |\n";

#[test]
fn a_metric_that_page_and_code_tell_differently_is_found() {
    let check = |code: &str, page: &str| told(&metrics::page_differs(&[source("node/src/metrics.rs", code)], page));
    assert_eq!(check(DEFINED, PAGE), Vec::<String>::new());
    assert_eq!(check(DEFINED, ""), ["docs/metrics.md lacks `node_a_total`"]);
    assert_eq!(check("//! x\n", PAGE), ["no code defines `node_a_total`"]);
    for page in [
        PAGE.replace("counter", "gauge"),
        PAGE.replace("`disk`", "-"),
        PAGE.replace("As.", "Bs."),
    ] {
        assert_eq!(check(DEFINED, &page).len(), 1, "{page}");
    }
}

#[test]
fn a_metric_that_nothing_changes_is_found() {
    let check = |uses: &str| {
        let sources = [source("node/src/metrics.rs", DEFINED), source("node/src/a.rs", uses)];
        told(&metrics::idle(&sources))
    };
    let idle = ["nothing changes `node_a_total`"];
    let changed = [
        "fn f(m: &M) { m.counter(&metrics::A).inc(); }",
        "fn f(m: &M) { show(m, &metrics::A); }\nfn show(m: &M, d: &D) { m.counter(d).inc_by(1); }",
        "fn new(m: &M) -> S { S { a: m.counter(&metrics::A) } }\nimpl S { fn g(&self) { self.a.inc(); } }",
    ];
    for uses in changed {
        assert_eq!(check(uses), Vec::<String>::new(), "{uses}");
    }
    let not_changed = [
        "fn f(m: &M) { m.define(&metrics::ALL); }",
        "fn f(m: &M) { m.counter(&metrics::A); }\nfn g(m: &M) { m.inc(); }",
        "fn f(m: &M) { m.counter(&metrics::A).set(1); }",
        "#[cfg(test)]\nmod tests { fn f(m: &M) { m.counter(&metrics::A).inc(); } }",
        "fn new(m: &M) -> S { S { a: m.counter(&metrics::A) } }\nimpl S { fn g(&self) { self.b.inc(); } }",
    ];
    for uses in not_changed {
        assert_eq!(check(uses), idle, "{uses}");
    }
    let unregistered = DEFINED.replace("= [A]", "= []");
    let sources = [
        source("node/src/metrics.rs", &unregistered),
        source("node/src/a.rs", changed[0]),
    ];
    assert_eq!(told(&metrics::idle(&sources)), ["`A` is not in ALL"]);
    let elsewhere = "fn f() { let d = Definition::gauge(\"x\", \"y\", &[]); }";
    let sources = [source("node/src/a.rs", elsewhere)];
    assert_eq!(
        told(&metrics::idle(&sources)),
        ["a metric is defined outside of metrics.rs"]
    );
}

#[test]
fn a_view_that_is_missing_or_empty_and_a_file_that_is_gone_are_found() {
    let page = std::fs::read_to_string(tree::root().join("ARCHITECTURE.md")).unwrap();
    for heading in ["## Context", "## Deployment view", "## Interfaces", "### A dead disk"] {
        let without = page.replace(&format!("\n{heading}\n"), "\n");
        assert!(
            told(&architecture::gaps(&without)).contains(&format!("lacks the section `{heading}`")),
            "{heading}"
        );
        let text = architecture::section(&page, heading).unwrap();
        let emptied = page.replace(text, "\n");
        assert!(
            told(&architecture::gaps(&emptied)).contains(&format!("`{heading}` is empty")),
            "{heading}"
        );
    }
    let sources = [source("node/src/store/core.rs", "")];
    let check = |page: &str| architecture::stale_names(page, &sources).len();
    assert_eq!(check("`store/core.rs` and `node/src/store/core.rs`"), 0);
    assert_eq!(check("`store/cores.rs` and `tore/core.rs`"), 2);
}

#[test]
fn a_decision_without_reasons_or_number_is_found() {
    let text = "# 0001 It\n\nDecided 2026-11-21.\n\n## Situation\n\nIt rains, and whoever is outside without a coat will become wet soon.\n\n\
                ## Choice\n\nWe stay inside as long as it rains, look out of the window now and then, and go when it has ended; see \
                decision 0001 for that.\n\n## Price\n\nThe walk is put off until then.\n\n## Refused\n\nAn umbrella: it is windy, and it would not last long.\n";
    let check = |name: &str, text: &str| {
        let record = Record {
            name: name.to_owned(),
            text: text.to_owned(),
        };
        decisions::unfinished(&[record], "| [0001](0001-it.md) | it |").len()
    };
    assert_eq!(check("0001-it.md", text), 0);
    assert_eq!(check("0001-other.md", text), 1);
    for (old, new) in [
        ("Decided", "Thought of"),
        ("## Refused", "## Other"),
        ("An umbrella: it is windy, and it would not last long.", ""),
        ("decision 0001", "decision 0002"),
        ("# 0001", "# 0002"),
    ] {
        assert_eq!(check("0001-it.md", &text.replace(old, new)), 1, "{old}");
    }
}

#[test]
fn a_departure_without_a_record_a_reading_that_is_missing_and_a_word_without_meaning_are_found() {
    let records = decisions::records();
    let check = |line: &str| {
        let page = format!("x\n## Departures from the first design\n\n{line}\n");
        decisions::unrecorded_departures(&page, &records).len()
    };
    assert_eq!(check("- It is so (decision 0003)."), 0);
    assert_eq!(check("- It is so."), 1);
    assert_eq!(check("- It is so (decision 9003)."), 1);
    assert_eq!(check(""), 1);
    let page = std::fs::read_to_string(tree::root().join("docs/decisions/0022-readings-of-requirements.md")).unwrap();
    let without = page.replace("\n12. ", "\n- ");
    assert_eq!(
        told(&decisions::missing_readings(&without)),
        ["point 12 says nothing of `C-2`"]
    );
    let glossary = std::fs::read_to_string(tree::root().join("docs/glossary.md")).unwrap();
    assert_eq!(
        told(&decisions::glossary_faults(&format!(
            "{glossary}| gadget | |\n| user | somebody else |\n"
        ))),
        ["`gadget` has no meaning", "`user` stands there twice"]
    );
}

#[test]
fn a_database_that_two_services_could_share_is_found() {
    let manifest = |name: &str, lines: &str| {
        (
            name.to_owned(),
            format!("name = \"{name}\"\n[dependencies]\n{lines}\n[dev-dependencies]\nkv.workspace = true\n"),
        )
    };
    let check = |gateway: &str, node: &str, path: &str| {
        let manifests = [
            manifest("gateway", gateway),
            manifest("node", node),
            manifest("metadata-raft", "kv.workspace = true"),
        ];
        let opens = format!("//! x\nfn f() {{ {}x) }}\n", concat!("RocksKv::", "open("));
        services::shared_databases(&manifests, &[source(path, &opens)]).len()
    };
    assert_eq!(
        check("codec.workspace = true", "kv.workspace = true", "src/roles.rs"),
        0
    );
    assert_eq!(check("kv.workspace = true", "", "src/roles.rs"), 1);
    assert_eq!(check("", "metadata-raft.workspace = true", "src/roles.rs"), 1);
    assert_eq!(check("", "", "gateway/src/a.rs"), 1);
}

#[test]
fn a_library_that_reads_contents_and_a_line_that_upgrades_are_found() {
    let lock = |name: &str| format!("[[package]]\nname = \"{name}\"\nversion = \"1.0.0\"\n");
    for (name, readers, sockets) in [
        ("infer", 1, 0),
        ("image-webp", 1, 0),
        ("tree_magic_mini", 1, 0),
        ("zip", 1, 0),
        ("tokio-tungstenite", 0, 1),
        ("target-lexicon", 0, 0),
        ("zipper", 0, 0),
        ("mime", 0, 0),
    ] {
        let lock = lock(name);
        let found = (absent::readers(&lock).len(), absent::sockets(&lock).len());
        assert_eq!(found, (readers, sockets), "{name}");
    }
    let line = concat!("//! x\nfn f() { g.with_", "upgrades() }\n");
    let check = |path: &str, text: &str| absent::upgrades(&source(path, text)).len();
    assert_eq!(check("gateway/src/serve.rs", line), 1);
    assert_eq!(check("gateway/src/serve.rs", &format!("// {line}")), 1);
    assert_eq!(check("gateway/src/serve.rs", &line.replace("fn f", "// fn f")), 0);
    assert_eq!(check("tests/cluster/a.rs", line), 0);
}

#[test]
fn a_list_that_is_loosened_and_a_machine_that_waits_are_found() {
    let read = |folder: &str| std::fs::read_to_string(tree::root().join(folder).join("clippy.toml")).ok();
    let without = |at: &'static str, path: &'static str| {
        lists::loose(move |folder| {
            let text = read(folder)?;
            Some(if folder == at {
                text.replace(path, "other")
            } else {
                text
            })
        })
        .len()
    };
    assert_eq!(without("crates", "no such path"), 0);
    assert_eq!(without("crates", "tokio::spawn"), 1);
    assert_eq!(without("crates/rpc", "std::time::Instant::now"), 1);
    assert_eq!(without("gateway", "std::fs::read\""), 1);
    let loosened = lists::loose(|folder| read(folder).or_else(|| (folder == "crates/model").then(String::new)));
    assert_eq!(told(&loosened), ["takes the place of the strict list of pure packages"]);
    let check = |path: &str, text: &str| lists::impure(&source(path, text)).len();
    assert_eq!(check("gateway/src/drive/fanout.rs", "// tokio\nfn f() {}\n"), 0);
    assert_eq!(
        check("gateway/src/drive/fanout.rs", "fn f() { tokio::spawn(g()); }\n"),
        1
    );
    assert_eq!(
        check("gateway/src/drive/upload.rs", "fn f() { tokio::spawn(g()); }\n"),
        0
    );
}

/// A source whose tests carry these marks, one each.
fn marked(marks: &[&str]) -> Source {
    let test = |(number, mark): (usize, &&str)| {
        format!(
            "/// {}{mark}\n#[test]\nfn test_{number}() {{}}\n",
            concat!("sho", "ws: ")
        )
    };
    source("node/src/a.rs", &marks.iter().enumerate().map(test).collect::<String>())
}

#[test]
fn a_row_is_shown_when_each_of_its_sides_is_shown_whole() {
    let rows = requirements::rows("A\tlater\tone thing\nB\tlater\ttwo things\tleft,right\n");
    let state = |marks: &[&str]| {
        let (shown, faults) = requirements::marks(&[marked(marks)]);
        assert_eq!(told(&faults), Vec::<String>::new());
        assert_eq!(told(&requirements::unknown(&rows, &shown)), Vec::<String>::new());
        let page = requirements::render(&rows, &shown);
        ["| A |", "| B |"].map(|start| {
            let line = page.lines().find(|line| line.starts_with(start)).unwrap();
            line.split(" | ").nth(2).unwrap().to_owned()
        })
    };
    assert_eq!(state(&[]), ["open: later", "open: later"]);
    assert_eq!(state(&["A", "B side=left", "B side=right"]), ["shown", "shown"]);
    assert_eq!(state(&["A, B side=left, B side=right"]), ["shown", "shown"]);
    for (marks, of_a, of_b) in [
        (&["A scale=1/2", "B side=left"][..], "partial", "lacks right"),
        (
            &["A scale=1/2, B side=right", "A scale=1/2, B side=right"][..],
            "partial",
            "lacks left",
        ),
        (
            &["A scale=59/60, B side=left", "B side=right scale=1/2"][..],
            "partial",
            "lacks right",
        ),
        (
            &["A scale=1/2, B scale=1/3 side=left", "A"][..],
            "shown",
            "lacks left, right",
        ),
    ] {
        assert_eq!(state(marks), [of_a.to_owned(), format!("partial: {of_b}")], "{marks:?}");
    }
    let (shown, _) = requirements::marks(&[marked(&["B side=left scale=1/3, A"])]);
    let page = requirements::render(&rows, &shown);
    for name in [
        "| `node/src/a.rs::test_0` |",
        "| `node/src/a.rs::test_0` (side left, 1/3) |",
    ] {
        assert!(page.contains(name), "{page}");
    }
}

#[test]
fn a_mark_that_the_list_does_not_allow_is_found() {
    let rows = requirements::rows("A\tlater\tone thing\nB\tlater\ttwo things\tleft,right\n");
    let check = |mark: &str| {
        let (shown, faults) = requirements::marks(&[marked(&[mark])]);
        told(&faults).len() + requirements::unknown(&rows, &shown).len()
    };
    for good in ["A", "A scale=1/2", "B side=left", "B side=right scale=1/2, A"] {
        assert_eq!(check(good), 0, "{good}");
    }
    for wrong in [
        "C",
        "A side=left",
        "B",
        "B scale=1/2",
        "B side=middle",
        "B side=left side=right",
        "A part=1/2",
        "A half",
        "A scale=abc",
        "A scale=60/60",
        "A scale=0/60",
        "A scale=2/1",
        "A scale=1/2 scale=1/3",
    ] {
        assert_eq!(check(wrong), 1, "{wrong}");
    }
    let above_nothing = source(
        "node/src/a.rs",
        &format!("/// {}A\nstruct S;\n", concat!("sho", "ws: ")),
    );
    assert_eq!(requirements::marks(&[above_nothing]).1.len(), 1);
}
