//! Receipts: made from a commit's answer, signed, and verified later.
//!
//! The key is derived from the cluster's KEK file, so every gateway signs and verifies alike.
//! Invariant: comparison takes constant time.

use api::receipt::{Receipt, Survives};
use api::timestamp::Timestamp;
use codec::digest::{block_digest, secret_hash};
use codec::keys::DigestKey;
use model::digest::Digest;
use model::profile::ProfileId;
use protocol::metadata::drive::FeedPosition;
use protocol::metadata::upload::Committed;
use subtle::ConstantTimeEq;

const LABEL: &[u8] = b"holdfast v1 receipt key ";

/// Signs and verifies receipts and other opaque texts that we hand out.
pub struct ReceiptKey(DigestKey);

impl ReceiptKey {
    /// Derives the key from the KEK's file text.
    pub fn derive(kek_text: &[u8]) -> Self {
        let input = zeroize::Zeroizing::new([LABEL, kek_text].concat());
        Self(DigestKey::new(secret_hash(&input)))
    }

    /// The receipt of a commit.
    pub fn receipt(&self, profile: ProfileId, committed: &Committed) -> Receipt {
        let mut receipt = Receipt {
            profile: profile.as_str().to_owned(),
            survives: Survives::from(committed.survival.survives),
            degraded: committed.survival.is_degraded,
            entry: committed.view.entry.id.to_string(),
            version: committed.version.number,
            digest: committed.version.digest.to_hex(),
            cursor: self.cursor(&committed.position),
            time: Timestamp(committed.time),
            mac: String::new(),
        };
        receipt.mac = self.mac(receipt.signed_text().as_bytes()).to_hex();
        receipt
    }

    /// Whether this cluster signed the receipt as it stands.
    pub fn verify(&self, receipt: &Receipt) -> bool {
        let Some(given) = Digest::from_hex(&receipt.mac) else {
            return false;
        };
        self.mac(receipt.signed_text().as_bytes()).0.ct_eq(&given.0).into()
    }

    /// A cursor right behind `position`: opaque, MACed.
    pub fn cursor(&self, position: &FeedPosition) -> String {
        let text = format!("{}.{}.{}", position.scope, position.incarnation, position.sequence);
        let mac = self.mac(format!("cursor {text}").as_bytes()).to_hex();
        format!("{text}.{}", &mac[..32])
    }

    fn mac(&self, text: &[u8]) -> Digest {
        block_digest(&self.0, text)
    }
}
