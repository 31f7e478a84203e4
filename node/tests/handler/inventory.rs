//! Sums and lists of cells over the transport: through stores, repeats, removals and restarts, by epoch, and in parts.

use crate::bench::{Bench, CAPACITY_BYTES, bench_on, stripe};
use bytes::Bytes;
use disk::sim::Survivors;
use disk::{Disk, SimDisk};
use kv::memory::MemoryKv;
use model::id::{DiskId, Slot};
use model::inventory::{CellName, IdSum};
use model::profile::ProfileId;
use model::stripe::{FragmentName, StripeId};
use model::time::BirthEpoch;
use protocol::frame::Method;
use protocol::node::{
    CellFragments, CellSum, FRAGMENTS_LISTED_MAX, FragmentSums, ListCells, RemoveStripe, StoreAnswer, StripeRemoved,
    SumFragments, code,
};
use std::sync::Arc;

const DISK: DiskId = DiskId(1);

fn slot(number: u16) -> Slot {
    Slot::new(number).unwrap()
}

fn fragment(leading: u8, slot_number: u16, born: u32, index: u8) -> FragmentName {
    let random = u128::from(leading) << 80 | u128::from(born) << 8 | u128::from(index);
    FragmentName {
        profile: ProfileId::Dev,
        stripe: StripeId::new(random, slot(slot_number), BirthEpoch(born)),
        index,
    }
}

/// A node with one disk, whose power can be cut.
struct Machine {
    disk: SimDisk,
    index: Arc<MemoryKv>,
    bench: Bench,
}

impl Machine {
    fn on(disk: SimDisk, index: MemoryKv) -> Self {
        let index = Arc::new(index);
        let seam: Arc<dyn Disk> = Arc::new(disk.clone());
        let bench = bench_on(std::iter::once((DISK.0, seam, Arc::clone(&index))));
        Self { disk, index, bench }
    }

    /// What starts on the disk as it is now, with its index or without.
    fn restarted(&self, with_index: bool) -> Self {
        let kept = self.index.unsynced_batches();
        let index = if with_index {
            self.index.crash(kept)
        } else {
            MemoryKv::new()
        };
        Self::on(self.disk.crash(Survivors::All), index)
    }

    async fn store(&self, name: FragmentName) {
        let (form, fragments) = stripe(1);
        let payload = fragments[usize::from(name.index)].clone();
        let stored = self.bench.store_as(name, form, payload, DISK.0, 1).await;
        assert!(matches!(stored, Ok(StoreAnswer::Stored(_))), "{stored:?}");
    }

    async fn remove(&self, name: FragmentName) {
        let (profile, stripe) = (name.profile, name.stripe);
        let request = RemoveStripe { profile, stripe };
        let (removed, _): (StripeRemoved, _) = self
            .bench
            .call(Method::RemoveStripe, &request, Bytes::new())
            .await
            .unwrap();
        assert_eq!(removed.fragments, 1);
    }

    async fn sums(&self, slots: &[(Slot, BirthEpoch)]) -> Vec<CellSum> {
        let request = SumFragments {
            disk: DISK,
            slots: slots.to_vec(),
            after: None,
        };
        let (told, _): (FragmentSums, _) = self
            .bench
            .call(Method::SumFragments, &request, Bytes::new())
            .await
            .unwrap();
        assert_eq!(told.next, None);
        told.sums
    }

    async fn list(&self, request: &ListCells) -> Result<CellFragments, String> {
        let listed = self.bench.call(Method::ListCells, request, Bytes::new()).await;
        listed.map(|(listed, _)| listed)
    }
}

fn of(name: FragmentName, names: &[FragmentName]) -> CellSum {
    let sum = names
        .iter()
        .fold(IdSum::ZERO, |sum, name| sum.plus(IdSum::of(name.stripe)));
    CellSum {
        cell: CellName::of(&name),
        sum: Some(sum),
    }
}

#[tokio::test]
async fn sums_follow_what_a_disk_holds_through_removals_and_restarts() {
    let machine = Machine::on(SimDisk::new(CAPACITY_BYTES), MemoryKv::new());
    let [one, other, young, gone] = [(2, 10), (2, 11), (2, 40), (3, 10)].map(|(slot, born)| fragment(7, slot, born, 0));
    let elsewhere = fragment(9, 2, 10, 3);
    for name in [one, other, young, gone, elsewhere, one] {
        machine.store(name).await;
    }
    machine.remove(gone).await;
    machine.remove(other).await;
    machine.store(other).await;
    let all = [
        (slot(2), BirthEpoch(40)),
        (slot(3), BirthEpoch(40)),
        (slot(4), BirthEpoch(40)),
    ];
    let whole = [of(one, &[one, other, young]), of(elsewhere, &[elsewhere])];
    let early = [of(one, &[one, other]), of(elsewhere, &[elsewhere])];
    for machine in [
        machine.restarted(true),
        machine.restarted(false),
        machine.restarted(true).restarted(false),
        machine,
    ] {
        assert_eq!(machine.sums(&all).await, whole);
        assert_eq!(machine.sums(&[(slot(2), BirthEpoch(39))]).await, early);
        assert_eq!(
            machine
                .sums(&[(slot(2), BirthEpoch(9)), (slot(3), BirthEpoch(99))])
                .await,
            []
        );
        let request = ListCells {
            disk: DISK,
            profile: ProfileId::Dev,
            leading: 7,
            slots: vec![(slot(2), BirthEpoch(39)), (slot(3), BirthEpoch(39))],
            after: None,
        };
        let listed = machine.list(&request).await.unwrap();
        assert_eq!((listed.names, listed.next), (vec![one, other], None));
        let after = Some(one);
        let listed = machine
            .list(&ListCells {
                after,
                ..request.clone()
            })
            .await
            .unwrap();
        assert_eq!(listed.names, [other]);
        let after = Some(elsewhere);
        let refused = machine
            .list(&ListCells {
                after,
                ..request.clone()
            })
            .await;
        assert_eq!(refused, Err(code::BAD_RANGE.to_owned()));
        let disk = DiskId(7);
        let refused = machine.list(&ListCells { disk, ..request }).await;
        assert_eq!(refused, Err(code::DISK_MISSING.to_owned()));
    }
}

/// A slot whose newest stripes are far younger: what is old was counted together, so only the names tell what is older still.
#[tokio::test]
async fn an_epoch_long_past_is_not_told_by_a_sum() {
    let machine = Machine::on(SimDisk::new(CAPACITY_BYTES), MemoryKv::new());
    // Two of them: by one alone, which may be wrong, a slot does not age.
    let [oldest, old, newer, newest] = [1, 50, 999, 1_000].map(|born| fragment(7, 2, born, 0));
    for name in [oldest, old, newer, newest] {
        machine.store(name).await;
    }
    let told = machine.sums(&[(slot(2), BirthEpoch(10))]).await;
    let unknown = CellSum {
        sum: None,
        ..of(oldest, &[])
    };
    assert_eq!(told, [unknown]);
    let born_by = BirthEpoch(1_000 - BirthEpoch::OPEN_EPOCHS - 1);
    assert_eq!(machine.sums(&[(slot(2), born_by)]).await, [of(old, &[oldest, old])]);
}

#[tokio::test]
async fn a_long_cell_is_listed_in_parts() {
    let machine = Machine::on(SimDisk::new(CAPACITY_BYTES), MemoryKv::new());
    let (form, fragments) =
        codec::erasure::encode(&Bytes::from_static(b"a small stripe of which there are many"), 4, 2).unwrap();
    let mut names: Vec<FragmentName> = (0..FRAGMENTS_LISTED_MAX as u32 + 10)
        .map(|born| fragment(7, 2, born, 0))
        .collect();
    for name in &names {
        let payload = fragments[0].clone();
        machine.bench.store_as(*name, form, payload, DISK.0, 1).await.unwrap();
    }
    names.sort_unstable();
    let mut request = ListCells {
        disk: DISK,
        profile: ProfileId::Dev,
        leading: 7,
        slots: vec![(slot(2), BirthEpoch::MAX)],
        after: None,
    };
    let first = machine.list(&request).await.unwrap();
    assert_eq!(first.names, names[..FRAGMENTS_LISTED_MAX]);
    request.after = first.next;
    let rest = machine.list(&request).await.unwrap();
    assert_eq!((rest.names, rest.next), (names[FRAGMENTS_LISTED_MAX..].to_vec(), None));
}
