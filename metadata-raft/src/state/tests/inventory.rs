//! Sums of stripes against a walk through all of them: parts, epochs, what is dead or astray, and what is refused.

use super::collection::{CLOSED_MS, GRACE_MS, sweep_blocks};
use super::{Bench, EPOCH_MS, PROFILE, code, row};
use crate::state::stripe;
use model::id::{DiskId, Slot};
use model::inventory::{self, IdSum};
use model::profile::ProfileId;
use model::stripe::{Astray, StripeId};
use model::time::BirthEpoch;
use protocol::metadata::inventory::{
    AstraySum, ListStripes, ListedStripe, ListedStripes, PgSum, STRIPES_LISTED_MAX, STRIPES_SUMMED_MAX, StripeSums,
    SumStripes, SummedTo,
};
use protocol::metadata::upload::{NewStripe, UploadCommand};
use protocol::metadata::{Command, Query, QueryAnswer};
use protocol::wire_error::Failure;
use std::collections::BTreeMap;

/// With a block each, as many as one command takes.
const STAGED_AT_ONCE: u64 = 400;

fn sums(bench: &Bench, pg_bits: u8, after: Option<SummedTo>) -> Result<StripeSums, Failure> {
    let pg_bits = vec![(PROFILE, pg_bits)];
    match bench.query(&Query::SumStripes(SumStripes { pg_bits, after }))? {
        QueryAnswer::StripeSums(sums) => Ok(sums),
        other => panic!("{other:?}"),
    }
}

fn listed(bench: &Bench, ask: &ListStripes) -> Result<ListedStripes, Failure> {
    match bench.query(&Query::ListStripes(ask.clone()))? {
        QueryAnswer::ListedStripes(listed) => Ok(listed),
        other => panic!("{other:?}"),
    }
}

fn of_cell(bench: &Bench, leading: u8, born_by: BirthEpoch) -> ListStripes {
    ListStripes {
        profile: PROFILE,
        leading,
        slots: vec![(bench.drive.slot(), born_by)],
        after: None,
    }
}

/// Names these stripes without a file: they live until the grace of their blocks is over.
fn stage(bench: &mut Bench, at: &str, stripes: Vec<NewStripe>) {
    let upload = super::sessions::open(bench, at, None);
    bench
        .run(Command::Upload(UploadCommand::StageStripes { upload, stripes }))
        .unwrap();
}

/// Its leading bits are drawn, as those of stripes in use are.
fn drawn(bench: &mut Bench, text: &str) -> NewStripe {
    let mut stripe = bench.stripe(&[row(text, 10)]);
    let random = u128::from(model::hash::stable_hash(text.as_bytes())) << 24;
    stripe.id = StripeId::new(random, bench.drive.slot(), stripe.id.born());
    stripe
}

/// What a walk through all stripes says, by placement group.
fn counted(bench: &Bench, pg_bits: u8, born_by: BirthEpoch) -> BTreeMap<(ProfileId, u32), IdSum> {
    let mut counted = BTreeMap::new();
    for (profile, id, record) in stripe::all(&bench.kv, bench.drive.slot()).unwrap() {
        if record.living_bytes > 0 && id.born() <= born_by {
            let sum = counted.entry((profile, id.pg(pg_bits))).or_insert(IdSum::ZERO);
            *sum = sum.plus(IdSum::of(id));
        }
    }
    counted
}

#[test]
fn parts_of_a_count_add_up_to_what_a_walk_says_and_lists_name_the_same_stripes() {
    let mut bench = Bench::new(1 << 30);
    let commands = STRIPES_SUMMED_MAX as u64 / STAGED_AT_ONCE + 1;
    for command in 0..commands {
        let stripe = |bench: &mut Bench, at| drawn(bench, &format!("{command} {at}"));
        let stripes = (0..STAGED_AT_ONCE).map(|at| stripe(&mut bench, at)).collect();
        stage(&mut bench, &format!("/{command}"), stripes);
    }
    assert_eq!(
        sums(&bench, 8, None).unwrap(),
        StripeSums::default(),
        "all are in flight"
    );
    bench.advance(CLOSED_MS);
    let born_by = bench.epoch().newest_closed().unwrap();
    for pg_bits in [8, 11] {
        let (mut parts, mut added, mut after) = (0, BTreeMap::new(), None);
        loop {
            let part = sums(&bench, pg_bits, after).unwrap();
            let begun: &[(Slot, BirthEpoch)] = if parts == 0 {
                &[(bench.drive.slot(), born_by)]
            } else {
                &[]
            };
            assert_eq!(part.slots, begun);
            for PgSum { profile, pg, all, .. } in part.sums {
                let sum = added.entry((profile, pg)).or_insert(IdSum::ZERO);
                *sum = sum.plus(all);
            }
            (parts, after) = (parts + 1, part.next);
            if after.is_none() {
                break;
            }
        }
        assert!(parts > 1, "one part is no proof");
        assert_eq!(added, counted(&bench, pg_bits, born_by));
    }
    let expected = counted(&bench, 8, born_by);
    for leading in [0, 77, 255] {
        let ask = of_cell(&bench, leading, born_by);
        let sum = listed(&bench, &ask)
            .unwrap()
            .stripes
            .iter()
            .fold(IdSum::ZERO, |sum, known| {
                assert_eq!(inventory::leading(known.stripe), leading);
                sum.plus(IdSum::of(known.stripe))
            });
        let known = expected.get(&(PROFILE, u32::from(leading)));
        assert_eq!(sum, known.copied().unwrap_or(IdSum::ZERO));
    }
}

#[test]
fn a_long_cell_is_listed_in_parts() {
    let mut bench = Bench::new(1 << 30);
    let commands = STRIPES_LISTED_MAX as u64 / STAGED_AT_ONCE + 1;
    for command in 0..commands {
        let stripe = |bench: &mut Bench, at: u64| {
            let number = command * STAGED_AT_ONCE + at;
            let mut stripe = bench.stripe(&[row(&format!("{number}"), 10)]);
            stripe.id = StripeId::new(u128::from(number), bench.drive.slot(), stripe.id.born());
            stripe
        };
        let stripes = (0..STAGED_AT_ONCE).map(|at| stripe(&mut bench, at)).collect();
        stage(&mut bench, &format!("/{command}"), stripes);
    }
    bench.advance(CLOSED_MS);
    let mut ask = of_cell(&bench, 0, bench.epoch().newest_closed().unwrap());
    let mut seen = Vec::new();
    loop {
        let part = listed(&bench, &ask).unwrap();
        assert!(part.stripes.len() <= STRIPES_LISTED_MAX);
        seen.extend(part.stripes.into_iter().map(|known| known.stripe));
        ask.after = part.next;
        if ask.after.is_none() {
            break;
        }
    }
    let all = stripe::all(&bench.kv, bench.drive.slot()).unwrap().into_iter();
    assert_eq!(seen, all.map(|(_, id, _)| id).collect::<Vec<_>>());
    assert_eq!(seen.len() as u64, commands * STAGED_AT_ONCE);
}

#[test]
fn what_is_astray_is_told_apart_and_what_is_dead_is_left_out() {
    let mut bench = Bench::new(1 << 30);
    let whole = bench.stripe(&[row("whole", 10)]);
    let mut handed = bench.stripe(&[row("handed", 10)]);
    handed.astray = vec![
        Astray { index: 1, disk: None },
        Astray {
            index: 4,
            disk: Some(DiskId(9)),
        },
    ];
    let (one, other) = (whole.id, handed.id);
    stage(&mut bench, "/f", vec![whole, handed.clone()]);
    bench.advance(CLOSED_MS);
    let born_by = bench.epoch().newest_closed().unwrap();
    let astray = |index, disk| AstraySum {
        index,
        disk,
        sum: IdSum::of(other),
    };
    let expected = PgSum {
        slot: bench.drive.slot(),
        profile: PROFILE,
        pg: one.pg(8),
        all: IdSum::of(one).plus(IdSum::of(other)),
        astray: vec![astray(1, None), astray(4, Some(DiskId(9)))],
    };
    assert_eq!(sums(&bench, 8, None).unwrap().sums, [expected]);
    let known = [(one, Vec::new()), (other, handed.astray)];
    let known = known.map(|(stripe, astray)| ListedStripe { stripe, astray });
    let ask = of_cell(&bench, inventory::leading(one), born_by);
    assert_eq!(listed(&bench, &ask).unwrap().stripes, known);
    bench.advance(GRACE_MS);
    sweep_blocks(&mut bench);
    bench.sound();
    assert_eq!(sums(&bench, 8, None).unwrap().sums, [], "both are being removed");
    assert_eq!(listed(&bench, &ask).unwrap().stripes, []);
}

/// What comes in between two parts of a count was born later, and what is born as early as that cannot come in any more.
#[test]
fn a_commit_beside_a_count_changes_nothing_of_it() {
    let mut bench = Bench::new(1 << 30);
    let first = bench.stripe(&[row("first", 10)]);
    let late = bench.stripe(&[row("late", 10)]);
    let id = first.id;
    stage(&mut bench, "/f", vec![first]);
    bench.advance(CLOSED_MS - EPOCH_MS);
    let next = bench.stripe(&[row("next", 10)]);
    stage(&mut bench, "/next", vec![next]);
    bench.advance(EPOCH_MS);
    let before = sums(&bench, 8, None).unwrap();
    let newest = bench.stripe(&[row("newest", 10)]);
    stage(&mut bench, "/newest", vec![newest]);
    let upload = super::sessions::open(&mut bench, "/late", None);
    let stripes = vec![late];
    let refused = bench.run(Command::Upload(UploadCommand::StageStripes { upload, stripes }));
    assert_eq!(code(refused), "birth_epoch_closed");
    let after = sums(&bench, 8, None).unwrap();
    assert_eq!(before, after);
    assert_eq!(
        after.sums.iter().map(|sum| sum.all).collect::<Vec<_>>(),
        [IdSum::of(id)]
    );
    bench.advance(CLOSED_MS);
    let later: Vec<IdSum> = sums(&bench, 8, None).unwrap().sums.iter().map(|sum| sum.all).collect();
    assert_eq!(later.iter().map(|sum| sum.count).sum::<u64>(), 3);
}

#[test]
fn slots_of_others_open_epochs_and_what_does_not_fit_are_refused() {
    let mut bench = Bench::new(1 << 30);
    let stripe = bench.stripe(&[row("a", 10)]);
    let id = stripe.id;
    stage(&mut bench, "/f", vec![stripe]);
    bench.advance(CLOSED_MS);
    let closed = bench.epoch().newest_closed().unwrap();
    let open = BirthEpoch(closed.0 + 1);
    let elsewhere = (0..).filter_map(Slot::new).find(|slot| *slot != bench.drive.slot());
    let foreign = StripeId::new(1, elsewhere.unwrap(), BirthEpoch(0));
    for (stripe, born_by, expected) in [(id, open, "malformed_command"), (foreign, closed, "not_mine")] {
        let after = SummedTo {
            born_by,
            profile: PROFILE,
            stripe,
        };
        assert_eq!(code(sums(&bench, 8, Some(after))), expected);
        let ask = ListStripes {
            slots: vec![(stripe.slot(), born_by)],
            ..of_cell(&bench, 0, closed)
        };
        assert_eq!(code(listed(&bench, &ask)), expected);
    }
    for bits in [0, 7, 19, 255] {
        assert_eq!(code(sums(&bench, bits, None)), "malformed_command");
    }
    let outside = ListStripes {
        after: Some(id),
        ..of_cell(&bench, inventory::leading(id) + 1, closed)
    };
    assert_eq!(code(listed(&bench, &outside)), "malformed_command");
}
