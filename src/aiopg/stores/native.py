"""Our own server, over TCP (`aiopg://host:port`) or a unix socket (`unix:///path`)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from functools import partial
from typing import Self

from aiopg.address import Address
from aiopg.client import GRACE_SECONDS, Client, Road, dial, dial_once, take_road
from aiopg.errors import StoreLostError, StoreUnreachableError
from aiopg.liveness import SWEEP_SECONDS, UNANSWERED_SECONDS
from aiopg.stores._engine_link import EngineLink
from aiopg.stores.base import Capabilities
from aiopg.tls import Encryption, client_context
from aiopg.tokens import member_token

__all__ = ["NativeLink"]


class NativeLink(EngineLink):
    """A session with a `StoreServer`. Made by `connect`."""

    def __init__(self, client: Client) -> None:
        super().__init__(client.route, client.payload_bytes, client.streams)
        self._grace = client.grace
        self._client = client
        self._closed = False
        client.on_event = self._calls.received
        client.on_lost = self._link_ended
        client.on_route = self._calls.take_route
        client.on_room = self._calls.let_in
        self._farewell = _farewell(client)

    def __repr__(self) -> str:
        return f"<NativeLink {self.url} calls={len(self._calls)} {self._client!r}>"

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        timeout: float,
        grace: float = GRACE_SECONDS,
        token: str | None = None,
        tls: Encryption | None = None,
    ) -> Self:
        """A session with the store at `url`; one that is still coming up is waited for until `timeout` seconds.

        Raises:
            ValueError: the URL or the token is wrong.
            AuthenticationError: the store and this process do not share a token.
            StoreUnreachableError: no store there; at once where waiting does not help, else at the timeout.
        """
        address = Address.parse(url)
        try:
            deadline = asyncio.get_running_loop().time() + timeout
            return await cls.connect_by(address, deadline, grace=grace, token=token, tls=tls)
        except TimeoutError as error:
            raise StoreUnreachableError(url, str(error)) from error

    @classmethod
    async def connect_by(
        cls,
        address: Address,
        deadline: float,
        *,
        grace: float = GRACE_SECONDS,
        token: str | None = None,
        tls: Encryption | None = None,
        road: Road | None = None,
    ) -> Self:
        """The same until `deadline` (loop time), and then `TimeoutError`.

        `grace`: seconds for which the store keeps this member when its connection breaks; `token`: what it shares with
        the store, that of AIOPG_TOKEN if not given; `tls`: encryption, that of AIOPG_TLS_CA, AIOPG_TLS_CERT and
        AIOPG_TLS_KEY if not given; `road`: how to get there, else.
        """
        known, road = member_token(token), road or _road(address, tls)
        return await cls(await dial(address, deadline, grace=grace, token=known, road=road))._begin()

    @classmethod
    async def connect_once(
        cls,
        address: Address,
        deadline: float,
        *,
        grace: float = GRACE_SECONDS,
        token: str | None = None,
        tls: Encryption | None = None,
    ) -> Self:
        """The same in one attempt: `ConnectionError` if nobody serves there now."""
        known, road = member_token(token), _road(address, tls)
        return await cls(await dial_once(address, deadline, grace=grace, token=known, road=road))._begin()

    async def _begin(self) -> Self:
        await anext(self._farewell)
        return self

    @property
    def url(self) -> str:
        return str(self._client.address)

    @property
    def server_pid(self) -> int:
        """Process id of the store, on its own host."""
        return self._client.pid

    @property
    def capabilities(self) -> Capabilities:
        # With a journal groups go on after a restart too, which the store does not tell its members.
        return Capabilities(
            engine="aiopg",
            exactly_once=True,
            survives=("connection",),
            keys=True,
            payload_bytes=self._payload_bytes,
            death_seconds=UNANSWERED_SECONDS + SWEEP_SECONDS + self._grace,
        )

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._calls.close()
        self._client.close("the member closed its link")
        await self._farewell.aclose()
        await self._client.wait_closed()

    def _link_ended(self, reason: str) -> None:
        if not self._closed:
            self._calls.lost(StoreLostError(self.url, reason))


def _road(address: Address, tls: Encryption | None) -> Road:
    context = None if address.path else client_context(tls)
    return take_road if context is None else partial(take_road, tls=context)


async def _farewell(client: Client) -> AsyncGenerator[None, None]:
    """Says goodbye for a program that ends without closing: a loop that shuts down closes its open generators first."""
    try:
        yield
    finally:
        client.close("its event loop ended")
        await client.wait_closed()
