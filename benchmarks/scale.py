"""`python -m benchmarks.scale`: one store and up to ten thousand ranks.

The store is an `aiopg serve` process. The ranks live in a few processes (`--processes`), each with thousands of links
(`NativeLink`), one connection a rank. All run on this machine, so the wall-clock figures hold the ranks' own work as
well: with two processors that is more than half of it. "store CPU" is the processor time of the store's process alone.
All look for garbage seldom, as a store does (`aiopg.server.collecting`): Python's collector, going through the objects
of thousands of ranks again and again, took a third of the time, and a process that is one rank has no such heap.

For each number of ranks, with a new store and new processes:

connect      until every rank has an open session, all dialled at once
join         until every rank has its place in the group
first        the first barrier
barrier      one of many barriers in a row, each rank going on as soon as it may; the median of some blocks
all_gather   one, each rank giving a 16-byte object; the median of some
close        until every rank has closed its link
KiB a rank   resident memory of the store after the barriers, less what it had before anybody came
"""

import argparse
import asyncio
import itertools
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import uvloop

from aiopg.server.collecting import collect_seldom
from aiopg.server.descriptors import raise_limit
from aiopg.stores.base import Buffer, Call, Member, Needs
from aiopg.stores.native import NativeLink

GROUP = "scale"
OBJECT = b"sixteen bytes..."
PATIENCE = 60.0
"""Seconds that a call of the ranks may take."""
BARRIERS = 10
BLOCKS = 5
IDLE_SECONDS = 1.0
"""The store is idle for so long before its memory is read: acknowledgements have come, timers have rung."""
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


# ------------------------------------------------------------------------------------- a process with many ranks


class Ranks:
    """The ranks `first` to `first + count - 1` of `world_size`."""

    def __init__(self, url: str, first: int, count: int, world_size: int) -> None:
        self._url = url
        self._places = range(first, first + count)
        self._world_size = world_size
        self._stores: list[NativeLink] = []
        self._members: list[Member] = []
        self._rounds = 0

    async def connect(self) -> None:
        """A session for each."""
        links = (NativeLink.connect(self._url, timeout=PATIENCE) for _ in self._places)
        self._stores = await asyncio.gather(*links)

    async def join(self) -> None:
        """A place in the group for each."""
        joins = (
            store.join(self._call("join", rank), self._world_size, ttl=math.inf)
            for rank, store in zip(self._places, self._stores, strict=True)
        )
        self._members = await asyncio.gather(*joins)

    async def barrier(self, count: int) -> None:
        """Barriers in a row."""
        await self._rounds_of("barrier", [], count)

    async def all_gather(self, count: int) -> None:
        """The same of all_gather."""
        await self._rounds_of("all_gather", [OBJECT], count)

    async def close(self) -> None:
        """Everybody leaves at once."""
        await asyncio.gather(*(store.close() for store in self._stores))

    async def _rounds_of(self, op: str, parts: list[Buffer], count: int) -> None:
        first, self._rounds = self._rounds + 1, self._rounds + count

        async def one(rank: int, member: Member) -> None:
            # A rank goes on to the next as soon as it may. What it gets is dropped at once: in a process a rank, nobody
            # holds the answers of thousands.
            for number in range(first, first + count):
                got = await member.round(self._call(op, rank, number), -1, "", parts, Needs.ALL)
                assert len(got) == (self._world_size if parts else 0)

        await asyncio.gather(*map(one, self._places, self._members))

    def _call(self, op: str, rank: int, seq: int = 0) -> Call:
        loop = asyncio.get_running_loop()
        now = loop.time()
        return Call(op, GROUP, rank, 0, seq, loop, now, now + PATIENCE)


async def obey(ranks: Ranks) -> None:
    """Do what each line of standard input says, and say when it was done."""
    collect_seldom()
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    async for line in orders:
        what, *numbers = line.decode().split()
        await getattr(ranks, what)(*map(int, numbers))
        print("done", flush=True)


# --------------------------------------------------------------------------------------------------- the conductor


class Process:
    """A process that this one talks to by lines."""

    def __init__(self, *arguments: object) -> None:
        command = [sys.executable, *map(str, arguments)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self._process.pid

    def tell(self, line: str) -> None:
        """Write it a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def hear(self) -> str:
        """Its next line."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a process of the benchmark has ended")
        return line.strip()

    def end(self) -> None:
        """End it and wait for that."""
        self._process.terminate()
        self._process.communicate()

    @property
    def resident_bytes(self) -> int:
        """Memory that it has."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE

    @property
    def processor_seconds(self) -> float:
        """Processor time that it took so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


class Stage:
    """A store and `ranks` ranks in `processes` processes."""

    def __init__(self, ranks: int, processes: int) -> None:
        self.store = Process("-m", "aiopg", "serve")
        url = self.store.hear()
        bounds = [ranks * number // processes for number in range(processes + 1)]
        self._crowds = [
            Process("-m", "benchmarks.scale", "ranks", url, first, after - first, ranks)
            for first, after in itertools.pairwise(bounds)
        ]
        for crowd in self._crowds:
            crowd.hear()
        self.ranks = ranks

    def order(self, what: str, count: int | None = None) -> tuple[float, float]:
        """Have all ranks do it, `count` times; seconds for one until the last is done, and of the store's processor."""
        processor, started = self.store.processor_seconds, time.perf_counter()
        for crowd in self._crowds:
            crowd.tell(what if count is None else f"{what} {count}")
        for crowd in self._crowds:
            crowd.hear()
        took = time.perf_counter() - started
        return took / (count or 1), (self.store.processor_seconds - processor) / (count or 1)

    def end(self) -> None:
        """End all processes."""
        for process in (*self._crowds, self.store):
            process.end()


def measure(ranks: int, processes: int) -> dict[str, float]:
    """All figures for one number of ranks; seconds and bytes."""
    stage = Stage(ranks, processes)
    figures = {}

    def keep(what: str, *blocks: tuple[float, float]) -> None:
        figures[what] = statistics.median(wall for wall, _ in blocks)
        figures[f"{what}_cpu"] = statistics.fmean(processor for _, processor in blocks)

    try:
        before = stage.store.resident_bytes
        keep("connect", stage.order("connect"))
        keep("join", stage.order("join"))
        keep("first", stage.order("barrier", 1))
        keep("barrier", *(stage.order("barrier", BARRIERS) for _ in range(BLOCKS)))
        time.sleep(IDLE_SECONDS)
        figures["memory"] = (stage.store.resident_bytes - before) / ranks
        keep("all_gather", *(stage.order("all_gather", 1) for _ in range(BLOCKS)))
        keep("close", stage.order("close"))
        return figures
    finally:
        stage.end()


WALL = ("connect", "join", "first", "barrier", "all_gather", "close")
PROCESSOR = ("connect", "join", "first", "barrier", "all_gather")


def header() -> str:
    """Of the table."""
    names = ["ranks", *(f"{what}, ms" for what in WALL), *(f"store CPU: {what}, us a rank" for what in PROCESSOR)]
    names += ["KiB a rank"]
    return f"| {' | '.join(names)} |\n|{'--:|' * len(names)}"


def row(ranks: int, figures: dict[str, float]) -> str:
    """For one number of ranks."""
    cells = [f"{ranks:,}", *(f"{figures[what] * 1e3:,.0f}" for what in WALL)]
    cells += [f"{figures[f'{what}_cpu'] / ranks * 1e6:.0f}" for what in PROCESSOR]
    cells += [f"{figures['memory'] / 1024:.1f}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """The command, and its processes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--ranks", type=int, nargs="+", default=[100, 1000, 3000, 10_000])
    parser.add_argument("--processes", type=int, default=2, help="processes that the ranks live in (%(default)s)")
    match sys.argv[1:]:
        case ["ranks", url, first, count, world_size]:
            raise_limit()
            print("ready", flush=True)
            uvloop.run(obey(Ranks(url, int(first), int(count), int(world_size))))
            return
    options = parser.parse_args()
    print(header())
    for ranks in options.ranks:
        print(row(ranks, measure(ranks, options.processes)), flush=True)


if __name__ == "__main__":
    main()
