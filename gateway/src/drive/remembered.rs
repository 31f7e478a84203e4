//! Answers of groups, remembered for a moment, so that a client's every request does not ask the same again.
//!
//! Invariants: nothing is given out longer than `life` after it was asked for; what was asked for before a `forget` is not taken in
//! after it; the number of entries is bounded.
//! Not here: what may be remembered how long (`account`, `upload`).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often in a life dead entries are looked for, while there is no room: so late they may make it.
const SWEEPS_A_LIFE: u32 = 8;

/// Answers by what was asked for.
pub struct Remembered<K, V> {
    life: Duration,
    entries_max: usize,
    state: Mutex<State<K, V>>,
}

struct State<K, V> {
    entries: BTreeMap<K, (Duration, V)>,
    /// When dead entries were last looked for.
    swept_at: Option<Duration>,
    /// How often something was forgotten.
    forgotten: u64,
}

/// The moment in which a question is asked; its answer is taken in with it.
#[derive(Clone, Copy, Debug)]
pub struct Asking {
    at: Duration,
    forgotten: u64,
}

impl<K: Ord + Clone, V: Clone> Remembered<K, V> {
    /// Remembers at most `entries_max` answers, each for `life`.
    pub fn new(life: Duration, entries_max: usize) -> Self {
        Self {
            life,
            entries_max,
            state: Mutex::new(State {
                entries: BTreeMap::new(),
                swept_at: None,
                forgotten: 0,
            }),
        }
    }

    /// The answer to `key`, if it was asked for at most a life before `now`; else the moment to ask in.
    ///
    /// Errors: none; `Err` is the moment.
    pub fn get(&self, key: &K, now: Duration) -> Result<V, Asking> {
        let state = self.state();
        match state.entries.get(key) {
            Some((asked_at, value)) if now.saturating_sub(*asked_at) < self.life => Ok(value.clone()),
            _ => Err(Asking {
                at: now,
                forgotten: state.forgotten,
            }),
        }
    }

    /// Takes in the answer to a question that was asked in `asking`.
    pub fn put(&self, key: K, value: V, asking: Asking) {
        let mut state = self.state();
        if state.forgotten != asking.forgotten {
            return;
        }
        if state.entries.len() >= self.entries_max && !state.entries.contains_key(&key) {
            let sweep_after = self.life / SWEEPS_A_LIFE;
            // Where all are alive, not every request may look through all of them.
            if state
                .swept_at
                .is_none_or(|at| asking.at.saturating_sub(at) >= sweep_after)
            {
                state.swept_at = Some(asking.at);
                state
                    .entries
                    .retain(|_, (asked_at, _)| asking.at.saturating_sub(*asked_at) < self.life);
            }
            if state.entries.len() >= self.entries_max {
                // As many living ones as may be: who comes now is asked for each time.
                return;
            }
        }
        state.entries.insert(key, (asking.at, value));
    }

    /// Forgets the answer to `key` alone. One that is being asked for now is taken in all the same.
    pub fn forget_one(&self, key: &K) {
        self.state().entries.remove(key);
    }

    /// Forgets the answers that are `meant`, and takes in none that is being asked for now.
    pub fn forget(&self, meant: impl Fn(&K, &V) -> bool) {
        let mut state = self.state();
        state.forgotten += 1;
        state.entries.retain(|key, (_, value)| !meant(key, value));
    }

    fn state(&self) -> MutexGuard<'_, State<K, V>> {
        // Each change under the lock is complete on its own, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::Remembered;
    use std::time::Duration;

    const LIFE: Duration = Duration::from_secs(1);

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn one_answer_is_forgotten_and_what_is_asked_for_meanwhile_is_taken_in() {
        let known = Remembered::new(LIFE, 10);
        for key in [1, 2] {
            let asking = known.get(&key, at(0)).unwrap_err();
            known.put(key, 'a', asking);
        }
        let asking = known.get(&3, at(0)).unwrap_err();
        known.forget_one(&1);
        known.put(3, 'b', asking);
        let found = [1, 2, 3].map(|key| known.get(&key, at(1)).ok());
        assert_eq!(found, [None, Some('a'), Some('b')]);
    }

    #[test]
    fn an_answer_lives_from_when_it_was_asked_for_and_not_from_when_it_came() {
        let known = Remembered::new(LIFE, 10);
        let asking = known.get(&1, at(0)).unwrap_err();
        known.put(1, 'a', asking);
        assert_eq!(known.get(&1, at(999)).unwrap(), 'a');
        assert!(known.get(&1, at(1_000)).is_err());
    }

    #[test]
    fn what_was_asked_for_before_a_forget_is_not_taken_in_after_it() {
        let known = Remembered::new(LIFE, 10);
        let early = known.get(&1, at(0)).unwrap_err();
        known.forget(|_, _| true);
        known.put(1, 'a', early);
        let late = known.get(&1, at(1)).unwrap_err();
        known.put(1, 'b', late);
        known.put(2, 'c', late);
        known.forget(|_, value| *value == 'b');
        assert!(known.get(&1, at(2)).is_err());
        assert_eq!(known.get(&2, at(2)).unwrap(), 'c');
    }

    #[test]
    fn entries_are_bounded_and_dead_ones_make_room() {
        let known = Remembered::new(LIFE, 2);
        for (key, millis) in [(1, 0), (2, 500), (3, 900)] {
            let asking = known.get(&key, at(millis)).unwrap_err();
            known.put(key, key, asking);
        }
        assert!(known.get(&3, at(900)).is_err());
        let asking = known.get(&3, at(1_100)).unwrap_err();
        known.put(3, 3, asking);
        assert!(
            known.get(&3, at(1_100)).is_ok() && known.get(&2, at(1_100)).is_ok() && known.get(&1, at(1_100)).is_err()
        );
    }
}
