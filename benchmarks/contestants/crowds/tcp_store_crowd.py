"""torch's `TCPStore`: its calls block, so every rank is a thread with a client of its own.

Rank 0 has the server, in its process; only its constructor waits until all ranks have connected. The threads are
started with the clock off; what Python's lock costs among thousands of them is in the figures.
"""

import itertools
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import torch
from torch.distributed import TCPStore

from benchmarks.contestants.base import FORM_SECONDS
from benchmarks.contestants.crowds import BaseCrowd

STACK_BYTES = 256 * 1024


class Crowd(BaseCrowd):
    def __init__(self) -> None:
        threading.stack_size(STACK_BYTES)
        self._listener: socket.socket | None = None
        self._stores: list[TCPStore] = []
        self._threads: ThreadPoolExecutor | None = None
        self._world_size = 0
        self._calls = itertools.count()

    def versions(self) -> dict[str, str]:
        return {"torch": torch.__version__}

    def host(self, listener: socket.socket, world_size: int) -> None:
        self._listener = listener  # rank 0 serves on it

    def prepare(self, ranks: int) -> None:
        """A thread starts when it has something to do and no other is idle: so all at once, to wait for each other."""
        self._threads = ThreadPoolExecutor(ranks)
        together = threading.Barrier(ranks)
        list(self._threads.map(lambda _: together.wait(), range(ranks)))

    def join(self, port: int, ranks: range, world_size: int) -> None:
        def connect(rank: int) -> TCPStore:
            descriptor = self._listener.detach() if rank == 0 and self._listener is not None else None
            return TCPStore(
                "127.0.0.1",
                port,
                world_size,
                is_master=rank == 0,
                timeout=timedelta(seconds=FORM_SECONDS),
                master_listen_fd=descriptor,
            )

        assert self._threads is not None
        self._world_size = world_size
        self._calls = itertools.count()
        self._stores = list(self._threads.map(connect, ranks))

    def barrier(self, count: int) -> None:
        keys = [f"b{next(self._calls)}" for _ in range(count)]

        def pass_barriers(store: TCPStore) -> None:
            for key in keys:
                store.barrier(key, self._world_size)

        assert self._threads is not None
        list(self._threads.map(pass_barriers, self._stores))

    def leave(self) -> None:
        self._stores.clear()  # it has no close(); a connection ends with its last reference
        if self._threads is not None:
            self._threads.shutdown()
            self._threads = None
        self._listener = None
