"""One connection through the proxy: the client's socket, the target's, and a lane of bytes each way between them.

An end that closes its side is known by the other end's reading the end of file; an end that is reset, or lost in any
other way, by the other's being reset. Both come behind the bytes that were read before. When all has been passed on
both ways, the sockets are closed; `reset` closes them at once.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import cast

from aiopg.testing._lane import Conditions, Ending, Lane

__all__ = ["Relay", "reset_socket"]

LINGER_SECONDS = 2.0
"""When both ends have been told that the connection is over, one that does not close its side is closed after that."""

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER with no time to linger: closing the socket sends RST and drops what is unsent."""


def reset_socket(sock: socket.socket) -> None:
    """Have this socket reset its connection when it is closed. (A unix socket knows no reset.)"""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)


class End(asyncio.Protocol):
    """One of the two sockets: the client's or the target's."""

    def __init__(self, relay: Relay, out: Lane, into: Lane) -> None:
        self._relay = relay
        self._out, self._into = out, into
        out.source = into.sink = self
        self._transport: asyncio.Transport | None = None
        self._reading = True
        self._writing_paused = False
        self.has_ended = False
        """It gives no more bytes: its end of file was read, or it is lost."""

    @property
    def is_attached(self) -> bool:
        """Whether there is a socket."""
        return self._transport is not None

    @property
    def is_writable(self) -> bool:
        """Whether the kernel has all that was written, and there is somebody to write to."""
        return self._transport is not None and not self._writing_paused and not self._transport.is_closing()

    def write(self, data: bytes | memoryview) -> None:
        """Only while it is writable."""
        assert self._transport is not None
        self._transport.write(data)

    def write_eof(self) -> None:
        """Only while it is writable."""
        assert self._transport is not None
        try:
            self._transport.write_eof()
        except OSError:
            self._transport.abort()  # it was reset a moment ago, and so it is handled, in connection_lost

    def read(self, wanted: bool) -> None:
        """Read its bytes, or leave them in the kernel."""
        transport = self._transport
        if wanted == self._reading or self.has_ended or transport is None or transport.is_closing():
            return
        self._reading = wanted
        if wanted:
            transport.resume_reading()
        else:
            transport.pause_reading()

    def close(self) -> None:
        """Close its socket, which has nothing unwritten."""
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        """Close its socket with a reset, at once."""
        if self._transport is not None:
            reset_socket(self._transport.get_extra_info("socket"))
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=0)
        sock = transport.get_extra_info("socket")
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if transport.get_extra_info("sockname") == transport.get_extra_info("peername"):
            self._relay.reset()  # TCP lets a socket connect to itself when its own port was drawn as the one it calls
        if self._relay.is_over:
            self.reset()
        self._into.resume()

    def data_received(self, data: bytes) -> None:
        self._out.data_received(data)

    def eof_received(self) -> bool:
        self.has_ended = True
        self._out.end(Ending.FIN)
        return not self._relay.is_over  # False closes the socket

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._into.resume_soon()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.has_ended = True
        if not self._relay.is_over:
            self._into.drop()
            self._out.end(Ending.RESET)
        self._relay.detached()


class Relay:
    """A connection that was accepted, and the one to the target that carries it on.

    Args:
        conditions: the proxy's.
        gone: called when both sockets are closed and the task that makes them has ended.
    """

    def __init__(self, conditions: Conditions, gone: Callable[[Relay], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._faults = conditions.faults
        self._gone = gone
        self._connecting: asyncio.Task[None] | None = None
        self._dialling = False
        self._linger: asyncio.TimerHandle | None = None
        self.to_target = Lane(self, conditions)
        self.to_client = Lane(self, conditions)
        self.client = End(self, out=self.to_target, into=self.to_client)
        self.target = End(self, out=self.to_client, into=self.to_target)
        self.budget: int | None = None
        """Bytes that may still pass, both ways together, before it is cut."""
        self.is_over = False
        """Nothing more passes; its sockets are closed or closing."""

    def connect(self, task: asyncio.Task[None]) -> None:
        """This task attaches the client's end, then the target's; if that one stays away, the client's is reset."""
        self._connecting = task
        task.add_done_callback(self._connected)

    def dials(self) -> bool:
        """The client's end is there, and the target's is next. Whether it is still wanted."""
        self._dialling = True
        return not self.is_over

    def detached(self) -> None:
        """A socket is closed."""
        if self._connecting is not None or self.client.is_attached or self.target.is_attached:
            return
        self.reset()  # nobody is left to pass the rest on to
        if self._linger is not None:
            self._linger.cancel()
        self._gone(self)

    def spend(self, count: int) -> None:
        """So many bytes of the budget have passed."""
        assert self.budget is not None
        self.budget -= count
        if not self.budget:
            self.cut()

    def cut(self) -> None:
        """The fault: reset both ends."""
        if not self.is_over:
            self._faults["cut"] += 1
        self.reset()

    def half_close(self, lane: Lane) -> bool:
        """The fault: the lane's sink reads the end of file. Whether it was still to come."""
        if self.is_over or lane.discarding:
            return False
        lane.end(Ending.FIN)
        return True

    def vanish(self) -> bool:
        """The fault: nothing passes from now on. Whether something could until now."""
        if self.is_over or self.to_target.vanished:
            return False
        self.to_target.vanish()
        self.to_client.vanish()
        self.settle()
        return True

    def reset(self) -> None:
        """Reset both ends at once and drop what is held."""
        self.is_over = True
        self.budget = None
        self.to_target.drop()
        self.to_client.drop()
        if self._connecting is not None and self._dialling and not self.target.is_attached:
            self._connecting.cancel()  # at any other moment it is about to end by itself
        self.client.reset()
        self.target.reset()

    def settle(self) -> None:
        """Close the sockets if all has been passed on both ways; an end that may still send is read to its end."""
        if self.is_over or not (self.to_target.done and self.to_client.done):
            return
        self.is_over = True
        self.budget = None
        for end in (self.client, self.target):
            if end.has_ended:
                end.close()
        self._linger = self._loop.call_later(LINGER_SECONDS, self._close)

    def conditions_changed(self) -> None:
        """The proxy's conditions are others than before."""
        self.to_target.conditions_changed()
        self.to_client.conditions_changed()

    def _close(self) -> None:
        self.client.close()
        self.target.close()

    def _connected(self, task: asyncio.Task[None]) -> None:
        self._connecting = None
        end = self.target if self._dialling else self.client
        if task.cancelled() and end.is_attached:
            # A race: somebody cancelled it when the socket was just there. uvloop closes it and does not say so.
            end.connection_lost(None)
        if not (self.target.is_attached or self.target.has_ended):
            self.reset()
        self.detached()
