//! Looking for known bytes in every file below a directory: what `grep -r` would find, in one pass for many needles.
//!
//! A needle is a set of pieces, each of which is looked for by itself: a log that frames its records in blocks, or a compressor
//! that refers to earlier bytes, may break what was written anywhere, but it cannot break every piece. A content gives a piece
//! in regular distances, so whatever lies in one run of two such distances is found for certain.
//! Invariant: nothing is decoded and no file is left out, locks, logs and indexes included.
//! Not here: what may lie where (`secrecy`).
#![allow(
    clippy::disallowed_types,
    reason = "looked up at every byte of every file; its order is never seen"
)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

/// Long enough that chance does not find it in the bytes of a test's cluster, short enough to lie between two breaks.
const CONTENT_PIECE_BYTES: usize = 24;
/// A content is looked for at as many places as this, or at every piece when it is short.
const CONTENT_PIECES_MAX: usize = 4096;
/// Shorter needles are refused: they are found by chance.
const PIECE_BYTES_MIN: usize = 8;
/// Bits of the first filter: one look at half a megabyte decides for almost every byte.
const FILTER_BITS: u32 = 22;

/// Known bytes to look for.
pub(crate) struct Needle {
    name: String,
    pieces: BTreeSet<Vec<u8>>,
}

impl Needle {
    /// A content as it is: found where any of its pieces is.
    pub(crate) fn content(name: &str, bytes: &[u8]) -> Self {
        let distance = (bytes.len() / CONTENT_PIECES_MAX).max(CONTENT_PIECE_BYTES);
        let pieces = bytes
            .chunks(distance)
            .filter_map(|piece| piece.get(..CONTENT_PIECE_BYTES));
        Self::of(name, pieces.map(<[u8]>::to_vec))
    }

    /// A name or another short text as it is.
    pub(crate) fn text(name: &str, text: &str) -> Self {
        Self::of(name, [text.as_bytes().to_vec()])
    }

    /// A secret: as it is, in hex, and in base64 wherever it begins in what was encoded.
    pub(crate) fn secret(name: &str, bytes: &[u8]) -> Self {
        let hex = hex(bytes);
        let mut pieces = vec![bytes.to_vec(), hex.to_uppercase().into_bytes(), hex.into_bytes()];
        for offset in 0..3 {
            let text = base64_inside(bytes, offset);
            pieces.push(text.replace('+', "-").replace('/', "_").into_bytes());
            pieces.push(text.into_bytes());
        }
        Self::of(name, pieces)
    }

    fn of(name: &str, pieces: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let pieces: BTreeSet<Vec<u8>> = pieces.into_iter().collect();
        assert!(
            !pieces.is_empty() && pieces.iter().all(|piece| piece.len() >= PIECE_BYTES_MIN),
            "{name} is too short to be looked for"
        );
        Self {
            name: name.to_owned(),
            pieces,
        }
    }
}

/// What a search found.
#[derive(Default)]
pub(crate) struct Found {
    /// Needle -> file, from the directory that was searched -> pieces found in it.
    hits: BTreeMap<String, BTreeMap<PathBuf, usize>>,
    /// Every file that was read.
    pub(crate) files: BTreeSet<PathBuf>,
}

impl Found {
    /// The files in which a needle was found.
    pub(crate) fn files_with(&self, needle: &str) -> Vec<&Path> {
        let files = self.hits.get(needle).into_iter().flat_map(BTreeMap::keys);
        files.map(PathBuf::as_path).collect()
    }

    /// How many pieces of a needle were found in files for which `is_meant` holds.
    pub(crate) fn pieces(&self, needle: &str, is_meant: impl Fn(&Path) -> bool) -> usize {
        let files = self.hits.get(needle).into_iter().flatten();
        files.filter(|(file, _)| is_meant(file)).map(|(_, count)| count).sum()
    }

    /// Asserts that a needle lies in no file for which `is_forbidden` holds.
    pub(crate) fn assert_absent(&self, needle: &str, is_forbidden: impl Fn(&Path) -> bool) {
        let files: Vec<&Path> = self
            .files_with(needle)
            .into_iter()
            .filter(|file| is_forbidden(file))
            .collect();
        assert!(files.is_empty(), "{needle} lies in {files:?}");
    }
}

/// The pieces of all needles, so laid out that almost every position of a file is passed over by one look.
struct Pieces<'a> {
    filter: Vec<u64>,
    by_start: HashMap<[u8; PIECE_BYTES_MIN], Vec<(usize, &'a [u8])>>,
}

impl<'a> Pieces<'a> {
    fn of(needles: &'a [Needle]) -> Self {
        let mut pieces = Self {
            filter: vec![0; 1 << (FILTER_BITS - 6)],
            by_start: HashMap::new(),
        };
        for (number, needle) in needles.iter().enumerate() {
            for piece in &needle.pieces {
                let start = piece.first_chunk().expect("pieces have a least length");
                let slot = slot(start);
                pieces.filter[slot / 64] |= 1 << (slot % 64);
                pieces.by_start.entry(*start).or_default().push((number, piece));
            }
        }
        pieces
    }

    fn hits_in(&self, bytes: &[u8], mut hit: impl FnMut(usize)) {
        for at in 0..bytes.len().saturating_sub(PIECE_BYTES_MIN - 1) {
            let start: &[u8; PIECE_BYTES_MIN] = bytes[at..].first_chunk().expect("the loop ends before");
            let slot = slot(start);
            if self.filter[slot / 64] >> (slot % 64) & 1 == 0 {
                continue;
            }
            for (number, piece) in self.by_start.get(start).into_iter().flatten() {
                if bytes[at..].starts_with(piece) {
                    hit(*number);
                }
            }
        }
    }
}

fn slot(start: &[u8; PIECE_BYTES_MIN]) -> usize {
    // Fibonacci hashing (Knuth, volume 3, section 6.4).
    (u64::from_le_bytes(*start).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - FILTER_BITS)) as usize
}

/// Reads every file below `directory` and looks for every needle.
pub(crate) fn search(directory: &Path, needles: &[Needle]) -> Found {
    let pieces = Pieces::of(needles);
    let mut found = Found::default();
    for path in files_below(directory) {
        let name = path.strip_prefix(directory).expect("it lies below").to_path_buf();
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        pieces.hits_in(&bytes, |number| {
            let hits = found.hits.entry(needles[number].name.clone()).or_default();
            *hits.entry(name.clone()).or_default() += 1;
        });
        found.files.insert(name);
    }
    found
}

/// Every file below `directory`.
pub(crate) fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![directory.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for row in fs::read_dir(&folder).unwrap() {
            let path = row.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The letters of base64 that depend on nothing but `bytes` when these begin `offset` bytes behind a letter's edge.
fn base64_inside(bytes: &[u8], offset: usize) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let whole: Vec<u8> = bytes.iter().copied().skip((3 - offset) % 3).collect();
    whole
        .chunks_exact(3)
        .flat_map(|three| {
            let bits = u32::from(three[0]) << 16 | u32::from(three[1]) << 8 | u32::from(three[2]);
            [18, 12, 6, 0].map(|shift| char::from(LETTERS[(bits >> shift & 63) as usize]))
        })
        .collect()
}

#[test]
fn a_search_finds_what_was_planted_and_only_there() {
    let directory = tempfile::TempDir::new().unwrap();
    let content = crate::world::noise(1, 3_000);
    let plant = |name: &str, bytes: &[u8]| fs::write(directory.path().join(name), bytes).unwrap();
    fs::create_dir(directory.path().join("below")).unwrap();
    // Framed as a log with blocks would frame it: broken at any byte, at distances longer than two pieces.
    plant(
        "below/framed",
        &content.chunks(55).collect::<Vec<_>>().join(&b"<frame>"[..]),
    );
    plant("shifted", &[b"x", &content[7..200]].concat());
    plant("other", &crate::world::noise(2, 3_000));
    let secret = b"correct horse battery staple";
    plant("hex", format!("key={}", hex(secret)).as_bytes());
    // `user:correct horse battery staple`, as HTTP's Basic would carry it.
    plant(
        "base64",
        b"Authorization: Basic dXNlcjpjb3JyZWN0IGhvcnNlIGJhdHRlcnkgc3RhcGxl",
    );
    let needles = [Needle::content("content", &content), Needle::secret("secret", secret)];
    let found = search(directory.path(), &needles);
    assert_eq!(
        found.files_with("content"),
        [Path::new("below/framed"), Path::new("shifted")]
    );
    assert_eq!(found.files_with("secret"), [Path::new("base64"), Path::new("hex")]);
    assert_eq!(found.files.len(), 5);
    assert!(found.pieces("content", |file| file.starts_with("below")) >= 3_000 / 55);
}
