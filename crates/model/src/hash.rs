//! `stable_hash`: the one hash whose value is a promise.
//!
//! FNV-1a over 64 bits (Fowler, Noll, Vo; IETF draft-eastlake-fnv) followed by the 64-bit finaliser of MurmurHash3, which spreads
//! the last bytes over all bits. It decides a user's slot, so it may never change.
//! Not here: anything that must resist an attacker; that is `codec::digest`.

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// Hashes `bytes` to 64 well-spread bits; the same answer in every process and release.
#[must_use]
pub fn stable_hash(bytes: &[u8]) -> u64 {
    let mut hash = FNV_OFFSET;
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME);
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::stable_hash;

    #[test]
    fn values_are_pinned_for_ever() {
        assert_eq!(stable_hash(b""), 0xefd0_1f60_ba99_2926);
        assert_ne!(stable_hash(b"alice") >> 52, stable_hash(b"bob") >> 52);
    }
}
