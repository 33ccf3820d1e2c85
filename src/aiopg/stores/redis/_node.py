"""One Redis server as a link uses it: a connection for calls, one to hear what is published, made anew when one breaks.

Calls go out in the order in which they were asked for, as many at once as there are (a pipeline), and are answered in
that order; each belongs to a `Caller`, a room or a single question. When a connection breaks, both are made anew: each
caller that had no answer is told so (`cut`), and each room hears its channel again before it goes on.
"""

from __future__ import annotations

import asyncio
import logging
import random
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from redis.exceptions import ResponseError

from aiopg._core.frames import Buffer
from aiopg.errors import AiopgError, StoreLostError, StoreUnreachableError
from aiopg.stores.redis._address import Host
from aiopg.stores.redis._dial import BROKEN, Dialer, Wire, said, send

__all__ = ["Caller", "Listener", "Node", "pack"]

logger = logging.getLogger("aiopg.store")

PAUSE_LEAST, PAUSE_MOST = 0.02, 0.5
"""Seconds between two attempts to connect, growing."""

BYTES_A_SECOND = 1024 * 1024
"""A connection that moves less than so many is not waited for."""

JOIN_BELOW = 16 * 1024
"""Longer arguments are written as they are, not copied into one buffer with the others."""


class Caller(ABC):
    """Who makes calls at a server."""

    @abstractmethod
    def compose(self) -> tuple[list[Buffer], int] | None:
        """The call to send now, in buffers, and its bytes; None if there is nothing to say after all."""

    @abstractmethod
    def answered(self, reply: Any) -> None:
        """The answer; an error of the server is a `ResponseError`."""

    @abstractmethod
    def cut(self) -> None:
        """The connection broke before there was an answer: whether the call took effect is not known."""


class Listener(ABC):
    """Who hears a channel."""

    channel: bytes

    @abstractmethod
    def heard(self, message: bytes) -> None:
        """Something was published."""

    @abstractmethod
    def tuned(self) -> None:
        """From now on the channel is heard; also anew, when something may have been missed."""

    @abstractmethod
    def detuned(self) -> None:
        """The channel is not heard for now."""


class Node:
    """A server. `run` is its one task."""

    def __init__(
        self,
        dialer: Dialer,
        locate: Callable[[], Awaitable[Host | None]],
        grace: float,
        on_lost: Callable[[AiopgError], None],
        on_down: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`locate`: awaited before each attempt to connect, gives the host. `grace`: as long it is tried to come back;
        then `on_lost` is called. `on_down`: awaited when an attempt failed; listeners may go elsewhere."""
        self._dialer = dialer
        self.locate = locate
        self._grace = grace
        self._on_lost = on_lost
        self._on_down = on_down
        self._loop = asyncio.get_running_loop()
        self._ready: deque[Caller] = deque()
        self._unanswered: deque[tuple[Caller, float]] = deque()
        """With the time until which an answer is waited for."""
        self._busy_until = 0.0
        self._heard_at = 0.0
        self._listeners: dict[bytes, Listener] = {}
        self._to_tune: dict[bytes, bool] = {}
        self._wires: tuple[Wire, Wire] | None = None
        self._wake: asyncio.Future[None] | None = None
        self._limit: asyncio.Timeout | None = None
        self.where: Host | None = None
        """Its host, when it was last connected."""
        self._over = False

    def __repr__(self) -> str:
        state = "connected" if self._wires else "not connected"
        return f"<Node {self.where} {state} rooms={len(self._listeners)} unanswered={len(self._unanswered)}>"

    @property
    def is_connected(self) -> bool:
        """Whether calls go out now."""
        return self._wires is not None

    @property
    def listeners(self) -> list[Listener]:
        """Who is here."""
        return list(self._listeners.values())

    def call(self, caller: Caller) -> None:
        """Have the caller asked for its call as soon as one can be sent. Only once until that."""
        if self._over:
            self._loop.call_soon(caller.cut)
            return
        self._ready.append(caller)
        self._rouse()

    def enter(self, listener: Listener) -> None:
        """Hear a channel."""
        self._listeners[listener.channel] = listener
        self._to_tune[listener.channel] = True
        self._rouse()

    def leave(self, listener: Listener) -> None:
        """Hear it no more."""
        if self._listeners.pop(listener.channel, None) is not None:
            self._to_tune[listener.channel] = False
            self._rouse()

    def renew(self) -> None:
        """Make the connections anew: this server is not what it was."""
        if self._limit is not None:
            self._limit.reschedule(self._loop.time())

    # -------------------------------------------------------------------------------------------------- connecting

    async def connect(self, deadline: float) -> None:
        """The first connection, tried until `deadline` (loop time). Raises one of `BROKEN`, `AiopgError`."""
        pause = PAUSE_LEAST
        while True:
            try:
                self._wires = await self._dial()
                return
            except StoreUnreachableError:
                raise
            except (*BROKEN, ResponseError):
                if self._loop.time() + pause >= deadline:
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, PAUSE_MOST)

    async def run(self) -> None:
        """Keep the connections up and carry the calls, until cancelled or until the server is lost."""
        try:
            while not self._over and (self._wires is not None or await self._come_back()):
                try:
                    await self._carry()
                finally:
                    await self._part()
        finally:
            await self.close()

    def stop(self) -> None:
        """Do not connect again. Beside cancelling `run`: a cancellation that meets an error may be lost to that."""
        self._over = True

    async def close(self) -> None:
        """Make no calls any more. To be called where `run` may never have begun."""
        self.stop()
        await self._part()
        while self._ready:
            self._ready.popleft().cut()

    async def _come_back(self) -> bool:
        """Connect again. False if the server is lost."""
        pause, deadline = PAUSE_LEAST, self._loop.time() + self._grace
        while True:
            try:
                self._wires = await self._dial()
                return True
            except (*BROKEN, ResponseError) as error:
                met = said(error)
            except AiopgError as error:
                met = str(error)
            if self._on_down is not None:
                await self._on_down()
            if self._over or (not self._listeners and self._on_down is not None):
                return False
            if self._loop.time() + pause >= deadline:
                told = f"it was not reached for {self._grace:g} s: {met}"
                self._on_lost(StoreLostError(str(self._dialer.address), told))
                return False
            await asyncio.sleep(pause * (0.75 + random.random() / 2))
            pause = min(pause * 2, PAUSE_MOST)

    async def _dial(self) -> tuple[Wire, Wire]:
        self.where = await self.locate()
        talk = await self._dialer.open(self.where)
        try:
            await self._dialer.examine(talk)
            return talk, await self._dialer.open(self.where)
        except BaseException:
            await talk.disconnect(nowait=True)
            raise

    async def _carry(self) -> None:
        """Until a connection breaks."""
        assert self._wires is not None
        talk, hear = self._wires
        self._to_tune = dict.fromkeys(self._listeners, True)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._write(talk, hear))
                group.create_task(self._hear(hear))
                group.create_task(self._read(talk))
                group.create_task(self._watch(hear))
        except* (*BROKEN, ResponseError) as errors:
            why = said(errors.exceptions[0])
            extra = {"address": self.where, "reason": why}
            logger.info("the connection to Redis at %s broke: %s", self.where, why, extra=extra)

    async def _part(self) -> None:
        wires, self._wires = self._wires, None
        for wire in wires or ():
            await wire.disconnect(nowait=True)
        unanswered, self._unanswered = self._unanswered, deque()
        for listener in self._listeners.values():
            listener.detuned()
        for caller, _ in unanswered:
            caller.cut()

    # ----------------------------------------------------------------------------------------------------- carrying

    async def _write(self, talk: Wire, hear: Wire) -> None:
        while True:
            if self._to_tune:
                await self._tune(hear)
            if not self._ready:
                self._wake = self._loop.create_future()
                await self._wake
                continue
            buffers: list[Buffer] = []
            size, now = 0, self._loop.time()
            while self._ready and size < JOIN_BELOW:
                caller = self._ready.popleft()
                composed = caller.compose()
                if composed is not None:
                    buffers += composed[0]
                    size += composed[1]
                    self._busy_until = max(self._busy_until, now) + composed[1] / BYTES_A_SECOND
                    self._unanswered.append((caller, self._busy_until + self._patience))
            if buffers:
                await send(talk, buffers if size > JOIN_BELOW else b"".join(buffers))

    async def _tune(self, hear: Wire) -> None:
        wanted, self._to_tune = self._to_tune, {}
        for command, hears in ((b"SUBSCRIBE", True), (b"UNSUBSCRIBE", False)):
            channels = [channel for channel, wants in wanted.items() if wants is hears]
            if channels:
                await send(hear, hear.pack_command(command, *channels))

    async def _hear(self, hear: Wire) -> None:
        while True:
            told = await hear.read_response()
            self._heard_at = self._loop.time()
            if type(told) is not list or len(told) < 3:
                continue  # the answer to a ping
            kind, channel, message = told
            listener = self._listeners.get(channel)
            if listener is None:
                continue
            if kind == b"message":
                listener.heard(message)
            elif kind == b"subscribe":
                listener.tuned()

    async def _read(self, talk: Wire) -> None:
        async with asyncio.timeout(None) as self._limit:
            while True:
                try:
                    reply = await talk.read_response()
                except ResponseError as error:
                    reply = error
                caller, _ = self._unanswered.popleft()
                caller.answered(reply)

    def _rouse(self) -> None:
        wake = self._wake
        if wake is not None and not wake.done():
            wake.set_result(None)

    # ----------------------------------------------------------------------------------------------------- watching

    @property
    def _patience(self) -> float:
        """Seconds for which an answer is waited for; then the connection is taken for dead."""
        return max(self._grace / 2, 1.0)

    async def _watch(self, hear: Wire) -> None:
        """Find out when a connection is dead and the system does not know it."""
        self._busy_until, asked_at = 0.0, 0.0
        while True:
            wakes = self._loop.time() + self._patience / 2
            await asyncio.sleep(self._patience / 2)
            now = self._loop.time()
            if now > wakes + self._patience / 4:
                continue  # this loop was held up, and what has come meanwhile is not read yet
            if self._unanswered and self._unanswered[0][1] < now:
                raise TimeoutError("a call had no answer")
            if self._heard_at < asked_at < now - self._patience:
                raise TimeoutError("a ping had no answer")
            if self._heard_at >= asked_at:
                asked_at = now
                await send(hear, hear.pack_command(b"PING"))


def pack(arguments: Sequence[Sequence[Buffer]]) -> tuple[list[Buffer], int]:
    """A command of these arguments, each of one or more pieces, as the protocol has it; and its bytes."""
    buffers: list[Buffer] = [b"*%d\r\n" % len(arguments)]
    total = 0
    for pieces in arguments:
        size = sum(map(len, pieces))
        buffers.append(b"$%d\r\n" % size)
        buffers += pieces
        buffers.append(b"\r\n")
        total += size + 16
    return buffers, total
