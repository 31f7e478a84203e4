//! A seeded content with pieces of it replaced, as a stream, and how a client cuts and names it.
//!
//! Invariants: nothing is held whole, of a new content only the blocks that the old one lacks; places of patches are those of the
//! content without any, in rising order, and no two touch.

use crate::content::SeededContent;
use bytes::{Buf, Bytes};
use client_sdk::delta::CutContent;
use codec::cut::Cutter;
use codec::digest::{FileDigest, PageCutter, block_digest};
use codec::keys::DigestKey;
use futures_util::Stream;
use model::digest::Digest;
use model::entry::BlockRow;
use std::collections::{BTreeSet, VecDeque};
use std::io;

/// A piece of a content that others bytes take the place of.
#[derive(Clone, Debug)]
pub(super) struct Patch {
    /// Its first byte.
    pub(super) at: u64,
    /// How many bytes go.
    pub(super) removed: u64,
    /// What comes instead.
    pub(super) put: Bytes,
}

/// What a content consists of.
#[derive(Clone, Debug)]
pub(super) struct Content {
    /// Decides its bytes.
    pub(super) seed: u64,
    /// How many there are without patches.
    pub(super) seeded_bytes: u64,
    pub(super) patches: Vec<Patch>,
}

impl Content {
    /// Its length.
    pub(super) fn bytes(&self) -> u64 {
        let put: u64 = self.patches.iter().map(|patch| patch.put.len() as u64).sum();
        let removed: u64 = self.patches.iter().map(|patch| patch.removed).sum();
        self.seeded_bytes + put - removed
    }

    /// Its bytes from the first on.
    pub(super) fn open(&self) -> Patched {
        Patched {
            base: SeededContent::new(self.seed, self.seeded_bytes),
            at: 0,
            part: Bytes::new(),
            patches: self.patches.clone().into(),
        }
    }
}

/// The bytes of a content that are left.
pub(super) struct Patched {
    base: SeededContent,
    /// Where the next byte of `base` lies.
    at: u64,
    /// What was taken out of `base` and not given yet.
    part: Bytes,
    patches: VecDeque<Patch>,
}

impl Patched {
    /// The next part; `None` at the end.
    pub(super) fn next_part(&mut self) -> Option<Bytes> {
        loop {
            let at = self.at;
            let here = self.patches.front_mut().filter(|patch| patch.at == at);
            if let Some(patch) = here {
                if !patch.put.is_empty() {
                    return Some(std::mem::take(&mut patch.put));
                }
                if patch.removed == 0 {
                    self.patches.pop_front();
                    continue;
                }
            }
            if self.part.is_empty() {
                self.part = self.base.next_part()?;
            }
            match self.patches.front_mut() {
                Some(patch) if patch.at == at => {
                    let passed = patch.removed.min(self.part.len() as u64);
                    self.part.advance(usize::try_from(passed).ok()?);
                    self.at += passed;
                    (patch.at, patch.removed) = (patch.at + passed, patch.removed - passed);
                }
                next => {
                    let until = next.map_or(u64::MAX, |patch| patch.at - at);
                    let given = until.min(self.part.len() as u64);
                    self.at += given;
                    return Some(self.part.split_to(usize::try_from(given).ok()?));
                }
            }
        }
    }

    /// As the body of a request.
    pub(super) fn stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        futures_util::stream::unfold(self, |mut left| async move {
            let part = left.next_part()?;
            Some((Ok(part), left))
        })
    }
}

/// A content as a client knows it.
pub(super) struct Cut {
    /// Its blocks; the bytes only of those that were to be kept, and nothing in the place of others.
    pub(super) content: CutContent,
    /// The name of all of it.
    pub(super) digest: Digest,
}

/// Cuts a content. With an `old` list the bytes of blocks that this list lacks are kept, without one none.
pub(super) fn cut(mut content: Patched, key: &DigestKey, old: Option<&[BlockRow]>) -> Cut {
    let known: Option<BTreeSet<Digest>> = old.map(|rows| rows.iter().map(|row| row.digest).collect());
    let (mut found, mut pages, mut file) = (CutContent::default(), PageCutter::new(key), FileDigest::new(key));
    let mut take = |block: Bytes| {
        let row = BlockRow {
            digest: block_digest(key, &block),
            size: u32::try_from(block.len()).unwrap_or(u32::MAX),
        };
        let is_kept = known.as_ref().is_some_and(|known| !known.contains(&row.digest));
        found.rows.push(row);
        found.blocks.push(if is_kept { block } else { Bytes::new() });
        if let Some(page) = pages.push(row) {
            file.push(&page.digest);
        }
    };
    let mut cutter = Cutter::new();
    while let Some(part) = content.next_part() {
        cutter.push(part).into_iter().for_each(&mut take);
    }
    cutter.finish().into_iter().for_each(&mut take);
    if let Some(page) = pages.finish() {
        file.push(&page.digest);
    }
    Cut {
        content: found,
        digest: file.finish(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Content, Patch, cut};
    use crate::content::{PART_BYTES, SeededContent};
    use bytes::Bytes;
    use client_sdk::delta::CutContent;
    use codec::keys::DigestKey;

    const SEEDED_BYTES: u64 = 5 * PART_BYTES as u64 + 7;

    fn seeded(bytes: u64) -> Vec<u8> {
        let mut content = SeededContent::new(3, bytes);
        let parts = std::iter::from_fn(|| content.next_part());
        parts.flat_map(|part| part.to_vec()).collect()
    }

    fn all(content: &Content) -> Vec<u8> {
        let mut left = content.open();
        let parts = std::iter::from_fn(|| left.next_part());
        parts.flat_map(|part| part.to_vec()).collect()
    }

    /// Each patch is its place, what goes, and what comes.
    fn check(patches: &[(u64, u64, &[u8])]) {
        let mut expected = seeded(SEEDED_BYTES);
        for (at, removed, put) in patches.iter().rev() {
            let (first, end) = (*at as usize, (*at + *removed) as usize);
            drop(expected.splice(first..end, put.iter().copied()));
        }
        let patch = |(at, removed, put): &(u64, u64, &[u8])| Patch {
            at: *at,
            removed: *removed,
            put: Bytes::copy_from_slice(put),
        };
        let content = Content {
            seed: 3,
            seeded_bytes: SEEDED_BYTES,
            patches: patches.iter().map(patch).collect(),
        };
        assert!(all(&content) == expected, "{patches:?}");
        assert_eq!(content.bytes(), expected.len() as u64, "{patches:?}");
    }

    #[test]
    fn a_patched_content_is_what_splicing_a_whole_one_gives() {
        let part = PART_BYTES as u64;
        check(&[]);
        check(&[(0, 0, b"x")]);
        check(&[(0, 1, b"x")]);
        check(&[(SEEDED_BYTES, 0, b"end")]);
        check(&[(SEEDED_BYTES - 1, 1, b"")]);
        check(&[(part - 3, 2 * part, b"across parts")]);
        check(&[
            (part, part, b"a whole part"),
            (3 * part + 1, 0, b"y"),
            (4 * part, 9, b""),
        ]);
        check(&[(0, SEEDED_BYTES, b"all of it")]);
    }

    #[test]
    fn only_blocks_that_the_old_list_lacks_keep_their_bytes() {
        let key = DigestKey::new([5; 32]);
        let mut content = Content {
            seed: 3,
            seeded_bytes: 12 << 20,
            patches: Vec::new(),
        };
        let whole = CutContent::of(seeded(12 << 20).into(), &key);
        let before = cut(content.open(), &key, None);
        assert_eq!(before.content.rows, whole.rows);
        assert!(before.content.blocks.iter().all(Bytes::is_empty));
        content.patches.push(Patch {
            at: 6 << 20,
            removed: 0,
            put: Bytes::from_static(b"x"),
        });
        let now = cut(content.open(), &key, Some(&before.content.rows));
        let expected = CutContent::of(all(&content).into(), &key);
        assert_eq!(now.content.rows, expected.rows);
        assert_ne!(now.digest, before.digest);
        let is_new = |at: usize| !whole.rows.contains(&expected.rows[at]);
        assert!((0..expected.rows.len()).any(is_new));
        for (at, block) in now.content.blocks.iter().enumerate() {
            let kept = if is_new(at) {
                expected.blocks[at].clone()
            } else {
                Bytes::new()
            };
            assert!(*block == kept, "block {at}");
        }
    }
}
