//! The command line of the server binary.
//!
//! Not here: what the commands do (`dev`, `serve`, `init`, `admin`).

use clap::{Args, Parser, Subcommand};
use daemon::log::LogFormat;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Holdfast: a self-hosted drive on its own storage cluster.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct CommandLine {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs a whole cluster on this machine, for trying out and for development.
    Dev(DevArguments),
    /// Runs the roles whose sections the configuration file has.
    Serve(ServeArguments),
    /// Makes a cluster's authority, keys and the identities of its first processes.
    Init(InitArguments),
    /// Issues, renews and revokes identities of a cluster's processes, where its authority is.
    Identity(IdentityArguments),
    /// Asks or commands a running cluster.
    Admin(AdminArguments),
}

#[derive(Args, Clone, Debug)]
pub struct DevArguments {
    /// Where everything is kept.
    #[arg(long, default_value = "data")]
    pub data_dir: PathBuf,
    /// Where the gateway listens; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Sites.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
    pub regions: u32,
    /// Storage nodes of each site.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub nodes_per_region: u32,
    /// Disks of each storage node.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub disks_per_node: u32,
    /// Metadata replicas: 1, 3 or 5.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=5))]
    pub metadata: u32,
    /// Drive groups.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub groups: u32,
    /// Gateways.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub gateways: u32,
    /// Runs every role as a process of its own, from configuration files below the data directory.
    #[arg(long)]
    pub processes: bool,
    /// What a gateway serves: api, block, notify, with commas; given again for the next gateway. By default everything.
    #[arg(long, value_name = "LIST")]
    pub functions: Vec<String>,
    /// The durability profile of new drives: dev, standard, single, solo or copies.
    #[arg(long, default_value = "dev")]
    pub profile: String,
    /// Capacity of each disk, such as 20G; by default the free space divided by the number of disks.
    #[arg(long)]
    pub disk_capacity: Option<String>,
    /// Short requests that a gateway works on at once, at most; by default 128.
    #[arg(long, value_name = "COUNT")]
    pub requests_in_service_max: Option<usize>,
    /// Short requests that a gateway holds in all, at least as many; by default 512.
    #[arg(long, value_name = "COUNT")]
    pub requests_held_max: Option<usize>,
    /// How long a request waits at most to be worked on; by default a second.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub request_wait_ms_max: Option<u64>,
    /// The gateway's certificate chain in PEM; without it dev serves plain HTTP.
    #[arg(long, requires = "tls_key")]
    pub tls_certificate: Option<PathBuf>,
    /// The certificate's key in PEM, mode 0600.
    #[arg(long, requires = "tls_certificate")]
    pub tls_key: Option<PathBuf>,
    /// Says that a proxy in front does TLS, so that an address other than loopback may be plain HTTP.
    #[arg(long)]
    pub behind_proxy: bool,
    /// Bytes that each gateway keeps in memory of answers and opened blocks; 0 reads everything anew each time.
    #[arg(long, value_name = "BYTES", default_value_t = gateway::config::CACHE_BYTES_DEFAULT)]
    pub cache_bytes: u64,
    /// How log lines look, on standard error: human, or json with one object a line.
    #[arg(long, value_name = "human|json", default_value = "human")]
    pub log: LogFormat,
    /// Length of a birth epoch of a cluster made in one process, for tests of what waits for epochs.
    #[arg(long, hide = true, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    pub birth_epoch_ms: Option<u64>,
    /// How long a block without reference stays proposable in a cluster made in one process, for tests of its death.
    #[arg(long, hide = true)]
    pub block_grace_ms: Option<u64>,
    /// How long a compacted segment stays on its disk, for tests of how space comes back.
    #[arg(long, hide = true)]
    pub limbo_s: Option<u64>,
}

#[derive(Args, Debug)]
pub struct ServeArguments {
    /// The configuration file.
    #[arg(long)]
    pub config: PathBuf,
    /// Checks the file, says what is wrong with it, and runs nothing.
    #[arg(long)]
    pub check_config: bool,
    /// How log lines look, on standard error: human, or json with one object a line; by default as the file says.
    #[arg(long, value_name = "human|json")]
    pub log: Option<LogFormat>,
    /// Ends when the process of this id ends, which must be the one that starts it.
    #[arg(long, hide = true)]
    pub with_parent: Option<u32>,
    /// Moves the wall clock by the seconds in this file, for tests of wrong clocks.
    #[arg(long, hide = true)]
    pub clock_offset_file: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct InitArguments {
    /// Where authority, keys and identities are written; must not hold a cluster yet.
    #[arg(long)]
    pub directory: PathBuf,
    /// Metadata replicas to make identities for.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=5))]
    pub metadata: u64,
    /// Storage nodes to make identities for.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub nodes: u64,
    /// Gateways to make identities for.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub gateways: u64,
}

#[derive(Args, Debug)]
pub struct IdentityArguments {
    /// The authority's directory, as `init` made it.
    #[arg(long)]
    pub directory: PathBuf,
    #[command(subcommand)]
    pub command: IdentityCommand,
}

#[derive(Debug, Subcommand)]
pub enum IdentityCommand {
    /// Makes the identity of a further process, under the next number of its role.
    Issue {
        /// node, metadata or gateway.
        role: String,
    },
    /// Makes a new key and certificate for a process.
    Renew {
        /// Such as node-7.
        process: String,
    },
    /// Has every certificate that a process has had refused.
    Revoke {
        /// Such as node-7.
        process: String,
    },
}

#[derive(Args, Debug)]
pub struct AdminArguments {
    /// The gateway's address; by default that of the dev cluster in `--data-dir`.
    #[arg(long)]
    pub url: Option<String>,
    /// A file that holds an admin token; by default that of the dev cluster in `--data-dir`.
    #[arg(long, conflicts_with = "user")]
    pub token_file: Option<PathBuf>,
    /// An administrator to sign in as, instead of a token.
    #[arg(long, requires = "password_file")]
    pub user: Option<String>,
    /// A file that holds the password of `--user`.
    #[arg(long, requires = "user")]
    pub password_file: Option<PathBuf>,
    /// Who signed the gateway's certificate, in PEM; by default whom the machine trusts.
    #[arg(long)]
    pub ca_file: Option<PathBuf>,
    /// The data directory of a dev cluster.
    #[arg(long, default_value = "data", global = true)]
    pub data_dir: PathBuf,
    #[command(subcommand)]
    pub command: AdminCommand,
}

#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Shows nodes, disks, groups and stripes.
    Status {
        /// Prints the answer as it came.
        #[arg(long)]
        json: bool,
    },
    /// Stops or starts a storage node of a dev cluster.
    Node {
        #[command(subcommand)]
        command: NodeCommand,
    },
    /// Stops or starts a process of a dev cluster of separate processes.
    Process {
        #[command(subcommand)]
        command: ProcessCommand,
    },
    /// Makes accounts.
    User {
        #[command(subcommand)]
        command: UserCommand,
    },
}

#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Makes an account with a home drive.
    Create(UserArguments),
}

#[derive(Args, Debug)]
pub struct UserArguments {
    /// 1 to 64 of a-z 0-9 . _ - @.
    pub name: String,
    /// A file that holds the account's password; without it one is drawn and printed.
    #[arg(long)]
    pub new_password_file: Option<PathBuf>,
    /// Makes an administrator.
    #[arg(long)]
    pub admin: bool,
    /// What the home drive may hold, such as 20G; by default what the cluster was made with.
    #[arg(long)]
    pub quota: Option<String>,
    /// The one-time token of `init`, with which the first administrator is made before anybody has an account.
    #[arg(long, conflicts_with_all = ["quota", "admin"])]
    pub setup_token_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum ProcessCommand {
    /// Asks it to stop in order, and waits until it has ended.
    Stop {
        /// Its role and number, such as metadata-2.
        process: String,
    },
    /// Starts it again on its data, and waits until it is ready.
    Start {
        /// Its role and number, such as metadata-2.
        process: String,
    },
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub enum NodeCommand {
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
