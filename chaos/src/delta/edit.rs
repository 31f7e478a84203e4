//! An edit of a file as a sync client does it: the new content sent by delta, fetched by delta, compared, and taken back.
//!
//! What passes on the wire is counted by a proxy that both ways go through; everything else goes to the gateway directly.
//! Invariants: the content's name as the server tells it is the one that was computed here, and every block that is fetched has the
//! bytes that were meant; after an edit the file has its first content again.
//! Not here: which edits are made (`single_byte`, `growth`).

use super::patched::{Content, cut};
use super::wire::Wire;
use crate::dev_cluster::DevCluster;
use crate::proc;
use anyhow::{Context, ensure};
use bytes::Bytes;
use client_sdk::client::{Client, Target};
use client_sdk::delta::{CutContent, DeltaTarget};
use codec::delta::Splice;
use codec::keys::DigestKey;
use model::entry::BlockRow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The two ways to a gateway.
pub(super) struct Link {
    /// Not counted.
    pub(super) direct: Client,
    counted: Client,
    wire: Wire,
    key: Arc<DigestKey>,
    /// The cluster's processes.
    pids: BTreeSet<u32>,
}

/// What one direction took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Way {
    pub(super) blocks: usize,
    /// Bytes of these blocks.
    pub(super) block_bytes: u64,
    /// All that passed, both ways, these among it.
    pub(super) wire_bytes: u64,
}

impl Way {
    /// What passed besides blocks.
    pub(super) fn protocol_bytes(&self) -> u64 {
        self.wire_bytes.saturating_sub(self.block_bytes)
    }
}

/// What an edit took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edit {
    pub(super) sent: Way,
    pub(super) fetched: Way,
    /// Until the commit was answered.
    pub(super) took: Duration,
    /// Of all of the cluster's processes until then.
    pub(super) cpu_s: f64,
}

/// A file that edits are made of.
pub(super) struct EditedFile {
    /// Its id.
    pub(super) id: String,
    version: u64,
    content: Content,
    rows: Vec<BlockRow>,
}

impl Link {
    /// As the demo user.
    pub(super) async fn to(cluster: &DevCluster) -> anyhow::Result<Self> {
        let client = cluster.client().await?;
        let token = client.token().context("who has signed in has a token")?;
        Self::of(cluster, token).await
    }

    /// As whoever has this token.
    pub(super) async fn of(cluster: &DevCluster, token: &str) -> anyhow::Result<Self> {
        let direct = Client::new(&cluster.facts.url)?.with_token(token);
        let wire = Wire::to(&cluster.facts.url).await?;
        Ok(Self {
            counted: Client::new(&wire.url())?.with_token(token),
            key: Arc::new(direct.digest_key().await?),
            direct,
            wire,
            pids: cluster
                .facts
                .processes
                .iter()
                .filter_map(|process| process.pid)
                .collect(),
        })
    }

    /// What the cluster has computed since its start.
    fn cpu_s(&self) -> anyhow::Result<f64> {
        self.pids.iter().map(|pid| proc::cpu_s(*pid)).sum()
    }
}

impl EditedFile {
    /// Puts a new file, and compares how the gateway has cut and named it.
    pub(super) async fn put(link: &Link, path: &str, content: Content) -> anyhow::Result<Self> {
        let (opened, key) = (content.open(), Arc::clone(&link.key));
        let expected = tokio::task::spawn_blocking(move || cut(opened, &key, None)).await?;
        let stream = content.open().stream();
        let done = link
            .direct
            .put_stream(&Target::new_file(path), content.bytes(), stream)
            .await
            .with_context(|| format!("put {path}"))?;
        ensure!(
            done.entry.digest == Some(expected.digest.to_hex()),
            "{path} was cut or named in another way than here"
        );
        Ok(Self {
            id: done.entry.id,
            version: done.entry.version,
            content,
            rows: expected.content.rows,
        })
    }

    /// The content that it has.
    pub(super) fn content(&self) -> &Content {
        &self.content
    }

    /// Makes `edited` its content, fetches what is new of it, and takes it back.
    pub(super) async fn edit(&mut self, link: &Link, edited: &Content) -> anyhow::Result<Edit> {
        let (opened, key, old) = (edited.open(), Arc::clone(&link.key), self.rows.clone());
        let now = tokio::task::spawn_blocking(move || cut(opened, &key, Some(&old))).await?;
        let target = DeltaTarget::Known {
            id: self.id.clone(),
            base_version: self.version,
        };
        let (before, cpu_before, begun) = (link.wire.passed(), link.cpu_s()?, Instant::now());
        let done = link
            .counted
            .put_delta(&target, &now.content, Some(&self.rows))
            .await
            .context("send an edit")?;
        let (took, cpu_s) = (begun.elapsed(), link.cpu_s()? - cpu_before);
        let sent = Way {
            blocks: done.blocks,
            block_bytes: done.bytes,
            wire_bytes: (link.wire.passed() - before).total(),
        };
        let entry = done.uploaded.entry;
        ensure!(
            entry.digest == Some(now.digest.to_hex()) && entry.size == edited.bytes(),
            "the edit became another content"
        );
        let fetched = self
            .fetch(link, entry.version, &now.content)
            .await
            .context("fetch an edit")?;
        ensure!(
            sent.blocks > 0 && fetched.blocks > 0,
            "an edit of which the drive has every block shows nothing"
        );
        // Pages alone: nothing is sent.
        let back = link
            .direct
            .restore_version(&self.id, self.version, Some(entry.version))
            .await
            .context("take an edit back")?;
        self.version = back.version;
        Ok(Edit {
            sent,
            fetched,
            took,
            cpu_s,
        })
    }

    /// Fetches what a client lacks that has the first content, and compares it.
    async fn fetch(&self, link: &Link, version: u64, now: &CutContent) -> anyhow::Result<Way> {
        let before = link.wire.passed();
        let (_, changes) = link
            .counted
            .changes_since(&self.id, Some(version), self.version)
            .await?;
        let (mut at, mut place, mut way) = (0, 0, Way::default());
        for change in changes {
            let count = match &change {
                Splice::Keep { count, .. } => usize::try_from(*count)?,
                Splice::Blocks(rows) => rows.len(),
            };
            let expected = now.rows.iter().skip(at).take(count);
            let bytes: u64 = expected.clone().map(|row| u64::from(row.size)).sum();
            match change {
                Splice::Keep { first, .. } => {
                    let kept = self.rows.iter().skip(usize::try_from(first)?).take(count);
                    ensure!(kept.eq(expected), "{count} blocks from {first} on are not what is kept");
                }
                Splice::Blocks(rows) => {
                    ensure!(rows.iter().eq(expected), "other blocks are told than were sent");
                    let range = (place, place + bytes.max(1) - 1);
                    let fetched = link.counted.get(&self.id, Some(range)).await?.bytes().await?;
                    let blocks = now.blocks.iter().skip(at).take(count);
                    ensure!(is_end_to_end(&fetched, blocks), "what was fetched is not what was sent");
                    way.blocks += count;
                    way.block_bytes += bytes;
                }
            }
            (at, place) = (at + count, place + bytes);
        }
        ensure!(at == now.rows.len(), "{at} of {} blocks are told", now.rows.len());
        way.wire_bytes = (link.wire.passed() - before).total();
        Ok(way)
    }
}

/// Whether bytes are these blocks, one behind the other.
fn is_end_to_end<'a>(bytes: &[u8], mut blocks: impl Iterator<Item = &'a Bytes>) -> bool {
    let left = blocks.try_fold(bytes, |rest, block| rest.strip_prefix(&block[..]));
    left.is_some_and(<[u8]>::is_empty)
}

#[cfg(test)]
mod tests {
    use super::{Way, is_end_to_end};
    use bytes::Bytes;

    #[test]
    fn bytes_are_blocks_end_to_end_or_they_are_not() {
        let blocks = [Bytes::from_static(b"one"), Bytes::from_static(b"two")];
        let check = |bytes: &[u8]| is_end_to_end(bytes, blocks.iter());
        assert!(check(b"onetwo"));
        for other in [&b"onetwo!"[..], b"onetw", b"twoone", b"one", b""] {
            assert!(!check(other), "{other:?}");
        }
    }

    #[test]
    fn protocol_is_what_passes_besides_blocks() {
        let way = Way {
            blocks: 1,
            block_bytes: 1_000_000,
            wire_bytes: 1_003_210,
        };
        assert_eq!(way.protocol_bytes(), 3_210);
    }
}
