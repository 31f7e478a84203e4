//! The accounts of a dev cluster: the demo user and the administrator, made at the first start through a gateway's use cases.
//!
//! Not here: where the passwords come from (`secrets`).

use super::secrets::DevSecrets;
use anyhow::Context;
use daemon::clock::Clock;
use daemon::random::Random;
use gateway::admission::Who;
use gateway::auth::password::Passwords;
use gateway::drive::Core;
use gateway::drive::account::NewUser;
use gateway::drive::metadata_client::MetadataClient;
use model::name::Username;
use model::profile::ProfileId;
use model::time::WallTime;
use protocol::metadata::query::ControlQuery;
use protocol::metadata::user::NewToken;
use protocol::metadata::{Query, QueryAnswer};
use std::net::Ipv4Addr;
use std::time::Duration;

/// The user whose login is printed.
pub(crate) const DEMO_USER: &str = "demo";
const ADMIN_USER: &str = "admin";
/// The admin token of a dev cluster is drawn anew at each start, so it may live as long as one does.
const ADMIN_TOKEN_LIFE_MS: u64 = 365 * 24 * 3600 * 1000;
/// How long a first start may take until rows and slots are in place. A guess with room for a loaded machine.
const READY_PATIENCE: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Rows and slots are put in place by the groups' leaders; a cluster is ready once they are.
pub(crate) async fn wait_for_rows(admin: &MetadataClient, profile: ProfileId) -> anyhow::Result<()> {
    let wait = async {
        loop {
            let answer = admin
                .query(&Query::Control(ControlQuery::Layout(Some(profile))), 0)
                .await;
            if matches!(&answer, Ok((QueryAnswer::Layout(layout), _)) if layout.tables.contains_key(&profile)) {
                return;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    tokio::time::timeout(READY_PATIENCE, wait)
        .await
        .context("the groups' leaders planned no rows in time")
}

/// Makes the demo user and the admin at the first start; answers a fresh admin token.
pub(crate) async fn make(
    core: &Core,
    passwords: &Passwords,
    secrets: &DevSecrets,
    clock: &dyn Clock,
    random: &Random,
) -> anyhow::Result<String> {
    make_one(core, passwords, DEMO_USER, &secrets.demo_password, false).await?;
    make_one(core, passwords, ADMIN_USER, &secrets.admin_password, true).await?;
    // A dev cluster has its administrator; the setup token is for production.
    let admin = Username::new(ADMIN_USER).map_err(|error| anyhow::anyhow!(error.advice()))?;
    core.claim_setup(&admin, 0).await?;
    let facts = core.login_facts(admin, 0).await?.context("the admin was just made")?;
    let user = facts.user.user;
    let token = || {
        let (text, hash) = gateway::auth::token::draw(user, random);
        let expires_at = WallTime(clock.wall().0 + ADMIN_TOKEN_LIFE_MS);
        (text, NewToken { hash, expires_at })
    };
    let ((text, access), (_, refresh)) = (token(), token());
    core.issue_tokens(user, access, refresh, 0).await?;
    Ok(text.to_string())
}

async fn make_one(
    core: &Core,
    passwords: &Passwords,
    name: &str,
    password: &str,
    is_admin: bool,
) -> anyhow::Result<()> {
    let name = Username::new(name).map_err(|error| anyhow::anyhow!(error.advice()))?;
    if core.login_facts(name.clone(), 0).await?.is_some() {
        return Ok(());
    }
    let password_hash = passwords
        .hash(Who::Stranger(Ipv4Addr::LOCALHOST.into()), password.to_owned().into())
        .await?;
    let new = NewUser {
        name,
        password_hash,
        quota_bytes: None,
        is_admin,
    };
    core.create_user(new, None, 0).await?;
    Ok(())
}
