"""Whether this process is a forked child of the one that made something: its connections are the parent's."""

from __future__ import annotations

import os

__all__: list[str] = []

count = 0
"""How many forks lie between this process and the one that imported this module. To be read as `forks.count`."""


def _count_fork() -> None:
    global count  # os.getpid() is a system call, and every call of a group asks whether it is in a forked child
    count += 1


os.register_at_fork(after_in_child=_count_fork)
