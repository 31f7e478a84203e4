//! Whether what was acknowledged is there: all of it in the listings, every hundredth byte for byte.
//!
//! Invariant: an upload that was not acknowledged may be there or not, and is never counted.

use super::FOLDER;
use crate::open_loop::{End, Load, Shot};
use crate::stale::eventually;
use anyhow::Context;
use api::entry::Entry;
use client_sdk::client::Client;
use client_sdk::error::ClientError;
use futures_util::future::try_join_all;
use serde::Serialize;
use std::collections::BTreeSet;

const PAGE_ENTRIES: usize = 1_000;
/// Of the uploads of each sender so many are taken for one that is read back.
const READ_EACH: u64 = 100;

/// What was found of the acknowledged uploads.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Kept {
    pub(super) listed: usize,
    /// Not listed.
    pub(super) missing: usize,
    pub(super) read: usize,
    /// Listed with another length, or read back with other bytes.
    pub(super) different: usize,
}

/// Looks for all that `shots` say was acknowledged.
pub(super) async fn look(load: &Load, url: &str, shots: &[Shot]) -> anyhow::Result<Kept> {
    let acknowledged = shots.iter().filter(|shot| shot.end == End::Good);
    let acknowledged: BTreeSet<u64> = acknowledged.map(|shot| shot.number).collect();
    let mut senders = Vec::new();
    for token in load.tokens() {
        senders.push(of_sender(load, Client::new(url)?.with_token(token), &acknowledged));
    }
    let mut all = Kept::default();
    for kept in try_join_all(senders).await? {
        all.listed += kept.listed;
        all.read += kept.read;
        all.different += kept.different;
    }
    all.missing = acknowledged.len().saturating_sub(all.listed);
    Ok(all)
}

async fn of_sender(load: &Load, client: Client, acknowledged: &BTreeSet<u64>) -> anyhow::Result<Kept> {
    let (mut kept, mut token) = (Kept::default(), None::<String>);
    loop {
        let page = eventually(async || client.list(FOLDER, PAGE_ENTRIES, token.as_deref()).await)
            .await
            .with_context(|| format!("list {FOLDER}"))?;
        for entry in &page.entries {
            let number: u64 = entry
                .name
                .parse()
                .with_context(|| format!("nobody sent {}", entry.path))?;
            if !acknowledged.contains(&number) {
                continue;
            }
            kept.listed += 1;
            let mut is_same = entry.size == load.length_bytes(number) as u64;
            if is_read_back(number, load.tokens().len() as u64) {
                kept.read += 1;
                is_same &= read(&client, entry).await? == load.content(number);
            }
            kept.different += usize::from(!is_same);
        }
        token = page.next_page_token;
        if token.is_none() {
            return Ok(kept);
        }
    }
}

/// Numbers go round the senders, so every hundredth number of all may be that of one sender alone.
fn is_read_back(number: u64, senders: u64) -> bool {
    (number / senders).is_multiple_of(READ_EACH)
}

async fn read(client: &Client, entry: &Entry) -> anyhow::Result<Vec<u8>> {
    let answer = async || {
        client
            .get(&entry.id, None)
            .await?
            .bytes()
            .await
            .map_err(ClientError::from)
    };
    let bytes = eventually(answer)
        .await
        .with_context(|| format!("read {}", entry.path))?;
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::is_read_back;

    #[test]
    fn every_hundredth_of_each_sender_is_read_back() {
        for senders in [1, 3, 4, 100] {
            for sender in 0..senders {
                let numbers = (0..1_000).map(|turn| turn * senders + sender);
                let read = numbers.filter(|number| is_read_back(*number, senders)).count();
                assert_eq!(read, 10, "sender {sender} of {senders}");
            }
        }
    }
}
