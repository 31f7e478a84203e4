//! The command line of the server binary.
//!
//! Not here: what the commands do (`dev`, `serve`, `init`, `admin`).

use clap::{Args, Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Holdfast: a self-hosted drive on its own storage cluster.
#[derive(Debug, Parser)]
#[command(version, about)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs a whole cluster in this process, for trying out and for development.
    Dev(DevArguments),
    /// Runs the roles whose sections the configuration file has.
    Serve(ServeArguments),
    /// Makes a cluster's authority, keys and the identities of its first processes.
    Init(InitArguments),
    /// Asks or commands a running cluster.
    Admin(AdminArguments),
}

#[derive(Args, Debug)]
pub(crate) struct DevArguments {
    /// Where everything is kept.
    #[arg(long, default_value = "data")]
    pub(crate) data_dir: PathBuf,
    /// Where the gateway listens; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,
    /// Sites.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
    pub(crate) regions: u32,
    /// Storage nodes of each site.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub(crate) nodes_per_region: u32,
    /// Disks of each storage node.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub(crate) disks_per_node: u32,
    /// Metadata replicas: 1, 3 or 5.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=5))]
    pub(crate) metadata: u32,
    /// Drive groups.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) groups: u32,
    /// Gateways.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub(crate) gateways: u32,
    /// The durability profile of new drives: dev, standard, single, solo.
    #[arg(long, default_value = "dev")]
    pub(crate) profile: String,
    /// Capacity of each disk, such as 20G; by default the free space divided by the number of disks.
    #[arg(long)]
    pub(crate) disk_capacity: Option<String>,
    /// Says that a proxy in front does TLS, so that an address other than loopback may be plain HTTP.
    #[arg(long)]
    pub(crate) behind_proxy: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ServeArguments {
    /// The configuration file.
    #[arg(long)]
    pub(crate) config: PathBuf,
    /// Checks the file, says what is wrong with it, and runs nothing.
    #[arg(long)]
    pub(crate) check_config: bool,
}

#[derive(Args, Debug)]
pub(crate) struct InitArguments {
    /// Where authority, keys and identities are written; must not hold a cluster yet.
    #[arg(long)]
    pub(crate) directory: PathBuf,
    /// Metadata replicas to make identities for.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=5))]
    pub(crate) metadata: u64,
    /// Storage nodes to make identities for.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) nodes: u64,
    /// Gateways to make identities for.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub(crate) gateways: u64,
}

#[derive(Args, Debug)]
pub(crate) struct AdminArguments {
    /// The gateway's address; by default that of the dev cluster in `--data-dir`.
    #[arg(long)]
    pub(crate) url: Option<String>,
    /// A file that holds an admin token; by default that of the dev cluster in `--data-dir`.
    #[arg(long)]
    pub(crate) token_file: Option<PathBuf>,
    /// The data directory of a dev cluster.
    #[arg(long, default_value = "data")]
    pub(crate) data_dir: PathBuf,
    #[command(subcommand)]
    pub(crate) command: AdminCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AdminCommand {
    /// Shows nodes, disks, groups and stripes.
    Status {
        /// Prints the answer as it came.
        #[arg(long)]
        json: bool,
    },
    /// Stops or starts a storage node of a dev cluster that runs in one process.
    Node {
        #[command(subcommand)]
        command: NodeCommand,
    },
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Stops it; its disks stay as they are.
    Stop {
        /// The node's id.
        id: u32,
    },
    /// Starts it again on its disks.
    Start {
        /// The node's id.
        id: u32,
    },
}
