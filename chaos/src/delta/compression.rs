//! What text and what is compressed already take, and what compressing and sealing cost (QAS-011).
//!
//! The text is all sources and documents below a folder, each once; what is compressed already is noise, that text after it went
//! through zstd, the same in a zip, and pictures as JPEG. Sealed bytes are what the groups count of living blocks, before they are cut into fragments.
//! Not here: the choice of a level (docs/format/sealed.md).

use super::finding::Finding;
use super::stored::Stored;
use crate::compressed::{archive, picture};
use crate::content::SeededContent;
use crate::dev_cluster::DevCluster;
use anyhow::{Context, ensure};
use bytes::{Bytes, BytesMut};
use client_sdk::client::{Client, Target};
use codec::compress::compress;
use codec::cut::Cutter;
use codec::keys::DriveKey;
use codec::seal::DriveSeal;
use model::id::DriveId;
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

const TEXT_PERCENT_MAX: f64 = 40.0;
/// Less than this was not counted: sources repeat themselves, but not a hundredfold.
const TEXT_PERCENT_MIN: f64 = 1.0;
const OVER_PERCENT_MAX: f64 = 0.1;
/// What is compressed already does not become less; a hundredth is room for headers.
const UNDER_PERCENT_MAX: f64 = 1.0;
/// QAS-011: at this rate a core is all that it may take.
const RATE_BYTES_PER_S: f64 = 300e6;
const CORES_MAX: f64 = 1.0;
const TEXT_NAMES: [&str; 2] = [".md", ".rs"];
/// What a build leaves is no text of anybody.
const LEFT_OUT: &str = "target";
/// Less shows nothing: the last block of a content is short.
const TEXT_BYTES_MIN: usize = 2 << 20;
const NOISE_BYTES: u64 = 64 << 20;
/// As packers of files cut their input, more or less.
const PACKED_PART_BYTES: usize = 256 << 10;
const PASSES: usize = 3;
/// As many as a short walk gives, each of three million points.
const PICTURES: u64 = 8;
const PICTURE_POINTS: (u16, u16) = (2_048, 1_536);

/// What was put and what it takes sealed, in bytes, and how fast sealing is.
#[derive(Clone, Copy, Debug)]
struct Taken {
    text: (f64, f64),
    noise: (f64, f64),
    packed: (f64, f64),
    zip: (f64, f64),
    pictures: (f64, f64),
    seal_bytes_per_s: f64,
}

/// Puts text and what is compressed already; `texts` is the folder that the text is of.
pub(super) async fn measure(cluster: &DevCluster, texts: &Path, seed: u64) -> anyhow::Result<Vec<Finding>> {
    let text = text_below(texts)?;
    ensure!(
        text.len() >= TEXT_BYTES_MIN,
        "{} bytes of text lie below {}; {TEXT_BYTES_MIN} are needed",
        text.len(),
        texts.display()
    );
    println!("{} bytes of text of {}", text.len(), texts.display());
    let (packed, whole) = (packed(&text), text.clone());
    let zip = tokio::task::spawn_blocking(move || archive(whole.chunks(PACKED_PART_BYTES))).await?;
    let client = cluster.client().await?;
    let taken = Taken {
        text: put(cluster, &client, "/text", text.clone()).await?,
        noise: put(
            cluster,
            &client,
            "/noise",
            SeededContent::new(seed, NOISE_BYTES).whole(),
        )
        .await?,
        packed: put(cluster, &client, "/packed", packed).await?,
        zip: put(cluster, &client, "/texts.zip", zip.into()).await?,
        pictures: put_pictures(cluster, &client, seed).await?,
        seal_bytes_per_s: tokio::task::spawn_blocking(move || seal_rate(&text)).await?,
    };
    Ok(judge(&taken))
}

/// Puts a content; its length, and sealed bytes that came with it.
async fn put(cluster: &DevCluster, client: &Client, path: &str, content: Bytes) -> anyhow::Result<(f64, f64)> {
    let before = Stored::look(cluster).await?;
    let bytes = content.len();
    let done = client
        .put(&Target::new_file(path), content)
        .await
        .with_context(|| format!("put {path}"))?;
    ensure!(done.entry.size == bytes as u64, "{path} has another length");
    let after = Stored::look(cluster).await?;
    Ok((bytes as f64, after.living_bytes - before.living_bytes))
}

/// Puts each picture as a file of its own; what all of them are and take.
async fn put_pictures(cluster: &DevCluster, client: &Client, seed: u64) -> anyhow::Result<(f64, f64)> {
    let (mut plain, mut sealed) = (0.0, 0.0);
    let (width, height) = PICTURE_POINTS;
    for number in 0..PICTURES {
        let content = move || picture(seed.wrapping_add(number), width, height);
        let content = tokio::task::spawn_blocking(content).await?;
        let one = put(cluster, client, &format!("/picture {number}.jpg"), content.into()).await?;
        (plain, sealed) = (plain + one.0, sealed + one.1);
    }
    Ok((plain, sealed))
}

/// All texts below a folder, in the order of their paths.
fn text_below(folder: &Path) -> anyhow::Result<Bytes> {
    let mut paths = Vec::new();
    gather(folder, &mut paths)?;
    paths.sort();
    let mut text = BytesMut::new();
    for path in paths {
        text.extend_from_slice(&fs::read(&path).with_context(|| format!("read {}", path.display()))?);
    }
    Ok(text.freeze())
}

fn gather(folder: &Path, paths: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for inside in fs::read_dir(folder).with_context(|| format!("look into {}", folder.display()))? {
        let inside = inside?;
        let name = inside.file_name();
        let name = name.to_string_lossy();
        // Not through links: a text behind two of them would be there twice.
        let about = inside.file_type()?;
        if about.is_dir() && name != LEFT_OUT && !name.starts_with('.') {
            gather(&inside.path(), paths)?;
        }
        if about.is_file() && TEXT_NAMES.iter().any(|end| name.ends_with(*end)) {
            paths.push(inside.path());
        }
    }
    Ok(())
}

/// The text as zstd leaves it, one part behind the other.
fn packed(text: &Bytes) -> Bytes {
    let mut packed = BytesMut::new();
    for part in text.chunks(PACKED_PART_BYTES) {
        packed.extend_from_slice(&compress(part).unwrap_or_else(|| part.to_vec()));
    }
    packed.freeze()
}

/// The best of some passes over the text's blocks on one thread, names apart.
fn seal_rate(text: &Bytes) -> f64 {
    // A drive that is nobody's: what is sealed here goes nowhere.
    let seal = DriveSeal::new(DriveId(1), DriveKey::new([7; 32]));
    let mut cutter = Cutter::new();
    let mut blocks = cutter.push(text.clone());
    blocks.extend(cutter.finish());
    let named: Vec<_> = blocks.iter().map(|block| (seal.digest(block), block)).collect();
    let mut fastest = f64::INFINITY;
    for _ in 0..PASSES {
        let begun = Instant::now();
        for (digest, block) in &named {
            black_box(seal.seal_block(digest, block, &mut |bytes: &mut [u8]| bytes.fill(9)));
        }
        fastest = fastest.min(begun.elapsed().as_secs_f64());
    }
    text.len() as f64 / fastest
}

/// Run by `make delta`.
fn judge(taken: &Taken) -> Vec<Finding> {
    let percent = |(plain, sealed): (f64, f64)| sealed * 100.0 / plain;
    let over = |what: &str, taken| {
        let what = format!("{what}: stored over input");
        Finding::between(
            what,
            percent(taken) - 100.0,
            "%",
            (-UNDER_PERCENT_MAX, OVER_PERCENT_MAX),
        )
    };
    vec![
        Finding::between(
            "text: stored of input",
            percent(taken.text),
            "%",
            (TEXT_PERCENT_MIN, TEXT_PERCENT_MAX),
        ),
        over("noise", taken.noise),
        over("compressed text", taken.packed),
        over("zip", taken.zip),
        over("JPEG", taken.pictures),
        Finding::at_most(
            "compressing and sealing 300 MB of text a second",
            RATE_BYTES_PER_S / taken.seal_bytes_per_s,
            "cores",
            CORES_MAX,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::finding::tests::missed;
    use super::{Taken, gather, judge, packed};
    use crate::content::SeededContent;
    use bytes::Bytes;

    const WELL: Taken = Taken {
        text: (1e6, 4e5),
        noise: (1e6, 1_000_999.0),
        packed: (1e6, 1_000_030.0),
        zip: (1e6, 1_000_030.0),
        pictures: (8e6, 8_000_240.0),
        seal_bytes_per_s: 3e8,
    };

    fn check(taken: Taken, expected: &[&str]) {
        assert_eq!(missed(&judge(&taken)), expected);
    }

    #[test]
    fn text_that_stays_long_noise_that_grows_and_a_slow_seal_are_missed() {
        check(WELL, &[]);
        let text = (1e6, 400_001.0);
        check(Taken { text, ..WELL }, &["text: stored of input"]);
        let noise = (1e6, 1_001_100.0);
        check(Taken { noise, ..WELL }, &["noise: stored over input"]);
        check(Taken { packed: noise, ..WELL }, &["compressed text: stored over input"]);
        check(Taken { zip: noise, ..WELL }, &["zip: stored over input"]);
        let pictures = (8e6, 8_008_100.0);
        check(Taken { pictures, ..WELL }, &["JPEG: stored over input"]);
        let slow = Taken {
            seal_bytes_per_s: 2.9e8,
            ..WELL
        };
        check(slow, &["compressing and sealing 300 MB of text a second"]);
        // Nothing was put.
        check(
            Taken {
                text: (0.0, 0.0),
                ..WELL
            },
            &["text: stored of input"],
        );
        // Nobody told what it takes.
        let untold = (1e6, 0.0);
        check(
            Taken {
                text: untold,
                zip: untold,
                ..WELL
            },
            &["text: stored of input", "zip: stored over input"],
        );
    }

    #[test]
    fn texts_are_gathered_and_what_a_build_leaves_is_not() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["a.rs", "b/c.md", "b/d.bin", "target/e.rs", ".git/f.md"] {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "text").unwrap();
        }
        let mut paths = Vec::new();
        gather(folder.path(), &mut paths).unwrap();
        paths.sort();
        assert_eq!(paths, ["a.rs", "b/c.md"].map(|path| folder.path().join(path)));
    }

    #[test]
    fn packed_text_is_shorter_and_packing_it_again_gains_nothing() {
        // Each letter holds four bits of noise.
        let noise = SeededContent::new(1, 150_000).next_part().unwrap();
        let text: String = noise.iter().map(|byte| format!("{byte:02x}")).collect();
        let once = packed(&Bytes::from(text.clone()));
        assert!(once.len() * 10 < text.len() * 6, "{}", once.len());
        assert_eq!(packed(&once), once);
    }
}
