"""`python -m benchmarks.large`: what large objects cost, and whom.

Real processes: a store, four ranks of which one broadcasts to three, and four ranks that pass barriers beside them, all
on uvloop unless told otherwise. It prints

- for broadcasts of 1 to 256 MiB: bytes of the object a second, counted once, until the last rank has it; and the
  longest time that the event loop of any rank stood still;
- the same of the store, and of a process that does nothing else: that is what a busy host costs anybody;
- the time of a barrier of four ranks, median and worst, alone and beside broadcasts of 256 MiB, and the ratios.

With `--vllm` the same broadcasts by vLLM's group, in the environment that `make bench` has made.
"""

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

RANKS = 4
"""One broadcasts to three."""
BARRIER_RANKS = 4
MIB = 1024 * 1024
SIZES = (1, 2, 4, 8, 64, 256)
PROBE_SECONDS = 0.001


class Lag:
    """The longest that this process's event loop stood still."""

    def __init__(self) -> None:
        self.worst = 0.0

    async def run(self) -> None:
        """Look every millisecond, until cancelled."""
        while True:
            before = time.perf_counter()
            await asyncio.sleep(PROBE_SECONDS)
            self.worst = max(self.worst, time.perf_counter() - before - PROBE_SECONDS)

    def take(self) -> float:
        """The worst since the last time, in seconds."""
        worst, self.worst = self.worst, 0.0
        return worst


def load(kind: str, size: int) -> Any:
    """An object of so many bytes, the same each time."""
    data = bytes(range(256)) * (size // 256)
    if kind == "array":
        import numpy

        return numpy.frombuffer(data, "f4").copy()
    return data


def say(**answer: Any) -> None:
    """A line to whoever gives orders."""
    print(json.dumps(answer), flush=True)


async def orders() -> Any:
    """The next order, without blocking the loop; None at the end."""
    line = await asyncio.to_thread(sys.stdin.readline)
    return json.loads(line) if line else None


async def giver(url: str, rank: int) -> None:
    """A rank of the broadcasts."""
    import numpy  # noqa: F401 - who receives an array has imported it

    from aiopg import AsyncStatelessGroup

    lag = Lag()
    probe = asyncio.create_task(lag.run())
    async with await AsyncStatelessGroup.connect(
        url, rank=rank, world_size=RANKS, group="large", store_timeout=120
    ) as group:
        say(formed=True)
        while (order := await orders()) is not None:
            given = load(order["kind"], order["size"]) if rank == 0 else None
            await group.barrier(60)
            times, worst = [], 0.0
            for _ in range(order["count"]):
                await group.barrier(60)
                lag.take()
                started = time.monotonic()
                got = await group.broadcast(given, 0)
                times.append((started, time.monotonic()))
                assert len(got) * getattr(got, "itemsize", 1) == order["size"]
                worst = max(worst, lag.take())
                # To give 256 MiB of bytes back to the kernel takes 20 to 100 ms, and is the program's own doing.
                del got
                await asyncio.sleep(0.01)
                lag.take()
            say(times=times, lag=worst)
    probe.cancel()


async def idle() -> None:
    """A loop that has nothing to do."""
    lag = Lag()
    probe = asyncio.create_task(lag.run())
    say(formed=True)
    while await orders() is not None:
        say(lag=lag.take())
    probe.cancel()


async def store() -> None:
    """The store."""
    from aiopg import StoreServer

    lag = Lag()
    probe = asyncio.create_task(lag.run())
    async with StoreServer() as server:
        say(url=server.address)
        while await orders() is not None:
            say(lag=lag.take())
    probe.cancel()


async def passer(url: str, rank: int) -> None:
    """A rank of the barriers."""
    from aiopg import AsyncStatelessGroup

    async with await AsyncStatelessGroup.connect(url, rank=rank, world_size=BARRIER_RANKS, group="small") as group:
        say(formed=True)
        while (order := await orders()) is not None:
            await group.barrier()
            times = []
            until = time.monotonic() + order["seconds"]
            more = True
            while more:
                started = time.perf_counter()
                more = await group.broadcast(time.monotonic() < until if rank == 0 else None, 0)
                started = time.perf_counter()
                await group.barrier()
                times.append(time.perf_counter() - started)
            say(times=times)


def vllm(port: int, rank: int) -> None:
    """A rank of vLLM's group, which does the same."""
    from benchmarks.contestants.vllm_group import _group_class

    group = _group_class().create("127.0.0.1", port, rank, RANKS)
    say(formed=True)
    for line in iter(sys.stdin.readline, ""):
        order = json.loads(line)
        given = load(order["kind"], order["size"]) if rank == 0 else None
        times = []
        for _ in range(order["count"]):
            group.barrier()
            started = time.monotonic()
            group.broadcast_obj(given, 0)
            times.append((started, time.monotonic()))
        say(times=times, lag=0.0)


class Rank:
    """A process of this module."""

    def __init__(self, *arguments: object, python: str = sys.executable) -> None:
        command = [python, "-m", "benchmarks.large", *map(str, arguments)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def order(self, **order: Any) -> None:
        """Tell it what to do."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """Its next line."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a process of the benchmark has ended")
        return json.loads(line)

    def end(self) -> None:
        """By closing its input, and by force."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def broadcasts(ranks: list[Rank], kind: str, size: int, count: int) -> tuple[float, float]:
    """Median seconds of a broadcast, from the root's call until the last rank has it; worst lag of a rank."""
    for rank in ranks:
        rank.order(kind=kind, size=size, count=count)
    answers = [rank.answer() for rank in ranks]
    each = zip(*(answer["times"] for answer in answers), strict=True)
    seconds = [max(end for _, end in one) - one[0][0] for one in each]
    return statistics.median(seconds), max(answer["lag"] for answer in answers)


def barriers(ranks: list[Rank], seconds: float, meanwhile: Callable[[], object] = lambda: None) -> list[float]:
    """Seconds of each barrier, those of the rank that waited longest; `meanwhile` is to end in that time."""
    for rank in ranks:
        rank.order(seconds=seconds)
    meanwhile()
    return [max(each) for each in zip(*(rank.answer()["times"] for rank in ranks), strict=True)]


def lags(probes: list[Rank]) -> list[float]:
    """How long each loop stood still, since the last time."""
    for probe in probes:
        probe.order()
    return [probe.answer()["lag"] for probe in probes]


def show(what: str, size: int, seconds: float, lag: list[float]) -> None:
    """A line of the report. `lag`: of the ranks, the store, and an idle process."""
    rate = size / seconds / MIB
    names = ("ranks", "store", "idle")
    stood = "".join(f"  {name} {each * 1e3:.1f}" for name, each in zip(names, lag, strict=False))
    stood = stood and f"   loops stood still, ms at most:{stood}"
    print(f"{what:8} {size // MIB:4d} MiB  {seconds * 1e3:8.1f} ms  {rate:7.0f} MiB/s{stood}", flush=True)


def report(ranks: list[Rank], small: list[Rank], peers: list[Rank], probes: list[Rank], kind: str) -> None:
    """All of it."""
    for size in SIZES:
        count = max(5, min(40, 64 // size))
        broadcasts(ranks, kind, size * MIB, 2)
        lags(probes)
        seconds, lag = broadcasts(ranks, kind, size * MIB, count)
        show("aiopg", size * MIB, seconds, [lag, *lags(probes)])
        if peers and size <= 64:
            broadcasts(peers, kind, size * MIB, 1)
            show("vLLM", size * MIB, broadcasts(peers, kind, size * MIB, count)[0], [])
    barriers(small, 0.5)
    pairs = []
    for _ in range(3):
        alone = barriers(small, 4.0)
        beside = barriers(small, 4.0, lambda: broadcasts(ranks, kind, 256 * MIB, 4))
        pairs.append((alone, beside))
        for what, times in (("alone", alone), ("beside broadcasts of 256 MiB", beside)):
            print(
                f"barriers of {BARRIER_RANKS} {what}: {len(times)}, median {statistics.median(times) * 1e6:.0f} us, "
                f"99 of 100 within {sorted(times)[len(times) * 99 // 100] * 1e3:.1f} ms, "
                f"worst {max(times) * 1e3:.1f} ms",
                flush=True,
            )
    medians = statistics.median(statistics.median(b) / statistics.median(a) for a, b in pairs)
    worst = statistics.median(max(b) / max(a) for a, b in pairs)
    print(f"beside, a barrier takes {medians:.1f} times as long in the median, the worst one {worst:.1f} times")


def compare(kind: str, loop: str, with_vllm: bool) -> None:
    """Start all processes, and report."""
    probes = [Rank("store", "", 0, loop), Rank("idle", "", 0, loop)]
    url = probes[0].answer()["url"]
    probes[1].answer()
    ranks = [Rank("giver", url, rank, loop) for rank in range(RANKS)]
    small = [Rank("passer", url, rank, loop) for rank in range(BARRIER_RANKS)]
    peers: list[Rank] = []
    if with_vllm:
        from benchmarks.peers import PYTHON

        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        peers = [Rank("vllm", port, rank, python=str(PYTHON)) for rank in range(RANKS)]
    try:
        for each in (*ranks, *small, *peers):
            each.answer()
        report(ranks, small, peers, probes, kind)
    finally:
        for each in (*ranks, *small, *peers, *probes):
            each.end()


def main() -> None:
    """The command, and its processes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large", description=__doc__)
    parser.add_argument("--kind", choices=("bytes", "array"), default="bytes")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="uvloop")
    parser.add_argument("--vllm", action="store_true")
    match sys.argv[1:]:
        case [("giver" | "passer") as role, url, rank, loop]:
            from aiopg.loops import fast_loop

            with asyncio.Runner(loop_factory=fast_loop() if loop == "uvloop" else None) as runner:
                runner.run((giver if role == "giver" else passer)(url, int(rank)))
        case [("store" | "idle") as role, _, _, loop]:
            from aiopg.loops import fast_loop

            with asyncio.Runner(loop_factory=fast_loop() if loop == "uvloop" else None) as runner:
                runner.run(store() if role == "store" else idle())
        case ["vllm", port, rank]:
            os.environ["OMP_NUM_THREADS"] = "1"
            vllm(int(port), int(rank))
        case _:
            arguments = parser.parse_args()
            compare(arguments.kind, arguments.loop, arguments.vllm)


if __name__ == "__main__":
    main()
