"""A client with the habits of Google's own for several languages: `uploadType=resumable`.

It starts with JSON and the X-Upload-Content headers, sends chunks of a multiple of 256 KiB with Content-Range to the
address that it was given, reads `Range` of a 308, and after any failure waits a random time that doubles, then asks by
`bytes */TOTAL` where it stands. Written from what docs/api.md promises.
Invariant: it goes on only from where the server says, never from what it believes to have sent.
Not here: cuts (proxy.py).
"""

import dataclasses
import os
import random
import re
import time

import requests

from content import Slice

UNIT_BYTES = 256 << 10
TRIES_MAX = 10
# Google's libraries begin with a second. A shorter one finds the server still at work on the connection that was cut.
BACKOFF_S = 0.1
TIMEOUT_S = 120


@dataclasses.dataclass
class Habits:
    """What differs between Google's libraries."""

    chunk_bytes: int
    # The Go library sends chunks by POST, asks for 200 instead of 308, and does not know the length before the end.
    method: str = "PUT"
    is_total_known: bool = True
    takes_no_308: bool = False


class Refused(Exception):
    """An answer that trying again does not change."""


class GoogleUpload:
    """One upload, from its start to the answer to its last byte."""

    def __init__(self, url, token, source, name, habits):
        """`source` is a path, `name` that of the new file in the root of the drive."""
        assert habits.chunk_bytes % UNIT_BYTES == 0
        self.url, self.token, self.name, self.habits = url, token, name, habits
        self.source, self.size = source, os.path.getsize(source)
        self.session = requests.Session()
        self.random = random.Random(name)
        self.address = None

    def run(self):
        """Uploads everything; the JSON of the last answer."""
        self.address = self._start()
        stored, failures = 0, 0
        with open(self.source, "rb") as file:
            while True:
                try:
                    done, stored = self._query() if failures else self._chunk(file, stored)
                    if done is not None:
                        return done
                    failures = 0
                except requests.RequestException as failure:
                    failures += 1
                    if failures > TRIES_MAX:
                        raise Refused(f"gives up after {failures} tries: {failure}") from failure
                    time.sleep(BACKOFF_S * self.random.random() * 2**failures)

    def ask_again(self):
        """The JSON that is answered when the client missed the last answer and asks."""
        done, stored = self._query()
        if done is None:
            raise Refused(f"the upload is done, and asked again it stands at {stored}")
        return done

    def _start(self):
        headers = {
            "Authorization": f"Bearer {self.token}",
            "Content-Type": "application/json; charset=UTF-8",
            "X-Upload-Content-Type": "application/octet-stream",
        }
        if self.habits.is_total_known:
            headers["X-Upload-Content-Length"] = str(self.size)
        address = f"{self.url}/api/v1/files/upload?uploadType=resumable"
        about = {"name": self.name, "mimeType": "application/octet-stream"}
        answer = self.session.post(address, headers=headers, json=about, timeout=TIMEOUT_S)
        if answer.status_code != 200 or "Location" not in answer.headers:
            raise Refused(f"the start is answered {answer.status_code} {answer.text}")
        return answer.headers["Location"]

    def _chunk(self, file, stored):
        if self.size == 0:
            return self._query()
        size = min(self.habits.chunk_bytes, self.size - stored)
        is_last = stored + size == self.size
        total = self.size if self.habits.is_total_known or is_last else "*"
        content_range = f"bytes {stored}-{stored + size - 1}/{total}"
        return self._call(self.habits.method, Slice(file, stored, size), content_range)

    def _query(self):
        total = self.size if self.habits.is_total_known else "*"
        return self._call("PUT", b"", f"bytes */{total}")

    def _call(self, method, body, content_range):
        """The last answer's JSON, or none and how many bytes are stored."""
        headers = {"Content-Range": content_range, "Content-Length": str(len(body))}
        if self.habits.takes_no_308:
            headers["X-GUploader-No-308"] = "yes"
        answer = self.session.request(method, self.address, data=body, headers=headers, timeout=TIMEOUT_S)
        status = answer.status_code
        if self.habits.takes_no_308 and status == 308:
            raise Refused("a 308 although X-GUploader-No-308 was sent")
        if self.habits.takes_no_308 and answer.headers.get("X-HTTP-Status-Code-Override") == "308":
            status = 308
        if status in (200, 201):
            return answer.json(), self.size
        if status == 308:
            return None, stored_bytes(answer.headers.get("Range"))
        if status == 429 or status >= 500:
            raise requests.RequestException(f"{method} {content_range} is answered {status} {answer.text}")
        raise Refused(f"{method} {content_range} is answered {status} {answer.text}")


def stored_bytes(value):
    """What a `Range` of a 308 says; without one nothing is stored."""
    if value is None:
        return 0
    found = re.fullmatch(r"bytes=0-(\d+)", value)
    if found is None:
        raise Refused(f"`Range: {value}` is not what a 308 says")
    return int(found.group(1)) + 1
