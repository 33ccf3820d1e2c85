"""`python -m benchmarks.strangers`: what a crowd that never logs in costs the members of a store.

A store with a token, a group of 8 real processes, and a process of strangers: 1,000 connections that say nothing and
100 that send one byte a second, each made anew as soon as the store has put it out (after 5 s). Rounds without the
crowd and with it take turns; in each the 8 form a group and pass barriers for longer than that.
"""

import argparse
import asyncio
import resource
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import uvloop

from aiopg import AsyncStatelessGroup

RANKS = 8
SILENT = 1000
SLOW = 100
ROUNDS = 7
BARRIERS = 14_000


async def rank(url: str, number: int, token: str) -> None:
    """Form a group for each line of standard input; say how long that took, and then the barriers."""
    for line in iter(sys.stdin.readline, ""):
        started = time.perf_counter()
        group = await AsyncStatelessGroup.connect(url, rank=number, world_size=RANKS, group=line.strip(), token=token)
        await group.barrier()
        formed = time.perf_counter()
        for _ in range(BARRIERS):
            await group.barrier()
        print(formed - started, (time.perf_counter() - formed) / BARRIERS, flush=True)
        await group.close()


async def crowd(url: str) -> None:
    """Come when told to, and leave when told to."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    while await asyncio.to_thread(sys.stdin.readline):
        there = asyncio.Semaphore(0)
        async with asyncio.TaskGroup() as tasks:
            strangers = [tasks.create_task(stranger(url, there, number < SLOW)) for number in range(SILENT + SLOW)]
            for _ in strangers:
                await there.acquire()
            print("here", flush=True)
            await asyncio.to_thread(sys.stdin.readline)
            for task in strangers:
                task.cancel()
        print("gone", flush=True)


async def stranger(url: str, there: asyncio.Semaphore, talks: bool) -> None:
    """One connection after another that does not log in."""
    where = urlsplit(url)
    while True:
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        there.release()
        talking = asyncio.create_task(talk(writer)) if talks else None
        try:
            await reader.read()
        except ConnectionError:
            pass
        finally:
            if talking is not None:
                talking.cancel()
            writer.close()


async def talk(writer: asyncio.StreamWriter) -> None:
    """One byte a second of what a member would say."""
    for byte in b"aipg\r\n\x1a\x00":
        writer.write(bytes((byte,)))
        await asyncio.sleep(1.0)


def process(*arguments: object) -> subprocess.Popen[str]:
    """This module once more, as a rank or as the crowd."""
    command = [sys.executable, "-m", "benchmarks.strangers", *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def tell(to: subprocess.Popen[str], line: str) -> None:
    """Write it a line."""
    assert to.stdin is not None
    to.stdin.write(line + "\n")
    to.stdin.flush()


def hear(of: subprocess.Popen[str]) -> str:
    """Its next line."""
    assert of.stdout is not None
    line = of.stdout.readline()
    if not line:
        raise SystemExit("a process of the benchmark has ended")
    return line


def round_of(ranks: list[subprocess.Popen[str]], name: str) -> tuple[float, float]:
    """Seconds until the last rank had formed the group, and for one barrier."""
    for each in ranks:
        tell(each, name)
    figures = [tuple(map(float, hear(each).split())) for each in ranks]
    return max(formed for formed, _ in figures), statistics.median(barrier for _, barrier in figures)


def compare(rounds: int) -> None:
    """Run it all."""
    with tempfile.TemporaryDirectory() as directory:
        token = Path(directory, "token")
        token.touch(0o600)
        token.write_text(secrets.token_urlsafe(32))
        serve = [sys.executable, "-m", "aiopg", "serve", "--token-file", str(token)]
        store = subprocess.Popen(serve, stdout=subprocess.PIPE, text=True)
        url = hear(store).strip()
        ranks = [process("rank", url, number, token) for number in range(RANKS)]
        strangers = process("crowd", url)
        try:
            report(ranks, strangers, rounds)
        finally:
            for each in (*ranks, strangers, store):
                each.terminate()
                each.communicate()


def report(ranks: list[subprocess.Popen[str]], strangers: subprocess.Popen[str], rounds: int) -> None:
    """Rounds in turns, and what came of them."""
    round_of(ranks, "warm")
    alone, beside = [], []
    for number in range(rounds):
        alone.append(round_of(ranks, f"alone {number}"))
        tell(strangers, "come")
        hear(strangers)
        beside.append(round_of(ranks, f"beside {number}"))
        tell(strangers, "go")
        hear(strangers)
    for place, what in enumerate(("to form a group of 8", "a barrier of 8")):
        ratios = sorted(b[place] / a[place] for a, b in zip(alone, beside, strict=True))
        first, second = (statistics.median(figures[place] for figures in each) for each in (alone, beside))
        print(f"{what}: alone {first * 1e6:.0f} us, beside {SILENT + SLOW} strangers {second * 1e6:.0f} us;")
        print(
            f"    median of {rounds} paired ratios {statistics.median(ratios):.2f}, {ratios[0]:.2f} to {ratios[-1]:.2f}"
        )


def main() -> None:
    """The command, and its processes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.strangers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    match sys.argv[1:]:
        case ["rank", url, number, token]:
            uvloop.run(rank(url, int(number), Path(token).read_text().strip()))
        case ["crowd", url]:
            uvloop.run(crowd(url))
        case _:
            compare(parser.parse_args().rounds)


if __name__ == "__main__":
    main()
