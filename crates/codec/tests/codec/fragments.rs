//! Fragment headers: they read back, contradictions are refused, damage is found where it lies.

use crate::samples::noise;
use bytes::Bytes;
use codec::erasure::encode;
use codec::fragment::{CHECKED_BYTES, FIXED_HEADER_BYTES, FragmentError, FragmentHeader};
use model::profile::ProfileId;
use model::stripe::{FragmentName, STRIPE_BYTES_MAX, StripeId};
use proptest::prelude::{ProptestConfig, proptest};

fn fragment(profile: ProfileId, index: u8, stripe_bytes: usize) -> (FragmentHeader, Bytes) {
    let scheme = profile.profile();
    let (form, fragments) = encode(&noise(5, stripe_bytes), scheme.k, scheme.m).unwrap();
    let payload = fragments[usize::from(index)].clone();
    let name = FragmentName {
        profile,
        stripe: StripeId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
        index,
    };
    (FragmentHeader::describe(name, form, &payload).unwrap(), payload)
}

#[test]
fn headers_of_every_profile_and_edge_length_read_back_and_verify() {
    for profile in ProfileId::ALL {
        let k = usize::from(profile.profile().k);
        for pieces in [0, 1, 2] {
            for length in [
                (pieces * k * CHECKED_BYTES).saturating_sub(1),
                pieces * k * CHECKED_BYTES,
                pieces * k * CHECKED_BYTES + 1,
            ] {
                let (header, payload) = fragment(profile, 0, length);
                let bytes = header.to_bytes();
                assert_eq!(bytes.len(), header.header_bytes());
                assert_eq!(
                    bytes.len(),
                    FIXED_HEADER_BYTES + 4 * payload.len().div_ceil(CHECKED_BYTES)
                );
                assert_eq!(FragmentHeader::from_bytes(&bytes).unwrap(), header);
                let record = [&bytes[..], &payload].concat();
                assert_eq!(FragmentHeader::read_front(&record).unwrap(), header);
                assert_eq!(FragmentHeader::from_bytes(&record), Err(FragmentError::Malformed));
                header.verify(&payload).unwrap();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_range_is_covered_checked_and_damage_is_found_in_it(
        stripe_bytes in 1_usize..1 << 20,
        start in 0_usize..600_000,
        size in 1_usize..200_000,
        flip in 0_usize..600_000,
    ) {
        let (header, payload) = fragment(ProfileId::Single, 1, stripe_bytes);
        let range = header.checked_range(start..start + size);
        let end = (start + size).min(payload.len());
        if start >= payload.len() {
            assert!(range.is_empty());
        } else {
            assert!(range.start <= start && range.end >= end && range.end <= payload.len());
            assert!(range.len() < end - start + 2 * CHECKED_BYTES);
        }
        header.verify_range(range.clone(), &payload[range.clone()]).unwrap();
        let flip = flip % payload.len();
        let mut damaged = payload.to_vec();
        damaged[flip] ^= 1;
        let found = header.verify_range(range.clone(), &damaged[range.clone()]);
        let expected = if range.contains(&flip) { Err(FragmentError::Damaged { offset: flip / CHECKED_BYTES * CHECKED_BYTES }) } else { Ok(()) };
        assert_eq!(found, expected);
        assert!(header.verify(&damaged).is_err());
    }
}

#[test]
fn ranges_off_the_edges_and_wrong_lengths_are_refused() {
    let (header, payload) = fragment(ProfileId::Copies, 2, 3 * CHECKED_BYTES + 5);
    let edge = CHECKED_BYTES;
    for (first, end) in [
        (1, edge),
        (0, 1),
        (0, payload.len() - 1),
        (edge, 0),
        (0, payload.len() + 1),
        (edge * 4, edge * 5),
    ] {
        assert_eq!(
            header.verify_range(first..end, &[]),
            Err(FragmentError::Unaligned { first, end })
        );
    }
    let short = FragmentError::WrongLength {
        given: edge - 1,
        expected: edge,
    };
    assert_eq!(header.verify_range(0..edge, &payload[1..edge]), Err(short));
    assert_eq!(header.verify_range(edge..edge, &[]), Ok(()));
    let long = [&payload[..], &[0]].concat();
    assert!(
        matches!(header.verify(&long), Err(FragmentError::WrongLength { .. })),
        "appended garbage is seen"
    );
    assert!(matches!(
        header.verify(&payload[1..]),
        Err(FragmentError::WrongLength { .. })
    ));
}

#[test]
fn a_payload_or_an_index_that_does_not_fit_the_form_gets_no_header() {
    let (header, payload) = fragment(ProfileId::Dev, 5, 1000);
    let describe = |name, form| FragmentHeader::describe(name, form, &payload);
    let (name, form) = (header.name(), *header.form());
    assert_eq!(
        describe(FragmentName { index: 6, ..name }, form),
        Err(FragmentError::Contradiction)
    );
    assert_eq!(
        describe(
            FragmentName {
                profile: ProfileId::Single,
                ..name
            },
            form
        ),
        Err(FragmentError::Contradiction)
    );
    let mut longer = form;
    longer.stripe_bytes = u32::try_from(STRIPE_BYTES_MAX).unwrap() + 1;
    assert_eq!(describe(name, longer), Err(FragmentError::Contradiction));
    longer.stripe_bytes = 2000;
    assert_eq!(
        describe(name, longer),
        Err(FragmentError::WrongLength {
            given: 250,
            expected: 500
        })
    );
}

#[test]
fn headers_with_foreign_fields_are_refused() {
    let (header, _) = fragment(ProfileId::Dev, 5, 1000);
    let bytes = header.to_bytes();
    let with = |at: usize, byte: u8| {
        let mut altered = bytes.to_vec();
        altered[at] = byte;
        FragmentHeader::from_bytes(&altered).unwrap_err()
    };
    assert_eq!(with(0, b'h'), FragmentError::Malformed);
    assert_eq!(with(4, 2), FragmentError::UnknownVersion(2));
    assert_eq!(with(5, 0), FragmentError::Contradiction);
    assert_eq!(with(5, ProfileId::Standard.number()), FragmentError::Contradiction);
    assert_eq!(with(22, 6), FragmentError::Contradiction);
    assert_eq!(with(23, 5), FragmentError::Contradiction);
    assert_eq!(with(25, 0xff), FragmentError::Contradiction);
    for length in 0..bytes.len() {
        assert!(FragmentHeader::from_bytes(&bytes[..length]).is_err(), "cut to {length}");
    }
}
