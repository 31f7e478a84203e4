//! The planner: invariants on many random maps, a naive twin on tiny ones, fewest moves, and size.

use super::{LayoutPlan, PlanError, is_acknowledged, old_disks, pg_bits_for, plan, plan_with_bits};
use crate::ack::{HeldFragment, cut_domains, survives};
use crate::margins;
use crate::testmap::{Dice, add_disk, add_node, grid, random};
use model::cluster::{ClusterMap, Membership};
use model::id::{DiskId, NodeId};
use model::layout::{LayoutTable, PG_BITS_MAX, PG_BITS_MIN, Row};
use model::profile::{Domain, ProfileId};
use std::collections::{BTreeMap, BTreeSet};

fn counts(table: &LayoutTable) -> BTreeMap<DiskId, usize> {
    let mut counts = BTreeMap::new();
    table
        .rows
        .iter()
        .flat_map(|row| &row.disks)
        .for_each(|disk| *counts.entry(*disk).or_default() += 1);
    counts
}

fn filled(mut table: LayoutTable) -> LayoutTable {
    table.rows.iter_mut().for_each(|row| row.filling_from.clear());
    table
}

/// Most fragments of a row in one domain of a kind.
fn most_in(row: &Row, domain: Domain, map: &ClusterMap) -> usize {
    let mut counts = BTreeMap::new();
    row.disks
        .iter()
        .filter_map(|disk| map.domain_of(*disk, domain))
        .for_each(|key| *counts.entry(key).or_insert(0) += 1);
    counts.into_values().max().unwrap_or(0)
}

/// What holds of any row once nothing waits: distinct active disks, the loss of `reach` survived.
fn check_row(row: &Row, id: ProfileId, map: &ClusterMap, reach: Domain) {
    let profile = id.profile();
    assert_eq!(row.disks.iter().collect::<BTreeSet<_>>().len(), profile.fragments());
    assert!(row.disks.iter().all(|disk| map.is_active(*disk)), "{row:?}");
    let held: Vec<_> = row
        .disks
        .iter()
        .enumerate()
        .map(|(index, disk)| HeldFragment {
            index: index as u8,
            disk: *disk,
        })
        .collect();
    assert!(
        survives(&held, profile, map) >= Some(reach),
        "{row:?} does not survive a {reach}: {map:?}"
    );
}

/// What holds of any step from one table to the next.
fn check_step(before: &LayoutTable, plan: &LayoutPlan, id: ProfileId) {
    let profile = id.profile();
    let mut changed = Vec::new();
    for (pg, (old, new)) in before.rows.iter().zip(&plan.table.rows).enumerate() {
        assert_eq!(
            new.disks.iter().collect::<BTreeSet<_>>().len(),
            profile.fragments(),
            "a disk twice in {new:?}"
        );
        if old == new {
            continue;
        }
        changed.push(pg as u32);
        assert_eq!(new.version.0, old.version.0 + 1);
        assert!(
            new.filling_from.len() <= usize::from(profile.m),
            "{new:?} changes too much at once"
        );
        assert_eq!(old_disks(new), old_disks(old), "where readers look second is lost");
        let leaving: BTreeSet<_> = new.filling_from.values().collect();
        assert!(
            new.disks.iter().all(|disk| !leaving.contains(disk)),
            "a disk twice in old and new {new:?}"
        );
    }
    assert_eq!(changed, plan.changed);
}

/// Plans, fills and plans again until nothing waits; the moves that it took.
fn settle(map: &ClusterMap, table: LayoutTable, id: ProfileId) -> (LayoutTable, usize) {
    let (mut table, mut moves) = (table, 0);
    for _ in 0..12 {
        let next = plan_with_bits(map, Some(&table), id, table.pg_bits).unwrap();
        check_step(&table, &next, id);
        moves += next.moves;
        table = filled(next.table);
        if !next.is_waiting {
            return (table, moves);
        }
    }
    panic!("{id} does not settle on {map:?}");
}

/// The shares that weight and margins give, and how far off a disk is at worst, in units of its tolerance.
fn worst_balance(map: &ClusterMap, table: &LayoutTable, id: ProfileId) -> f64 {
    let profile = id.profile();
    let disks = super::DiskTable::of(map);
    let margins = super::Margins::of(&disks, profile, cut_domains(profile, map).0).unwrap();
    let quota = super::quota::share_out(&disks, &margins, table.rows.len(), profile.fragments());
    let counts = counts(table);
    let off = |at: usize| {
        let (ideal, count) = (
            quota.ideal[at],
            counts.get(&disks.disks[at].id).copied().unwrap_or(0) as f64,
        );
        (count - ideal).abs() / (ideal * 0.02).max(1.0)
    };
    (0..disks.disks.len()).map(off).fold(0.0, f64::max)
}

fn change(map: &mut ClusterMap, dice: &mut Dice) {
    let disk = 1 + dice.below(map.disks.len() as u64) as u32;
    match dice.below(6) {
        0 => map.disks.get_mut(&DiskId(disk)).unwrap().membership = Membership::Out,
        1 => map.disks.get_mut(&DiskId(disk)).unwrap().membership = Membership::Draining,
        2 => {
            let node = map.disks[&DiskId(disk)].node;
            map.nodes.get_mut(&node).unwrap().membership = Membership::Out;
        }
        3 => map.disks.get_mut(&DiskId(disk)).unwrap().weight_bytes *= 2,
        _ => {
            let (node, region) = (map.nodes.len() as u32 + 1, dice.below(4));
            add_node(map, node, &format!("region-{region}"), "zone-0");
            add_disk(map, map.disks.len() as u32 + 1, node, (1 + dice.below(8)) << 40);
        }
    }
}

/// One random map of at most 12 disks and 16 placement groups: a first table, a change of the map, the tables after it.
///
/// Answers whether the changed cluster was planned, and whether its balance is as good as promised.
fn check_random_map(seed: u64) -> (bool, bool) {
    let mut dice = Dice::new(seed);
    let mut map = random(&mut dice, 12);
    let fitting: Vec<_> = ProfileId::ALL
        .into_iter()
        .filter(|id| margins::can_hold(id.profile(), &map))
        .collect();
    let id = *fitting
        .get(dice.below(fitting.len().max(1) as u64) as usize)
        .unwrap_or(&ProfileId::Dev);
    let bits = dice.below(5) as u8;
    let first = match plan_with_bits(&map, None, id, bits) {
        Ok(plan) => plan,
        Err(error) => {
            assert!(!margins::can_hold(id.profile(), &map), "{error}");
            return (false, true);
        }
    };
    first
        .table
        .rows
        .iter()
        .for_each(|row| check_row(row, id, &map, first.reach));
    assert!(worst_balance(&map, &first.table, id) <= 1.0, "{map:?}");
    let again = plan_with_bits(&map, Some(&first.table), id, bits).unwrap();
    assert!(
        again.changed.is_empty() && !again.is_waiting,
        "a settled table is left alone: {map:?}"
    );
    (0..1 + dice.below(3)).for_each(|_| change(&mut map, &mut dice));
    if !margins::can_hold(id.profile(), &map) {
        return (false, true);
    }
    let (table, _) = settle(&map, first.table, id);
    let reach = margins::reach(id.profile(), &map).unwrap();
    table.rows.iter().for_each(|row| check_row(row, id, &map, reach));
    (true, worst_balance(&map, &table, id) <= 1.0001)
}

/// Rows reach the target after every step: any region loss leaves k where the map permits.
///
/// shows: B-2 scale=100000/1000000
/// shows: DEP-3
#[test]
fn margins_hold_on_100000_random_maps_and_after_their_changes() {
    let (mut planned, mut unbalanced) = (0, Vec::new());
    for seed in 0..100_000 {
        let (is_planned, is_balanced) = check_random_map(seed);
        planned += usize::from(is_planned);
        if !is_balanced {
            unbalanced.push(seed);
        }
    }
    assert!(planned > 50_000, "{planned}");
    assert!(
        unbalanced.is_empty(),
        "{} of {planned} out of balance: {:?}",
        unbalanced.len(),
        &unbalanced[..9.min(unbalanced.len())]
    );
}

#[test]
fn two_hundred_larger_tables_keep_margins_and_balance_through_changes() {
    for seed in 0..200 {
        let mut dice = Dice::new(1_000_000 + seed);
        let mut map = grid(
            1 + dice.below(4) as u32,
            3 + dice.below(4) as u32,
            1 + dice.below(3) as u32,
        );
        let bits = 8 + dice.below(5) as u8;
        let fitting: Vec<_> = ProfileId::ALL
            .into_iter()
            .filter(|id| margins::can_hold(id.profile(), &map))
            .collect();
        let id = fitting[dice.below(fitting.len() as u64) as usize];
        let mut table = plan_with_bits(&map, None, id, bits).unwrap().table;
        for _ in 0..2 {
            change(&mut map, &mut dice);
            if margins::can_hold(id.profile(), &map) {
                table = settle(&map, table, id).0;
                let reach = margins::reach(id.profile(), &map).unwrap();
                table.rows.iter().for_each(|row| check_row(row, id, &map, reach));
                assert!(
                    worst_balance(&map, &table, id) <= 1.0001,
                    "seed {seed}: {id} {bits} bits"
                );
            }
        }
    }
}

/// The least fullness of the fullest disk, over all ways to fill `rows` rows with sets of disks that keep the margins.
///
/// Of the sets that survive `reach` only those count that have the fewest fragments in a region (when a region is survived) and
/// then on a node: margins come before balance.
fn best_fullness_by_trying(map: &ClusterMap, id: ProfileId, reach: Domain, rows: usize) -> f64 {
    let profile = id.profile();
    let disks: Vec<DiskId> = map.disks.keys().copied().collect();
    let row_of = |set: &Vec<usize>| Row {
        version: Default::default(),
        disks: set.iter().map(|at| disks[*at]).collect(),
        filling_from: BTreeMap::new(),
    };
    let crowding = |set: &Vec<usize>| {
        let row = row_of(set);
        let in_region = if reach == Domain::Region {
            most_in(&row, Domain::Region, map)
        } else {
            0
        };
        (in_region, most_in(&row, Domain::Node, map))
    };
    let mut sets: Vec<Vec<usize>> = (0_u32..1 << disks.len())
        .map(|set| (0..disks.len()).filter(|at| set >> at & 1 == 1).collect::<Vec<_>>())
        .filter(|set| set.len() == profile.fragments())
        .filter(|set| {
            let held = |(index, at): (usize, &usize)| HeldFragment {
                index: index as u8,
                disk: disks[*at],
            };
            let held: Vec<_> = set.iter().enumerate().map(held).collect();
            survives(&held, profile, map) >= Some(reach)
        })
        .collect();
    let least = sets.iter().map(crowding).min().unwrap();
    sets.retain(|set| crowding(set) <= least);
    let mut reached = BTreeSet::from([vec![0_usize; disks.len()]]);
    for _ in 0..rows {
        let add = |counts: &Vec<usize>, set: &Vec<usize>| {
            let mut counts = counts.clone();
            set.iter().for_each(|at| counts[*at] += 1);
            counts
        };
        reached = reached
            .iter()
            .flat_map(|counts| sets.iter().map(move |set| add(counts, set)))
            .collect();
    }
    let fullness = |counts: &Vec<usize>| {
        let of = |at: usize| counts[at] as f64 / map.disks[&disks[at]].weight_bytes as f64;
        (0..disks.len()).map(of).fold(0.0, f64::max)
    };
    reached.iter().map(fullness).fold(f64::INFINITY, f64::min)
}

/// The naive twin tries every table of at most 6 disks and 4 rows.
#[test]
fn no_table_of_a_tiny_map_is_better_balanced_by_more_than_one_place() {
    let mut compared = 0;
    for seed in 0..10_000 {
        let mut dice = Dice::new(2_000_000 + seed);
        let map = random(&mut dice, 6);
        let bits = dice.below(3) as u8;
        for id in [ProfileId::Dev, ProfileId::Single, ProfileId::Solo, ProfileId::Copies] {
            let Ok(plan) = plan_with_bits(&map, None, id, bits) else {
                continue;
            };
            let best = best_fullness_by_trying(&map, id, plan.reach, 1 << bits);
            for (disk, count) in counts(&plan.table) {
                let weight = map.disks[&disk].weight_bytes as f64;
                let allowed = (best * weight * 1.02).max(best * weight + 1.0);
                assert!(
                    count as f64 <= allowed + 1e-9,
                    "seed {seed} {id}: {disk} holds {count} of {allowed} {map:?}"
                );
            }
            compared += 1;
        }
    }
    assert!(compared > 10_000, "{compared}");
}

#[test]
fn a_lost_disk_costs_only_the_places_that_it_had() {
    for (map, id) in [
        (grid(3, 4, 3), ProfileId::Standard),
        (grid(3, 2, 2), ProfileId::Dev),
        (grid(1, 5, 2), ProfileId::Single),
        (grid(1, 1, 8), ProfileId::Solo),
    ] {
        let table = plan_with_bits(&map, None, id, 9).unwrap().table;
        let mut smaller = map.clone();
        smaller.disks.get_mut(&DiskId(2)).unwrap().membership = Membership::Out;
        let (settled, moves) = settle(&smaller, table.clone(), id);
        assert_eq!(moves, counts(&table)[&DiskId(2)], "{id}");
        assert!(worst_balance(&smaller, &settled, id) <= 1.0001);
    }
}

#[test]
fn a_new_disk_takes_its_share_and_nothing_else_moves() {
    for (map, id) in [
        (grid(3, 4, 3), ProfileId::Standard),
        (grid(1, 6, 2), ProfileId::Single),
        (grid(1, 1, 8), ProfileId::Solo),
    ] {
        let table = plan_with_bits(&map, None, id, 9).unwrap().table;
        let mut larger = map.clone();
        let node = NodeId(1);
        let new = map.disks.len() as u32 + 1;
        add_disk(&mut larger, new, node.0, 1 << 40);
        let (settled, moves) = settle(&larger, table, id);
        assert_eq!(moves, counts(&settled)[&DiskId(new)], "{id}");
        assert!(worst_balance(&larger, &settled, id) <= 1.0001);
    }
}

#[test]
fn a_third_region_is_filled_in_steps_of_at_most_m_and_then_survived() {
    let id = ProfileId::Standard;
    let mut map = grid(2, 6, 2);
    let first = plan(&map, None, id).unwrap();
    assert_eq!(first.reach, Domain::Node);
    for node in 0..6 {
        add_node(&mut map, 100 + node, "region-2", "zone");
        add_disk(&mut map, 200 + node, 100 + node, 1 << 41);
    }
    let (table, _) = settle(&map, first.table, id);
    for row in &table.rows {
        assert_eq!(
            (most_in(row, Domain::Region, &map), most_in(row, Domain::Node, &map)),
            (3, 1)
        );
    }
}

#[test]
fn while_a_row_is_being_filled_only_lost_disks_are_replaced() {
    let id = ProfileId::Standard;
    let mut map = grid(3, 5, 2);
    let first = plan(&map, None, id).unwrap().table;
    map.disks.get_mut(&DiskId(1)).unwrap().membership = Membership::Draining;
    let second = plan(&map, Some(&first), id).unwrap();
    assert!(!second.is_waiting && second.moves > 0);
    let pg = second.changed[0] as usize;
    let row = &second.table.rows[pg];
    let (index, _) = row.filling_from.first_key_value().unwrap();
    let (new, other) = (row.disks[usize::from(*index)], row.disks[(usize::from(*index) + 1) % 9]);
    // A disk that drains waits for the fill; one that is lost among the new does not.
    map.disks.get_mut(&other).unwrap().membership = Membership::Draining;
    let third = plan(&map, Some(&second.table), id).unwrap();
    check_step(&second.table, &third, id);
    assert!(third.is_waiting);
    assert_eq!(third.table.rows[pg], *row);
    map.disks.get_mut(&new).unwrap().membership = Membership::Out;
    let fourth = plan(&map, Some(&third.table), id).unwrap();
    check_step(&third.table, &fourth, id);
    let replaced = &fourth.table.rows[pg];
    assert_ne!(replaced.disks[usize::from(*index)], new);
    assert_eq!(
        (replaced.filling_from.get(index), replaced.filling_from.len()),
        (Some(&DiskId(1)), 1)
    );
    assert!(replaced.disks.contains(&other) && !replaced.disks.contains(&DiskId(1)));
}

#[test]
fn a_fill_is_acknowledged_by_old_and_new_disks_unless_they_are_declared_out() {
    let mut map = grid(1, 4, 1);
    let row = Row {
        version: model::id::RowVersion(2),
        disks: vec![DiskId(4), DiskId(2), DiskId(3)],
        filling_from: BTreeMap::from([(0, DiskId(1))]),
    };
    let mut acknowledged = BTreeSet::from([DiskId(2), DiskId(3), DiskId(4)]);
    assert!(!is_acknowledged(&row, &acknowledged, &map));
    map.nodes.get_mut(&NodeId(1)).unwrap().membership = Membership::Out;
    assert!(is_acknowledged(&row, &acknowledged, &map));
    acknowledged.remove(&DiskId(4));
    assert!(!is_acknowledged(&row, &acknowledged, &map));
    assert_eq!(old_disks(&row), [DiskId(1), DiskId(2), DiskId(3)]);
}

#[test]
fn a_grown_cluster_first_splits_its_placement_groups_in_place() {
    let id = ProfileId::Single;
    let first = plan(&grid(1, 4, 1), None, id).unwrap().table;
    let larger = grid(1, 10, 4);
    let split = plan(&larger, Some(&first), id).unwrap();
    assert_eq!(
        (first.pg_bits, split.table.pg_bits, split.moves, split.is_waiting),
        (8, 10, 0, true)
    );
    for (pg, row) in split.table.rows.iter().enumerate() {
        let parent = &first.rows[pg >> 2];
        assert_eq!((&row.disks, row.version.0), (&parent.disks, parent.version.0 + 1));
    }
    let (table, _) = settle(&larger, split.table, id);
    assert!(worst_balance(&larger, &table, id) <= 1.0001);
    assert_eq!(plan(&grid(1, 4, 1), Some(&first), id).unwrap().changed, []);
}

#[test]
fn a_profile_that_does_not_fit_is_refused_with_those_that_do() {
    let error = plan(&grid(3, 2, 1), None, ProfileId::Standard).unwrap_err();
    let fitting = vec![ProfileId::Dev, ProfileId::Single, ProfileId::Solo, ProfileId::Copies];
    assert_eq!(
        error,
        PlanError::Unplaceable {
            profile: ProfileId::Standard,
            needed: 9,
            found: 6,
            fitting
        }
    );
    assert_eq!(
        error.to_string(),
        "place standard: 9 fragments needed, room for 6; fitting: dev single solo copies"
    );
    let mut table = plan(&grid(3, 2, 1), None, ProfileId::Dev).unwrap().table;
    table.rows[5].disks[0] = table.rows[5].disks[1];
    assert_eq!(
        plan(&grid(3, 2, 1), Some(&table), ProfileId::Dev),
        Err(PlanError::Malformed { pg: 5 })
    );
    let wrong = plan(&grid(3, 2, 1), Some(&table), ProfileId::Single);
    assert_eq!(wrong, Err(PlanError::Malformed { pg: 0 }));
}

#[test]
fn placement_groups_are_enough_for_fifty_places_a_disk_within_their_bounds() {
    let standard = ProfileId::Standard.profile();
    assert_eq!(pg_bits_for(9, standard), PG_BITS_MIN);
    assert_eq!(pg_bits_for(10_000, standard), 16);
    assert_eq!(pg_bits_for(1_000_000, standard), PG_BITS_MAX);
}

/// A lost disk's peers are many, so it is rebuilt from and to many.
#[test]
fn the_stripes_of_a_disk_have_many_peers() {
    let table = plan(&grid(3, 20, 4), None, ProfileId::Standard).unwrap().table;
    for disk in [1, 77, 240].map(DiskId) {
        let rows = table.rows.iter().filter(|row| row.disks.contains(&disk));
        let peers: BTreeSet<_> = rows.flat_map(|row| &row.disks).collect();
        assert!(peers.len() > 150, "{disk} has {} peers", peers.len());
    }
}

/// The table names each disk 50 to 100 times whatever the size, and a change travels as the rows that it changes.
///
/// shows: NF-scale-2
#[test]
fn ten_thousand_nodes_are_planned_and_one_more_or_less_changes_its_share_of_rows() {
    let id = ProfileId::Standard;
    let mut map = grid(4, 2_500, 1);
    let first = plan(&map, None, id).unwrap();
    let places = first.table.rows.len() * 9;
    assert!((50 * 10_000..=100 * 10_000).contains(&places), "{places}");
    first
        .table
        .rows
        .iter()
        .for_each(|row| check_row(row, id, &map, Domain::Region));
    assert!(worst_balance(&map, &first.table, id) <= 1.0);
    map.nodes.get_mut(&NodeId(17)).unwrap().membership = Membership::Out;
    let lost = plan(&map, Some(&first.table), id).unwrap();
    check_step(&first.table, &lost, id);
    assert!((40..=70).contains(&lost.moves), "{}", lost.moves);
    add_node(&mut map, 10_001, "region-0", "zone");
    add_disk(&mut map, 10_001, 10_001, 1 << 40);
    let grown = plan(&map, Some(&filled(lost.table.clone())), id).unwrap();
    assert!((40..=70).contains(&grown.moves), "{}", grown.moves);
    assert!(worst_balance(&map, &grown.table, id) <= 1.0001);
}
