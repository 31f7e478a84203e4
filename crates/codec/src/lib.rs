//! Cut, digest, compress, seal, erasure, stripe and fragment forms: what happens to bytes between a user and a disk.
//!
//! Pure: no clock, no I/O, no threads and no randomness of its own (random bytes come in as an argument).
//! Reading order is the way of a write: a body is cut into blocks, each named by its digest, compressed when that pays,
//! sealed, laid into a stripe, cut into fragments, and each fragment gets the header that a disk keeps with it.
//! The byte forms are described in docs/format/{digests,sealed,stripe,fragment}.md and pinned in `golden/`.

pub mod cut;
pub mod delta;
pub mod digest;
pub mod keys;

pub mod cipher;
pub mod compress;
pub mod seal;

pub mod erasure;
pub mod fragment;
pub mod stripe;
