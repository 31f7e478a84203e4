"""What went over the wire of one upload, as the proxy between client and gateway saw it.

Invariants that it holds server and client to: no offset is answered that is lower than one answered before, and no byte
that was answered is sent again. It counts what was handed to a gateway and came again all the same, for each cut.
Not here: how HTTP is read (proxy.py), how much may come again (suite.py).
"""

import enum
import threading

PROGRESS_BYTES = 128 << 20


class Kind(enum.Enum):
    """How a connection is cut."""

    CLOSED = "closed"  # in the middle of a chunk, in order
    RESET = "reset"  # in the middle of a chunk, by a reset
    LEFT_OPEN = "left open"  # for the client only: the gateway sees a connection on which nothing comes any more
    UNANSWERED = "unanswered"  # behind a whole chunk, whose answer is lost
    MOVED = "moved"  # as left open, and the client goes on by the other gateway
    KILLED = "killed"  # by the death of the gateway in the middle of a chunk


class Cut:
    """A cut at a byte of the content, and what it cost."""

    def __init__(self, at, kind):
        """`at` counts from 0."""
        self.at, self.kind = at, kind
        self.is_done = False
        self.went_on_at = None
        self.again_bytes = 0


class Ledger:
    """The counts of one upload; threads of several connections write into it."""

    def __init__(self, name, size, cuts):
        """`cuts` are carried out in the order of their places."""
        self.name, self.size = name, size
        self.cuts = sorted(cuts, key=lambda cut: cut.at)
        self.faults = []
        self.requests = self.again_bytes = 0
        self._lock = threading.Lock()
        self._sent_until = 0
        self._answered_until = 0
        self._last_cut = None
        self._told_until = 0

    def begins(self, first):
        """A request brings bytes from `first` on."""
        with self._lock:
            self.requests += 1
            if first < self._answered_until:
                self.faults.append(f"{self._answered_until} bytes were answered, and {first} is sent again")
            if self._last_cut is not None and self._last_cut.went_on_at is None:
                self._last_cut.went_on_at = first
                self._say(f"cut at {self._last_cut.at:,} ({self._last_cut.kind.value}), goes on at {first:,}")

    def passes(self, begin, size):
        """So many bytes from `begin` on were handed to a gateway."""
        with self._lock:
            again = max(0, min(begin + size, self._sent_until) - begin)
            self.again_bytes += again
            if self._last_cut is not None:
                self._last_cut.again_bytes += again
            self._sent_until = max(self._sent_until, begin + size)
            is_new = self._sent_until > self._told_until
            if is_new and (self._sent_until - self._told_until >= PROGRESS_BYTES or self._sent_until == self.size):
                self._told_until = self._sent_until
                self._say(f"{self._sent_until >> 20} of {self.size >> 20} MiB")

    def answers(self, until):
        """A gateway answered that so many bytes need not come again, and the client was told."""
        with self._lock:
            if until < self._answered_until:
                self.faults.append(f"{self._answered_until} bytes were answered, and later {until}")
            if until > self._sent_until:
                self.faults.append(f"{until} bytes were answered, and {self._sent_until} were sent")
            self._answered_until = max(self._answered_until, until)

    def next_cut(self, begin, size):
        """The first cut that lies in these bytes and was not carried out yet."""
        for cut in self.cuts:
            if not cut.is_done and begin <= cut.at < begin + size:
                return cut
        return None

    def was_cut(self, cut):
        """It is carried out."""
        with self._lock:
            cut.is_done, self._last_cut = True, cut

    def worst(self, kind):
        """How much came again after the costliest cut of a kind; `None` when there was none."""
        costs = [cut.again_bytes for cut in self.cuts if cut.kind is kind and cut.is_done]
        return max(costs, default=None)

    def _say(self, text):
        print(f"  {self.name}: {text}", flush=True)
