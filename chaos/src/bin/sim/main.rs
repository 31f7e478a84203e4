//! `make sim`: the simulated world, one seed or many. Parses and calls; see `chaos::world`.

mod entropy;

use anyhow::ensure;
use chaos::world::campaign::{Campaign, replay};
use chaos::world::plant::Plant;
use chaos::world::report::Report;
use chaos::world::{Orders, run};
use clap::Parser;
use std::path::PathBuf;

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
    /// Puts a bug into every world.
    #[arg(long)]
    plant: Option<Plant>,
    /// Leaves the cluster in peace.
    #[arg(long)]
    calm: bool,
    /// Lets each world last until its users were answered so often, instead of for 40 seconds of its time.
    #[arg(long)]
    operations: Option<usize>,
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

/// Run by `make histories` with twenty seeds of 2,000 operations each.
///
/// shows: C-3 scale=2000/10000
fn many(arguments: &Arguments) -> anyhow::Result<()> {
    let campaign = Campaign {
        binary: std::env::current_exe()?,
        seeds: (arguments.first..arguments.first + arguments.seeds).collect(),
        plant: arguments.plant,
        operations: arguments.operations,
    };
    println!("{}", Report::TITLES);
    let ended = campaign.run(|seed, report| match report {
        Ok(report) => println!("{}", report.line()),
        Err(error) => println!("{seed:>6} {error:#}"),
    });
    let is_whole = |report: &anyhow::Result<Report>| report.as_ref().is_ok_and(|report| report.violations.is_empty());
    let broken: Vec<u64> = ended
        .iter()
        .filter(|(_, report)| !is_whole(report))
        .map(|(seed, _)| *seed)
        .collect();
    for seed in &broken {
        println!("again: {}", replay(*seed, arguments.plant, arguments.operations));
    }
    ensure!(
        broken.is_empty(),
        "{} of {} seeds violate a promise",
        broken.len(),
        ended.len()
    );
    println!("{} seeds hold", ended.len());
    Ok(())
}
