//! A baseline JPEG (ITU-T T.81) of one component, of a picture with surfaces, edges and noise as cameras make them.
//!
//! Differs from what cameras write in one component in the place of three, and in codes that are the best for this picture, which
//! leaves less to gain by compressing it once more.
//! Not here: reading pictures.

use super::huffman::{codes, lengths};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use std::array::from_fn;
use std::f32::consts::{FRAC_1_SQRT_2, PI};
use std::iter::once;

const SIDE: usize = 8;
const AREA: usize = SIDE * SIDE;
/// The symbol of a block's end, and of sixteen coefficients that are zero.
const END: u8 = 0x00;
const ZEROS: u8 = 0xf0;
const CODE_BITS_MAX: u8 = 16;
/// No symbol: takes the code of ones alone, which no symbol may have.
const NOBODY: usize = 256;
const NOISE: u32 = 12;

/// The coefficients of a block in the order in which they are written.
type Block = [i32; AREA];

/// A JPEG of so many points, both multiples of eight; panics where one is not.
#[must_use]
pub fn picture(seed: u64, width: u16, height: u16) -> Vec<u8> {
    written(&blocks(seed, width, height), width, height)
}

/// All blocks of the picture, row by row.
fn blocks(seed: u64, width: u16, height: u16) -> Vec<Block> {
    let (width, height) = (usize::from(width), usize::from(height));
    assert!(
        width.is_multiple_of(SIDE) && height.is_multiple_of(SIDE),
        "{width} x {height}"
    );
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let points: Vec<f32> = (0..width * height)
        .map(|at| point((at % width) as f32, (at / width) as f32, random.next_u32()))
        .collect();
    let (waves, order) = (waves(), order());
    let block = |top: usize, left: usize| {
        let points = from_fn(|y| from_fn(|x| points[(top + y) * width + left + x]));
        let coefficients = transformed(&points, &waves);
        from_fn(|at| {
            let (row, column) = order[at];
            (coefficients[row][column] / step(row, column)).round() as i32
        })
    };
    let tops = (0..height).step_by(SIDE);
    tops.flat_map(|top| (0..width).step_by(SIDE).map(move |left| (top, left)))
        .map(|(top, left)| block(top, left))
        .collect()
}

/// The brightness of a point around zero: waves of light, tiles with edges, noise.
fn point(x: f32, y: f32, noise: u32) -> f32 {
    let light = 60.0 * (x / 97.0 + y / 211.0).sin() * (y / 61.0).cos();
    let is_bright = (x / 151.0) as u32 % 2 == (y / 113.0) as u32 % 2;
    let noise = (noise % (2 * NOISE + 1)) as f32 - NOISE as f32;
    let tile = if is_bright { 24.0 } else { -24.0 };
    (light + tile + noise).clamp(-128.0, 127.0)
}

/// How coarse a coefficient is kept: finer waves are seen less.
fn step(row: usize, column: usize) -> f32 {
    (4 + 2 * (row + column)) as f32
}

/// The cosines of the transform (T.81 section A.3.3), scaled so that it is its own inverse turned round.
fn waves() -> [[f32; SIDE]; SIDE] {
    from_fn(|wave| {
        let scale = if wave == 0 { 0.5 * FRAC_1_SQRT_2 } else { 0.5 };
        from_fn(|at| scale * ((2 * at + 1) as f32 * wave as f32 * PI / 16.0).cos())
    })
}

fn transformed(points: &[[f32; SIDE]; SIDE], waves: &[[f32; SIDE]; SIDE]) -> [[f32; SIDE]; SIDE] {
    let rows = points.map(|row| -> [f32; SIDE] {
        from_fn(|wave| row.iter().zip(&waves[wave]).map(|(one, other)| one * other).sum())
    });
    from_fn(|wave| {
        from_fn(|column| {
            rows.iter()
                .zip(&waves[wave])
                .map(|(row, other)| row[column] * other)
                .sum()
        })
    })
}

/// Row and column of each coefficient, along diagonals there and back.
fn order() -> Vec<(usize, usize)> {
    let mut order: Vec<(usize, usize)> = (0..AREA).map(|at| (at / SIDE, at % SIDE)).collect();
    order.sort_by_key(|(row, column)| {
        let diagonal = row + column;
        (diagonal, if diagonal.is_multiple_of(2) { *column } else { *row })
    });
    order
}

/// A symbol of one of both codes, and bits behind it.
#[derive(Clone, Copy)]
struct Coded {
    is_first: bool,
    symbol: u8,
    extra: u32,
    extra_bits: u32,
}

impl Coded {
    /// A value behind so many that are zero.
    fn value(is_first: bool, zeros: u8, value: i32) -> Self {
        let extra_bits = i32::BITS - value.unsigned_abs().leading_zeros();
        // Negative ones are told by one less, in as many bits.
        let told = if value < 0 { value - 1 } else { value };
        Self {
            is_first,
            symbol: (zeros << 4) | extra_bits as u8,
            extra: told as u32 & ((1 << extra_bits) - 1),
            extra_bits,
        }
    }

    fn bare(symbol: u8) -> Self {
        Self {
            is_first: false,
            symbol,
            extra: 0,
            extra_bits: 0,
        }
    }
}

/// The first coefficient by its difference to that of the block before, the others by what is not zero.
fn coded(blocks: &[Block]) -> Vec<Coded> {
    let (mut all, mut before) = (Vec::new(), 0);
    for block in blocks {
        all.push(Coded::value(true, 0, block[0] - before));
        before = block[0];
        let mut zeros = 0;
        for value in &block[1..] {
            if *value == 0 {
                zeros += 1;
                continue;
            }
            all.extend((0..zeros / 16).map(|_| Coded::bare(ZEROS)));
            all.push(Coded::value(false, zeros % 16, *value));
            zeros = 0;
        }
        if zeros > 0 {
            all.push(Coded::bare(END));
        }
    }
    all
}

/// The lengths of the best code for symbols that occur so often, none of ones alone.
fn best_lengths(often: impl Iterator<Item = u8>) -> Vec<u8> {
    let mut frequencies = vec![0; NOBODY + 1];
    frequencies[NOBODY] = 1;
    often.for_each(|symbol| frequencies[usize::from(symbol)] += 1);
    let mut lengths = lengths(&frequencies, CODE_BITS_MAX);
    let longest = lengths.iter().copied().max().unwrap_or_default();
    let last = lengths.iter().rposition(|length| *length == longest).unwrap_or(NOBODY);
    // The last code of the longest is the one of ones alone.
    lengths.swap(last, NOBODY);
    lengths
}

fn written(blocks: &[Block], width: u16, height: u16) -> Vec<u8> {
    let coded = coded(blocks);
    let of = |is_first: bool| {
        best_lengths(
            coded
                .iter()
                .filter(move |one| one.is_first == is_first)
                .map(|one| one.symbol),
        )
    };
    let (first, others) = (of(true), of(false));
    let mut bytes = vec![0xff, 0xd8];
    segment(&mut bytes, 0xe0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0");
    let steps = order().into_iter().map(|(row, column)| step(row, column) as u8);
    segment(&mut bytes, 0xdb, &once(0).chain(steps).collect::<Vec<u8>>());
    let ([tall, low], [wide, narrow]) = (height.to_be_bytes(), width.to_be_bytes());
    segment(&mut bytes, 0xc0, &[8, tall, low, wide, narrow, 1, 1, 0x11, 0]);
    segment(&mut bytes, 0xc4, &table(0x00, &first));
    segment(&mut bytes, 0xc4, &table(0x10, &others));
    segment(&mut bytes, 0xda, &[1, 1, 0x00, 0, 63, 0]);
    let (first_codes, other_codes) = (codes(&first), codes(&others));
    let mut bits = Bits {
        bytes,
        held: 0,
        count: 0,
    };
    for one in coded {
        let (lengths, codes) = if one.is_first {
            (&first, &first_codes)
        } else {
            (&others, &other_codes)
        };
        let symbol = usize::from(one.symbol);
        bits.push(codes[symbol], u32::from(lengths[symbol]));
        bits.push(one.extra, one.extra_bits);
    }
    let mut bytes = bits.finish();
    bytes.extend([0xff, 0xd9]);
    bytes
}

/// A marker, the length of what follows and of itself, and what follows.
fn segment(bytes: &mut Vec<u8>, marker: u8, payload: &[u8]) {
    bytes.extend([0xff, marker]);
    bytes.extend((payload.len() as u16 + 2).to_be_bytes());
    bytes.extend_from_slice(payload);
}

/// How many codes there are of each length, and their symbols in the order of the codes.
fn table(about: u8, lengths: &[u8]) -> Vec<u8> {
    let lengths = &lengths[..NOBODY];
    let of = move |length: u8| (0..=u8::MAX).filter(move |symbol| lengths[usize::from(*symbol)] == length);
    let counts = (1..=CODE_BITS_MAX).map(|length| of(length).count() as u8);
    let symbols = (1..=CODE_BITS_MAX).flat_map(of);
    once(about).chain(counts).chain(symbols).collect()
}

/// Bits that fill bytes from the top; behind a byte of ones comes one of zeros, since it would be a marker.
struct Bits {
    bytes: Vec<u8>,
    held: u64,
    count: u32,
}

impl Bits {
    fn push(&mut self, value: u32, count: u32) {
        self.held = (self.held << count) | u64::from(value);
        self.count += count;
        while self.count >= 8 {
            self.count -= 8;
            let byte = (self.held >> self.count) as u8;
            self.bytes.push(byte);
            if byte == u8::MAX {
                self.bytes.push(0);
            }
        }
        self.held &= (1 << self.count) - 1;
    }

    /// Ones fill the last byte.
    fn finish(mut self) -> Vec<u8> {
        let left = (8 - self.count) % 8;
        self.push((1 << left) - 1, left);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::super::huffman::tests::Reader;
    use super::{AREA, Block, SIDE, blocks, order, picture, step, transformed, waves};
    use std::array::from_fn;

    /// Payloads of the segments before the picture's bits by their markers, and the bits without what was put between.
    fn parts(jpeg: &[u8]) -> (Vec<(u8, &[u8])>, Vec<u8>) {
        assert_eq!(jpeg[..2], [0xff, 0xd8]);
        assert_eq!(jpeg[jpeg.len() - 2..], [0xff, 0xd9]);
        let (mut segments, mut at) = (Vec::new(), 2);
        loop {
            assert_eq!(jpeg[at], 0xff);
            let length = usize::from(u16::from_be_bytes([jpeg[at + 2], jpeg[at + 3]]));
            segments.push((jpeg[at + 1], &jpeg[at + 4..at + 2 + length]));
            at += 2 + length;
            if segments.last().unwrap().0 == 0xda {
                break;
            }
        }
        let (mut bytes, mut after_ones) = (Vec::new(), false);
        for byte in &jpeg[at..jpeg.len() - 2] {
            match after_ones {
                true => assert_eq!(*byte, 0, "a marker within the picture"),
                false => bytes.push(*byte),
            }
            after_ones = !after_ones && *byte == 0xff;
        }
        (segments, bytes)
    }

    /// The lengths of a table's codes by their symbols.
    fn lengths(table: &[u8]) -> Vec<u8> {
        let (mut lengths, mut symbols) = (vec![0; 256], table[17..].iter());
        for (length, count) in (1_u8..).zip(&table[1..17]) {
            for symbol in symbols.by_ref().take(usize::from(*count)) {
                lengths[usize::from(*symbol)] = length;
            }
        }
        assert!(symbols.next().is_none());
        lengths
    }

    /// What a decoder reads.
    fn read(jpeg: &[u8], count: usize) -> Vec<Block> {
        let (segments, bytes) = parts(jpeg);
        let markers: Vec<u8> = segments.iter().map(|(marker, _)| *marker).collect();
        assert_eq!(markers, [0xe0, 0xdb, 0xc0, 0xc4, 0xc4, 0xda]);
        let codes = [3, 4].map(|at: usize| Reader::new(&lengths(segments[at].1)));
        let mut at = 0;
        let mut bit = || {
            let bit = bytes[at / 8] >> (7 - at % 8);
            at += 1;
            u32::from(bit & 1)
        };
        let value = |symbol: usize, bit: &mut dyn FnMut() -> u32| {
            let bits = symbol % 16;
            let told = (0..bits).fold(0, |told, _| (told << 1) | bit()) as i32;
            // Of so many bits those that begin with a zero are negative.
            if bits > 0 && told < 1 << (bits - 1) {
                told - (1 << bits) + 1
            } else {
                told
            }
        };
        let mut before = 0;
        let mut blocks = Vec::new();
        for _ in 0..count {
            let mut block = [0; AREA];
            let symbol = codes[0].read(&mut bit);
            before += value(symbol, &mut bit);
            block[0] = before;
            let mut place = 1;
            while place < AREA {
                match codes[1].read(&mut bit) {
                    0x00 => break,
                    0xf0 => place += 16,
                    symbol => {
                        place += symbol / 16;
                        block[place] = value(symbol, &mut bit);
                        place += 1;
                    }
                }
            }
            blocks.push(block);
        }
        blocks
    }

    #[test]
    fn every_coefficient_of_a_picture_is_read_back() {
        for (seed, width, height) in [(1, 8, 8), (2, 200, 104), (3, 64, 320)] {
            let expected = blocks(seed, width, height);
            assert_eq!(expected.len(), usize::from(width) * usize::from(height) / AREA);
            assert!(
                read(&picture(seed, width, height), expected.len()) == expected,
                "{width} x {height}"
            );
        }
    }

    #[test]
    fn the_transform_is_undone_by_its_waves_and_coefficients_are_in_the_order_of_the_standard() {
        let waves = waves();
        let points: [[f32; SIDE]; SIDE] = from_fn(|y| from_fn(|x| (y * 13 + x * x) as f32));
        let found = transformed(&points, &waves);
        let turned = from_fn(|at| from_fn(|wave| waves[wave][at]));
        let back = transformed(&found, &turned);
        for (then, now) in points.as_flattened().iter().zip(back.as_flattened()) {
            assert!((then - now).abs() < 0.01, "{then} {now}");
        }
        assert_eq!(order()[..7], [(0, 0), (0, 1), (1, 0), (2, 0), (1, 1), (0, 2), (0, 3)]);
        assert_eq!(order()[63], (7, 7));
        assert!(step(7, 7) < 256.0);
    }
}
