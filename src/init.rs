//! `holdfast init`: the authority, the KEK and the identities of a new cluster's first processes, as files.
//!
//! Nothing runs yet; the operator carries each identity to its host. The authority's key stays off-line.

use crate::cli::InitArguments;
use crate::identity_files::AuthorityFiles;
use anyhow::ensure;
use daemon::clock::{Clock, SystemClock};
use daemon::random::Random;
use gateway::config::create_kek;
use model::process::{ProcessId, Role};

/// Makes the files; a directory that holds a cluster already is refused.
pub(crate) fn run(arguments: &InitArguments) -> anyhow::Result<()> {
    let directory = &arguments.directory;
    ensure!(
        !directory.join("authority.pem").exists(),
        "{} holds a cluster already; choose another directory",
        directory.display()
    );
    let (random, now) = (Random::system(), SystemClock::new().wall());
    let authority = AuthorityFiles::open_or_create(directory, now, &random)?;
    create_kek(&directory.join("kek"), &random)?;
    let all = [
        (Role::Metadata, arguments.metadata),
        (Role::Node, arguments.nodes),
        (Role::Gateway, arguments.gateways),
        (Role::Admin, 1),
    ];
    for (role, count) in all {
        for number in 1..=count {
            authority.identity(ProcessId { role, number }, now, &random)?;
        }
    }
    println!("cluster {} made in {}", authority.cluster(), directory.display());
    println!("  authority.pem, authority.key   keep the key off-line");
    println!("  kek                            for gateways alone; keep a copy where you keep nothing else");
    println!("  identities/<role>-<number>/    carry each to its host as identity_dir");
    Ok(())
}
