"""Ranks as real processes, for tests."""

from __future__ import annotations

import itertools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from aiopg import StoreServer
from aiopg.loops import LoopThread

PROGRAMS = "tests.system.programs"
ROOT = Path(__file__).parents[2]

SLOW = float(os.environ.get("AIOPG_TEST_SLOW", "1"))
"""What bounds on times are stretched by on a busy host."""

HAS_TLS = bool(os.environ.get("AIOPG_TLS_CA"))
"""Whether this run of the tests is over TLS: `make test-tls`."""

HARMLESS = ("Executing ", "  ", *(("socket.send() raised exception.",) if HAS_TLS else ()))
"""What a rank may say on stderr: in debug mode that a step took long; and over TLS, where asyncio's transports do not
say that they are closing (`_SSLProtocolTransport.is_closing`), that more was written after a connection broke."""

# Runs at the same time have process ids next to each other, and go on at the same pace: their ports must lie far apart.
_ports: Iterator[int] = itertools.count(os.getpid() * 2503)


def free_port() -> int:
    """A port nobody listens on, below the range from which the kernel draws ports for outgoing connections."""
    while True:
        port = 20000 + next(_ports) % 12000
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Ranks:
    """Processes that each run one rank of a program of `programs.py`; killed, if they still run, when it ends.

    Args:
        program: its name.
        world_size: how many ranks.
        loop: "asyncio", "uvloop", or "mixed" for one of both by turns.
        port: where rank 0 is to host the store.
        at: URL of the store to connect to instead.
        programs: the module that the program is in.
        unwatched: the ranks do not say which process they are, as where a store cannot watch them.
    """

    def __init__(
        self,
        program: str,
        world_size: int,
        *,
        loop: str = "asyncio",
        port: int | None = None,
        at: str | None = None,
        programs: str = PROGRAMS,
        unwatched: bool = False,
    ) -> None:
        self.port = port or free_port()
        self._program = program
        self._programs = programs
        self._where = at or str(self.port)
        self._loop = loop
        self._world_size = world_size
        self._environment = os.environ | {"AIOPG_TEST_UNWATCHED": "1" if unwatched else ""}
        self.processes: dict[int, subprocess.Popen[str]] = {}

    def start(self, ranks: Sequence[int] | None = None, *options: str) -> Self:
        """Start these ranks (all, if not said)."""
        for rank in range(self._world_size) if ranks is None else ranks:
            loop = ("asyncio", "uvloop")[rank % 2] if self._loop == "mixed" else self._loop
            arguments = [self._program, rank, self._world_size, self._where, loop, *options]
            self.processes[rank] = subprocess.Popen(
                [sys.executable, "-X", "dev", "-W", "error", "-m", self._programs, *map(str, arguments)],
                env=self._environment,
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stdin=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        return self

    def line(self, rank: int) -> Any:
        """Wait for the rank's next line of output; its JSON value."""
        stdout = self.processes[rank].stdout
        assert stdout is not None
        text = stdout.readline()
        if not text:
            raise AssertionError(f"rank {rank} ended: {self.processes[rank].communicate()[1]}")
        return json.loads(text)

    def await_output(self, rank: int) -> None:
        """Return when the rank has said something that was not read yet, or has ended."""
        stdout = self.processes[rank].stdout
        assert stdout is not None
        assert select.select([stdout], [], [], 50)[0], f"rank {rank} says nothing"

    def go_on(self, rank: int, word: str = "") -> None:
        """Send the rank a line on its standard input."""
        stdin = self.processes[rank].stdin
        assert stdin is not None
        stdin.write(f"{word}\n")
        stdin.flush()

    def kill(self, rank: int, how: int = signal.SIGKILL) -> None:
        """Signal a rank's process."""
        self.processes[rank].send_signal(how)

    def results(self) -> dict[int, Any]:
        """Wait for every rank to end well and silent on stderr; the last line of each, by rank."""
        results = {}
        for rank, process in self.processes.items():
            out, err = process.communicate(timeout=50)
            if process.returncode == -signal.SIGKILL:
                continue
            assert process.returncode == 0, f"rank {rank} exited {process.returncode}: {err}"
            lines = [line for line in err.splitlines() if line and not line.startswith(HARMLESS)]
            assert not lines, f"rank {rank}: {err}"
            results[rank] = json.loads(out.splitlines()[-1]) if out.strip() else None
        return results

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.communicate()


@contextmanager
def served(path: Path | None = None) -> Iterator[StoreServer]:
    """A store of the test's own, which runs in a thread: on a unix socket, or on a TCP port."""
    thread = LoopThread("store of the test")
    server = StoreServer(path=None if path is None else str(path))
    try:
        thread.submit(server.start()).result(10)
        yield server
    finally:
        thread.submit(server.close()).result(10)
        thread.stop()


@contextmanager
def serving(path: Path | None = None) -> Iterator[tuple[str, int]]:
    """A store in a process of its own: its URL and process id."""
    where = [] if path is None else ["--unix", str(path)]
    command = [sys.executable, "-m", "aiopg", "serve", *where]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip(), server.pid
        finally:
            server.terminate()


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 10.0) -> float:
    """Look again and again until the condition holds; how long that took."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > seconds:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.01)
    return time.monotonic() - started


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def resident_bytes(pid: int) -> int:
    """Memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
