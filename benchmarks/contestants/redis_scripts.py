"""Redis with server-side scripts, as one would write a group on it: every call is one round trip of a rank.

barrier     a script counts arrivals; the last one pushes an element on a list of each rank; each rank pops its own
all_gather  a script keeps what each rank gave; the last one pushes all of it, joined, on a list of each rank
broadcast   a script pushes the object on a list of each other rank; each pops its own
message     `RPUSH` by the sender, `BLPOP` by the receiver

The script's call and the pop go out together in one pipeline. redis-py is the client, without its C parser; objects
are pickled on each call. The server is a child process of rank 0 that saves nothing to disk. Nothing is left behind.
"""

import io
import pickle
import time
from typing import Any

import redis

from benchmarks import peers
from benchmarks.contestants.base import FORM_SECONDS, BlockingContestant, Seat
from benchmarks.contestants.redis_server import RedisServer

BARRIER = """
if redis.call('INCR', 'arrived') == tonumber(ARGV[1]) then
    redis.call('DEL', 'arrived')
    for rank = 0, ARGV[1] - 1 do redis.call('RPUSH', 'barrier' .. rank, '') end
end
"""
GATHER = """
redis.call('HSET', 'given', ARGV[2], ARGV[3])
if redis.call('HLEN', 'given') == tonumber(ARGV[1]) then
    local parts = {}
    for rank = 0, ARGV[1] - 1 do parts[rank + 1] = redis.call('HGET', 'given', rank) end
    redis.call('DEL', 'given')
    local all = table.concat(parts)
    for rank = 0, ARGV[1] - 1 do redis.call('RPUSH', 'gather' .. rank, all) end
end
"""
BROADCAST = """
for rank = 0, ARGV[1] - 1 do
    if rank ~= tonumber(ARGV[2]) then redis.call('RPUSH', 'broadcast' .. rank, ARGV[3]) end
end
"""


class _Calls:
    """The operations of one rank."""

    def __init__(self, client: Any, rank: int, world_size: int) -> None:
        self._client = client
        self._rank = rank
        self._world_size = world_size
        self._barrier, self._gather, self._broadcast = map(client.script_load, (BARRIER, GATHER, BROADCAST))

    def _script_and_pop(self, script: str, popped: str, *arguments: Any) -> bytes:
        pipeline = self._client.pipeline(transaction=False)
        pipeline.evalsha(script, 0, self._world_size, *arguments)
        pipeline.blpop(f"{popped}{self._rank}")
        data: bytes = pipeline.execute()[1][1]
        return data

    def _pop(self, name: str) -> Any:
        return pickle.loads(self._client.blpop(name)[1])

    def barrier(self) -> None:
        self._script_and_pop(self._barrier, "barrier")

    def all_gather(self, obj: Any) -> list[Any]:
        joined = io.BytesIO(self._script_and_pop(self._gather, "gather", self._rank, pickle.dumps(obj)))
        return [pickle.load(joined) for _ in range(self._world_size)]

    def broadcast(self, obj: Any, src: int) -> Any:
        if self._rank != src:
            return self._pop(f"broadcast{self._rank}")
        self._client.evalsha(self._broadcast, 0, self._world_size, src, pickle.dumps(obj))
        return obj

    def send(self, obj: Any, dst: int) -> None:
        self._client.rpush(f"message{self._rank}/{dst}", pickle.dumps(obj))

    def recv(self, src: int) -> Any:
        return self._pop(f"message{src}/{self._rank}")


class Redis(BlockingContestant):
    def __init__(self) -> None:
        self._client: Any = None
        self._server: RedisServer | None = None

    def versions(self) -> dict[str, str]:
        return {"redis-py": redis.__version__, "redis-server": peers.redis_version()}

    def form(self, seat: Seat) -> _Calls:
        self._server = RedisServer(seat)
        _await_answer(seat)
        self._client = redis.Redis(seat.host, seat.port)
        return _Calls(self._client, seat.rank, seat.world_size)

    def close(self) -> None:
        self._client.close()
        self._client = None
        if self._server is not None:
            self._server.stop()
            self._server = None


def _await_answer(seat: Seat) -> None:
    """Wait until the server takes connections: it tells nobody when it does."""
    deadline = time.monotonic() + FORM_SECONDS
    while True:
        try:
            with redis.Redis(seat.host, seat.port) as client:
                client.ping()
            return
        except redis.ConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
