"""How the ranks of `create()` find one store: rank 0 hosts it, or finds it there already; the others look for it."""

from __future__ import annotations

import asyncio
import math
import socket
from ssl import SSLContext
from typing import NamedTuple

from aiopg.address import Address
from aiopg.errors import AddressInUseError, GroupTimeoutError, StoreUnreachableError
from aiopg.group._names import await_name
from aiopg.server.hosting import Admission, HostedStore, StoreHost, host_store
from aiopg.server.listen import address_of, bind
from aiopg.stores.native import NativeLink
from aiopg.tls import Encryption

__all__ = ["PAUSE_SECONDS", "Access", "Search", "find_store", "found_store", "join_timed_out"]

ANSWER_SECONDS = 5.0
"""What listens on our address and has not shaken hands by then is taken for something else than a store. A store
that was just founded needs a moment to start, on a busy host some seconds."""

FREE_SECONDS = 2.0
"""How long rank 0 tries again when its address is held and yet nobody answers: a store that is just ending."""

PAUSE_SECONDS = 0.05


class Access(NamedTuple):
    """How a rank comes in at a store, and how a store that it hosts lets others in."""

    grace: float
    """Seconds for which the store keeps this rank when its connection breaks."""
    token: str | None
    tls: Encryption | None
    insecure: bool

    @property
    def admission(self) -> Admission:
        """Who may come in at a store that this rank hosts. Raises `ValueError` for TLS that it cannot hand on."""
        if isinstance(self.tls, SSLContext):
            raise ValueError("rank 0 hosts the store and is a member of it: give aiopg.Tls(...) instead of a context")
        return Admission(self.token, self.tls, self.insecure)

    async def connect_once(self, address: Address, deadline: float) -> NativeLink:
        """See `NativeLink.connect_once`."""
        return await NativeLink.connect_once(address, deadline, grace=self.grace, token=self.token, tls=self.tls)


class Search(NamedTuple):
    """How one rank of `create()` comes to its store."""

    rank: int
    group: str
    deadline: float
    """Loop time."""
    store_host: StoreHost
    access: Access

    async def store(
        self, address: Address, listen_socket: socket.socket | None
    ) -> tuple[NativeLink, HostedStore | None]:
        """A link to the store at an address, and the store itself where this rank hosts it. Raises as those below."""
        if self.rank != 0:
            return await find_store(address, self.deadline, group=self.group, access=self.access), None
        await await_name(address, self.deadline)
        return await found_store(
            address,
            self.deadline,
            group=self.group,
            listen_socket=listen_socket,
            store_host=self.store_host,
            access=self.access,
        )


async def found_store(
    address: Address,
    deadline: float,
    *,
    group: str,
    listen_socket: socket.socket | None,
    store_host: StoreHost,
    access: Access,
) -> tuple[NativeLink, HostedStore | None]:
    """Rank 0: host a store on `address`, or join the aiopg store that serves there already; and a link to it.

    Raises:
        GroupTimeoutError: the store was not up by the deadline.
        AddressInUseError: something that is not an aiopg store holds the address.
        StoreUnreachableError: the address cannot be listened on.
        StoreLostError: the store's process did not come up.
        UsageError: other hosts can reach the address, and there is no token.
        AuthenticationError: the store that serves there has another token.
    """
    started = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout_at(None if deadline == math.inf else deadline):
            if listen_socket is not None:
                return await _host(listen_socket, store_host, access)
            return await _host_or_join(address, store_host, access)
    except TimeoutError as error:
        raise join_timed_out(group, None, started) from error


async def _host_or_join(
    address: Address, store_host: StoreHost, access: Access
) -> tuple[NativeLink, HostedStore | None]:
    loop = asyncio.get_running_loop()
    give_up = loop.time() + FREE_SECONDS
    while True:
        try:
            return await _host(await bind(address), store_host, access)
        except AddressInUseError as held:
            try:
                return await access.connect_once(address, loop.time() + ANSWER_SECONDS), None
            except (StoreUnreachableError, TimeoutError) as other:
                raise AddressInUseError(str(address), f"what listens there is no aiopg store ({other})") from other
            except ConnectionError:
                if loop.time() >= give_up:
                    raise held from None
        await asyncio.sleep(PAUSE_SECONDS)


async def _host(listen_socket: socket.socket, store_host: StoreHost, access: Access) -> tuple[NativeLink, HostedStore]:
    address = address_of(listen_socket)
    hosted = await host_store(store_host, listen_socket, access.admission)
    try:
        return await access.connect_once(address, math.inf), hosted
    except BaseException:
        await hosted.abandon()
        raise


async def find_store(address: Address, deadline: float, *, group: str, access: Access) -> NativeLink:
    """Any other rank: a link to the store that rank 0 hosts on `address`.

    Raises:
        GroupTimeoutError: it was not there by the deadline: rank 0 is missing.
        StoreUnreachableError: no waiting helps: unknown host, no route, something that is no store.
        AuthenticationError: it has another token.
    """
    started = asyncio.get_running_loop().time()
    try:
        return await NativeLink.connect_by(address, deadline, grace=access.grace, token=access.token, tls=access.tls)
    except TimeoutError as error:
        raise join_timed_out(group, (0,), started) from error


def join_timed_out(group: str, missing: tuple[int, ...] | None, started: float) -> GroupTimeoutError:
    """The error of a rank that met nobody by its deadline; `missing` says who was to be there, if that is known."""
    arrived = None if missing is None else ()
    elapsed = asyncio.get_running_loop().time() - started
    return GroupTimeoutError("join", group, 0, 0, arrived, missing, elapsed)
