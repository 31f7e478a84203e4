"""A proxy on loopback that knows just enough of HTTP/1.1 to cut a connection at a given byte of an upload's content.

A connection has one request at a time, each with Content-Length or none, as the clients here send them; the place of
its bytes in the content is what Upload-Offset or Content-Range says.
Invariant: a cut is carried out once, at its byte, whatever the connections are.
Not here: what is counted (ledger.py), where cuts lie (suite.py).
"""

import fcntl
import re
import select
import socket
import struct
import termios
import threading
import time

from ledger import Kind

PIECE_BYTES = 256 << 10
HEAD_BYTES_MAX = 64 << 10
IDLE_TIMEOUT_S = 120
# A small buffer, so that what was handed over but did not come in is little.
SEND_BUFFER_BYTES = 128 << 10


class ConnectionOver(Exception):
    """Nothing more is to be passed on by this connection."""


class CuttingProxy:
    """Listens from entering to leaving, for one upload."""

    def __init__(self, ways, ledger):
        """`ways` tells host and port of a gateway, and of another one after a death or a move."""
        self.upstream, self.ways, self.ledger = ways.address(), ways, ledger
        self.left_open = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        # Only a shutdown wakes a thread that waits in accept().
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for upstream in self.left_open:
            upstream.close()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        passing = Passing(self, client)
        try:
            while passing.one_request():
                pass
        except (ConnectionOver, OSError):
            pass
        finally:
            passing.close()


class Passing:
    """One connection of a client, and its twin to the gateway."""

    def __init__(self, proxy, client):
        """The twin is opened at once."""
        self.proxy, self.ledger = proxy, proxy.ledger
        self.client, self.upstream = client, None
        self.client.settimeout(IDLE_TIMEOUT_S)
        self.from_client = self.from_upstream = b""
        try:
            self.upstream = socket.socket()
            self.upstream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            self.upstream.settimeout(IDLE_TIMEOUT_S)
            self.upstream.connect(proxy.upstream)
        except OSError:
            self.upstream.close()
            self.upstream = None

    def close(self):
        """Ends both sides."""
        self.client.close()
        if self.upstream is not None:
            self.upstream.close()

    def one_request(self):
        """Passes a request and its answer on; false when the client is done."""
        if self.upstream is None:
            return False
        head, self.from_client = read_head(self.client, self.from_client)
        if head is None:
            return False
        size = int(header(head, "content-length") or 0)
        first = place_of(head)
        self.upstream.sendall(head)
        cut = None
        if first is None or size == 0:
            self._pass_unplaced(size)
        else:
            self.ledger.begins(first)
            cut = self._pass_content(first, size)
        answer, self.from_upstream = read_head(self.upstream, self.from_upstream)
        if answer is None:
            return False
        self._answered(head, answer, cut)
        return True

    def _answered(self, head, answer, cut):
        status = int(answer.split(b" ", 2)[1])
        has_body = not head.startswith(b"HEAD ") and status >= 200 and status not in (204, 304)
        left = int(header(answer, "content-length") or 0) if has_body else 0
        body = b""
        while len(body) < left:
            piece, self.from_upstream = self.from_upstream or self.upstream.recv(PIECE_BYTES), b""
            if not piece:
                raise ConnectionOver
            body += piece
        if cut is not None:
            self.ledger.was_cut(cut)
            raise ConnectionOver
        told = offset_of(answer)
        if told is not None:
            self.ledger.answers(told)
        self.client.sendall(answer + body)

    def _pass_unplaced(self, left):
        while left > 0:
            piece = self._from_client(left)
            self.upstream.sendall(piece)
            left -= len(piece)

    def _pass_content(self, first, size):
        """Hands a chunk over; the cut that loses its answer, if there is one. A cut midway raises."""
        unanswered, begin, end = None, first, first + size
        while begin < end:
            if self._is_answered_early():
                return unanswered
            piece = self._from_client(end - begin)
            while piece:
                cut = self.ledger.next_cut(begin, len(piece))
                if cut is not None and cut.kind is Kind.UNANSWERED:
                    cut.is_done, unanswered = True, cut
                    continue
                passed = piece if cut is None else piece[:cut.at - begin + 1]
                self.upstream.sendall(passed)
                self.ledger.passes(begin, len(passed))
                begin, piece = begin + len(passed), piece[len(passed):]
                if cut is not None:
                    self._cut(cut)
        return unanswered

    def _is_answered_early(self):
        """Waits for either side; true when the gateway answers before it has the whole request."""
        if self.from_client:
            return False
        sides = select.select([self.client, self.upstream], [], [], IDLE_TIMEOUT_S)[0]
        if not sides:
            raise ConnectionOver
        return self.upstream in sides

    def _from_client(self, most):
        if not self.from_client:
            self.from_client = self.client.recv(PIECE_BYTES)
            if not self.from_client:
                raise ConnectionOver
        piece, self.from_client = self.from_client[:most], self.from_client[most:]
        return piece

    def _cut(self, cut):
        wait_until_read(self.upstream)
        if cut.kind is Kind.RESET:
            self.upstream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif cut.kind is Kind.KILLED:
            self.proxy.upstream = self.proxy.ways.kill()
        elif cut.kind is Kind.MOVED:
            self.proxy.upstream = self.proxy.ways.move()
        if cut.kind in (Kind.LEFT_OPEN, Kind.MOVED):
            self.proxy.left_open.append(self.upstream)
            self.upstream = None
        if self.upstream is not None:
            self.upstream.close()
            self.upstream = None
        self.ledger.was_cut(cut)
        raise ConnectionOver


def wait_until_read(connection):
    """Waits until the gateway has read all that was sent: what its system still holds has not come in."""
    end = time.monotonic() + IDLE_TIMEOUT_S
    while unsent_bytes(connection) + unread_bytes(connection) > 0:
        if time.monotonic() > end:
            raise ConnectionOver
        time.sleep(0.001)


def unsent_bytes(connection):
    """What was sent and has not reached the other side's system."""
    return struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, b"\0" * 4))[0]


def unread_bytes(connection):
    """What lies in the other side's system, which is this one, since all is on loopback."""
    ours, theirs = (f":{end[1]:04X}" for end in (connection.getsockname(), connection.getpeername()))
    with open("/proc/net/tcp") as table:
        for row in (line.split() for line in table):
            if row[1].endswith(theirs) and row[2].endswith(ours):
                return int(row[4].split(":")[1], 16)
    return 0


def read_head(connection, begun):
    """A head with its empty line, and what came behind it; no head when the connection ends before."""
    while b"\r\n\r\n" not in begun:
        piece = connection.recv(PIECE_BYTES)
        if not piece or len(begun) > HEAD_BYTES_MAX:
            return None, b""
        begun += piece
    end = begun.index(b"\r\n\r\n") + 4
    return begun[:end], begun[end:]


def header(head, name):
    """The value of a header, without regard to case; `None` when it is not there."""
    found = re.search(rb"\r\n" + re.escape(name.encode()) + rb":[ \t]*([^\r]*)", head, re.IGNORECASE)
    return found.group(1).decode("latin-1").strip() if found else None


def place_of(head):
    """Where a request's bytes begin in the content, by tus or by Content-Range; `None` when it brings none."""
    if (offset := header(head, "upload-offset")) is not None:
        return int(offset)
    found = re.match(r"bytes (\d+)-", header(head, "content-range") or "")
    return int(found.group(1)) if found else None


def offset_of(answer):
    """How many bytes an answer says are stored; `None` when it is not about that."""
    if (offset := header(answer, "upload-offset")) is not None:
        return int(offset)
    found = re.fullmatch(r"bytes=0-(\d+)", header(answer, "range") or "")
    return int(found.group(1)) + 1 if found else None
