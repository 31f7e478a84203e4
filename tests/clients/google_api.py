"""Google's own client for python, whose requests need nothing of Google: `MediaFileUpload` and `next_chunk`.

Not here: what it does not do, such as chunks by POST and X-GUploader-No-308 (google_manner.py).
"""

import json
import random
import time

from googleapiclient import discovery  # noqa: F401  It tells httplib2 not to repeat a body that is half sent.
from googleapiclient import errors, http

TRIES_MAX = 10
# Its examples begin with a second. A shorter one finds the server still at work on the connection that was cut.
BACKOFF_S = 0.1
# By default 60. It sends a request whose answer was lost once more by itself, without the body, and waits so long.
SILENCE_MAX_S = 10


def by_chunks(chunk_bytes):
    """An upload in chunks, gone on with after failures as the library's guide says."""

    def upload(url, token, source, name):
        connection = http.build_http()
        connection.timeout = SILENCE_MAX_S
        request = http.HttpRequest(
            connection,
            lambda _, content: json.loads(content),
            f"{url}/api/v1/files/upload?uploadType=resumable",
            method="POST",
            body=json.dumps({"name": name, "mimeType": "application/octet-stream"}),
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json; charset=UTF-8"},
            resumable=http.MediaFileUpload(str(source), "application/octet-stream", chunk_bytes, resumable=True),
        )
        done, failures, dice = None, 0, random.Random(name)
        while done is None:
            try:
                _, done = request.next_chunk()
                failures = 0
            except (OSError, errors.HttpError) as failure:
                failures += 1
                status = failure.resp.status if isinstance(failure, errors.HttpError) else None
                is_refused = status is not None and status < 500 and status != 429
                if is_refused or failures > TRIES_MAX:
                    raise
                time.sleep(BACKOFF_S * dice.random() * 2**failures)

    return upload
