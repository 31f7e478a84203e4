//! Any bytes into any decoder: an error or a value, never a panic.

use crate::samples::{DRIVE, drive_seal, noise, seeded};
use bytes::Bytes;
use codec::compress::decompress;
use codec::cut::Cutter;
use codec::erasure::{decode, encode, locate, rebuild};
use codec::fragment::FragmentHeader;
use codec::keys::{Kek, WrappedKey};
use codec::seal::RecordId;
use model::digest::{Digest, StripeHash};
use model::entry::BlockRow;
use model::profile::ProfileId;
use model::stripe::{FragmentName, StripeForm, StripeId};
use proptest::prelude::{ProptestConfig, any, prop, proptest};

fn golden_header() -> Bytes {
    let (form, fragments) = encode(&noise(1, 400_000), 4, 2).unwrap();
    let name = FragmentName {
        profile: ProfileId::Dev,
        stripe: StripeId(7),
        index: 0,
    };
    FragmentHeader::describe(name, form, &fragments[0]).unwrap().to_bytes()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// shows: F42
    #[test]
    fn any_bytes_are_a_key_a_header_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300), text in "\\PC{0,120}") {
        let kek = Kek::new([1; 32]);
        if let Ok(wrapped) = WrappedKey::from_bytes(&bytes) {
            assert!(kek.unwrap(DRIVE, &wrapped).is_err());
        }
        assert!(Kek::from_file_text(&text).is_err());
        assert!(Kek::from_file_text(&format!("holdfast-kek-1 {text}")).is_err());
        assert!(FragmentHeader::read_front(&bytes).is_err());
        let _ = Cutter::new().push(Bytes::from(bytes));
    }

    /// shows: F42
    #[test]
    fn any_alteration_of_a_header_reads_or_fails(edits in prop::collection::vec((0_usize..200, any::<u8>()), 1..6), range in any::<(u16, u16)>(), length in 0_usize..300) {
        let mut bytes = golden_header().to_vec();
        for (at, byte) in edits {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        if let Ok(header) = FragmentHeader::read_front(&bytes) {
            let (start, end) = (usize::from(range.0) * 7, usize::from(range.1) * 7);
            let covered = header.checked_range(start..end);
            assert!(covered.end <= header.payload_bytes());
            let _ = header.verify_range(start..end, &bytes);
            let _ = header.verify_range(covered, &bytes);
            let _ = header.verify(&vec![0; length]);
        }
    }

    /// shows: F42
    #[test]
    fn any_bytes_are_a_seal_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200), head in 0_u8..3, size in any::<u32>(), digest in any::<[u8; 32]>()) {
        let seal = drive_seal();
        let mut bytes = bytes;
        for sealed_bytes in [bytes.len(), bytes.len().min(40)] {
            bytes.truncate(sealed_bytes);
            if bytes.len() > 1 {
                (bytes[0], bytes[1]) = (1, head);
            }
            let fitting = u32::try_from(sealed_bytes.saturating_sub(30)).unwrap();
            for size in [size, size % 5000, fitting, fitting + 1] {
                assert!(seal.open_block(&BlockRow { digest: Digest(digest), size }, &bytes).is_err());
                assert!(seal.open_tail(&RecordId(digest[..16].try_into().unwrap()), size, &bytes).is_err());
            }
        }
    }

    /// shows: F42
    #[test]
    fn any_bytes_are_a_frame_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200), edit in any::<(u8, u8)>(), length in 0_usize..100_000) {
        let _ = decompress(&bytes, length);
        let mut frame = codec::compress::compress(&[7; 5000]).unwrap();
        let at = usize::from(edit.0) % frame.len();
        frame[at] = edit.1;
        let _ = decompress(&frame, 5000);
        let _ = decompress(&[&frame[..], &bytes].concat(), length);
    }

    /// shows: F42
    #[test]
    fn any_form_and_fragments_decode_or_fail(
        k in any::<u8>(), m in any::<u8>(), small in any::<bool>(), stripe_bytes in any::<u32>(),
        hash in any::<[u8; 32]>(),
        lengths in prop::collection::vec(prop::option::of(0_usize..70), 0..40),
        wanted in prop::collection::vec(any::<u8>(), 0..4),
    ) {
        let stripe_bytes = if small { stripe_bytes % 64 } else { stripe_bytes };
        let (k, m) = if small { (k % 6, m % 4) } else { (k, m) };
        let form = StripeForm { k, m, stripe_bytes, stripe_hash: StripeHash(hash) };
        let _ = locate(&form, stripe_bytes as usize / 2..usize::MAX);
        let mut fragments: Vec<Option<Bytes>> = lengths.iter().map(|length| length.map(|length| noise(1, length))).collect();
        assert!(decode(&form, &fragments).is_err());
        if small {
            fragments = (0..k + m).map(|at| (hash[usize::from(at)] > 60).then(|| noise(u64::from(at), form.fragment_bytes()))).collect();
            assert!(decode(&form, &fragments).is_err());
        }
        assert!(rebuild(&form, &fragments, &wanted).is_err());
    }
}

#[test]
fn a_seal_that_is_right_and_holds_a_bad_frame_is_an_error() {
    // A writer that lies about compression can only be one of ours; the reader still does not trust it.
    let seal = drive_seal();
    let (record, sealed) = seal.seal_tail(&[7; 5000], &mut seeded(1));
    assert_eq!(sealed[1], 1);
    let mut lying = sealed.to_vec();
    lying[1] = 0;
    assert!(seal.open_tail(&record, 5000, &lying).is_err());
    assert!(
        seal.open_tail(&record, u32::try_from(sealed.len()).unwrap() - 30, &lying)
            .is_err()
    );
}
