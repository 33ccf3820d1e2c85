"""aiopg's awaitable group, on uvloop and on asyncio's own loop.

The store runs where `create()` puts it by default: in a child process of rank 0.
"""

import asyncio
from importlib.metadata import version

import aiopg
from benchmarks.contestants.base import FORM_SECONDS, AwaitableContestant, AwaitableGroup, Seat


class OnAsyncio(AwaitableContestant):
    def __init__(self) -> None:
        self._group: aiopg.AsyncStatelessGroup | None = None

    def versions(self) -> dict[str, str]:
        return {"aiopg": version("aiopg-group"), "msgpack": version("msgpack")}

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
        return self._group

    async def close(self) -> None:
        if self._group is not None:
            await self._group.close()
            self._group = None


def _uvloop() -> asyncio.AbstractEventLoop:
    import uvloop  # only the contestant that is measured on it needs it

    return uvloop.new_event_loop()


class OnUvloop(OnAsyncio):
    loop_factory = staticmethod(_uvloop)

    def versions(self) -> dict[str, str]:
        return super().versions() | {"uvloop": version("uvloop")}
