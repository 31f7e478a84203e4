//! Which disks requests leave alone, so that not each of them waits for one that is away: pure.
//!
//! Place in the picture: whoever calls a disk notes here how it went; `probe` asks the nodes of spared disks whether they are back,
//! so that no user's request has to find out.
//! Invariants: a disk stays spared until it was heard of again; it is due for a probe at most once a `SPARE_FOR`; one that is only
//! slow to read is still written to, and one that is only full is still read from.
//! Not here: what a request does without the disk (`fanout`, `gather`).

use crate::drive::fanout::Spared;
use model::id::DiskId;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A disk that failed is left alone at least this long: a restart takes a few of them, a pause of the network less.
const SPARE_FOR: Duration = Duration::from_secs(1);

/// The disks that are spared, each with the time from which it is due for a probe.
#[derive(Debug, Default)]
pub struct Sparing {
    failed: BTreeMap<DiskId, Duration>,
    late: BTreeMap<DiskId, Duration>,
    full: BTreeMap<DiskId, Duration>,
}

impl Sparing {
    /// `disk` failed a request, or missed the deadline of one: neither reads nor writes use it.
    pub fn note_failed(&mut self, disk: DiskId, now: Duration) {
        self.failed.insert(disk, now + SPARE_FOR);
    }

    /// `disk` did not give its bytes in the time in which others could: reads do not use it.
    pub fn note_late(&mut self, disk: DiskId, now: Duration) {
        self.late.insert(disk, now + SPARE_FOR);
    }

    /// `disk` refused a fragment for want of room: writes do not use it for a while.
    pub fn note_full(&mut self, disk: DiskId, now: Duration) {
        self.full.insert(disk, now + SPARE_FOR);
    }

    /// `disk` gave bytes: reads use it.
    pub fn note_read(&mut self, disk: DiskId) {
        self.late.remove(&disk);
    }

    /// `disk` took a fragment, or its node says that it works: reads and writes use it.
    pub fn welcome(&mut self, disk: DiskId) {
        self.failed.remove(&disk);
        self.late.remove(&disk);
    }

    /// What a write leaves alone.
    pub fn for_writes(&mut self, now: Duration) -> Spared {
        self.full.retain(|_, until| *until > now);
        Spared {
            away: self.failed.keys().copied().collect(),
            full: self.full.keys().copied().collect(),
        }
    }

    /// What a read asks only when others do not suffice.
    pub fn for_reads(&self) -> BTreeSet<DiskId> {
        self.failed.keys().chain(self.late.keys()).copied().collect()
    }

    /// The disks whose nodes are to be asked now; they are not due again before another `SPARE_FOR`.
    pub fn due(&mut self, now: Duration) -> BTreeSet<DiskId> {
        let mut due = BTreeSet::new();
        for (disk, until) in self.failed.iter_mut().chain(&mut self.late) {
            if *until <= now {
                *until = now + SPARE_FOR;
                due.insert(*disk);
            }
        }
        due
    }

    /// How long `due` answers nothing, whatever is spared meanwhile: never longer than a disk is spared.
    pub fn rests_for(&self, now: Duration) -> Duration {
        let first = self.failed.values().chain(self.late.values()).min();
        first.map_or(SPARE_FOR, |first| first.saturating_sub(now).min(SPARE_FOR))
    }
}

#[cfg(test)]
mod tests {
    use super::{SPARE_FOR, Sparing};
    use model::id::DiskId;
    use std::collections::BTreeSet;
    use std::time::Duration;

    const DISK: DiskId = DiskId(7);
    const NOW: Duration = Duration::from_secs(100);

    #[test]
    fn a_failed_disk_is_spared_until_it_is_heard_of_and_probed_once_a_second() {
        let mut sparing = Sparing::default();
        sparing.note_failed(DISK, NOW);
        for second in 0..50 {
            let now = NOW + SPARE_FOR * second;
            assert_eq!(sparing.for_writes(now).away, BTreeSet::from([DISK]));
            assert_eq!(sparing.for_reads(), BTreeSet::from([DISK]));
            assert_eq!(sparing.due(now).len(), usize::from(second > 0));
            assert!(sparing.due(now).is_empty(), "asked twice at once");
        }
        // Bytes that were under way prove nothing of its writes.
        sparing.note_read(DISK);
        assert_eq!(sparing.for_reads(), BTreeSet::from([DISK]));
        sparing.welcome(DISK);
        assert!(sparing.for_reads().is_empty() && sparing.for_writes(NOW).away.is_empty());
    }

    #[test]
    fn whoever_rests_as_told_asks_as_soon_as_a_disk_is_due() {
        for spared_after_ms in (0..2_500).step_by(50) {
            let spared_at = NOW + Duration::from_millis(spared_after_ms);
            let (mut sparing, mut now, mut is_spared) = (Sparing::default(), NOW, false);
            while sparing.due(now).is_empty() {
                let next = now + sparing.rests_for(now);
                if !is_spared && spared_at < next {
                    sparing.note_failed(DISK, spared_at);
                    is_spared = true;
                }
                now = next;
            }
            assert_eq!(now, spared_at + SPARE_FOR);
            assert_eq!(sparing.rests_for(now), SPARE_FOR, "not before another one");
        }
    }

    #[test]
    fn a_late_disk_is_written_to_and_a_full_one_is_read_from() {
        let mut sparing = Sparing::default();
        sparing.note_late(DISK, NOW);
        assert!(sparing.for_writes(NOW).away.is_empty());
        assert_eq!(sparing.for_reads(), BTreeSet::from([DISK]));
        assert_eq!(sparing.due(NOW + SPARE_FOR), BTreeSet::from([DISK]));
        sparing.note_read(DISK);
        assert!(sparing.for_reads().is_empty());
        sparing.note_full(DISK, NOW);
        assert!(sparing.for_reads().is_empty() && sparing.due(NOW + SPARE_FOR).is_empty());
        assert_eq!(sparing.for_writes(NOW).full, BTreeSet::from([DISK]));
        // Whether there is room again only a write can tell.
        assert!(sparing.for_writes(NOW + SPARE_FOR).full.is_empty());
    }
}
