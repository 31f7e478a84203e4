//! The shape test: what a reviewer should never have to say twice is checked here.
//!
//! Each check is a function from sources to faults, so that each is also shown to catch a fault planted on purpose.
//! There is no list of exceptions. Not here: what clippy and rustc check already.
#![allow(
    clippy::unwrap_used,
    reason = "the whole crate is a test: a file that cannot be read fails it"
)]

mod absent;
mod architecture;
mod arrows;
mod decisions;
mod doors;
mod lists;
mod metrics;
mod papers;
mod planted;
mod requirements;
mod services;
mod shape;
mod tree;
mod words;

use tree::{Fault, Source};

fn assert_none(faults: &[Fault]) {
    let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
    assert!(
        lines.is_empty(),
        "{} faults of shape:\n{}",
        lines.len(),
        lines.join("\n")
    );
}

#[test]
fn files_and_functions_keep_their_length() {
    assert_none(&tree::sources().iter().flat_map(shape::lengths).collect::<Vec<_>>());
}

#[test]
fn every_file_opens_with_its_purpose() {
    assert_none(
        &tree::sources()
            .iter()
            .flat_map(shape::opens_with_purpose)
            .collect::<Vec<_>>(),
    );
}

#[test]
fn roots_of_packages_hold_no_logic() {
    assert_none(
        &tree::sources()
            .iter()
            .flat_map(shape::root_is_a_list)
            .collect::<Vec<_>>(),
    );
}

#[test]
fn every_public_item_of_crates_is_documented() {
    assert_none(
        &tree::sources()
            .iter()
            .flat_map(shape::public_items_are_documented)
            .collect::<Vec<_>>(),
    );
}

#[test]
fn every_source_file_is_reachable() {
    assert_none(&shape::all_reachable(&tree::sources()));
}

#[test]
fn banned_words_do_not_occur() {
    assert_none(&tree::sources().iter().flat_map(words::banned).collect::<Vec<_>>());
}

#[test]
fn libraries_are_named_only_behind_their_doors() {
    assert_none(
        &tree::sources()
            .iter()
            .flat_map(doors::foreign_names)
            .collect::<Vec<_>>(),
    );
}

#[test]
fn clocks_files_and_threads_are_forbidden_outside_of_their_doors() {
    let read = |folder: &str| std::fs::read_to_string(tree::root().join(folder).join("clippy.toml")).ok();
    assert_none(&lists::loose(read));
    assert_none(&tree::sources().iter().flat_map(lists::impure).collect::<Vec<_>>());
}

#[test]
fn packages_depend_only_along_the_arrows_of_the_architecture() {
    assert_none(&arrows::departures());
}

/// shows: B-1
#[test]
fn no_client_of_a_foreign_store_database_or_broker_is_linked() {
    let lock = std::fs::read_to_string(tree::root().join("Cargo.lock")).unwrap();
    assert!(
        lock.matches("[[package]]").count() > 200,
        "the list of packages was not found"
    );
    assert_none(&services::clients(&lock));
}

/// Nothing is unpacked either, so no name that stands in an archive becomes a path.
///
/// shows: A-3 side=nowhere, F40 side=archives
#[test]
fn nothing_that_is_linked_looks_into_contents() {
    let lock = std::fs::read_to_string(tree::root().join("Cargo.lock")).unwrap();
    assert_none(&absent::readers(&lock));
}

/// shows: C-1 side=no-upgrade
#[test]
fn no_connection_is_made_into_another_kind() {
    let lock = std::fs::read_to_string(tree::root().join("Cargo.lock")).unwrap();
    assert_none(&absent::sockets(&lock));
    assert_none(&tree::sources().iter().flat_map(absent::upgrades).collect::<Vec<_>>());
}

/// shows: H-P4 scale=1/2
#[test]
fn services_share_no_database() {
    assert_none(&services::shared_databases(&arrows::manifests(), &tree::sources()));
}

#[test]
fn metrics_and_their_page_agree_and_every_metric_is_changed() {
    let sources = tree::sources();
    let page = std::fs::read_to_string(tree::root().join("docs/metrics.md")).unwrap();
    assert_none(&metrics::page_differs(&sources, &page));
    assert_none(&metrics::idle(&sources));
}

/// shows: DOC-1
#[test]
fn the_architecture_document_has_every_view_and_names_what_is_there() {
    let page = std::fs::read_to_string(tree::root().join("ARCHITECTURE.md")).unwrap();
    assert_none(&architecture::gaps(&page));
    assert_none(&architecture::stale_names(&page, &tree::sources()));
}

/// shows: DOC-2
#[test]
fn every_decision_has_its_reasons_and_what_was_refused() {
    let list = std::fs::read_to_string(tree::root().join("docs/decisions/README.md")).unwrap();
    assert_none(&decisions::unfinished(&decisions::records(), &list));
}

/// shows: DOC-3, C-2
#[test]
fn the_glossary_is_there_and_every_departure_has_a_record() {
    let read = |page: &str| std::fs::read_to_string(tree::root().join(page)).unwrap();
    assert_none(&decisions::glossary_faults(&read("docs/glossary.md")));
    // Point 12 of the readings records constraint C-2 as unknown, and ARCHITECTURE.md repeats it.
    let readings = read("docs/decisions/0022-readings-of-requirements.md");
    assert_none(&decisions::missing_readings(&readings));
    assert!(readings.contains("C-2 is recorded as unknown"));
    let architecture = read("ARCHITECTURE.md");
    let unknown = architecture::section(&architecture, "## Unknown").unwrap();
    assert!(unknown.contains("Constraint C-2") && unknown.contains("recorded as unknown"));
    assert_none(&decisions::unrecorded_departures(&architecture, &decisions::records()));
}

#[test]
fn documents_are_complete() {
    assert_none(&papers::incomplete());
}

#[test]
fn the_requirement_map_is_complete_and_current() {
    assert_none(&requirements::out_of_date());
}

#[test]
fn each_check_catches_a_planted_fault() {
    let long = format!("//! Purpose of it.\nfn f() {{\n{}}}\n", "    let _ = 1;\n".repeat(80));
    let source = |path: &str, text: &str| Source {
        path: path.to_owned(),
        text: text.to_owned(),
    };
    assert_eq!(shape::lengths(&source("node/src/a.rs", &long)).len(), 1);
    assert_eq!(
        shape::lengths(&source(
            "node/src/a.rs",
            &long
                .replace("let _ = 1;\n", "let _ = 1; // x\n")
                .replacen("fn f", "/// A flat table.\nfn f", 1)
        ))
        .len(),
        0
    );
    assert_eq!(
        shape::lengths(&source("node/src/a.rs", &"//! x\n".repeat(601))).len(),
        1
    );
    assert_eq!(
        shape::opens_with_purpose(&source("node/src/a.rs", "use a::b;\n")).len(),
        1
    );
    assert_eq!(
        shape::root_is_a_list(&source("node/src/lib.rs", "//! x\npub fn f() {}\n")).len(),
        1
    );
    assert_eq!(
        shape::public_items_are_documented(&source("crates/x/src/a.rs", "//! x\npub struct A { pub b: u8 }\n")).len(),
        2
    );
    assert_eq!(
        shape::all_reachable(&[source("node/src/lib.rs", "//! x\n"), source("node/src/a.rs", "//! x\n")]).len(),
        1
    );
    assert_eq!(
        words::banned(&source("node/src/a.rs", concat!("//! x\nstruct Disk", "Manager;\n"))).len(),
        1
    );
    assert_eq!(
        words::banned(&source("node/src/a.rs", concat!("//! x\n// FIX", "ME later\n"))).len(),
        1
    );
    for client in ["aws-sdk-s3", "tokio-postgres", "redis"] {
        let lock = format!("[[package]]\nname = \"{client}\"\nversion = \"1.0.0\"\n");
        assert_eq!(services::clients(&lock).len(), 1, "{client}");
    }
    assert_eq!(
        doors::foreign_names(&source("node/src/a.rs", concat!("//! x\nuse rocks", "db::DB;\n"))).len(),
        1
    );
    assert_eq!(
        doors::foreign_names(&source(
            "gateway/src/http/a.rs",
            "//! x\nuse rpc::transport::Transport;\n"
        ))
        .len(),
        1
    );
}
