//! Tickets: the right to send one block, for whoever has the text.
//!
//! Invariants: a ticket holds for one digest, length, upload (and so drive) until its time; its MAC covers them all, and it has one
//! spelling; a gateway believes it without asking anybody.
//! Not here: what the bytes must be (`upload::single`).

use crate::codes;
use crate::drive::receipt::ReceiptKey;
use model::digest::Digest;
use model::entry::BlockRow;
use model::id::UploadId;
use model::time::WallTime;
use protocol::wire_error::Failure;
use subtle::ConstantTimeEq;

/// 128 bits are far beyond guessing.
const MAC_BYTES: usize = 16;

/// What a ticket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The upload that the block is for, in the drive that it goes to.
    pub upload: UploadId,
    /// The block.
    pub row: BlockRow,
    /// Good until then.
    pub expires_at: WallTime,
}

impl ReceiptKey {
    /// The ticket's text; the digest is not in it, since the address has it.
    pub fn ticket(&self, ticket: &Ticket) -> String {
        let (upload, size, expires) = (ticket.upload, ticket.row.size, ticket.expires_at.0);
        let text = format!("ticket {upload}.{}.{size}.{expires}", ticket.row.digest.to_hex());
        let mac = self.mac(text.as_bytes()).to_hex();
        format!("{upload}.{size}.{expires}.{}", &mac[..2 * MAC_BYTES])
    }

    /// What a ticket for the block `digest` allows at `now`.
    ///
    /// Errors: `ticket_invalid` when it was not given out as it stands and for this block, `ticket_expired`.
    pub fn read_ticket(&self, text: &str, digest: Digest, now: WallTime) -> Result<Ticket, Failure> {
        let ticket = read(text, digest).ok_or_else(|| codes::TICKET_INVALID.failure())?;
        let is_ours: bool = self.ticket(&ticket).as_bytes().ct_eq(text.as_bytes()).into();
        if !is_ours {
            return Err(codes::TICKET_INVALID.failure());
        }
        if now >= ticket.expires_at {
            return Err(codes::TICKET_EXPIRED.failure());
        }
        Ok(ticket)
    }
}

fn read(text: &str, digest: Digest) -> Option<Ticket> {
    let mut parts = text.split('.');
    let mut part = || parts.next();
    let (upload, size, expires) = (part()?, part()?, part()?);
    let size = size.parse().ok()?;
    Some(Ticket {
        upload: UploadId::parse(upload)?,
        row: BlockRow { digest, size },
        expires_at: WallTime(expires.parse().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::Ticket;
    use crate::drive::receipt::ReceiptKey;
    use model::digest::Digest;
    use model::entry::BlockRow;
    use model::id::{DriveId, UploadId};
    use model::time::WallTime;

    const GOLDEN: &str = "000000000000e0000000000010.1000.5000.5fc8aac8257538273dfdf68f64e132e8";
    const PAGE: &str = include_str!("../../../docs/format/tickets.md");

    /// shows: H-API-4
    #[test]
    fn a_ticket_holds_for_its_block_upload_and_time_and_in_one_spelling() {
        let key = ReceiptKey::derive(b"kek");
        let digest = Digest([7; 32]);
        let ticket = Ticket {
            upload: UploadId {
                drive: DriveId(7),
                number: 8,
            },
            row: BlockRow { digest, size: 1000 },
            expires_at: WallTime(5000),
        };
        let text = key.ticket(&ticket);
        assert_eq!(text, GOLDEN, "a sent form is never edited");
        assert!(PAGE.contains(GOLDEN));
        let read = |text: &str, digest, now| {
            key.read_ticket(text, digest, WallTime(now))
                .map_err(|failure| failure.code)
        };
        assert_eq!(read(&text, digest, 4999), Ok(ticket));
        assert_eq!(read(&text, digest, 5000), Err("ticket_expired".to_owned()));
        let invalid = Err("ticket_invalid".to_owned());
        assert_eq!(read(&text, Digest([8; 32]), 0), invalid);
        assert!(
            ReceiptKey::derive(b"other")
                .read_ticket(&text, digest, WallTime(0))
                .is_err()
        );
        for at in 0..text.len() {
            let mut altered = text.clone().into_bytes();
            altered[at] = if altered[at] == b'1' { b'2' } else { b'1' };
            assert_eq!(
                read(std::str::from_utf8(&altered).unwrap(), digest, 0),
                invalid,
                "byte {at}"
            );
            assert_eq!(read(&text[..at], digest, 0), invalid);
        }
        for (from, to) in [(".1000.", ".+1000."), (".1000.", ".01000."), (".5000.", ".05000.")] {
            assert_eq!(read(&text.replace(from, to), digest, 0), invalid);
        }
        assert_eq!(read(&format!("{text}.x"), digest, 0), invalid);
    }
}
