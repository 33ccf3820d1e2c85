"""Examples as processes, for tests that wait for what they print."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"

LONG = 50.0
"""Seconds that no example takes unless it is broken."""


class Program:
    """Python with these arguments, and with this in its environment beside what is in ours."""

    def __init__(self, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            env=os.environ | (environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def read(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "it ended"
        return line.rstrip("\n")

    def lines(self, code: int = 0) -> list[str]:
        """The lines that it prints from here on, sorted. It must end with this exit code and say nothing on stderr."""
        out, err = self.process.communicate(timeout=LONG)
        assert (self.process.returncode, err) == (code, ""), err
        return sorted(out.splitlines())

    def close(self) -> None:
        """End it, if it still runs."""
        self.process.kill()
        self.process.communicate()


StartProgram: TypeAlias = Callable[..., Program]


def example(name: str) -> str:
    """The path of one."""
    return str(EXAMPLES / name)


def under_run(n: int, name: str) -> list[str]:
    """Arguments for Python that start an example n times with `aiopg run`."""
    return ["-m", "aiopg", "run", "-n", str(n), "--", sys.executable, example(name)]
