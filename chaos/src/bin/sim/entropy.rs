//! Where this binary's random bytes come from: the seed of its world, also those of libraries that ask the system.
//!
//! Tokio's order of branches, openraft's election timeouts and the keys of std's maps are drawn from `getrandom`. A program's own
//! definition of that name stands before libc's, so everything in this process gets bytes that follow from the seed, as madsim does.
//! Only this binary has it: it makes no secret that anybody uses.
//! Not here: what our own code draws (`daemon::random`, handed in).

use std::sync::atomic::{AtomicU64, Ordering};

static STATE: AtomicU64 = AtomicU64::new(0);

/// Begins the stream of `seed`.
pub(crate) fn seed(seed: u64) {
    STATE.store(seed, Ordering::Relaxed);
}

/// SplitMix64 (Steele, Lea and Flood 2014).
fn next() -> u64 {
    let state = STATE.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
    let mut value = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[allow(
    unsafe_code,
    reason = "libc's function can only be replaced by one of its name and signature"
)]
mod replaced {
    use super::next;

    /// Fills `target` as libc's `getrandom` would, never short and never failing.
    ///
    /// # Safety
    /// `target` is valid for writes of `len_bytes` bytes, which is libc's own condition.
    // SAFETY of the name: the signature is that of getrandom(2) in libc on every Linux, `ssize_t getrandom(void*, size_t, unsigned)`,
    // so callers that were compiled against that one call this one with the same convention.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn getrandom(target: *mut u8, len_bytes: usize, _flags: u32) -> isize {
        for at in 0..len_bytes {
            // SAFETY: `at` is below `len_bytes`, and the caller promises that so many bytes may be written; a byte needs no alignment
            // and nothing is read, so the bytes may be uninitialised.
            unsafe { target.add(at).write(next() as u8) };
        }
        isize::try_from(len_bytes).unwrap_or(isize::MAX)
    }
}
