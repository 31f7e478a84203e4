//! Seals: roundtrips, tampering, uniqueness of (key, nonce), compression, and the planted bug "seal as identity".

use crate::samples::{DRIVE, drive_key, drive_seal, noise, seeded, sources};
use codec::cipher::{Aes256Gcm, Cipher, NONCE_BYTES, TAG_BYTES, WipingAes256Gcm};
use codec::compress::{compress, decompress};
use codec::keys::DriveKey;
use codec::seal::{DriveSeal, RecordId, SEAL_BYTES, SealError};
use model::entry::BlockRow;
use model::error_kind::ErrorKind;
use model::id::DriveId;
use model::limits::{BLOCK_BYTES_MAX, INLINE_BYTES_MAX};
use proptest::prelude::{ProptestConfig, any, proptest};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

fn row(seal: &DriveSeal, plain: &[u8]) -> BlockRow {
    BlockRow {
        digest: seal.digest(plain),
        size: u32::try_from(plain.len()).unwrap(),
    }
}

/// Seals `plain` as a block and as a tail, opens both and compares; answers the block's sealed bytes.
fn check(seal: &DriveSeal, plain: &[u8]) -> usize {
    let row = row(seal, plain);
    let mut random = seeded(plain.len() as u64);
    let sealed = seal.seal_block(&row.digest, plain, &mut random);
    assert_eq!(seal.open_block(&row, &sealed).unwrap(), plain);
    let (record, tail) = seal.seal_tail(plain, &mut random);
    assert_eq!(seal.open_tail(&record, row.size, &tail).unwrap(), plain);
    assert_ne!(sealed, tail);
    assert!(sealed.len() <= plain.len() + SEAL_BYTES);
    sealed.len()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn blocks_and_tails_read_back(seed in any::<u64>(), length in 0_usize..300_000, repeated in 0_usize..100_000) {
        check(&drive_seal(), &[&noise(seed, length)[..], &vec![b'a'; repeated]].concat());
    }
}

#[test]
fn blocks_of_every_edge_length_read_back() {
    for length in [
        0,
        1,
        15,
        16,
        17,
        INLINE_BYTES_MAX,
        65_535,
        65_536,
        65_537,
        104_729,
        BLOCK_BYTES_MAX - 1,
        BLOCK_BYTES_MAX,
    ] {
        check(&drive_seal(), &noise(4, length));
        check(&drive_seal(), &vec![0; length]);
    }
}

/// shows: QAS-016 scale=1/5
#[test]
fn every_altered_byte_of_a_sealed_block_is_refused() {
    let seal = drive_seal();
    for plain in [noise(1, 100).to_vec(), vec![b'a'; 500]] {
        let row = row(&seal, &plain);
        let sealed = seal.seal_block(&row.digest, &plain, &mut seeded(1));
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut altered = sealed.to_vec();
                altered[at] ^= 1 << bit;
                assert!(seal.open_block(&row, &altered).is_err(), "byte {at}, bit {bit}");
            }
        }
        for length in 0..sealed.len() {
            assert!(seal.open_block(&row, &sealed[..length]).is_err(), "cut to {length}");
        }
        assert!(seal.open_block(&row, &[&sealed[..], &[0]].concat()).is_err());
    }
}

#[test]
fn a_seal_of_another_drive_block_purpose_or_length_is_refused() {
    let seal = drive_seal();
    let plain = noise(1, 100);
    let right = row(&seal, &plain);
    let sealed = seal.seal_block(&right.digest, &plain, &mut seeded(1));
    let other_drive = DriveSeal::new(DriveId(DRIVE.0 ^ 1), drive_key());
    let other_key = DriveSeal::new(DRIVE, DriveKey::new([1; 32]));
    assert_eq!(other_drive.open_block(&right, &sealed), Err(SealError::NotAuthentic));
    assert_eq!(other_key.open_block(&right, &sealed), Err(SealError::NotAuthentic));
    let other_block = row(&seal, &noise(2, 100));
    assert_eq!(seal.open_block(&other_block, &sealed), Err(SealError::NotAuthentic));
    let record = RecordId(right.digest.0[..16].try_into().unwrap());
    assert_eq!(
        seal.open_tail(&record, right.size, &sealed),
        Err(SealError::NotAuthentic)
    );
    let text = vec![b'a'; 1000];
    let text_row = row(&seal, &text);
    let text_sealed = seal.seal_block(&text_row.digest, &text, &mut seeded(1));
    let longer = BlockRow {
        size: text_row.size + 1,
        ..text_row
    };
    assert_eq!(seal.open_block(&longer, &text_sealed), Err(SealError::NotAuthentic));
}

/// shows: H-P2
#[test]
fn a_block_sealed_under_a_wrong_name_is_refused_when_read() {
    let seal = drive_seal();
    let right = row(&seal, &noise(1, 100));
    let sealed = seal.seal_block(&right.digest, &noise(2, 100), &mut seeded(1));
    let error = seal.open_block(&right, &sealed).unwrap_err();
    assert_eq!(error, SealError::OtherContent { expected: right.digest });
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[test]
fn unknown_forms_and_impossible_lengths_are_named() {
    let seal = drive_seal();
    let plain = noise(1, 100);
    let right = row(&seal, &plain);
    let sealed = seal.seal_block(&right.digest, &plain, &mut seeded(1)).to_vec();
    let with = |at: usize, byte: u8| {
        let mut altered = sealed.clone();
        altered[at] = byte;
        seal.open_block(&right, &altered)
    };
    assert_eq!(with(0, 2), Err(SealError::UnknownFormat(2)));
    assert_eq!(with(1, 2), Err(SealError::UnknownCompression(2)));
    assert_eq!(
        with(1, 1),
        Err(SealError::Malformed {
            sealed_bytes: 130,
            plain_bytes: 100
        })
    );
    let huge = BlockRow {
        size: u32::MAX,
        ..right
    };
    assert_eq!(
        seal.open_block(&huge, &sealed),
        Err(SealError::TooLarge { plain_bytes: u32::MAX })
    );
}

/// Counts which (key, nonce) pairs were used for which plaintext.
#[derive(Default)]
struct Recording(Mutex<BTreeMap<KeyAndNonce, Vec<u8>>>);

type KeyAndNonce = ([u8; 32], [u8; NONCE_BYTES]);

impl Cipher for Recording {
    fn encrypt(&self, key: &[u8; 32], nonce: &[u8; 12], associated: &[u8], text: &mut [u8]) -> [u8; TAG_BYTES] {
        let before = self.0.lock().unwrap().insert((*key, *nonce), text.to_vec());
        assert!(
            before.is_none_or(|before| before == text),
            "a pair of key and nonce covers two plaintexts"
        );
        Aes256Gcm.encrypt(key, nonce, associated, text)
    }

    fn decrypt(&self, _: &[u8; 32], _: &[u8; 12], _: &[u8], _: &mut [u8], _: &[u8; 16]) -> bool {
        false
    }
}

/// shows: QAS-016 scale=1/5
#[test]
fn no_pair_of_key_and_nonce_covers_two_plaintexts() {
    let recording = Arc::new(Recording::default());
    let seal = DriveSeal::with_cipher(DRIVE, drive_key(), recording.clone());
    let mut random = seeded(1);
    let same = noise(1, 64);
    let mut nonces = BTreeSet::new();
    for _ in 0..10_000 {
        let sealed = seal.seal_block(&seal.digest(&same), &same, &mut random);
        nonces.insert(sealed[2..14].to_vec());
        let _ = seal.seal_tail(&same, &mut random);
    }
    assert_eq!(nonces.len(), 10_000);
    assert_eq!(recording.0.lock().unwrap().len(), 20_000);
    // Even a generator that is stuck repeats no pair over different blocks, since the key follows the digest.
    for seed in 0..1000 {
        let plain = noise(seed, 64);
        let _ = seal.seal_block(&seal.digest(&plain), &plain, &mut |bytes: &mut [u8]| bytes.fill(0));
    }
}

/// The planted bug: bytes go to the disks as they are.
struct Identity;

impl Cipher for Identity {
    fn encrypt(&self, _: &[u8; 32], _: &[u8; 12], _: &[u8], _: &mut [u8]) -> [u8; TAG_BYTES] {
        [0; TAG_BYTES]
    }

    fn decrypt(&self, _: &[u8; 32], _: &[u8; 12], _: &[u8], _: &mut [u8], _: &[u8; 16]) -> bool {
        true
    }
}

/// shows: QAS-016 scale=1/5
#[test]
fn an_identity_cipher_is_found_by_a_search_for_the_canary_and_the_real_one_is_not() {
    let canary = noise(77, 48);
    let plain = [&noise(1, 1000)[..], &canary, &noise(2, 1000)].concat();
    let finds = |seal: &DriveSeal| {
        let block = seal.seal_block(&seal.digest(&plain), &plain, &mut seeded(1));
        let (_, tail) = seal.seal_tail(&plain, &mut seeded(2));
        [block, tail].map(|sealed| sealed.windows(canary.len()).any(|window| window == canary))
    };
    assert_eq!(finds(&drive_seal()), [false, false]);
    let planted = DriveSeal::with_cipher(DRIVE, drive_key(), Arc::new(Identity));
    assert_eq!(finds(&planted), [true, true]);
    let row = row(&planted, &plain);
    let sealed = planted.seal_block(&row.digest, &plain, &mut seeded(1));
    assert_eq!(
        planted.open_block(&row, &sealed).unwrap(),
        plain,
        "a bug that only a search finds"
    );
}

/// shows: QAS-011 scale=1/2, H-comp scale=1/2
#[test]
fn text_is_stored_in_two_fifths_and_noise_with_a_thousandth_over() {
    let seal = drive_seal();
    let text = sources();
    let stored = check(&seal, text.as_bytes());
    assert!(stored * 100 <= text.len() * 40, "{stored} of {} bytes", text.len());
    for length in [64 << 10, 256 << 10, 1 << 20] {
        let stored = check(&seal, &noise(6, length));
        assert!(
            stored > length && (stored - length) * 1000 <= length,
            "{stored} for {length} bytes"
        );
    }
}

#[test]
fn a_probe_is_not_misled_by_a_header_of_another_kind() {
    let text = sources().repeat(4);
    let mixed = [&noise(1, 64 << 10)[..], text.as_bytes()].concat();
    assert!(compress(&mixed).unwrap().len() * 2 < mixed.len());
    let noisy = [&text.as_bytes()[..16 << 10], &noise(1, 1 << 20)].concat();
    assert_eq!(compress(&noisy), None);
}

/// A thread keeps its compressor: blocks of all lengths, one behind the other and with noise between, for which room is lacking, must
/// come out as of a thread that has compressed nothing before.
#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "only a thread of its own has compressed nothing before"
)]
fn what_a_thread_compressed_before_changes_no_byte_of_what_follows() {
    let text = sources().repeat(8);
    let fresh = |plain: &[u8]| {
        std::thread::scope(|scope| {
            let compressed = scope.spawn(|| compress(plain));
            compressed.join().unwrap()
        })
    };
    let mut paid = 0;
    for round in 0..3_usize {
        for length in [300_000, 0, 5_000, 34_000, 100, 65_536, 65_537, 200_000] {
            let plain = &text.as_bytes()[round * 777..][..length];
            let compressed = compress(plain);
            assert_eq!(compressed, fresh(plain), "{length} bytes in round {round}");
            paid += usize::from(compressed.is_some());
            assert_eq!(compress(&noise(round as u64, length)), None, "noise of {length} bytes");
        }
    }
    assert!(paid >= 15, "{paid} blocks of text were worth it");
}

#[test]
fn decompression_gives_the_declared_length_or_nothing() {
    let plain = vec![b'a'; 100_000];
    let compressed = compress(&plain).unwrap();
    assert_eq!(decompress(&compressed, plain.len()).unwrap(), plain);
    for length in [0, 1, plain.len() - 1, plain.len() + 1, BLOCK_BYTES_MAX] {
        assert_eq!(decompress(&compressed, length), None, "{length}");
    }
    let doubled = [&compressed[..], &compressed].concat();
    assert_eq!(decompress(&doubled, plain.len()), None);
    for at in 0..compressed.len() {
        assert_eq!(decompress(&compressed[..at], plain.len()), None, "cut to {at}");
    }
}

/// Two libraries compute one cipher: what one seals the other opens, whatever the lengths, and neither opens what was altered.
#[test]
fn both_libraries_give_the_same_bytes_and_refuse_the_same() {
    let ciphers: [&dyn Cipher; 2] = [&Aes256Gcm, &WipingAes256Gcm];
    let lengths = [0, 1, 15, 16, 17, 31, 32, 33, 255, 256, 4_095, 4_096, 65_537, 1 << 20];
    for (seed, length) in lengths.into_iter().enumerate() {
        let plain = noise(seed as u64, length).to_vec();
        let (key, nonce, associated) = ([seed as u8; 32], [7; NONCE_BYTES], &plain[..length.min(20)]);
        let sealed = ciphers.map(|cipher| {
            let mut text = plain.clone();
            let tag = cipher.encrypt(&key, &nonce, associated, &mut text);
            (text, tag)
        });
        assert_eq!(sealed[0], sealed[1], "{length} bytes");
        let [(text, tag), _] = sealed;
        for cipher in ciphers {
            let mut opened = text.clone();
            assert!(
                cipher.decrypt(&key, &nonce, associated, &mut opened, &tag),
                "{length} bytes"
            );
            assert_eq!(opened, plain);
            let mut other_tag = tag;
            other_tag[seed % TAG_BYTES] ^= 1;
            assert!(!cipher.decrypt(&key, &nonce, associated, &mut text.clone(), &other_tag));
            assert!(!cipher.decrypt(&key, &nonce, b"other", &mut text.clone(), &tag));
            if let Some(place) = length.checked_sub(1) {
                let mut altered = text.clone();
                altered[place] ^= 1;
                assert!(!cipher.decrypt(&key, &nonce, associated, &mut altered, &tag));
                assert!(length < 16 || !altered.windows(16).any(|run| run == &plain[..16]));
            }
        }
    }
}
