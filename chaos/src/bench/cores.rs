//! What one core does: BLAKE3, AES-256-GCM, Reed-Solomon 4+2, the cutter.
//!
//! Each on one thread and counted by that thread's CPU time, so that neighbours on the machine take less from the figure.
//! Invariant: the same libraries and features as codec; the cutter is codec's own, since its scan is ours.

use super::limit::{self, Limit, LimitName, Unit};
use crate::content::SeededContent;
use bytes::{Bytes, BytesMut};
use codec::cipher::{Aes256Gcm, Cipher, NONCE_BYTES};
use codec::cut::Cutter;
use reed_solomon_erasure::galois_8::ReedSolomon;
use std::hint::black_box;

const PASSES: usize = 3;
/// A block of average length: what the digest and the seal work on.
const BLOCK_BYTES: usize = 1 << 20;
const DATA_FRAGMENTS: usize = 4;
const PARITY_FRAGMENTS: usize = 2;
/// A full stripe's fragment in 4+2.
const FRAGMENT_BYTES: usize = 1 << 20;
const BASIS: &str = "one core";

/// Measures all four.
pub(super) fn measure(quick: bool, seed: u64) -> anyhow::Result<Vec<Limit>> {
    let rounds = if quick { 64 } else { 512 };
    let content = content(seed, if quick { 32 << 20 } else { 128 << 20 });
    println!("measuring one core: BLAKE3, AES-256-GCM, Reed-Solomon, cutter");
    Ok(vec![
        limit(LimitName::Blake3, "BLAKE3", 9.4e9, blake3(&content, rounds)),
        limit(LimitName::AesGcm, "AES-256-GCM", 3.3e9, seal(&content, rounds)),
        limit(
            LimitName::ReedSolomon,
            "Reed-Solomon 4+2",
            24.0e9,
            erasure(&content, rounds)?,
        ),
        limit(LimitName::Cutter, "FastCDC cutter", 2.8e9, cut(&content)),
    ])
}

fn limit(name: LimitName, title: &'static str, reference: f64, bytes_per_s: f64) -> Limit {
    Limit::new(name, title, Unit::BytesPerSecond, bytes_per_s, BASIS, Some(reference)).costing(1e9 / bytes_per_s)
}

/// The best of some passes over `work`, which handles `bytes` each time, in bytes a core-second.
fn best_rate(bytes: usize, mut work: impl FnMut()) -> f64 {
    work();
    let fastest = (0..PASSES)
        .map(|_| {
            let begun = limit::thread_cpu();
            work();
            (limit::thread_cpu() - begun).as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min);
    bytes as f64 / fastest
}

fn blake3(content: &Bytes, rounds: usize) -> f64 {
    let block = &content[..BLOCK_BYTES];
    best_rate(BLOCK_BYTES * rounds, || {
        for _ in 0..rounds {
            black_box(blake3::hash(black_box(block)));
        }
    })
}

fn seal(content: &Bytes, rounds: usize) -> f64 {
    let mut block = content[..BLOCK_BYTES].to_vec();
    best_rate(BLOCK_BYTES * rounds, || {
        for _ in 0..rounds {
            // One key and nonce for all is safe here alone: nothing of this leaves the function.
            black_box(Aes256Gcm.encrypt(&[7; 32], &[0; NONCE_BYTES], b"", black_box(&mut block)));
        }
    })
}

/// In bytes of data: the parity comes on top.
fn erasure(content: &Bytes, rounds: usize) -> anyhow::Result<f64> {
    let code = ReedSolomon::new(DATA_FRAGMENTS, PARITY_FRAGMENTS)?;
    let data: Vec<&[u8]> = content.chunks_exact(FRAGMENT_BYTES).take(DATA_FRAGMENTS).collect();
    let mut parity = vec![vec![0; FRAGMENT_BYTES]; PARITY_FRAGMENTS];
    let stripes = rounds / DATA_FRAGMENTS;
    let mut outcome = Ok(());
    let rate = best_rate(FRAGMENT_BYTES * DATA_FRAGMENTS * stripes, || {
        for _ in 0..stripes {
            outcome = outcome.and(code.encode_sep(black_box(&data), &mut parity));
        }
    });
    outcome?;
    Ok(rate)
}

/// The whole content as one buffer: the scan without the copy of blocks that straddle buffers.
fn cut(content: &Bytes) -> f64 {
    best_rate(content.len(), || {
        let mut cutter = Cutter::new();
        black_box(cutter.push(content.clone()));
        black_box(cutter.finish());
    })
}

fn content(seed: u64, length_bytes: u64) -> Bytes {
    let mut seeded = SeededContent::new(seed, length_bytes);
    let mut content = BytesMut::new();
    while let Some(part) = seeded.next_part() {
        content.extend_from_slice(&part);
    }
    content.freeze()
}
