//! The store against its naive twin: any operations, clean restarts, lost indexes, power cuts and passing faults between operations.

use super::harness::{Bench, Op};
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use proptest::test_runner::Config;
use std::sync::atomic::Ordering;

#[derive(Clone, Copy, Debug)]
enum Step {
    Do(Op),
    /// The disk is taken away in order and comes back.
    Reopen,
    LoseIndex,
    PowerCut(u64),
    /// The disk is pulled while it is used and comes back.
    Restart,
    /// A step of compaction in which no byte can be read.
    CompactUnreadable,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0_u8..16).prop_map(|id| Step::Do(Op::Store(id))),
        4 => (0_u8..16).prop_map(|id| Step::Do(Op::Remove(id))),
        1 => (0_u8..16).prop_map(|id| Step::Do(Op::List(id))),
        1 => Just(Step::Do(Op::KeepRow)),
        2 => Just(Step::Do(Op::Compact)),
        3 => Just(Step::Do(Op::CompactShort)),
        1 => Just(Step::Reopen),
        1 => Just(Step::Restart),
        1 => Just(Step::LoseIndex),
        1 => Just(Step::CompactUnreadable),
        1 => any::<u64>().prop_map(Step::PowerCut),
    ]
}

proptest! {
    #![proptest_config(Config { cases: 250, failure_persistence: None, ..Config::default() })]

    /// shows: N10
    /// shows: F17
    /// shows: F22 scale=2/3
    /// shows: CMP-store side=hardware scale=1/4
    #[test]
    fn the_store_is_a_map_through_restarts_lost_indexes_and_power_cuts(
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let mut bench = Bench::new();
        for step in steps {
            match step {
                Step::Do(op) => assert!(bench.run(op), "{op:?}"),
                Step::Reopen => bench = bench.reopen(),
                Step::Restart => assert!(bench.run(Op::Restart)),
                Step::LoseIndex => bench = bench.reopen_without_index(),
                Step::PowerCut(seed) => bench = bench.power_cut(seed).unwrap(),
                Step::CompactUnreadable => {
                    bench.disk.fail_reads.store(true, Ordering::Relaxed);
                    // Whether it fails or finds nothing to do, it must do no harm.
                    bench.run(Op::CompactShort);
                    bench.disk.fail_reads.store(false, Ordering::Relaxed);
                }
            }
            assert_eq!(bench.violation(), None);
        }
        assert_eq!(bench.disk.inner.overwritten_bytes(), 0, "nothing is ever written over");
    }
}
