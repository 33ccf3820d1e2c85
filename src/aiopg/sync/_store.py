"""`Store`: the same keys for programs that block."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, NoReturn, Self

from aiopg.arguments import check_grace, check_timeout
from aiopg.keys import DEFAULT_TIMEOUT, AsyncStore, Items, Value, Watch
from aiopg.sync._lock import BlockingLock
from aiopg.sync._runner import Runner, start
from aiopg.sync._watch import BlockingWatch
from aiopg.tls import Encryption

__all__ = ["Store"]


class Store:
    """Keys and values on a store, with calls that block. Made by `connect`; a `StatelessGroup` has one (`.store`). ::

        with Store.connect("aiopg://store:29400") as store:
            store.set("model/version", "7")
            version = store.get("model/version")      # b"7"; waits until the key is there

    The methods, their parameters, rules and errors are those of `AsyncStore`; only `await` is gone. It has an event
    loop of its own (that of a group has the group's), as a `StatelessGroup` has, so it can be used from a plain script,
    from several threads at once, and from inside a running event loop, which it blocks.

    Ctrl-C, or anything else that a signal handler raises, ends a waiting call; it is taken back as if it had timed out,
    and the store stays usable. In a forked child every call raises `ForkError` and `close()` does nothing.
    """

    _store: AsyncStore
    _runner: Runner
    _owns_runner: bool
    _underlying: Self | None

    def __init__(self) -> None:
        raise TypeError(f"a {type(self).__name__} is made by {type(self).__name__}.connect(url)")

    @classmethod
    def _over(cls, store: AsyncStore, runner: Runner, *, owns_runner: bool = False) -> Self:
        made = cls.__new__(cls)
        made._store, made._runner, made._owns_runner, made._underlying = store, runner, owns_runner, None
        return made

    @classmethod
    def connect(
        cls,
        url: str,
        *,
        token: str | None = None,
        ssl: Encryption | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        reconnect_grace: float = 5.0,
    ) -> Self:
        """See `AsyncStore.connect`."""
        check_timeout(timeout)  # here, before a thread is begun for it
        check_grace(reconnect_grace)
        return cls._made_by(
            lambda: AsyncStore.connect(url, token=token, ssl=ssl, timeout=timeout, reconnect_grace=reconnect_grace)
        )

    @classmethod
    def _made_by(cls, make: Callable[[], Coroutine[Any, Any, AsyncStore]]) -> Self:
        """On a loop of its own."""
        thread, store = start("aiopg store", make)
        return cls._over(
            store, Runner(thread, f"the store at {store.url}", store.close, owns_thread=True), owns_runner=True
        )

    # ---------------------------------------------------------------------------------------------- life cycle

    def close(self) -> None:
        """See `AsyncStore.close`; also ends the loop thread. Closing twice is fine."""
        if self._owns_runner:
            self._runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def clone(self) -> Self:
        """See `AsyncStore.clone`; on a loop thread of its own."""
        self._runner.check_place()
        made = self._made_by(self._store._clone)
        prefixed = made._chain(made._store)
        prefixed._owns_runner = True
        return prefixed

    def _chain(self, store: AsyncStore) -> Self:
        """Of a store on the loop of this one, with the stores that it was made from."""
        if store.underlying is store:
            return type(self)._over(store, self._runner)
        made = type(self)._over(store, self._runner)
        made._underlying = self._chain(store.underlying)
        return made

    def __repr__(self) -> str:
        return repr(self._store).replace("AsyncStore", type(self).__name__, 1)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} is a connection and cannot be pickled; hand its url on and connect() there"
        )

    @property
    def url(self) -> str:
        """See `AsyncStore.url`."""
        return self._store.url

    @property
    def timeout(self) -> float:
        """Seconds that a call without timeout= may take."""
        return self._store.timeout

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        self._store.timeout = check_timeout(seconds)

    @property
    def prefix(self) -> str:
        """What its keys begin with on the store."""
        return self._store.prefix

    # ---------------------------------------------------------------------------------------------- whose keys

    def with_prefix(self, prefix: str) -> Self:
        """See `AsyncStore.with_prefix`."""
        made = type(self)._over(self._store.with_prefix(prefix), self._runner)
        made._underlying = self
        return made

    @property
    def underlying(self) -> Self:
        """See `AsyncStore.underlying`."""
        return self._underlying or self

    @property
    def innermost(self) -> Self:
        """See `AsyncStore.innermost`."""
        store = self
        while store._underlying is not None:
            store = store._underlying
        return store

    @property
    def shared(self) -> Store:
        """See `AsyncStore.shared`."""
        return Store._over(self._store.shared, self._runner)

    # ---------------------------------------------------------------------------------------------- keys

    def set(
        self, key: str, value: Value, *, ttl: float | None = None, session: bool = False, timeout: float | None = None
    ) -> int:
        """See `AsyncStore.set`."""
        return self._runner.call(lambda: self._store.set(key, value, ttl=ttl, session=session, timeout=timeout))

    def multi_set(
        self, items: Items, *, ttl: float | None = None, session: bool = False, timeout: float | None = None
    ) -> int:
        """See `AsyncStore.multi_set`."""
        return self._runner.call(lambda: self._store.multi_set(items, ttl=ttl, session=session, timeout=timeout))

    def get(self, key: str, *, timeout: float | None = None) -> bytes:
        """See `AsyncStore.get`."""
        return self._runner.call(lambda: self._store.get(key, timeout=timeout))

    def multi_get(self, keys: Sequence[str], *, timeout: float | None = None) -> list[bytes]:
        """See `AsyncStore.multi_get`."""
        return self._runner.call(lambda: self._store.multi_get(keys, timeout=timeout))

    def wait(self, keys: str | Sequence[str], *, timeout: float | None = None) -> None:
        """See `AsyncStore.wait`."""
        self._runner.call(lambda: self._store.wait(keys, timeout=timeout))

    def check(self, keys: str | Sequence[str], *, timeout: float | None = None) -> bool:
        """See `AsyncStore.check`."""
        return self._runner.call(lambda: self._store.check(keys, timeout=timeout))

    def add(self, key: str, amount: int = 1, *, timeout: float | None = None) -> int:
        """See `AsyncStore.add`."""
        return self._runner.call(lambda: self._store.add(key, amount, timeout=timeout))

    def append(self, key: str, value: Value, *, timeout: float | None = None) -> int:
        """See `AsyncStore.append`."""
        return self._runner.call(lambda: self._store.append(key, value, timeout=timeout))

    def compare_set(
        self, key: str, expected: Value | None, desired: Value, *, timeout: float | None = None
    ) -> tuple[bool, bytes | None]:
        """See `AsyncStore.compare_set`."""
        return self._runner.call(lambda: self._store.compare_set(key, expected, desired, timeout=timeout))

    def delete_key(self, key: str, *, timeout: float | None = None) -> bool:
        """See `AsyncStore.delete_key`."""
        return self._runner.call(lambda: self._store.delete_key(key, timeout=timeout))

    def list_keys(self, prefix: str = "", *, timeout: float | None = None) -> list[str]:
        """See `AsyncStore.list_keys`."""
        return self._runner.call(lambda: self._store.list_keys(prefix, timeout=timeout))

    def num_keys(self, *, timeout: float | None = None) -> int:
        """See `AsyncStore.num_keys`."""
        return self._runner.call(lambda: self._store.num_keys(timeout=timeout))

    # ---------------------------------------------------------------------------------------------- queues

    def queue_push(self, key: str, value: Value, *, timeout: float | None = None) -> int:
        """See `AsyncStore.queue_push`."""
        return self._runner.call(lambda: self._store.queue_push(key, value, timeout=timeout))

    def queue_pop(self, key: str, *, block: bool = True, timeout: float | None = None) -> bytes:
        """See `AsyncStore.queue_pop`."""
        return self._runner.call(lambda: self._store.queue_pop(key, block=block, timeout=timeout))

    def queue_len(self, key: str, *, timeout: float | None = None) -> int:
        """See `AsyncStore.queue_len`."""
        return self._runner.call(lambda: self._store.queue_len(key, timeout=timeout))

    # ---------------------------------------------------------------------------------------------- together

    def barrier(self, key: str, world_size: int, *, timeout: float | None = None) -> None:
        """See `AsyncStore.barrier`."""
        self._runner.call(lambda: self._store.barrier(key, world_size, timeout=timeout))

    def watch(self, prefix: str = "", *, revision: int | None = None, timeout: float = math.inf) -> BlockingWatch:
        """See `AsyncStore.watch`; an iterator whose steps block."""

        async def watch() -> Watch:
            return self._store.watch(prefix, revision=revision, timeout=timeout)

        return BlockingWatch(self._runner.call(watch), self._runner)

    def lock(self, name: str, *, timeout: float | None = None) -> BlockingLock:
        """See `AsyncStore.lock`; a context manager."""
        self._runner.check_place()
        return BlockingLock(self._store.lock(name, timeout=timeout), self._runner)
