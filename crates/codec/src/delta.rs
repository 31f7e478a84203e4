//! The difference of two lists of blocks: runs that are kept of the old one, and blocks that are new.
//!
//! Place in the picture: a client says by it what its new content is, and a gateway what has changed since a version.
//! Invariants: `applied` of `splices` gives the new list, whatever the old one; neighbouring runs are joined.
//! Not here: who has the bytes of a new block.

use model::entry::BlockRow;
use std::collections::BTreeMap;

/// A piece of the new list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Splice {
    /// A run of the old list.
    Keep {
        /// Its first row, from 0.
        first: u64,
        /// How many rows, at least 1.
        count: u64,
    },
    /// Rows that are given, at least one.
    Blocks(Vec<BlockRow>),
}

/// Why splices give no list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpliceError {
    /// A run lies outside of the old list, or is empty.
    #[error("splice {0} keeps rows that the old version does not have")]
    OutOfRange(usize),
    /// The list passes the limit.
    #[error("the list has more rows than a file may have")]
    TooMany,
}

/// Says `new` in terms of `old`. Greedy: a run goes on for as long as it can, else the first place of the row in `old` is taken that
/// lies behind the run before, else the first of all. Cost O((old + new) log old), and the splices are at most as many as `new`.
#[must_use]
pub fn splices(old: &[BlockRow], new: &[BlockRow]) -> Vec<Splice> {
    let mut places: BTreeMap<([u8; 32], u32), Vec<usize>> = BTreeMap::new();
    for (at, row) in old.iter().enumerate() {
        places.entry((row.digest.0, row.size)).or_default().push(at);
    }
    let mut splices = Vec::new();
    let mut behind = 0;
    for row in new {
        let place = match places.get(&(row.digest.0, row.size)) {
            _ if old.get(behind) == Some(row) => Some(behind),
            Some(known) => {
                let later = known.partition_point(|at| *at < behind);
                known.get(later).or(known.first()).copied()
            }
            None => None,
        };
        match (place, splices.last_mut()) {
            (Some(at), Some(Splice::Keep { first, count })) if *first + *count == at as u64 => *count += 1,
            (Some(at), _) => splices.push(Splice::Keep {
                first: at as u64,
                count: 1,
            }),
            (None, Some(Splice::Blocks(rows))) => rows.push(*row),
            (None, _) => splices.push(Splice::Blocks(vec![*row])),
        }
        behind = place.map_or(behind, |at| at + 1);
    }
    splices
}

/// The list that `splices` make of `old`; no longer than `rows_max`, which is checked before memory is taken.
pub fn applied(old: &[BlockRow], splices: &[Splice], rows_max: usize) -> Result<Vec<BlockRow>, SpliceError> {
    let mut list = Vec::new();
    for (at, splice) in splices.iter().enumerate() {
        let rows = match splice {
            Splice::Blocks(rows) => rows.as_slice(),
            Splice::Keep { first, count } => {
                let first_row = usize::try_from(*first).ok();
                let end = first.checked_add(*count).and_then(|end| usize::try_from(end).ok());
                let range = first_row.zip(end).filter(|(first, end)| first < end);
                let kept = range.and_then(|(first, end)| old.get(first..end));
                kept.ok_or(SpliceError::OutOfRange(at))?
            }
        };
        if rows.len() > rows_max - list.len() {
            return Err(SpliceError::TooMany);
        }
        list.extend_from_slice(rows);
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::{Splice, SpliceError, applied, splices};
    use model::digest::Digest;
    use model::entry::BlockRow;
    use proptest::collection::vec;
    use proptest::prelude::{ProptestConfig, proptest};

    fn rows(letters: &str) -> Vec<BlockRow> {
        let row = |letter: u8| BlockRow {
            digest: Digest([letter; 32]),
            size: 1000,
        };
        letters.bytes().map(row).collect()
    }

    fn keep(first: u64, count: u64) -> Splice {
        Splice::Keep { first, count }
    }

    #[test]
    fn what_did_not_change_is_named_by_runs() {
        let check = |old: &str, new: &str, expected: &[Splice]| {
            let (old, new) = (rows(old), rows(new));
            assert_eq!(splices(&old, &new), expected);
            assert_eq!(applied(&old, expected, new.len()), Ok(new));
        };
        let new = |letters: &str| Splice::Blocks(rows(letters));
        check("abcdef", "abcdef", &[keep(0, 6)]);
        check("abcdef", "abXdef", &[keep(0, 2), new("X"), keep(3, 3)]);
        check("abcdef", "abXYcdef", &[keep(0, 2), new("XY"), keep(2, 4)]);
        check("abcdef", "abef", &[keep(0, 2), keep(4, 2)]);
        check("abcdef", "abc", &[keep(0, 3)]);
        check("abcdef", "defabc", &[keep(3, 3), keep(0, 3)]);
        check("aaaa", "aaaaaa", &[keep(0, 4), keep(0, 2)]);
        check("", "ab", &[new("ab")]);
        check("ab", "", &[]);
    }

    #[test]
    fn runs_outside_and_lists_that_are_too_long_are_refused() {
        let old = rows("abc");
        for (first, count) in [
            (0, 4),
            (3, 1),
            (0, 0),
            (u64::MAX, 1),
            (1, u64::MAX),
            (u64::MAX, u64::MAX),
        ] {
            let splices = [keep(0, 1), keep(first, count)];
            assert_eq!(applied(&old, &splices, 100), Err(SpliceError::OutOfRange(1)));
        }
        let often = vec![keep(0, 3); 4];
        assert_eq!(applied(&old, &often, 12).map(|list| list.len()), Ok(12));
        assert_eq!(applied(&old, &often, 11), Err(SpliceError::TooMany));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]
        #[test]
        fn splices_lead_from_any_list_to_any_other(old in vec(0_u8..6, 0..40), new in vec(0_u8..8, 0..40)) {
            let row = |letter: &u8| BlockRow { digest: Digest([*letter; 32]), size: 1 };
            let (old, new): (Vec<_>, Vec<_>) = (old.iter().map(row).collect(), new.iter().map(row).collect());
            let between = splices(&old, &new);
            assert!(between.len() <= new.len());
            assert_eq!(applied(&old, &between, new.len()), Ok(new));
        }
    }
}
