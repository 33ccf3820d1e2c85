"""`python -m benchmarks.observe_page`: what it costs the members of a store that somebody looks at its page.

A store with a side port (`aiopg serve --http`), a group of 8 real processes that pass barriers, and one who listens to
what the page is told (server-sent events), as a browser on another host does. Slices with him and without him take
turns, each pair in the other order; the figure is the median of the pairs' ratios. `--where thread` and `--where loop`
have the side port in the store's own process instead, in a thread and on its event loop: what it was decided against.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import uvloop

from aiopg import AsyncStatelessGroup, StoreServer
from aiopg.observe.http import HttpAddress, SidePort
from aiopg.server.descriptors import raise_limit

RANKS = 8
PAIRS = 40
BARRIERS = 1500


async def rank(url: str, number: int) -> None:
    """Pass barriers for each line of standard input; say how long one took."""
    async with await AsyncStatelessGroup.connect(url, rank=number, world_size=RANKS) as group:
        while await asyncio.to_thread(sys.stdin.readline):
            await group.barrier()
            times = [time.perf_counter()]
            for _ in range(BARRIERS):
                await group.barrier()
                times.append(time.perf_counter())
            took = sorted(end - begin for begin, end in pairwise(times))
            print((times[-1] - times[0]) / BARRIERS, took[-BARRIERS // 500], flush=True)


async def crowd(url: str, size: int) -> None:
    """Be a large group beside, which waits in a barrier for its last rank."""
    raise_limit()
    logging.disable(logging.WARNING)  # each of them would tell that it waits
    group = await asyncio.gather(
        *(AsyncStatelessGroup.connect(url, rank=number, world_size=size, group="crowd") for number in range(size))
    )
    waiting = [asyncio.create_task(member.barrier(timeout=3600)) for member in group[:-1]]
    await asyncio.sleep(1)
    print("here", flush=True)
    await asyncio.wait(waiting)


async def store(where: str) -> None:
    """A store whose side port is in its own process: in a "thread", or on its "loop"."""
    from aiopg.observe.http import child

    async with StoreServer() as server:
        side = SidePort(server, HttpAddress("127.0.0.1", 0))
        await side.start()
        ours, theirs = socket.socketpair()
        listening = side._socket
        assert listening is not None
        reader, writer = await asyncio.open_connection(sock=ours)
        side._introduce(writer)
        serve = child.serve(theirs, listening)
        if where == "thread":
            threading.Thread(target=uvloop.run, args=(serve,), daemon=True).start()
        else:
            looking = asyncio.create_task(serve)
            looking.add_done_callback(lambda task: task.result())
        print(server.address, side.url, sep="\n", flush=True)
        await side._answer(reader, writer)


def process(*arguments: object) -> subprocess.Popen[str]:
    """This module once more."""
    command = [sys.executable, "-m", "benchmarks.observe_page", *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def hear(of: subprocess.Popen[str]) -> str:
    """Its next line."""
    assert of.stdout is not None
    line = of.stdout.readline()
    if not line:
        raise SystemExit("a process of the benchmark has ended")
    return line.strip()


def slice_of(ranks: list[subprocess.Popen[str]]) -> tuple[float, float]:
    """Seconds for one barrier, and for one of the slowest two in a thousand."""
    for each in ranks:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    figures = [tuple(map(float, hear(each).split())) for each in ranks]
    return statistics.median(mean for mean, _ in figures), statistics.median(slow for _, slow in figures)


class Viewer:
    """One who listens to what the page is told, and counts it."""

    def __init__(self, page: str) -> None:
        where = urlsplit(page)
        self._sock = socket.create_connection((where.hostname, where.port))
        self._sock.sendall(f"GET /api/events HTTP/1.1\r\nHost: {where.netloc}\r\n\r\n".encode())
        self.bytes = self.frames = 0
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        self._begun.wait()

    def _read(self) -> None:
        while data := self._sock.recv(1 << 16):
            self.bytes += len(data)
            self.frames += data.count(b"event: frame")
            if self.frames:
                self._begun.set()

    def close(self) -> None:
        """Look away."""
        self._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._sock.close()


def processor_seconds(pid: int) -> float:
    """Processor time that a process and its children used."""
    own = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    seconds = (int(own[11]) + int(own[12])) / os.sysconf("SC_CLK_TCK")
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return seconds + sum(processor_seconds(int(child)) for child in children)


class Slice(NamedTuple):
    """What one barrier took."""

    seconds: float
    slow: float
    """One of the slowest two in a thousand."""
    processor: float
    """Seconds of the store's process and of that of its side port."""
    frames: int = 0


def measure(ranks: list[subprocess.Popen[str]], served: int, page: str | None) -> Slice:
    """A slice; with a page: while somebody looks at it. `served`: the store's process."""
    viewer = None if page is None else Viewer(page)
    try:
        before = processor_seconds(served)
        seconds, slow = slice_of(ranks)
        return Slice(seconds, slow, (processor_seconds(served) - before) / BARRIERS, viewer.frames if viewer else 0)
    finally:
        if viewer is not None:
            viewer.close()


def compare(where: str, pairs: int, beside: int) -> None:
    """Run it all."""
    serve = [sys.executable, "-m", "aiopg", "serve", "--http", "0"]
    served = (
        subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) if where == "process" else process("store", where)
    )
    url, page = hear(served), hear(served)
    ranks = [process("rank", url, number) for number in range(RANKS)]
    others = [process("crowd", url, beside)] if beside else []
    try:
        for each in others:
            hear(each)
        slice_of(ranks)
        report(where, pairs, partial(measure, ranks, served.pid), page)
    finally:
        for each in (*ranks, *others, served):
            each.terminate()
            each.communicate()


def report(where: str, pairs: int, take: Callable[[str | None], Slice], page: str) -> None:
    """Slices in turns, and what came of them."""
    alone: list[Slice] = []
    seen: list[Slice] = []
    for number in range(pairs):
        for with_him in (True, False) if number % 2 else (False, True):
            (seen if with_him else alone).append(take(page if with_him else None))
    ratios = [one.seconds / other.seconds for one, other in zip(seen, alone, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)

    def both(place: int) -> str:
        return " and ".join(
            f"{statistics.median(one[place] for one in slices) * 1e6:.0f} us" for slices in (alone, seen)
        )

    frames = sum(one.frames for one in seen) / sum(one.seconds * BARRIERS for one in seen)
    print(
        f"side port in the store's {where}, {pairs} pairs of {BARRIERS} barriers of {RANKS} processes; "
        f"alone, and looked at ({frames:.1f} frames a second):\n"
        f"  a barrier takes {both(0)}: median of the pairs' ratios {statistics.median(ratios):.3f} "
        f"(quartiles {low:.3f} to {high:.3f})\n"
        f"  one of the slowest two in a thousand takes {both(1)}\n"
        f"  processor time of store and side port for one is {both(2)}",
        flush=True,
    )


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["rank", url, number]:
            uvloop.run(rank(url, int(number)))
        case ["crowd", url, size]:
            uvloop.run(crowd(url, int(size)))
        case ["store", where]:
            os.environ.pop("AIOPG_TOKEN", None)
            uvloop.run(store(where))
        case _:
            parser = argparse.ArgumentParser(description=__doc__)
            parser.add_argument("--where", choices=("process", "thread", "loop"), default="process")
            parser.add_argument("--pairs", type=int, default=PAIRS)
            parser.add_argument("--crowd", type=int, default=0, metavar="N", help="ranks of a group beside")
            options = parser.parse_args()
            compare(options.where, options.pairs, options.crowd)
