//! Tests of what a resumed upload saves, passes by and is told of its end; over gateways and groups in `tests/cluster`.

use super::{AGE_BEHIND, Resuming, pass_by, sure_of};
use crate::codes;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use model::limits::RESUMABLE_SESSION_AGE;
use std::time::Duration;

/// What comes of `parts`, with a body behind them that nobody may wait for.
fn passed(parts: &[&'static str], skipped: u64, wanted: Option<u64>) -> Option<String> {
    let parts: Vec<_> = parts
        .iter()
        .map(|part| Ok(Bytes::from_static(part.as_bytes())))
        .collect();
    let body = stream::iter(parts).chain(stream::pending()).boxed();
    let taken = pass_by(body, skipped, wanted).try_collect::<Vec<Bytes>>();
    let taken = taken.now_or_never()?.unwrap();
    assert!(taken.iter().all(|part| !part.is_empty()));
    Some(String::from_utf8(taken.concat()).unwrap())
}

#[test]
fn a_mebibyte_is_saved_a_second_after_it_was_there_and_a_byte_less_is_not() {
    let mut resuming = Resuming::default();
    let mut check = |unsaved_bytes, now_ms, expected: Option<u64>| {
        let waits = resuming.waits(unsaved_bytes, Duration::from_millis(now_ms));
        assert_eq!(waits, expected.map(Duration::from_millis), "{now_ms}");
    };
    check(1_048_575, 0, None);
    check(1_048_576, 5_000, Some(1_000));
    check(9_000_000, 5_400, Some(600));
    check(9_000_000, 6_100, Some(0));
    check(1_048_575, 6_200, None);
    check(1_048_576, 6_300, Some(1_000));
}

#[test]
fn what_is_known_is_passed_by_and_what_is_too_much_is_not_waited_for() {
    let parts = ["ab", "", "cdef", "gh"];
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(passed(&parts, 0, Some(8)), some("abcdefgh"));
    assert_eq!(passed(&parts, 0, Some(3)), some("abc"));
    assert_eq!(passed(&parts, 3, Some(7)), some("defg"));
    assert_eq!(passed(&parts, 6, Some(6)), some(""));
    assert_eq!(passed(&parts, 7, Some(6)), some(""));
    assert_eq!(passed(&parts, 0, Some(0)), some(""));
    assert_eq!(passed(&parts, 0, Some(9)), None, "one is still to come");
    assert_eq!(passed(&parts, 0, None), None);
}

#[test]
fn a_body_that_is_cut_says_so_once() {
    let parts = [Ok(Bytes::from_static(b"abc")), Err(codes::BODY_CUT.failure())];
    let body = stream::iter(parts).chain(stream::pending()).boxed();
    let taken: Vec<_> = pass_by(body, 1, Some(9)).collect().now_or_never().unwrap();
    assert_eq!(taken.len(), 2);
    assert_eq!(taken[0].as_ref().unwrap(), &Bytes::from_static(b"bc"));
    assert_eq!(taken[1].as_ref().unwrap_err().code, "body_cut");
}

/// Age is behind by `used` when a session is used, and by `asked` when it is asked `passed` later.
#[test]
fn the_end_that_is_told_is_no_later_than_the_end_and_no_earlier_than_was_told_at_the_last_use() {
    let told = sure_of(RESUMABLE_SESSION_AGE);
    for used in [Duration::ZERO, AGE_BEHIND / 2, AGE_BEHIND] {
        let end = RESUMABLE_SESSION_AGE.saturating_sub(used);
        assert!(told <= end);
        for asked in [Duration::ZERO, AGE_BEHIND / 2, AGE_BEHIND] {
            for passed in [60, 61, 120, 86_400, 7 * 86_400 - 121] {
                let passed = Duration::from_secs(passed);
                let again = passed + sure_of((end + asked).saturating_sub(passed));
                assert!(
                    (told..=end).contains(&again),
                    "{used:?} {asked:?} {passed:?}: {again:?}"
                );
            }
        }
    }
}
