//! A zip of texts, each deflated (the format's own names: local file header, central directory header, end of central directory).
//!
//! Not here: archives of more than 65,535 texts or 4 GiB, times, folders.

use super::deflate::deflate;

const LOCAL: u32 = 0x0403_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
/// Deflate needs it.
const VERSION: u16 = 20;
const DEFLATED: u16 = 8;
/// The first of January 1980, from which years are counted.
const DATE: u16 = (1 << 5) | 1;
/// Of the polynomial, its lowest bit first.
const CRC: u32 = 0xedb8_8320;

/// An archive in which each text has a name of its own.
pub fn archive<'a>(texts: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let (mut archive, mut directory, mut count) = (Vec::new(), Vec::new(), 0_u16);
    for text in texts {
        let name = format!("text {count:05}.txt");
        let compressed = deflate(text);
        // What both headers say.
        let mut about = Vec::new();
        about.extend([VERSION, 0, DEFLATED, 0, DATE].map(u16::to_le_bytes).concat());
        let lengths = [compressed.len() as u32, text.len() as u32];
        about.extend([crc(text), lengths[0], lengths[1]].map(u32::to_le_bytes).concat());
        about.extend([name.len() as u16, 0].map(u16::to_le_bytes).concat());
        let at = archive.len() as u32;
        directory.extend(CENTRAL.to_le_bytes());
        directory.extend(VERSION.to_le_bytes());
        directory.extend_from_slice(&about);
        // No comment, the first disk, no attributes.
        directory.extend([0; 10]);
        directory.extend(at.to_le_bytes());
        directory.extend(name.bytes());
        archive.extend(LOCAL.to_le_bytes());
        archive.extend(about);
        archive.extend(name.bytes());
        archive.extend(compressed);
        count += 1;
    }
    let at = archive.len() as u32;
    archive.extend_from_slice(&directory);
    archive.extend(END.to_le_bytes());
    archive.extend([0, 0, count, count].map(u16::to_le_bytes).concat());
    archive.extend([directory.len() as u32, at].map(u32::to_le_bytes).concat());
    archive.extend(0_u16.to_le_bytes());
    archive
}

fn crc(text: &[u8]) -> u32 {
    let rest = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ CRC } else { crc >> 1 };
    let table: Vec<u32> = (0..256).map(|byte| (0..8).fold(byte, |crc, _| rest(crc))).collect();
    let next = |crc: u32, byte: &u8| table[((crc ^ u32::from(*byte)) & 0xff) as usize] ^ (crc >> 8);
    !text.iter().fold(u32::MAX, next)
}

#[cfg(test)]
mod tests {
    use super::super::deflate::tests::inflate;
    use super::{archive, crc};

    #[test]
    fn the_check_is_the_one_that_everybody_computes() {
        // The check value of CRC-32 in every catalogue of such codes.
        assert_eq!(crc(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc(b""), 0);
    }

    /// Reads as a reader of zips does: from the end to the directory, from there to each text.
    fn read(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
        let short = |at: usize| usize::from(u16::from_le_bytes(archive[at..at + 2].try_into().unwrap()));
        let long = |at: usize| u32::from_le_bytes(archive[at..at + 4].try_into().unwrap()) as usize;
        let end = archive.len() - 22;
        assert_eq!(&archive[end..end + 4], b"PK\x05\x06");
        let (count, mut at) = (short(end + 10), long(end + 16));
        assert_eq!(at + long(end + 12), end, "the directory ends where the end begins");
        let mut texts = Vec::new();
        for _ in 0..count {
            assert_eq!(&archive[at..at + 4], b"PK\x01\x02");
            let (check, compressed, length, name) = (long(at + 16), long(at + 20), long(at + 24), short(at + 28));
            let local = long(at + 42);
            assert_eq!(&archive[local..local + 4], b"PK\x03\x04");
            assert_eq!(archive[local + 4..local + 30], archive[at + 6..at + 32]);
            let from = local + 30 + name;
            let text = inflate(&archive[from..from + compressed]);
            assert_eq!((text.len(), crc(&text) as usize), (length, check));
            let name = &archive[at + 46..at + 46 + name];
            texts.push((String::from_utf8(name.to_vec()).unwrap(), text));
            at += 46 + name.len();
        }
        texts
    }

    #[test]
    fn every_text_is_found_by_the_directory_and_comes_back() {
        let long = "a line of a text\n".repeat(1_000);
        let expected = [long.as_bytes(), b"", b"short"];
        let found = read(&archive(expected.into_iter()));
        let texts: Vec<&[u8]> = found.iter().map(|(_, text)| text.as_slice()).collect();
        assert_eq!(texts, expected);
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["text 00000.txt", "text 00001.txt", "text 00002.txt"]);
    }
}
