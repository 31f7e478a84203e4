//! The rules of places, by example and by any order of events.

use super::{Asked, Places, Refusal, Sizes, Standing, Ticket};
use proptest::prelude::{ProptestConfig, any, proptest};
use std::collections::{BTreeMap, BTreeSet};

fn places(in_service_max: usize, held_max: usize) -> Places<char> {
    Places::new(Sizes {
        in_service_max,
        held_max,
        is_service_shared: false,
    })
}

fn left(places: &mut Places<char>, who: &char, standing: Standing) -> Option<Ticket> {
    places.leave(who, standing);
    places.call()
}

fn lent(places: &mut Places<char>, who: &char) -> Option<Ticket> {
    places.lend(who);
    places.call()
}

fn waits(asked: Asked) -> Ticket {
    match asked {
        Asked::Waits(ticket) => ticket,
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_comes_alone_has_half_of_all_places_and_the_next_one_has_room() {
    let mut places = places(2, 8);
    assert_eq!(places.ask(&'a', usize::MAX), Asked::Entered);
    assert_eq!(places.ask(&'a', usize::MAX), Asked::Entered);
    let (third, fourth) = (waits(places.ask(&'a', usize::MAX)), waits(places.ask(&'a', usize::MAX)));
    assert!(third < fourth);
    assert_eq!(places.ask(&'a', usize::MAX), Asked::Refused(Refusal::Share));
    // b finds four free, and takes them until it holds as many as are left.
    waits(places.ask(&'b', usize::MAX));
    waits(places.ask(&'b', usize::MAX));
    assert_eq!(places.ask(&'b', usize::MAX), Asked::Refused(Refusal::Share));
    waits(places.ask(&'c', usize::MAX));
    assert_eq!(places.ask(&'c', usize::MAX), Asked::Refused(Refusal::Share));
    waits(places.ask(&'d', usize::MAX));
    assert_eq!(places.ask(&'e', usize::MAX), Asked::Refused(Refusal::Full));
}

/// Else one whose group stands still would keep everybody else from theirs.
#[test]
fn where_service_is_shared_one_alone_leaves_places_free_for_others_to_be_served_at_once() {
    let mut places = Places::new(Sizes {
        in_service_max: 4,
        held_max: 16,
        is_service_shared: true,
    });
    assert_eq!(places.ask(&'a', usize::MAX), Asked::Entered);
    assert_eq!(places.ask(&'a', usize::MAX), Asked::Entered);
    let third = waits(places.ask(&'a', usize::MAX));
    assert_eq!(places.ask(&'b', usize::MAX), Asked::Entered);
    let of_b = waits(places.ask(&'b', usize::MAX));
    assert_eq!(places.ask(&'c', usize::MAX), Asked::Entered);
    waits(places.ask(&'d', usize::MAX));
    // One is free now, and d alone has nothing in service.
    let of_d = left(&mut places, &'c', Standing::InService);
    assert!(of_d.is_some_and(|ticket| ticket > of_b));
    assert_eq!(
        left(&mut places, &'d', Standing::InService),
        None,
        "a and b have as much as is free"
    );
    assert_eq!(left(&mut places, &'b', Standing::InService), Some(of_b));
    assert_eq!(
        left(&mut places, &'b', Standing::InService),
        None,
        "a has as much as is free"
    );
    assert_eq!(left(&mut places, &'a', Standing::InService), Some(third));
}

#[test]
fn where_few_may_wait_nobody_waits_with_as_many_as_are_still_free() {
    let mut places = places(1, 64);
    assert_eq!(places.ask(&'a', 4), Asked::Entered);
    waits(places.ask(&'a', 4));
    waits(places.ask(&'a', 4));
    assert_eq!(places.ask(&'a', 4), Asked::Refused(Refusal::Full));
    waits(places.ask(&'b', 4));
    assert_eq!(places.ask(&'b', 4), Asked::Refused(Refusal::Full));
    waits(places.ask(&'c', 4));
    assert_eq!(places.ask(&'d', 4), Asked::Refused(Refusal::Full));
    assert_eq!((places.in_service(), places.waiting()), (1, 4));
}

#[test]
fn a_free_place_goes_to_whoever_has_the_fewest_in_service() {
    let mut places = places(2, 12);
    assert_eq!(places.ask(&'a', usize::MAX), Asked::Entered);
    assert_eq!(places.ask(&'a', usize::MAX), Asked::Entered);
    let greedy = [waits(places.ask(&'a', usize::MAX)), waits(places.ask(&'a', usize::MAX))];
    let modest = waits(places.ask(&'b', usize::MAX));
    // b came last and has nothing in service.
    assert_eq!(left(&mut places, &'a', Standing::InService), Some(modest));
    // Now each has one in service, and a has waited longer.
    let again = waits(places.ask(&'b', usize::MAX));
    assert_eq!(left(&mut places, &'b', Standing::InService), Some(again));
    assert_eq!(left(&mut places, &'b', Standing::InService), Some(greedy[0]));
}

#[test]
fn a_lent_place_is_used_by_others_and_its_owner_does_not_wait_again() {
    let mut places = places(1, 8);
    assert_eq!(places.ask(&'a', usize::MAX), Asked::Entered);
    let waiting = waits(places.ask(&'b', usize::MAX));
    assert_eq!(lent(&mut places, &'a'), Some(waiting));
    places.resume(&'a');
    assert_eq!(places.in_service(), 2);
    let last = waits(places.ask(&'b', usize::MAX));
    assert_eq!(
        left(&mut places, &'a', Standing::InService),
        None,
        "one too many was in service"
    );
    assert_eq!(left(&mut places, &'b', Standing::InService), Some(last));
}

#[test]
fn a_ticket_that_is_given_up_is_never_called_and_one_that_was_called_cannot_be() {
    let mut places = places(1, 8);
    assert_eq!(places.ask(&'a', usize::MAX), Asked::Entered);
    let (first, second) = (waits(places.ask(&'a', usize::MAX)), waits(places.ask(&'b', usize::MAX)));
    assert!(places.give_up(&'b', second));
    assert!(!places.give_up(&'b', second));
    assert_eq!(left(&mut places, &'a', Standing::InService), Some(first));
    assert!(!places.give_up(&'a', first));
    assert_eq!((places.in_service(), places.waiting()), (1, 0));
    assert_eq!(left(&mut places, &'a', Standing::InService), None);
    assert_eq!(places.held, 0);
    assert!(places.callers.is_empty());
}

/// What a test knows of somebody inside.
#[derive(Default)]
struct Known {
    served: BTreeMap<char, usize>,
    lent: BTreeMap<char, usize>,
    waiting: BTreeMap<Ticket, char>,
    called: BTreeSet<Ticket>,
}

impl Known {
    fn call(&mut self, ticket: Option<Ticket>) {
        if let Some(ticket) = ticket {
            let who = self.waiting.remove(&ticket).expect("only somebody who waits is called");
            assert!(self.called.insert(ticket), "{ticket:?} is called twice");
            *self.served.entry(who).or_default() += 1;
        }
    }

    fn count(of: &BTreeMap<char, usize>) -> usize {
        of.values().sum()
    }

    fn held(&self) -> usize {
        Self::count(&self.served) + Self::count(&self.lent) + self.waiting.len()
    }
}

/// Takes one of `who` out, if there is one.
fn take(from: &mut BTreeMap<char, usize>, who: char) -> bool {
    let Some(count) = from.get_mut(&who).filter(|count| **count > 0) else {
        return false;
    };
    *count -= 1;
    true
}

fn step(places: &mut Places<char>, known: &mut Known, who: char, what: u8) {
    let own = known.held();
    match what % 6 {
        0..=2 => match places.ask(&who, usize::MAX) {
            Asked::Entered => *known.served.entry(who).or_default() += 1,
            Asked::Waits(ticket) => assert!(known.waiting.insert(ticket, who).is_none()),
            Asked::Refused(Refusal::Full) => assert_eq!(own, places.sizes.held_max),
            Asked::Refused(Refusal::Share) => assert!(own < places.sizes.held_max),
            Asked::Refused(Refusal::Late) => panic!("places know no time"),
        },
        3 if take(&mut known.served, who) => known.call(left(places, &who, Standing::InService)),
        3 if take(&mut known.lent, who) => known.call(left(places, &who, Standing::Lent)),
        4 if take(&mut known.served, who) => {
            *known.lent.entry(who).or_default() += 1;
            known.call(lent(places, &who));
        }
        5 if take(&mut known.lent, who) => {
            *known.served.entry(who).or_default() += 1;
            places.resume(&who);
        }
        _ => {
            let found = known.waiting.iter().find(|(_, waiting)| **waiting == who);
            if let Some(ticket) = found.map(|(ticket, _)| *ticket) {
                known.waiting.remove(&ticket);
                assert!(places.give_up(&who, ticket));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// In any order of events: the counts are right, nobody waits beside a free place, nobody who holds nothing finds room
    /// refused, and when all have left nothing is left.
    #[test]
    fn in_any_order_nobody_is_lost_and_nobody_waits_beside_a_free_place(
        in_service_max in 1_usize..5,
        more in 0_usize..9,
        is_service_shared in any::<bool>(),
        steps in proptest::collection::vec((0_u8..4, any::<u8>()), 0..200),
    ) {
        let mut places = Places::new(Sizes {
            in_service_max,
            held_max: in_service_max + more,
            is_service_shared,
        });
        let mut known = Known::default();
        for (who, what) in steps {
            step(&mut places, &mut known, char::from(b'a' + who), what);
            assert_eq!(places.call(), None, "one call was enough");
            assert_eq!(places.in_service(), Known::count(&known.served));
            assert_eq!(places.waiting(), known.waiting.len());
            assert_eq!(places.held, known.held());
            assert!(places.held <= places.sizes.held_max);
            let free = in_service_max.saturating_sub(places.in_service());
            for who in known.waiting.values() {
                let own = known.served.get(who).copied().unwrap_or(0);
                assert!(free == 0 || is_service_shared && own >= free, "{who} waits beside {free} free places");
            }
            if places.held < places.sizes.held_max {
                let asked = places.ask(&'z', usize::MAX);
                assert!(!matches!(asked, Asked::Refused(_)), "somebody who holds nothing finds {asked:?}");
                match asked {
                    Asked::Entered => known.call(left(&mut places, &'z', Standing::InService)),
                    Asked::Waits(ticket) => assert!(places.give_up(&'z', ticket)),
                    Asked::Refused(_) => {}
                }
            }
        }
        for who in ['a', 'b', 'c', 'd'] {
            while take(&mut known.lent, who) {
                known.call(left(&mut places, &who, Standing::Lent));
            }
        }
        while known.held() > 0 {
            let who = *known.served.iter().find(|(_, count)| **count > 0).expect("somebody is served").0;
            assert!(take(&mut known.served, who));
            known.call(left(&mut places, &who, Standing::InService));
        }
        assert_eq!((places.in_service(), places.waiting(), places.held), (0, 0, 0));
        assert!(places.callers.is_empty());
    }
}
