"""`Lock`: what one holds and the others wait for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import TypeAlias

from aiopg.errors import AiopgError, KeyOperationError, UsageError
from aiopg.stores.keys import KeyCall, Keys

__all__ = ["Lock"]

NewCall: TypeAlias = Callable[[str, tuple[str, ...], "float | None"], KeyCall]


class Lock:
    """A lock on a store, which one holds at a time, in the order of asking. Made by `AsyncStore.lock`. ::

        async with store.lock("weights") as lock:
            await write_weights(fence=lock.number)

    It is let go when its block ends, and when its holder does: when the process ends or its link to the store is lost
    (of a group's keys: when the member leaves or is lost).

    **What it does not do.** A holder that was cut off for longer than its `reconnect_grace`, or stopped, has lost the
    lock, and may not know yet: for a moment two can believe that they hold it. Where that would do harm, give `number`
    to whatever the lock protects, and have that refuse a number lower than one that it has seen (a fencing number).

    The lock is not reentrant: a holder that asks again waits for itself. Several tasks may use one object.

    Attributes:
        name: its name, with the store's prefix.
    """

    def __init__(
        self,
        name: str,
        timeout: float | None,
        *,
        new_call: NewCall,
        enter: Callable[[KeyCall], Awaitable[Keys]],
    ) -> None:
        self.name = name
        self._timeout = timeout
        self._new_call, self._enter = new_call, enter
        self._held: tuple[Keys, int] | None = None

    def __repr__(self) -> str:
        return f"<Lock {self.name!r}, {f'held with number {self._held[1]}' if self._held else 'not held'}>"

    @property
    def number(self) -> int:
        """The number with which it is held; it grows from holder to holder. Raises `UsageError` if it is not held."""
        if self._held is None:
            raise UsageError(f"lock {self.name!r} is not held through this object, so it has no number")
        return self._held[1]

    @property
    def is_held(self) -> bool:
        """Whether this object got it and did not let go."""
        return self._held is not None

    async def acquire(self, *, timeout: float | None = None) -> int:
        """Wait for the lock, and hold it; its number.

        Cancelling and a timeout take the request back; a lock that was granted in that moment is let go.

        Args:
            timeout: seconds; that of `lock()` if not given, `math.inf` for none.

        Raises: KeyTimeoutError; as every call on the store.
        """
        call = self._new_call("lock", (self.name,), self._timeout if timeout is None else timeout)
        keys = await self._enter(call)
        number = await keys.lock(call)
        self._held = keys, number
        return number

    async def release(self, *, timeout: float | None = None) -> None:
        """Let go of it. Cancelled, it is let go all the same.

        Raises:
            UsageError: it is not held through this object.
            KeyOperationError: it was not held any more; somebody else may have had it meanwhile.
            StoreLostError: the link to the store ended, and with that the lock was let go.
        """
        if self._held is None:
            raise UsageError(f"lock {self.name!r} is not held through this object, so it cannot be let go")
        call = self._new_call("unlock", (self.name,), timeout)
        (keys, number), self._held = self._held, None
        if not await keys.unlock(call, number):
            raise KeyOperationError("unlock", self.name, f"it was not held any more with number {number}")

    async def __aenter__(self) -> Lock:
        await self.acquire()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._held is None:
            return  # it was let go inside the block
        if exc is None:
            await self.release()
            return
        with suppress(AiopgError):  # the exception that leaves the block is the one to be seen
            await self.release()
