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
import weakref
from urllib.parse import urlsplit

from aiopg._core.engine import Engine, Events
from aiopg._core.limits import Limits
from aiopg._core.messages import Answer, Command, Event
from aiopg._core.replies import SessionId
from aiopg.errors import GroupClosedError
from aiopg.stores._engine_store import EngineStore
from aiopg.stores.base import Capabilities

__all__ = ["MemoryHub", "MemoryStore"]


class MemoryHub:
    """The engine that the stores of one name share."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._engine = Engine(self.limits, {"pid": os.getpid()})
        self._lock = threading.RLock()  # stores of several event loops may share this hub
        self._now = -math.inf
        self._stores: weakref.WeakValueDictionary[SessionId, MemoryStore] = weakref.WeakValueDictionary()
        self._ids = itertools.count(1)

    def enter(self, store: MemoryStore) -> int:
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
            # Loops count alike, but uvloop's is up to a pass behind the others.
            now = self._now = max(self._now, now)
            deadline = self._engine.next_deadline()
            if deadline is not None and deadline <= now:
                self._post(self._engine.handle_timer(now))
            self._post(self._engine.apply(session, command, now))

    def leave(self, session: int, reason: str) -> None:
        """A store is closed: its members are lost."""
        with self._lock:
            self._stores.pop(session, None)
            self._post(self._engine.end_session(session, reason))

    def _post(self, events: Events) -> None:
        for session, event in events:
            store = self._stores.get(session)
            if store is not None:
                store.post(event)
                if type(event) is Answer and event.receipt:
                    self._post(self._engine.confirm(session, event.call))


_hubs: weakref.WeakValueDictionary[str, MemoryHub] = weakref.WeakValueDictionary()
_hubs_lock = threading.Lock()


class MemoryStore(EngineStore):
    """A link to an engine in this process. Made by `connect`, or on a hub of one's own."""

    def __init__(self, hub: MemoryHub, url: str = "memory://") -> None:
        super().__init__(self._send, hub.limits.payload_bytes)
        self._hub = hub
        self._url = url
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._session = hub.enter(self)

    def __repr__(self) -> str:
        return f"<MemoryStore {self._url} calls={len(self._calls)}>"

    @classmethod
    async def connect(cls, url: str, *, timeout: float, grace: float, **_: object) -> MemoryStore:
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
            if hub is None:
                hub = _hubs[url] = MemoryHub()
            return cls(hub, url)

    @property
    def url(self) -> str:
        return self._url

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(exactly_once=True, survives_restart=False, keys=False, payload_bytes=self._payload_bytes)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._calls.close(GroupClosedError("the link to the store was closed"))
        self._hub.leave(self._session, "it closed its link")

    def post(self, event: Event) -> None:
        """Have the event handled on this store's loop; called from any thread, in order."""
        try:
            self._loop.call_soon_threadsafe(self._receive, event)
        except RuntimeError:
            # That loop is closed and nobody reads this event: its members are gone, and the others are to know.
            self._closed = True
            self._hub.leave(self._session, "its event loop was closed")

    def _receive(self, event: Event) -> None:
        if not self._closed:
            self._calls.received(event)

    def _send(self, command: Command) -> None:
        self._hub.apply(self._session, command, self._loop.time())
