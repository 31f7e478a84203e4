//! Fresh accounts, in whose name a load is sent.

use crate::dev_cluster::DevCluster;
use anyhow::{Context, ensure};
use client_sdk::client::Client;
use reqwest::Method;
use serde_json::json;

const PASSWORD: &str = "as good as any other";

/// Tokens of `count` new accounts, each with the folder that it writes to.
pub(crate) async fn sign_up(cluster: &DevCluster, count: usize, folder: &str) -> anyhow::Result<Vec<String>> {
    ensure!(count > 0, "somebody must send; give --users 1 or more");
    let (admin, stranger) = (cluster.admin()?, Client::new(&cluster.facts.url)?);
    let mut tokens = Vec::new();
    for number in 0..count {
        let name = format!("load-{number}");
        let account = json!({"username": name, "password": PASSWORD});
        admin.json(Method::POST, "/api/v1/users", Some(&account)).await?;
        let client = stranger.login(&name, PASSWORD).await?;
        client.make_folder(folder).await?;
        tokens.push(
            client
                .token()
                .context("a client that signed in has a token")?
                .to_owned(),
        );
    }
    Ok(tokens)
}
