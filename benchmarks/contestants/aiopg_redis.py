"""aiopg's awaitable group over a Redis, on uvloop. The server is a child process of rank 0, and saves nothing."""

import itertools
from importlib.metadata import version

import aiopg
from benchmarks import peers
from benchmarks.contestants.aiopg_async import OnUvloop
from benchmarks.contestants.base import FORM_SECONDS, AwaitableGroup, Seat
from benchmarks.contestants.redis_server import RedisServer


class OverRedis(OnUvloop):
    def __init__(self) -> None:
        super().__init__()
        self._server: RedisServer | None = None

    def versions(self) -> dict[str, str]:
        return super().versions() | {"redis-py": version("redis"), "redis-server": peers.redis_version()}

    async def form(self, seat: Seat) -> AwaitableGroup:
        self._server = RedisServer(seat)
        self._url = f"redis://{seat.host}:{seat.port}"
        self._joined = itertools.count()
        self._group = await aiopg.AsyncStatelessGroup.connect(
            self._url, rank=seat.rank, world_size=seat.world_size, store_timeout=FORM_SECONDS, group="bench"
        )
        return self._group

    async def close(self) -> None:
        await super().close()
        if self._server is not None:
            self._server.stop()
            self._server = None
