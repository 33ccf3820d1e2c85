"""`AsyncStatelessGroup`: what a program holds."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Self, TypeVar

from aiopg.address import Address
from aiopg.arguments import check_grace, check_timeout
from aiopg.codec import Codec
from aiopg.errors import GroupTimeoutError, StoreLostError
from aiopg.group._agent_store import holds_agent_store
from aiopg.group._arguments import check_expiration, check_name, check_place
from aiopg.group._base import DEFAULT_TIMEOUT
from aiopg.group._collectives import Collectives
from aiopg.group._elastic import Elastic
from aiopg.group._environment import read_environment
from aiopg.group._members import Members
from aiopg.group._messages import Messages
from aiopg.group._pending import Pending
from aiopg.group._rendezvous import PAUSE_SECONDS, Access, Search
from aiopg.group._torchrun import form_by_agent
from aiopg.server.hosting import StoreHost, check_host
from aiopg.stores import StoreLink, open_link
from aiopg.tls import Encryption
from aiopg.tokens import member_token

__all__ = ["AsyncStatelessGroup"]

Group = TypeVar("Group", bound="AsyncStatelessGroup")


class AsyncStatelessGroup(Messages, Collectives, Members, Elastic, Pending):
    """A group of `world_size` processes that exchange objects, as one of them sees it.

    An object and not global state: a process can be in any number of groups, overlapping, formed in any order. Made
    by `create` (rank 0 hosts the store), `connect` (a store that already runs), `from_env` (a launcher says which),
    `rendezvous` (whoever comes, ranks in order of arrival), or directly over a store in hand; then the first call,
    `join()` or `async with` joins.

    As an async context manager it joins on entry and leaves on exit; an exception that leaves the block aborts the
    group, so that every other rank raises `GroupAbortedError` with its type and text.

    It belongs to the event loop that joined it. Any number of its calls may run at once.

    Attributes:
        rank: this process's rank, 0 to world_size - 1.
        world_size: how many ranks the group has.
        name: the group's name on its store.
        store: an `AsyncStore` of keys that are private to this incarnation of the group and end with it; its first call
            joins the group if that was not done. `store.shared` has the keys of the store itself.
        socket: the listening socket it was made with, if any; a hosted store has taken it over.
        data_expiration_seconds: how long what this rank sent and nobody took is kept.
        store_timeout: seconds that a call without timeout= may take.
        broadcast_send_counter: how many broadcasts from this rank are done.
        metadata: what each rank said of itself, by rank, in a group made by `rendezvous` or `reform`; else empty.
        entries: the last sends and collectives that gave data: (address, `time.monotonic()`).

    Args:
        rank, world_size: this process's place.
        store: an `AsyncStore` whose link to use, or a link to a store; it is not closed with the group.
        socket: kept as an attribute only.
        data_expiration_seconds: see above; over 0.
        group: name of the group.
        codec: how objects become bytes; `MsgpackCodec()` if not given. The same on every rank.
        store_timeout: see above; over 0, `math.inf` for no deadline.
    """

    @classmethod
    async def create(
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
        listen_socket: socket.socket | None = None,
        codec: Codec | None = None,
        reconnect_grace: float = 5.0,
        store_host: StoreHost = "process",
        takeover: bool = False,
    ) -> Self:
        """Form a group; returns when every rank has called it.

        Rank 0 hosts the store on `host:port`, or joins the aiopg store that already serves there: any number of groups
        share an address, each under its own `group` name. By default the store runs in a process of its own, which
        ends when its last member has left; nothing that happens to rank 0 disturbs it. The other ranks wait for the
        store to come up.

        Under torchrun, whose agent has a store of its own at MASTER_ADDR and MASTER_PORT
        (TORCHELASTIC_USE_AGENT_STORE), those two name that store: each group's rank 0 hosts ours on a free port of
        `host`, and tells the others by way of it. That takes torch, which is imported only then.

        Cancelling or a timeout takes this rank's join back.

        Args:
            host, port: where the store is; rank 0 listens on exactly this address.
            rank, world_size: this process's place.
            data_expiration_seconds: seconds for which the store keeps what this rank sent and nobody took.
            store_timeout: seconds for forming the group, and the default timeout of its calls.
            group: name of the group on the store.
            token: what every rank and the store must know; if not given, that of AIOPG_TOKEN in the environment.
            ssl: encryption: `aiopg.Tls`, or on other ranks than 0 an `ssl.SSLContext` too. If not given, that of
                AIOPG_TLS_CERT, AIOPG_TLS_KEY and AIOPG_TLS_CA in the environment.
            insecure: rank 0 only: whether to serve without token where other hosts can reach the address.
            listen_socket: rank 0 only: a bound, listening socket to serve on, of that port; it is taken over and
                closed here.
            codec: how objects become bytes, the same on every rank; `MsgpackCodec()` if not given.
            reconnect_grace: seconds for which the store keeps this rank when its connection breaks. The connection is
                made anew meanwhile, and nobody notices; after that the rank is lost to the others (`PeerLostError`),
                and its own calls raise `StoreLostError`. A process that ends on the store's host is lost at once.
            store_host: where rank 0 hosts the store: "process", "thread" or "loop". The last two end with rank 0.
            takeover: whether to put out a live member that holds this rank, say one that hangs: its calls raise
                `FencedError`, and the others lose it. This process joins the next incarnation, with those who join
                again.

        Raises:
            ValueError, TypeError: an argument makes no sense.
            GroupTimeoutError: not every rank came within store_timeout; `.missing` names them.
            RankConflictError: a live member holds this rank.
            WorldSizeMismatchError: a live group of this name has another world_size.
            AddressInUseError: rank 0: something that is no aiopg store holds the address.
            StoreUnreachableError: the address cannot be reached or listened on, or a program that is no store answers.
            StoreLostError: the store's process could not be started.
            AuthenticationError: the store and this rank do not share a token.
            UsageError: rank 0: other hosts can reach the address, and there is no token; the text says what to do.
            ImportError: the address is that of torchrun's agent, and torch is not installed.
        """
        check_place(rank, world_size)
        check_name(group)
        check_expiration(data_expiration_seconds)
        check_host(store_host)
        member_token(token)
        access = Access(check_grace(reconnect_grace), token, ssl, insecure)
        if rank == 0:
            access.admission  # noqa: B018 (raises what is wrong with it before anything is begun)
        _check_address(port, rank, world_size, listen_socket)
        deadline = asyncio.get_running_loop().time() + check_timeout(store_timeout)
        search = Search(rank, group, deadline, store_host, access)
        member = partial(
            cls, rank, world_size, socket=listen_socket, data_expiration_seconds=data_expiration_seconds,
            group=group, codec=codec, store_timeout=store_timeout,
        )  # fmt: skip
        form = partial(_form, member, search, takeover)
        if listen_socket is None and holds_agent_store(host, port):
            return await form_by_agent(host, port, search, world_size, takeover, form)
        return await form(Address(host, port), listen_socket)

    @classmethod
    async def connect(
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
        """Form a group over a store that already runs; returns when every rank has called it.

        Args:
            url: `aiopg://host:port`, `unix:///path`, `memory://name`, `redis://...` or `etcd://...`, see `open_link`.
            rank, world_size, group, token, ssl, data_expiration_seconds, store_timeout, codec, reconnect_grace,
                takeover: as for `create`.

        Raises: as `create`; `StoreUnreachableError` also if no store is there within store_timeout.
        """
        check_place(rank, world_size)
        check_name(group)
        check_expiration(data_expiration_seconds)
        grace = check_grace(reconnect_grace)
        deadline = asyncio.get_running_loop().time() + check_timeout(store_timeout)
        store = await open_link(url, timeout=store_timeout, grace=grace, token=token, ssl=ssl)
        made = cls(
            rank, world_size, store, None, data_expiration_seconds,
            group=group, codec=codec, store_timeout=store_timeout,
        )  # fmt: skip
        made._owns_store = True
        await made._enter(deadline, takeover)
        return made

    @classmethod
    async def from_env(cls, **options: Any) -> Self:
        """Form the group that a launcher describes in the environment.

        Reads RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT (`aiopg run`, torchrun); else the variables of Open MPI,
        MPICH, Slurm and Kubernetes indexed Jobs, which docs/launchers.md lists with what each leaves to be set by
        hand. AIOPG_PORT wins over MASTER_PORT. With AIOPG_URL the group forms as by `connect`, else as by `create`.
        If set, AIOPG_GROUP is the name of the group and AIOPG_TIMEOUT store_timeout in seconds.

        Args:
            options: keyword arguments of `create` or `connect`; they win over the environment.

        Raises: `ValueError` that names the variables that are missing (and all that was looked for), contradict each
            other or make no sense; else as `create`.
        """
        env = read_environment()
        options.setdefault("group", env.group)
        if env.timeout is not None:
            options.setdefault("store_timeout", env.timeout)
        options = {"rank": env.rank, "world_size": env.world_size} | options
        if env.url is not None:
            return await cls.connect(env.url, **options)
        return await cls.create(env.host, env.port, **options)

    async def _enter(self, deadline: float, takeover: bool = False) -> None:
        """Join by `deadline`, or let go of everything."""
        timeout = deadline - asyncio.get_running_loop().time()
        try:
            if timeout <= 0:
                raise GroupTimeoutError("join", self.name, 0, 0, None, None, self.store_timeout)
            await self.join(timeout=timeout, takeover=takeover)
        except BaseException:
            await self.close()
            raise

    async def subgroup(self, ranks: Sequence[int], name: str | None = None) -> Self:
        """A new group of some ranks of this one, over the same store; returns when all of them have called it.

        Only the ranks named in it call it. Their ranks there are their places in `ranks`. It is independent of this
        group, except that it uses its link to the store: close it first.

        Args:
            ranks: ranks of this group, without repetition, the same on every caller.
            name: tells apart several subgroups of the same ranks.

        Raises:
            ValueError: ranks has repetitions, a rank that does not exist, or not this one.
            GroupTimeoutError: not every rank came within store_timeout.
        """
        call = self._new_call("join", 0, None)
        for rank in ranks:
            self._check_peer("each of ranks", rank)
        if len(set(ranks)) != len(ranks) or self.rank not in ranks:
            raise ValueError(f"ranks must name this rank ({self.rank}) and none twice, not {list(ranks)}")
        member = self._member or await self._join(call)
        # Derived from this incarnation, so that no two lives of the parent meet in it; hashed, so that it is short.
        identity = repr((self.name, member.incarnation, list(ranks), name))
        made = type(self)(
            list(ranks).index(self.rank), len(ranks), self._link, None, self.data_expiration_seconds,
            group=f"{self.name[:16]}/{(name or 'sub')[:8]}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}",
            codec=self._codec, store_timeout=self.store_timeout,
        )  # fmt: skip
        made._leaves_last = self._leaves_last
        await made.join()
        return made


async def _form(
    member: Callable[[StoreLink], Group],
    search: Search,
    takeover: bool,
    address: Address,
    listener: socket.socket | None,
) -> Group:
    """Host or find the store there, and join as the member that is made for it."""
    loop = asyncio.get_running_loop()
    while True:
        store, hosted = await search.store(address, listener)
        made = member(store)
        made._owns_store, made._hosted = True, hosted
        made._leaves_last = hosted is not None and hosted.in_this_process
        try:
            await made._enter(search.deadline, takeover)
        except StoreLostError:
            # A store that just ended with its last group: whoever founds the next one, we begin anew.
            if listener is not None or loop.time() >= search.deadline:
                raise
            await asyncio.sleep(PAUSE_SECONDS)
        else:
            return made


def _check_address(port: int, rank: int, world_size: int, listen_socket: socket.socket | None) -> None:
    if listen_socket is not None:
        if rank != 0:
            raise ValueError(f"listen_socket is for rank 0, which hosts the store, not for rank {rank}")
        _check_pair(port, listen_socket)
        return
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
        raise ValueError(f"port must be 0 to 65535, not {port!r}")
    if port == 0 and world_size > 1:
        raise ValueError(
            "with port 0 the other ranks cannot know where the store is; bind a socket to port 0 yourself, "
            "tell them its port and pass it as listen_socket="
        )


def _check_pair(port: int, listen_socket: socket.socket) -> None:
    """The other ranks look for the store at `port`; 0 says nothing."""
    if listen_socket.family in (socket.AF_INET, socket.AF_INET6) and port != 0:
        bound = listen_socket.getsockname()[1]
        if port != bound:
            raise ValueError(f"listen_socket is bound to port {bound}, and port is {port}: give both the same")
