"""The ends of a connection in memory, and the pipes between them. `network` states the rules."""

from __future__ import annotations

import asyncio
import errno
import math
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from tests.simulation.network import SimNetwork

__all__ = ["Connection", "Pipe", "SimTransport", "Span"]

P = TypeVar("P", bound=asyncio.BaseProtocol)

HIGH_WATER = 65536
"""Bytes in a write buffer at which its protocol is told to pause; at a quarter of it, to go on. As in asyncio."""


class Span:
    """When one connection of a process was there, and was well. For whoever judges a run."""

    __slots__ = ("bad", "behind", "broken", "ended", "known", "opened", "owner")

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.opened = math.inf
        """When both its ends had their protocols."""
        self.ended = math.inf
        """When anything first went wrong with it for good, or one of its ends closed it."""
        self.broken = math.inf
        """When it went wrong for good, though it may have been closed before: what is under way may be lost then."""
        self.known = math.inf
        """When the other process was told that it is over."""
        self.bad: list[tuple[float, float]] = []
        """From when till when nothing could pass."""
        self.behind: list[tuple[float, float]] = []
        """From when till when one of its ends had more to send than the other one took."""

    def break_off(self, now: float) -> None:
        """It goes wrong for good."""
        self.broken = min(self.broken, now)
        self.end(now)

    def end(self, now: float) -> None:
        """It is over, or as good as over."""
        self.ended = min(self.ended, now)


class Pipe:
    """One direction of a connection: what has left the write buffer of `source` and was not read by `target`."""

    def __init__(self, network: SimNetwork, source: SimTransport, target: SimTransport) -> None:
        self._network = network
        self._loop = network.loop
        self.source, self.target = source, target
        self.data = bytearray()
        self.ending = ""  # what follows the data: "eof", "reset"
        self.held_until = -math.inf
        self._timer: asyncio.Handle | None = None

    @property
    def room(self) -> int:
        """How many bytes it takes now."""
        return 0 if self.ending else self._network.window - len(self.data)

    def end(self, ending: str, keep: int | None = None) -> None:
        """After the first `keep` bytes (all by default) comes this ending."""
        if ending == "reset" or self.ending != "reset":
            self.ending = ending
            del self.data[len(self.data) if keep is None else keep :]
            self.wake()

    def wake(self) -> None:
        """Deliver after a random delay if there is something, and `target` may take it."""
        target = self.target
        wants = bool(self.data) if target.is_gone else self.ending == "reset" or target.is_reading()
        held = max(self.held_until, target.frozen_until)
        if self._timer is None and wants and (self.data or self.ending) and held != math.inf:
            delay, loop = self._network.delay(), self._loop
            if held > loop.time():
                # Not by a delay from now: what is added up must not round to just before the end of the hold.
                self._timer = loop.call_at(held + delay, self._deliver)
            else:
                # Without a detour over the timers where there is no delay: it is drawn often.
                self._timer = loop.call_later(delay, self._deliver) if delay else loop.call_soon(self._deliver)

    def release(self) -> None:
        """End every hold."""
        self.held_until = -math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.wake()

    def _deliver(self) -> None:
        self._timer = None
        target = self.target
        if max(self.held_until, target.frozen_until) > self._loop.time():
            pass  # held since the delay was drawn
        elif target.is_gone:
            self.data.clear()
            target.outgoing.end("reset")
        elif self.ending == "reset" and not (self.data and target.is_reading()):
            self.data.clear()
            target.lose(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))
        elif target.is_reading() and self.data:
            try:
                target.receive(self.data, self._network.fragment(len(self.data)))
            finally:
                self.source.window_opened()
        elif target.is_reading() and self.ending:
            self.ending = ""
            target.receive_eof()
        self.wake()


class SimTransport(asyncio.Transport):
    """One endpoint of a connection. What is here and not in `asyncio.Transport` is for the network."""

    def __init__(self, network: SimNetwork, owner: str, sockname: str, peername: str) -> None:
        super().__init__({"socket": None, "sockname": sockname, "peername": peername})
        self._network = network
        self._loop = network.loop
        self.owner = owner
        self.connection: Connection
        self.incoming: Pipe
        self.outgoing: Pipe
        self.frozen_until = -math.inf
        self.is_gone = False
        """Whether its socket is closed; `connection_lost` was called or comes in the next pass."""
        self._protocol: asyncio.BaseProtocol | None = None
        self._buffer = bytearray()
        self._written_since = 0.0  # when its first byte came
        self._low, self._high = HIGH_WATER // 4, HIGH_WATER
        self._closing = False
        self._eof_written = self._eof_sent = False
        self._reading_paused = False
        self._writing_paused = False
        self._window_timer: asyncio.Handle | None = None

    def __repr__(self) -> str:
        state = "gone" if self.is_gone else "closing" if self._closing else "open" if self._protocol else "opening"
        return f"<SimTransport {self.name} {state} buffered={len(self._buffer)}>"

    @property
    def name(self) -> str:
        """`number>` of the connection at its client's end, `>number` at its server's."""
        connection = self.connection
        return f"{connection.number}>" if self is connection.client else f">{connection.number}"

    # ------------------------------------------------------------------------------------- asyncio.Transport

    def is_closing(self) -> bool:
        return self._closing

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._protocol is not None
        return self._protocol

    def is_reading(self) -> bool:
        return self._protocol is not None and not (self._closing or self._reading_paused)

    def pause_reading(self) -> None:
        self._reading_paused = True

    def resume_reading(self) -> None:
        self._reading_paused = False
        self.incoming.wake()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
        if self._eof_written:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self.is_gone:
            return
        if not self._buffer:
            self._written_since = self._loop.time()
        self._buffer += data
        self._flush()
        if len(self._buffer) > self._high and not self._writing_paused:
            self._writing_paused = True
            self.get_protocol().pause_writing()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if not self._closing:
            self._eof_written = True
            self._flush()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = HIGH_WATER if low is None else 4 * low
        low = high // 4 if low is None else low
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._low, self._high = low, high

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def get_write_buffer_size(self) -> int:
        return len(self._buffer)

    def close(self) -> None:
        self._closing = True
        self.connection.span.end(self._loop.time())
        self._flush()

    def abort(self) -> None:
        self._abort(None)

    # ------------------------------------------------------------------------------------------ for the network

    def open(self, factory: Callable[[], P]) -> P | None:
        """The connection is made: it gets its protocol; None if it broke before."""
        if self.is_gone:
            return None
        protocol = factory()
        self._protocol = protocol
        self._network.note(self.name, "open")
        self.connection.end_opened()
        protocol.connection_made(self)
        self.incoming.wake()
        return protocol

    def receive(self, data: bytearray, size: int) -> None:
        """Hand over `size` bytes from the front of `data`, or what the protocol's buffer takes; take them off."""
        protocol = self._protocol
        if self._network.listening_in:
            self._network.tell_heard(self)
        try:
            if isinstance(protocol, asyncio.BufferedProtocol):
                buffer = memoryview(protocol.get_buffer(-1))
                size = min(size, len(buffer))
                if not size:
                    raise RuntimeError("get_buffer() returned an empty buffer")
                buffer[:size] = self._take(data, size)
                protocol.buffer_updated(size)
            else:
                assert isinstance(protocol, asyncio.Protocol)
                protocol.data_received(self._take(data, size))
        except BaseException as error:  # as asyncio does; the loop's exception handler gets it
            self._abort(error)
            raise

    def receive_eof(self) -> None:
        """The other end writes no more: close, unless the protocol wants to go on writing."""
        protocol = self._protocol
        assert isinstance(protocol, asyncio.Protocol | asyncio.BufferedProtocol)
        self._network.note(self.name, "eof")
        try:
            goes_on = protocol.eof_received()
        except BaseException as error:  # as above
            self._abort(error)
            raise
        if not goes_on:
            self.close()

    def lose(self, error: BaseException | None) -> None:
        """The socket is closed: the protocol hears of it in the next pass."""
        if not self.is_gone:
            self.is_gone = self._closing = True
            self.connection.span.end(self._loop.time())
            self._buffer.clear()
            self.incoming.wake()  # what comes now is answered by a reset
            self._loop.call_soon(self._tell, error)

    def die(self) -> None:
        """The process ends; its protocol never hears of it. See `SimNetwork.kill`."""
        if not self.is_gone:
            random, pipe = self._network.random, self.outgoing
            leaves = random.randint(0, max(0, min(pipe.room, len(self._buffer))))
            if self._loop.time() >= self.frozen_until:
                pipe.data += self._buffer[:leaves]
            pipe.end(random.choice(("eof", "reset")))
            self.is_gone = self._closing = True
            self.connection.span.end(self._loop.time())
            self._buffer.clear()
            self.frozen_until = -math.inf
            self.incoming.wake()
            self.connection.end_told()

    def freeze(self, until: float) -> None:
        """Nothing arrives and nothing leaves until then."""
        self.connection.span.bad.append((self._loop.time(), until))
        self.frozen_until = max(self.frozen_until, until)
        self._loop.call_at(until, self._write_ready)
        self._loop.call_at(until, self.incoming.wake)

    def window_opened(self) -> None:
        """The other end read: when that is known here, more may leave."""
        if self._buffer and self._window_timer is None:
            self._window_timer = self._loop.call_later(self._network.delay(), self._write_ready)

    def _write_ready(self) -> None:
        self._window_timer = None
        self._flush()
        if self._writing_paused and len(self._buffer) <= self._low and not self.is_gone:
            self._writing_paused = False
            self.get_protocol().resume_writing()

    def _flush(self) -> None:
        """Let leave what has room; end the stream when all has left and no more is to come."""
        if self.is_gone or self._loop.time() < self.frozen_until:
            return
        pipe = self.outgoing
        if self._buffer and pipe.room > 0:
            room = pipe.room
            pipe.data += self._buffer[:room]
            del self._buffer[:room]
            pipe.wake()
            if not self._buffer and self._loop.time() > self._written_since:
                self.connection.span.behind.append((self._written_since, self._loop.time()))
        if not self._buffer and (self._closing or self._eof_written):
            if not self._eof_sent:
                self._eof_sent = True
                pipe.end("eof")
            if self._closing:
                self.lose(None)

    def _take(self, data: bytearray, size: int) -> bytes:
        taken = bytes(data[:size])
        del data[:size]
        self._network.note(self.name, f"gets {size} {zlib.crc32(taken):08x}")
        return taken

    def _abort(self, error: BaseException | None) -> None:
        if not self.is_gone:
            self.outgoing.held_until = max(self.outgoing.held_until, self.frozen_until)
            self.outgoing.end("reset", self._network.random.randint(0, len(self.outgoing.data)))
            self.lose(error)

    def _tell(self, error: BaseException | None) -> None:
        self._network.note(self.name, f"lost {type(error).__name__}")
        self.connection.end_told()
        if self is self.connection.server:
            self.connection.span.known = self._loop.time()
        if self._protocol is not None:
            self._protocol.connection_lost(error if isinstance(error, Exception) else None)


class Connection:
    """Two endpoints and a pipe each way. It lives until both its ends are gone, and know it."""

    def __init__(self, network: SimNetwork, number: int, client: SimTransport, server: SimTransport) -> None:
        self._network = network
        self.number = number
        self.client, self.server = client, server
        client.connection = server.connection = self
        client.outgoing = server.incoming = Pipe(network, client, server)
        server.outgoing = client.incoming = Pipe(network, server, client)
        self.span = Span(client.owner)
        self._unopened = self._untold = 2

    def __repr__(self) -> str:
        return f"<Connection {self.number} {self.client} {self.server} in_flight={self.in_flight}>"

    @property
    def in_flight(self) -> tuple[int, int]:
        """Bytes under way or unread: to the client, to the server."""
        return len(self.client.incoming.data), len(self.server.incoming.data)

    def end_opened(self) -> None:
        """One end more has its protocol."""
        self._unopened -= 1
        if not self._unopened:
            self.span.opened = self._network.loop.time()

    def end_told(self) -> None:
        """One end more knows that it is over."""
        self._untold -= 1
        if not self._untold:
            self._network.connection_ended(self)
