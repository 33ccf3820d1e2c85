"""A store whose far end is an engine: on the other side of a connection, or right here in memory."""

from __future__ import annotations

import asyncio
import math
import os
import socket
from collections.abc import Callable

from aiopg._core.key_messages import STORE
from aiopg._core.messages import Command, Join, Status, Vacate, unpack_value
from aiopg.stores._calls import Calls, DeadlinePassedError, Gate, Pending
from aiopg.stores._engine_keys import EngineKeys
from aiopg.stores._engine_member import EngineMember
from aiopg.stores.base import FACTS_SECONDS, Call, Member, StoreLink
from aiopg.stores.keys import Keys

__all__ = ["EngineLink"]


class EngineLink(StoreLink):
    """The verbs of `StoreLink` as the engine's commands; subclasses carry the commands there and the events back."""

    def __init__(self, send: Callable[[Command], object], payload_bytes: int, gate: Gate | None = None) -> None:
        self._calls = Calls(send, gate)
        self._payload_bytes = payload_bytes
        self._last_seat = 0

    async def join(self, call: Call, world_size: int, *, ttl: float, takeover: bool = False) -> Member:
        self._last_seat += 1
        seat = self._last_seat
        holder = f"pid {os.getpid()} on {socket.gethostname()}"
        join = self._calls.submit(Join, seat, call.group, call.rank, world_size, float(ttl), holder, takeover)
        try:
            await join.wait(call, self._calls.inquire)
        except asyncio.CancelledError:
            self._vacate(join, seat)
            raise
        except DeadlinePassedError:
            await self._learn_facts(call, join, seat)
        incarnation: int = unpack_value(join.result())
        return EngineMember(self._calls, seat, call.rank, world_size, incarnation)

    async def _learn_facts(self, call: Call, join: Pending, seat: int) -> None:
        """After the deadline: take the join back and hear who is missing. Returns if the group formed in time."""
        self._calls.cancel(join)
        try:
            await join.wait_until(call.deadline + FACTS_SECONDS)
        except asyncio.CancelledError:
            self._vacate(join, seat)
            raise
        except DeadlinePassedError:
            self._vacate(join, seat)
            raise call.timed_out(None, None) from None
        facts = join.facts()
        if facts is not None:
            raise call.withdrawn(*facts)

    def _vacate(self, join: Pending, seat: int) -> None:
        """Take a join back that nobody waits for any more, answered or not."""
        self._calls.recall(join)
        if not self._calls.is_lost:
            self._calls.submit(Vacate, seat)

    def keys(self, member: Member | None = None) -> Keys:
        if member is None:
            return EngineKeys(self._calls, STORE)
        if not isinstance(member, EngineMember):
            raise TypeError(f"not a member of this link: {member!r}")
        return EngineKeys(self._calls, member.seat)

    async def status(self) -> dict[str, object]:
        status = self._calls.submit(Status)
        await status.wait_until(math.inf)
        described: dict[str, object] = unpack_value(status.result())
        return described
