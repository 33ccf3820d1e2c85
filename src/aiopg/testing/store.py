"""A store for tests: real, on loopback, in a thread of this process."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from aiopg._core.limits import Limits
from aiopg.errors import GroupClosedError
from aiopg.loops import LoopThread
from aiopg.server import StoreServer
from aiopg.tls import Encryption
from aiopg.tokens import Tokens

__all__ = ["LocalStore"]


class LocalStore:
    """A `StoreServer` on a free port of 127.0.0.1, as a context manager of blocking and asynchronous tests alike.

    ::

        with LocalStore() as store:
            group = StatelessGroup.connect(store.url, rank=0, world_size=1)

    It serves on an event loop of its own in a thread, so a test may block without stalling the other members, may have
    any event loop or none, and starts and ends in milliseconds. Leaving the block ends every session; calls that wait
    at a member raise `StoreLostError`.

    Args:
        token, ssl, limits: as for `StoreServer`.

    Raises what `StoreServer` raises for wrong arguments.
    """

    def __init__(
        self, *, token: Tokens | None = None, ssl: Encryption | None = None, limits: Limits | None = None
    ) -> None:
        self._server = StoreServer(token=token, ssl=ssl, limits=limits)
        self._thread: LoopThread | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<LocalStore {self._server!r}>"

    @property
    def url(self) -> str:
        """Where it is, once started: `aiopg://127.0.0.1:port`."""
        return self._server.address

    @property
    def address(self) -> str:
        """The same, under the name that a `StoreServer` has for it."""
        return self._server.address

    def start(self) -> None:
        """Serve. `with` does this. Raises `GroupClosedError` the second time, and what `StoreServer.start` raises."""
        if self._thread is not None or self._closed:
            raise GroupClosedError("a LocalStore is started once")
        self._thread = thread = LoopThread("aiopg store for tests")
        try:
            thread.submit(self._server.start()).result()
        except BaseException:
            thread.stop()
            raise

    def close(self) -> None:
        """Stop serving and free the address; waits for that. Closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        if self._thread is None:
            return
        try:
            self._thread.submit(self._server.close()).result()
        finally:
            self._thread.stop()

    def describe(self) -> dict[str, object]:
        """State of the store: groups, members, open rounds, bytes. Plain values. Waits for the store's thread.

        Raises `GroupClosedError` if it does not serve.
        """
        if self._thread is None or self._closed:
            raise GroupClosedError("the store does not serve")

        async def describe() -> dict[str, object]:
            return self._server.describe()

        return self._thread.submit(describe()).result()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()
