"""The command `aiopg` as a real process, and processes seen from outside."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import IO, TypeAlias

__all__ = ["Program", "RunAiopg", "StartAiopg"]


class Program:
    """One running `aiopg`. Used as a context manager, it leaves nothing behind."""

    def __init__(self, *arguments: str, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "aiopg", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | environment,
        )
        assert self._process.stdout is not None
        self.stdout: IO[bytes] = self._process.stdout

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def line(self) -> str:
        """The next line of its output."""
        return self.stdout.readline().decode().rstrip("\n")

    def error_line(self) -> str:
        """The next line of its standard error."""
        assert self._process.stderr is not None
        return self._process.stderr.readline().decode().rstrip("\n")

    def send(self, signum: int) -> None:
        """Send it a signal."""
        self._process.send_signal(signum)

    def code(self, timeout: float = 30) -> int:
        """Wait for its end, reading nothing; its exit code."""
        return self._process.wait(timeout)

    def finish(self, timeout: float = 30) -> tuple[int, bytes, bytes]:
        """Wait for its end: exit code, and all the output that was not read yet."""
        stdout, stderr = self._process.communicate(timeout=timeout)
        return self._process.returncode, stdout, stderr

    def close(self) -> None:
        """Kill it if it lives, and let go of its output."""
        self._process.kill()
        if self._process.stderr is not None:
            self._process.stderr.close()
        self.stdout.close()
        self._process.wait()


StartAiopg: TypeAlias = Callable[..., Program]
"""`start("run", "-n", "2", ...)`"""

RunAiopg: TypeAlias = Callable[..., Awaitable[tuple[int, str, str]]]
"""`await run("status", url)`: the exit code, and all that was written to standard output and standard error."""
