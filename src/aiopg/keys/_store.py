"""`AsyncStore`: keys, queues, watches and locks, as a program holds them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import NoReturn, Self, TypeAlias

from aiopg import forks
from aiopg.arguments import check_grace, check_timeout
from aiopg.errors import UsageError
from aiopg.keys._arguments import check_prefix
from aiopg.keys._space import LinkSpace, Space
from aiopg.keys._verbs import KeyVerbs
from aiopg.stores import open_link
from aiopg.stores.base import StoreLink
from aiopg.tls import Encryption
from aiopg.tokens import member_token

__all__ = ["DEFAULT_TIMEOUT", "AsyncStore"]

DEFAULT_TIMEOUT = 300.0

Opener: TypeAlias = Callable[[], Awaitable[StoreLink]]


class AsyncStore(KeyVerbs):
    """Keys and values on a store: what processes tell each other without being a group.

    Made by `connect`; a group has one of its own (`AsyncStatelessGroup.store`), whose keys are private to the group's
    incarnation and end with it. ::

        async with await AsyncStore.connect("aiopg://store:29400") as store:
            await store.set("model/version", "7")
            version = await store.get("model/version")      # b"7"; waits until the key is there

    *Values* are text (kept as UTF-8) or bytes, and come out as bytes; an empty value is a value. *Keys* are text of 1
    to 1,024 bytes in UTF-8, prefixes included. A *queue* has a name like a key's and lives beside the key of that name.

    *Deadlines.* Every call has `timeout=`: seconds, the store's own if not given, `math.inf` for none. At its deadline
    it raises `KeyTimeoutError` (also a builtin `TimeoutError`), which names the keys that are missing.

    *Cancelling* a call takes it back, unless it took effect already: a `set` that is cancelled may have been done, an
    item of a cancelled `queue_pop` is the queue's head again, a cancelled `lock` is let go. The store stays usable.

    *Revisions* count the changes of the keys of one space, from 1; `set`, `multi_set` and `watch` speak of them.

    Besides what is listed with it, every call raises `StoreLostError` (the link to the store ended),
    `AuthenticationError` (this token is not for these keys), `GroupClosedError` (this process closed the store),
    `ForkError` (in a forked child) and `WrongThreadError` (in another event loop); on a group's keys also what joining
    it raises, and `GroupAbortedError` and `FencedError`. Any number of calls may run at once. What they send is sent in
    call order.

    Args:
        link: a link of one's own (`aiopg.stores.open_link`), whose keys are those of the store itself. It is not
            closed with this object.
        timeout: seconds that a call without timeout= may take.

    Attributes:
        timeout: see above.
        prefix: what its keys begin with on the store, "" or text and "/".
    """

    def __init__(self, link: StoreLink, *, timeout: float = DEFAULT_TIMEOUT) -> None:
        if not isinstance(link, StoreLink):
            raise TypeError(f"link must be a StoreLink, not {link!r:.200}; AsyncStore.connect(url) opens one")
        self._begin(LinkSpace(link), timeout)

    def _begin(self, space: Space, timeout: float) -> None:
        self.timeout = check_timeout(timeout)
        self.prefix = ""
        self._space = space
        self._underlying: Self | None = None
        self._owns_link = False
        self._closed = False
        self._open_again: Opener | None = None

    @classmethod
    def _over(cls, space: Space, timeout: float) -> Self:
        """A store of other keys than the link's own."""
        made = cls.__new__(cls)
        made._begin(space, timeout)
        return made

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        token: str | None = None,
        ssl: Encryption | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        reconnect_grace: float = 5.0,
    ) -> Self:
        """Open a store that runs, or is coming up: `aiopg://host:port`, `unix:///path`, `memory://name`, ...

        Args:
            url: where it is.
            token: what the store and this process both know; that of AIOPG_TOKEN in the environment if not given.
            ssl: encryption: `aiopg.Tls` or an `ssl.SSLContext`; that of AIOPG_TLS_CA, AIOPG_TLS_CERT and AIOPG_TLS_KEY
                in the environment if not given.
            timeout: seconds to wait for the store, and the default timeout of the calls.
            reconnect_grace: seconds for which the store keeps this session (its locks, its keys with `session=True`)
                when the connection breaks. It is made anew meanwhile, and nobody notices.

        Raises:
            ValueError, TypeError: an argument makes no sense.
            StoreUnreachableError: no store there; at once where waiting does not help, else at the timeout.
            AuthenticationError: the store and this process do not share a token.
        """
        check_timeout(timeout)
        check_grace(reconnect_grace)
        member_token(token)

        async def open_one() -> StoreLink:
            return await open_link(url, timeout=timeout, grace=reconnect_grace, token=token, ssl=ssl)

        return cls._owning(await open_one(), timeout, open_one)

    @classmethod
    def _owning(cls, link: StoreLink, timeout: float, open_again: Opener) -> Self:
        made = cls._over(LinkSpace(link), timeout)
        made._owns_link, made._open_again = True, open_again
        return made

    # ---------------------------------------------------------------------------------------------- life cycle

    async def close(self) -> None:
        """Close the link to the store. Calls that wait raise `GroupClosedError`. Closing twice is fine.

        Keys with `session=True` and locks of this link end with it. Only the store that `connect` or `clone` returned
        closes its link: on another one (a group's, one made by `with_prefix`, one over a link of one's own) this does
        nothing, since others use that link.
        """
        if self._owns_link and not self._is_forked:
            self._closed = True
            await self.link.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close()

    async def clone(self) -> Self:
        """The same keys over a connection of its own, which is to be closed by itself.

        Raises: UsageError (the store was not made by `connect`); as `connect`.
        """
        self._space.check()
        return await self._clone()

    async def _clone(self) -> Self:
        """That, for the event loop that runs here."""
        if self._open_again is None:
            raise UsageError(f"{self!r} was not made by AsyncStore.connect, so how to connect again is not known here")
        link = await self._open_again()
        made = self._owning(link, self.timeout, self._open_again)
        for prefix in self._prefixes():
            made = made.with_prefix(prefix)
        made._owns_link = True
        return made

    def __repr__(self) -> str:
        space = self._space.describe()
        prefix = f" prefix {self.prefix!r}" if self.prefix else ""
        closed = ", closed" if self._closed else ""
        return f"<{type(self).__name__} {self.url}{f' {space}' if space else ''}{prefix}{closed}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} is a connection and cannot be pickled; hand its url on and connect() there"
        )

    @property
    def url(self) -> str:
        """Where the store is; `connect(url)` in another process reaches the same one."""
        return self.link.url

    @property
    def _is_forked(self) -> bool:
        return isinstance(self._space, LinkSpace) and self._space.forks != forks.count

    # ---------------------------------------------------------------------------------------------- whose keys

    def with_prefix(self, prefix: str) -> Self:
        """The keys of this store that begin with `prefix` and "/", named without it: `torch.distributed.PrefixStore`.

        Prefixes nest: `store.with_prefix("a").with_prefix("b")` calls "a/b/x" of `store` "x". It uses this store's
        link; `list_keys`, `num_keys`, `watch`, queues, barriers and locks are behind the prefix too. Errors name keys
        as the store has them.

        Raises: ValueError, TypeError (it is no text, or empty, or too long).
        """
        if prefix is None or prefix == "":
            raise ValueError(f"prefix must be text that is not empty, not {prefix!r}")
        made = type(self).__new__(type(self))
        made.__dict__.update(self.__dict__)
        made.prefix = check_prefix(prefix + "/" if isinstance(prefix, str) else prefix, self.prefix)
        made._underlying = self
        made._owns_link = False
        return made

    @property
    def underlying(self) -> Self:
        """The store that `with_prefix` was called on; of another one, itself."""
        return self._underlying or self

    @property
    def innermost(self) -> Self:
        """The store without any prefix."""
        store = self
        while store._underlying is not None:
            store = store._underlying
        return store

    @property
    def shared(self) -> AsyncStore:
        """The keys of the store itself, over the same link, without prefix: the way out of a group's private ones."""
        return AsyncStore._over(self._space.shared, self.timeout)

    def _prefixes(self) -> list[str]:
        """Those that were nested, the outer first."""
        outer = self._underlying
        if outer is None:
            return []
        return [*outer._prefixes(), self.prefix[len(outer.prefix) : -1]]
