"""The TCPStore of torchrun's agent, where it holds MASTER_ADDR:MASTER_PORT: rank 0 says in it where it hosts ours.

Theory of operation. torchrun's agent keeps a `torch.distributed.TCPStore` for its workers, and says so
(TORCHELASTIC_USE_AGENT_STORE=True): then MASTER_ADDR and MASTER_PORT are that store's, and no other program can listen
there. So rank 0 listens on a port that is free, and publishes it there under the group's name; the others look it up.

The agent's store outlives its workers: when torchrun starts them again, it has what the last ones published. And
nothing in a worker's environment tells its life from the last one on all nodes: TORCHELASTIC_RESTART_COUNT counts what
befell the agent of one node. So publications are numbered. Whoever reads one tries to join there, and waits for the
next one all the while; when it comes, the attempt is taken back and begins anew at the new port. An old port cannot
mislead: a group forms only where all its ranks are, and this life's rank 0 is where it published last. (The last life's
rank 0 ran on the host of the store that it founded, which therefore knows that it is dead.) Rank 0 waits for the next
one too: it would be another process that takes itself for rank 0.

torch is imported here and only here: whoever runs under torchrun has it. Its calls block, and cannot be interrupted, so
they are made in a thread, and are short: an agent that lives answers at once. It is a daemon thread, since one that is
stopped or cut off may keep a call for good.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import queue
import random
import threading
from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from aiopg.errors import StoreUnreachableError

__all__ = ["AgentStore", "Publication", "holds_agent_store"]

T = TypeVar("T")

ANSWER_SECONDS = 10.0
"""How long the agent's store may take to answer. It is there before any worker is."""

FIRST_PAUSE = 0.01
LONGEST_PAUSE = 0.5
"""Seconds between two looks for a publication, doubling, each drawn at random up to this. torch's own wait is not used:
it logs a warning whenever its time is up, and aborts a process that ends while a thread is in it."""


def holds_agent_store(host: str, port: int) -> bool:
    """Whether torchrun's agent says that its own store is at this address."""
    env = os.environ
    said = env.get("MASTER_ADDR"), env.get("MASTER_PORT")
    return env.get("TORCHELASTIC_USE_AGENT_STORE") == "True" and said == (host, str(port))


class Publication(NamedTuple):
    """Where a rank 0 hosts a store."""

    number: int
    port: int


class AgentStore:
    """The agent's store, for as long as one group is formed: a context manager that lets go of it.

    Each call raises `StoreUnreachableError` if it is not there, and `ImportError` without torch; both say what to do.
    Cancelling is safe at any time.
    """

    def __init__(self, host: str, port: int, group: str) -> None:
        self._host, self._port = host, port
        self._key = f"aiopg/{group}"
        self._thread = _Thread(f"aiopg torchrun {host}:{port}")
        self._store: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._thread.stop()

    async def publish(self, port: int) -> Publication:
        """Say that this process is rank 0 and listens on `port`."""
        return await self._do(lambda: self._publish(port))

    async def latest(self) -> Publication | None:
        """What was published last, if anything was."""
        return await self._do(self._latest)

    async def newer(self, number: int) -> Publication:
        """Wait for what is published behind this number; 0: for anything at all."""
        pause = FIRST_PAUSE
        while True:
            found = await self._do(self._latest)
            if found is not None and found.number > number:
                return found
            await asyncio.sleep(random.uniform(pause / 2, pause))
            pause = min(2 * pause, LONGEST_PAUSE)

    def _publish(self, port: int) -> Publication:
        number: int = self._store.add(self._key, 1)
        self._store.set(f"{self._key}/{number}", str(port))
        # Only the last one counts, and the one before to those who read its number just now.
        self._store.delete_key(f"{self._key}/{number - 2}")
        return Publication(number, port)

    def _latest(self) -> Publication | None:
        number: int = self._store.add(self._key, 0)
        key = f"{self._key}/{number}"
        # It is not there between the two steps of `_publish`, and when two were published since.
        return Publication(number, int(self._store.get(key))) if self._store.check([key]) else None

    async def _do(self, work: Callable[[], T]) -> T:
        def connected() -> T:
            if self._store is None:
                self._connect()
            return work()

        try:
            return await self._thread.run(connected)
        except RuntimeError as error:  # all that torch raises here is one
            raise StoreUnreachableError(
                f"{self._host}:{self._port}",
                f"torchrun's own store should be there, as TORCHELASTIC_USE_AGENT_STORE says, and is not ({error}); "
                "if this process has a MASTER_ADDR or MASTER_PORT that is not torchrun's, unset that variable",
            ) from error

    def _connect(self) -> None:
        try:
            distributed = importlib.import_module("torch.distributed")
        except ImportError as error:
            raise ImportError(
                f"{self._host}:{self._port} is torchrun's own store, as TORCHELASTIC_USE_AGENT_STORE says, and to meet "
                "there takes torch: pip install 'aiopg-group[torch]'; or set AIOPG_PORT to another port"
            ) from error
        self._store = distributed.TCPStore(
            self._host,
            self._port,
            is_master=False,
            timeout=timedelta(seconds=ANSWER_SECONDS),
            wait_for_workers=False,
        )


class _Thread:
    """A daemon thread that does one thing after the other."""

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` comes to there. Whoever cancels this does not wait for it."""
        future: Future[T] = Future()

        def job() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001 - raised to whoever waits
                future.set_exception(error)
            else:
                future.set_result(result)

        self._jobs.put(job)
        return await asyncio.wrap_future(future)

    def stop(self) -> None:
        """End it after what it does now."""
        self._jobs.put(None)

    def _run(self) -> None:
        for job in iter(self._jobs.get, None):
            job()
