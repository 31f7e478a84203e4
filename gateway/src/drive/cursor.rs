//! Cursors: places in the feeds that a client follows, as a text that only we make and only its user may use.
//!
//! docs/format/cursors.md is the page of this file. Invariants: the MAC covers the user and every place; a cursor has one spelling; any
//! gateway reads what another gave out.
//! Not here: whether the feeds still go on from there (the drives' groups say).

use crate::codes;
use crate::drive::receipt::ReceiptKey;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use model::id::{DriveId, EntryId, Incarnation, UserId};
use model::limits::CURSOR_SCOPES_MAX;
use protocol::metadata::drive::FeedPosition;
use protocol::wire_error::Failure;
use subtle::ConstantTimeEq;

const VERSION: u8 = 1;
/// 128 bits are far beyond guessing.
const MAC_BYTES: usize = 16;
/// Drive, number, incarnation, sequence.
const PLACE_BYTES: usize = 4 * 8;

impl ReceiptKey {
    /// A cursor right behind `places`, which are ascending by scope.
    pub fn cursor(&self, user: UserId, places: &[FeedPosition]) -> String {
        let mut bytes = Vec::with_capacity(1 + places.len() * PLACE_BYTES + MAC_BYTES);
        bytes.push(VERSION);
        for place in places {
            let (scope, incarnation) = (place.scope, place.incarnation.0);
            let numbers = [scope.drive.0, scope.number, incarnation, place.sequence];
            numbers.iter().for_each(|number| bytes.extend(number.to_be_bytes()));
        }
        let mac = self.cursor_mac(user, &bytes);
        bytes.extend(mac);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The places of a cursor that was given to `user`.
    ///
    /// Errors: `cursor_invalid` when it is not as it was given.
    pub fn read_cursor(&self, user: UserId, text: &str) -> Result<Vec<FeedPosition>, Failure> {
        let read = self.read_places(user, text);
        read.ok_or_else(|| codes::CURSOR_INVALID.failure())
    }

    fn read_places(&self, user: UserId, text: &str) -> Option<Vec<FeedPosition>> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (signed, mac) = bytes.split_last_chunk::<MAC_BYTES>()?;
        let is_ours: bool = self.cursor_mac(user, signed).ct_eq(mac).into();
        let (version, rest) = signed.split_first()?;
        let (places, []) = rest.as_chunks::<PLACE_BYTES>() else {
            return None;
        };
        let fits = (1..=CURSOR_SCOPES_MAX).contains(&places.len());
        if !is_ours || *version != VERSION || !fits {
            return None;
        }
        places.iter().map(place).collect()
    }

    fn cursor_mac(&self, user: UserId, signed: &[u8]) -> [u8; MAC_BYTES] {
        let mac = self.mac(&[format!("cursor {user} ").as_bytes(), signed].concat());
        let mut short = [0; MAC_BYTES];
        short.copy_from_slice(&mac.0[..MAC_BYTES]);
        short
    }
}

fn place(bytes: &[u8; PLACE_BYTES]) -> Option<FeedPosition> {
    let (numbers, _) = bytes.as_chunks::<8>();
    let number = |at: usize| numbers.get(at).map(|bytes| u64::from_be_bytes(*bytes));
    Some(FeedPosition {
        scope: EntryId {
            drive: DriveId(number(0)?),
            number: number(1)?,
        },
        incarnation: Incarnation(number(2)?),
        sequence: number(3)?,
    })
}

#[cfg(test)]
mod tests {
    use crate::drive::receipt::ReceiptKey;
    use model::id::{DriveId, EntryId, Incarnation, UserId};
    use protocol::metadata::drive::FeedPosition;

    const GOLDEN: &str = "AQAAAAAAAAAHAAAAAAAAAAEAAAAAAAAAAwAAAAAAAAPpORjs8NV8I9LnBghCYjYhZw";
    const PAGE: &str = include_str!("../../../docs/format/cursors.md");

    fn places(count: u64) -> Vec<FeedPosition> {
        let place = |number| FeedPosition {
            scope: EntryId {
                drive: DriveId(7),
                number,
            },
            incarnation: Incarnation(3),
            sequence: 1_000 + number,
        };
        (1..=count).map(place).collect()
    }

    #[test]
    fn a_cursor_serves_its_user_and_reads_back_only_unaltered() {
        let key = ReceiptKey::derive(b"kek");
        let text = key.cursor(UserId(1), &places(1));
        assert_eq!(text, GOLDEN, "a sent form is never edited");
        assert!(PAGE.contains(GOLDEN));
        let read = |text: &str| key.read_cursor(UserId(1), text).map_err(|failure| failure.code);
        let invalid = || Err("cursor_invalid".to_owned());
        assert_eq!(read(&text), Ok(places(1)));
        assert!(key.read_cursor(UserId(2), &text).is_err(), "it is another user's");
        assert!(ReceiptKey::derive(b"other").read_cursor(UserId(1), &text).is_err());
        for at in 0..text.len() {
            let mut altered = text.clone().into_bytes();
            altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(read(std::str::from_utf8(&altered).unwrap()), invalid(), "byte {at}");
            assert_eq!(read(&text[..at]), invalid());
        }
        for text in [
            format!("{text}="),
            format!("{text}A"),
            format!("{text}.x"),
            " ".to_owned(),
        ] {
            assert_eq!(read(&text), invalid(), "{text}");
        }
    }

    #[test]
    fn a_cursor_holds_128_scopes_and_neither_none_nor_more() {
        let key = ReceiptKey::derive(b"kek");
        let whole = key.cursor(UserId(1), &places(128));
        assert_eq!(key.read_cursor(UserId(1), &whole).unwrap(), places(128));
        assert!(whole.len() < 6_000, "it must fit the head of a request");
        for count in [0, 129] {
            let text = key.cursor(UserId(1), &places(count));
            assert!(key.read_cursor(UserId(1), &text).is_err(), "{count}");
        }
    }
}
