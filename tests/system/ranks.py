"""Ranks as real processes, for tests."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

PROGRAMS = Path(__file__).parent / "programs.py"

_ports: Iterator[int] = itertools.count(20000 + os.getpid() % 8000)


def free_port() -> int:
    """A port nobody listens on, below the range from which the kernel draws ports for outgoing connections."""
    while True:
        port = 20000 + next(_ports) % 10000
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Ranks:
    """Processes that each run one rank of a program of `programs.py`; killed, if they still run, when it ends."""

    def __init__(self, program: str, world_size: int, *, loop: str = "asyncio", port: int | None = None) -> None:
        self.port = port or free_port()
        self._program = program
        self._loop = loop
        self._world_size = world_size
        self.processes: dict[int, subprocess.Popen[str]] = {}

    def start(self, ranks: Sequence[int] | None = None, *options: str) -> Self:
        """Start these ranks (all, if not said)."""
        for rank in range(self._world_size) if ranks is None else ranks:
            arguments = [self._program, rank, self._world_size, self.port, self._loop, *options]
            self.processes[rank] = subprocess.Popen(
                [sys.executable, "-X", "dev", "-W", "error", str(PROGRAMS), *map(str, arguments)],
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
            lines = [line for line in err.splitlines() if line and not line.startswith(("Executing ", "  "))]
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
