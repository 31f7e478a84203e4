//! What is done with a folder as a whole: renamed, moved, trashed and restored, whatever is in it.
//!
//! Invariant: the feed tells one change for each, and of no other entry; all entries are below the folder afterwards (the caller
//! lists them).
//! Not here: shares, deleting for ever, which is a job (`metadata-raft/examples/purge.rs`).

use crate::percentile::percentile;
use anyhow::{Context, ensure};
use api::entry::Entry;
use client_sdk::client::Client;
use reqwest::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// What N5 asks of each, and no turn may take longer.
const WHOLE_MAX: Duration = Duration::from_millis(50);
/// How often each is done.
const TURNS: usize = 20;

/// How long each of a kind took.
struct Timed {
    name: &'static str,
    took: Vec<Duration>,
}

/// Does everything [`TURNS`] times with a folder of so many entries, and leaves it where it was, under its name. Gives the rows of a
/// table. A folder is measured once with each number of entries.
///
/// shows: N5 side=moves scale=10000/1000000, TST-4 side=in-time
pub(super) async fn measure(client: &Client, folder: &Entry, entries: usize) -> anyhow::Result<Vec<Vec<String>>> {
    let root = folder.parent.as_ref().context("the folder has no parent")?;
    let other = format!("/other than {} of {entries}", folder.name);
    let other = client.make_folder(&other).await?;
    let entry = format!("/api/v1/metadata/{}", folder.id);
    let restore = format!("{entry}/restore");
    let steps: [(&'static str, Method, &str, Option<Value>); 6] = [
        ("rename", Method::PATCH, &entry, Some(json!({"name": "wider"}))),
        ("move", Method::PATCH, &entry, Some(json!({"parent": other.id}))),
        ("move back", Method::PATCH, &entry, Some(json!({"parent": root}))),
        ("rename back", Method::PATCH, &entry, Some(json!({"name": folder.name}))),
        ("trash", Method::DELETE, &entry, None),
        ("restore", Method::POST, &restore, Some(json!({}))),
    ];
    let mut timed = steps.clone().map(|(name, ..)| Timed { name, took: Vec::new() });
    for _ in 0..TURNS {
        for ((name, method, path, body), timed) in steps.iter().zip(&mut timed) {
            let before = client.changes(None, 1, false).await?.cursor;
            let begun = Instant::now();
            let answer = client.json(method.clone(), path, body.as_ref()).await;
            timed.took.push(begun.elapsed());
            answer.with_context(|| format!("{name} the folder"))?;
            let told = client.changes(Some(&before), 1_000, false).await?.changes;
            let of_it = told.len() == 1 && told.iter().all(|change| change.file_id == folder.id);
            ensure!(of_it, "{name} is {} changes, not one of the folder", told.len());
        }
    }
    judge(&mut timed)
}

fn judge(timed: &mut [Timed]) -> anyhow::Result<Vec<Vec<String>>> {
    let mut rows = vec![["whole folder", "number", "p50", "longest"].map(str::to_owned).to_vec()];
    let mut slow = Vec::new();
    for Timed { name, took } in timed {
        took.sort_unstable();
        let [median, longest] = [50, 100].map(|percent| percentile(took, percent));
        let texts = [median, longest].map(|time| format!("{:.1} ms", time.as_secs_f64() * 1e3));
        rows.push([vec![(*name).to_owned(), took.len().to_string()], texts.to_vec()].concat());
        if longest > WHOLE_MAX {
            slow.push(*name);
        }
    }
    ensure!(
        slow.is_empty(),
        "over {WHOLE_MAX:?}: {}\n{}",
        slow.join(", "),
        crate::table::render(&rows)
    );
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::{TURNS, Timed, WHOLE_MAX, judge};
    use std::time::Duration;

    #[test]
    fn one_late_turn_of_twenty_is_too_many() {
        let of = |name: &'static str, last: Duration| {
            let mut took = vec![Duration::from_millis(1); TURNS];
            took[TURNS / 2] = last;
            Timed { name, took }
        };
        assert!(judge(&mut [of("rename", WHOLE_MAX), of("move", WHOLE_MAX)]).is_ok());
        let late = WHOLE_MAX + Duration::from_micros(1);
        let error = judge(&mut [of("rename", WHOLE_MAX), of("move", late)]).unwrap_err();
        assert!(error.to_string().starts_with("over 50ms: move\n"), "{error}");
    }
}
