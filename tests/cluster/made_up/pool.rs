//! What answers told and requests may ask for: ids, versions, digests, tokens of pages, addresses of uploads.
//!
//! Invariants: bounded; accounts that are spared, and the roots of drives, are never in it.

use super::dice::Dice;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Values of one name that are remembered: the first, and the latest of the others.
const POOLED_MAX: usize = 64;

/// What earlier answers told, by the names under which requests ask for it.
#[derive(Default)]
pub(crate) struct Pool {
    values: BTreeMap<String, Vec<Value>>,
    /// Ids that no request may have: accounts without which nothing goes on.
    spared: BTreeSet<String>,
}

impl Pool {
    /// No request gets this id.
    pub(crate) fn spare(&mut self, id: &str) {
        self.spared.insert(id.to_owned());
    }

    /// Takes what an answer tells.
    pub(crate) fn gather(&mut self, answer: &Value) {
        match answer {
            Value::Object(fields) => {
                for (name, value) in fields {
                    for known in known_as(fields, name) {
                        self.keep(known, value.clone());
                    }
                    self.gather(value);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.gather(item)),
            _ => {}
        }
    }

    /// Takes one value.
    pub(crate) fn keep(&mut self, name: &str, value: Value) {
        let is_spared = value.as_str().is_some_and(|text| self.spared.contains(text));
        if is_spared || !(value.is_string() || value.is_number()) {
            return;
        }
        // A ticket is told as the address that it is part of.
        let url = value.as_str().filter(|_| name == "ticket");
        let ticket = url.and_then(|url| url.split_once("ticket="));
        let ticket = ticket.map(|(_, ticket)| json!(ticket));
        let value = ticket.unwrap_or(value);
        let values = self.values.entry(name.to_owned()).or_default();
        if values.contains(&value) {
            return;
        }
        if values.len() == POOLED_MAX {
            values.remove(1);
        }
        values.push(value);
    }

    /// One of the values of this name.
    pub(crate) fn any(&self, name: &str, dice: &mut Dice) -> Option<Value> {
        let values = self.values.get(name).filter(|values| !values.is_empty())?;
        Some(dice.one(values).clone())
    }
}

/// Under which names requests ask for a field of an answer.
fn known_as(fields: &Map<String, Value>, name: &str) -> &'static [&'static str] {
    let has = |name: &str| fields.contains_key(name);
    match name {
        "id" if has("username") => &["user"],
        "id" if has("begun_at") => &["job"],
        "id" if has("versions_max") => &["drive"],
        // The root of a drive is no entry to play with: all others lie in it.
        "id" if has("parent") => &["entry", "parent"],
        "path" | "name" if has("parent") => {
            if name == "path" {
                &["path"]
            } else {
                &["name"]
            }
        }
        "drive" => &["drive"],
        "upload_id" => &["upload_id", "key"],
        "next_page_token" => &["page_token", "since_token", "pageToken"],
        "cursor" | "startPageToken" | "nextPageToken" | "newStartPageToken" => &["since_token", "pageToken"],
        "version" => &["version", "since", "base_version", "current_version"],
        "revision" => &["base_revision"],
        "digest" => &["digest", "new_block_hashes"],
        "refresh_token" => &["refresh_token"],
        "modified_at" => &["to"],
        "url" => &["ticket"],
        _ => &[],
    }
}

/// Under which name a parameter is looked for in the pool: an id is one of what its address is about.
pub(crate) fn sort_of<'n>(path: &str, name: &'n str) -> &'n str {
    match (name, path.trim_start_matches("/api/v1/").split('/').next()) {
        ("id", Some("users")) => "user",
        ("id", Some("jobs")) => "job",
        ("id", Some("drives")) => "drive",
        ("id", Some("admin")) => "node",
        ("id", _) => "entry",
        _ => name,
    }
}
