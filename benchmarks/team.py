"""The processes of one contestant: started once, given orders together, ended for certain."""

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import contestants, memory, peers
from benchmarks.operations import ranks_in
from benchmarks.orders import FOLDER_VARIABLE, SOCKET_NAME, error_file

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 300
"""For all processes to import their packages: torch takes seconds of processor time."""
END_SECONDS = 10
"""For the processes to end by themselves, once told to; then they are killed."""
LINE_BYTES = 2**20
# One thread per rank is what is measured; without this torch and numpy would start a pool per process. gloo looks for
# the interface of the host's name, where it is told none. torch asks for the name of every peer's address, and where no
# name server answers that takes 5 s and more.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
    "GLOO_SOCKET_IFNAME": "lo",
    "RES_OPTIONS": "timeout:1 attempts:1",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
}
MPIRUN = ("mpirun", "--oversubscribe", *("--mca", "btl", "tcp,self"), *("--mca", "btl_tcp_if_include", "lo"))


class TeamError(Exception):
    """A contestant failed: a rank ended, or did not answer in time. Its figures stop here."""


class LeftOut(Exception):
    """A contestant does not take part here, for a reason that is no failure of its."""


@dataclass
class _Rank:
    """The coordinator's end of one process's line."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class Team:
    """The rank processes of one contestant.

    They are long-lived: each imports its packages once, and the first N of them form the group of N ranks.
    """

    def __init__(self, name: str, workplace: str = "benchmarks.worker") -> None:
        self.name = name
        self.label = contestants.ENTRIES[name].label
        self.versions: dict[str, str] = {}
        self._workplace = workplace
        self._launcher: asyncio.subprocess.Process | None = None
        self._ranks: list[_Rank] = []
        self._scratch = tempfile.TemporaryDirectory(prefix="aiopg-bench-")
        self._folder = Path(self._scratch.name)

    @property
    def running(self) -> bool:
        return self._launcher is not None

    @property
    def size(self) -> int:
        return len(self._ranks)

    async def start(self, size: int) -> None:
        """Start `size` processes and wait until each has imported what it needs.

        Raises:
            LeftOut: they would not fit into the memory that is free.
            TeamError: one of them ended, or they took too long.
        """
        entry = contestants.ENTRIES[self.name]
        if (lacking := memory.lacking(size * entry.rank_mebibytes)) is not None:
            raise LeftOut(lacking)
        arrivals: asyncio.Queue[_Rank] = asyncio.Queue(size)
        path = self._folder / SOCKET_NAME
        path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(
            lambda reader, writer: arrivals.put_nowait(_Rank(reader, writer)), path, limit=LINE_BYTES, backlog=size
        )
        with (self._folder / "launcher.txt").open("wb") as errors:
            self._launcher = await asyncio.create_subprocess_exec(
                *self._command(size),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                cwd=ROOT,
                env=os.environ | ENVIRONMENT | {FOLDER_VARIABLE: str(self._folder)},
                start_new_session=True,  # a process group of its own, so that its descendants end with it
            )
        try:
            await self._muster(size, arrivals)
        finally:
            server.close()
        self.versions = (await self._answers(size, START_SECONDS, "start"))[0]["versions"]

    def _command(self, size: int) -> list[str]:
        entry = contestants.ENTRIES[self.name]
        python = str(peers.PYTHON) if entry.foreign else sys.executable
        if entry.mpirun:
            return [*MPIRUN, "-n", str(size), python, "-m", self._workplace, self.name]
        return [python, "-m", "benchmarks.nursery", self._workplace, self.name, str(size)]

    async def _muster(self, size: int, arrivals: asyncio.Queue[_Rank]) -> None:
        """Wait for the line of each rank, or for the end of what was to start them."""
        assert self._launcher is not None
        ended = asyncio.create_task(self._launcher.wait())
        came = asyncio.create_task(self._take_lines(size, arrivals))
        try:
            await asyncio.wait([ended, came], timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if not came.done():
                raise TeamError(f"its processes did not start: {_last_line(self._folder / 'launcher.txt')}")
            self._ranks = came.result()
        finally:
            for task in (ended, came):
                task.cancel()

    async def _take_lines(self, size: int, arrivals: asyncio.Queue[_Rank]) -> list[_Rank]:
        ranks: dict[int, _Rank] = {}
        while len(ranks) < size:
            line = await arrivals.get()
            ranks[json.loads(await line.reader.readline())["rank"]] = line
        return [ranks[rank] for rank in range(size)]

    async def bind(self, count: int, timeout: float) -> list[int]:
        """Have rank 0 listen on ports of its own; return them."""
        ports: list[int] = (await self.order([{"do": "bind", "count": count}], timeout))[0]["ports"]
        return ports

    async def form(self, size: int, timeout: float) -> None:
        """Form the group of the first `size` processes."""
        ports = await self.bind(1, timeout)
        await self.order([_seated("form", rank, size) | {"ports": ports} for rank in range(size)], timeout)

    async def check(self, size: int, length: int, timeout: float) -> None:
        """Broadcast a payload of `length` bytes once, and compare what arrives."""
        await self.order([_seated("check", rank, size) | {"bytes": length} for rank in range(size)], timeout)

    async def run(self, operation: str, count: int, size: int, length: int | None, timeout: float) -> float:
        """Run one block; return its seconds, from the last rank's start to the last rank's end.

        Where each repetition has a start and an end of its own, it is their sum.
        """
        ports = await self.bind(count, timeout) if operation == "join" else []
        what = {"operation": operation, "count": count, "bytes": length, "ports": ports}
        answers = await self.order([_seated("run", rank, size) | what for rank in range(size)], timeout)
        return between(answers[: ranks_in(operation)])

    async def leave(self, size: int, timeout: float) -> None:
        """Leave the group; the processes stay."""
        await self.order([{"do": "close"}] * size, timeout)

    async def end(self) -> None:
        """End all processes: by closing their lines, and by force where that does not do."""
        for rank in self._ranks:
            rank.writer.close()
        if self._launcher is not None:
            try:
                async with asyncio.timeout(END_SECONDS):
                    await self._launcher.wait()
            except TimeoutError:
                pass  # kill() below takes those that are left
        await self.kill()
        self._scratch.cleanup()

    async def kill(self) -> None:
        """End all processes and their children at once."""
        ranks, self._ranks = self._ranks, []
        launcher, self._launcher = self._launcher, None
        for rank in ranks:
            rank.writer.close()
        if launcher is None:
            return
        # mpirun puts each rank in a process group of its own: it must be asked, to end them.
        for signum in (signal.SIGTERM, signal.SIGKILL) if contestants.ENTRIES[self.name].mpirun else (signal.SIGKILL,):
            try:
                os.killpg(launcher.pid, signum)
                async with asyncio.timeout(END_SECONDS):
                    await launcher.wait()
            except (ProcessLookupError, TimeoutError):
                pass  # it has ended with its descendants, or the next signal is due
        await launcher.wait()

    async def order(self, orders: Sequence[dict[str, Any]], timeout: float) -> list[dict[str, Any]]:
        """Give rank i the i-th order, all at once, and return the answers by rank."""
        for rank, order in zip(self._ranks, orders, strict=False):
            rank.writer.write(json.dumps(order).encode() + b"\n")
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
        try:
            line = await self._ranks[rank].reader.readline()
        except ConnectionError:  # reset, or a broken pipe where an order was written to a rank that had ended
            line = b""
        if not line:
            raise TeamError(f"rank {rank} ended: {_last_line(error_file(self._folder, rank))}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def between(answers: Sequence[dict[str, Any]]) -> float:
    """Return the seconds from the last start to the last end, summed up over the repetitions."""
    starts = map(max, zip(*(answer["starts"] for answer in answers), strict=True))
    ends = map(max, zip(*(answer["ends"] for answer in answers), strict=True))
    nanoseconds: int = sum(ends) - sum(starts)
    return nanoseconds / 1e9


def _seated(do: str, rank: int, size: int) -> dict[str, Any]:
    return {"do": do, "rank": rank, "world_size": size}


def _last_line(path: Path) -> str:
    """Return the last line that says something; a traceback of many exceptions ends in a frame round them."""
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    told = [line.strip(" |+-") for line in lines]
    return next((line for line in reversed(told) if line and not line.endswith("more exceptions")), "without a word")
