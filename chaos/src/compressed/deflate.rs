//! Deflate (RFC 1951): repeats are copied from at most 32 KiB before, and everything is written by codes of its own block.
//!
//! Differs from zlib in looking back a few times only, not waiting for a longer repeat, and spelling code lengths out one by one: it
//! is a few percent longer.
//! Not here: what a zip puts around it (`zip`).

use super::huffman::{codes, lengths};

const WINDOW_BYTES: usize = 32 << 10;
const COPY_MIN: usize = 3;
/// One less than the format can say, so that its longest length, which has a symbol of its own, does not occur.
const COPY_MAX: usize = 257;
/// How many places that begin alike are looked at.
const LOOKS: usize = 16;
const HASHES: usize = 1 << 15;
const BLOCK_TOKENS: usize = 32 << 10;
const NOWHERE: u32 = u32::MAX;

/// Literals, the end of a block, and lengths of copies but the longest.
const SYMBOLS: usize = 257 + LENGTHS;
const END: usize = 256;
const LENGTHS: usize = 28;
const DISTANCES: usize = 30;
const CODE_BITS_MAX: u8 = 15;
/// In what order the lengths of the code that spells code lengths are told.
const SPELLING: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
const SPELLING_BITS_MAX: u8 = 7;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Literal(u8),
    Copy { length: usize, distance: usize },
}

/// A symbol, and bits behind it.
#[derive(Clone, Copy, Debug)]
struct Range {
    symbol: usize,
    /// The first value of the symbol's.
    first: usize,
    bits: u32,
}

/// The bytes of `text`, compressed.
pub(super) fn deflate(text: &[u8]) -> Vec<u8> {
    let (tokens, mut bits) = (tokens(text), Bits::default());
    let mut blocks = tokens.chunks(BLOCK_TOKENS).peekable();
    if blocks.peek().is_none() {
        block(&mut bits, &[], true);
    }
    while let Some(tokens) = blocks.next() {
        block(&mut bits, tokens, blocks.peek().is_none());
    }
    bits.finish()
}

/// Of each place the longest of the nearest repeats is taken at once.
fn tokens(text: &[u8]) -> Vec<Token> {
    let mut heads = vec![NOWHERE; HASHES];
    // For each place the one before it that has the same hash.
    let mut before = vec![NOWHERE; text.len()];
    let (mut tokens, mut at) = (Vec::new(), 0);
    while at < text.len() {
        let head = hash(&text[at..]).map_or(NOWHERE, |hash| heads[hash]);
        let taken = match longest(text, at, head, &before) {
            Some((length, distance)) => {
                tokens.push(Token::Copy { length, distance });
                length
            }
            None => {
                tokens.push(Token::Literal(text[at]));
                1
            }
        };
        for passed in at..at + taken {
            if let Some(hash) = hash(&text[passed..]) {
                before[passed] = std::mem::replace(&mut heads[hash], passed as u32);
            }
        }
        at += taken;
    }
    tokens
}

/// Of the next three bytes, if there are so many.
fn hash(left: &[u8]) -> Option<usize> {
    let [one, two, three, ..] = left else {
        return None;
    };
    let bytes = u32::from_le_bytes([*one, *two, *three, 0]);
    Some((bytes.wrapping_mul(2_654_435_761) >> 17) as usize % HASHES)
}

/// Length and distance of the longest repeat among those that are looked at.
fn longest(text: &[u8], at: usize, head: u32, before: &[u32]) -> Option<(usize, usize)> {
    let alike = |place: usize| {
        let pairs = text[place..].iter().zip(&text[at..]).take(COPY_MAX);
        pairs.take_while(|(then, now)| then == now).count()
    };
    let places = std::iter::successors(Some(head), |place| before.get(*place as usize).copied());
    let places = places.take_while(|place| *place != NOWHERE).map(|place| place as usize);
    let near = places.take_while(|place| at - place <= WINDOW_BYTES).take(LOOKS);
    let found = near.map(|place| (alike(place), at - place));
    found
        .filter(|(length, _)| *length >= COPY_MIN)
        .max_by_key(|(length, distance)| (*length, WINDOW_BYTES - distance))
}

/// The symbol of a value among `count` whose bits grow by one each `each` of them, the first ones of which have none.
fn range(value: usize, smallest: usize, count: usize, each: usize) -> Range {
    let mut first = smallest;
    for symbol in 0..count {
        let bits = (symbol / each).saturating_sub(1) as u32;
        let end = first + (1 << bits);
        if value < end {
            return Range { symbol, first, bits };
        }
        first = end;
    }
    unreachable!("{value} is longer or farther than what is looked for")
}

fn of_length(length: usize) -> Range {
    range(length, COPY_MIN, LENGTHS, 4)
}

fn of_distance(distance: usize) -> Range {
    range(distance, 1, DISTANCES, 2)
}

fn block(bits: &mut Bits, tokens: &[Token], is_last: bool) {
    let (mut symbols, mut distances) = ([0; SYMBOLS], [0; DISTANCES]);
    symbols[END] = 1;
    for token in tokens {
        match *token {
            Token::Literal(byte) => symbols[usize::from(byte)] += 1,
            Token::Copy { length, distance } => {
                symbols[END + 1 + of_length(length).symbol] += 1;
                distances[of_distance(distance).symbol] += 1;
            }
        }
    }
    let of_symbols = Code::of(lengths(&symbols, CODE_BITS_MAX));
    let of_distances = Code::of(lengths(&distances, CODE_BITS_MAX));
    head(bits, &of_symbols, &of_distances, is_last);
    for token in tokens {
        match *token {
            Token::Literal(byte) => of_symbols.write(bits, usize::from(byte)),
            Token::Copy { length, distance } => {
                let (long, far) = (of_length(length), of_distance(distance));
                of_symbols.write(bits, END + 1 + long.symbol);
                bits.push((length - long.first) as u32, long.bits);
                of_distances.write(bits, far.symbol);
                bits.push((distance - far.first) as u32, far.bits);
            }
        }
    }
    of_symbols.write(bits, END);
}

/// The two codes of a block, by the lengths of their codes, which have a code themselves.
fn head(bits: &mut Bits, symbols: &Code, distances: &Code, is_last: bool) {
    let told: Vec<usize> = symbols
        .lengths
        .iter()
        .chain(&distances.lengths)
        .map(|length| usize::from(*length))
        .collect();
    let mut frequencies = [0; SPELLING.len()];
    told.iter().for_each(|length| frequencies[*length] += 1);
    let spelling = Code::of(lengths(&frequencies, SPELLING_BITS_MAX));
    bits.push(u32::from(is_last), 1);
    bits.push(2, 2);
    bits.push((SYMBOLS - 257) as u32, 5);
    bits.push((DISTANCES - 1) as u32, 5);
    bits.push((SPELLING.len() - 4) as u32, 4);
    for symbol in SPELLING {
        bits.push(u32::from(spelling.lengths[symbol]), 3);
    }
    for length in told {
        spelling.write(bits, length);
    }
}

/// A code and the lengths that make it.
struct Code {
    lengths: Vec<u8>,
    codes: Vec<u32>,
}

impl Code {
    fn of(lengths: Vec<u8>) -> Self {
        Self {
            codes: codes(&lengths),
            lengths,
        }
    }

    /// Codes begin at their top bit, and everything else at its bottom.
    fn write(&self, bits: &mut Bits, symbol: usize) {
        let length = u32::from(self.lengths[symbol]);
        bits.push(self.codes[symbol].reverse_bits() >> (32 - length), length);
    }
}

/// Bits that fill bytes from the bottom.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    held: u64,
    count: u32,
}

impl Bits {
    fn push(&mut self, value: u32, count: u32) {
        self.held |= u64::from(value) << self.count;
        self.count += count;
        while self.count >= 8 {
            self.bytes.push(self.held as u8);
            self.held >>= 8;
            self.count -= 8;
        }
    }

    fn finish(mut self) -> Vec<u8> {
        if self.count > 0 {
            self.bytes.push(self.held as u8);
        }
        self.bytes
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::huffman::tests::Reader;
    use super::{COPY_MIN, DISTANCES, END, LENGTHS, SPELLING, SYMBOLS, deflate};
    use crate::content::SeededContent;

    /// The bits of a compressed content.
    struct Bits<'a> {
        bytes: &'a [u8],
        at: usize,
    }

    impl Bits<'_> {
        fn bit(&mut self) -> u32 {
            let bit = self.bytes[self.at / 8] >> (self.at % 8);
            self.at += 1;
            u32::from(bit & 1)
        }

        fn take(&mut self, count: u32) -> usize {
            (0..count).map(|at| (self.bit() as usize) << at).sum()
        }
    }

    /// First values and bits of all symbols, summed up from the first on.
    fn values(smallest: usize, count: usize, each: usize) -> Vec<(usize, u32)> {
        let bits = |symbol: usize| (symbol / each).saturating_sub(1) as u32;
        let first = |symbol: usize| smallest + (0..symbol).map(|below| 1_usize << bits(below)).sum::<usize>();
        (0..count).map(|symbol| (first(symbol), bits(symbol))).collect()
    }

    /// What a decoder makes of it that knows blocks with codes of their own, and no other.
    pub(in super::super) fn inflate(bytes: &[u8]) -> Vec<u8> {
        let mut bits = Bits { bytes, at: 0 };
        let (long, far) = (values(COPY_MIN, LENGTHS, 4), values(1, DISTANCES, 2));
        let mut text = Vec::new();
        loop {
            let is_last = bits.bit() == 1;
            assert_eq!(bits.take(2), 2, "a block with codes of its own");
            let (symbols, distances, told) = (bits.take(5) + 257, bits.take(5) + 1, bits.take(4) + 4);
            assert_eq!((symbols, distances), (SYMBOLS, DISTANCES));
            let mut spelling = [0; SPELLING.len()];
            for symbol in &SPELLING[..told] {
                spelling[*symbol] = bits.take(3) as u8;
            }
            let spelling = Reader::new(&spelling);
            let lengths: Vec<u8> = (0..symbols + distances)
                .map(|_| spelling.read(|| bits.bit()) as u8)
                .collect();
            let (symbols, distances) = lengths.split_at(symbols);
            let (symbols, distances) = (Reader::new(symbols), Reader::new(distances));
            loop {
                match symbols.read(|| bits.bit()) {
                    END => break,
                    byte if byte < END => text.push(byte as u8),
                    symbol => {
                        let (first, more) = long[symbol - END - 1];
                        let length = first + bits.take(more);
                        let (first, more) = far[distances.read(|| bits.bit())];
                        let from = text.len() - (first + bits.take(more));
                        (from..from + length).for_each(|at| text.push(text[at]));
                    }
                }
            }
            if is_last {
                assert_eq!(bits.at.div_ceil(8), bytes.len(), "something lies behind the end");
                return text;
            }
        }
    }

    /// Gives the compressed length.
    fn check(text: &[u8]) -> usize {
        let compressed = deflate(text);
        assert!(inflate(&compressed) == text, "{} bytes came back altered", text.len());
        compressed.len()
    }

    #[test]
    fn values_of_symbols_are_those_of_the_standard() {
        let lengths = values(COPY_MIN, LENGTHS, 4);
        assert_eq!([lengths[7], lengths[8], lengths[27]], [(10, 0), (11, 1), (227, 5)]);
        let distances = values(1, DISTANCES, 2);
        assert_eq!(
            [distances[3], distances[4], distances[29]],
            [(4, 0), (5, 1), (24_577, 13)]
        );
    }

    #[test]
    fn texts_of_every_kind_come_back() {
        let noise = SeededContent::new(5, 50_000).whole();
        check(&[]);
        check(b"a");
        check(b"abc");
        // Of more letters than a block takes.
        check(&noise);
        // Farther back than the window, and exactly as far.
        for apart in [0, 32 << 10, (32 << 10) - 300, 40_000] {
            check(&[&noise[..300], &noise[300..300 + apart.min(49_700)], &noise[..300]].concat());
        }
        let often = check(&b"so it goes, ".repeat(5_000));
        assert!(often < 1_000, "{often}");
        assert!(check(&[7; 100_000]) < 1_000);
    }

    #[test]
    fn a_text_of_few_letters_is_shorter() {
        let noise = SeededContent::new(6, 90_000).whole();
        let text: Vec<u8> = noise.iter().map(|byte| b'a' + byte % 16).collect();
        let length = check(&text);
        assert!(length * 10 < text.len() * 7, "{length}");
    }
}
