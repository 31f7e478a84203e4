//! Erasure coding: every loss pattern, wrong fragments, edge lengths.

use crate::samples::{drive_seal, noise, seeded};
use bytes::Bytes;
use codec::erasure::{ErasureError, decode, encode, locate, rebuild};
use codec::stripe::StripeBuilder;
use model::profile::ProfileId;
use model::stripe::{STRIPE_BYTES_MAX, STRIPE_TARGET_BYTES};
use proptest::prelude::{ProptestConfig, any, proptest};

/// All ways to lose at most `m` of `count` fragments, as sets of bits.
fn losses(count: usize, m: u8) -> Vec<u32> {
    (0..1_u32 << count)
        .filter(|lost| lost.count_ones() <= u32::from(m))
        .collect()
}

fn without(fragments: &[Bytes], lost: u32) -> Vec<Option<Bytes>> {
    fragments
        .iter()
        .enumerate()
        .map(|(at, bytes)| (lost >> at & 1 == 0).then(|| bytes.clone()))
        .collect()
}

/// Codes `stripe`, loses every set of at most m fragments, and reads and rebuilds from the rest.
fn check(stripe: &Bytes, k: u8, m: u8) {
    let (form, fragments) = encode(stripe, k, m).unwrap();
    assert_eq!(fragments.len(), usize::from(k + m));
    assert!(fragments.iter().all(|fragment| fragment.len() == form.fragment_bytes()));
    let data: Vec<u8> = fragments[..usize::from(k)].concat();
    assert_eq!(
        &data[..stripe.len()],
        &stripe[..],
        "data fragments are the stripe, contiguously"
    );
    for lost in losses(fragments.len(), m) {
        let left = without(&fragments, lost);
        assert_eq!(
            decode(&form, &left).unwrap(),
            stripe,
            "{k}+{m}, {} bytes, lost {lost:b}",
            stripe.len()
        );
        let wanted: Vec<u8> = (0..k + m).filter(|at| lost >> at & 1 == 1).collect();
        let rebuilt = rebuild(&form, &left, &wanted).unwrap();
        assert!(
            wanted
                .iter()
                .zip(&rebuilt)
                .all(|(at, bytes)| *bytes == fragments[usize::from(*at)])
        );
    }
}

/// shows: F27
/// shows: B-2 scale=1/2
#[test]
fn every_loss_of_up_to_m_fragments_of_every_profile_rebuilds_at_every_edge_length() {
    for profile in ProfileId::ALL.map(ProfileId::profile) {
        let k = usize::from(profile.k);
        let edge = k << 16;
        for length in [
            0,
            1,
            k - 1,
            k,
            k + 1,
            4095,
            4096,
            4097,
            edge - 1,
            edge,
            edge + 1,
            104_729,
        ] {
            check(&noise(length as u64, length), profile.k, profile.m);
        }
    }
}

/// shows: F27
#[test]
fn whole_stripes_and_the_longest_rebuild_after_the_worst_losses() {
    for length in [
        STRIPE_TARGET_BYTES - 1,
        STRIPE_TARGET_BYTES,
        STRIPE_TARGET_BYTES + 1,
        STRIPE_BYTES_MAX,
    ] {
        let stripe = noise(9, length);
        for profile in ProfileId::ALL.map(ProfileId::profile) {
            let (form, fragments) = encode(&stripe, profile.k, profile.m).unwrap();
            for lost in [(1 << profile.m) - 1, ((1 << profile.m) - 1) << profile.k, 0] {
                assert_eq!(decode(&form, &without(&fragments, lost)).unwrap(), stripe);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_scheme_and_length_rebuilds_from_any_k(seed in any::<u64>(), k in 1_u8..=24, m in 1_u8..=8, length in 0_usize..5000, pick in any::<u64>()) {
        let stripe = noise(seed, length);
        let (form, fragments) = encode(&stripe, k, m).unwrap();
        let mut left: Vec<Option<Bytes>> = fragments.iter().cloned().map(Some).collect();
        let mut pick = pick;
        while left.iter().flatten().count() > usize::from(k) {
            let at = usize::try_from(pick % left.len() as u64).unwrap();
            left[at] = None;
            pick = pick.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407) >> 1;
        }
        assert_eq!(decode(&form, &left).unwrap(), stripe);
        let all: Vec<u8> = (0..k + m).collect();
        assert_eq!(rebuild(&form, &left, &all).unwrap(), fragments);
    }

    #[test]
    fn ranges_of_data_fragments_hold_what_was_asked(length in 0_usize..20_000, k in 1_u8..=9, start in 0_usize..21_000, size in 0_usize..9000) {
        let stripe = noise(1, length);
        let (form, fragments) = encode(&stripe, k, 2).unwrap();
        let ranges = locate(&form, start..start + size);
        let read: Vec<u8> = ranges.iter().flat_map(|range| fragments[usize::from(range.index)].slice(range.within.clone())).collect();
        assert_eq!(read, &stripe[start.min(length)..(start + size).min(length)]);
        assert!(ranges.iter().all(|range| range.index < k && range.stripe.len() == range.within.len()));
    }
}

/// shows: F25
#[test]
fn fragments_of_two_stripes_of_one_block_are_never_mixed() {
    let seal = drive_seal();
    let plain = noise(3, 300_000);
    let digest = seal.digest(&plain);
    let mut random = seeded(1);
    let sealed = [(); 2].map(|()| seal.seal_block(&digest, &plain, &mut random));
    for profile in ProfileId::ALL.map(ProfileId::profile) {
        let [(form, mine), (other_form, others)] =
            [&sealed[0], &sealed[1]].map(|stripe| encode(stripe, profile.k, profile.m).unwrap());
        assert_eq!(
            form.stripe_bytes, other_form.stripe_bytes,
            "nothing but the hash tells them apart"
        );
        let count = profile.fragments();
        for foreign in 1..1_u32 << count {
            let mixed: Vec<Option<Bytes>> = (0..count)
                .map(|at| Some(if foreign >> at & 1 == 1 { &others } else { &mine }[at].clone()))
                .collect();
            let used = (1 << profile.k.max(1)) - 1;
            let expected = if profile.k == 1 { foreign & 1 } else { foreign & used };
            assert_eq!(
                decode(&form, &mixed).is_ok(),
                expected == 0,
                "{} foreign {foreign:b}",
                profile.id
            );
        }
    }
}

/// shows: B-2 scale=1/2
#[test]
fn a_flipped_byte_in_any_fragment_that_is_used_is_refused() {
    for profile in ProfileId::ALL.map(ProfileId::profile) {
        let stripe = noise(3, 1001);
        let (form, fragments) = encode(&stripe, profile.k, profile.m).unwrap();
        let count = fragments.len();
        for lost in losses(count, profile.m)
            .into_iter()
            .filter(|lost| lost.count_ones() == u32::from(profile.m))
        {
            for wrong in (0..count).filter(|at| lost >> at & 1 == 0) {
                for byte in [0, form.fragment_bytes() / 2, form.fragment_bytes() - 1] {
                    let mut left = without(&fragments, lost);
                    let mut flipped = left[wrong].as_ref().unwrap().to_vec();
                    flipped[byte] ^= 0x10;
                    left[wrong] = Some(Bytes::from(flipped));
                    assert_eq!(
                        decode(&form, &left),
                        Err(ErasureError::OtherStripe),
                        "{} {wrong} {byte}",
                        profile.id
                    );
                    assert_eq!(rebuild(&form, &left, &[0]), Err(ErasureError::OtherStripe));
                }
            }
        }
    }
}

#[test]
fn swapped_short_long_missing_and_surplus_fragments_are_refused() {
    let (form, fragments) = encode(&noise(1, 1000), 4, 2).unwrap();
    let whole = || without(&fragments, 0);
    let mut swapped = whole();
    swapped.swap(0, 1);
    assert_eq!(decode(&form, &swapped), Err(ErasureError::OtherStripe));
    for length in [0, 249, 251] {
        let mut wrong = whole();
        wrong[5] = Some(noise(1, length));
        assert_eq!(
            decode(&form, &wrong),
            Err(ErasureError::WrongLength {
                index: 5,
                given: length,
                expected: 250
            })
        );
    }
    assert_eq!(
        decode(&form, &without(&fragments, 0b111)),
        Err(ErasureError::TooFew { present: 3, k: 4 })
    );
    assert_eq!(
        decode(&form, &whole()[..5]),
        Err(ErasureError::WrongCount { given: 5, fragments: 6 })
    );
    assert_eq!(rebuild(&form, &whole(), &[6]), Err(ErasureError::NoSuchIndex(6)));
    assert_eq!(
        encode(&noise(1, 10), 0, 2).unwrap_err(),
        ErasureError::BadScheme { k: 0, m: 2 }
    );
    assert_eq!(
        encode(&noise(1, 10), 4, 9).unwrap_err(),
        ErasureError::BadScheme { k: 4, m: 9 }
    );
    let stripe_bytes = STRIPE_BYTES_MAX + 1;
    assert_eq!(
        encode(&noise(1, stripe_bytes), 4, 2).unwrap_err(),
        ErasureError::TooLarge { stripe_bytes }
    );
}

#[test]
fn whole_data_fragments_are_slices_of_the_stripe_and_copies_are_the_stripe() {
    let mut builder = StripeBuilder::new();
    builder.push((), noise(1, 4000)).unwrap();
    builder.push((), noise(2, 4001)).unwrap();
    let stripe = builder.close().unwrap().bytes;
    let (_, fragments) = encode(&stripe, 4, 2).unwrap();
    let buffer = stripe.as_ptr_range();
    let inside: Vec<bool> = fragments
        .iter()
        .map(|fragment| buffer.contains(&fragment.as_ptr()))
        .collect();
    assert_eq!(inside, [true, true, true, false, false, false]);
    let (_, copies) = encode(&stripe, 1, 2).unwrap();
    assert!(copies.iter().all(|copy| copy.as_ptr() == stripe.as_ptr()));
}
