"""torch's `TCPStore` with its default (libuv) server, used as directly as it allows.

barrier     the native `barrier(key, world_size)`
all_gather  `set` of one's own key, then one `multi_get` of all keys
broadcast   `set` by the root, `get` by the others
message     `set` by the sender, `get` by the receiver
join        one more store on a port of its own, which waits for all its clients

The store moves bytes, so the object is pickled once, before any clock runs, and never unpickled: its figures
hold no cost of encoding. A used key never becomes empty again, so each call uses a fresh one; the rank that
made a key (rank 0 for barriers) deletes it before the next block, with the clock off. Deleting inside the
block, as a program that runs for long must, would add a request to each call.
"""

import itertools
import pickle
from collections.abc import Iterator
from datetime import timedelta

import torch
from torch.distributed import TCPStore

from benchmarks.contestants.base import FORM_SECONDS, BlockingContestant, Leave, Seat


class _Calls:
    """The five operations of one rank, on fresh keys."""

    def __init__(self, store: TCPStore, rank: int, world_size: int) -> None:
        self.used: list[str] = []
        self._store = store
        self._rank = rank
        self._world_size = world_size
        # Ranks name keys by counting their own calls. Messages count per pair and direction: only two ranks
        # of the group exchange them, and one counter for all would drift apart.
        self._calls = itertools.count()
        self._sent: dict[int, Iterator[int]] = {peer: itertools.count() for peer in range(world_size)}
        self._received: dict[int, Iterator[int]] = {peer: itertools.count() for peer in range(world_size)}

    def barrier(self) -> None:
        key = f"b{next(self._calls)}"
        if self._rank == 0:
            self.used.append(key)
        self._store.barrier(key, self._world_size)

    def all_gather(self, data: bytes) -> list[bytes]:
        call = next(self._calls)
        keys = [f"g{call}/{rank}" for rank in range(self._world_size)]
        self.used.append(keys[self._rank])
        self._store.set(keys[self._rank], data)
        gathered: list[bytes] = self._store.multi_get(keys)
        return gathered

    def broadcast(self, data: bytes | None, src: int) -> bytes | None:
        key = f"c{next(self._calls)}"
        if self._rank == src:
            self.used.append(key)
            self._store.set(key, data)
            return data
        received: bytes = self._store.get(key)
        return received

    def send(self, data: bytes, dst: int) -> None:
        key = f"m{self._rank}/{dst}/{next(self._sent[dst])}"
        self.used.append(key)
        self._store.set(key, data)

    def recv(self, src: int) -> bytes:
        received: bytes = self._store.get(f"m{src}/{self._rank}/{next(self._received[src])}")
        return received


def _connect(seat: Seat) -> TCPStore:
    return TCPStore(
        seat.host,
        seat.port,
        seat.world_size,
        is_master=seat.rank == 0,
        timeout=timedelta(seconds=FORM_SECONDS),
        master_listen_fd=None if seat.listener is None else seat.listener.detach(),
    )


class TcpStore(BlockingContestant):
    def __init__(self) -> None:
        self._store: TCPStore | None = None
        self._calls: _Calls | None = None

    def versions(self) -> dict[str, str]:
        return {"torch": torch.__version__}

    def payload(self, rank: int) -> bytes:
        return pickle.dumps(super().payload(rank))

    def form(self, seat: Seat) -> _Calls:
        self._store = _connect(seat)
        self._calls = _Calls(self._store, seat.rank, seat.world_size)
        return self._calls

    def join(self, seat: Seat) -> Leave:
        made = [_connect(seat)]
        return made.clear  # the last reference

    def tidy(self) -> None:
        if self._store is None or self._calls is None:
            return
        for key in self._calls.used:
            self._store.delete_key(key)
        self._calls.used.clear()

    def close(self) -> None:
        self._calls = None
        self._store = None  # it has no close(); the connection ends with its last reference
