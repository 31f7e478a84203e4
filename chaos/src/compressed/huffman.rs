//! Canonical prefix codes of a bounded length (RFC 1951 section 3.2.2; ITU-T T.81 annex C numbers them alike).
//!
//! Pure. Not here: how codes are written, since one format begins a byte at its top and the other at its bottom.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::iter::successors;

/// No code of either format is longer.
const LENGTH_MAX: u8 = 16;

/// The length of each symbol's code in bits, from how often each occurs; 0 for one that does not. A symbol that is alone gets one bit.
///
/// Where the best code is longer than `most`, frequencies are flattened until it is not; `most` must let all symbols have codes of
/// one length.
pub(super) fn lengths(frequencies: &[u64], most: u8) -> Vec<u8> {
    let mut frequencies = frequencies.to_vec();
    loop {
        let lengths = best(&frequencies);
        if lengths.iter().all(|length| *length <= most) {
            return lengths;
        }
        for frequency in &mut frequencies {
            *frequency = frequency.div_ceil(2);
        }
    }
}

/// Huffman's code.
fn best(frequencies: &[u64]) -> Vec<u8> {
    let used = |symbol: &usize| frequencies[*symbol] > 0;
    let symbols = (0..frequencies.len()).filter(used);
    let mut open: BinaryHeap<_> = symbols.map(|symbol| Reverse((frequencies[symbol], symbol))).collect();
    // Symbols first, then the nodes above them.
    let mut parents: Vec<Option<usize>> = vec![None; frequencies.len()];
    while let (Some(Reverse((one, first))), Some(Reverse((other, second)))) = (open.pop(), open.pop()) {
        let node = parents.len();
        parents.push(None);
        (parents[first], parents[second]) = (Some(node), Some(node));
        open.push(Reverse((one + other, node)));
    }
    let depth = |symbol: usize| successors(parents[symbol], |node| parents[*node]).count() as u8;
    let length = |symbol: usize| if used(&symbol) { depth(symbol).max(1) } else { 0 };
    (0..frequencies.len()).map(length).collect()
}

/// The code of each symbol: shorter ones first, those of one length in the order of their symbols.
pub(super) fn codes(lengths: &[u8]) -> Vec<u32> {
    let mut codes = vec![0; lengths.len()];
    let mut next = 0;
    for length in 1..=LENGTH_MAX {
        for (code, _) in codes.iter_mut().zip(lengths).filter(|(_, own)| **own == length) {
            *code = next;
            next += 1;
        }
        next <<= 1;
    }
    codes
}

#[cfg(test)]
pub(super) mod tests {
    use super::{LENGTH_MAX, codes, lengths};
    use std::collections::BTreeMap;

    /// Symbols by the length of their code and the code.
    pub(in super::super) struct Reader(BTreeMap<(u8, u32), usize>);

    impl Reader {
        pub(in super::super) fn new(lengths: &[u8]) -> Self {
            let used = codes(lengths)
                .into_iter()
                .enumerate()
                .filter(|(at, _)| lengths[*at] > 0);
            Self(used.map(|(at, code)| ((lengths[at], code), at)).collect())
        }

        /// Takes bits of a code until they are a symbol.
        pub(in super::super) fn read(&self, mut bit: impl FnMut() -> u32) -> usize {
            let (mut code, mut length) = (0, 0);
            loop {
                (code, length) = ((code << 1) | bit(), length + 1);
                assert!(length <= LENGTH_MAX, "no code begins like this");
                if let Some(symbol) = self.0.get(&(length, code)) {
                    return *symbol;
                }
            }
        }
    }

    /// Exactly all codes are used up, as both formats ask of a code of two symbols or more.
    fn is_complete(lengths: &[u8]) -> bool {
        let used = lengths.iter().filter(|length| **length > 0);
        used.map(|length| 1_u64 << (16 - length)).sum::<u64>() == 1 << 16
    }

    #[test]
    fn what_occurs_often_has_a_short_code_and_no_code_begins_another() {
        let frequencies = [40, 0, 20, 20, 10, 5, 5];
        let found = lengths(&frequencies, 15);
        let bits: u64 = found
            .iter()
            .zip(frequencies)
            .map(|(length, often)| u64::from(*length) * often)
            .sum();
        // By hand: 1, 3, 3, 3, 4, 4 bits, or 2, 2, 2, 3, 4, 4, which cost the same.
        assert_eq!(bits, 40 + 3 * 50 + 4 * 10);
        assert_eq!(found[1], 0);
        assert!(is_complete(&found), "{found:?}");
        for (symbol, length) in found.iter().enumerate().filter(|(_, length)| **length > 0) {
            let code = codes(&found)[symbol];
            let mut left = (0..*length).rev().map(|at| (code >> at) & 1);
            assert_eq!(Reader::new(&found).read(|| left.next().unwrap()), symbol);
        }
    }

    #[test]
    fn a_bound_on_the_length_is_kept_and_one_symbol_alone_has_one_bit() {
        let fibonacci: Vec<u64> =
            std::iter::successors(Some((1_u64, 1_u64)), |(one, other)| Some((*other, one + other)))
                .take(30)
                .map(|(one, _)| one)
                .collect();
        assert!(*lengths(&fibonacci, 29).iter().max().unwrap() > 20);
        for most in [7, 15, 16] {
            let found = lengths(&fibonacci, most);
            assert!(
                is_complete(&found) && found.iter().all(|length| *length <= most),
                "{most}: {found:?}"
            );
        }
        assert_eq!(lengths(&[0, 9, 0], 15), [0, 1, 0]);
        assert_eq!(lengths(&[0, 0], 15), [0, 0]);
    }

    #[test]
    fn codes_are_those_of_the_example_in_the_standard() {
        let lengths = [3, 3, 3, 3, 3, 2, 4, 4];
        assert_eq!(codes(&lengths), [2, 3, 4, 5, 6, 0, 14, 15]);
    }
}
