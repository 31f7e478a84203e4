//! The text form of ids: Crockford's base32, lower case, most significant bits first.
//!
//! Place in the picture: everything that a user sees as an id passes through here.
//! Invariants: one text per value (the spare low bits of the last letter are zero), so text equality is id equality.
//! Not here: what the bytes mean (`id`).

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const BITS_PER_LETTER: u32 = 5;

/// Writes `bytes` as base32: `ceil(len * 8 / 5)` letters, no padding.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity((bytes.len() * 8).div_ceil(5));
    let mut pending: u32 = 0;
    let mut pending_bits: u32 = 0;
    for byte in bytes {
        pending = (pending << 8) | u32::from(*byte);
        pending_bits += 8;
        while pending_bits >= BITS_PER_LETTER {
            pending_bits -= BITS_PER_LETTER;
            text.push(letter(pending >> pending_bits));
            pending &= (1 << pending_bits) - 1;
        }
    }
    if pending_bits > 0 {
        text.push(letter(pending << (BITS_PER_LETTER - pending_bits)));
    }
    text
}

/// Reads exactly `N` bytes back; `None` for another length, a foreign letter, or spare bits that are not zero.
///
/// Upper case and Crockford's look-alikes (`i`, `l`, `o`) are refused: an id has one spelling.
#[must_use]
pub fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != (N * 8).div_ceil(5) {
        return None;
    }
    let mut bytes = [0_u8; N];
    let mut filled = 0;
    let mut pending: u32 = 0;
    let mut pending_bits: u32 = 0;
    for letter in text.bytes() {
        let value = ALPHABET.iter().position(|known| *known == letter)?;
        pending = (pending << BITS_PER_LETTER) | u32::try_from(value).ok()?;
        pending_bits += BITS_PER_LETTER;
        if pending_bits >= 8 && filled < N {
            pending_bits -= 8;
            bytes[filled] = u8::try_from((pending >> pending_bits) & 0xff).ok()?;
            pending &= (1 << pending_bits) - 1;
            filled += 1;
        }
    }
    (filled == N && pending == 0).then_some(bytes)
}

fn letter(value: u32) -> char {
    char::from(ALPHABET[(value & 31) as usize])
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};
    use proptest::prelude::{any, proptest};

    proptest! {
        #[test]
        fn every_value_reads_back(bytes in any::<[u8; 16]>()) {
            assert_eq!(decode::<16>(&encode(&bytes)), Some(bytes));
        }

        #[test]
        fn a_text_that_reads_is_the_text_that_is_written(text in "[0-9a-z]{13}") {
            if let Some(bytes) = decode::<8>(&text) {
                assert_eq!(encode(&bytes), text);
            }
        }
    }

    #[test]
    fn foreign_letters_lengths_and_spare_bits_are_refused() {
        let good = encode(&[7; 8]);
        assert!(decode::<8>(&good.to_uppercase()).is_none() || good == good.to_uppercase());
        assert_eq!(decode::<8>(&good[1..]), None);
        assert_eq!(decode::<8>("0000000000001"), None, "one spare bit is set");
        assert_eq!(decode::<8>("000000000000i"), None);
        assert_eq!(decode::<8>("000000000000\u{fc}"), None);
    }
}
