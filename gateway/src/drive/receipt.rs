//! What we hand out and take back: receipts of commits, page tokens, addresses of uploads. Made, signed, and verified later.
//!
//! The key is derived from the cluster's KEK file, so every gateway signs and verifies alike.
//! Invariants: comparison takes constant time; each sort of text is signed with its own word in front, so none passes for another.
//! Not here: cursors and tickets (`cursor`, `ticket`), which are signed with the same key.

use api::receipt::{Receipt, Survives};
use api::timestamp::Timestamp;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use codec::digest::{block_digest, secret_hash};
use codec::keys::DigestKey;
use model::digest::Digest;
use model::id::{EntryId, UploadId, UserId};
use model::profile::ProfileId;
use protocol::metadata::upload::Committed;
use subtle::ConstantTimeEq;

const LABEL: &[u8] = b"holdfast v1 receipt key ";
/// Bytes of a MAC in page tokens: 128 bits are far beyond guessing.
const SHORT_MAC_BYTES: usize = 16;

/// Signs and verifies receipts and other opaque texts that we hand out.
pub struct ReceiptKey(DigestKey);

impl ReceiptKey {
    /// Derives the key from the KEK's file text.
    pub fn derive(kek_text: &[u8]) -> Self {
        let input = zeroize::Zeroizing::new([LABEL, kek_text].concat());
        Self(DigestKey::new(secret_hash(&input)))
    }

    /// The receipt of a commit, for `user`, who made it.
    pub fn receipt(&self, user: UserId, profile: ProfileId, committed: &Committed) -> Receipt {
        let mut receipt = Receipt {
            profile: profile.as_str().to_owned(),
            survives: Survives::from(committed.survival.survives),
            degraded: committed.survival.is_degraded,
            entry: committed.view.entry.id.to_string(),
            version: committed.version.number,
            digest: committed.version.digest.to_hex(),
            cursor: self.cursor(user, &[committed.position]),
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

    /// The token of the page of `folder` behind the child that is shown as `last`; of use to `user` alone.
    pub fn page_token(&self, user: UserId, folder: EntryId, last: &str) -> String {
        let text = format!("{folder}.{last}");
        let mac = self.page_mac(user, &text);
        URL_SAFE_NO_PAD.encode([&mac[..], text.as_bytes()].concat())
    }

    /// The folder and the last name of a token that was given to `user`; `None` when it is not as it was given.
    pub fn read_page_token(&self, user: UserId, token: &str) -> Option<(EntryId, String)> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (mac, text) = bytes.split_first_chunk::<SHORT_MAC_BYTES>()?;
        let text = std::str::from_utf8(text).ok()?;
        let is_ours: bool = self.page_mac(user, text).ct_eq(mac).into();
        let (folder, last) = text.split_once('.').filter(|_| is_ours)?;
        Some((EntryId::parse(folder)?, last.to_owned()))
    }

    /// What stands for a resumable upload in its address: whoever has it may go on with it in the user's name.
    pub fn upload_key(&self, user: UserId, upload: UploadId) -> String {
        let text = format!("{upload}.{user}");
        let mac = self.mac(format!("upload {text}").as_bytes()).to_hex();
        format!("{text}.{}", &mac[..2 * SHORT_MAC_BYTES])
    }

    /// The user and the upload of such a key; `None` when it is not as it was given.
    pub fn read_upload_key(&self, key: &str) -> Option<(UserId, UploadId)> {
        let mut parts = key.splitn(3, '.');
        let (upload, user) = (UploadId::parse(parts.next()?)?, UserId::parse(parts.next()?)?);
        let is_ours: bool = self.upload_key(user, upload).as_bytes().ct_eq(key.as_bytes()).into();
        is_ours.then_some((user, upload))
    }

    fn page_mac(&self, user: UserId, text: &str) -> [u8; SHORT_MAC_BYTES] {
        let mut short = [0; SHORT_MAC_BYTES];
        let mac = self.mac(format!("page {user} {text}").as_bytes());
        short.copy_from_slice(&mac.0[..SHORT_MAC_BYTES]);
        short
    }

    /// Stands for a request that holds a secret where the request is remembered: without our key nobody can try secrets out on it.
    pub fn secret_request(&self, request: &[u8]) -> [u8; 32] {
        self.mac(&[b"request ", request].concat()).0
    }

    /// The MAC of a text, whose first word says of what sort it is.
    pub(in crate::drive) fn mac(&self, text: &[u8]) -> Digest {
        block_digest(&self.0, text)
    }
}

#[cfg(test)]
mod tests {
    use super::ReceiptKey;
    use model::id::{DriveId, EntryId, UploadId, UserId};

    #[test]
    fn an_uploads_key_reads_back_only_unaltered() {
        let key = ReceiptKey::derive(b"kek");
        let upload = UploadId {
            drive: DriveId(7),
            number: 8,
        };
        let text = key.upload_key(UserId(1), upload);
        assert_eq!(key.read_upload_key(&text), Some((UserId(1), upload)));
        assert_eq!(ReceiptKey::derive(b"other").read_upload_key(&text), None);
        for at in 0..text.len() {
            let mut altered = text.clone().into_bytes();
            altered[at] = if altered[at] == b'1' { b'2' } else { b'1' };
            assert_eq!(
                key.read_upload_key(std::str::from_utf8(&altered).unwrap()),
                None,
                "byte {at}"
            );
            assert_eq!(key.read_upload_key(&text[..at]), None);
        }
        assert_eq!(key.read_upload_key(&format!("{text}0")), None);
    }

    #[test]
    fn a_page_token_serves_its_user_and_reads_back_only_unaltered() {
        let key = ReceiptKey::derive(b"kek");
        let folder = EntryId {
            drive: DriveId(7),
            number: 8,
        };
        let token = key.page_token(UserId(1), folder, "Caf\u{e9}.txt");
        let read = Some((folder, "Caf\u{e9}.txt".to_owned()));
        assert_eq!(key.read_page_token(UserId(1), &token), read);
        assert_eq!(key.read_page_token(UserId(2), &token), None);
        assert_eq!(ReceiptKey::derive(b"other").read_page_token(UserId(1), &token), None);
        for at in 0..token.len() {
            let mut altered = token.clone().into_bytes();
            altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(altered).unwrap();
            assert_eq!(key.read_page_token(UserId(1), &altered), None, "{altered}");
            assert_eq!(key.read_page_token(UserId(1), &token[..at]), None);
        }
    }
}
