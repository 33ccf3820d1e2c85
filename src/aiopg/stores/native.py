"""Our own server, over TCP (`aiopg://host:port`) or a unix socket (`unix:///path`)."""

from __future__ import annotations

import asyncio
from typing import Self

from aiopg.address import Address
from aiopg.client import Client, dial, dial_once
from aiopg.errors import GroupClosedError, StoreLostError, StoreUnreachableError
from aiopg.stores._engine_store import EngineStore
from aiopg.stores.base import Capabilities

__all__ = ["NativeStore"]


class NativeStore(EngineStore):
    """A session with a `StoreServer`. Made by `connect`."""

    def __init__(self, client: Client) -> None:
        super().__init__(client.send, client.payload_bytes)
        self._client = client
        self._closed = False
        client.on_event = self._calls.received
        client.on_lost = self._link_ended

    def __repr__(self) -> str:
        return f"<NativeStore {self.url} calls={len(self._calls)} {self._client!r}>"

    @classmethod
    async def connect(cls, url: str, *, timeout: float) -> Self:
        """A session with the store at `url`; one that is still coming up is waited for until `timeout` seconds.

        Raises:
            ValueError: the URL is wrong.
            StoreUnreachableError: no store there; at once where waiting does not help, else at the timeout.
        """
        address = Address.parse(url)
        try:
            return await cls.connect_by(address, asyncio.get_running_loop().time() + timeout)
        except TimeoutError as error:
            raise StoreUnreachableError(url, str(error)) from error

    @classmethod
    async def connect_by(cls, address: Address, deadline: float) -> Self:
        """The same until `deadline` (loop time), and then `TimeoutError`."""
        return cls(await dial(address, deadline))

    @classmethod
    async def connect_once(cls, address: Address, deadline: float) -> Self:
        """The same in one attempt: `ConnectionError` if nobody serves there now."""
        return cls(await dial_once(address, deadline))

    @property
    def url(self) -> str:
        return str(self._client.address)

    @property
    def server_pid(self) -> int:
        """Process id of the store, on its own host."""
        return self._client.pid

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(exactly_once=True, survives_restart=False, keys=False, payload_bytes=self._payload_bytes)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._calls.close(GroupClosedError("the link to the store was closed"))
        self._client.close("the member closed its link")

    def _link_ended(self, reason: str) -> None:
        if not self._closed:
            self._calls.lost(StoreLostError(self.url, reason))
