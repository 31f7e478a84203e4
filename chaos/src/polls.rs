//! What polls cost while they wait: many thousands at one gateway, by HTTP/1.1 and as streams of HTTP/2, and how soon they are told.
//!
//! Each poll is asked anew when it was answered, as a client does, and the first time of each is drawn, so that from the start as many
//! end in a second as later. Memory and CPU are those of the gateway's process alone; the table and the plot are for docs/polls.md.
//! Invariant: a row counts only when the gateway itself says that so many polls wait, before and after it was watched.
//! Not here: that no wake-up is lost (`tests/cluster/followers.rs`).

mod crowd;
mod plot;
mod told;

use crate::dev_cluster::DevCluster;
use crate::{meter, proc, table};
use anyhow::{Context, ensure};
use clap::Parser;
use client_sdk::client::Client;
use crowd::{Crowd, Way};
use reqwest::Method;
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const PASSWORD: &str = "a waiting password";
/// Polls that share an account, well below what one may have.
const POLLS_OF_ACCOUNT: usize = 1_000;
/// Between the last opening and the first look.
const SETTLE: Duration = Duration::from_secs(5);
/// So long the gateway may take until it says that all of them wait.
const PATIENCE: Duration = Duration::from_secs(120);
/// What NF-scale-3 asks of a poll.
const POLL_BYTES_MAX: f64 = 12.0 * 1024.0;
/// And of all of them together.
const CORE_PERCENT_MAX: f64 = 5.0;

/// Arguments of the measurement.
#[derive(Debug, Parser)]
pub struct Arguments {
    /// The server binary.
    #[arg(long, default_value = "target/release/holdfast")]
    holdfast: PathBuf,
    /// Where the cluster keeps its data; wiped before, and after a success.
    #[arg(long, default_value = "target/polls")]
    data_dir: PathBuf,
    /// Numbers of polls by HTTP/1.1, each with a connection of its own.
    #[arg(long, value_delimiter = ',', default_value = "1000,5000,10000,15000")]
    http1: Vec<usize>,
    /// Numbers of polls as streams of HTTP/2.
    #[arg(long, value_delimiter = ',', default_value = "10000,50000,100000,200000")]
    http2: Vec<usize>,
    /// Seconds that a poll waits.
    #[arg(long, default_value_t = 480)]
    timeout: u64,
    /// Seconds for which each number is watched.
    #[arg(long, default_value_t = 60)]
    watch: u64,
    /// Where the plot goes.
    #[arg(long)]
    plot: Option<PathBuf>,
}

/// What one number of polls took.
#[derive(Clone, Copy, Debug)]
struct Row {
    way: Way,
    polls: usize,
    /// Resident memory of the gateway above what it was without polls, for each poll; below zero where it was less with them.
    poll_bytes: f64,
    /// CPU of the gateway, of one core.
    core_percent: f64,
    /// Answers in a second meanwhile.
    answers_per_s: f64,
}

/// Opens, watches, tells and draws.
pub async fn run() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut rows = Vec::new();
    for (way, numbers) in [(Way::Http1, &arguments.http1), (Way::Http2, &arguments.http2)] {
        if !numbers.is_empty() {
            rows.extend(
                in_cluster(&arguments, async |cluster| {
                    climb(cluster, way, numbers, &arguments).await
                })
                .await?,
            );
        }
    }
    let told = in_cluster(&arguments, told::measure).await?;
    println!("{}", render(&rows));
    println!("{told}");
    if let Some(path) = &arguments.plot {
        std::fs::write(path, plot::draw(&rows, arguments.timeout))
            .with_context(|| format!("write {}", path.display()))?;
    }
    // Both are judged, whatever one of them says.
    told.judge()?;
    judge(&rows)
}

/// Does `work` with a fresh cluster.
async fn in_cluster<T>(
    arguments: &Arguments,
    work: impl AsyncFnOnce(&DevCluster) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let options = ["--processes", "--disk-capacity", "4G"];
    DevCluster::with_fresh(&arguments.holdfast, &arguments.data_dir, &options, work).await
}

/// One number after the other, each on top of those before.
async fn climb(cluster: &DevCluster, way: Way, numbers: &[usize], arguments: &Arguments) -> anyhow::Result<Vec<Row>> {
    let pid = gateway_pid(cluster)?;
    let most = numbers.iter().copied().max().unwrap_or(0);
    let fresh_bytes = proc::resident_bytes(pid)?;
    let tokens = accounts(cluster, most.div_ceil(POLLS_OF_ACCOUNT)).await?;
    tokio::time::sleep(SETTLE).await;
    let before_bytes = proc::resident_bytes(pid)?;
    // What log-ins leave behind counts to the time before, so that too much of it would make polls look small.
    println!(
        "the gateway holds {} when it is fresh and {} when {} accounts have logged in",
        table::bytes(fresh_bytes),
        table::bytes(before_bytes),
        tokens.len()
    );
    let mut crowd = Crowd::new(&cluster.facts.url, tokens, way, arguments.timeout).await?;
    let mut rows = Vec::new();
    for &polls in numbers {
        crowd.grow(polls).await?;
        wait_for(cluster, polls).await?;
        tokio::time::sleep(SETTLE).await;
        let (cpu_s, answers, begun) = (proc::cpu_s(pid)?, crowd.answers(), Instant::now());
        tokio::time::sleep(Duration::from_secs(arguments.watch)).await;
        let watched_s = begun.elapsed().as_secs_f64();
        let row = Row {
            way,
            polls,
            poll_bytes: (proc::resident_bytes(pid)? as f64 - before_bytes as f64) / polls as f64,
            core_percent: (proc::cpu_s(pid)? - cpu_s) * 100.0 / watched_s,
            answers_per_s: (crowd.answers() - answers) as f64 / watched_s,
        };
        wait_for(cluster, polls).await?;
        crowd.is_well()?;
        println!("{}", line(&row).join("  "));
        rows.push(row);
    }
    Ok(rows)
}

fn gateway_pid(cluster: &DevCluster) -> anyhow::Result<u32> {
    let facts = cluster.facts_now()?;
    let gateway = facts.processes.iter().find(|process| process.role == "gateway");
    gateway
        .and_then(|gateway| gateway.pid)
        .context("the cluster has no gateway")
}

/// Accounts with a token and a cursor each.
async fn accounts(cluster: &DevCluster, count: usize) -> anyhow::Result<Vec<(String, String)>> {
    let admin = cluster.admin()?;
    let mut found = Vec::new();
    for number in 0..count {
        let name = format!("waiting-{number}");
        let wanted = json!({"username": name, "password": PASSWORD});
        admin.json(Method::POST, "/api/v1/users", Some(&wanted)).await?;
        let client = Client::new(&cluster.facts.url)?.login(&name, PASSWORD).await?;
        let cursor = client.changes(None, 1, false).await?.cursor;
        found.push((client.token().context("signed in")?.to_owned(), cursor));
    }
    Ok(found)
}

/// Until the gateway says that at least 99 of 100 wait: those that are asked anew just now are on their way.
async fn wait_for(cluster: &DevCluster, polls: usize) -> anyhow::Result<()> {
    let (client, begun) = (Client::new(&cluster.facts.url)?, Instant::now());
    loop {
        let page = client.text("/metrics").await?;
        let waiting = meter::sum(&page, "gateway_polls_waiting").unwrap_or(0.0);
        if waiting >= polls as f64 * 0.99 {
            return Ok(());
        }
        ensure!(begun.elapsed() < PATIENCE, "only {waiting} of {polls} polls wait");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn line(row: &Row) -> Vec<String> {
    vec![
        row.way.name().to_owned(),
        row.polls.to_string(),
        format!("{:.1} KiB", row.poll_bytes / 1024.0),
        format!("{:.2} %", row.core_percent),
        format!("{:.1}", row.answers_per_s),
    ]
}

fn render(rows: &[Row]) -> String {
    let heading = ["way", "polls", "memory each", "of a core", "answers/s"].map(str::to_owned);
    let lines = std::iter::once(heading.to_vec()).chain(rows.iter().map(line));
    table::render(&lines.collect::<Vec<_>>())
}

/// What NF-scale-3 asks, of every row: `make polls` ends badly where one of them takes more. Polls that take nothing, or no number, were
/// not measured: what the gateway held before them was more than what it needed.
fn judge(rows: &[Row]) -> anyhow::Result<()> {
    let unknown = rows.iter().filter(|row| row.polls == 0 || row.poll_bytes <= 0.0);
    let unknown: Vec<String> = unknown.map(|row| line(row).join(" ")).collect();
    ensure!(unknown.is_empty(), "the memory of polls was not measured: {unknown:?}");
    let missed: Vec<String> = rows
        .iter()
        .filter(|row| row.poll_bytes > POLL_BYTES_MAX || row.core_percent > CORE_PERCENT_MAX)
        .map(|row| line(row).join(" "))
        .collect();
    ensure!(missed.is_empty(), "over 12 KiB a poll or 5 % of a core: {missed:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Row, Way, judge, plot, render};

    fn row(way: Way, polls: usize, poll_bytes: f64, core_percent: f64) -> Row {
        Row {
            way,
            polls,
            poll_bytes,
            core_percent,
            answers_per_s: 1.0,
        }
    }

    #[test]
    fn a_poll_that_takes_too_much_of_either_is_missed() {
        let good = row(Way::Http1, 1_000, 12_000.0, 4.9);
        judge(&[good]).unwrap();
        judge(&[good, row(Way::Http2, 10, 13_000.0, 0.1)]).unwrap_err();
        judge(&[good, row(Way::Http1, 10, 21_000.0, 0.1)]).unwrap_err();
        judge(&[row(Way::Http2, 10, 100.0, 5.1), good]).unwrap_err();
    }

    #[test]
    fn polls_whose_memory_was_not_measured_are_none_that_take_little() {
        let good = row(Way::Http1, 1_000, 12_000.0, 4.9);
        for unknown in [
            row(Way::Http1, 1_000, 0.0, 1.0),
            row(Way::Http2, 1_000, -4_096.0, 1.0),
            row(Way::Http2, 0, f64::NAN, 1.0),
        ] {
            let error = judge(&[good, unknown]).unwrap_err().to_string();
            assert!(error.contains("was not measured"), "{error}");
        }
    }

    #[test]
    fn the_table_and_the_plot_show_every_row() {
        let rows = [
            row(Way::Http1, 15_000, 2_048.0, 1.0),
            row(Way::Http2, 200_000, 1_024.0, 2.5),
        ];
        let table = render(&rows);
        assert!(
            table.contains("15000") && table.contains("2.0 KiB") && table.contains("2.50 %"),
            "{table}"
        );
        let svg = plot::draw(&rows, 480);
        assert_eq!(svg.matches("<circle").count(), 2 * rows.len());
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
    }
}
