//! `holdfast admin`: speaks the gateway's admin calls, for people and scripts.
//!
//! Invariant: tokens and passwords come from files, never from the command line, where every user of the host could read it.

use crate::cli::{AdminArguments, AdminCommand, NodeCommand, UserArguments, UserCommand};
use crate::dev::facts::DevFacts;
use crate::dev::shape;
use anyhow::{Context, bail, ensure};
use client_sdk::client::Client;
use client_sdk::http::Authorities;
use daemon::random::Random;
use model::base32;
use reqwest::Method;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// Runs one admin command.
pub async fn run(arguments: AdminArguments) -> anyhow::Result<()> {
    let AdminCommand::User {
        command: UserCommand::Create(wanted),
    } = &arguments.command
    else {
        return ask(&sign_in(&arguments).await?, arguments.command).await;
    };
    create_user(&arguments, wanted).await
}

async fn ask(client: &Client, command: AdminCommand) -> anyhow::Result<()> {
    match command {
        AdminCommand::Status { json } => {
            let status = client.json(Method::GET, "/api/v1/admin/status", None).await?;
            if json {
                println!("{status:#}");
            } else {
                print!("{}", table(&status));
            }
        }
        AdminCommand::Node { command } => {
            let (id, verb) = match command {
                NodeCommand::Stop { id } => (id, "stop"),
                NodeCommand::Start { id } => (id, "start"),
            };
            client
                .json(Method::POST, &format!("/api/v1/admin/nodes/{id}/{verb}"), None)
                .await?;
            println!("node {id}: {verb} done");
        }
        // `run` has taken it: it may have to do without a sign-in.
        AdminCommand::User { .. } => {}
    }
    Ok(())
}

/// Makes an account, the first one with the setup token, and prints a password that was drawn.
async fn create_user(arguments: &AdminArguments, wanted: &UserArguments) -> anyhow::Result<()> {
    let (password, is_drawn) = match &wanted.new_password_file {
        Some(file) => (line_of(file)?, false),
        None => (base32::encode(&Random::system().bytes::<15>()), true),
    };
    let (client, path, body) = match &wanted.setup_token_file {
        Some(file) => {
            let body = json!({ "setup_token": line_of(file)?, "username": wanted.name, "password": password });
            (connect(arguments)?, "/api/v1/admin/setup", body)
        }
        None => {
            let mut body = json!({ "username": wanted.name, "password": password, "is_admin": wanted.admin });
            if let Some(quota) = &wanted.quota {
                body["quota_bytes"] = json!(shape::parse_size("--quota", quota)?);
            }
            (sign_in(arguments).await?, "/api/v1/users", body)
        }
    };
    let user = client.json(Method::POST, path, Some(&body)).await?;
    let word = |key: &str| user[key].as_str().unwrap_or("-").to_owned();
    println!(
        "user {} made, id {}, drive {}",
        word("username"),
        word("id"),
        word("drive")
    );
    if is_drawn {
        println!("password {password}");
    }
    Ok(())
}

/// The first line of a file with a secret.
fn line_of(file: &Path) -> anyhow::Result<String> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let line = text.lines().next().unwrap_or("").trim();
    ensure!(
        !line.is_empty(),
        "{} is empty; put the secret on its first line",
        file.display()
    );
    Ok(line.to_owned())
}

/// A client that is not signed in.
fn connect(arguments: &AdminArguments) -> anyhow::Result<Client> {
    let url = match &arguments.url {
        Some(url) => url.clone(),
        None => match DevFacts::read(&arguments.data_dir) {
            Ok(facts) => facts.url,
            Err(_) => bail!(
                "no dev cluster in {}; give --url and --token-file",
                arguments.data_dir.display()
            ),
        },
    };
    let authorities = match &arguments.ca_file {
        Some(file) => Authorities::Pem(fs::read(file).with_context(|| format!("read {}", file.display()))?),
        None => Authorities::for_url(&url),
    };
    Ok(Client::trusting(&url, &authorities)?)
}

async fn sign_in(arguments: &AdminArguments) -> anyhow::Result<Client> {
    let client = connect(arguments)?;
    if let (Some(user), Some(file)) = (&arguments.user, &arguments.password_file) {
        return Ok(client.login(user, &line_of(file)?).await?);
    }
    let token = match &arguments.token_file {
        Some(file) => line_of(file)?,
        None => match DevFacts::read(&arguments.data_dir) {
            Ok(facts) => facts.admin_token,
            Err(_) => bail!("give --token-file with an admin token, or --user and --password-file"),
        },
    };
    Ok(client.with_token(&token))
}

fn table(status: &Value) -> String {
    let word = |value: &Value, key: &str| match &value[key] {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    let mut text = format!("{:<6} {:<10} {:<10} {:<10} disks\n", "node", "region", "zone", "state");
    for node in status["nodes"].as_array().into_iter().flatten() {
        let disks: Vec<String> = node["disks"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|disk| format!("{}:{}", word(disk, "id"), word(disk, "state")))
            .collect();
        text += &format!(
            "{:<6} {:<10} {:<10} {:<10} {}\n",
            word(node, "id"),
            word(node, "region"),
            word(node, "zone"),
            word(node, "state"),
            disks.join(" ")
        );
    }
    text += &format!("\n{:<6} {:<8} voters\n", "group", "leader");
    for group in status["groups"].as_array().into_iter().flatten() {
        text += &format!(
            "{:<6} {:<8} {}\n",
            word(group, "id"),
            word(group, "leader"),
            group["voters"]
        );
    }
    text += &format!("\nstripes: {}\n", status["stripes"]);
    text += &format!("metadata volume encrypted: {}\n", status["metadata_volume_encrypted"]);
    text
}
