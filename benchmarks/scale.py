"""`python -m benchmarks.scale`: one store and up to ten thousand ranks.

The store is an `aiopg serve` process. The ranks live in a few processes (`--processes`), each with thousands of links
(`NativeStore`), one connection a rank. All run on this machine, so the wall-clock figures hold the ranks' own work as
well: with two processors that is more than half of it. "store CPU" is the processor time of the store's process alone.

For each number of ranks, with a new store and new processes:

connect      until every rank has an open session, all dialled at once
join         until every rank has its place in the group
first        the first barrier
barrier      median of `--barriers` of them
all_gather   median of `--gathers` of them, each rank giving a 16-byte object
memory       resident memory of the store, less what it had before anybody came, for each idle rank (two answers of a
             second each have come and gone; nothing waits)
longest      the longest pass of the store's event loop while everybody was idle (it looks after its connections)
"""

import argparse
import asyncio
import gc
import json
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import uvloop

from aiopg.server.descriptors import raise_limit
from aiopg.stores.base import Buffer, Call, Member, Needs
from aiopg.stores.native import NativeStore

GROUP = "scale"
OBJECT = b"sixteen bytes..."
PATIENCE = 60.0
"""Seconds that a call of the ranks may take."""
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
        self._stores: list[NativeStore] = []
        self._members: list[Member] = []
        self._rounds = 0

    async def connect(self) -> None:
        """A session for each."""
        links = (NativeStore.connect(self._url, timeout=PATIENCE) for _ in self._places)
        self._stores = await asyncio.gather(*links)

    async def join(self) -> None:
        """A place in the group for each."""
        joins = (
            store.join(self._call("join", rank), self._world_size, ttl=math.inf)
            for rank, store in zip(self._places, self._stores, strict=True)
        )
        self._members = await asyncio.gather(*joins)

    async def barrier(self) -> None:
        """One barrier of them all."""
        await self._round("barrier", [])

    async def all_gather(self) -> None:
        """One all_gather of them all."""
        await self._round("all_gather", [OBJECT])

    async def close(self) -> None:
        """Everybody leaves at once."""
        await asyncio.gather(*(store.close() for store in self._stores))

    async def _round(self, op: str, parts: list[Buffer]) -> None:
        self._rounds += 1

        async def one(rank: int, member: Member) -> None:
            # What it gets is dropped at once: in a process a rank, nobody holds the answers of thousands.
            got = await member.round(self._call(op, rank, self._rounds), -1, "", parts, Needs.ALL)
            assert len(got) == (self._world_size if parts else 0)

        await asyncio.gather(*map(one, self._places, self._members))

    def _call(self, op: str, rank: int, seq: int = 0) -> Call:
        loop = asyncio.get_running_loop()
        now = loop.time()
        return Call(op, GROUP, rank, 0, seq, loop, now, now + PATIENCE)


async def obey(ranks: Ranks) -> None:
    """Do what each line of standard input says, and say when it was done."""
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    async for line in orders:
        await getattr(ranks, line.decode().strip())()
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
            for first, after in zip(bounds, bounds[1:], strict=False)
        ]
        for crowd in self._crowds:
            crowd.hear()
        self.ranks = ranks

    def order(self, what: str) -> tuple[float, float]:
        """Have all ranks do it; seconds until the last one has, and of the store's processor time."""
        processor, started = self.store.processor_seconds, time.perf_counter()
        for crowd in self._crowds:
            crowd.tell(what)
        for crowd in self._crowds:
            crowd.hear()
        took = time.perf_counter() - started
        return took, self.store.processor_seconds - processor

    def end(self) -> None:
        """End all processes."""
        for process in (*self._crowds, self.store):
            process.end()


def measure(ranks: int, processes: int, barriers: int, gathers: int) -> dict[str, float]:
    """All figures for one number of ranks; seconds and bytes."""
    stage = Stage(ranks, processes)
    try:
        before = stage.store.resident_bytes
        figures = {what: stage.order(what)[0] for what in ("connect", "join")}
        figures["first"] = stage.order("barrier")[0]
        took = [stage.order("barrier") for _ in range(barriers)]
        figures["barrier"] = statistics.median(wall for wall, _ in took)
        figures["barrier_cpu"] = sum(processor for _, processor in took) / barriers
        time.sleep(IDLE_SECONDS)
        figures["memory"] = (stage.store.resident_bytes - before) / ranks
        took = [stage.order("all_gather") for _ in range(gathers)]
        figures["all_gather"] = statistics.median(wall for wall, _ in took)
        figures["all_gather_cpu"] = sum(processor for _, processor in took) / gathers
        time.sleep(IDLE_SECONDS)
        figures["memory_after"] = (stage.store.resident_bytes - before) / ranks
        figures["close"] = stage.order("close")[0]
        return figures
    finally:
        stage.end()


def report(ranks: int, figures: dict[str, float]) -> str:
    """One row of the table."""
    cells = [f"{ranks:,}"]
    cells += [f"{figures[what] * 1e3:,.0f}" for what in ("connect", "join", "first", "barrier", "all_gather", "close")]
    cells += [f"{figures[what] / ranks * 1e6:.1f}" for what in ("barrier", "barrier_cpu", "all_gather_cpu")]
    cells += [f"{figures[what] / 1024:.1f}" for what in ("memory", "memory_after")]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """The command, and its processes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--ranks", type=int, nargs="+", default=[100, 1000, 3000, 10_000])
    parser.add_argument("--processes", type=int, default=2, help="processes that the ranks live in (%(default)s)")
    parser.add_argument("--barriers", type=int, default=20)
    parser.add_argument("--gathers", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one line of JSON for each number of ranks")
    match sys.argv[1:]:
        case ["ranks", url, first, count, world_size]:
            raise_limit()
            gc.freeze()
            print("ready", flush=True)
            uvloop.run(obey(Ranks(url, int(first), int(count), int(world_size))))
            return
    options = parser.parse_args()
    print("| ranks | connect ms | join ms | first ms | barrier ms | all_gather ms | close ms "
          "| us a rank: barrier | its store CPU | all_gather's store CPU | KiB a rank, idle | after all_gather |")
    print("|--:" * 12 + "|")
    for ranks in options.ranks:
        figures = measure(ranks, options.processes, options.barriers, options.gathers)
        print(json.dumps({"ranks": ranks} | figures) if options.json else report(ranks, figures), flush=True)


if __name__ == "__main__":
    main()
