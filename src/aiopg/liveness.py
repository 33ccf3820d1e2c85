"""What this host's kernel can testify about the other end of a connection.

Theory of operation. Whether a peer lives is asked of kernels, never of programs: a process that blocks its event loop
for minutes is alive, and its kernel goes on answering for it. There are three questions, one for each way in which a
peer can be gone without a word:

- nothing is on its way: after some seconds of silence the kernel sends a probe, which the other kernel must answer
  (`keep_alive`, at both ends);
- something is on its way: then the kernel sends no such probes, it sends the data again, and it would do so for a
  quarter of an hour. The client has its kernel give up earlier (`limit_unanswered`);
- the same at the server, which may not do that (the docstring of `limit_unanswered` says why). It looks now and then
  at what its kernel knows of each connection (`is_vanished`).

One case is left to the kernel's own quarter of an hour: a host that dies while it has no room for more data.

A socket is given as `transport.get_extra_info("socket")` gives it, by asyncio or uvloop, or as it is. On unix sockets
all this is void: both ends have the same kernel, which tells at once.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from asyncio.trsock import TransportSocket

    Socket: TypeAlias = socket.socket | TransportSocket

__all__ = [
    "KEEPALIVE_IDLE",
    "KEEPALIVE_INTERVAL",
    "KEEPALIVE_COUNT",
    "CLIENT_USER_TIMEOUT",
    "UNANSWERED_SECONDS",
    "SWEEP_SECONDS",
    "LateSweep",
    "TcpInfo",
    "is_vanished",
    "keep_alive",
    "limit_unanswered",
    "tcp_info",
]

KEEPALIVE_IDLE = 10
KEEPALIVE_INTERVAL = 5
KEEPALIVE_COUNT = 3
"""Seconds of silence before the first probe, seconds between probes, and how many in a row may stay unanswered.

A dead peer is found 10 + 3 * 5 = 25 s after its last sign of life; kernels do it after two hours by default. Three
probes, because one may be lost. An idle connection costs one small packet each way in 10 s.
"""

CLIENT_USER_TIMEOUT = 30
"""Seconds after which a client gives up a store that answers nothing. It is more than keepalive takes (25 s)."""

UNANSWERED_SECONDS = 30
"""A peer whose kernel has not answered for so long is gone.

It must be more than the 25 s of keepalive: a living peer of an idle connection is heard of only when it answers a
probe, so its last sign of life may be so old when something is sent to it.
"""

SWEEP_SECONDS = 5
"""How often a server looks at its connections: a vanished peer is found after 30 s and before 36 s."""

LAG_SECONDS = 1.0
"""A sweep that comes later than this says that the sweeping process itself did not run."""

_NO_SUCH_OPTION = frozenset({errno.ENOPROTOOPT, errno.EOPNOTSUPP})

_TCP_INFO = struct.Struct("=24xI24xII")
"""The head of Linux' `struct tcp_info`: 32-bit numbers in the host's byte order, these three among them.

offset 24 tcpi_unacked: segments sent and not acknowledged; 52 tcpi_last_data_recv, 56 tcpi_last_ack_recv:
milliseconds since then. The kernel only ever appends to this structure and fills as much of it as is asked for, so
these 60 bytes are there and mean the same on every Linux.
"""


class TcpInfo(NamedTuple):
    """What the kernel knows of a connection: segments on their way, and seconds since it heard of the peer."""

    unacked: int
    last_data_recv: float
    last_ack_recv: float

    @property
    def vanished(self) -> bool:
        """Whether the peer's kernel owes an answer and has not been heard of for `UNANSWERED_SECONDS`.

        Data counts as well as acknowledgements: where a segment brings data and acknowledges nothing new, the kernel
        need not take note of the acknowledgement in it.
        """
        return self.unacked > 0 and min(self.last_ack_recv, self.last_data_recv) > UNANSWERED_SECONDS


def keep_alive(sock: Socket) -> None:
    """Have the kernel probe a silent peer, and end the connection (ETIMEDOUT) if three probes stay unanswered.

    Set it at both ends, before or after the connection is made. Set on a listening socket it holds, on Linux, for
    every connection accepted from it. Raises `OSError` if the socket is closed; an option that the platform does
    not have is left out.
    """
    if not _is_tcp(sock):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # macOS has the first one under its older name.
    _set(sock, "TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE", KEEPALIVE_IDLE)
    _set(sock, "TCP_KEEPINTVL", KEEPALIVE_INTERVAL)
    _set(sock, "TCP_KEEPCNT", KEEPALIVE_COUNT)


def limit_unanswered(sock: Socket) -> None:
    """Have the kernel end the connection (ETIMEDOUT) when the other end answers nothing for `CLIENT_USER_TIMEOUT`.

    For the client's socket only. With this option Linux counts not only the time without an answer but also the time
    in which the other end has no room for more data, although its kernel answers every probe: a connection to a
    stopped process with a full window was ended when the time was over, and one without the option lived on. A store
    always reads, since no user code runs on its loop; but a rank that blocks its loop does not, and it is alive. So a
    server must not use this.

    With both options set, Linux takes this time in place of `KEEPALIVE_COUNT`: the client finds an idle dead store
    after 30 s. Raises `OSError` if the socket is closed; does nothing where the platform does not have the option.
    """
    if _is_tcp(sock):
        _set(sock, "TCP_USER_TIMEOUT", CLIENT_USER_TIMEOUT * 1000)


def is_vanished(sock: Socket) -> bool:
    """Whether the peer of a connection is gone: data is on its way to it, and its kernel has been silent too long.

    For a connection that has `keep_alive`, or the silence of an idle peer would be held against it. Costs about two
    microseconds, never waits and never raises. False where the kernel cannot be asked: on a unix socket, on another
    platform than Linux, when the socket is closed, or for want of a file descriptor (see `tcp_info`).
    """
    info = tcp_info(sock)
    return info is not None and info.vanished


def tcp_info(sock: Socket) -> TcpInfo | None:
    """What the kernel knows of a TCP connection now; None if it cannot be asked."""
    if sys.platform != "linux" or not _is_tcp(sock) or sock.fileno() < 0:
        return None
    try:
        data = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    except OSError:
        # No such option in this sandbox; or EMFILE, because uvloop's sockets duplicate themselves for each question.
        return None
    if len(data) < _TCP_INFO.size:
        return None
    unacked, data_recv, ack_recv = _TCP_INFO.unpack(data)
    return TcpInfo(unacked, data_recv / 1000, ack_recv / 1000)


class LateSweep:
    """Says at each sweep whether its verdicts count, or whether it was this process that did not run.

    A server that was stopped for a minute finds every peer overdue when it goes on, and would expire all of them at
    once, though what they sent lies in its own sockets. So after a sweep that came more than `LAG_SECONDS` late no
    verdict is passed for twice the grace: in that time who lives is heard of again.

    Pure: times are arguments, in seconds of one monotonic clock.
    """

    def __init__(self, now: float, interval: float, grace: float) -> None:
        """Sweeping begins at `now`; each sweep is to come `interval` after the one before; `grace`: see above."""
        self._interval = interval
        self._quiet = 2 * grace
        self._due = now + interval
        self._quiet_until = now

    def may_judge(self, now: float) -> bool:
        """A sweep begins: whether it may pass verdicts. To be called once at each sweep, also where it is False."""
        if now - self._due > LAG_SECONDS:
            self._quiet_until = now + self._quiet
        self._due = now + self._interval
        return now >= self._quiet_until


def _is_tcp(sock: Socket) -> bool:
    return sock.family in (socket.AF_INET, socket.AF_INET6)


def _set(sock: Socket, name: str, value: int) -> None:
    option = getattr(socket, name, None)
    if option is None:
        return
    try:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    except OSError as error:
        if error.errno not in _NO_SUCH_OPTION:
            raise
