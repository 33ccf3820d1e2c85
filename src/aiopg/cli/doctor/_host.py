"""This host: versions, limits of the system, and what it lets us see of a store's process on it."""

from __future__ import annotations

import os
import platform
import resource
import ssl
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from aiopg import __version__
from aiopg.address import Address
from aiopg.cli.doctor._findings import Finding, fine, note, warning
from aiopg.cli.doctor._listeners import listeners
from aiopg.server.listen import BACKLOG

__all__ = ["look_at_host", "look_at_store_process"]

FILES_LEAST = 4096
"""Fewer open files are worth a word: a store has one for each member, and a program of many groups some too."""

SOMAXCONN = Path("/proc/sys/net/core/somaxconn")


def look_at_host() -> Iterator[Finding]:
    """What does not need a store."""
    yield fine(
        "version",
        f"aiopg {__version__}, Python {platform.python_version()}, {ssl.OPENSSL_VERSION}, {platform.system()} "
        f"{platform.release()}",
    )
    if find_spec("uvloop") is None and sys.platform != "win32":
        yield note("version", "uvloop is not installed: stores and members are slower without it",
                   "pip install 'aiopg-group[fast]'")  # fmt: skip
    if not hasattr(os, "pidfd_open"):
        yield note("processes", "this system has no pidfds: that a process ended is told by its connection, a little "
                   "later")  # fmt: skip
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < FILES_LEAST:
        yield note("files", f"a program started from here may open {soft} files (up to {hard} if it asks)",
                   "aiopg serve asks by itself; for a store in your own program: ulimit -n 65536")  # fmt: skip
    else:
        yield fine("files", f"a program started from here may open {soft} files")
    yield from _look_at_backlog()


def _look_at_backlog() -> Iterator[Finding]:
    try:
        most = int(SOMAXCONN.read_text())
    except (OSError, ValueError):
        return  # no Linux
    if most < BACKLOG:
        yield warning(
            "backlog",
            f"net.core.somaxconn is {most}: where more ranks come at once than that, some of them wait for seconds",
            f"on the store's host: sysctl -w net.core.somaxconn={BACKLOG}",
        )
    else:
        yield fine("backlog", f"net.core.somaxconn is {most}: so many ranks may come at once to a store on this host")


def look_at_store_process(address: Address, pid: int) -> Iterator[Finding]:
    """The process of a store, if it is on this host and ours to look at."""
    if not address.path and not listeners(address.port):
        return
    try:
        limit = _open_files(Path("/proc", str(pid), "limits").read_text())
        open_now = len(os.listdir(f"/proc/{pid}/fd"))
    except (OSError, ValueError):
        return  # of another host, another user's, or no Linux
    if open_now > 0.8 * limit:
        yield warning("files", f"the store's process {pid} has {open_now} of {limit} files open",
                      "start it with more: ulimit -n, or LimitNOFILE= of its unit")  # fmt: skip
    else:
        yield fine("files", f"the store's process {pid} has {open_now} of {limit} files open: one for each member")


def _open_files(limits: str) -> int:
    """The soft limit in a /proc/PID/limits."""
    line = next(line for line in limits.splitlines() if line.startswith("Max open files"))
    soft = line.split()[3]
    return sys.maxsize if soft == "unlimited" else int(soft)
