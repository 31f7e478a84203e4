//! A keyed content digest of 32 bytes: the name of a block, a page or a file's content.
//!
//! Written as 64 lower-case hex letters. How one is computed is `codec::digest`; equal digests are only comparable inside a drive.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Length of every digest in bytes.
pub const DIGEST_BYTES: usize = 32;

/// A BLAKE3 digest keyed with a drive's digest key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest(pub [u8; DIGEST_BYTES]);

/// The plain BLAKE3 of a whole stripe, by which readers and repair know that fragments belong together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StripeHash(pub [u8; DIGEST_BYTES]);

impl Digest {
    /// Reads 64 lower-case hex letters; `None` for anything else.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let letters = text.as_bytes();
        if letters.len() != DIGEST_BYTES * 2 {
            return None;
        }
        let mut bytes = [0_u8; DIGEST_BYTES];
        for (byte, pair) in bytes.iter_mut().zip(letters.chunks_exact(2)) {
            *byte = (nibble(pair[0])? << 4) | nibble(pair[1])?;
        }
        Some(Self(bytes))
    }

    /// Writes 64 lower-case hex letters.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex(&self.0)
    }
}

fn nibble(letter: u8) -> Option<u8> {
    match letter {
        b'0'..=b'9' => Some(letter - b'0'),
        b'a'..=b'f' => Some(letter - b'a' + 10),
        _ => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [LETTERS[usize::from(byte >> 4)], LETTERS[usize::from(byte & 15)]])
        .map(char::from)
        .collect()
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", hex(&self.0))
    }
}

impl fmt::Debug for StripeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StripeHash({})", hex(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::Digest;
    use proptest::prelude::{any, proptest};

    proptest! {
        #[test]
        fn hex_reads_back(bytes in any::<[u8; 32]>()) {
            assert_eq!(Digest::from_hex(&Digest(bytes).to_hex()), Some(Digest(bytes)));
        }
    }

    #[test]
    fn upper_case_short_and_foreign_texts_are_refused() {
        let text = Digest([0xab; 32]).to_hex();
        assert_eq!(Digest::from_hex(&text.to_uppercase()), None);
        assert_eq!(Digest::from_hex(&text[2..]), None);
        assert_eq!(Digest::from_hex(&text.replace('a', "g")), None);
    }
}
