//! Erasure coding: a stripe cut into k data fragments, m parity fragments beside them, and any k back to the stripe.
//!
//! Reed-Solomon over GF(2^8) by the crate `reed-solomon-erasure` (systematic Vandermonde matrix). The cut is contiguous, so a
//! 1 MiB block lies in 1 to 4 data fragments and is read from them without decoding (docs/format/stripe.md).
//! Invariants: all fragments of a stripe have the length `StripeForm::fragment_bytes`; nothing is answered from decoding or
//! rebuilding unless the decoded stripe has its hash. With k = 1 every fragment is a whole copy.
//! Not here: which fragments to ask and where they go (`placement`, gateway, node), and which single fragment was wrong
//! (`fragment`: each carries checksums of its own).

use crate::digest::stripe_hash;
use bytes::Bytes;
use model::error_kind::ErrorKind;
use model::stripe::{STRIPE_BYTES_MAX, StripeForm};
use reed_solomon_erasure::galois_8::ReedSolomon;
use std::ops::Range;
use std::sync::OnceLock;

/// Most data fragments of a scheme: every planned profile fits (cold is 12+6).
pub const DATA_FRAGMENTS_MAX: u8 = 24;
/// Most parity fragments of a scheme.
pub const PARITY_FRAGMENTS_MAX: u8 = 8;

/// Why fragments were not made or not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ErasureError {
    /// k or m is zero or above its limit.
    #[error("code stripe: {k}+{m} is not a scheme")]
    BadScheme {
        /// Data fragments.
        k: u8,
        /// Parity fragments.
        m: u8,
    },
    /// The stripe is longer than any stripe; nothing was allocated.
    #[error("code stripe: {stripe_bytes} bytes, {STRIPE_BYTES_MAX} allowed")]
    TooLarge {
        /// Its length.
        stripe_bytes: usize,
    },
    /// Not exactly one place for each of the k+m fragments was given.
    #[error("decode stripe: {given} places given for {fragments} fragments")]
    WrongCount {
        /// Places given.
        given: usize,
        /// k+m.
        fragments: usize,
    },
    /// Fewer than k fragments were given.
    #[error("decode stripe: {present} fragments present, {k} needed")]
    TooFew {
        /// Fragments given.
        present: usize,
        /// Fragments needed.
        k: u8,
    },
    /// A fragment is shorter or longer than the stripe's form says.
    #[error("decode stripe: fragment {index} has {given} bytes, not {expected}")]
    WrongLength {
        /// Which fragment.
        index: u8,
        /// Its length.
        given: usize,
        /// The right length.
        expected: usize,
    },
    /// The decoded bytes are not the stripe: at least one of the fragments used is wrong or of another stripe.
    #[error("decode stripe: hash differs")]
    OtherStripe,
    /// A fragment was wanted that the scheme does not have.
    #[error("rebuild fragment: no index {0}")]
    NoSuchIndex(u8),
}

impl ErasureError {
    /// What it means for the caller. `TooFew` is `Unavailable`: more fragments may be found elsewhere.
    #[must_use]
    pub fn kind(self) -> ErrorKind {
        match self {
            Self::BadScheme { .. } | Self::WrongCount { .. } | Self::NoSuchIndex(_) => ErrorKind::Invalid,
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            Self::TooFew { .. } => ErrorKind::Unavailable,
            Self::WrongLength { .. } | Self::OtherStripe => ErrorKind::Corrupt,
        }
    }
}

/// A range of one data fragment and the range of the stripe that it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FragmentRange {
    /// Which data fragment.
    pub index: u8,
    /// Bytes of the fragment.
    pub within: Range<usize>,
    /// The same bytes' place in the stripe.
    pub stripe: Range<usize>,
}

/// Cuts `stripe` into k data fragments and computes m parity fragments; answers its form and the fragments in order.
///
/// Data fragments are slices of `stripe`, except those that end beyond it, which are padded with zeros. With k = 1 all
/// are the stripe itself. Cost: one hash of the stripe and m passes of the code; about 24 GB/s for 4+2 (decision 0021).
/// Errors: `BadScheme`, `TooLarge`.
pub fn encode(stripe: &Bytes, k: u8, m: u8) -> Result<(StripeForm, Vec<Bytes>), ErasureError> {
    let stripe_bytes = checked_length(stripe.len())?;
    let form = StripeForm {
        k,
        m,
        stripe_bytes,
        stripe_hash: stripe_hash(stripe),
    };
    let encoder = encoder(k, m)?;
    let fragments = cut(stripe, &form);
    Ok((form, with_parity(encoder, &form, fragments)))
}

/// Which ranges of which data fragments hold `wanted` of the stripe, in order; bytes beyond the stripe's end are left out.
#[must_use]
pub fn locate(form: &StripeForm, wanted: Range<usize>) -> Vec<FragmentRange> {
    let length = form.fragment_bytes();
    let end = wanted.end.min(form.stripe_bytes as usize);
    let mut ranges = Vec::new();
    let mut at = wanted.start;
    while at < end {
        let first = at / length * length;
        let stop = end.min(first + length);
        let index = u8::try_from(at / length).expect("a byte of the stripe lies in one of at most 255 data fragments");
        ranges.push(FragmentRange {
            index,
            within: at - first..stop - first,
            stripe: at..stop,
        });
        at = stop;
    }
    ranges
}

/// Puts the stripe together from any k of its fragments and verifies it.
///
/// `fragments` has one place for each index, 0 to k+m-1. The first k present are used, so that nothing is computed when
/// all data fragments are there; the others are not looked at. To try others after `OtherStripe`, leave suspects out.
/// Errors: `BadScheme`, `TooLarge`, `WrongCount`, `TooFew`, `WrongLength`, `OtherStripe`.
pub fn decode(form: &StripeForm, fragments: &[Option<Bytes>]) -> Result<Bytes, ErasureError> {
    let encoder = encoder(form.k, form.m)?;
    check(form, fragments)?;
    let stripe_len = form.stripe_bytes as usize;
    let whole = if form.k == 1 {
        fragments
            .iter()
            .flatten()
            .next()
            .expect("one fragment is present, which was checked")
            .clone()
    } else {
        Bytes::from(gather(encoder, form, fragments))
    };
    // The padding is not under the hash; a fragment that is wrong only there is wrong all the same.
    let is_padded_with_zeros = whole[stripe_len..].iter().all(|byte| *byte == 0);
    let stripe = whole.slice(..stripe_len);
    if is_padded_with_zeros && stripe_hash(&stripe) == form.stripe_hash {
        Ok(stripe)
    } else {
        Err(ErasureError::OtherStripe)
    }
}

/// Makes the fragments of the indices `wanted` anew from any k others, in the order of `wanted`.
///
/// The stripe is decoded and verified before any fragment is given, and the fragments are cut from the verified bytes.
/// Errors: those of `decode`, and `NoSuchIndex`.
pub fn rebuild(form: &StripeForm, fragments: &[Option<Bytes>], wanted: &[u8]) -> Result<Vec<Bytes>, ErasureError> {
    let encoder = encoder(form.k, form.m)?;
    let count = usize::from(form.k) + usize::from(form.m);
    if let Some(index) = wanted.iter().find(|index| usize::from(**index) >= count) {
        return Err(ErasureError::NoSuchIndex(*index));
    }
    let stripe = decode(form, fragments)?;
    let mut all = cut(&stripe, form);
    if wanted.iter().any(|index| *index >= form.k) {
        all = with_parity(encoder, form, all);
    }
    Ok(wanted.iter().map(|index| all[usize::from(*index)].clone()).collect())
}

/// The encoder of a scheme: its matrices are computed once a process.
fn encoder(k: u8, m: u8) -> Result<&'static ReedSolomon, ErasureError> {
    const SCHEMES: usize = DATA_FRAGMENTS_MAX as usize * PARITY_FRAGMENTS_MAX as usize;
    static ENCODERS: [OnceLock<ReedSolomon>; SCHEMES] = [const { OnceLock::new() }; SCHEMES];
    if k == 0 || m == 0 || k > DATA_FRAGMENTS_MAX || m > PARITY_FRAGMENTS_MAX {
        return Err(ErasureError::BadScheme { k, m });
    }
    let place = usize::from(k - 1) * usize::from(PARITY_FRAGMENTS_MAX) + usize::from(m - 1);
    Ok(ENCODERS[place].get_or_init(|| {
        ReedSolomon::new(usize::from(k), usize::from(m)).expect("k and m are above zero and together at most 32")
    }))
}

fn checked_length(stripe_bytes: usize) -> Result<u32, ErasureError> {
    if stripe_bytes > STRIPE_BYTES_MAX {
        return Err(ErasureError::TooLarge { stripe_bytes });
    }
    Ok(u32::try_from(stripe_bytes).expect("the longest stripe fits 32 bits"))
}

/// Checks count and lengths of what is to be decoded.
fn check(form: &StripeForm, fragments: &[Option<Bytes>]) -> Result<(), ErasureError> {
    checked_length(form.stripe_bytes as usize)?;
    let count = usize::from(form.k) + usize::from(form.m);
    if fragments.len() != count {
        return Err(ErasureError::WrongCount {
            given: fragments.len(),
            fragments: count,
        });
    }
    let expected = form.fragment_bytes();
    for (index, fragment) in (0..).zip(fragments) {
        if let Some(given) = fragment.as_ref().map(Bytes::len).filter(|given| *given != expected) {
            return Err(ErasureError::WrongLength { index, given, expected });
        }
    }
    let present = fragments.iter().flatten().count();
    if present < usize::from(form.k) {
        return Err(ErasureError::TooFew { present, k: form.k });
    }
    Ok(())
}

/// The k data fragments of a stripe.
fn cut(stripe: &Bytes, form: &StripeForm) -> Vec<Bytes> {
    let length = form.fragment_bytes();
    (0..usize::from(form.k))
        .map(|index| {
            let first = (index * length).min(stripe.len());
            let stop = (first + length).min(stripe.len());
            let fragment = stripe.slice(first..stop);
            if fragment.len() == length {
                return fragment;
            }
            // A copy of at most one fragment's bytes: fragments of a stripe have equal length, so its end is padded.
            let mut padded = Vec::with_capacity(length);
            padded.extend_from_slice(&fragment);
            padded.resize(length, 0);
            Bytes::from(padded)
        })
        .collect()
}

/// Adds the parity fragments to the data fragments.
fn with_parity(encoder: &ReedSolomon, form: &StripeForm, mut fragments: Vec<Bytes>) -> Vec<Bytes> {
    let length = form.fragment_bytes();
    let parities = usize::from(form.m);
    if form.k == 1 {
        // The code of one data fragment is the identity: every parity fragment is a copy, here another handle.
        fragments.extend(vec![fragments[0].clone(); parities]);
        return fragments;
    }
    let mut parity = vec![0; parities * length];
    let mut places: Vec<&mut [u8]> = parity.chunks_exact_mut(length).collect();
    encoder
        .encode_sep(&fragments, &mut places)
        .expect("k fragments and m places of one length, above zero");
    let parity = Bytes::from(parity);
    fragments.extend((0..parities).map(|index| parity.slice(index * length..(index + 1) * length)));
    fragments
}

/// The k data fragments end to end, the missing ones computed; `fragments` were checked.
fn gather(encoder: &ReedSolomon, form: &StripeForm, fragments: &[Option<Bytes>]) -> Vec<u8> {
    let length = form.fragment_bytes();
    let (data, parity) = fragments.split_at(usize::from(form.k));
    // One copy of the data fragments: they came apart from several disks, and whoever reads wants the stripe in one piece.
    let mut whole = vec![0; data.len() * length];
    for (place, fragment) in whole.chunks_exact_mut(length).zip(data) {
        if let Some(bytes) = fragment {
            place.copy_from_slice(bytes);
        }
    }
    let missing = data.iter().filter(|fragment| fragment.is_none()).count();
    if missing > 0 {
        // The decoder wants places that it could write, so as many parity fragments are copied as data ones are missing.
        let mut left = missing;
        let mut copies: Vec<Option<Vec<u8>>> = Vec::with_capacity(parity.len());
        for fragment in parity {
            let used = fragment.as_ref().filter(|_| left > 0);
            left -= usize::from(used.is_some());
            copies.push(used.map(|bytes| bytes.to_vec()));
        }
        let mut places: Vec<(&mut [u8], bool)> = whole
            .chunks_exact_mut(length)
            .zip(data)
            .map(|(place, fragment)| (place, fragment.is_some()))
            .chain(copies.iter_mut().map(|copy| match copy {
                Some(bytes) => (bytes.as_mut_slice(), true),
                None => (&mut [][..], false),
            }))
            .collect();
        encoder
            .reconstruct_data(&mut places)
            .expect("k fragments of one length are present, which was checked");
    }
    whole
}
