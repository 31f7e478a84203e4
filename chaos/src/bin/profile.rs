//! `make profile`: where the CPU time of a PUT, a GET and of commits goes, as flame graphs. Exit code 3 where perf is missing.

use chaos::bench::profile::{self, PerfMissing};
use std::process::ExitCode;

const NO_PERF: u8 = 3;

#[tokio::main]
async fn main() -> ExitCode {
    match profile::run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(if error.is::<PerfMissing>() { NO_PERF } else { 1 })
        }
    }
}
