"""The children of a process, and when a process ends, as the system knows it."""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")


def children(pid: int) -> list[int]:
    """Process ids of all children that were not waited for, but that which Python's multiprocessing keeps for good."""
    return [child for child, fields in _stats() if int(fields[1]) == pid and not _is_tracker(child)]


async def child_of(pid: int, seconds: float) -> int:
    """The one child of a process, as soon as it is there. Raises `TimeoutError`."""
    async with asyncio.timeout(seconds):
        while not (found := await asyncio.to_thread(children, pid)):  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.001)
    (child,) = found
    return child


def has_ended(pid: int, seconds: float = 5) -> bool:
    """Whether a process is gone, or goes within so many seconds."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        readable, _, _ = select.select([fd], [], [], seconds)
        return bool(readable)
    finally:
        os.close(fd)


def gone(pid: int) -> bool:
    """Whether a process runs no more; a zombie does not."""
    return all(fields[0] in "ZX" for process, fields in _stats() if process == pid)


def _is_tracker(pid: int) -> bool:
    try:
        return b"multiprocessing.resource_tracker" in (PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return False  # it has ended


def _stats() -> Iterator[tuple[int, list[str]]]:
    """All processes, and of each what is in its /proc/PID/stat behind its name: the state, its parent, ..."""
    for process in PROC.iterdir():
        if process.name.isdecimal():
            try:
                stat = (process / "stat").read_text()
            except OSError:
                continue  # it has ended
            yield int(process.name), stat.rpartition(")")[2].split()
