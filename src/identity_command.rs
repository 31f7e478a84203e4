//! `holdfast identity`: further identities of a cluster, their renewal and their revocation, at the authority's directory.
//!
//! Invariant: a number is issued to one process for ever; a renewed certificate is the same process's.

use crate::cli::{IdentityArguments, IdentityCommand};
use crate::identity_files::{AuthorityFiles, parse_process};
use anyhow::{Context, bail, ensure};
use daemon::clock::{Clock, SystemClock};
use daemon::random::Random;
use model::process::{ProcessId, Role};

/// Runs one command.
pub fn run(arguments: &IdentityArguments) -> anyhow::Result<()> {
    let directory = &arguments.directory;
    let Some(authority) = AuthorityFiles::open(directory)? else {
        bail!(
            "{} holds no authority; name the directory that `holdfast init` made",
            directory.display()
        );
    };
    let (random, now) = (Random::system(), SystemClock::new().wall());
    match &arguments.command {
        IdentityCommand::Issue { role } => {
            let role =
                Role::parse(role).with_context(|| format!("{role} is no role; use node, metadata or gateway"))?;
            let issued = authority.issued()?;
            let numbers = issued.iter().filter(|(process, _)| process.role == role);
            let number = numbers.map(|(process, _)| process.number).max().unwrap_or(0) + 1;
            let process = ProcessId { role, number };
            let path = authority.issue(process, now, &random)?;
            println!("{process}: {}", path.display());
        }
        IdentityCommand::Renew { process } => {
            let process = named(process)?;
            let is_known = authority.issued()?.iter().any(|(known, _)| *known == process);
            ensure!(is_known, "{process} has no identity yet; use `holdfast identity issue`");
            let path = authority.issue(process, now, &random)?;
            println!("{process}: {}", path.display());
        }
        IdentityCommand::Revoke { process } => {
            let path = authority.revoke(named(process)?)?;
            println!("revoked; carry {} to every host", path.display());
        }
    }
    Ok(())
}

fn named(name: &str) -> anyhow::Result<ProcessId> {
    parse_process(name).with_context(|| format!("{name} is no process; write it as node-7"))
}
