//! Judges a world that has ended: asks the oracles of its sort, and puts the report together.
//!
//! Not here: what must hold (`oracle`).

use crate::oracle::{collection, durability, entries, names};
use crate::world::processes::Ground;
use crate::world::report::{Collected, Report};
use crate::world::turnover::VERSIONS_MAX;
use crate::world::{Left, Orders, Records, workload};
use std::time::Duration;

/// What the users' side shows.
#[derive(Default)]
struct Judged {
    operations: usize,
    unknown: usize,
    concurrency: usize,
    acknowledged: usize,
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
            operations: records.answered(),
            ..Judged::default()
        },
    };
    judged.violations.extend(ground.raft.violations());
    let asked = orders.operations.unwrap_or(0);
    if judged.operations < asked {
        judged.violations.push(format!(
            "{} operations were answered in all the time, {asked} were asked for",
            judged.operations
        ));
    }
    let (trace_hash, counts) = ground.trace.read();
    let (terms, compared) = ground.raft.seen();
    Report {
        seed: orders.seed,
        kind: orders.kind.as_str().to_owned(),
        plant: orders.plant.map(|plant| plant.as_str().to_owned()),
        trace_hash,
        counts,
        operations: judged.operations,
        unknown: judged.unknown,
        concurrency: judged.concurrency,
        acknowledged: judged.acknowledged,
        terms,
        states_compared: compared,
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
        operations: done.len(),
        unknown: done.iter().filter(|event| event.returned.is_none()).count(),
        concurrency: records.history.concurrency(),
        acknowledged: acknowledged.len(),
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
        operations: done.answered,
        unknown: done.unknown,
        concurrency: done.concurrency,
        acknowledged: promised.values().map(|file| file.versions.len()).sum(),
        violations,
        collected,
    }
}
