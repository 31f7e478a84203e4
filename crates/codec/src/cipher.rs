//! The cipher under every seal: AES-256-GCM, with the tag apart and in place.
//!
//! Two libraries compute it. Contents go through the one that reads a byte once for encryption and tag, three times as fast; keys
//! are wrapped by the one that wipes what it expanded a key to (decision 0035).
//! A trait, because chaos and the cluster tests plant the bug "seal as identity" here and must find it by a grep of all
//! files; production code names the two ciphers below alone.
//! Invariants: `decrypt` leaves no byte of plaintext where the tag is not right; both ciphers give the same bytes.
//! Not here: which key and nonce are used (`seal`, `keys`).

use aes_gcm::{AeadInOut, KeyInit};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, Tag, UnboundKey};

/// Length of a nonce in bytes.
pub const NONCE_BYTES: usize = 12;
/// Length of a tag in bytes.
pub const TAG_BYTES: usize = 16;

/// An authenticated cipher with a 256-bit key, a 96-bit nonce and a 128-bit tag.
pub trait Cipher: Send + Sync {
    /// Makes the plaintext in `text` its ciphertext, and answers the tag over it and `associated`.
    fn encrypt(&self, key: &[u8; 32], nonce: &[u8; NONCE_BYTES], associated: &[u8], text: &mut [u8])
    -> [u8; TAG_BYTES];

    /// Makes the ciphertext in `text` its plaintext when `tag` is right for it and `associated`.
    ///
    /// Answers false when it is not; what `text` holds then is of no use.
    fn decrypt(
        &self,
        key: &[u8; 32],
        nonce: &[u8; NONCE_BYTES],
        associated: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> bool;
}

/// AES-256-GCM (NIST SP 800-38D), the one cipher of contents.
#[derive(Clone, Copy, Debug, Default)]
pub struct Aes256Gcm;

fn expanded(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("every 32 bytes are a key"))
}

impl Cipher for Aes256Gcm {
    fn encrypt(
        &self,
        key: &[u8; 32],
        nonce: &[u8; NONCE_BYTES],
        associated: &[u8],
        text: &mut [u8],
    ) -> [u8; TAG_BYTES] {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let tag = expanded(key).seal_in_place_separate_tag(nonce, Aad::from(associated), text);
        let tag = tag.expect("nothing that we seal reaches the 64 GiB that GCM allows");
        let mut bytes = [0; TAG_BYTES];
        bytes.copy_from_slice(tag.as_ref());
        bytes
    }

    fn decrypt(
        &self,
        key: &[u8; 32],
        nonce: &[u8; NONCE_BYTES],
        associated: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> bool {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        expanded(key)
            .open_in_place_separate_tag(nonce, Aad::from(associated), Tag::from(*tag), text, 0..)
            .is_ok()
    }
}

/// The same cipher for keys that live long: what it expands a key to is wiped.
#[derive(Clone, Copy, Debug, Default)]
pub struct WipingAes256Gcm;

impl Cipher for WipingAes256Gcm {
    fn encrypt(
        &self,
        key: &[u8; 32],
        nonce: &[u8; NONCE_BYTES],
        associated: &[u8],
        text: &mut [u8],
    ) -> [u8; TAG_BYTES] {
        aes_gcm::Aes256Gcm::new(key.into())
            .encrypt_inout_detached(nonce.into(), associated, text.into())
            .expect("nothing that we seal reaches the 64 GiB that GCM allows")
            .into()
    }

    fn decrypt(
        &self,
        key: &[u8; 32],
        nonce: &[u8; NONCE_BYTES],
        associated: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> bool {
        aes_gcm::Aes256Gcm::new(key.into())
            .decrypt_inout_detached(nonce.into(), associated, text.into(), tag.into())
            .is_ok()
    }
}
