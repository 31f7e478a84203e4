//! The command that is printed for a failing seed, taken by `make` and by this binary's own arguments: what it runs is that world again.
//!
//! Not here: that the same orders give the same world (chaos/tests/world.rs).

use super::Arguments;
use chaos::world::Orders;
use chaos::world::campaign::replay;
use chaos::world::kind::Kind;
use chaos::world::plant::Plant;
use clap::Parser;
use std::path::Path;
use std::process::Command;

/// What `make` hands to this binary for a printed command. Nothing is run: a recipe is only said.
fn handed_by_make(printed: &str) -> Vec<String> {
    let words: Vec<&str> = printed.split_whitespace().collect();
    assert_eq!(words.first(), Some(&"make"), "{printed}");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    // What runs the tests may be make itself, whose own variables must not come in.
    let said = Command::new("make")
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .args(["--dry-run", "--no-print-directory"])
        .args(&words[1..])
        .current_dir(root)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&said.stdout);
    assert!(
        said.status.success(),
        "{printed}: {}",
        String::from_utf8_lossy(&said.stderr)
    );
    let line = text.lines().find_map(|line| line.split_once("--bin sim -- "));
    let (_, handed) = line.unwrap_or_else(|| panic!("{printed} does not run this binary:\n{text}"));
    handed.split_whitespace().map(str::to_owned).collect()
}

/// Checks that the command printed for `orders` gives this binary the same orders.
fn check(orders: &Orders) {
    let printed = replay(orders);
    let handed = handed_by_make(&printed);
    let words = std::iter::once("sim").chain(handed.iter().map(String::as_str));
    let arguments = Arguments::try_parse_from(words).unwrap_or_else(|error| panic!("{printed}: {error}"));
    let Arguments {
        seed,
        kind,
        plant,
        calm,
        operations,
        trace,
        seeds: _,
        first: _,
        steps: _,
        json: _,
    } = arguments;
    assert_eq!(seed, Some(orders.seed), "{printed}");
    assert_eq!(kind, orders.kind, "{printed}");
    assert_eq!(plant, orders.plant, "{printed}");
    assert_eq!(operations, orders.operations, "{printed}");
    assert!(!calm, "{printed}");
    assert_eq!(trace, None, "{printed}");
}

#[test]
fn the_command_that_is_printed_runs_the_same_world_again() {
    for kind in Kind::ALL {
        for operations in [None, Some(10_000)] {
            check(&Orders {
                seed: u64::MAX,
                kind,
                operations,
                ..Orders::default()
            });
        }
    }
    for plant in Plant::ALL {
        check(&Orders {
            seed: 0,
            plant: Some(plant),
            operations: Some(1),
            ..Orders::default()
        });
    }
    check(&Orders {
        seed: 7,
        kind: Kind::Collection,
        plant: Some(Plant::RemovesNothing),
        operations: Some(300),
        ..Orders::default()
    });
}
