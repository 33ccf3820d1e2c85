"""An engine in this process, without sockets: `memory://name`. For tests, and for groups within one process.

Everybody who opens the same name in one process meets there, from whatever thread or event loop. The engine goes
when the last one has closed.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import threading
import time
import weakref
from urllib.parse import urlsplit

from aiopg._core.engine import Engine, Events
from aiopg._core.limits import Limits
from aiopg._core.messages import Answer, Command, Event
from aiopg._core.recorder import HAPPENINGS_KEPT, Recorder
from aiopg._core.replies import SessionId
from aiopg.stores._engine_link import EngineLink
from aiopg.stores.base import Capabilities
from aiopg.version import __version__

__all__ = ["MemoryHub", "MemoryLink"]


class MemoryHub:
    """The engine that the stores of one name share."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._engine = Engine(self.limits, {"pid": os.getpid(), "version": __version__})
        self._lock = threading.RLock()  # stores of several event loops may share this hub
        self._now = -math.inf
        self._stores: weakref.WeakValueDictionary[SessionId, MemoryLink] = weakref.WeakValueDictionary()
        self._ids = itertools.count(1)
        self._alarm_at = math.inf
        self._alarm_of: SessionId = None  # whose event loop holds the alarm

    @property
    def is_left(self) -> bool:
        """Whether no link is open: nobody can reach it, but by a link that it is given anew."""
        return not self._stores

    def enter(self, store: MemoryLink) -> int:
        """A session for this store."""
        with self._lock:
            session = next(self._ids)
            self._stores[session] = store
            return session

    def apply(self, session: int, command: Command, now: float) -> None:
        """Carry out a command and post the events to their stores.

        `now` is the time of the event loop that the command comes from, as deadlines are: where a test moves that by
        hand, what waits for nobody expires by it too.
        """
        with self._lock:
            now = self._move_on(now)
            self._expire(now)
            self._post(self._engine.apply(session, command, now))
            self._set_alarm(now)

    def leave(self, session: int, reason: str, now: float) -> None:
        """A link is closed: its members are lost."""
        with self._lock:
            now = self._move_on(now)
            self._stores.pop(session, None)
            self._post(self._engine.end_session(session, reason, now))
            if self._alarm_of == session:
                self._alarm_at = math.inf
            self._set_alarm(now)

    def ring(self, now: float) -> None:
        """Drop what is past its time, and tell those who wait for that."""
        with self._lock:
            now = self._move_on(now)
            self._alarm_at = math.inf
            self._expire(now)
            self._set_alarm(now)

    def _move_on(self, now: float) -> float:
        """Loops count alike, but uvloop's is up to a pass behind the others."""
        if self._now == -math.inf:  # nobody has said yet what the time is
            self._engine.observe(Recorder(HAPPENINGS_KEPT, now, time.time), lambda: len(self._stores))
        self._now = max(self._now, now)
        return self._now

    def _expire(self, now: float) -> None:
        deadline = self._engine.next_deadline()
        if deadline is not None and deadline <= now:
            self._post(self._engine.handle_timer(now))

    def _set_alarm(self, now: float) -> None:
        """Have the event loop of one of the links ring when something expires next."""
        deadline = self._engine.next_deadline()
        if deadline is None or deadline >= self._alarm_at:
            return
        for session, store in self._stores.items():
            if store.ring_in(deadline - now):
                self._alarm_at, self._alarm_of = deadline, session
                return

    def _post(self, events: Events) -> None:
        for session, event in events:
            store = self._stores.get(session)
            if store is not None:
                store.post(event)
                if type(event) is Answer and event.receipt:
                    self._post(self._engine.confirm(session, event.call))


_hubs: weakref.WeakValueDictionary[str, MemoryHub] = weakref.WeakValueDictionary()
_hubs_lock = threading.Lock()


class MemoryLink(EngineLink):
    """A link to an engine in this process. Made by `connect`, or on a hub of one's own."""

    def __init__(self, hub: MemoryHub, url: str = "memory://") -> None:
        super().__init__(self._send, hub.limits.payload_bytes)
        self._hub = hub
        self._url = url
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._alarm: asyncio.TimerHandle | None = None
        self._session = hub.enter(self)

    def __repr__(self) -> str:
        return f"<MemoryLink {self._url} calls={len(self._calls)}>"

    @classmethod
    async def connect(cls, url: str, *, timeout: float, grace: float, **_: object) -> MemoryLink:
        """A link to the engine of that name; the first to ask for a name makes it. Never waits, and has no connection
        that could break and no stranger who could come: timeout, grace, token and TLS mean nothing here.

        Raises:
            ValueError: the URL is not memory://name.
        """
        parts = urlsplit(url)
        if parts.scheme != "memory" or not parts.netloc or parts.path or parts.query:
            raise ValueError(f"a memory store's URL is memory://name, not {url!r}")
        with _hubs_lock:
            hub = _hubs.get(url)
            if hub is None or hub.is_left:  # a link that was closed may hold it until it is collected
                hub = _hubs[url] = MemoryHub()
            return cls(hub, url)

    @property
    def url(self) -> str:
        return self._url

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            engine="memory",
            exactly_once=True,
            survives=(),
            keys=True,
            payload_bytes=self._payload_bytes,
            death_seconds=0.0,
        )

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._alarm is not None:
            self._alarm.cancel()
        self._calls.close()
        self._hub.leave(self._session, "it closed its link", self._loop.time())

    def post(self, event: Event) -> None:
        """Have the event handled on this store's loop; called from any thread, in order."""
        try:
            self._loop.call_soon_threadsafe(self._receive, event)
        except RuntimeError:
            # That loop is closed and nobody reads this event: its members are gone, and the others are to know.
            self._closed = True
            self._hub.leave(self._session, "its event loop was closed", self._loop.time())

    def ring_in(self, seconds: float) -> bool:
        """Have this link's loop ring its hub; called from any thread. False if the loop is closed."""
        try:
            self._loop.call_soon_threadsafe(self._set_alarm, max(seconds, 0))
        except RuntimeError:
            return False
        return True

    def _set_alarm(self, seconds: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()  # the new one is sooner, or that one rang
        if not self._closed:
            self._alarm = self._loop.call_later(seconds, self._ring)

    def _ring(self) -> None:
        self._hub.ring(self._loop.time())

    def _receive(self, event: Event) -> None:
        if not self._closed:
            self._calls.received(event)

    def _send(self, command: Command) -> None:
        self._hub.apply(self._session, command, self._loop.time())
