//! How many may be in service at once: as many as are done in good time.
//!
//! What a cluster does at once without getting slower depends on its disks, its network and its neighbours, and changes while it
//! runs. So the number follows the time that requests take: a fifth fewer when the mean of a window passes the target, an eighth more
//! when it stays well below; both only where somebody had to wait, since otherwise the number ruled nothing. Windows in which nobody
//! waited tell how long requests take by themselves; where twice that is more than the target, it is the target: fewer at once would
//! make nothing faster there.
//! Invariant: it stays between its least and what the configuration allows. Not here: who is served (`places`).

use std::time::Duration;

/// A window is at least so long, ...
const WINDOW: Duration = Duration::from_millis(100);
/// ... and has so many requests, ...
const WINDOW_DONE: u32 = 16;
/// ... unless it lasts this long.
const WINDOW_MAX: Duration = Duration::from_secs(1);
/// Commits go together and a node syncs for many at once, so that with fewer than this less is done and nothing sooner (decision 0032).
const LEAST: usize = 64;
/// A window counts so much for how long requests take by themselves.
const PLAIN_PARTS: u32 = 8;

/// The number, and what it follows.
#[derive(Clone, Debug)]
pub struct Pace {
    now_max: usize,
    max: usize,
    target: Option<Duration>,
    /// What requests take where nobody waits.
    plain: Option<Duration>,
    began: Option<Duration>,
    done: u32,
    sum: Duration,
    has_ruled: bool,
    /// How many were done in the last window, and how long it was.
    last: Option<(u32, Duration)>,
}

impl Pace {
    /// Begins with `max`; without a target it stays there.
    pub fn new(max: usize, target: Option<Duration>) -> Self {
        Self {
            now_max: max,
            max,
            target,
            plain: None,
            began: None,
            done: 0,
            sum: Duration::ZERO,
            has_ruled: false,
            last: None,
        }
    }

    /// How many may be in service now.
    pub fn in_service_max(&self) -> usize {
        self.now_max
    }

    /// Whether times are followed at all.
    pub fn is_followed(&self) -> bool {
        self.target.is_some()
    }

    /// How many will be done within `span`, from 1, going by the last window; `None` before the first.
    pub fn done_within(&self, span: Duration) -> Option<usize> {
        let (done, lasted) = self.last?;
        let share = span.as_secs_f64() / lasted.as_secs_f64().max(f64::EPSILON);
        Some(((f64::from(done) * share) as usize).max(1))
    }

    /// Somebody had to wait, or was sent away.
    pub fn ruled(&mut self) {
        self.has_ruled = true;
    }

    /// A request took so long in service; true when the number changed.
    pub fn done(&mut self, now: Duration, took: Duration) -> bool {
        let Some(target) = self.target else {
            return false;
        };
        let lasted = now.saturating_sub(*self.began.get_or_insert(now));
        self.done += 1;
        self.sum += took;
        if lasted < WINDOW || self.done < WINDOW_DONE && lasted < WINDOW_MAX {
            return false;
        }
        let before = self.now_max;
        let mean = self.sum / self.done;
        let target = self.plain.map_or(target, |plain| target.max(plain * 2));
        if !self.has_ruled {
            let plain = self.plain.unwrap_or(mean);
            self.plain = Some((plain * (PLAIN_PARTS - 1) + mean) / PLAIN_PARTS);
        } else if mean > target {
            self.now_max = (before * 4 / 5).max(LEAST.min(self.max));
        } else if mean < target * 3 / 4 {
            self.now_max = (before + (before / 8).max(1)).min(self.max);
        }
        self.last = Some((self.done, lasted));
        (self.began, self.done, self.sum, self.has_ruled) = (None, 0, Duration::ZERO, false);
        self.now_max != before
    }
}

#[cfg(test)]
mod tests {
    use super::{LEAST, Pace};
    use std::time::Duration;

    const TARGET: Duration = Duration::from_millis(200);

    /// A cluster that does `per_s` requests a second however many are in service; what comes of it after `seconds`.
    fn driven(pace: &mut Pace, per_s: u32, seconds: u32, from: &mut Duration) -> usize {
        let gap = Duration::from_secs(1) / per_s;
        for _ in 0..per_s * seconds {
            *from += gap;
            pace.ruled();
            let took = gap * u32::try_from(pace.in_service_max()).unwrap();
            pace.done(*from, took);
        }
        pace.in_service_max()
    }

    #[test]
    fn it_finds_what_is_done_in_time_and_follows_when_that_changes() {
        let (mut pace, mut now) = (Pace::new(512, Some(TARGET)), Duration::ZERO);
        let slow = driven(&mut pace, 1_000, 10, &mut now);
        assert!((130..=225).contains(&slow), "{slow} at 1000 a second");
        let fast = driven(&mut pace, 20_000, 10, &mut now);
        assert_eq!(fast, 512, "all of them take 26 ms");
        let stuck = driven(&mut pace, 2, 30, &mut now);
        assert_eq!(stuck, LEAST);
        assert_eq!(driven(&mut pace, 20_000, 10, &mut now), 512, "and it comes back");
        let soon = pace.done_within(Duration::from_millis(25)).unwrap();
        assert!((480..=520).contains(&soon), "{soon} in 25 ms at 20000 a second");
    }

    /// Else a region far away would be taken for an overload.
    #[test]
    fn what_takes_long_by_itself_may_take_twice_as_long() {
        let mut pace = Pace::new(512, Some(TARGET));
        for second in 0..100 {
            pace.done(Duration::from_secs(second), TARGET * 2);
        }
        for second in 100..200 {
            pace.ruled();
            assert!(!pace.done(Duration::from_secs(second), TARGET * 7 / 2));
        }
        for second in 200..300 {
            pace.ruled();
            pace.done(Duration::from_secs(second), TARGET * 5);
        }
        assert_eq!(pace.in_service_max(), LEAST);
    }

    #[test]
    fn where_nobody_waits_or_no_time_is_followed_it_stays() {
        let mut idle = Pace::new(128, Some(TARGET));
        let mut fixed = Pace::new(4, None);
        for second in 0..100 {
            let now = Duration::from_secs(second);
            assert!(!idle.done(now, Duration::from_secs(9)));
            fixed.ruled();
            assert!(!fixed.done(now, Duration::from_secs(9)));
        }
        assert_eq!((idle.in_service_max(), fixed.in_service_max()), (128, 4));
        let mut tiny = Pace::new(1, Some(TARGET));
        let mut now = Duration::ZERO;
        assert_eq!(driven(&mut tiny, 1, 10, &mut now), 1);
    }
}
