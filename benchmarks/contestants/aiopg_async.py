"""aiopg's awaitable group, on uvloop and on asyncio's own loop.

The store runs where `create()` puts it by default: in a child process of rank 0. `join` forms one more group on that
store, over connections of its own.
"""

import asyncio
import itertools
from importlib.metadata import version

import numpy

import aiopg
from benchmarks import payload
from benchmarks.contestants.base import FORM_SECONDS, AwaitableContestant, AwaitableGroup, LeaveAsync, Seat


class OnAsyncio(AwaitableContestant):
    def __init__(self) -> None:
        self._group: aiopg.AsyncStatelessGroup | None = None
        self._url = ""
        self._joined = itertools.count()

    def versions(self) -> dict[str, str]:
        return {"aiopg": version("aiopg-group"), "msgpack": version("msgpack")}

    def numbers(self, rank: int) -> numpy.ndarray:
        return numpy.array(payload.numbers(rank))

    async def form(self, seat: Seat) -> AwaitableGroup:
        self._group = await aiopg.AsyncStatelessGroup.create(
            seat.host,
            seat.port,
            seat.rank,
            seat.world_size,
            store_timeout=FORM_SECONDS,
            group="bench",
            listen_socket=seat.listener,
        )
        self._joined = itertools.count()  # anew: not every rank was in the group before
        self._url = f"aiopg://{seat.host}:{seat.port}"
        return self._group

    async def join(self, seat: Seat) -> LeaveAsync:
        if seat.listener is not None:
            seat.listener.close()  # the store that runs has a port
        name = f"join{next(self._joined)}"
        made = await aiopg.AsyncStatelessGroup.connect(
            self._url, rank=seat.rank, world_size=seat.world_size, group=name, store_timeout=FORM_SECONDS
        )
        return made.close

    async def close(self) -> None:
        if self._group is not None:
            await self._group.close()
            self._group = None


def new_uvloop() -> asyncio.AbstractEventLoop:
    import uvloop  # only the contestant that is measured on it needs it

    return uvloop.new_event_loop()


class OnUvloop(OnAsyncio):
    loop_factory = staticmethod(new_uvloop)

    def versions(self) -> dict[str, str]:
        return super().versions() | {"uvloop": version("uvloop")}
