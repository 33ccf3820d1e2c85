"""Who makes the snapshots of a journal: a child process, which ends with its server.

Theory of operation. A snapshot is made from files alone (`_core.compaction`), so it is made elsewhere: in a process of
its own (`aiopg.server.compact`), which for a while needs as much memory as the server and a core. It is started in a
thread, in the same way on every event loop: by `subprocess`, which on Linux starts a child without copying the page
tables of its parent, so that it costs a large server no more than a small one. The descriptors of the server are closed
by the system when the child begins, as Python makes none that a child inherits.

The child's standard input is a pipe whose other end only the server has. When that is closed, in whatever way the
server ends, the kernel sends the child a SIGIO, whose default is to end it, in whatever it does. The server asks for
that as soon as the child is there; should it die before, the child sees the closed pipe when it begins.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from aiopg._core.compaction import compact
from aiopg._core.frames import Buffer
from aiopg._core.limits import Limits
from aiopg.processes import describe_end
from aiopg.server._python import child_environment, module_command

__all__ = ["DAMAGED", "ChildCompactor", "CompactionError", "Compactor"]

DAMAGED = 3
"""Exit code of a child that found damage in the journal."""

COMPLAINT_CHARACTERS = 2000
"""As much of what a child says at its end is passed on."""


class CompactionError(Exception):
    """No snapshot was made, and nothing was lost.

    Attributes:
        damaged: whether the reason is damage in the journal's files.
    """

    def __init__(self, reason: str, *, damaged: bool = False) -> None:
        super().__init__(reason)
        self.damaged = damaged


class Compactor(Protocol):
    """Makes the snapshots of one journal."""

    def fold(self, snapshot: bytes | None, records: Iterable[bytes]) -> Iterable[Buffer]:
        """Body of the snapshot, in pieces, that stands for another one (None: the beginning) and records behind it."""

    def run(self, directory: Path, number: int) -> None:
        """Do `compact_files`. Blocks until it is done, in a thread; one at a time.

        Raises `CompactionError` or `OSError`.
        """

    def stop(self) -> None:
        """Have `run` end now, or as soon as it begins. Returns at once."""


class ChildCompactor:
    """Does it in a child process."""

    def __init__(self, limits: Limits, about: Mapping[str, object]) -> None:
        """The limits with which the server runs, and what it says about itself: a replay goes by them."""
        self._limits = limits
        self._about = about
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def fold(self, snapshot: bytes | None, records: Iterable[bytes]) -> Iterable[Buffer]:
        """See `Compactor`."""
        return compact(snapshot, records, self._limits, self._about)

    def run(self, directory: Path, number: int) -> None:
        """See `Compactor`."""
        alive, life = os.pipe()
        try:
            try:
                process = self._start(directory, number, alive)
            finally:
                os.close(alive)
            with process:
                self._process = process
                if self._stopped:  # asked after the process was made known, as `stop` asks the other way round
                    process.kill()
                assert process.stderr is not None
                said = process.stderr.read().decode(errors="replace").strip()[-COMPLAINT_CHARACTERS:]
                code = process.wait()
        finally:
            os.close(life)
        if code == DAMAGED:
            raise CompactionError(said, damaged=True)
        if code:
            raise CompactionError(f"the process that makes it {describe_end(code)}: {said}")

    def stop(self) -> None:
        """See `Compactor`."""
        self._stopped = True
        if self._process is not None:
            self._process.kill()

    def _start(self, directory: Path, number: int, alive: int) -> subprocess.Popen[bytes]:
        request = json.dumps({"limits": asdict(self._limits), "about": dict(self._about)})
        process = subprocess.Popen(
            module_command("aiopg.server.compact", str(directory), str(number), request),
            stdin=alive,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            close_fds=False,  # see above; to close thousands one by one would take long, and all threads wait for it
            process_group=0,  # a terminal's Ctrl-C is for the server
            env=child_environment(),
        )
        try:
            fcntl.fcntl(alive, fcntl.F_SETOWN, process.pid)
            fcntl.fcntl(alive, fcntl.F_SETFL, os.O_ASYNC)
        except OSError:
            process.kill()
            process.communicate()
            raise
        return process
