"""What the processes of test_processes.py do. Without pytest, which each of them would have to import."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

from aiopg import AsyncStatelessGroup, PeerLostError, StatelessGroup, register_type

LONG = 1000
"""Seconds that no test waits for."""


@register_type
@dataclass
class Point:
    """Something that a codec knows only where this module was imported."""

    x: int


def add_up(group: StatelessGroup, factor: int) -> int:
    total: int = group.all_reduce(group.rank * factor)
    return total


async def shift(group: AsyncStatelessGroup, points: list[Point]) -> Point:
    gathered = await group.all_gather(points[group.rank])
    await group.barrier()
    return Point(gathered[(group.rank + 1) % group.world_size].x)


def place(group: StatelessGroup) -> dict[str, Any]:
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "AIOPG_GROUP", "AIOPG_URL", "AIOPG_TIMEOUT")
    return {name: os.environ[name] for name in names} | {"pid": os.getpid(), "name": group.name}


def fail(group: StatelessGroup, culprit: int) -> None:
    if group.rank == culprit:
        print("it goes wrong", file=sys.stderr)
        atexit.register(time.sleep, 0.5)  # the others are told at once, and end before
        raise ValueError("the weights are bad")
    group.barrier(timeout=LONG)


def sleep(group: StatelessGroup) -> None:
    group.barrier()
    print("asleep")
    time.sleep(LONG)


def survive(group: StatelessGroup, absent: int | None = None) -> str:
    print("ready")
    if group.rank == absent:
        time.sleep(LONG)
    try:
        group.barrier(timeout=LONG)
    except PeerLostError as error:
        return f"lost {error.ranks}"
    return "met"


def leave_a_child(group: StatelessGroup) -> int:
    child = subprocess.Popen(["sleep", str(LONG)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return child.pid


def hang_with_a_child(group: StatelessGroup) -> None:
    print(leave_a_child(group))
    time.sleep(LONG)


def exit_early(group: StatelessGroup) -> None:
    os._exit(0)


def return_a_lock(group: StatelessGroup) -> object:
    return object()


def wait_in_vain(group: StatelessGroup) -> None:
    if group.rank == 0:
        group.recv(1, timeout=0.5)
    else:
        time.sleep(LONG)
