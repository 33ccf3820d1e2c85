"""A network in memory for `SimLoop`: connections that deliver as TCP does at its worst, and break on demand.

Theory of operation. A connection is two endpoints (the transports that protocols see) and a pipe each way. A write goes
to the endpoint's write buffer; what the pipe has room for moves on at once, as into a kernel: from there it arrives, in
order, whatever becomes of the endpoint that wrote it, unless a fault says otherwise. A pipe holds at most `window`
bytes that are under way or unread. It hands over a random fragment (1 byte to all) after a random delay, then the next.

How an end of a connection looks from the other end:

- `close`: what was written, then the end of the stream. Bytes that reach a closed endpoint are answered by a reset.
- `abort`: a random prefix of what is under way, then a reset. A process that is killed: see `SimNetwork.kill`.
- A reset is told when the bytes before it are read; an endpoint that does not read loses them.

Everything random is drawn from the one `Random`, and nothing is iterated that has no order. So one seed is one run, and
`trace` is its hash: of every byte delivered, when, in which pieces.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import math
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import TypeVar

from tests.simulation.loop import SimLoop
from tests.simulation.transport import Connection, SimTransport, Span

__all__ = ["Connection", "Listener", "SimNetwork", "SimTransport"]

P = TypeVar("P", bound=asyncio.BaseProtocol)

AT_ONCE = 0.25
"""Share of delays that are 0."""

WHOLE = 0.5
"""Share of fragments that are all there is."""


class Listener:
    """An address that accepts connections until closed."""

    def __init__(
        self, network: SimNetwork, address: str, factory: Callable[[], asyncio.BaseProtocol], owner: str
    ) -> None:
        self._network = network
        self.address, self.factory, self.owner = address, factory, owner

    def close(self) -> None:
        """Accept no more; what was accepted goes on. Closing twice is fine."""
        self._network.stop_listening(self)


class SimNetwork:
    """All connections of one simulated cluster, and what goes wrong with them.

    Args:
        loop: the loop on which everything runs.
        random: where every choice comes from.
        latency: least and largest delay of a fragment in seconds; a quarter of them have none. May be changed any time.
        window: bytes that one direction of a connection holds.

    Attributes:
        faults: how often each fault was made, by the name of its method.
        log: set it to a list to get each event as a line of text.
    """

    def __init__(
        self, loop: SimLoop, random: Random, *, latency: tuple[float, float] = (0.0001, 0.005), window: int = 65536
    ) -> None:
        self.loop = loop
        self.random = random
        self.latency = latency
        self.window = window
        self.faults: Counter[str] = Counter()
        self.log: list[str] | None = None
        self._trace = hashlib.blake2b(digest_size=16)
        self._made = 0
        self._live: dict[int, Connection] = {}
        self._listeners: dict[str, Listener] = {}
        self._refused_until: dict[str, float] = {}
        self._paused_until: dict[str, float] = {}
        self.listening_in: dict[str, list[Callable[[SimTransport], object]]] = {}
        self.spans: dict[str, list[Span]] = {}
        """Each connection that there ever was, in order of creation, by the process that made it."""

    @property
    def connections(self) -> list[Connection]:
        """Those that live, in order of creation."""
        return list(self._live.values())

    @property
    def trace(self) -> str:
        """Hash of all that happened so far."""
        return self._trace.hexdigest()

    def endpoints(self, owner: str) -> list[SimTransport]:
        """This owner's ends of the live connections, in order of creation."""
        both = (end for connection in self.connections for end in (connection.client, connection.server))
        return [end for end in both if end.owner == owner and not end.is_gone]

    def when_heard(self, owner: str, callback: Callable[[SimTransport], object]) -> None:
        """Call this once, just before the next bytes are read by an endpoint of this process."""
        self.listening_in.setdefault(owner, []).append(callback)

    def listen(
        self, address: str, protocol_factory: Callable[[], asyncio.BaseProtocol], *, owner: str = ""
    ) -> Listener:
        """Accept connections at this address. Raises `OSError` (EADDRINUSE) if somebody does."""
        if address in self._listeners:
            raise OSError(errno.EADDRINUSE, f"Address already in use: {address}")
        listener = self._listeners[address] = Listener(self, address, protocol_factory, owner)
        return listener

    async def connect(
        self, address: str, protocol_factory: Callable[[], P], *, owner: str = ""
    ) -> tuple[SimTransport, P]:
        """A connection to this address. The other end may accept it before or after this returns.

        Raises `ConnectionRefusedError` if nobody listens there, `ConnectionResetError` if it broke at once. Cancelling
        aborts it.
        """
        await asyncio.sleep(self.delay())
        listener = self._listeners.get(address)
        if listener is None or self.loop.time() < self._refused_until.get(address, -math.inf):
            await asyncio.sleep(self.delay())
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"Connect call failed {address}")
        self._made = number = self._made + 1
        caller = f"{owner or 'client'}#{number}"
        client = SimTransport(self, owner, caller, address)
        server = SimTransport(self, listener.owner, address, caller)
        connection = self._live[number] = Connection(self, number, client, server)
        self.spans.setdefault(owner, []).append(connection.span)
        for end in (client, server):
            if self._paused_until.get(end.owner, -math.inf) > self.loop.time():
                end.freeze(self._paused_until[end.owner])
        self.loop.call_later(self.delay(), server.open, listener.factory)
        try:
            await asyncio.sleep(self.delay())
            protocol = client.open(protocol_factory)
        except BaseException:
            client.abort()
            raise
        if protocol is None:
            raise ConnectionResetError(errno.ECONNRESET, f"Connection reset by {address}")
        return client, protocol

    def stop_serving(self, owner: str) -> None:
        """This process listens nowhere any more; what it accepted goes on."""
        for listener in [listener for listener in self._listeners.values() if listener.owner == owner]:
            listener.close()

    # ----------------------------------------------------------------------------------------------- faults

    def cut(self, connection: Connection, keep_client: int | None = None, keep_server: int | None = None) -> None:
        """It breaks. Of the bytes under way to the client the first `keep_client` still arrive (a random number if not
        given), to the server `keep_server`; then each end is told, after a delay of its own, `ConnectionResetError`.
        """
        self._count("cut", connection.number)
        connection.span.break_off(self.loop.time())
        self._break(connection, keep_client, keep_server)

    def half_open(self, connection: Connection, seconds: float | None = None) -> None:
        """Nothing arrives any more, either way, and nobody is told; until `cut`, or for so many seconds.

        Then each end is told as with `cut`, and what was under way is lost.
        """
        self._count("half_open", connection.number)
        connection.span.break_off(self.loop.time())
        for end in (connection.client, connection.server):
            end.incoming.held_until = math.inf
        if seconds is not None:
            self.loop.call_later(seconds, self._break, connection, 0, 0)

    def stall(self, connection: Connection, seconds: float) -> None:
        """Nothing arrives for so long, either way; then it goes on."""
        self._count("stall", connection.number)
        connection.span.bad.append((self.loop.time(), self.loop.time() + seconds))
        for end in (connection.client, connection.server):
            end.incoming.held_until = max(end.incoming.held_until, self.loop.time() + seconds)

    def freeze(self, endpoint: SimTransport, seconds: float) -> None:
        """As if its process was paused: for so long it gets nothing, and nothing that it writes leaves it.

        Only the endpoint: timers and tasks of its process go on.
        """
        self._count("freeze", endpoint.name)
        endpoint.freeze(self.loop.time() + seconds)

    def pause(self, owner: str, seconds: float) -> None:
        """The same for all of a process: for its endpoints, and for those that it gets meanwhile."""
        self._count("pause", owner)
        self._paused_until[owner] = until = max(self._paused_until.get(owner, 0.0), self.loop.time() + seconds)
        for endpoint in self.endpoints(owner):
            endpoint.freeze(until)

    def refuse(self, address: str, seconds: float) -> None:
        """New connections to this address are refused for so long."""
        self._count("refuse", address)
        self._refused_until[address] = self.loop.time() + seconds

    def kill(self, owner: str) -> None:
        """The process of this name dies, with its connections and listeners.

        What had left its write buffers arrives, and a random prefix of what had not; then the other end gets the end
        of the stream or a reset. Its own protocols never hear of it: nothing runs in a dead process. To cancel its
        tasks and timers is up to the caller. The name may be used again.
        """
        self._count("kill", owner)
        self.stop_serving(owner)
        for endpoint in self.endpoints(owner):
            endpoint.die()

    def _count(self, fault: str, what: object) -> None:
        self.faults[fault] += 1
        self.note(what, fault)

    def _break(self, connection: Connection, keep_client: int | None, keep_server: int | None) -> None:
        for pipe, keep in ((connection.client.incoming, keep_client), (connection.server.incoming, keep_server)):
            if pipe.held_until == math.inf:
                keep = 0
            elif keep is None:
                keep = self.random.randint(0, len(pipe.data))
            pipe.release()
            pipe.end("reset", keep)

    # ----------------------------------------------------------------------- for connections and listeners

    def delay(self) -> float:
        """A random delay in seconds."""
        draw = self.random.random()
        least, largest = self.latency
        return 0.0 if draw < AT_ONCE else least + (largest - least) * (draw - AT_ONCE) / (1 - AT_ONCE)

    def fragment(self, size: int) -> int:
        """How much of `size` bytes comes at once: often all, often very little."""
        draw = self.random.random()
        return size if draw < WHOLE else 1 + int(((draw - WHOLE) / (1 - WHOLE)) ** 2 * size)

    def note(self, where: object, what: str) -> None:
        """Something happened."""
        line = f"{self.loop.time():.9f} {where} {what}"
        self._trace.update(line.encode())
        if self.log is not None:
            self.log.append(line)

    def tell_heard(self, end: SimTransport) -> None:
        """Bytes are just about to be read by this endpoint."""
        for callback in self.listening_in.pop(end.owner, ()):
            callback(end)

    def connection_ended(self, connection: Connection) -> None:
        """Both its ends are gone."""
        del self._live[connection.number]

    def stop_listening(self, listener: Listener) -> None:
        """It accepts no more."""
        if self._listeners.get(listener.address) is listener:
            del self._listeners[listener.address]
