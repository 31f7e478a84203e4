//! `holdfast dev`: a whole cluster on one machine, for trying out and for development: in one process, or with `--processes` in one
//! for each role.
//!
//! Real QUIC on loopback between the roles, real files below the data directory; keys, certificates and a demo user are made at
//! the first start, and a later start on the same data goes on with them.
//! Steps: 1. shape and directories; 2. authority and secrets; 3. metadata replicas; 4. the cluster's own facts, by commands;
//! 5. storage nodes; 6. gateways; 7. users; 8. `dev.json` and the table. Stopping goes backwards.
//! Either form goes on with what the other has left in the directory.
//! Not here: production, which has the same roles and the same files, made by `init` and carried by an operator.

mod accounts;
mod addresses;
mod children;
pub mod cluster;
mod config_file;
pub(crate) mod control;
pub(crate) mod directory;
pub mod facts;
mod ground;
mod node_switch;
mod plan;
mod process_cluster;
pub(crate) mod process_switch;
mod secrets;
pub(crate) mod shape;

use crate::cli::DevArguments;
use anyhow::Context;
use cluster::DevCluster;
use daemon::log;
use facts::DevFacts;

/// Runs the cluster until it is asked to stop.
pub async fn run(arguments: DevArguments) -> anyhow::Result<()> {
    log::init(arguments.log, "info,openraft=warn").context("start logging")?;
    if arguments.processes {
        return process_cluster::run(&arguments).await;
    }
    let cluster = DevCluster::start(&arguments).await?;
    print_table(cluster.facts(), &arguments);
    cluster.shutdown().request_on_signals().await?;
    cluster.shutdown().requested().await;
    println!("stopping");
    cluster.stop().await;
    println!("stopped; start again with the same --data-dir to go on");
    Ok(())
}

fn print_table(facts: &DevFacts, arguments: &DevArguments) {
    let (regions, nodes, disks) = (
        arguments.regions,
        arguments.regions * arguments.nodes_per_region,
        arguments.disks_per_node,
    );
    println!();
    println!("  Holdfast is running");
    println!("  URL        {}", facts.url);
    println!("  user       {}", facts.user);
    println!("  password   {}", facts.password);
    println!(
        "  cluster    {regions} regions, {nodes} nodes of {disks} disks, {} metadata replicas, profile {}",
        arguments.metadata, facts.profile
    );
    let others = facts.processes.iter().filter_map(|process| {
        let url = process.url.as_ref().filter(|url| **url != facts.url)?;
        let functions = process.functions.as_deref().unwrap_or_default().join(", ");
        Some(format!("  {:<10} {url}, serves {functions}", process.name()))
    });
    for line in others {
        println!("{line}");
    }
    if arguments.processes {
        let count = facts.processes.len();
        println!(
            "  processes  {count}, with pids in dev.json, files in config/ and logs in log/ of the data directory"
        );
    }
    println!("  data       {}", arguments.data_dir.display());
    println!();
    println!("  stop with Ctrl-C; wipe with: rm -rf {}", arguments.data_dir.display());
    println!();
}
