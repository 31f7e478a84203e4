//! `holdfast dev`: a whole cluster in one process, for trying out and for development.
//!
//! Real QUIC on loopback between the roles, real files below the data directory; keys, certificates and a demo user are made at
//! the first start, and a later start on the same data goes on with them.
//! Steps: 1. shape and directories; 2. authority and secrets; 3. metadata replicas; 4. the cluster's own facts, by commands;
//! 5. storage nodes; 6. gateways; 7. users; 8. `dev.json` and the table. Stopping goes backwards.
//! Not here: child processes, which come with `--processes`.

pub mod cluster;
pub(crate) mod directory;
pub mod facts;
mod node_switch;
mod secrets;
pub(crate) mod shape;

use crate::cli::DevArguments;
use anyhow::Context;
use cluster::DevCluster;
use daemon::log::{self, LogFormat};
use facts::DevFacts;

/// Runs the cluster until it is asked to stop.
pub async fn run(arguments: DevArguments) -> anyhow::Result<()> {
    log::init(LogFormat::Human, "info,openraft=warn").context("start logging")?;
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
    println!("  data       {}", arguments.data_dir.display());
    println!();
    println!("  stop with Ctrl-C; wipe with: rm -rf {}", arguments.data_dir.display());
    println!();
}
