//! The cipher under every seal: AES-256-GCM, with the tag apart.
//!
//! A trait, because chaos and the cluster tests plant the bug "seal as identity" here and must find it by a grep of all
//! files; production code names `Aes256Gcm` alone.
//! Invariants: `decrypt` gives no byte before the tag is found right.
//! Not here: which key and nonce are used (`seal`, `keys`).

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{AeadInOut, KeyInit};

/// Length of a nonce in bytes.
pub const NONCE_BYTES: usize = 12;
/// Length of a tag in bytes.
pub const TAG_BYTES: usize = 16;

/// An authenticated cipher with a 256-bit key, a 96-bit nonce and a 128-bit tag.
pub trait Cipher: Send + Sync {
    /// Writes the ciphertext of `plain` to `out`, which is as long, and answers the tag over it and `associated`.
    ///
    /// Panics when the lengths differ.
    fn encrypt(
        &self,
        key: &[u8; 32],
        nonce: &[u8; NONCE_BYTES],
        associated: &[u8],
        plain: &[u8],
        out: &mut [u8],
    ) -> [u8; TAG_BYTES];

    /// Writes the plaintext of `sealed` to `out`, which is as long, when the tag is right for it and `associated`.
    ///
    /// Answers false when it is not; `out` is then untouched. Panics when the lengths differ.
    fn decrypt(
        &self,
        key: &[u8; 32],
        nonce: &[u8; NONCE_BYTES],
        associated: &[u8],
        sealed: &[u8],
        tag: &[u8; TAG_BYTES],
        out: &mut [u8],
    ) -> bool;
}

/// AES-256-GCM (NIST SP 800-38D), the one cipher of production.
#[derive(Clone, Copy, Debug, Default)]
pub struct Aes256Gcm;

impl Cipher for Aes256Gcm {
    fn encrypt(
        &self,
        key: &[u8; 32],
        nonce: &[u8; NONCE_BYTES],
        associated: &[u8],
        plain: &[u8],
        out: &mut [u8],
    ) -> [u8; TAG_BYTES] {
        let buffer = InOutBuf::new(plain, out).expect("ciphertext is as long as plaintext");
        aes_gcm::Aes256Gcm::new(key.into())
            .encrypt_inout_detached(nonce.into(), associated, buffer)
            .expect("nothing that we seal reaches the 64 GiB that GCM allows")
            .into()
    }

    fn decrypt(
        &self,
        key: &[u8; 32],
        nonce: &[u8; NONCE_BYTES],
        associated: &[u8],
        sealed: &[u8],
        tag: &[u8; TAG_BYTES],
        out: &mut [u8],
    ) -> bool {
        let buffer = InOutBuf::new(sealed, out).expect("plaintext is as long as ciphertext");
        aes_gcm::Aes256Gcm::new(key.into())
            .decrypt_inout_detached(nonce.into(), associated, buffer, tag.into())
            .is_ok()
    }
}
