//! The form of a token: `<slot and user>.<secret>`, both base32.
//!
//! Invariants: a secret has 256 random bits and is known only to its bearer; what is stored and looked up is its hash, so
//! comparing needs no constant time of ours: a guess says nothing about a hash that it does not have.

use codec::digest::secret_hash;
use daemon::random::Random;
use model::base32;
use model::id::UserId;
use protocol::metadata::user::TokenHash;
use zeroize::Zeroizing;

const SECRET_BYTES: usize = 32;

/// A fresh token and the hash under which it is kept.
pub fn draw(user: UserId, random: &Random) -> (Zeroizing<String>, TokenHash) {
    let secret = Zeroizing::new(random.bytes::<SECRET_BYTES>());
    (
        Zeroizing::new(format!("{user}.{}", base32::encode(&*secret))),
        TokenHash(secret_hash(&*secret)),
    )
}

/// Reads a token; `None` when it has not the form of one.
pub fn read(text: &str) -> Option<(UserId, TokenHash)> {
    let (user, secret) = text.split_once('.')?;
    let secret = Zeroizing::new(base32::decode::<SECRET_BYTES>(secret)?);
    Some((UserId::parse(user)?, TokenHash(secret_hash(&*secret))))
}

#[cfg(test)]
mod tests {
    use super::{draw, read};
    use daemon::random::Random;
    use model::id::UserId;
    use proptest::prelude::proptest;

    #[test]
    fn a_token_reads_back_to_its_user_and_hash() {
        let (text, hash) = draw(UserId(77), &Random::seeded(1));
        assert_eq!(read(&text), Some((UserId(77), hash)));
    }

    proptest! {
        #[test]
        fn no_text_panics_or_passes(text in "\\PC*") {
            assert_eq!(read(&text), None);
        }
    }
}
