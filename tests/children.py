"""The children of a process, as the system knows them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")


def children(pid: int) -> list[int]:
    """Process ids of all children that were not waited for."""
    return [child for child, fields in _stats() if int(fields[1]) == pid]


def gone(pid: int) -> bool:
    """Whether a process runs no more; a zombie does not."""
    return all(fields[0] in "ZX" for process, fields in _stats() if process == pid)


def _stats() -> Iterator[tuple[int, list[str]]]:
    """All processes, and of each what is in its /proc/PID/stat behind its name: the state, its parent, ..."""
    for process in PROC.iterdir():
        if process.name.isdecimal():
            try:
                stat = (process / "stat").read_text()
            except OSError:
                continue  # it has ended
            yield int(process.name), stat.rpartition(")")[2].split()
