//! `holdfast init`: the authority, the KEK and the identities of a new cluster's first processes, as files.
//!
//! Nothing runs yet; the operator carries each identity to its host. The authority's key stays off-line.

use crate::cli::InitArguments;
use crate::identity_files::AuthorityFiles;
use anyhow::ensure;
use daemon::clock::{Clock, SystemClock};
use daemon::random::Random;
use daemon::secret::{self, Secret};
use gateway::auth::setup::SetupToken;
use gateway::config::{create_kek, read_kek};
use model::process::{ProcessId, Role};

/// Makes the files; a directory that holds a cluster already is refused.
pub fn run(arguments: &InitArguments) -> anyhow::Result<()> {
    let directory = &arguments.directory;
    ensure!(
        !directory.join("authority.pem").exists(),
        "{} holds a cluster already; choose another directory",
        directory.display()
    );
    let (random, now) = (Random::system(), SystemClock::new().wall());
    let authority = AuthorityFiles::open_or_create(directory, now, &random)?;
    let kek_file = directory.join("kek");
    create_kek(&kek_file, &random)?;
    let (_, kek_text) = read_kek(&kek_file)?;
    let token = SetupToken::derive(&kek_text);
    let token_file = directory.join("setup-token");
    secret::create(&token_file, &Secret::new(token.expose().as_bytes().to_vec()), &random)?;
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
    println!("  identities/<role>-<number>/    move each to its host as identity_dir");
    println!();
    println!("one-time admin token, also in setup-token: {}", token.expose());
    println!("once the processes run, make the first administrator with it:");
    println!(
        "  holdfast admin --url URL user create NAME --setup-token-file {}",
        token_file.display()
    );
    Ok(())
}
