"""File descriptors: a store has one for each connection, and strangers must not take those that members need."""

from __future__ import annotations

import contextlib
import resource

__all__ = ["for_strangers", "raise_limit"]


def raise_limit() -> None:
    """Let this process have as many as the system allows it. For a process that is a store and nothing else.

    Many systems begin with 1,024, for the sake of programs that use select(2).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # A system may allow less than it says (macOS does); then it stays as it is.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def for_strangers() -> int:
    """As many of them as strangers may have: half of what this process may open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(soft // 2, 1)
