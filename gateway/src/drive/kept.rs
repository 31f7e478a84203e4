//! What a gateway keeps in memory to use again: bounded in bytes and in time, what was used longest ago goes first.
//!
//! Invariants: the costs of all that is kept never pass `bytes_max`; nothing is given out, nor kept for longer than until the next
//! `let_go`, once it is `life` old, however often it is used.
//! Not here: whether what is kept still holds: whoever keeps it asks each time (`answers`), or keeps what never changes (`download`).

use crate::metrics;
use daemon::metrics::Metrics;
use prometheus::{IntCounter, IntGauge};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What is dearer than one part in this many of the room is not kept: it would push out many others.
const PARTS_MIN: u64 = 8;
/// What an entry costs beside its own bytes: its key twice, and its places in two trees. A guess, above what they take.
const OVERHEAD_BYTES: u64 = 256;

/// The metrics of one sort of what is kept.
pub struct Shown {
    bytes: IntGauge,
    hits: IntCounter,
    misses: IntCounter,
}

impl Shown {
    /// Those with the label `what`.
    pub fn new(registry: &Metrics, what: &str) -> Self {
        Self {
            bytes: registry.gauge(&metrics::KEPT_BYTES).with_label_values(&[what]),
            hits: registry.counter(&metrics::KEPT_HITS).with_label_values(&[what]),
            misses: registry.counter(&metrics::KEPT_MISSES).with_label_values(&[what]),
        }
    }

    /// Counts a use, or a look in vain.
    pub fn count(&self, is_hit: bool) {
        if is_hit {
            self.hits.inc();
        } else {
            self.misses.inc();
        }
    }
}

struct Entry<V> {
    value: V,
    cost: u64,
    kept_at: Duration,
    used: u64,
}

struct State<K, V> {
    entries: BTreeMap<K, Entry<V>>,
    /// Keys by when they were used last.
    by_use: BTreeMap<u64, K>,
    uses: u64,
    bytes: u64,
}

/// Values by key.
pub struct Kept<K, V> {
    bytes_max: u64,
    life: Duration,
    shown: Shown,
    state: Mutex<State<K, V>>,
}

impl<K: Ord + Clone, V: Clone> Kept<K, V> {
    /// Keeps values of at most `bytes_max` in all, each for `life`; nothing where `bytes_max` is 0.
    pub fn new(bytes_max: u64, life: Duration, shown: Shown) -> Self {
        Self {
            bytes_max,
            life,
            shown,
            state: Mutex::new(State {
                entries: BTreeMap::new(),
                by_use: BTreeMap::new(),
                uses: 0,
                bytes: 0,
            }),
        }
    }

    /// Whether anything is ever kept.
    pub fn is_on(&self) -> bool {
        self.bytes_max > 0
    }

    /// The value of `key`, if it is kept and not too old at `now`.
    pub fn get(&self, key: &K, now: Duration) -> Option<V> {
        let mut state = self.state();
        let entry = state.entries.get(key)?;
        if now.saturating_sub(entry.kept_at) >= self.life {
            return None;
        }
        let (value, used) = (entry.value.clone(), entry.used);
        state.touch(key, used);
        Some(value)
    }

    /// Keeps a value of `value_bytes`, instead of the one that is there under its key, if it is not too dear. Others go to make room.
    pub fn put(&self, key: K, value: V, value_bytes: usize, now: Duration) {
        let cost = (value_bytes as u64).saturating_add(OVERHEAD_BYTES);
        let mut state = self.state();
        state.remove(&key);
        if cost <= self.bytes_max / PARTS_MIN {
            while state.bytes.saturating_add(cost) > self.bytes_max {
                let Some((_, oldest)) = state.by_use.pop_first() else {
                    break;
                };
                state.remove(&oldest);
            }
            state.insert(key, value, cost, now);
        }
        self.show(&state);
    }

    /// Lets go of what is too old at `now`.
    pub fn let_go(&self, now: Duration) {
        let mut state = self.state();
        let is_old = |entry: &Entry<V>| now.saturating_sub(entry.kept_at) >= self.life;
        let old: Vec<K> = state
            .entries
            .iter()
            .filter(|(_, entry)| is_old(entry))
            .map(|(key, _)| key.clone())
            .collect();
        old.iter().for_each(|key| state.remove(key));
        self.show(&state);
    }

    /// Counts a use, or a look in vain: only who keeps something knows whether it held.
    pub fn count(&self, is_hit: bool) {
        self.shown.count(is_hit);
    }

    fn show(&self, state: &State<K, V>) {
        self.shown.bytes.set(i64::try_from(state.bytes).unwrap_or(i64::MAX));
    }

    fn state(&self) -> MutexGuard<'_, State<K, V>> {
        // A panic elsewhere leaves what is kept as it was: nothing in here panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Ord + Clone, V> State<K, V> {
    fn touch(&mut self, key: &K, used: u64) {
        self.uses += 1;
        let uses = self.uses;
        self.by_use.remove(&used);
        self.by_use.insert(uses, key.clone());
        if let Some(entry) = self.entries.get_mut(key) {
            entry.used = uses;
        }
    }

    fn insert(&mut self, key: K, value: V, cost: u64, kept_at: Duration) {
        self.uses += 1;
        self.bytes += cost;
        self.by_use.insert(self.uses, key.clone());
        let entry = Entry {
            value,
            cost,
            kept_at,
            used: self.uses,
        };
        self.entries.insert(key, entry);
    }

    fn remove(&mut self, key: &K) {
        if let Some(entry) = self.entries.remove(key) {
            self.by_use.remove(&entry.used);
            self.bytes -= entry.cost;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Kept, OVERHEAD_BYTES, PARTS_MIN, Shown};
    use crate::metrics;
    use daemon::metrics::Metrics;
    use proptest::prelude::{Strategy, any, prop_oneof, proptest};
    use std::time::Duration;

    const LIFE: Duration = Duration::from_secs(60);
    /// Room for eight small ones.
    const ROOM: u64 = 8 * (OVERHEAD_BYTES + 100);

    fn kept(room: u64) -> Kept<u8, u32> {
        let registry = Metrics::new();
        registry.define(metrics::ALL);
        let shown = Shown::new(&registry, "answers");
        Kept::new(room, LIFE, shown)
    }

    /// All that is kept as a list, the one used longest ago first.
    #[derive(Default)]
    struct Naive(Vec<(u8, u32, u64, Duration)>);

    impl Naive {
        fn bytes(&self) -> u64 {
            self.0.iter().map(|(_, _, cost, _)| cost).sum()
        }

        fn get(&mut self, key: u8, now: Duration) -> Option<u32> {
            let at = self.0.iter().position(|(known, ..)| *known == key)?;
            if now - self.0[at].3 >= LIFE {
                return None;
            }
            let entry = self.0.remove(at);
            self.0.push(entry);
            Some(entry.1)
        }

        fn put(&mut self, key: u8, value: u32, bytes: u64, now: Duration) {
            self.0.retain(|(known, ..)| *known != key);
            let cost = bytes + OVERHEAD_BYTES;
            if cost > ROOM / PARTS_MIN {
                return;
            }
            while self.bytes() + cost > ROOM {
                self.0.remove(0);
            }
            self.0.push((key, value, cost, now));
        }

        fn let_go(&mut self, now: Duration) {
            self.0.retain(|(_, _, _, kept_at)| now - *kept_at < LIFE);
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Get(u8),
        Put(u8, u32, u8),
        LetGo,
        Wait(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        let key = || 0_u8..20;
        prop_oneof![
            5 => key().prop_map(Step::Get),
            5 => (key(), any::<u32>(), 0_u8..120).prop_map(|(key, value, bytes)| Step::Put(key, value, bytes)),
            1 => proptest::strategy::Just(Step::LetGo),
            2 => (0_u8..30).prop_map(Step::Wait),
        ]
    }

    proptest! {
        #[test]
        fn what_is_kept_is_what_a_naive_list_keeps(steps in proptest::collection::vec(step(), 1..400)) {
            let (kept, mut naive, mut now) = (kept(ROOM), Naive::default(), Duration::ZERO);
            for step in steps {
                match step {
                    Step::Get(key) => assert_eq!(kept.get(&key, now), naive.get(key, now)),
                    Step::Put(key, value, bytes) => {
                        kept.put(key, value, usize::from(bytes), now);
                        naive.put(key, value, u64::from(bytes), now);
                    }
                    Step::LetGo => {
                        kept.let_go(now);
                        naive.let_go(now);
                    }
                    Step::Wait(seconds) => now += Duration::from_secs(u64::from(seconds)),
                }
                let state = kept.state();
                assert!(state.bytes <= ROOM);
                assert_eq!((state.bytes, state.entries.len()), (naive.bytes(), naive.0.len()));
                assert_eq!(state.by_use.len(), state.entries.len());
            }
        }
    }

    #[test]
    fn without_room_nothing_is_kept() {
        let kept = kept(0);
        kept.put(1, 1, 0, Duration::ZERO);
        assert_eq!(kept.get(&1, Duration::ZERO), None);
        assert!(!kept.is_on());
    }
}
