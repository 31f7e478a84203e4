//! The one-time setup token: with it the first administrator is made, before anybody has an account.
//!
//! It follows from the KEK's file, so that every gateway knows it, nothing has to be carried to it, and there is no default one.
//! `holdfast init` prints it. Invariants: comparison takes constant time; the control group spends it with the first name that is
//! claimed by it, so it makes one account, however often it is used.

use codec::digest::secret_hash;
use model::base32;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

const LABEL: &[u8] = b"holdfast v1 setup token ";
/// 160 bits: guessing it is out of the question without a limit on tries.
const TOKEN_BYTES: usize = 20;

/// The setup token of a cluster.
pub struct SetupToken {
    text: Zeroizing<String>,
}

impl SetupToken {
    /// Derives the token from the KEK's file text.
    pub fn derive(kek_text: &[u8]) -> Self {
        let hash = Zeroizing::new(secret_hash(&Zeroizing::new([LABEL, kek_text].concat())));
        let mut bytes = Zeroizing::new([0_u8; TOKEN_BYTES]);
        bytes.copy_from_slice(&hash[..TOKEN_BYTES]);
        Self {
            text: Zeroizing::new(base32::encode(bytes.as_slice())),
        }
    }

    /// The token as an operator types it.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// Whether `given` is the token.
    pub fn is(&self, given: &str) -> bool {
        self.text.as_bytes().ct_eq(given.trim().as_bytes()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::SetupToken;

    #[test]
    fn each_kek_has_its_own_token_and_no_other_text_is_it() {
        let (ours, theirs) = (SetupToken::derive(b"one"), SetupToken::derive(b"two"));
        assert!(ours.is(ours.expose()) && ours.is(SetupToken::derive(b"one").expose()));
        assert!(!ours.is(theirs.expose()) && !ours.is("") && !ours.is(&ours.expose()[1..]));
        assert_eq!(ours.expose().len(), 32);
    }
}
