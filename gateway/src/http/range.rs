//! `Range` and the conditions of RFC 9110: pure.
//!
//! Invariant: a range that cannot be read as one of bytes is ignored, as the RFC demands; one that can and lies outside is refused.

use std::ops::Range;

/// What a `Range` header comes to for a content of a given length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// No range, several, or none that we understand: the whole content.
    Whole,
    /// One range, not empty.
    Part(Range<u64>),
    /// One range that lies outside.
    Outside,
}

/// Reads a `Range` header for `size` bytes. Several ranges are answered with the whole content, which the RFC allows.
pub fn wanted(header: Option<&str>, size: u64) -> Wanted {
    let Some(spec) = header.and_then(|text| text.trim().strip_prefix("bytes=")) else {
        return Wanted::Whole;
    };
    let Some((first, last)) = spec.trim().split_once('-') else {
        return Wanted::Whole;
    };
    if spec.contains(',') {
        return Wanted::Whole;
    }
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
        // More digits than a u64 has lie outside of every content.
        is_number.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    match (number(first.trim()), number(last.trim())) {
        (Some(first), Some(last)) if first > last => Wanted::Whole,
        (Some(first), _) if first >= size && (last.trim().is_empty() || number(last.trim()).is_some()) => {
            Wanted::Outside
        }
        (Some(first), Some(last)) => Wanted::Part(first..last.saturating_add(1).min(size)),
        (Some(first), None) if last.trim().is_empty() => Wanted::Part(first..size),
        (None, Some(0)) if first.trim().is_empty() => Wanted::Outside,
        (None, Some(_)) if first.trim().is_empty() && size == 0 => Wanted::Outside,
        (None, Some(length)) if first.trim().is_empty() => Wanted::Part(size.saturating_sub(length)..size),
        _ => Wanted::Whole,
    }
}

/// Whether a list of entity tags (`If-None-Match`) names `tag`; weak comparison.
pub fn names_weakly(header: &str, tag: &str) -> bool {
    header.trim() == "*"
        || header
            .split(',')
            .any(|named| named.trim().trim_start_matches("W/") == tag)
}

/// Whether a list of entity tags (`If-Match`) names `tag`; strong comparison.
pub fn names_strongly(header: &str, tag: &str) -> bool {
    header.trim() == "*" || header.split(',').any(|named| named.trim() == tag)
}

#[cfg(test)]
mod tests {
    use super::{Wanted, names_strongly, names_weakly, wanted};
    use proptest::prelude::{any, proptest};

    #[test]
    fn ranges_come_to_what_the_rfc_says() {
        let cases = [
            (None, 10, Wanted::Whole),
            (Some("bytes=0-0"), 10, Wanted::Part(0..1)),
            (Some("bytes=3-"), 10, Wanted::Part(3..10)),
            (Some("bytes=-4"), 10, Wanted::Part(6..10)),
            (Some("bytes=-40"), 10, Wanted::Part(0..10)),
            (Some("bytes=5-500"), 10, Wanted::Part(5..10)),
            (Some("bytes=10-"), 10, Wanted::Outside),
            (Some("bytes=10-12"), 10, Wanted::Outside),
            (Some("bytes=-0"), 10, Wanted::Outside),
            (Some("bytes=0-0"), 0, Wanted::Outside),
            (Some("bytes=-5"), 0, Wanted::Outside),
            (Some("bytes=7-3"), 10, Wanted::Whole),
            (Some("bytes=0-1,3-4"), 10, Wanted::Whole),
            (Some("lines=0-1"), 10, Wanted::Whole),
            (Some("bytes=a-b"), 10, Wanted::Whole),
            (Some("bytes=99999999999999999999-"), 10, Wanted::Outside),
        ];
        for (header, size, expected) in cases {
            assert_eq!(wanted(header, size), expected, "{header:?} of {size}");
        }
    }

    proptest! {
        #[test]
        fn no_header_panics_and_parts_lie_inside(text in "bytes=[0-9, -]{0,20}", size in any::<u64>()) {
            if let Wanted::Part(part) = wanted(Some(&text), size) {
                assert!(part.start < part.end && part.end <= size);
            }
        }
    }

    #[test]
    fn tags_are_compared_weakly_for_reading_and_strongly_for_writing() {
        assert!(names_weakly("\"x-1\", W/\"x-2\"", "\"x-2\""));
        assert!(!names_strongly("W/\"x-2\"", "\"x-2\""));
        assert!(names_strongly("*", "\"x-2\""));
    }
}
