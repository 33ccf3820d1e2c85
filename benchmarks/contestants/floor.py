"""The floor: `benchmarks/floor.c`, a star in C with an epoll server and blocking clients.

The server is a child process of rank 0. Each call from here goes through ctypes, two or three calls for each
operation: about a microsecond that is Python's. Like `TCPStore` it moves bytes that were pickled before any clock ran.
"""

import ctypes
import pickle
import subprocess
from typing import Any

from benchmarks import peers
from benchmarks.contestants.base import BlockingContestant, Seat

HELLO, BARRIER, GATHER, BROADCAST, MESSAGE = range(5)
"""The kinds of frames, as in floor.c."""


class FloorError(Exception):
    """The server ended before its clients."""


class FloorServer:
    """The server, a child process of rank 0; nothing at the other ranks. It ends when its last member has gone."""

    def __init__(self, seat: Seat) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        if seat.listener is not None:
            descriptor = seat.listener.fileno()
            command = [str(peers.FLOOR_SERVER), str(descriptor), str(seat.world_size)]
            self._process = subprocess.Popen(command, pass_fds=[descriptor])
            seat.listener.close()

    def wait(self) -> None:
        """Wait until it has ended."""
        if self._process is not None:
            self._process.wait()


def _library() -> Any:
    library = ctypes.CDLL(str(peers.FLOOR_LIBRARY))
    library.floor_open.argtypes = [ctypes.c_int, ctypes.c_int]
    library.floor_open.restype = ctypes.c_void_p
    library.floor_give.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t]
    library.floor_give.restype = None
    library.floor_take.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.floor_take.restype = ctypes.c_long
    library.floor_body.argtypes = [ctypes.c_void_p]
    library.floor_body.restype = ctypes.c_void_p
    library.floor_close.argtypes = [ctypes.c_void_p]
    library.floor_close.restype = None
    return library


class _Calls:
    """The operations of one rank. All ranks give objects of one length to an all_gather."""

    def __init__(self, library: Any, end: int, rank: int, world_size: int) -> None:
        self._library = library
        self._end = end
        self._rank = rank
        self._world_size = world_size

    def _take(self, kind: int) -> bytes:
        length = self._library.floor_take(self._end, kind)
        if length < 0:
            raise FloorError("the server ended")
        return ctypes.string_at(self._library.floor_body(self._end), length)

    def barrier(self) -> None:
        self._library.floor_give(self._end, BARRIER, 0, None, 0)
        if self._library.floor_take(self._end, BARRIER) < 0:
            raise FloorError("the server ended")

    def all_gather(self, data: bytes) -> list[bytes]:
        self._library.floor_give(self._end, GATHER, 0, data, len(data))
        joined = self._take(GATHER)
        size = len(joined) // self._world_size
        return [joined[start : start + size] for start in range(0, len(joined), size)]

    def broadcast(self, data: bytes | None, src: int) -> bytes:
        if data is None or self._rank != src:
            return self._take(BROADCAST)
        self._library.floor_give(self._end, BROADCAST, 0, data, len(data))
        return data

    def send(self, data: bytes, dst: int) -> None:
        self._library.floor_give(self._end, MESSAGE, dst, data, len(data))

    def recv(self, src: int) -> bytes:
        return self._take(MESSAGE)


class Floor(BlockingContestant):
    def __init__(self) -> None:
        self._library = _library()
        self._end: int | None = None
        self._server: FloorServer | None = None

    def payload(self, rank: int) -> bytes:
        return pickle.dumps(super().payload(rank))

    def form(self, seat: Seat) -> _Calls:
        self._server = FloorServer(seat)
        end: int = self._library.floor_open(seat.port, seat.rank)
        self._end = end
        return _Calls(self._library, end, seat.rank, seat.world_size)

    def close(self) -> None:
        if self._end is not None:
            self._library.floor_close(self._end)
            self._end = None
        if self._server is not None:
            self._server.wait()
            self._server = None
