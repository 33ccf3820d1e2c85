"""The contestants, by the name that `--contestants` takes.

To add one: write a module with a subclass of `BlockingContestant` or `AwaitableContestant`, and add one entry here.
"""

import importlib
from dataclasses import dataclass
from types import ModuleType

from benchmarks.contestants.base import AwaitableContestant, BlockingContestant

BASIC = ("barrier", "all_gather", "broadcast", "message")
ALL = (*BASIC, "all_reduce", "join")


@dataclass(frozen=True)
class Entry:
    """How to find a contestant and where it runs."""

    label: str
    """Its name in the table."""
    target: str
    """`module:class` below this package; imported only in the rank processes."""
    peers: tuple[str, ...] = ()
    """What `benchmarks.peers` must fetch or build for it."""
    operations: tuple[str, ...] = ALL
    """What it can do."""
    needs: str | None = None
    """A program that must be installed, because it cannot be fetched by pip."""
    foreign: bool = True
    """Whether it runs in the peers' environment; otherwise under the current interpreter."""
    mpirun: bool = False
    """Whether `mpirun` starts its processes; otherwise they are forked from one that has imported everything."""
    rank_mebibytes: int = 20
    """What one rank takes that it does not share with the others, for telling what fits into the memory."""


ENTRIES = {
    "vllm": Entry("vLLM StatelessProcessGroup", "vllm_group:VllmGroup", ("torch", "vllm")),
    "tcpstore": Entry("torch TCPStore", "tcp_store:TcpStore", ("torch",), (*BASIC, "join")),
    "gloo": Entry("torch gloo", "gloo:Gloo", ("torch",), rank_mebibytes=60),
    "mpi": Entry(
        "mpi4py, Open MPI over TCP", "mpi:OpenMpi", ("mpi4py",), needs="mpirun", mpirun=True, rank_mebibytes=60
    ),
    "redis": Entry("Redis with scripts", "redis_scripts:Redis", ("redis",), BASIC, needs="redis-server"),
    "aiopg-uvloop": Entry("aiopg (uvloop)", "aiopg_async:OnUvloop", foreign=False),
    "aiopg-asyncio": Entry("aiopg (asyncio)", "aiopg_async:OnAsyncio", foreign=False),
    "aiopg-sync": Entry("aiopg sync", "aiopg_sync:Sync", foreign=False),
    "aiopg-redis": Entry("aiopg over Redis (uvloop)", "aiopg_redis:OverRedis", needs="redis-server", foreign=False),
    "floor-uvloop": Entry(
        "floor: its members on uvloop",
        "floor_uvloop:OnUvloop",
        ("floor",),
        ("barrier", "all_gather", "message"),
        needs="cc",
        foreign=False,
    ),
    "floor": Entry("floor: a star in C", "floor:Floor", ("floor",), BASIC, needs="cc", foreign=False),
}


def module(name: str) -> ModuleType:
    """Import the module of the named contestant."""
    return importlib.import_module(f"{__name__}.{ENTRIES[name].target.partition(':')[0]}")


def load(name: str) -> BlockingContestant | AwaitableContestant:
    """Make the named contestant."""
    made = getattr(module(name), ENTRIES[name].target.partition(":")[2])()
    if not isinstance(made, BlockingContestant | AwaitableContestant):
        raise TypeError(f"{ENTRIES[name].target} is no contestant")
    return made
