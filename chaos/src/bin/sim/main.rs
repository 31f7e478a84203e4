//! `make sim`: the simulated world, one seed or many. Parses and calls; see `chaos::world`.

mod entropy;
#[cfg(test)]
mod tests;

use anyhow::ensure;
use chaos::oracle::raft::LogEnds;
use chaos::world::campaign::{Campaign, replay};
use chaos::world::kind::Kind;
use chaos::world::plant::Plant;
use chaos::world::report::Report;
use chaos::world::{Orders, run};
use clap::Parser;
use std::path::PathBuf;

/// Seeds from which on a campaign must have come to the ends of logs.
const SEEDS_TO_END_LOGS: usize = 20;

#[derive(Parser)]
struct Arguments {
    /// Runs this seed alone, in this process.
    #[arg(long)]
    seed: Option<u64>,
    /// Runs so many seeds, each in a process of its own.
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// What happens beside faults: `names`, `collection` or `layout`.
    #[arg(long, default_value = "names")]
    kind: Kind,
    /// Puts a bug into every world.
    #[arg(long)]
    plant: Option<Plant>,
    /// Leaves the cluster in peace.
    #[arg(long)]
    calm: bool,
    /// Lets each world last until its users were answered so often, instead of for 40 seconds of its time.
    #[arg(long)]
    operations: Option<usize>,
    /// Fails when all worlds together made fewer steps: operations and acts of the nemesis.
    #[arg(long)]
    steps: Option<u64>,
    /// Writes every line of the trace of the one seed there.
    #[arg(long)]
    trace: Option<PathBuf>,
    /// Prints the report of the one seed as JSON.
    #[arg(long)]
    json: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    match arguments.seed {
        Some(seed) => one(seed, arguments),
        None => many(&arguments),
    }
}

fn one(seed: u64, arguments: Arguments) -> anyhow::Result<()> {
    entropy::seed(seed);
    chaos::world::report::start_log()?;
    let report = run(&Orders {
        seed,
        kind: arguments.kind,
        plant: arguments.plant,
        is_calm: arguments.calm,
        operations: arguments.operations,
        trace_file: arguments.trace,
    })?;
    if arguments.json {
        println!("{}", serde_json::to_string(&report)?);
        return Ok(());
    }
    println!("{}\n{}", Report::TITLES, report.line());
    for violation in &report.violations {
        println!("violated: {violation}");
    }
    ensure!(report.violations.is_empty(), "seed {seed} violates a promise");
    Ok(())
}

/// Run by `make chaos` with a hundred seeds of 10,000 operations each; `make test` runs twenty of 2,000. A world that ended with fewer,
/// or showed too little, says so as a violation.
///
/// shows: C-3 side=chaos scale=2000/10000
fn many(arguments: &Arguments) -> anyhow::Result<()> {
    let campaign = Campaign {
        binary: std::env::current_exe()?,
        seeds: (arguments.first..arguments.first + arguments.seeds).collect(),
        orders: Orders {
            kind: arguments.kind,
            plant: arguments.plant,
            operations: arguments.operations,
            ..Orders::default()
        },
    };
    println!("{}", Report::TITLES);
    let is_whole = |report: &anyhow::Result<Report>| report.as_ref().is_ok_and(|report| report.violations.is_empty());
    let ended = campaign.run(|seed, report| {
        match report {
            Ok(report) => println!("{}", report.line()),
            Err(error) => println!("{seed:>6} {error:#}"),
        }
        // At once as well, since a long campaign may be broken off.
        if !is_whole(report) {
            println!("again: {}", replay(&campaign.orders.of(seed)));
        }
    });
    let broken: Vec<u64> = ended
        .iter()
        .filter(|(_, report)| !is_whole(report))
        .map(|(seed, _)| *seed)
        .collect();
    for seed in &broken {
        println!("again: {}", replay(&campaign.orders.of(*seed)));
    }
    ensure!(
        broken.is_empty(),
        "{} of {} seeds violate a promise",
        broken.len(),
        ended.len()
    );
    let steps: u64 = ended.iter().flat_map(|(_, report)| report).map(Report::steps).sum();
    println!("{} seeds hold, {steps} steps", ended.len());
    let ends = ended
        .iter()
        .flat_map(|(_, report)| report)
        .map(|report| report.log_ends);
    require_ends(ends.sum(), ended.len())?;
    require_steps(arguments.steps, steps)
}

/// Says whether logs came to their ends in a campaign of so many worlds: of marks, purges and snapshots it says nothing otherwise.
fn require_ends(ends: LogEnds, seeds: usize) -> anyhow::Result<()> {
    for (what, count) in ends.named() {
        println!("{what}: {count}");
        ensure!(count > 0 || seeds < SEEDS_TO_END_LOGS, "no {what} in {seeds} worlds");
    }
    Ok(())
}

/// Says whether a campaign was as long as it was to be. Run by `make collection`: a million random steps in two hundred worlds
/// of collection, of which each must hold.
fn require_steps(asked: Option<u64>, made: u64) -> anyhow::Result<()> {
    let asked = asked.unwrap_or(0);
    ensure!(made >= asked, "{made} steps were made, {asked} were asked for");
    Ok(())
}
