"""The contestants, by the name that `--contestants` takes.

To add one: write a module with a subclass of `BlockingContestant` or `AwaitableContestant`, and add one line
here.
"""

import importlib
from dataclasses import dataclass

from benchmarks.contestants.base import AwaitableContestant, BlockingContestant


@dataclass(frozen=True)
class Entry:
    """How to find a contestant and where it runs."""

    label: str
    """Its name in the table."""
    target: str
    """`module:class` below this package; imported only in the rank processes."""
    peers: tuple[str, ...] = ()
    """What `benchmarks.peers` must fetch for it; none means that it runs under the current interpreter."""


ENTRIES = {
    "vllm": Entry("vLLM StatelessProcessGroup", "vllm_group:VllmGroup", ("venv", "vllm")),
    "tcpstore": Entry("torch TCPStore", "tcp_store:TcpStore", ("venv",)),
    "aiopg-uvloop": Entry("aiopg (uvloop)", "aiopg_async:OnUvloop"),
    "aiopg-asyncio": Entry("aiopg (asyncio)", "aiopg_async:OnAsyncio"),
    "aiopg-sync": Entry("aiopg sync", "aiopg_sync:Sync"),
}


def load(name: str) -> BlockingContestant | AwaitableContestant:
    """Import and make the named contestant."""
    module, _, kind = ENTRIES[name].target.partition(":")
    made = getattr(importlib.import_module(f"{__name__}.{module}"), kind)()
    if not isinstance(made, BlockingContestant | AwaitableContestant):
        raise TypeError(f"{ENTRIES[name].target} is no contestant")
    return made
