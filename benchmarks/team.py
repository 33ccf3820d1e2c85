"""The processes of one contestant: started once, given orders together, ended for certain."""

import asyncio
import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import contestants, peers

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 300
"""For all processes to import their packages: torch takes seconds of processor time in each."""
END_SECONDS = 10
"""For a process to end by itself, once told to; then it is killed."""
# One thread per rank is what is measured; without this torch would start a pool per process.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


class TeamError(Exception):
    """A contestant failed: a rank ended, or did not answer in time. Its figures stop here."""


class Team:
    """The rank processes of one contestant.

    They are long-lived: each imports its packages once, and the first N of them form the group of N ranks.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.label = contestants.ENTRIES[name].label
        self.versions: dict[str, str] = {}
        self._ranks: list[asyncio.subprocess.Process] = []
        self._errors = tempfile.TemporaryDirectory(prefix="aiopg-bench-")

    @property
    def running(self) -> bool:
        return bool(self._ranks)

    async def start(self, size: int) -> None:
        """Start `size` processes and wait until each has imported what it needs."""
        python = str(peers.PYTHON) if contestants.ENTRIES[self.name].peers else sys.executable
        for rank in range(size):
            with self._error_file(rank).open("wb") as errors:
                self._ranks.append(
                    await asyncio.create_subprocess_exec(
                        python,
                        *("-m", "benchmarks.worker", self.name),
                        stdin=asyncio.subprocess.PIPE,
                        stdout=asyncio.subprocess.PIPE,
                        stderr=errors,
                        cwd=ROOT,
                        env=os.environ | ENVIRONMENT,
                        start_new_session=True,  # its own process group, so that its children end with it
                    )
                )
        answers = await self._answers(size, START_SECONDS, "start")
        self.versions = answers[0]["versions"]

    async def form(self, size: int, timeout: float) -> None:
        """Form the group of the first `size` processes."""
        bound = (await self._order([{"do": "bind"}], timeout))[0]
        orders = [{"do": "form", "port": bound["port"], "rank": rank, "world_size": size} for rank in range(size)]
        await self._order(orders, timeout)

    async def run(self, operation: str, count: int, size: int, timeout: float) -> float:
        """Run one block; return the seconds from the last rank's start to the last rank's end."""
        orders = [{"do": "run", "operation": operation, "count": count, "rank": rank} for rank in range(size)]
        answers = await self._order(orders, timeout)
        took: int = max(answer["end"] for answer in answers) - max(answer["start"] for answer in answers)
        return took / 1e9

    async def leave(self, size: int, timeout: float) -> None:
        """Leave the group; the processes stay."""
        await self._order([{"do": "close"}] * size, timeout)

    async def end(self) -> None:
        """End all processes: by closing their input, and by force where that does not do."""
        for process in self._ranks:
            if process.stdin is not None:
                process.stdin.close()
        try:
            async with asyncio.timeout(END_SECONDS):
                await asyncio.gather(*(process.wait() for process in self._ranks))
        except TimeoutError:
            pass  # kill() below takes those that are left
        await self.kill()
        self._errors.cleanup()

    async def kill(self) -> None:
        """End all processes and their children at once."""
        ranks, self._ranks = self._ranks, []
        for process in ranks:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it and its children had ended
        await asyncio.gather(*(process.wait() for process in ranks))

    async def _order(self, orders: list[dict[str, Any]], timeout: float) -> list[dict[str, Any]]:
        """Give rank i the i-th order, all at once, and return the answers by rank."""
        for process, order in zip(self._ranks, orders, strict=False):
            if process.stdin is not None:
                process.stdin.write(json.dumps(order).encode() + b"\n")
        return await self._answers(len(orders), timeout, orders[0].get("operation", orders[0]["do"]))

    async def _answers(self, size: int, timeout: float, doing: str) -> list[dict[str, Any]]:
        """Return one answer of each of the first `size` ranks; the first that fails fails the team."""
        tasks = [asyncio.create_task(self._answer(rank)) for rank in range(size)]
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.gather(*tasks)
        except TimeoutError:
            silent = [rank for rank, task in enumerate(tasks) if task.cancelled() or not task.done()]
            raise TeamError(f"{doing}: no answer within {timeout:g} s from ranks {silent}") from None
        finally:
            for task in tasks:
                task.cancel()

    async def _answer(self, rank: int) -> dict[str, Any]:
        stdout = self._ranks[rank].stdout
        line = await stdout.readline() if stdout is not None else b""
        if not line:
            raise TeamError(f"rank {rank} ended: {self._last_words(rank)}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _error_file(self, rank: int) -> Path:
        return Path(self._errors.name) / f"rank{rank}.txt"

    def _last_words(self, rank: int) -> str:
        lines = self._error_file(rank).read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "without a word"
