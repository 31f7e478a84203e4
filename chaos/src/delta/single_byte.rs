//! One byte of a large file changed, or put in: which blocks travel, and how much is said about them (US-2.2).
//!
//! Each edit is of the first content, at a place that a seed decides.
//! Not here: how an edit is made and compared (`edit`), larger edits (`growth`).

use super::edit::{Edit, EditedFile, Link};
use super::finding::{Finding, median, most};
use super::patched::{Content, Patch};
use crate::dev_cluster::DevCluster;
use anyhow::Context;
use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

/// US-2.2: of a GiB.
pub(super) const FILE_BYTES: u64 = 1 << 30;
const MEDIAN_BLOCKS: f64 = 1.0;
const BLOCKS_MAX: f64 = 3.0;
const PROTOCOL_BYTES_MAX: f64 = (16 << 10) as f64;
const PATH: &str = "/single-byte.bin";
/// The byte that is put in.
const PUT_IN: &[u8] = b"x";

/// Makes so many edits of each kind.
///
/// Run by `make delta`.
pub(super) async fn measure(cluster: &DevCluster, bytes: u64, edits: usize, seed: u64) -> anyhow::Result<Vec<Finding>> {
    let link = Link::to(cluster).await?;
    let content = Content {
        seed,
        seeded_bytes: bytes,
        patches: Vec::new(),
    };
    let mut file = EditedFile::put(&link, PATH, content).await?;
    println!("{PATH} is there; {edits} edits of each kind");
    let mut places = ChaCha8Rng::seed_from_u64(seed);
    let (mut changed, mut put_in) = (Vec::new(), Vec::new());
    for number in 1..=edits {
        let at = places.next_u64() % bytes;
        let patch = another_byte(&link, &file, at).await?;
        changed.push(edit(&link, &mut file, patch).await?);
        let patch = Patch {
            at: places.next_u64() % bytes,
            removed: 0,
            put: Bytes::from_static(PUT_IN),
        };
        put_in.push(edit(&link, &mut file, patch).await?);
        if let (Some(one), Some(other)) = (changed.last(), put_in.last()) {
            println!(
                "edit {number} of {edits}: changed {}, put in {}",
                line(one),
                line(other)
            );
        }
    }
    Ok([judge("a byte changed", &changed), judge("a byte put in", &put_in)].concat())
}

/// Another byte instead of the one that is there.
async fn another_byte(link: &Link, file: &EditedFile, at: u64) -> anyhow::Result<Patch> {
    let there = link.direct.get(&file.id, Some((at, at))).await?.bytes().await?;
    let there = there.first().context("a range of one byte has a byte")?;
    Ok(Patch {
        at,
        removed: 1,
        put: Bytes::from(vec![there ^ 1]),
    })
}

async fn edit(link: &Link, file: &mut EditedFile, patch: Patch) -> anyhow::Result<Edit> {
    let mut edited = file.content().clone();
    let at = patch.at;
    edited.patches.push(patch);
    file.edit(link, &edited)
        .await
        .with_context(|| format!("edit byte {at}"))
}

fn line(edit: &Edit) -> String {
    let (sent, fetched) = (&edit.sent, &edit.fetched);
    format!(
        "{}/{} blocks, {}/{} bytes of protocol",
        sent.blocks,
        fetched.blocks,
        sent.protocol_bytes(),
        fetched.protocol_bytes()
    )
}

fn judge(what: &str, edits: &[Edit]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (way, ways) in [
        ("sent", edits.iter().map(|edit| edit.sent).collect::<Vec<_>>()),
        ("fetched", edits.iter().map(|edit| edit.fetched).collect()),
    ] {
        let blocks = || ways.iter().map(|way| way.blocks as f64);
        let protocol = ways.iter().map(|way| way.protocol_bytes() as f64);
        let named = |said: &str| format!("{what}: {way}, {said}");
        findings.extend([
            Finding::at_most(named("median"), median(blocks()), "blocks", MEDIAN_BLOCKS),
            Finding::at_most(named("most"), most(blocks()), "blocks", BLOCKS_MAX),
            Finding::at_most(named("protocol"), most(protocol), "bytes", PROTOCOL_BYTES_MAX),
        ]);
    }
    let took_ms = edits.iter().map(|edit| edit.took.as_secs_f64() * 1e3);
    findings.push(Finding::told(
        format!("{what}: committed within, median"),
        median(took_ms),
        "ms",
    ));
    findings
}

#[cfg(test)]
mod tests {
    use super::super::edit::{Edit, Way};
    use super::super::finding::tests::missed;
    use super::judge;
    use std::time::Duration;

    fn way(blocks: usize, protocol_bytes: u64) -> Way {
        let block_bytes = blocks as u64 * 1_000_000;
        Way {
            blocks,
            block_bytes,
            wire_bytes: block_bytes + protocol_bytes,
        }
    }

    /// Edits by what was sent and what was fetched: blocks and bytes of protocol.
    fn check(edits: &[[(usize, u64); 2]], expected: &[&str]) {
        let edit = |[sent, fetched]: &[(usize, u64); 2]| Edit {
            sent: way(sent.0, sent.1),
            fetched: way(fetched.0, fetched.1),
            took: Duration::from_millis(20),
            cpu_s: 0.015,
        };
        let edits: Vec<Edit> = edits.iter().map(edit).collect();
        let findings = judge("x", &edits);
        assert_eq!(missed(&findings), expected);
    }

    #[test]
    fn a_fourth_block_a_second_one_as_a_rule_and_much_talk_are_missed() {
        let well = [(1, 4_000); 2];
        check(&[well, well, [(3, 16_384), (3, 16_384)]], &[]);
        check(&[well, well, [(4, 4_000), (1, 4_000)]], &["x: sent, most"]);
        check(&[well, well, [(1, 4_000), (4, 4_000)]], &["x: fetched, most"]);
        check(&[well, [(2, 4_000), (1, 4_000)]], &["x: sent, median"]);
        check(&[well, [(1, 16_385), (1, 4_000)]], &["x: sent, protocol"]);
        check(&[well, [(1, 4_000), (1, 70_000)]], &["x: fetched, protocol"]);
    }

    #[test]
    fn no_edit_at_all_misses_everything() {
        assert_eq!(missed(&judge("x", &[])).len(), 6);
    }
}
