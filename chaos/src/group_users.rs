//! Users that are made for an attack; of a cluster with several groups also such as have their drives in chosen ones.
//!
//! A user's name says his slot, and slots are dealt out to the groups in equal runs when a cluster is made; none is moved afterwards.
//! Not here: who leads a group (`process_attack`).

use crate::dev_cluster::DevCluster;
use anyhow::Context;
use client_sdk::client::Client;
use metadata_raft::worker::founder;
use model::id::{GroupId, Slot};
use reqwest::Method;
use serde_json::json;

const PASSWORD: &str = "correct horse battery";

/// The name that begins with `prefix` and has the least number behind it, of those whose drives `group` serves; `groups` is how many
/// drive groups the cluster was made with. `None` when `group` is none of them.
#[must_use]
pub fn name_in(group: GroupId, groups: u32, prefix: &str) -> Option<String> {
    let run = founder::equal_runs(groups).into_iter().find(|run| run.group == group)?;
    let slots = run.first.number()..=run.last.number();
    let mut names = (0_u64..).map(|number| format!("{prefix}-{number}"));
    names.find(|name| slots.contains(&Slot::of_username(name).number()))
}

/// Makes a user whose drive `group` serves, and signs him in.
///
/// Errors: there is no such group; the cluster does not make him, as when he is there already.
pub async fn user_in(cluster: &DevCluster, group: GroupId, groups: u32, prefix: &str) -> anyhow::Result<Client> {
    let name = name_in(group, groups, prefix).with_context(|| format!("{group} is none of {groups} drive groups"))?;
    user_named(cluster, &name).await
}

/// The same of a user of this name, in whatever group.
///
/// Errors: the cluster does not make him, as when he is there already.
pub async fn user_named(cluster: &DevCluster, name: &str) -> anyhow::Result<Client> {
    let wanted = json!({"username": name, "password": PASSWORD});
    let made = cluster
        .admin()?
        .json(Method::POST, "/api/v1/users", Some(&wanted))
        .await;
    made.with_context(|| format!("make the user {name}"))?;
    Ok(Client::new(&cluster.facts.url)?.login(name, PASSWORD).await?)
}

#[cfg(test)]
mod tests {
    use super::name_in;
    use model::id::{GroupId, Slot};

    #[test]
    fn each_group_has_a_name_of_its_own_and_no_other_has_one() {
        for groups in [1, 4, 64, 256] {
            for group in 1..=groups {
                let slot = Slot::of_username(&name_in(GroupId(group), groups, "a").unwrap()).number();
                assert_eq!(u32::from(slot) * groups / 4096 + 1, group);
            }
        }
        assert_eq!(name_in(GroupId(0), 4, "a"), None);
        assert_eq!(name_in(GroupId(5), 4, "a"), None);
    }
}
