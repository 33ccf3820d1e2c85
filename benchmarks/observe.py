"""`python -m benchmarks.observe`: what the recorder of a store costs its members.

Two stores, each a process of its own: one that records, as all do, and with `--without SRC` the one of another source
tree (the directory `src` of a release before there was a recorder): that is what a recorder costs. Without it the other
store is one that still notes who arrives, and nothing else: what the rest of it costs. The same 8 real processes are a
group on each. They pass blocks of barriers on one and on the other in turn, and the figure is the median of the pairs'
ratios: what the machine does meanwhile is in both.

Beside the time of a barrier stands the processor time that the store takes for one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import uvloop

from aiopg import AsyncStatelessGroup

RANKS = 8
CREWS = 12
PAIRS = 10
BARRIERS = 400

STORE = """
import asyncio, sys, uvloop
from aiopg import StoreServer
if "mute" in sys.argv:
    from aiopg._core.recorder import Trail
    Trail.add = Trail.member = lambda *_: None
async def serve():
    async with StoreServer() as server:
        print(server.address, flush=True)
        await asyncio.to_thread(sys.stdin.readline)
uvloop.run(serve())
"""


def store(*arguments: str, source: str | None = None) -> subprocess.Popen[str]:
    """A store, of this source tree if no other is given; its first line is its address."""
    environment = os.environ | ({"PYTHONPATH": source} if source else {})
    command = [sys.executable, "-c", STORE, *arguments]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def processor_seconds(process: subprocess.Popen[str]) -> float:
    """What a process has used so far."""
    fields = Path(f"/proc/{process.pid}/schedstat").read_text().split()
    return int(fields[0]) / 1e9


async def rank(number: int, urls: list[str], barriers: int) -> None:
    """For each line of standard input, a number of a store, pass a block of barriers there and say how long it took."""
    groups = [await AsyncStatelessGroup.connect(url, rank=number, world_size=RANKS) for url in urls]
    for line in iter(sys.stdin.readline, ""):
        group = groups[int(line)]
        await group.barrier()
        started = time.perf_counter()
        for _ in range(barriers):
            await group.barrier()
        print((time.perf_counter() - started) / barriers * 1e6, flush=True)


class Ranks:
    """The members, and one block of barriers after another."""

    def __init__(self, urls: list[str], barriers: int) -> None:
        command = [sys.executable, "-m", "benchmarks.observe", "--barriers", str(barriers), "--rank"]
        self._processes = [
            subprocess.Popen([*command, str(number), *urls], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for number in range(RANKS)
        ]

    def block(self, place: int) -> float:
        """Microseconds of a barrier on that store."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{place}\n")
            process.stdin.flush()
        took = []
        for process in self._processes:
            assert process.stdout is not None
            took.append(float(process.stdout.readline()))
        return max(took)

    def end(self) -> None:
        for process in self._processes:
            process.communicate()


def measure(options: argparse.Namespace, first: int, times: list[list[float]], used: list[list[float]]) -> None:
    """Pairs of blocks with two new stores and 8 new ranks: a process is a little faster or slower all its life."""
    stores: list[subprocess.Popen[str]] = [None, None]  # type: ignore[list-item]
    for place in (first, 1 - first):
        stores[place] = store() if place == 0 else store(*[] if options.without else ["mute"], source=options.without)
    urls = [process.stdout.readline().strip() for process in stores if process.stdout is not None]
    ranks = Ranks(urls, options.barriers)
    for pair in range(-2, options.pairs):
        for place in (first, 1 - first) if pair % 2 else (1 - first, first):
            before = processor_seconds(stores[place])
            took = ranks.block(place)
            if pair >= 0:
                times[place].append(took)
                used[place].append((processor_seconds(stores[place]) - before) / options.barriers * 1e6)
    ranks.end()
    for process in stores:
        process.communicate("\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--without", metavar="SRC", help="a source tree whose store records nothing")
    parser.add_argument("--crews", type=int, default=CREWS, help="so many times everybody is started anew")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="of blocks, of each crew")
    parser.add_argument("--barriers", type=int, default=BARRIERS, help="of a block")
    parser.add_argument("--rank", nargs=3, metavar=("NUMBER", "URL", "URL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank:
        number, *urls = options.rank
        uvloop.run(rank(int(number), urls, options.barriers))
        return
    times: list[list[float]] = [[], []]
    used: list[list[float]] = [[], []]
    for crew in range(options.crews):
        measure(options, crew % 2, times, used)
    for what, (records, none) in (("a barrier of 8", times), ("the store's processor time for it", used)):
        ratio = statistics.median(one / other for one, other in zip(records, none, strict=True))
        print(
            f"{what}: {statistics.median(records):.1f} us, without a recorder {statistics.median(none):.1f} us; "
            f"median of {len(records)} pairs: {100 * (ratio - 1):+.2f}%"
        )


if __name__ == "__main__":
    main()
