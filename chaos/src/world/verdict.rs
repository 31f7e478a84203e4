//! Judges a world that has ended: asks the oracles of its sort, and puts the report together.
//!
//! Not here: what must hold (`oracle`).

use crate::oracle::{collection, durability, entries, names};
use crate::world::processes::Ground;
use crate::world::proof::{Extent, unwatched};
use crate::world::report::{Collected, Report};
use crate::world::turnover::VERSIONS_MAX;
use crate::world::wear::Worn;
use crate::world::{Left, Orders, Records, workload};
use gateway::metrics;
use std::time::Duration;

/// What the users' side shows.
#[derive(Default)]
struct Judged {
    extent: Extent,
    violations: Vec<String>,
    collected: Option<Collected>,
}

/// The report of a world; `left` is nothing when it ended before its users did.
pub(super) fn report(
    orders: &Orders,
    ground: &Ground,
    records: &Records,
    left: Option<Left>,
    simulated: Duration,
) -> Report {
    let mut judged = match left {
        Some(Left::Names(found)) => of_names(records, found),
        Some(Left::Collection(found)) => of_collection(records, found),
        None => Judged {
            violations: vec!["the world ended before its users did".to_owned()],
            extent: Extent {
                operations: records.answered(),
                ..Extent::default()
            },
            ..Judged::default()
        },
    };
    judged.violations.extend(ground.raft.violations());
    let (trace_hash, counts) = ground.trace.read();
    let (extent, seen) = (judged.extent, ground.raft.seen());
    let unwatched = unwatched(&seen, counts.faults, orders.is_calm);
    judged.violations.extend(extent.lacks(orders.kind, orders.operations));
    judged.violations.extend(unwatched);
    let corrupt_reads = ground.counted.counter(&metrics::CORRUPT_READS);
    let worn = Worn {
        corrupt_reads: corrupt_reads.with_label_values::<&str>(&[]).get(),
        ..*ground.worn()
    };
    Report {
        seed: orders.seed,
        kind: orders.kind.as_str().to_owned(),
        plant: orders.plant.map(|plant| plant.as_str().to_owned()),
        trace_hash,
        counts,
        worn,
        operations: extent.operations,
        unknown: extent.unknown,
        concurrency: extent.concurrency,
        overlapping: extent.overlapping,
        acknowledged: extent.acknowledged,
        terms: seen.terms,
        states_compared: seen.states_compared,
        entries_compared: seen.entries_compared,
        log_ends: seen.ends,
        simulated_ms: u64::try_from(simulated.as_millis()).unwrap_or(u64::MAX),
        collected: judged.collected,
        violations: judged.violations,
    }
}

fn of_names(records: &Records, found: super::ReadBack) -> Judged {
    let (done, mut violations) = records.history.read();
    let acknowledged = durability::acknowledged(&done);
    match found {
        Ok(found) => violations.extend(durability::violations(&acknowledged, &found)),
        Err(why) => violations.push(why),
    }
    violations.extend(names::violations(&done, &workload::folders()));
    violations.extend(entries::violations(&done));
    Judged {
        extent: Extent {
            operations: done.len(),
            unknown: done.iter().filter(|event| event.returned.is_none()).count(),
            concurrency: records.history.concurrency(),
            overlapping: records.history.overlapping(),
            acknowledged: acknowledged.len(),
        },
        violations,
        collected: None,
    }
}

fn of_collection(records: &Records, found: Result<collection::Findings, String>) -> Judged {
    let (promised, mut violations) = records.ledger.read();
    let done = records.ledger.done();
    let mut collected = None;
    match found {
        Ok(findings) => {
            violations.extend(collection::violations(&promised, &findings, VERSIONS_MAX));
            collected = Some(Collected {
                files: findings.files.len(),
                stripes_removed: findings.census.stripes_removed,
                orphans_removed: findings.census.orphans_removed,
                stripes_repacked: findings.census.stripes_repacked,
                living_bytes: findings.census.living_bytes,
                leaked_bytes: findings.census.leaked_bytes,
            });
        }
        Err(why) => violations.push(why),
    }
    Judged {
        extent: Extent {
            operations: done.returned,
            unknown: done.unknown,
            concurrency: done.concurrency,
            overlapping: done.overlapping,
            acknowledged: promised.values().map(|file| file.versions.len()).sum(),
        },
        violations,
        collected,
    }
}
