//! `If-Match` on entries: pure.
//!
//! The tag of an entry is `"<id>-<revision>"`; that of a listing has a fingerprint of the page behind it, which says nothing about
//! the entry itself and is not compared. Weak tags never match (RFC 9110).

use axum::http::{HeaderMap, header};
use model::id::EntryId;

/// What a request demands of the revision of the entry that it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    Any,
    /// One of these; none of them when the tags are of other entries.
    OneOf(Vec<u64>),
}

/// Reads `If-Match` for `entry`.
pub fn precondition(headers: &HeaderMap, entry: EntryId) -> Precondition {
    let mut named = headers.get_all(header::IF_MATCH).iter().peekable();
    if named.peek().is_none() {
        return Precondition::Any;
    }
    let tags: Vec<&str> = named
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .map(str::trim)
        .collect();
    if tags.contains(&"*") {
        return Precondition::Any;
    }
    let id = entry.to_string();
    Precondition::OneOf(tags.into_iter().filter_map(|tag| revision(tag, &id)).collect())
}

fn revision(tag: &str, id: &str) -> Option<u64> {
    let inner = tag.strip_prefix('"')?.strip_suffix('"')?;
    let rest = inner.strip_prefix(id)?.strip_prefix('-')?;
    let number = rest.split_once('-').map_or(rest, |(number, _)| number);
    let is_number = !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit());
    number.parse().ok().filter(|_| is_number)
}

#[cfg(test)]
mod tests {
    use super::{Precondition, precondition};
    use axum::http::{HeaderMap, header};
    use model::id::{DriveId, EntryId};

    #[test]
    fn tags_of_the_entry_give_revisions_and_all_others_match_nothing() {
        let entry = EntryId {
            drive: DriveId(5),
            number: 6,
        };
        let other = EntryId { number: 7, ..entry };
        let check = |text: Option<String>| {
            let mut headers = HeaderMap::new();
            if let Some(text) = text {
                headers.insert(header::IF_MATCH, text.parse().unwrap());
            }
            precondition(&headers, entry)
        };
        let one_of = |revisions: &[u64]| Precondition::OneOf(revisions.to_vec());
        assert_eq!(check(None), Precondition::Any);
        assert_eq!(check(Some("*".to_owned())), Precondition::Any);
        assert_eq!(check(Some(format!("\"{entry}-3\""))), one_of(&[3]));
        assert_eq!(
            check(Some(format!("\"{entry}-3-abc\", \"{entry}-5\""))),
            one_of(&[3, 5])
        );
        for none in [
            format!("\"{other}-3\""),
            format!("W/\"{entry}-3\""),
            format!("\"{entry}-+3\""),
            format!("\"{entry}-\""),
            format!("{entry}-3"),
            String::new(),
        ] {
            assert_eq!(check(Some(none.clone())), one_of(&[]), "{none}");
        }
    }
}
