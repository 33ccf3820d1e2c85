"""`BlockingLock`: what one holds and the others wait for, for programs that block."""

from __future__ import annotations

from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType
from typing import Self

from aiopg.errors import AiopgError
from aiopg.keys import Lock
from aiopg.sync._runner import Runner

__all__ = ["BlockingLock"]


class BlockingLock:
    """What `aiopg.keys.Lock` is, with calls that block; its rules and its warning hold. Made by `Store.lock`. ::

        with store.lock("weights") as lock:
            write_weights(fence=lock.number)

    Ctrl-C while it waits takes the request back, and lets go of a lock that was granted in that moment.
    """

    def __init__(self, lock: Lock, runner: Runner) -> None:
        self._lock, self._runner = lock, runner

    def __repr__(self) -> str:
        return repr(self._lock).replace("Lock", type(self).__name__, 1)

    @property
    def name(self) -> str:
        """Its name, with the store's prefix."""
        return self._lock.name

    @property
    def number(self) -> int:
        """See `Lock.number`."""
        return self._lock.number

    @property
    def is_held(self) -> bool:
        """See `Lock.is_held`."""
        return self._lock.is_held

    def acquire(self, *, timeout: float | None = None) -> int:
        """See `Lock.acquire`."""
        got: list[int] = []

        async def acquire() -> int:
            got.append(await self._lock.acquire(timeout=timeout))
            return got[0]

        async def let_go() -> None:
            if got and self._lock.is_held and self._lock.number == got[0]:
                with suppress(AiopgError):
                    await self._lock.release()

        try:
            return self._runner.call(acquire)
        except BaseException:
            if not (self._runner.closed or self._runner.is_forked):
                # An interrupt may have come when it was granted already. Asked on the loop, behind the call.
                self._runner.thread.start(let_go, Future())
            raise

    def release(self, *, timeout: float | None = None) -> None:
        """See `Lock.release`."""
        self._runner.call(lambda: self._lock.release(timeout=timeout))

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if not self._runner.is_forked:
            self._runner.call(lambda: self._lock.__aexit__(exc_type, exc, tb))
