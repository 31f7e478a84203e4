//! The hand-off choice: cases from testdata, and how it spreads.

use super::{Handoff, choose_handoff};
use crate::testmap;
use model::cluster::ClusterMap;
use model::id::{DiskId, RowVersion};
use model::layout::Row;
use model::stripe::StripeId;
use std::collections::{BTreeMap, BTreeSet};

fn row(disks: &[DiskId]) -> Row {
    Row {
        version: RowVersion(1),
        disks: disks.to_vec(),
        filling_from: BTreeMap::new(),
    }
}

fn disks(words: &[&str]) -> Vec<DiskId> {
    words.iter().map(|word| DiskId(word.parse().unwrap())).collect()
}

fn after<'a>(words: &'a [&'a str], mark: &str) -> BTreeSet<DiskId> {
    let from = words
        .iter()
        .position(|word| *word == mark)
        .map_or(words.len(), |at| at + 1);
    let numbers: Vec<&str> = words[from..]
        .iter()
        .take_while(|word| word.parse::<u32>().is_ok())
        .copied()
        .collect();
    disks(&numbers).into_iter().collect()
}

#[test]
fn every_case_of_the_handoff_choice_is_decided_as_written_for_every_stripe() {
    let (mut map, mut current, mut cases) = (ClusterMap::default(), row(&[]), 0);
    for words in testmap::lines(include_str!("../../testdata/handoff.txt")) {
        match words[0] {
            "row" => current = row(&disks(&words[1..])),
            "case" => {
                let (avoided, used, right) = (after(&words, "avoid"), after(&words, "used"), after(&words, "=>"));
                let index = words[1].parse().unwrap();
                let chosen: BTreeSet<DiskId> = (0..200)
                    .filter_map(|stripe| {
                        let stripe = StripeId(stripe << 100);
                        let wanted = Handoff {
                            stripe,
                            index,
                            row: &current,
                            avoided: &avoided,
                            used: &used,
                        };
                        choose_handoff(&wanted, &map)
                    })
                    .collect();
                assert_eq!(chosen, right, "{}", words.join(" "));
                cases += 1;
            }
            _ => assert!(testmap::read_map_line(&mut map, &words), "{words:?} is no line"),
        }
    }
    assert!(cases > 12);
}

#[test]
fn stripes_spread_evenly_and_a_disk_that_goes_moves_only_its_own() {
    let map = testmap::grid(1, 13, 1);
    let current = row(&[DiskId(1), DiskId(2), DiskId(3)]);
    let none = BTreeSet::new();
    let choose = |stripe: u128, avoided: &BTreeSet<DiskId>| {
        let wanted = Handoff {
            stripe: StripeId(stripe << 90),
            index: 0,
            row: &current,
            avoided,
            used: &none,
        };
        choose_handoff(&wanted, &map).unwrap()
    };
    let mut counts: BTreeMap<DiskId, usize> = BTreeMap::new();
    let gone = BTreeSet::from([DiskId(7)]);
    for stripe in 0..10_000 {
        let chosen = choose(stripe, &none);
        *counts.entry(chosen).or_default() += 1;
        assert!(chosen == DiskId(7) || choose(stripe, &gone) == chosen);
    }
    assert_eq!(counts.len(), 10);
    assert!(counts.values().all(|count| (850..1150).contains(count)), "{counts:?}");
}
