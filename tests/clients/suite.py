"""The runs of `make clients`, each one content through one client and a proxy that cuts, and the table of their cost.

A run fails when the content that is read back is another, when a byte that was answered had to come again, when more
came again after a cut than docs/api.md promises, or when a cut did not take place.
Invariant: everything that was started is ended, also after a fault.
"""

import argparse
import dataclasses
import pathlib
import signal
import sys
import time
import traceback
import urllib.parse
from concurrent import futures

from tusclient import client as tus
from tusclient import exceptions

import content
import google_api
import google_manner
from cluster import Cluster
from ledger import Cut, Kind, Ledger
from proxy import CuttingProxy

MIB = 1 << 20
UNIT_BYTES = google_manner.UNIT_BYTES
OFF_BOUNDARIES = 7919
# For all runs together at their full size; a guess with room for a slow machine.
TIME_MAX_S = 45 * 60
TUS_RETRIES = 20
# By default 30. Longer than the second after which a gateway makes durable what waits (docs/limits.md).
TUS_RETRY_DELAY_S = 3
# What a gateway has read is kept after a cut, however the cut looks to it; all but 16 MiB of it after a gateway's death,
# or where the client goes on by the other one while the first still makes it durable (decision 0056).
AGAIN_BYTES_MAX = {
    Kind.CLOSED: 0,
    Kind.RESET: 0,
    Kind.LEFT_OPEN: 0,
    Kind.UNANSWERED: 0,
    Kind.MOVED: 16 * MIB,
    Kind.KILLED: 16 * MIB,
}


@dataclasses.dataclass
class Run:
    """One upload."""

    name: str
    size: int
    cuts: list
    upload: object
    again_bytes_max: dict
    # What the table says of it.
    seconds: float = 0.0
    ledger: Ledger = None
    faults: list = dataclasses.field(default_factory=list)


def main():
    """Carries all runs out; 1 when one of them has a fault."""
    parser = argparse.ArgumentParser()
    for name, kind in (("--holdfast", pathlib.Path), ("--folder", pathlib.Path), ("--bytes", int)):
        parser.add_argument(name, type=kind, required=True)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGALRM, lambda *_: sys.exit(f"not done after {TIME_MAX_S} s"))
    signal.alarm(TIME_MAX_S)
    runs = all_runs(arguments.bytes)
    with Cluster(arguments.holdfast, arguments.folder) as cluster:
        for number, run in enumerate(runs):
            print(f"{run.name}: {run.size >> 20} MiB, {len(run.cuts)} cuts", flush=True)
            try:
                carry_out(run, number, cluster, arguments.folder)
            except Exception:  # Whatever a client raises is this run's fault, and the next may still tell something.
                run.faults.append(traceback.format_exc())
            for fault in run.faults:
                print(f"  {run.name}: FAULT {fault}", flush=True)
    print_table(runs)
    return 1 if any(run.faults for run in runs) else 0


def all_runs(size):
    """The runs, with cuts at the same bytes every time."""
    alternating = [Kind.CLOSED, Kind.RESET, Kind.LEFT_OPEN, Kind.UNANSWERED]
    in_the_middle = [kind for kind in Kind if kind is not Kind.UNANSWERED]
    a_chunk = {**{kind: 8 * MIB for kind in Kind}, Kind.UNANSWERED: 0}
    in_one = google_manner.Habits(-(-size // UNIT_BYTES) * UNIT_BYTES)
    for_go = google_manner.Habits(16 * MIB, "POST", is_total_known=False, takes_no_308=True)
    return [
        Run("tuspy", size, spread(size, 24, Kind), by_tus(8 * MIB, False), AGAIN_BYTES_MAX),
        # A chunk with a checksum is kept as a whole or not at all, so all of it comes again.
        Run("tuspy, checksums", size // 4, spread(size // 4, 8, alternating), by_tus(8 * MIB, True), a_chunk),
        Run("Google's client", size, spread(size, 24, Kind), google_api.by_chunks(8 * MIB), AGAIN_BYTES_MAX),
        # One request for everything, and chunks as Google's library for Go sends them.
        Run("one PUT", size, spread(size, 15, in_the_middle), by_google(in_one), AGAIN_BYTES_MAX),
        Run("as for Go", size, spread(size, 18, Kind), by_google(for_go), AGAIN_BYTES_MAX),
    ]


def spread(size, count, kinds):
    """Cuts all over the content, off all boundaries of chunks; the last one loses the answer to the last byte."""
    cuts, kinds = [Cut(size - 1, Kind.UNANSWERED)], list(kinds)
    for number in range(count):
        at = size * (2 * number + 1) // (2 * count) + OFF_BOUNDARIES * (number + 1)
        cuts.append(Cut(at, kinds[number % len(kinds)]))
    return cuts


def by_tus(chunk_bytes, with_checksum):
    """An upload by tuspy, which always says the length at the start and knows no other way."""

    def upload(url, token, source, name):
        client = tus.TusClient(f"{url}/api/v1/tus", headers={"Authorization": f"Bearer {token}"})
        uploader = client.uploader(
            str(source),
            chunk_size=chunk_bytes,
            metadata={"filename": name},
            retries=TUS_RETRIES,
            retry_delay=TUS_RETRY_DELAY_S,
            upload_checksum=with_checksum,
        )
        try:
            uploader.upload()
        except exceptions.TusCommunicationError as error:
            raise RuntimeError(f"{error}: {error.status_code} {error.response_content}") from error
        if uploader.get_offset() != uploader.get_file_size():
            raise RuntimeError(f"asked again, the upload stands at {uploader.get_offset()}")

    return upload


def by_google(habits):
    """An upload in the manner of Google's client."""

    def upload(url, token, source, name):
        client = google_manner.GoogleUpload(url, token, source, name, habits)
        done = client.run()
        again = client.ask_again()
        if again["entry"]["id"] != done["entry"]["id"] or again["entry"]["version"] != done["entry"]["version"]:
            raise RuntimeError(f"asked again, the answer is another: {again} after {done}")

    return upload


def carry_out(run, number, cluster, folder):
    """Uploads, reads back and compares."""
    source, name = folder / "source", f"run-{number}.bin"
    digest = content.write(source, number, run.size)
    run.ledger = Ledger(run.name, run.size, run.cuts)
    ways = Ways(cluster)
    token, begun = cluster.token(), time.monotonic()
    try:
        with CuttingProxy(ways, run.ledger) as proxy:
            run.upload(proxy.url, token, source, name)
    finally:
        run.seconds = time.monotonic() - begun
        ways.restore()
    entry, found = cluster.stored(token, f"/{name}")
    if (entry["size"], entry["version"], found) != (run.size, 1, digest):
        run.faults.append(f"read back: size {entry['size']}, version {entry['version']}, SHA-256 {found} for {digest}")
    run.faults.extend(run.ledger.faults)
    run.faults.extend(f"the cut at {cut.at} did not take place" for cut in run.cuts if not cut.is_done)
    for kind, most in run.again_bytes_max.items():
        if (run.ledger.worst(kind) or 0) > most:
            run.faults.append(f"{run.ledger.worst(kind):,} bytes came again after a cut ({kind.value}), {most:,} may")


class Ways:
    """Which of the two gateways the proxy leads to."""

    def __init__(self, cluster):
        """The first one."""
        self.cluster, self.number, self.starting = cluster, 1, None
        self.worker = futures.ThreadPoolExecutor(1)

    def address(self):
        """Host and port of the one that serves now."""
        parts = urllib.parse.urlsplit(self.cluster.gateway(self.number)["url"])
        return parts.hostname, parts.port

    def kill(self):
        """Ends the one that serves, which is started again meanwhile; where to go now."""
        self.restore()
        dead, self.number = self.number, 3 - self.number
        self.cluster.kill_gateway(dead)
        self.starting = self.worker.submit(self.cluster.start_gateway, dead)
        return self.address()

    def move(self):
        """Leaves the one that serves, which goes on living; where to go now."""
        self.restore()
        self.number = 3 - self.number
        return self.address()

    def restore(self):
        """Waits until the one that was killed is back."""
        if self.starting is not None:
            self.starting.result()
            self.starting = None


def print_table(runs):
    """A line a run: what came again after the costliest cut of each kind, in KiB."""
    rows = [["run", "MiB", "s", "requests", "cuts", *(kind.value for kind in Kind), "in all", "result"]]
    for run in runs:
        row = [run.name, str(run.size >> 20), f"{run.seconds:.0f}"]
        if run.ledger is not None:
            worst = [run.ledger.worst(kind) for kind in Kind]
            row += [str(run.ledger.requests), str(sum(cut.is_done for cut in run.cuts))]
            row += ["-" if most is None else kibibytes(most) for most in worst]
            row += [kibibytes(run.ledger.again_bytes)]
        row += [""] * (len(rows[0]) - 1 - len(row))
        rows.append([*row, "FAULT" if run.faults else "equal"])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    print("\nKiB that a gateway had and that came again, after the costliest cut of each kind and in all")
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip(), flush=True)


def kibibytes(count):
    """Bytes for the table."""
    return f"{count / 1024:,.0f}"


if __name__ == "__main__":
    sys.exit(main())
