//! `holdfast admin`: speaks the gateway's admin calls, for people and scripts.
//!
//! Invariants: tokens and passwords come from files, never from the command line, where every user of the host could read it; that
//! nobody answers is told in one line and by an exit code of its own, so that scripts can wait for a cluster.

use crate::cli::{AdminArguments, AdminCommand, NodeCommand, ProcessCommand, UserArguments, UserCommand};
use crate::dev::directory::DevDirectory;
use crate::dev::facts::DevFacts;
use crate::dev::{control, process_switch, shape};
use crate::start_again::{self, StartAgain};
use anyhow::{Context, bail, ensure};
use client_sdk::client::Client;
use client_sdk::error::ClientError;
use client_sdk::http::Authorities;
use daemon::random::Random;
use model::base32;
use reqwest::Method;
use serde_json::{Value, json};
use std::error::Error;
use std::fmt;
use std::fs;
use std::path::Path;

/// How a process ends that failed.
const FAILED: u8 = 1;
/// How it ends when there was nobody to ask.
const NOBODY_ANSWERS: u8 = 2;

/// There is no gateway to ask; carries where it was looked for and what to do.
#[derive(Debug)]
pub struct NobodyAnswers(String);

impl fmt::Display for NobodyAnswers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for NobodyAnswers {}

/// The exit code of a process that ends with `error`: 2 for `NobodyAnswers`, 75 for `StartAgain`, else 1.
#[must_use]
pub fn exit_code_of(error: &anyhow::Error) -> u8 {
    if error.is::<NobodyAnswers>() {
        NOBODY_ANSWERS
    } else if error.is::<StartAgain>() {
        start_again::EXIT_CODE
    } else {
        FAILED
    }
}

/// Runs one admin command.
pub async fn run(arguments: AdminArguments) -> anyhow::Result<()> {
    let outcome = match &arguments.command {
        AdminCommand::User {
            command: UserCommand::Create(wanted),
        } => create_user(&arguments, wanted).await,
        AdminCommand::Process { command } => switch_process(&arguments, command).await,
        // There the parent does it: no gateway can stop another process.
        AdminCommand::Node { command } if is_of_processes(&arguments) => {
            let command = match *command {
                NodeCommand::Stop { id } => ProcessCommand::Stop {
                    process: format!("node-{id}"),
                },
                NodeCommand::Start { id } => ProcessCommand::Start {
                    process: format!("node-{id}"),
                },
            };
            switch_process(&arguments, &command).await
        }
        command => match sign_in(&arguments).await {
            Ok(client) => ask(&client, command).await,
            Err(error) => Err(error),
        },
    };
    outcome.map_err(|error| explain(error, &arguments))
}

/// Says of a connection that did not come about what to do; every other error says it already.
fn explain(error: anyhow::Error, arguments: &AdminArguments) -> anyhow::Error {
    let Some(ClientError::Broken(broken)) = error.downcast_ref::<ClientError>() else {
        return error;
    };
    if !broken.is_connect() {
        return error;
    }
    let mut cause: &dyn Error = broken;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    let what = match (&arguments.url, url_of(arguments)) {
        (None, Ok(url)) => format!(
            "no gateway answers at {url} ({cause}); the dev cluster on {} is starting or stopping, so try again",
            arguments.data_dir.display()
        ),
        (Some(url), _) => {
            format!("no gateway answers at {url} ({cause}); see that it runs, or give the --url of another one")
        }
        // The cluster went while it was asked; what `url_of` says of that is what there is to say.
        (None, Err(gone)) => return gone,
    };
    NobodyAnswers(what).into()
}

async fn ask(client: &Client, command: &AdminCommand) -> anyhow::Result<()> {
    match command {
        AdminCommand::Status { json } => {
            let status = client.json(Method::GET, "/api/v1/admin/status", None).await?;
            if *json {
                println!("{status:#}");
            } else {
                print!("{}", table(&status));
            }
        }
        AdminCommand::Node { command } => {
            let (id, verb) = match *command {
                NodeCommand::Stop { id } => (id, "stop"),
                NodeCommand::Start { id } => (id, "start"),
            };
            client
                .json(Method::POST, &format!("/api/v1/admin/nodes/{id}/{verb}"), None)
                .await?;
            println!("node {id}: {verb} done");
        }
        // `run` has taken these: they have to do without a sign-in.
        AdminCommand::User { .. } | AdminCommand::Process { .. } => {}
    }
    Ok(())
}

fn is_of_processes(arguments: &AdminArguments) -> bool {
    arguments.url.is_none() && control::is_there(&arguments.data_dir)
}

/// Has the parent of a dev cluster stop or start a process.
async fn switch_process(arguments: &AdminArguments, command: &ProcessCommand) -> anyhow::Result<()> {
    // Says when no cluster runs there, or when it is starting.
    url_of(arguments)?;
    ensure!(
        is_of_processes(arguments),
        "the dev cluster on {} runs in one process; stop and start its nodes with `holdfast admin node`, or run it with \
         `holdfast dev --processes`",
        arguments.data_dir.display()
    );
    match command {
        ProcessCommand::Stop { process } => {
            process_switch::stop(&arguments.data_dir, process).await?;
            println!("{process}: stop done");
        }
        ProcessCommand::Start { process } => {
            process_switch::start(&arguments.data_dir, process).await?;
            println!("{process}: start done");
        }
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

/// The gateway to ask: the one that was named, or that of the dev cluster, which must run.
fn url_of(arguments: &AdminArguments) -> anyhow::Result<String> {
    if let Some(url) = &arguments.url {
        let is_address = reqwest::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
        ensure!(
            is_address,
            "--url {url} is no address of a gateway; write it as https://files.example.org"
        );
        return Ok(url.clone());
    }
    let directory = arguments.data_dir.display();
    // A stopped cluster's file still names a port, where by now somebody else may listen: the token is not for him.
    if !DevDirectory::is_running(&arguments.data_dir) {
        let what = format!(
            "no dev cluster runs on {directory}; start it with `holdfast dev --data-dir {directory}`, or give --url and \
             --token-file for another cluster"
        );
        return Err(NobodyAnswers(what).into());
    }
    match DevFacts::read(&arguments.data_dir) {
        Ok(facts) => Ok(facts.url),
        Err(_) => Err(NobodyAnswers(format!(
            "the dev cluster on {directory} is starting; try again in a moment"
        ))
        .into()),
    }
}

/// A client that is not signed in.
fn connect(arguments: &AdminArguments) -> anyhow::Result<Client> {
    let url = url_of(arguments)?;
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
            Ok(facts) if !facts.admin_token.is_empty() => facts.admin_token,
            _ => bail!("give --token-file with an admin token, or --user and --password-file"),
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
