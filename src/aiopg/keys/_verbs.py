"""The calls on keys, queues, barriers, watches and locks."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

from aiopg.arguments import check_timeout
from aiopg.errors import PayloadTooLargeError
from aiopg.keys._arguments import (
    Items,
    Value,
    as_value,
    check_amount,
    check_count,
    check_key,
    check_keys,
    check_prefix,
    check_revision,
    check_ttl,
    pairs_of,
)
from aiopg.keys._lock import Lock
from aiopg.keys._space import Space
from aiopg.keys._watch import Watch
from aiopg.stores.base import StoreLink
from aiopg.stores.keys import FROM_NOW, KeyCall, Keys

__all__ = ["KeyVerbs"]


class KeyVerbs:
    """What a store can be asked. See `AsyncStore`."""

    timeout: float
    prefix: str
    _space: Space

    @property
    def link(self) -> StoreLink:
        """The link to the store that it talks over."""
        return self._space.link

    # ---------------------------------------------------------------------------------------------- keys

    async def set(
        self, key: str, value: Value, *, ttl: float | None = None, session: bool = False, timeout: float | None = None
    ) -> int:
        """Give a key a value, whatever it held; the revision of that change.

        Args:
            ttl: seconds after which the key is gone; for ever if not given. A later `set` counts anew.
            session: whether the key goes with this process's link to the store (of a group's keys: when this member
                leaves or is lost). A later `set` decides anew.

        Raises:
            PayloadTooLargeError: the value is over the store's limit.
            StoreFullError: the store holds too much.
        """
        return await self._set([(check_key(key, self.prefix), as_value("value", value))], "set", ttl, session, timeout)

    async def multi_set(
        self, items: Items, *, ttl: float | None = None, session: bool = False, timeout: float | None = None
    ) -> int:
        """Give 1 to 1,024 keys values, all at once or none; the revision of the last one. Else as `set`.

        Args:
            items: a mapping of keys to values, in whose order they are set.
        """
        return await self._set(pairs_of(items, self.prefix), "multi_set", ttl, session, timeout)

    async def _set(
        self, items: list[tuple[str, bytes]], op: str, ttl: float | None, session: bool, timeout: float | None
    ) -> int:
        ttl = check_ttl(ttl)
        self._check_size(*[value for _, value in items])
        call = self._new_call(op, tuple([key for key, _ in items]), timeout)
        keys = self._space.keys() or await self._space.enter(call)
        return await keys.set(call, items, ttl=ttl, session=bool(session))

    async def get(self, key: str, *, timeout: float | None = None) -> bytes:
        """The value of a key, as soon as it is there."""
        call = self._new_call("get", (check_key(key, self.prefix),), timeout)
        keys = self._space.keys() or await self._space.enter(call)
        (value,) = await keys.get(call)
        return value

    async def multi_get(self, keys: Sequence[str], *, timeout: float | None = None) -> list[bytes]:
        """The values of 1 to 1,024 keys in their order, at one moment, as soon as all are there.

        Raises: PayloadTooLargeError (they are too large together).
        """
        call = self._new_call("multi_get", check_keys(keys, self.prefix), timeout)
        space = self._space.keys() or await self._space.enter(call)
        return await space.get(call)

    async def wait(self, keys: str | Sequence[str], *, timeout: float | None = None) -> None:
        """Wait until a key, or each of 1 to 1,024, is there: as a key, or as a queue that holds something."""
        call = self._new_call("wait", self._names(keys), timeout)
        space = self._space.keys() or await self._space.enter(call)
        await space.wait(call)

    async def check(self, keys: str | Sequence[str], *, timeout: float | None = None) -> bool:
        """Whether that is so now. Does not wait for keys."""
        call = self._new_call("check", self._names(keys), timeout)
        space = self._space.keys() or await self._space.enter(call)
        return await space.check(call)

    async def add(self, key: str, amount: int = 1, *, timeout: float | None = None) -> int:
        """Add to the number that a key holds as decimal text, 0 if it is not there; the sum. Atomic.

        The amount may be negative. What ttl and session the key has stay.

        Raises:
            KeyOperationError: the key holds no whole number, or the sum has over 64 bits. Nothing was changed.
            StoreFullError: the store holds too much.
        """
        call = self._new_call("add", (check_key(key, self.prefix),), timeout)
        amount = check_amount(amount)
        keys = self._space.keys() or await self._space.enter(call)
        return await keys.add(call, amount)

    async def append(self, key: str, value: Value, *, timeout: float | None = None) -> int:
        """Append to a key's value, or create it; the length of all in bytes. What ttl and session it has stay.

        Raises: PayloadTooLargeError, StoreFullError.
        """
        data = as_value("value", value)
        self._check_size(data)
        call = self._new_call("append", (check_key(key, self.prefix),), timeout)
        keys = self._space.keys() or await self._space.enter(call)
        return await keys.append(call, data)

    async def compare_set(
        self, key: str, expected: Value | None, desired: Value, *, timeout: float | None = None
    ) -> tuple[bool, bytes | None]:
        """Give a key a value if it holds the expected one; whether that was so, and what it holds now.

        Args:
            expected: the value that it is to hold; None if it is not to be there.
            desired: the value to give it.

        Returns: (True, desired), or (False, what it holds; None if it is not there).

        Raises: PayloadTooLargeError, StoreFullError.
        """
        old = None if expected is None else as_value("expected", expected)
        new = as_value("desired", desired)
        self._check_size(old or b"", new)
        call = self._new_call("compare_set", (check_key(key, self.prefix),), timeout)
        keys = self._space.keys() or await self._space.enter(call)
        return await keys.compare_set(call, old, new)

    async def delete_key(self, key: str, *, timeout: float | None = None) -> bool:
        """Delete a key, and the queue of that name; whether there was one."""
        call = self._new_call("delete_key", (check_key(key, self.prefix),), timeout)
        keys = self._space.keys() or await self._space.enter(call)
        return await keys.delete(call) > 0

    async def list_keys(self, prefix: str = "", *, timeout: float | None = None) -> list[str]:
        """Names of the keys, and of the queues that hold something, that begin with `prefix`; sorted.

        Raises: PayloadTooLargeError (there are too many; ask for fewer by a longer prefix).
        """
        whole = check_prefix(prefix, self.prefix)
        call = self._new_call("list_keys", (whole,), timeout)
        keys = self._space.keys() or await self._space.enter(call)
        hidden = len(self.prefix)
        return [key[hidden:] for key in await keys.list(call, whole)]

    async def num_keys(self, *, timeout: float | None = None) -> int:
        """How many keys there are, and queues that hold something."""
        call = self._new_call("num_keys", (self.prefix,), timeout)
        keys = self._space.keys() or await self._space.enter(call)
        return await keys.count(call, self.prefix)

    # ---------------------------------------------------------------------------------------------- queues

    async def queue_push(self, key: str, value: Value, *, timeout: float | None = None) -> int:
        """Append an item to a queue; how many it holds then (0: one who waited has it).

        Raises: PayloadTooLargeError, StoreFullError.
        """
        data = as_value("value", value)
        self._check_size(data)
        call = self._new_call("queue_push", (check_key(key, self.prefix),), timeout)
        keys = self._space.keys() or await self._space.enter(call)
        return await keys.push(call, data)

    async def queue_pop(self, key: str, *, block: bool = True, timeout: float | None = None) -> bytes:
        """Take the head of a queue; first come, first served.

        Cancelled or timed out when its item was on the way, it puts the item back at its place. An item goes back, too,
        if its consumer's session ends before the store knows that the item arrived: a consumer that dies in that moment
        may have had it, so who must not do a thing twice has to remember what it did. An item is lost only with a
        consumer that gave the call up and ends, cut off from the store, before it could put the item back.

        Args:
            block: whether to wait for an item where there is none.

        Raises: QueueEmptyError (also a builtin LookupError): there is none, and it is not to wait.
        """
        call = self._new_call("queue_pop", (check_key(key, self.prefix),), timeout)
        keys = self._space.keys() or await self._space.enter(call)
        return await keys.pop(call, wait=bool(block))

    async def queue_len(self, key: str, *, timeout: float | None = None) -> int:
        """How many items a queue holds."""
        call = self._new_call("queue_len", (check_key(key, self.prefix),), timeout)
        keys = self._space.keys() or await self._space.enter(call)
        return await keys.length(call)

    # ---------------------------------------------------------------------------------------------- together

    async def barrier(self, key: str, world_size: int, *, timeout: float | None = None) -> None:
        """Wait until `world_size` callers have come to the barrier of this name; then it can be used again.

        It is no key and leaves nothing behind. At its deadline the error says how many had come, and this caller is
        taken out.

        Raises: KeyOperationError (others came with another world_size).
        """
        call = self._new_call("barrier", (check_key(key, self.prefix),), timeout, check_count(world_size))
        keys = self._space.keys() or await self._space.enter(call)
        await keys.meet(call)

    def watch(self, prefix: str = "", *, revision: int | None = None, timeout: float = math.inf) -> Watch:
        """The changes of keys that begin with `prefix`, as an async iterator; see `Watch`. Queues are in none.

        Args:
            revision: tell the changes after this one (0: all since the beginning); those from now on if not given.
                The store keeps the last ones: of a space 4,096, up to 4 MiB.
            timeout: seconds that each step may wait.

        Raises: what every call raises; the rest at the first step. A group that is not joined yet is joined there, and
            then "from now on" is from that moment.
        """
        whole = check_prefix(prefix, self.prefix)
        after = FROM_NOW if revision is None else check_revision(revision)
        check_timeout(timeout)
        self._space.check()
        hidden = len(self.prefix)
        return Watch(self._space, whole, after, hidden=hidden, new_call=self._new_call, timeout=timeout)

    def lock(self, name: str, *, timeout: float | None = None) -> Lock:
        """The lock of this name, not yet held; see `Lock`. It is no key.

        Args:
            timeout: seconds to wait for it; the store's if not given.
        """
        if timeout is not None:
            check_timeout(timeout)
        return Lock(check_key(name, self.prefix), timeout, new_call=self._new_call, enter=self._enter)

    # ---------------------------------------------------------------------------------------------- one call

    def _new_call(self, op: str, keys: tuple[str, ...], timeout: float | None, expected: int | None = None) -> KeyCall:
        """A call that begins now. Raises what makes it impossible."""
        self._space.check()
        seconds = self.timeout if timeout is None else check_timeout(timeout)
        loop = asyncio.get_running_loop()
        now = loop.time()
        return KeyCall(op, keys, loop, now, now + seconds, expected)

    async def _enter(self, call: KeyCall) -> Keys:
        return self._space.keys() or await self._space.enter(call)

    def _names(self, keys: str | Sequence[str]) -> tuple[str, ...]:
        return (check_key(keys, self.prefix),) if isinstance(keys, str) else check_keys(keys, self.prefix)

    def _check_size(self, *values: bytes) -> None:
        """Raises `PayloadTooLargeError` before anything is sent."""
        size, limit = sum(map(len, values)), self.link.capabilities.payload_bytes
        if size > limit:
            raise PayloadTooLargeError(size, limit)
