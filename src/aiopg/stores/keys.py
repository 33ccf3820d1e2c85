"""The contract of a key space: what `AsyncStore` asks of whatever store it talks to.

A space is a set of keys and queues of its own: the store's, or that of one incarnation of a group, which ends with it.
A key is text, a value is bytes that the store never looks into (but `add`, which reads a number in decimal). A queue
has a name like a key's, and lives beside the key of that name.

Every verb keeps the rules of `stores.base`: its deadline, its place in call order, once, and cancel takes it back. A
`pop` that is cancelled when its item was on the way already puts it back at the queue's head; a `lock` that is
cancelled when it was granted already is let go.

*Revisions* count the changes of a space, from 1: each `set`, `add`, `append`, `compare_set` that changed something,
deletion and expiry of a key has the next one. Queues, meetings and locks are in no history.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from aiopg._core.key_messages import FROM_NOW
from aiopg.errors import KeyTimeoutError, describe_keys
from aiopg.stores.timed import Places, Timed

__all__ = ["FROM_NOW", "Following", "KeyCall", "KeyEvent", "Keys"]

logger = logging.getLogger("aiopg.store")


@dataclass(slots=True, eq=False)
class KeyCall(Timed[KeyTimeoutError]):
    """One call on keys in progress: what it is about, its deadline, and how it complains."""

    op: str
    keys: tuple[str, ...]
    """Those that the call waits for, or is about."""
    loop: asyncio.AbstractEventLoop
    started: float
    deadline: float
    expected: int | None = None
    """How many are to come to a meeting; None for the other calls."""

    def _timeout(self, arrived: Places, missing: Places) -> KeyTimeoutError:
        # Places are those of the call's keys, from 0; for a meeting, those of the members that are to come.
        known = missing is not None and arrived is not None
        meeting = known and self.expected is not None
        return KeyTimeoutError(
            self.op,
            self.keys,
            None if missing is None else () if meeting else [self.keys[place] for place in missing],
            len(arrived) if meeting and arrived is not None else None,
            self.expected if meeting else None,
            self.deadline - self.started,
            self.elapsed,
        )

    def warn(self, arrived: Places, missing: Places) -> None:
        """Log that the call waits for long, and for what."""
        lacks: list[str] | None = None
        if missing is None or arrived is None:
            what = "the store did not say what is missing"
        elif self.expected is not None:
            what = f"{len(arrived)}/{self.expected} arrived"
        else:
            lacks = [self.keys[place] for place in missing]
            what = f"missing: {describe_keys(lacks)}"
        logger.warning(
            "%s of %s waits for %.0f s; %s",
            self.op,
            describe_keys(self.keys),
            self.elapsed,
            what,
            extra={
                "op": self.op,
                "keys": self.keys,
                "elapsed": self.elapsed,
                "missing": lacks,
                "arrived": None if arrived is None else len(arrived),
                "expected": self.expected,
            },
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyEvent:
    """A key of a space changed.

    Attributes:
        kind: "set" (by any call that gives it a value), "deleted", "expired" (its ttl ran out) or "ended" (so did the
            session, or the membership, whose key it was).
        key: which.
        value: what it holds now; None where it is gone.
        revision: number of this change in its space.
    """

    kind: Literal["set", "deleted", "expired", "ended"]
    key: str
    value: bytes | None
    revision: int


class Keys(ABC):
    """One key space, as this process's link to the store sees it.

    Every verb raises `KeyTimeoutError` at its deadline, `StoreLostError` if the link ended, `AuthenticationError` if
    the link's token is not for this space, and what its group's calls raise if the space is a group's
    (`GroupAbortedError`, `FencedError`). Whoever calls has checked keys, sizes and numbers.
    """

    @abstractmethod
    async def set(self, call: KeyCall, items: Sequence[tuple[str, bytes]], *, ttl: float | None, session: bool) -> int:
        """Give keys values, all at once; the revision of the last one.

        Args:
            ttl: seconds for which they are kept; None for ever.
            session: whether they go with the link (or with the membership, in a group's space).

        Raises: StoreFullError.
        """

    @abstractmethod
    async def get(self, call: KeyCall) -> list[bytes]:
        """The values of `call.keys`, in their order, as soon as all are there. Raises: PayloadTooLargeError."""

    @abstractmethod
    async def wait(self, call: KeyCall) -> None:
        """Wait until each of `call.keys` is a key, or a queue that holds something."""

    @abstractmethod
    async def check(self, call: KeyCall) -> bool:
        """Whether that is so now."""

    @abstractmethod
    async def add(self, call: KeyCall, amount: int) -> int:
        """Add to the number that a key holds, 0 if it is not there; the sum. Its ttl and session stay.

        Raises: KeyOperationError (it holds no whole number of 64 bits, or would not), StoreFullError.
        """

    @abstractmethod
    async def append(self, call: KeyCall, value: bytes) -> int:
        """Append to a key's value, or create it; the length in bytes. Its ttl and session stay.

        Raises: PayloadTooLargeError, StoreFullError.
        """

    @abstractmethod
    async def compare_set(self, call: KeyCall, expected: bytes | None, desired: bytes) -> tuple[bool, bytes | None]:
        """Give a key a value if it holds `expected` (None: if it is not there); whether so, and what it holds now.

        Its ttl and session stay. Raises: StoreFullError.
        """

    @abstractmethod
    async def delete(self, call: KeyCall) -> int:
        """Delete `call.keys`, and the queues of these names; how many there were."""

    @abstractmethod
    async def list(self, call: KeyCall, prefix: str) -> list[str]:
        """Names of the keys, and of the queues that hold something, that begin with `prefix`; sorted."""

    @abstractmethod
    async def count(self, call: KeyCall, prefix: str) -> int:
        """How many those are."""

    @abstractmethod
    async def push(self, call: KeyCall, value: bytes) -> int:
        """Append an item to a queue; how many it holds then (0: one who waited has it). Raises: StoreFullError."""

    @abstractmethod
    async def pop(self, call: KeyCall, *, wait: bool) -> bytes:
        """Take the head of a queue. Raises: QueueEmptyError if there is none and it is not to wait for one."""

    @abstractmethod
    async def length(self, call: KeyCall) -> int:
        """How many items a queue holds."""

    @abstractmethod
    async def meet(self, call: KeyCall) -> None:
        """Wait until `call.expected` callers have come to the meeting of this name; then it begins anew.

        Raises: KeyOperationError (others came with another number).
        """

    @abstractmethod
    async def lock(self, call: KeyCall) -> int:
        """Hold the lock of this name alone, in the order of asking; a number that only grows (a fencing number).

        It is let go when the link ends (or the membership, in a group's space).
        """

    @abstractmethod
    async def unlock(self, call: KeyCall, number: int) -> bool:
        """Let go of a lock that was got with this number. False: it was not held any more.

        Cancelled or timed out, it takes effect all the same.
        """

    @abstractmethod
    def follow(self, prefix: str, after: int) -> Following:
        """Ask for the changes of keys that begin with `prefix`, those after revision `after`, from this moment on."""


class Following(ABC):
    """Changes on their way here. Nothing is lost between two calls of `changes`, whether they ended well or not."""

    @abstractmethod
    async def changes(self, call: KeyCall) -> list[KeyEvent]:
        """The next ones, at least one. Raises: WatchGapError."""

    @abstractmethod
    def close(self) -> None:
        """No more are wanted; a `changes` that waits raises `GroupClosedError`. Twice is fine."""
