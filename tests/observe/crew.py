"""Eight processes that one of them keeps waiting, for whatever shows who waits for whom."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Self

from tests.cli.programs import Program

__all__ = ["SLOW", "WITHIN", "Crew"]

SLOW = float(os.environ.get("AIOPG_TEST_SLOW", "1"))

WITHIN = 1.0 * SLOW
"""Seconds within which who is awaited is to be seen; on a busy host AIOPG_TEST_SLOW stretches it."""

RANK = """
import asyncio, os, pathlib, sys
from aiopg import AsyncStatelessGroup

async def main():
    group = await AsyncStatelessGroup.from_env()
    for _ in range(5):
        await group.barrier()
    if group.rank == 0:
        print(os.environ["AIOPG_URL"], os.environ["AIOPG_TOKEN"], flush=True)
    while not pathlib.Path(sys.argv[1]).exists():
        await asyncio.sleep(0.02)
    if group.rank == 5:
        await asyncio.sleep(3600)
    print("waits", flush=True)
    await group.barrier(3600)

asyncio.run(main())
"""


class Crew:
    """A group "crew" of 8 ranks under `aiopg run`. Used as a context manager; it is formed then.

    Attributes:
        url, token: of the store that they meet at.
    """

    def __init__(self, directory: Path) -> None:
        self._go = directory / "go"
        self._program = Program(
            "run", "-n", "8", "--group", "crew", "--", sys.executable, "-c", RANK, str(self._go), environment={}
        )
        self.url = self.token = ""

    def __enter__(self) -> Self:
        _, self.url, self.token = self._program.line().split()
        return self

    def __exit__(self, *_: object) -> None:
        self._program.send(signal.SIGTERM)
        self._program.finish()
        self._program.close()

    @property
    def environment(self) -> dict[str, str]:
        """For programs that are to reach the store."""
        return {"AIOPG_TOKEN": self.token}

    def go(self) -> float:
        """Have all but rank 5 come to the next barrier; when they are there, the time (monotonic seconds)."""
        self._go.touch()
        said = sorted(self._program.line() for _ in range(7))
        assert said == [f"[{rank}] waits" for rank in (0, 1, 2, 3, 4, 6, 7)]
        return time.monotonic()
