"""`StatelessGroup`: the same group for programs that block."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from socket import socket as Socket
from types import TracebackType
from typing import Any, Self, cast

from aiopg.arguments import check_timeout
from aiopg.codec import Codec
from aiopg.group import AsyncStatelessGroup, MemberEvent, PendingCall, ReduceOp
from aiopg.group._arguments import check_expiration, check_name, check_place
from aiopg.group._base import DEFAULT_TIMEOUT
from aiopg.server.hosting import StoreHost
from aiopg.stores import open_link
from aiopg.stores.base import Tag
from aiopg.sync._runner import Runner, start
from aiopg.sync._shared_loop import SharedLoop
from aiopg.sync._store import Store
from aiopg.tls import Encryption

__all__ = ["StatelessGroup"]


class StatelessGroup:
    """A group of processes, with calls that block: a drop-in for vLLM's `StatelessProcessGroup`.

    The methods, their parameters, rules and errors are those of `AsyncStatelessGroup`; only `await` is gone. It has an
    event loop of its own, which the thread of a call runs until the call has ended, and a daemon thread between calls.
    So it can be used from a plain script, from several threads at once (each waits for its own call), and from inside a
    running event loop such as a notebook's (which it blocks).

    Ctrl-C, or anything else that a signal handler raises, ends a waiting call; it is taken back as if it had timed
    out, and the group stays usable. A function of yours that a call runs (a reduce function, what `register_type` was
    given) may run in any thread that calls, and signal handlers wait for its end.

    A program that ends without `close()` says goodbye all the same. In a forked child every call raises `ForkError`,
    and `close()` does nothing; a call from the group's own loop (from a reduce function, say) raises
    `WrongThreadError`; a call that waits while another thread closes the group raises `GroupClosedError`.

    As a context manager it joins on entry and leaves on exit; an exception that leaves the block aborts the group.

    Args:
        rank, world_size: this process's place.
        store: URL of a store that runs (`aiopg://host:port`, `unix:///path`, `memory://name`, `redis://...`,
            `etcd://...`); a `Store` in hand has an event loop of its own and cannot be used here, but its `url` can.
        socket: kept as an attribute only.
        data_expiration_seconds, group, codec, store_timeout: as for `AsyncStatelessGroup`.
    """

    _group: AsyncStatelessGroup
    _runner: Runner
    _store: Store

    def __init__(
        self,
        rank: int,
        world_size: int,
        store: str,
        socket: Socket | None = None,
        data_expiration_seconds: float = 3600,
        *,
        group: str = "default",
        codec: Codec | None = None,
        store_timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        # The store may have to be waited for; what makes no sense is said before.
        check_place(rank, world_size)
        check_name(group)
        check_expiration(data_expiration_seconds)
        check_timeout(store_timeout)

        async def make() -> AsyncStatelessGroup:
            link = await open_link(store, timeout=store_timeout)
            made = AsyncStatelessGroup(
                rank, world_size, link, socket, data_expiration_seconds,
                group=group, codec=codec, store_timeout=store_timeout,
            )  # fmt: skip
            made._owns_store = True
            return made

        self._start(f"aiopg group rank {rank}", make)

    @classmethod
    def create(
        cls,
        host: str,
        port: int,
        rank: int,
        world_size: int,
        data_expiration_seconds: float = 3600,
        store_timeout: float = DEFAULT_TIMEOUT,
        *,
        group: str = "default",
        token: str | None = None,
        ssl: Encryption | None = None,
        insecure: bool = False,
        listen_socket: Socket | None = None,
        codec: Codec | None = None,
        reconnect_grace: float = 5.0,
        store_host: StoreHost = "process",
        takeover: bool = False,
    ) -> Self:
        """See `AsyncStatelessGroup.create`."""
        return cls._made_by(
            f"aiopg group rank {rank}",
            lambda: AsyncStatelessGroup.create(
                host, port, rank, world_size, data_expiration_seconds, store_timeout,
                group=group, token=token, ssl=ssl, insecure=insecure, listen_socket=listen_socket, codec=codec,
                reconnect_grace=reconnect_grace, store_host=store_host, takeover=takeover,
            ),
        )  # fmt: skip

    @classmethod
    def connect(
        cls,
        url: str,
        *,
        rank: int,
        world_size: int,
        group: str = "default",
        token: str | None = None,
        ssl: Encryption | None = None,
        data_expiration_seconds: float = 3600,
        store_timeout: float = DEFAULT_TIMEOUT,
        codec: Codec | None = None,
        reconnect_grace: float = 5.0,
        takeover: bool = False,
    ) -> Self:
        """See `AsyncStatelessGroup.connect`."""
        return cls._made_by(
            f"aiopg group rank {rank}",
            lambda: AsyncStatelessGroup.connect(
                url, rank=rank, world_size=world_size, group=group, token=token, ssl=ssl,
                data_expiration_seconds=data_expiration_seconds, store_timeout=store_timeout, codec=codec,
                reconnect_grace=reconnect_grace, takeover=takeover,
            ),
        )  # fmt: skip

    @classmethod
    def rendezvous(
        cls,
        url: str,
        min_size: int,
        max_size: int | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        *,
        metadata: Any = None,
        last_call: float = 1.0,
        group: str = "default",
        token: str | None = None,
        ssl: Encryption | None = None,
        data_expiration_seconds: float = 3600,
        store_timeout: float = DEFAULT_TIMEOUT,
        codec: Codec | None = None,
        reconnect_grace: float = 5.0,
    ) -> Self:
        """See `AsyncStatelessGroup.rendezvous`."""
        return cls._made_by(
            "aiopg group",
            lambda: AsyncStatelessGroup.rendezvous(
                url, min_size, max_size, timeout,
                metadata=metadata, last_call=last_call, group=group, token=token, ssl=ssl,
                data_expiration_seconds=data_expiration_seconds, store_timeout=store_timeout, codec=codec,
                reconnect_grace=reconnect_grace,
            ),
        )  # fmt: skip

    @classmethod
    def from_env(cls, **options: Any) -> Self:
        """See `AsyncStatelessGroup.from_env`."""
        return cls._made_by("aiopg group", lambda: AsyncStatelessGroup.from_env(**options))

    # ---------------------------------------------------------------------------------------------- messages

    def send(self, obj: Any, dst: int, *, tag: Tag = 0, timeout: float | None = None) -> None:
        """See `AsyncStatelessGroup.send`."""
        self._runner.call(lambda: self._group.send(obj, dst, tag=tag, timeout=timeout))

    def recv(self, src: int, *, tag: Tag = 0, timeout: float | None = None) -> Any:
        """See `AsyncStatelessGroup.recv`."""
        return self._runner.call(lambda: self._group.recv(src, tag=tag, timeout=timeout))

    # -------------------------------------------------------------------------------------------- collectives

    def barrier(self, timeout: float | None = 30.0, *, tag: Tag = 0) -> None:
        """See `AsyncStatelessGroup.barrier`."""
        self._runner.call(lambda: self._group.barrier(timeout, tag=tag))

    def broadcast(self, obj: Any = None, src: int = 0, *, tag: Tag = 0, timeout: float | None = None) -> Any:
        """See `AsyncStatelessGroup.broadcast`."""
        return self._runner.call(lambda: self._group.broadcast(obj, src, tag=tag, timeout=timeout))

    def all_gather(self, obj: Any, *, tag: Tag = 0, timeout: float | None = None) -> list[Any]:
        """See `AsyncStatelessGroup.all_gather`."""
        return self._runner.call(lambda: self._group.all_gather(obj, tag=tag, timeout=timeout))

    def gather(self, obj: Any, dst: int = 0, *, tag: Tag = 0, timeout: float | None = None) -> list[Any] | None:
        """See `AsyncStatelessGroup.gather`."""
        return self._runner.call(lambda: self._group.gather(obj, dst, tag=tag, timeout=timeout))

    def scatter(
        self, objs: Sequence[Any] | None = None, src: int = 0, *, tag: Tag = 0, timeout: float | None = None
    ) -> Any:
        """See `AsyncStatelessGroup.scatter`."""
        return self._runner.call(lambda: self._group.scatter(objs, src, tag=tag, timeout=timeout))

    def all_to_all(self, objs: Sequence[Any], *, tag: Tag = 0, timeout: float | None = None) -> list[Any]:
        """See `AsyncStatelessGroup.all_to_all`."""
        return self._runner.call(lambda: self._group.all_to_all(objs, tag=tag, timeout=timeout))

    def all_reduce(self, obj: Any, op: ReduceOp = "sum", *, tag: Tag = 0, timeout: float | None = None) -> Any:
        """See `AsyncStatelessGroup.all_reduce`."""
        return self._runner.call(lambda: self._group.all_reduce(obj, op, tag=tag, timeout=timeout))

    def reduce(
        self, obj: Any, dst: int = 0, op: ReduceOp = "sum", *, tag: Tag = 0, timeout: float | None = None
    ) -> Any:
        """See `AsyncStatelessGroup.reduce`."""
        return self._runner.call(lambda: self._group.reduce(obj, dst, op, tag=tag, timeout=timeout))

    send_obj = send
    recv_obj = recv
    broadcast_obj = broadcast
    all_gather_obj = all_gather

    # --------------------------------------------------------------------------------------------- life cycle

    def join(self, *, timeout: float | None = None, takeover: bool = False) -> None:
        """See `AsyncStatelessGroup.join`."""
        self._runner.call(lambda: self._group.join(timeout=timeout, takeover=takeover))

    def events(self) -> Iterator[MemberEvent]:
        """See `AsyncStatelessGroup.events`; each step blocks until something happens."""
        self._runner.check_place()
        events = self._group.events()

        async def step() -> MemberEvent | None:
            return await anext(events, None)

        return iter(lambda: cast(MemberEvent, self._runner.call(step)), None)

    def expire_data(self) -> None:
        """See `AsyncStatelessGroup.expire_data`."""
        self._runner.call(self._group.expire_data)

    def abort(self, reason: str) -> None:
        """See `AsyncStatelessGroup.abort`."""
        self._runner.call(lambda: self._group.abort(reason))

    def subgroup(self, ranks: Sequence[int], name: str | None = None) -> Self:
        """See `AsyncStatelessGroup.subgroup`. It runs on this group's loop too: close it first."""
        group = self._runner.call(lambda: self._group.subgroup(ranks, name))
        made = type(self).__new__(type(self))
        made._attach(self._runner.thread, group, owns_thread=False)
        return made

    def reform(self, *, metadata: Any = None, timeout: float | None = None) -> Self:
        """See `AsyncStatelessGroup.reform`. The new group goes on in this one's loop thread."""
        group = self._runner.call(lambda: self._group.reform(metadata=metadata, timeout=timeout))
        made = type(self).__new__(type(self))
        made._attach(self._runner.thread, group, owns_thread=self._runner.hand_over())
        return made

    def pending(self) -> tuple[PendingCall, ...]:
        """See `AsyncStatelessGroup.pending`; the calls of all threads."""

        async def look() -> tuple[PendingCall, ...]:
            return self._group.pending()

        return self._runner.call(look)

    def describe(self) -> dict[str, object]:
        """See `AsyncStatelessGroup.describe`; the calls of all threads. It works in a group that was closed, too."""
        if self._runner.closed:
            return self._group.describe()

        async def look() -> dict[str, object]:
            return self._group.describe()

        return self._runner.call(look)

    def close(self) -> None:
        """See `AsyncStatelessGroup.close`; also ends the loop thread. Closing twice is fine."""
        self._runner.close()

    def __enter__(self) -> Self:
        self.join()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._runner.is_forked:
            return  # a child that was forked in the block leaves it as well, with an exception of its own
        try:
            if exc is not None and not self._runner.closed:
                self._runner.call(lambda: self._group.__aexit__(exc_type, exc, tb))
        finally:
            self.close()

    def __repr__(self) -> str:
        return repr(self._group).replace("AsyncStatelessGroup", type(self).__name__, 1)

    # --------------------------------------------------------------------------------------------- attributes

    @property
    def rank(self) -> int:
        """This process's rank."""
        return self._group.rank

    @property
    def world_size(self) -> int:
        """How many ranks the group has."""
        return self._group.world_size

    @property
    def name(self) -> str:
        """The group's name on its store."""
        return self._group.name

    @property
    def store(self) -> Store:
        """A `Store` of keys that are private to the group's incarnation, see `AsyncStatelessGroup.store`."""
        return self._store

    @property
    def socket(self) -> Socket | None:
        """The listening socket it was made with, if any."""
        return self._group.socket

    @property
    def data_expiration_seconds(self) -> float:
        """How long what this rank sent and nobody took is kept."""
        return self._group.data_expiration_seconds

    @property
    def store_timeout(self) -> float:
        """Seconds that a call without timeout= may take."""
        return self._group.store_timeout

    @property
    def send_dst_counter(self) -> dict[int, int]:
        """How many sends to each rank are done."""
        return self._group.send_dst_counter

    @property
    def recv_src_counter(self) -> dict[int, int]:
        """How many receives from each rank are done."""
        return self._group.recv_src_counter

    @property
    def broadcast_send_counter(self) -> int:
        """How many broadcasts from this rank are done."""
        return self._group.broadcast_send_counter

    @property
    def broadcast_recv_src_counter(self) -> dict[int, int]:
        """How many broadcasts from each rank are done."""
        return self._group.broadcast_recv_src_counter

    @property
    def metadata(self) -> tuple[Any, ...]:
        """What each rank said of itself, in a group made by `rendezvous` or `reform`."""
        return self._group.metadata

    @property
    def entries(self) -> deque[tuple[str, float]]:
        """The last sends and collectives that gave data."""
        return self._group.entries

    # ------------------------------------------------------------------------------------------------ inside

    @classmethod
    def _made_by(cls, name: str, make: Callable[[], Coroutine[Any, Any, AsyncStatelessGroup]]) -> Self:
        self = cls.__new__(cls)
        self._start(name, make)
        return self

    def _start(self, name: str, make: Callable[[], Coroutine[Any, Any, AsyncStatelessGroup]]) -> None:
        """Run a loop of our own and make the group there."""
        thread, group = start(name, make)
        if group._hosted is not None and group._hosted.on_callers_loop:
            thread.pin()
        self._attach(thread, group, owns_thread=True)

    def _attach(self, thread: SharedLoop, group: AsyncStatelessGroup, *, owns_thread: bool) -> None:
        self._group = group
        self._runner = Runner(
            thread,
            f"group {group.name!r}",
            group.close,
            owns_thread=owns_thread,
            closed_where=f" at rank {group.rank}",
        )
        self._store = Store._over(group.store, self._runner)
