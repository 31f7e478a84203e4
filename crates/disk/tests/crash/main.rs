//! The crash suite of the journal: scripts on the simulated disk, cut after every I/O, against a list.
//!
//! Place in the picture: level 2 of docs/testing.md. `script` makes the scripts, `model` is the list and its check.
//! Every failure names its script's seed; scripts are functions of their seeds alone.

#![allow(clippy::unwrap_used)] // Test code: a panic is the report.

mod model;
mod script;

use disk::judged::{Io, Verdict};
use disk::sim::{Faults, Survivors};
use disk::{Disk, JudgedDisk, SimDisk, TailPolicy};
use model::{Model, check, options};
use script::{Rng, Script, run};
use std::sync::Arc;

const SCRIPTS: u64 = 200;
const CAPACITY_BYTES: u64 = 64 << 20;
/// Subsets at a cut with more than 8 unsynced changes.
const RANDOM_SUBSETS: u64 = 256;

fn policy(seed: u64) -> TailPolicy {
    if seed.is_multiple_of(2) {
        TailPolicy::KeepValid
    } else {
        TailPolicy::StopAtFirstBad
    }
}

fn shared(disk: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

fn survivors(disk: &SimDisk, rng: &mut Rng) -> Vec<Survivors> {
    let count = disk.unsynced().count();
    if count <= 8 {
        return (0..1_u64 << count).map(Survivors::Mask).collect();
    }
    let random = (2..RANDOM_SUBSETS).map(|_| Survivors::Seed(rng.next()));
    [Survivors::None, Survivors::All].into_iter().chain(random).collect()
}

/// Runs a script to its end and counts its I/Os; the run is checked too.
fn count_ios(script: &Script) -> u64 {
    let disk = SimDisk::new(CAPACITY_BYTES);
    let mut model = Model::default();
    run(script, &shared(&disk), &mut model).unwrap();
    assert_eq!(
        disk.overwritten_bytes(),
        0,
        "seed {}: nothing is written twice",
        script.seed
    );
    disk.io_count()
}

/// The cut after I/O number `cut`, every subset; answers the first broken property.
fn check_cut(script: &Script, cut: u64, wrap: &dyn Fn(SimDisk) -> Arc<dyn Disk>) -> Result<u64, String> {
    let disk = SimDisk::new(CAPACITY_BYTES);
    disk.set_faults(Faults {
        cut_after_io: Some(cut),
        ..Faults::default()
    });
    let mut model = Model::default();
    let _ = run(script, &wrap(disk.clone()), &mut model);
    let mut rng = Rng::new(script.seed ^ (cut << 32));
    let mut checked = 0;
    for survivors in survivors(&disk, &mut rng) {
        let after = disk.crash(survivors);
        check(&shared(&after), script.policy, &model)
            .map_err(|broken| format!("seed {} cut {cut} {survivors:?}: {broken}", script.seed))?;
        checked += 1;
    }
    Ok(checked)
}

/// shows: F12
/// shows: F15 scale=1/2
/// shows: F17
#[test]
fn what_was_acknowledged_is_there_after_any_cut() {
    let mut cuts = 0;
    let mut checked = 0;
    for seed in 0..SCRIPTS {
        let script = Script::new(seed, policy(seed));
        for cut in 0..=count_ios(&script) {
            checked += check_cut(&script, cut, &|disk| Arc::new(disk)).unwrap_or_else(|broken| panic!("{broken}"));
            cuts += 1;
        }
    }
    println!("{SCRIPTS} scripts, {cuts} cuts, {checked} subsets");
    assert!(cuts > SCRIPTS * 30 && checked > cuts);
}

#[test]
fn a_clean_stop_makes_everything_durable() {
    for seed in 0..SCRIPTS {
        let script = Script::new(seed, policy(seed));
        let disk = SimDisk::new(CAPACITY_BYTES);
        let mut model = Model::default();
        run(&script, &shared(&disk), &mut model).unwrap();
        assert_eq!(
            disk.unsynced().count(),
            0,
            "seed {seed}: nothing waits for a sync after a stop"
        );
        check(&shared(&disk.crash(Survivors::None)), script.policy, &model).unwrap();
    }
}

/// Recovery is cut after each of its own I/Os, recovered, cut again, and so on.
///
/// shows: F13
#[test]
fn recovery_that_is_cut_off_again_and_again_keeps_the_same() {
    let mut cuts = 0;
    for seed in 0..SCRIPTS {
        let script = Script::new(seed, policy(seed));
        let mut rng = Rng::new(seed);
        for cut in (0..=count_ios(&script)).filter(|cut| cut % 5 == seed % 5) {
            let disk = SimDisk::new(CAPACITY_BYTES);
            disk.set_faults(Faults {
                cut_after_io: Some(cut),
                ..Faults::default()
            });
            let mut model = Model::default();
            let _ = run(&script, &shared(&disk), &mut model);
            let mut before = disk.crash(Survivors::Seed(rng.next()));
            for inner in 0..12 {
                before.set_faults(Faults {
                    cut_after_io: Some(before.io_count() + inner),
                    ..Faults::default()
                });
                let opened = disk::Journal::open(shared(&before), "j", options(script.policy));
                let is_through = opened.is_ok();
                drop(opened);
                before = before.crash(Survivors::Seed(rng.next()));
                check(&shared(&before.crash(Survivors::All)), script.policy, &model)
                    .unwrap_or_else(|broken| panic!("seed {seed} cut {cut} inner {inner}: {broken}"));
                cuts += 1;
                if is_through {
                    break;
                }
            }
        }
    }
    println!("{cuts} recoveries were cut");
    assert!(cuts > 1000);
}

/// shows: F23
#[test]
fn after_a_failed_sync_nothing_is_acknowledged_and_nothing_acknowledged_is_lost() {
    for seed in 0..SCRIPTS {
        let script = Script::new(seed, policy(seed));
        let disk = SimDisk::new(CAPACITY_BYTES);
        run(&script, &shared(&disk), &mut Model::default()).unwrap();
        for failing in 0..disk.sync_count() {
            let disk = SimDisk::new(CAPACITY_BYTES);
            disk.set_faults(Faults {
                failing_sync: Some(failing),
                ..Faults::default()
            });
            let mut model = Model::default();
            run(&script, &shared(&disk), &mut model).unwrap_err();
            let cut = [
                disk.crash(Survivors::None),
                disk.crash(Survivors::All),
                disk.crash(Survivors::Seed(seed)),
            ];
            for after in cut {
                check(&shared(&after), script.policy, &model)
                    .unwrap_or_else(|broken| panic!("seed {seed} sync {failing}: {broken}"));
            }
            // Killed and started again: the cache still shows what was never written. Then the power goes as well.
            drop(disk::Journal::open(shared(&disk), "j", options(script.policy)).unwrap());
            let cut = disk.crash(Survivors::None);
            check(&shared(&cut), script.policy, &model)
                .unwrap_or_else(|broken| panic!("seed {seed} sync {failing} kill: {broken}"));
        }
    }
}

#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    let mut refused = 0;
    for seed in 0..SCRIPTS {
        let script = Script::new(seed, policy(seed));
        for capacity in [90_000, 110_000, 140_000, 180_000] {
            let disk = SimDisk::new(capacity);
            let mut model = Model::default();
            let _ = run(&script, &shared(&disk), &mut model);
            refused += model.refused;
            assert_eq!(
                disk.overwritten_bytes(),
                0,
                "seed {seed}: a full disk is no reason to write twice"
            );
            disk.set_capacity_bytes(CAPACITY_BYTES);
            for survivors in [Survivors::None, Survivors::All, Survivors::Seed(seed)] {
                check(&shared(&disk.crash(survivors)), script.policy, &model)
                    .unwrap_or_else(|broken| panic!("seed {seed} capacity {capacity}: {broken}"));
            }
        }
    }
    println!("{refused} appends were refused");
    assert!(refused > 100);
}

/// shows: F14
#[test]
fn a_short_read_is_an_error_and_never_an_end() {
    for seed in 0..SCRIPTS {
        let script = Script::new(seed, policy(seed));
        let disk = SimDisk::new(CAPACITY_BYTES);
        let mut model = Model::default();
        run(&script, &shared(&disk), &mut model).unwrap();
        for read in 0..6 {
            let after = disk.crash(Survivors::None);
            after.set_faults(Faults {
                short_read: Some(read),
                ..Faults::default()
            });
            let _ = disk::Journal::open(shared(&after), "j", options(script.policy));
            after.set_faults(Faults::default());
            check(&shared(&after), script.policy, &model)
                .unwrap_or_else(|broken| panic!("seed {seed} read {read}: {broken}"));
        }
    }
}

/// shows: F8 scale=1/3
#[test]
fn a_flipped_bit_is_reported_or_harmless() {
    let mut reported = 0;
    for seed in 0..SCRIPTS {
        let script = Script::new(seed, policy(seed));
        let disk = SimDisk::new(CAPACITY_BYTES);
        let mut model = Model::default();
        run(&script, &shared(&disk), &mut model).unwrap();
        let mut rng = Rng::new(seed);
        for _ in 0..40 {
            let after = disk.crash(Survivors::None);
            let names: Vec<String> = ["j", "j/limbo"]
                .iter()
                .flat_map(|dir| {
                    after
                        .list(dir)
                        .unwrap()
                        .into_iter()
                        .map(move |name| format!("{dir}/{name}"))
                })
                .collect();
            let name = &names[rng.below(names.len())];
            let len_bytes = usize::try_from(after.open(name).unwrap().len_bytes().unwrap()).unwrap();
            after
                .flip_bit(name, rng.below(len_bytes) as u64, (rng.next() % 8) as u8)
                .unwrap();
            let is_reported = model::check_damaged(&shared(&after), script.policy, &model)
                .unwrap_or_else(|broken| panic!("seed {seed} {name}: {broken}"));
            reported += u64::from(is_reported);
        }
    }
    println!("{reported} flips were reported");
    assert!(reported > 1000);
}

/// A disk that answers before it has synced: the planted bug.
fn lying(disk: SimDisk) -> Arc<dyn Disk> {
    let judge = Arc::new(|io: Io<'_>| match io {
        Io::Sync(_) => Verdict::Pretend,
        _ => Verdict::Pass,
    });
    Arc::new(JudgedDisk::new(Arc::new(disk), judge))
}

/// shows: F12
#[test]
fn the_suite_catches_a_disk_that_answers_before_it_synced() {
    let script = Script::new(1, policy(1));
    let caught = (0..=count_ios(&script))
        .filter(|cut| check_cut(&script, *cut, &lying).is_err())
        .count();
    println!("the lie was caught at {caught} cuts");
    assert!(caught > 0);
}
