//! The stripe builder against a naive packing.

use crate::samples::noise;
use bytes::Bytes;
use codec::stripe::{ClosedStripe, StripeBuilder, StripeError};
use model::stripe::{STRIPE_BLOCKS_MAX, STRIPE_BYTES_MAX, STRIPE_TARGET_BYTES};
use proptest::prelude::{ProptestConfig, prop, proptest};

/// Lays blocks of these lengths and compares with a packing that looks at all lengths at once.
fn check(lengths: &[usize]) {
    let noise = noise(1, STRIPE_BYTES_MAX);
    let mut builder = StripeBuilder::new();
    let mut stripes: Vec<ClosedStripe<usize>> = Vec::new();
    for (at, length) in lengths.iter().enumerate() {
        stripes.extend(builder.push(at, noise.slice(..*length)).unwrap());
        assert!(builder.held_bytes() >= *length);
    }
    stripes.extend(builder.close());
    assert_eq!((builder.held_bytes(), builder.close().is_none()), (0, true));

    let mut expected: Vec<Vec<usize>> = Vec::new();
    for (at, length) in lengths.iter().enumerate() {
        let fits = expected.last().is_some_and(|last| {
            let sum: usize = last.iter().map(|at| lengths[*at]).sum();
            sum + length <= STRIPE_TARGET_BYTES && last.len() < STRIPE_BLOCKS_MAX
        });
        if !fits {
            expected.push(Vec::new());
        }
        expected.last_mut().unwrap().push(at);
    }
    let got: Vec<Vec<usize>> = stripes
        .iter()
        .map(|stripe| stripe.blocks.iter().map(|(at, _)| *at).collect())
        .collect();
    assert_eq!(got, expected);
    for stripe in stripes {
        let mut end = 0;
        for (at, placement) in stripe.blocks {
            assert_eq!(placement.range(), end..end + lengths[at]);
            assert_eq!(stripe.bytes[placement.range()], noise[..lengths[at]]);
            end += lengths[at];
        }
        assert_eq!(end, stripe.bytes.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn blocks_are_laid_as_in_a_naive_packing(lengths in prop::collection::vec(1_usize..2 << 20, 0..20)) {
        check(&lengths);
    }
}

#[test]
fn limits_of_bytes_and_blocks_close_a_stripe_before_they_are_passed() {
    check(&[]);
    check(&[1; STRIPE_BLOCKS_MAX]);
    check(&[1; STRIPE_BLOCKS_MAX + 1]);
    check(&[STRIPE_TARGET_BYTES - 1, 1, 1]);
    check(&[1, STRIPE_TARGET_BYTES]);
    check(&[1, STRIPE_BYTES_MAX, 1, STRIPE_BYTES_MAX]);
}

#[test]
fn empty_and_overlong_blocks_are_refused_and_change_nothing() {
    let mut builder = StripeBuilder::new();
    builder.push(1, noise(1, 10)).unwrap();
    assert_eq!(builder.push(2, Bytes::new()), Err(StripeError::Empty));
    let sealed_bytes = STRIPE_BYTES_MAX + 1;
    assert_eq!(
        builder.push(2, noise(1, sealed_bytes)),
        Err(StripeError::TooLarge { sealed_bytes })
    );
    assert_eq!(builder.close().unwrap().blocks.len(), 1);
}
