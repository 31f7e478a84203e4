//! Contents that are compressed already, as people have them: a baseline JPEG of a picture that a seed decides, and a zip of text.
//!
//! Made here, since no library that knows these formats may be linked (tests/tidy) and no such file lies in the repository.
//! Invariant: the same seed and text give the same bytes on one machine.
//! Not here: what they take once they are stored (`delta::compression`), reading them back (the tests of each file).

mod deflate;
mod huffman;
mod jpeg;
mod zip;

pub use jpeg::picture;
pub use zip::archive;

#[cfg(test)]
mod tests {
    use super::{archive, picture};
    use bytes::Bytes;
    use codec::compress::compress;
    use codec::cut::Cutter;
    use codec::keys::DriveKey;
    use codec::seal::DriveSeal;
    use model::id::DriveId;

    /// More than what is compressed without a look at samples first.
    const FIRST_BYTES: usize = 96 << 10;

    /// Bytes of all blocks of a content once they are sealed.
    fn sealed_bytes(content: Bytes) -> usize {
        let seal = DriveSeal::new(DriveId(1), DriveKey::new([7; 32]));
        let mut cutter = Cutter::new();
        let mut blocks = cutter.push(content);
        blocks.extend(cutter.finish());
        let sealed = blocks.iter().map(|block| {
            let random = &mut |bytes: &mut [u8]| bytes.fill(9);
            seal.seal_block(&seal.digest(block), block, random).len()
        });
        sealed.sum()
    }

    /// Text with words and lines; each is another one.
    fn text() -> Vec<u8> {
        let line = |number: u64| {
            let digest = blake3::hash(&number.to_le_bytes()).to_hex();
            format!(
                "line {number} of the text says {} and then {}\n",
                &digest[..12],
                &digest[20..28]
            )
        };
        (0..12_000).map(line).collect::<String>().into_bytes()
    }

    /// shows: QAS-011 scale=1/2, H-comp scale=1/2
    #[test]
    fn a_jpeg_and_a_zip_are_stored_as_they_are_and_take_at_most_a_thousandth_more() {
        let text = text();
        let archive = archive(text.chunks(64 << 10));
        assert!(
            archive.len() * 10 < text.len() * 7,
            "{} of {}",
            archive.len(),
            text.len()
        );
        for (what, content) in [("jpeg", picture(3, 1_536, 1_024)), ("zip", archive)] {
            let plain = content.len();
            assert!(plain > FIRST_BYTES, "{what}: {plain} bytes are too few to tell");
            assert!(
                compress(&content[..FIRST_BYTES]).is_none(),
                "{what}: compressed once more"
            );
            let sealed = sealed_bytes(content.into());
            assert!(sealed <= plain + plain / 1_000, "{what}: {sealed} bytes for {plain}");
        }
    }
}
