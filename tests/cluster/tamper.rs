//! Bytes on data disks altered behind a cluster's back: read elsewhere, counted, remembered, and never given to anybody.
//!
//! The fragments are found in the segments by the formats' own pages (docs/format/journal.md, docs/format/fragment.md), and a
//! forger knows those as well: he makes every checksum right.
//! Not here: damage to the journal's own records (`disk`), to the Raft log (`metadata-raft`).

use crate::search::files_below;
use crate::served::eventually;
use crate::world::{World, noise};
use codec::fragment::FragmentHeader;
use reqwest::StatusCode;
use std::fs;
use std::path::{Path, PathBuf};

/// Of starts with one read each, until one is disturbed by nothing.
const TRIES: usize = 20;

const RECORD_HEADER_BYTES: usize = 40;
const MIB: usize = 1 << 20;

/// A fragment as it lies on a disk.
pub(crate) struct OnDisk {
    segment: PathBuf,
    /// Where its record begins in the segment.
    record_at: usize,
    pub(crate) header: FragmentHeader,
}

impl OnDisk {
    fn payload_at(&self) -> usize {
        self.record_at + RECORD_HEADER_BYTES + self.header.header_bytes()
    }

    /// Turns one bit in the middle.
    fn flip(&self) {
        let mut bytes = fs::read(&self.segment).unwrap();
        bytes[self.payload_at() + self.header.payload_bytes() / 2] ^= 1;
        fs::write(&self.segment, bytes).unwrap();
    }

    /// Turns a bit and makes everything right that anybody without the drive's key can: checksums, hashes, the record around
    /// them; and has the place index made anew from that.
    fn forge(&self) {
        let mut bytes = fs::read(&self.segment).unwrap();
        let payload = self.payload_at()..self.payload_at() + self.header.payload_bytes();
        bytes[payload.start + self.header.payload_bytes() / 2] ^= 1;
        let header =
            FragmentHeader::describe(self.header.name(), *self.header.form(), &bytes[payload.clone()]).unwrap();
        let front = header.to_bytes();
        bytes[payload.start - front.len()..payload.start].copy_from_slice(&front);
        let record = self.record_at;
        bytes[record + 32..record + 36].copy_from_slice(&crc32c::crc32c(&front).to_le_bytes());
        let number = u64::from_str_radix(self.segment.file_stem().unwrap().to_str().unwrap(), 16).unwrap();
        let crc = crc32c::crc32c(&bytes[record..record + 36]);
        let crc = crc32c::crc32c_append(crc, &number.to_le_bytes());
        let crc = crc32c::crc32c_append(crc, &(record as u64).to_le_bytes());
        bytes[record + 36..record + 40].copy_from_slice(&crc.to_le_bytes());
        self.replace(&bytes);
    }

    /// Writes the whole segment anew and has the place index made from it.
    fn replace(&self, bytes: &[u8]) {
        fs::write(&self.segment, bytes).unwrap();
        let disk = self
            .segment
            .ancestors()
            .find(|path| path.join("index").is_dir())
            .unwrap();
        fs::remove_dir_all(disk.join("index")).unwrap();
    }
}

/// Every fragment on every data disk below a directory, by name. What a node writes meanwhile may be found or not.
pub(crate) fn fragments(data_dir: &Path) -> Vec<OnDisk> {
    let mut found = Vec::new();
    for segment in files_below(data_dir) {
        if segment.extension().is_none_or(|ending| ending != "seg") || segment.to_string_lossy().contains("/metadata-")
        {
            continue;
        }
        let bytes = fs::read(&segment).unwrap();
        for record_at in
            (0..bytes.len().saturating_sub(RECORD_HEADER_BYTES)).filter(|at| bytes[*at..].starts_with(b"HFR1"))
        {
            if let Ok(header) = FragmentHeader::read_front(&bytes[record_at + RECORD_HEADER_BYTES..]) {
                found.push(OnDisk {
                    segment: segment.clone(),
                    record_at,
                    header,
                });
            }
        }
    }
    found.sort_by_key(|fragment| fragment.header.name());
    found
}

/// shows: QAS-016
#[tokio::test]
async fn tampered_fragments_are_read_elsewhere_counted_and_listed_and_too_many_are_refused() {
    let mut world = World::start_uncached().await;
    let bytes = noise(1, 3 * MIB);
    let id = world.put("/kept", &bytes).await.entry.id;
    world.cluster.stop().unwrap();
    let fragments = fragments(&world.data_dir());
    assert_eq!(fragments.len(), 6, "one stripe of 4+2");

    fragments[0].flip();
    world.start_again().await;
    let noticed = [
        "node_corrupt_fragments_total",
        "gateway_corrupt_fragments_total",
        "gateway_rebuilt_reads_total",
    ];
    read_until_noticed(&world, &id, &bytes, &noticed).await;
    // The list outlives the process that met the damage.
    world.restart().await;
    assert_eq!(listed(&world).await, 1.0);

    world.cluster.stop().unwrap();
    fragments[1].forge();
    world.start_again().await;
    // No disk can tell a forged fragment: the stripe's hash does, and the four that are whole give the stripe.
    let noticed = ["gateway_corrupt_fragments_total", "gateway_rebuilt_reads_total"];
    read_until_noticed(&world, &id, &bytes, &noticed).await;

    world.cluster.stop().unwrap();
    fragments[2].flip();
    world.start_again().await;
    world.content(&id, &[]).await.refused(500, "content_corrupt");
    // Parts that lie in whole fragments may still be read; what is given is right.
    let mut given = 0;
    for first in (0..bytes.len()).step_by(200_000) {
        let last = (first + 1_000).min(bytes.len() - 1);
        let back = world.content(&id, &[("range", &format!("bytes={first}-{last}"))]).await;
        if back.status == StatusCode::PARTIAL_CONTENT {
            assert!(back.body == bytes[first..=last], "bytes from {first}");
            given += 1;
        } else {
            back.refused(500, "content_corrupt");
        }
    }
    assert!(given < bytes.len().div_ceil(200_000), "nothing was refused");
}

/// Every read is right, and before long each of the counters has moved: of one read alone a fragment that was asked for late, in the
/// place of a slow one, may be there before the damaged one is answered for.
async fn read_until_noticed(world: &World, id: &str, bytes: &[u8], counters: &[&str]) {
    eventually("the damage is not counted", async || {
        let back = world.content(id, &[]).await;
        assert!(back.status == StatusCode::OK && back.body == bytes);
        for counter in counters {
            if world.metric(counter).await < 1.0 {
                return Err(*counter);
            }
        }
        Ok(())
    })
    .await;
}

/// Fragments on the lists of damaged ones, as the nodes tell when they are asked.
async fn listed(world: &World) -> f64 {
    let admin = world.cluster.admin().unwrap();
    admin
        .json(reqwest::Method::GET, "/api/v1/admin/status", None)
        .await
        .unwrap();
    world.metric("node_damaged_fragments").await
}

/// Nothing but the digest of a block tells that a fragment lies, and a whole read touches all fragments of data.
/// shows: QAS-016
#[tokio::test]
async fn each_single_forged_fragment_leaves_the_file_readable() {
    let mut world = World::start_uncached().await;
    let bytes = noise(2, 3 * MIB);
    let id = world.put("/kept", &bytes).await.entry.id;
    world.cluster.stop().unwrap();
    let fragments = fragments(&world.data_dir());
    assert_eq!(fragments.len(), 6, "one stripe of 4+2");
    for (number, fragment) in fragments.iter().enumerate() {
        let whole = fs::read(&fragment.segment).unwrap();
        fragment.forge();
        // A whole read touches the four fragments of data and, when they are right, no other.
        let wrong = if number < 4 { 1.0 } else { 0.0 };
        let mut tries = 0..TRIES;
        loop {
            assert!(
                tries.next().is_some(),
                "fragment {number} was counted {wrong} times in no read"
            );
            world.start_again().await;
            let back = world.content(&id, &[]).await;
            assert_eq!(back.status, StatusCode::OK, "fragment {number}: {back:?}");
            assert!(back.body == bytes, "fragment {number} was given as it is");
            let reads = world.metric("node_reads_total").await;
            let counted = world.metric("gateway_corrupt_fragments_total").await;
            world.cluster.stop().unwrap();
            if reads == 4.0 + wrong {
                assert_eq!(counted, wrong, "fragment {number}");
                break;
            }
            // One fragment came late, and another was asked for in its place.
            assert!(reads > 4.0 + wrong, "{reads} reads");
        }
        fragment.replace(&whole);
    }
}
