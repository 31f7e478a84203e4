//! The ack rule: cases from testdata, and a naive twin that counts what every single loss leaves.

use super::{Ack, HeldFragment, TakenFragment, ack, astray, count_under, cut_domains, survives};
use crate::testmap::{self, Dice};
use model::cluster::ClusterMap;
use model::id::{DiskId, RowVersion};
use model::layout::Row;
use model::profile::{Domain, Profile, ProfileId};
use model::stripe::Astray;
use std::collections::{BTreeMap, BTreeSet};

fn row(version: u64, disks: &[u32]) -> Row {
    let disks = disks.iter().map(|disk| DiskId(*disk)).collect();
    Row {
        version: RowVersion(version),
        disks,
        filling_from: BTreeMap::new(),
    }
}

fn taken(index: u8, disk: u32, version: u64) -> TakenFragment {
    TakenFragment {
        fragment: HeldFragment {
            index,
            disk: DiskId(disk),
        },
        row_version: RowVersion(version),
    }
}

fn read_taken(word: &str, version: u64) -> TakenFragment {
    let (index, place) = word.split_once('@').unwrap();
    let (disk, of) = place.split_once('/').unwrap_or((place, ""));
    taken(
        index.parse().unwrap(),
        disk.parse().unwrap(),
        if of.is_empty() { version } else { of.parse().unwrap() },
    )
}

fn show(ack: Ack) -> String {
    match ack {
        Ack::Refused => "refused".into(),
        Ack::Acknowledged {
            survives,
            is_degraded: false,
        } => survives.to_string(),
        Ack::Acknowledged {
            survives,
            is_degraded: true,
        } => format!("{survives} degraded"),
    }
}

/// Runs the cases of a file through `rule` and names those that it answers otherwise.
fn check(text: &str, rule: impl Fn(&[TakenFragment], &Row, Profile, &ClusterMap) -> Ack) -> (usize, Vec<String>) {
    let (mut map, mut profile, mut current) = (ClusterMap::default(), ProfileId::Dev, row(0, &[]));
    let (mut cases, mut wrong) = (0, Vec::new());
    for words in testmap::lines(text) {
        match words[0] {
            "map" => map = ClusterMap::default(),
            "profile" => profile = ProfileId::parse(words[1]).unwrap(),
            "row" => {
                let disks: Vec<u32> = words[2..].iter().map(|word| word.parse().unwrap()).collect();
                current = row(words[1].parse().unwrap(), &disks);
            }
            "case" => {
                let arrow = words.iter().position(|word| *word == "=>").unwrap();
                let taken: Vec<_> = words[1..arrow]
                    .iter()
                    .map(|word| read_taken(word, current.version.0))
                    .collect();
                let (found, expected) = (
                    show(rule(&taken, &current, profile.profile(), &map)),
                    words[arrow + 1..].join(" "),
                );
                cases += 1;
                if found != expected {
                    wrong.push(format!("{} gave {found}", words.join(" ")));
                }
            }
            _ => assert!(testmap::read_map_line(&mut map, &words), "{words:?} is no line"),
        }
    }
    (cases, wrong)
}

/// shows: F29
#[test]
fn every_case_of_the_ack_rule_is_decided_as_written() {
    let (cases, wrong) = check(include_str!("../../testdata/ack.txt"), ack);
    assert!(cases >= 20 && wrong.is_empty(), "{cases} cases, {wrong:#?}");
    let (cases, wrong) = check(include_str!("../../testdata/ack_small.txt"), ack);
    assert!(cases >= 8 && wrong.is_empty(), "{cases} cases, {wrong:#?}");
}

/// The bug planted on purpose: counting whatever was taken, under any row version.
#[test]
fn the_cases_catch_a_rule_that_counts_fragments_of_an_old_row_version() {
    let ignoring = |taken: &[TakenFragment], row: &Row, profile: Profile, map: &ClusterMap| {
        let blind: Vec<_> = taken
            .iter()
            .map(|taken| TakenFragment {
                row_version: row.version,
                ..*taken
            })
            .collect();
        ack(&blind, row, profile, map)
    };
    let (_, wrong) = check(include_str!("../../testdata/ack.txt"), ignoring);
    assert_eq!(wrong.len(), 3, "{wrong:#?}");
}

/// shows: F29
#[test]
fn a_fragment_that_was_not_written_is_astray_and_so_queued_for_repair() {
    let row = row(2, &[1, 2, 3]);
    let single = ProfileId::Single.profile();
    assert_eq!(
        astray(&[taken(0, 1, 2), taken(1, 2, 2), taken(2, 3, 2)], &row, single),
        []
    );
    let found = astray(&[taken(0, 1, 2), taken(1, 9, 2), taken(2, 3, 1)], &row, single);
    assert_eq!(
        found,
        [
            Astray {
                index: 1,
                disk: Some(DiskId(9))
            },
            Astray { index: 2, disk: None }
        ]
    );
}

#[test]
fn of_an_index_on_two_disks_the_rows_own_disk_is_counted() {
    let counted = count_under(&[taken(0, 1, 1), taken(0, 5, 1), taken(1, 7, 1)], &row(1, &[5, 6, 7]));
    let expected = [(0, 5), (1, 7)].map(|(index, disk)| HeldFragment {
        index,
        disk: DiskId(disk),
    });
    assert_eq!(counted, expected);
}

#[test]
fn domains_are_cut_to_what_the_cluster_has() {
    let cut = |map: ClusterMap| cut_domains(ProfileId::Standard.profile(), &map);
    assert_eq!(cut(testmap::grid(2, 1, 1)), (Domain::Region, Domain::Node));
    assert_eq!(cut(testmap::grid(1, 2, 1)), (Domain::Node, Domain::Disk));
    assert_eq!(cut(testmap::grid(1, 1, 9)), (Domain::Disk, Domain::Disk));
    assert_eq!(cut(ClusterMap::default()), (Domain::Disk, Domain::Disk));
}

/// The most fragments with distinct indices on distinct disks among those that one loss leaves, by trying every subset.
fn left_by_trying(held: &[HeldFragment], profile: Profile, is_left: &dyn Fn(DiskId) -> bool) -> usize {
    let left: Vec<_> = held
        .iter()
        .filter(|held| is_left(held.disk) && usize::from(held.index) < profile.fragments())
        .collect();
    (0_u32..1 << left.len())
        .filter(|subset| {
            let chosen = || (0..left.len()).filter(|at| subset >> at & 1 == 1).map(|at| left[at]);
            let indices: BTreeSet<u8> = chosen().map(|held| held.index).collect();
            let disks: BTreeSet<DiskId> = chosen().map(|held| held.disk).collect();
            indices.len() == chosen().count() && disks.len() == chosen().count()
        })
        .map(u32::count_ones)
        .max()
        .unwrap_or(0) as usize
}

fn survives_by_trying(held: &[HeldFragment], profile: Profile, map: &ClusterMap) -> Option<Domain> {
    Domain::ALL.into_iter().rev().find(|domain| {
        map.disks.keys().all(|lost| {
            let is_left = |disk| {
                map.domain_of(disk, *domain)
                    .is_some_and(|key| Some(key) != map.domain_of(*lost, *domain))
            };
            left_by_trying(held, profile, &is_left) >= usize::from(profile.k)
        })
    })
}

#[test]
fn survives_agrees_with_trying_every_loss_on_20000_random_maps() {
    let mut dice = Dice::new(1);
    let mut found = BTreeMap::new();
    for _ in 0..20_000 {
        let map = testmap::random(&mut dice, 9);
        let profile = ProfileId::ALL[dice.below(5) as usize].profile();
        let disks = map.disks.len() as u64 + 1;
        let mut held: Vec<HeldFragment> = (0..profile.fragments() as u8)
            .filter_map(|index| {
                let disk = if dice.below(3) == 0 {
                    1 + dice.below(disks)
                } else {
                    1 + u64::from(index) % (disks - 1)
                };
                (dice.below(8) > 0).then_some(HeldFragment {
                    index,
                    disk: DiskId(disk as u32),
                })
            })
            .collect();
        let expected = survives_by_trying(&held, profile, &map);
        assert_eq!(survives(&held, profile, &map), expected, "{held:?} {map:?}");
        *found.entry(expected).or_insert(0) += 1;
        // With an index on a second disk the answer may promise less than there is, never more.
        held.truncate(8);
        held.push(HeldFragment {
            index: dice.below(3) as u8,
            disk: DiskId(1 + dice.below(disks) as u32),
        });
        assert!(
            survives(&held, profile, &map) <= survives_by_trying(&held, profile, &map),
            "{held:?} {map:?}"
        );
    }
    assert_eq!(found.len(), 5, "every answer occurs: {found:?}");
}
