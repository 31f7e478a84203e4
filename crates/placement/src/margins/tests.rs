//! Which clusters hold which profiles, and where writes go on.

use super::{can_hold, fitting, places_found, reach, writes_go_on_without};
use crate::testmap::{Dice, grid, random};
use model::cluster::ClusterMap;
use model::profile::{Domain, ProfileId};

fn reached(id: ProfileId, map: &ClusterMap) -> Option<Domain> {
    reach(id.profile(), map)
}

#[test]
fn a_cluster_reaches_the_target_that_its_regions_and_nodes_allow() {
    assert_eq!(reached(ProfileId::Dev, &grid(3, 2, 1)), Some(Domain::Region));
    assert_eq!(reached(ProfileId::Standard, &grid(3, 3, 1)), Some(Domain::Region));
    assert_eq!(reached(ProfileId::Standard, &grid(3, 2, 2)), Some(Domain::Region));
    assert_eq!(reached(ProfileId::Standard, &grid(2, 5, 1)), Some(Domain::Node));
    assert_eq!(reached(ProfileId::Standard, &grid(3, 2, 1)), None);
    assert_eq!(reached(ProfileId::Dev, &grid(1, 3, 2)), Some(Domain::Node));
    assert_eq!(reached(ProfileId::Single, &grid(1, 3, 1)), Some(Domain::Node));
    assert_eq!(reached(ProfileId::Solo, &grid(1, 1, 3)), Some(Domain::Disk));
    assert_eq!(reached(ProfileId::Dev, &grid(1, 1, 6)), Some(Domain::Disk));
}

#[test]
fn the_profiles_that_fit_are_named_by_cluster() {
    use ProfileId::{Copies, Dev, Single, Solo, Standard};
    assert_eq!(fitting(&grid(1, 1, 3)), [Single, Solo, Copies]);
    assert_eq!(fitting(&grid(1, 3, 1)), [Single, Solo, Copies]);
    assert_eq!(fitting(&grid(3, 2, 1)), [Dev, Single, Solo, Copies]);
    assert_eq!(fitting(&grid(3, 3, 1)), [Dev, Standard, Single, Solo, Copies]);
    assert_eq!(fitting(&grid(1, 1, 2)), []);
}

/// When losing a whole domain leaves room for all fragments elsewhere: small clusters, worked out by hand.
#[test]
fn writes_go_on_only_where_the_advice_says_so() {
    let go_on = |id: ProfileId, domain, map: &ClusterMap| writes_go_on_without(domain, id.profile(), map);
    assert!(!go_on(ProfileId::Dev, Domain::Region, &grid(3, 2, 1)));
    assert!(go_on(ProfileId::Dev, Domain::Region, &grid(3, 2, 2)));
    let mut eight = grid(3, 3, 1);
    eight.disks.pop_last();
    assert!(go_on(ProfileId::Dev, Domain::Region, &eight));
    assert!(!go_on(ProfileId::Single, Domain::Node, &grid(1, 3, 1)));
    assert!(go_on(ProfileId::Single, Domain::Node, &grid(1, 3, 2)));
    assert!(!go_on(ProfileId::Solo, Domain::Disk, &grid(1, 1, 3)));
    assert!(go_on(ProfileId::Solo, Domain::Disk, &grid(1, 1, 4)));
    assert!(go_on(ProfileId::Standard, Domain::Region, &grid(3, 3, 1)));
}

#[test]
fn room_for_all_fragments_is_found_exactly_when_a_cluster_can_hold_a_profile() {
    let mut dice = Dice::new(3);
    let mut held = 0;
    for _ in 0..20_000 {
        let map = random(&mut dice, 14);
        for id in ProfileId::ALL {
            let is_room = places_found(id.profile(), &map) >= id.profile().fragments();
            assert_eq!(can_hold(id.profile(), &map), is_room, "{id} {map:?}");
            held += usize::from(is_room);
        }
    }
    assert!((20_000..80_000).contains(&held), "{held}");
}
