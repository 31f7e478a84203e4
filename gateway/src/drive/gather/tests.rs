//! The reading machine against every mixture of good, missing, corrupt, foreign and silent fragments.

use super::{Event, Gather, Progress, ReadFault};
use bytes::Bytes;
use model::digest::StripeHash;
use model::id::DiskId;
use model::stripe::StripeForm;
use proptest::prelude::{Just, Strategy, prop_oneof, proptest};
use std::collections::BTreeSet;
use std::time::Duration;

const HEDGE: Duration = Duration::from_millis(100);
const FORM: StripeForm = StripeForm {
    k: 4,
    m: 2,
    stripe_bytes: 4000,
    stripe_hash: StripeHash([7; 32]),
};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Good,
    Missing,
    Corrupt,
    OtherForm,
    Silent,
}

/// Runs the machine to its end; every request to a silent disk fails once everything else has been answered.
///
/// How it ended, what was asked, and whether the stripe may still be read once silent disks answer again.
fn run(fates: &[Fate], start: u32, len: u32, avoid: &BTreeSet<DiskId>) -> (Progress, usize, bool) {
    let places = (0..6).map(|index| vec![DiskId(index)]).collect();
    let mut gather = Gather::new(FORM, places, (start, len), avoid, HEDGE);
    let (mut now, mut asked) = (Duration::ZERO, 0);
    let mut waiting = gather.handle(now, Event::Tick);
    let mut silent = Vec::new();
    loop {
        match gather.progress() {
            Progress::Reading => {}
            ended => return (ended, asked, gather.may_return()),
        }
        let Some(read) = waiting.pop() else {
            now += HEDGE;
            waiting = gather.handle(now, Event::Tick);
            if waiting.is_empty() {
                let request = silent.pop().expect("a machine that reads has a request under way");
                waiting = gather.handle(
                    now,
                    Event::Failed {
                        request,
                        fault: ReadFault::Away,
                    },
                );
            }
            continue;
        };
        asked += 1;
        let request = read.request;
        let bytes = Bytes::from(vec![read.index; read.window.len_bytes() as usize]);
        let event = match fates[usize::from(read.index)] {
            Fate::Good => Event::Read {
                request,
                form: FORM,
                bytes,
            },
            Fate::OtherForm => Event::Read {
                request,
                form: StripeForm {
                    stripe_bytes: 3999,
                    ..FORM
                },
                bytes,
            },
            Fate::Missing => Event::Failed {
                request,
                fault: ReadFault::Missing,
            },
            Fate::Corrupt => Event::Failed {
                request,
                fault: ReadFault::Corrupt,
            },
            Fate::Silent => {
                silent.push(request);
                Event::Tick
            }
        };
        waiting.extend(gather.handle(now, event));
    }
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        4 => Just(Fate::Good),
        1 => Just(Fate::Missing),
        1 => Just(Fate::Corrupt),
        1 => Just(Fate::OtherForm),
        1 => Just(Fate::Silent),
    ]
}

proptest! {
    /// The naive twin: readable when all touched data fragments are good, or any four fragments are.
    #[test]
    fn a_run_is_read_exactly_when_enough_fragments_are_good(
        fates in proptest::collection::vec(fate(), 6),
        start in 0_u32..4000,
        len in 1_u32..4000,
        avoided in proptest::collection::btree_set(0_u32..6, 0..3),
    ) {
        let len = len.min(4000 - start);
        let avoid = avoided.into_iter().map(DiskId).collect();
        let (first, last) = (start / 1000, (start + len - 1) / 1000);
        let is_direct = (first..=last).all(|index| fates[index as usize] == Fate::Good);
        let good = fates.iter().filter(|fate| **fate == Fate::Good).count();
        match run(&fates, start, len, &avoid).0 {
            Progress::Direct(pieces) => {
                let total: usize = pieces.iter().map(|piece| piece.bytes.len()).sum();
                assert!(is_direct && total == len as usize);
                assert!(pieces.iter().all(|piece| piece.bytes.iter().all(|byte| *byte == piece.index)));
            }
            Progress::Rebuild(pieces) => {
                assert!(pieces.len() >= 4 && pieces.iter().all(|piece| piece.bytes.len() == 1000));
            }
            Progress::Short => assert!(good < 4 && !is_direct),
            Progress::Reading => unreachable!("run ends only at an end"),
        }
    }
}

#[test]
fn what_is_away_may_make_up_for_damage_and_what_is_gone_may_not() {
    let check = |fates: [Fate; 6], expected: bool| {
        let (ended, _, may_return) = run(&fates, 0, 4000, &BTreeSet::new());
        assert_eq!(ended, Progress::Short, "{fates:?}");
        assert_eq!(may_return, expected, "{fates:?}");
    };
    let (good, corrupt, missing, silent) = (Fate::Good, Fate::Corrupt, Fate::Missing, Fate::Silent);
    check([good, good, good, corrupt, silent, silent], true);
    check([good, good, good, corrupt, corrupt, silent], true);
    check([silent, silent, silent, corrupt, corrupt, silent], true);
    check([good, good, good, corrupt, corrupt, corrupt], false);
    check([good, good, good, corrupt, missing, missing], false);
    check([good, good, silent, corrupt, corrupt, missing], false);
}

#[test]
fn a_good_part_of_a_damaged_fragment_gives_no_hope() {
    let places = (0..6).map(|index| vec![DiskId(index)]).collect();
    let mut gather = Gather::new(FORM, places, (0, 1_010), &BTreeSet::new(), HEDGE);
    let mut waiting = gather.handle(Duration::ZERO, Event::Tick);
    // Ten bytes of the second one are wanted, and good; the rest of it is not, nor are the first and the third.
    while let Some(read) = waiting.pop() {
        let (request, form) = (read.request, FORM);
        let event = match (read.index, read.window.len_bytes()) {
            (1, 10) | (3..=5, _) => Event::Read {
                request,
                form,
                bytes: Bytes::from(vec![0; read.window.len_bytes() as usize]),
            },
            _ => Event::Failed {
                request,
                fault: ReadFault::Corrupt,
            },
        };
        waiting.extend(gather.handle(Duration::ZERO, event));
    }
    assert_eq!(gather.progress(), Progress::Short);
    assert!(
        !gather.may_return(),
        "three whole fragments are good, and nobody is away"
    );
}

/// A range read asks for nothing but the fragments that hold it.
#[test]
fn a_healthy_range_read_asks_one_fragment() {
    assert_eq!(run(&[Fate::Good; 6], 1500, 100, &BTreeSet::new()).1, 1);
}

#[test]
fn fragments_that_do_not_give_the_stripe_make_it_ask_for_one_more() {
    let places = (0..6).map(|index| vec![DiskId(index)]).collect();
    let mut gather = Gather::new(FORM, places, (0, 4000), &BTreeSet::from([DiskId(0)]), HEDGE);
    let answer = |gather: &mut Gather, reads: Vec<super::Read>| {
        let mut more = Vec::new();
        for read in reads {
            let bytes = Bytes::from(vec![0; read.window.len_bytes() as usize]);
            more.extend(gather.handle(
                Duration::ZERO,
                Event::Read {
                    request: read.request,
                    form: FORM,
                    bytes,
                },
            ));
        }
        more
    };
    let reads = gather.handle(Duration::ZERO, Event::Tick);
    answer(&mut gather, reads);
    assert!(matches!(gather.progress(), Progress::Rebuild(pieces) if pieces.len() == 4));
    let reads = gather.handle(Duration::ZERO, Event::OtherStripe);
    assert_eq!(reads.len(), 1);
    answer(&mut gather, reads);
    assert!(matches!(gather.progress(), Progress::Rebuild(pieces) if pieces.len() == 5));
}

#[test]
fn a_late_disk_is_told_and_the_next_read_does_not_wait_for_it() {
    let begin = |avoid: &[u32]| {
        let places = (0..6).map(|index| vec![DiskId(index)]).collect();
        let avoid = avoid.iter().map(|disk| DiskId(*disk)).collect();
        let mut gather = Gather::new(FORM, places, (0, 10), &avoid, HEDGE);
        let reads = gather.handle(Duration::ZERO, Event::Tick);
        (gather, reads.iter().map(|read| read.disk.0).collect::<Vec<_>>())
    };
    let (gather, asked) = begin(&[]);
    assert_eq!(asked, [0]);
    assert_eq!(gather.late(HEDGE / 2).count(), 0);
    assert_eq!(gather.late(HEDGE).collect::<Vec<_>>(), [DiskId(0)]);
    assert_eq!(begin(&[0]).1, [1, 2, 3, 4]);
    assert_eq!(begin(&[0, 2]).1, [1, 3, 4, 5]);
    // With three of six to avoid the others do not suffice, and the direct way is as good as any.
    assert_eq!(begin(&[0, 2, 4]).1, [0]);
}

/// One forged fragment among the four of a whole read costs none of the other three.
#[test]
fn wrong_bytes_of_the_direct_way_keep_what_was_gathered_and_ask_for_one_more_when_it_gives_no_stripe() {
    let places = (0..6).map(|index| vec![DiskId(index)]).collect();
    let mut gather = Gather::new(FORM, places, (0, 4000), &BTreeSet::new(), HEDGE);
    let answer = |gather: &mut Gather, reads: Vec<super::Read>| {
        for read in reads {
            let event = Event::Read {
                request: read.request,
                form: FORM,
                bytes: Bytes::from(vec![read.index; read.window.len_bytes() as usize]),
            };
            assert!(gather.handle(Duration::ZERO, event).is_empty());
        }
    };
    let reads = gather.handle(Duration::ZERO, Event::Tick);
    answer(&mut gather, reads);
    assert!(matches!(gather.progress(), Progress::Direct(_)));
    assert!(gather.handle(Duration::ZERO, Event::DirectWrong).is_empty());
    assert!(matches!(gather.progress(), Progress::Rebuild(pieces) if pieces.len() == 4));
    let reads = gather.handle(Duration::ZERO, Event::OtherStripe);
    assert_eq!(reads.iter().map(|read| read.index).collect::<Vec<_>>(), [4]);
    answer(&mut gather, reads);
    assert!(matches!(gather.progress(), Progress::Rebuild(pieces) if pieces.len() == 5));
}

/// Calls that were dropped with the direct way are made again, in full length.
#[test]
fn wrong_bytes_of_a_part_are_followed_by_whole_fragments_whatever_was_under_way() {
    let places = (0..6).map(|index| vec![DiskId(index)]).collect();
    let mut gather = Gather::new(FORM, places, (0, 10), &BTreeSet::new(), HEDGE);
    let first = gather.handle(Duration::ZERO, Event::Tick).remove(0);
    let hedges = gather.handle(HEDGE, Event::Tick);
    assert!(!hedges.is_empty());
    let event = Event::Read {
        request: first.request,
        form: FORM,
        bytes: Bytes::from(vec![0; 10]),
    };
    gather.handle(HEDGE, event);
    assert!(matches!(gather.progress(), Progress::Direct(_)));
    let reads = gather.handle(HEDGE, Event::DirectWrong);
    assert_eq!(reads.iter().map(|read| read.index).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert!(reads.iter().all(|read| read.window.len_bytes() == 1000));
}
