"""A dev cluster of separate processes with two gateways that can be killed, and what is asked of it beside the clients.

Invariant: every process is ended by its id; the parent takes its children with it.
Not here: the calls of the clients themselves.
"""

import hashlib
import json
import os
import signal
import subprocess
import time

import requests

START_TIMEOUT_S = 180
STOP_TIMEOUT_S = 90
CALL_TIMEOUT_S = 60
PIECE_BYTES = 1 << 20


class Cluster:
    """Runs from entering to leaving."""

    def __init__(self, holdfast, folder):
        """`holdfast` is the server binary; everything is kept below `folder`."""
        self.holdfast, self.data = holdfast, folder / "data"
        self.log = open(folder / "dev.log", "wb")
        self.parent = None

    def __enter__(self):
        shape = ["--listen", "127.0.0.1:0", "--processes", "--gateways", "2"]
        command = [self.holdfast, "dev", "--data-dir", self.data, *shape]
        self.parent = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        try:
            self._wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.parent.send_signal(signal.SIGTERM)
        try:
            self.parent.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.parent.kill()
            self.parent.wait()
        self.log.close()

    def _wait_until_ready(self):
        end = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < end:
            if self.parent.poll() is not None:
                raise RuntimeError(f"holdfast dev ended with {self.parent.returncode}:\n{self.last_lines()}")
            try:
                if requests.get(f"{self.facts()['url']}/readyz", timeout=CALL_TIMEOUT_S).ok:
                    return
            except (OSError, ValueError):
                pass
            time.sleep(0.2)
        raise RuntimeError(f"holdfast dev is not ready after {START_TIMEOUT_S} s:\n{self.last_lines()}")

    def last_lines(self):
        """The end of its log, for whoever reads why it failed."""
        with open(self.log.name, errors="replace") as log:
            return "".join(log.readlines()[-20:])

    def facts(self):
        """What it says about itself now."""
        with open(self.data / "dev.json") as file:
            return json.load(file)

    def gateway(self, number):
        """A gateway as dev.json tells it: `url`, and `pid` while it lives."""
        for process in self.facts()["processes"]:
            if process["role"] == "gateway" and process["id"] == number:
                return process
        raise RuntimeError(f"dev.json has no gateway {number}")

    def kill_gateway(self, number):
        """Ends a gateway as `kill -9` does; returns once the cluster knows."""
        os.kill(self.gateway(number)["pid"], signal.SIGKILL)
        end = time.monotonic() + CALL_TIMEOUT_S
        while self.gateway(number)["pid"] is not None:
            if time.monotonic() > end:
                raise RuntimeError(f"gateway {number} was killed, and dev.json tells another tale")
            time.sleep(0.01)

    def start_gateway(self, number):
        """Starts a gateway that was killed, and waits until it is ready."""
        command = [self.holdfast, "admin", "process", "start", f"gateway-{number}", "--data-dir", self.data]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=START_TIMEOUT_S
        )
        if done.returncode != 0:
            raise RuntimeError(f"gateway {number} does not start: {done.stderr}")

    def token(self):
        """Signs the demo user in; an access token for an hour."""
        facts = self.facts()
        form = {"grant_type": "password", "username": facts["user"], "password": facts["password"]}
        answer = requests.post(f"{facts['url']}/api/v1/auth/token", data=form, timeout=CALL_TIMEOUT_S)
        answer.raise_for_status()
        return answer.json()["access_token"]

    def stored(self, token, path):
        """The file at `path` read back past every proxy: its entry and the SHA-256 of its content."""
        url, headers = self.gateway(1)["url"], {"Authorization": f"Bearer {token}"}
        looked = requests.get(f"{url}/api/v1/metadata", params={"path": path}, headers=headers, timeout=CALL_TIMEOUT_S)
        looked.raise_for_status()
        entry, digest = looked.json()["entry"], hashlib.sha256()
        content = f"{url}/api/v1/files/{entry['id']}/content"
        with requests.get(content, headers=headers, timeout=CALL_TIMEOUT_S, stream=True) as answer:
            answer.raise_for_status()
            for piece in answer.iter_content(PIECE_BYTES):
                digest.update(piece)
        return entry, digest.hexdigest()
