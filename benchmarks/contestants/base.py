"""What a contestant is: one rank's way to a group, in a blocking and in an awaitable shape.

A contestant says how to form its group and hands out an object with five methods, and a sixth, `all_reduce`, where
its entry in `benchmarks.contestants` says so. What is done with those methods, and when the clock runs, is the same
for all of them and lives in `benchmarks.operations`.
"""

import asyncio
import socket
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from benchmarks import payload

FORM_SECONDS = 60
"""How long a group may take to form; also the store timeout given to contestants that have one."""

Leave: TypeAlias = Callable[[], object]
"""Leaves a group that `join` formed."""
LeaveAsync: TypeAlias = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Seat:
    """One rank's place in a group that is about to form."""

    host: str
    port: int
    rank: int
    world_size: int
    listener: socket.socket | None
    """The bound and listening socket; rank 0 has it, because rank 0 hosts the store."""


class BlockingGroup(Protocol):
    def barrier(self) -> object: ...
    def all_gather(self, obj: Any, /) -> list[Any]: ...
    def broadcast(self, obj: Any, src: int, /) -> Any: ...
    def send(self, obj: Any, dst: int, /) -> object: ...
    def recv(self, src: int, /) -> Any: ...


class AwaitableGroup(Protocol):
    async def barrier(self) -> object: ...
    async def all_gather(self, obj: Any, /) -> list[Any]: ...
    async def broadcast(self, obj: Any, src: int, /) -> Any: ...
    async def send(self, obj: Any, dst: int, /) -> object: ...
    async def recv(self, src: int, /) -> Any: ...


class Contestant:
    """What both shapes share."""

    def payload(self, rank: int) -> Any:
        """Return what rank sends: the object itself, unless the contestant only moves bytes."""
        return payload.metadata(rank)

    def numbers(self, rank: int) -> Any:
        """Return what rank gives to an all_reduce, in the form that the contestant reduces."""
        return payload.numbers(rank)

    def versions(self) -> dict[str, str]:
        """Return the versions of the packages under test, for the report."""
        return {}


class BlockingContestant(Contestant, ABC):
    """A contestant whose calls block the thread."""

    @abstractmethod
    def form(self, seat: Seat) -> BlockingGroup: ...

    @abstractmethod
    def close(self) -> None: ...

    def join(self, seat: Seat) -> Leave:
        """Form one more group of the same ranks beside the one that runs; return when every rank has joined.

        Only called where the contestant's entry has `join` among its operations.
        """
        raise NotImplementedError

    def tidy(self) -> None:
        """Remove what the last block left in the store; runs before a block, with the clock off.

        Most contestants leave nothing that they could remove.
        """


class AwaitableContestant(Contestant, ABC):
    """A contestant for an event loop."""

    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    """Makes the loop that the rank runs on; None is asyncio's own."""

    @abstractmethod
    async def form(self, seat: Seat) -> AwaitableGroup: ...

    @abstractmethod
    async def close(self) -> None: ...

    async def join(self, seat: Seat) -> LeaveAsync:
        """As that of `BlockingContestant`."""
        raise NotImplementedError
