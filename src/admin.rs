//! `holdfast admin`: speaks the gateway's admin calls, for people and scripts.
//!
//! Invariant: the token comes from a file, never from the command line, where every user of the host could read it.

use crate::cli::{AdminArguments, AdminCommand, NodeCommand};
use crate::dev::facts::DevFacts;
use anyhow::{Context, bail};
use client_sdk::client::Client;
use reqwest::Method;
use serde_json::Value;
use std::fs;

/// Runs one admin command.
pub(crate) async fn run(arguments: AdminArguments) -> anyhow::Result<()> {
    let client = connect(&arguments)?;
    match arguments.command {
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
    }
    Ok(())
}

fn connect(arguments: &AdminArguments) -> anyhow::Result<Client> {
    let facts = DevFacts::read(&arguments.data_dir);
    let url = match (&arguments.url, &facts) {
        (Some(url), _) => url.clone(),
        (None, Ok(facts)) => facts.url.clone(),
        (None, Err(_)) => bail!(
            "no dev cluster in {}; give --url and --token-file",
            arguments.data_dir.display()
        ),
    };
    let token = match (&arguments.token_file, facts) {
        (Some(file), _) => fs::read_to_string(file)
            .with_context(|| format!("read {}", file.display()))?
            .trim()
            .to_owned(),
        (None, Ok(facts)) => facts.admin_token,
        (None, Err(_)) => bail!("give --token-file with an admin token"),
    };
    Ok(Client::new(&url)?.with_token(&token))
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
