//! Reads a run of a stripe's bytes from any k of its fragments: a pure machine.
//!
//! Place in the picture: `stripe_reader` carries its actions out and feeds the answers back. The data fragments that hold the
//! wanted bytes are asked first; when one is away, late, corrupt or missing, as many whole fragments as are needed to
//! decode the stripe are asked too, and whichever way is complete first wins.
//! Invariants: one lane a fragment index; a lane that gave wrong bytes is never used again; only fragments of the stripe's own form
//! are taken; every request is answered once, or was given up by its deadline, which the driver reports as a failure.
//! Not here: decoding, opening and digests (`stripe_reader`), which disks a fragment may lie on (`directory`).

use bytes::Bytes;
use model::id::DiskId;
use model::stripe::StripeForm;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Bytes `start..end` of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Window {
    /// First byte of the fragment's payload.
    pub start: u32,
    /// The byte behind the last; greater than `start`.
    pub end: u32,
}

impl Window {
    /// Bytes in it.
    pub fn len_bytes(self) -> u32 {
        self.end - self.start
    }

    fn contains(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }
}

/// Bytes of one fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Fragment index.
    pub index: u8,
    /// Which of its bytes.
    pub window: Window,
    /// They themselves; as long as the window.
    pub bytes: Bytes,
}

impl Piece {
    fn cut(&self, window: Window) -> Self {
        let from = (window.start - self.window.start) as usize;
        let bytes = self.bytes.slice(from..from + window.len_bytes() as usize);
        Self {
            index: self.index,
            window,
            bytes,
        }
    }
}

/// Why a request brought nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFault {
    /// Bytes are there and fail their check.
    Corrupt,
    /// The disk does not hold the fragment.
    Missing,
    /// No answer in time, or none at all.
    Away,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A request was answered with bytes of a fragment of this form.
    Read {
        /// Which request.
        request: u32,
        /// What the fragment says of its stripe.
        form: StripeForm,
        /// As many bytes as its window.
        bytes: Bytes,
    },
    /// A request brought nothing.
    Failed {
        /// Which request.
        request: u32,
        /// Why.
        fault: ReadFault,
    },
    /// The bytes that came the direct way are wrong although their fragments' own checksums agree: which fragment lies is not known.
    /// Calls under way were dropped.
    DirectWrong,
    /// No k of the fragments gathered so far give the stripe: at least one of them is wrong, and nobody knows which.
    OtherStripe,
    /// Time went on.
    Tick,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Names the answer.
    pub request: u32,
    /// Fragment index.
    pub index: u8,
    /// On which disk.
    pub disk: DiskId,
    /// Which bytes.
    pub window: Window,
}

/// How the reading stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Requests are under way.
    Reading,
    /// The wanted bytes as they lie in the data fragments, in their order.
    Direct(Vec<Piece>),
    /// At least k whole fragments, one more after each `OtherStripe`; the stripe is decoded from any k of them.
    Rebuild(Vec<Piece>),
    /// Fewer than k fragments can be read at present.
    Short,
}

#[derive(Clone, Debug)]
struct Flight {
    request: u32,
    disk: DiskId,
    window: Window,
    sent_at: Duration,
}

#[derive(Clone, Debug, Default)]
struct Lane {
    disks: VecDeque<DiskId>,
    is_avoided: bool,
    flights: Vec<Flight>,
    piece: Option<Piece>,
    /// A disk that may hold it did not answer.
    is_away: bool,
}

impl Lane {
    fn covers(&self, window: Window) -> bool {
        self.piece.as_ref().is_some_and(|piece| piece.window.contains(window))
    }

    fn may_be_asked(&self) -> bool {
        !self.disks.is_empty()
    }
}

/// The machine; see the page above.
#[derive(Debug)]
pub struct Gather {
    form: StripeForm,
    lanes: Vec<Lane>,
    direct: BTreeMap<u8, Window>,
    hull: Window,
    needed: usize,
    hedge_after: Duration,
    requests: u32,
    is_rebuilding: bool,
    corrupt: u32,
}

impl Gather {
    /// Wants the `len` bytes from `start` of a stripe; both must lie inside it, `len` is at least 1.
    ///
    /// `places[i]`: disks that may hold fragment i, the likeliest first. Disks in `avoid` are asked only when others do not suffice;
    /// where fewer than k fragments would be left, nothing is avoided: then it is the machines that are slow and not the disks.
    pub fn new(
        form: StripeForm,
        places: Vec<Vec<DiskId>>,
        (start, len): (u32, u32),
        avoid: &BTreeSet<DiskId>,
        hedge_after: Duration,
    ) -> Self {
        assert!(len > 0, "nothing is wanted");
        assert!(
            u64::from(start) + u64::from(len) <= u64::from(form.stripe_bytes),
            "wanted bytes lie outside the stripe"
        );
        assert_eq!(
            places.len(),
            usize::from(form.k) + usize::from(form.m),
            "one list of places a fragment"
        );
        let direct = windows(&form, start, len);
        // A stripe is decoded only whole, since only the whole has a hash that tells whether the fragments belong together.
        let hull = Window {
            start: 0,
            end: form.fragment_bytes() as u32,
        };
        let needed = usize::from(form.k);
        let is_to_avoid = |disks: &Vec<DiskId>| disks.first().is_none_or(|disk| avoid.contains(disk));
        let can_avoid = places.iter().filter(|disks| !is_to_avoid(disks)).count() >= needed;
        let lanes = places
            .into_iter()
            .map(|disks| Lane {
                is_avoided: can_avoid && is_to_avoid(&disks),
                disks: disks.into(),
                ..Lane::default()
            })
            .collect();
        Self {
            form,
            lanes,
            direct,
            hull,
            needed,
            hedge_after,
            requests: 0,
            is_rebuilding: false,
            corrupt: 0,
        }
    }

    /// Answers that were refused because their bytes or their form were wrong.
    pub fn corrupt(&self) -> u32 {
        self.corrupt
    }

    /// Whether the stripe may still be read when whoever is away answers again: k of what is here, away or not asked yet may be right.
    pub fn may_return(&self) -> bool {
        // A part of a fragment that came the direct way does not count: the rest of that fragment may be what is damaged.
        let may_be_there =
            |lane: &&Lane| lane.covers(self.hull) || lane.is_away || !lane.flights.is_empty() || lane.may_be_asked();
        // Of the fragments here as many are wrong as more than k are needed.
        self.lanes.iter().filter(may_be_there).count() >= self.needed
    }

    /// Whether more than the fragments that hold the bytes had to be asked.
    pub fn is_rebuilding(&self) -> bool {
        self.is_rebuilding
    }

    /// Takes an event and says which requests to send now.
    pub fn handle(&mut self, now: Duration, event: Event) -> Vec<Read> {
        match event {
            Event::Tick => {}
            Event::Read { request, form, bytes } => self.take(request, form, bytes),
            Event::Failed { request, fault } => self.fail(request, fault),
            Event::DirectWrong => {
                self.lanes.iter_mut().for_each(|lane| lane.flights.clear());
                self.trust_only_stripes();
            }
            Event::OtherStripe => {
                self.needed += 1;
                self.trust_only_stripes();
            }
        }
        self.ask(now)
    }

    /// The direct way gave bytes that nobody can trust; from here on only a decoded stripe counts. What was gathered is kept: one
    /// wrong fragment among those of a run must not cost the others, and the stripe's hash tells them apart.
    fn trust_only_stripes(&mut self) {
        self.corrupt += 1;
        self.is_rebuilding = true;
        self.direct.clear();
    }

    /// Disks that have not answered in the time after which others are asked too.
    pub fn late(&self, now: Duration) -> impl Iterator<Item = DiskId> {
        let flights = self.lanes.iter().flat_map(|lane| &lane.flights);
        flights
            .filter(move |flight| now >= flight.sent_at + self.hedge_after)
            .map(|flight| flight.disk)
    }

    /// When to send the next `Tick`, if no answer comes before.
    pub fn wake_at(&self, now: Duration) -> Option<Duration> {
        let late_at = self
            .lanes
            .iter()
            .flat_map(|lane| &lane.flights)
            .map(|flight| flight.sent_at + self.hedge_after);
        late_at.filter(|at| *at > now).min()
    }

    /// How the reading stands after the last event.
    pub fn progress(&self) -> Progress {
        if !self.direct.is_empty()
            && self
                .direct
                .iter()
                .all(|(index, window)| self.lanes[usize::from(*index)].covers(*window))
        {
            let pieces = self
                .direct
                .iter()
                .filter_map(|(index, window)| self.piece(*index, *window))
                .collect();
            return Progress::Direct(pieces);
        }
        let pieces: Vec<Piece> = self
            .indices()
            .filter_map(|index| self.piece(index, self.hull))
            .collect();
        if pieces.len() >= self.needed {
            return Progress::Rebuild(pieces);
        }
        if self.lanes.iter().all(|lane| lane.flights.is_empty()) {
            Progress::Short
        } else {
            Progress::Reading
        }
    }

    fn indices(&self) -> impl Iterator<Item = u8> + use<> {
        0..self.form.k + self.form.m
    }

    fn piece(&self, index: u8, window: Window) -> Option<Piece> {
        let piece = self.lanes[usize::from(index)].piece.as_ref()?;
        piece.window.contains(window).then(|| piece.cut(window))
    }

    fn land(&mut self, request: u32) -> Option<(usize, Flight)> {
        self.lanes.iter_mut().enumerate().find_map(|(index, lane)| {
            let at = lane.flights.iter().position(|flight| flight.request == request)?;
            Some((index, lane.flights.remove(at)))
        })
    }

    fn flight(&self, request: u32) -> Option<(usize, Window)> {
        self.lanes.iter().enumerate().find_map(|(index, lane)| {
            lane.flights
                .iter()
                .find(|flight| flight.request == request)
                .map(|flight| (index, flight.window))
        })
    }

    /// A disk that failed a request is not asked again for this fragment; the next one of the lane takes its turn.
    fn fail(&mut self, request: u32, fault: ReadFault) {
        if let Some((index, flight)) = self.land(request) {
            self.corrupt += u32::from(fault == ReadFault::Corrupt);
            self.lanes[index].is_away |= fault == ReadFault::Away;
            self.lanes[index].disks.retain(|disk| *disk != flight.disk);
        }
    }

    fn take(&mut self, request: u32, form: StripeForm, bytes: Bytes) {
        let Some((index, window)) = self.flight(request) else {
            return;
        };
        if form != self.form || bytes.len() != window.len_bytes() as usize {
            return self.fail(request, ReadFault::Corrupt);
        }
        self.land(request);
        let lane = &mut self.lanes[index];
        if !lane.covers(window) {
            lane.piece = Some(Piece {
                index: index as u8,
                window,
                bytes,
            });
        }
    }

    fn ask(&mut self, now: Duration) -> Vec<Read> {
        let mut reads = Vec::new();
        if !matches!(self.progress(), Progress::Reading | Progress::Short) {
            return reads;
        }
        let direct = self.direct.clone();
        for (index, window) in &direct {
            let lane = &self.lanes[usize::from(*index)];
            if lane.covers(*window) || !lane.flights.is_empty() {
                continue;
            }
            if lane.may_be_asked() && !lane.is_avoided {
                reads.push(self.send(*index, *window, now));
            }
        }
        self.is_rebuilding |= direct
            .iter()
            .any(|(index, window)| self.is_in_doubt(*index, *window, now));
        if self.is_rebuilding {
            self.ask_columns(now, &mut reads);
        }
        reads
    }

    /// Whether the direct way through this fragment is gone or late.
    fn is_in_doubt(&self, index: u8, window: Window, now: Duration) -> bool {
        let lane = &self.lanes[usize::from(index)];
        !lane.covers(window)
            && lane
                .flights
                .iter()
                .all(|flight| now >= flight.sent_at + self.hedge_after)
    }

    fn ask_columns(&mut self, now: Duration, reads: &mut Vec<Read>) {
        let is_hopeful = |lane: &Lane| {
            lane.covers(self.hull)
                || lane
                    .flights
                    .iter()
                    .any(|flight| flight.window.contains(self.hull) && now < flight.sent_at + self.hedge_after)
        };
        let hopeful = self.lanes.iter().filter(|lane| is_hopeful(lane)).count();
        let is_flying = |lane: &Lane| lane.flights.iter().any(|flight| flight.window.contains(self.hull));
        let mut candidates: Vec<u8> = self
            .indices()
            .filter(|index| {
                let lane = &self.lanes[usize::from(*index)];
                lane.may_be_asked() && !lane.covers(self.hull) && !is_flying(lane)
            })
            .collect();
        // Disks that are known to be away come last; a stable sort keeps data before parity.
        candidates.sort_by_key(|index| self.lanes[usize::from(*index)].is_avoided);
        for index in candidates.into_iter().take(self.needed.saturating_sub(hopeful)) {
            reads.push(self.send(index, self.hull, now));
        }
    }

    fn send(&mut self, index: u8, window: Window, now: Duration) -> Read {
        let request = self.requests;
        self.requests += 1;
        let lane = &mut self.lanes[usize::from(index)];
        let disk = lane
            .disks
            .front()
            .copied()
            .expect("a lane is asked only while it has a disk left");
        lane.flights.push(Flight {
            request,
            disk,
            window,
            sent_at: now,
        });
        Read {
            request,
            index,
            disk,
            window,
        }
    }
}

/// Which bytes of which data fragments hold `start..start+len` of the stripe.
fn windows(form: &StripeForm, start: u32, len: u32) -> BTreeMap<u8, Window> {
    let fragment = form.fragment_bytes() as u32;
    let end = start + len;
    let (first, last) = (start / fragment, (end - 1) / fragment);
    (first..=last)
        .map(|index| {
            let base = index * fragment;
            let window = Window {
                start: start.max(base) - base,
                end: end.min(base + fragment) - base,
            };
            (index as u8, window)
        })
        .collect()
}

#[cfg(test)]
mod tests;
