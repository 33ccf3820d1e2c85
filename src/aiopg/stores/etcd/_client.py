"""A client of etcd for asyncio: what a store on it needs, and no more.

It is our own, on gRPC. The one package that there was to take, aetcd 1.0, was tried against a real etcd
and has faults that a store cannot be built on: a cancelled watch goes on at the server; a watch ends for good when its
endpoint dies; events come one by one, without the revision where a transaction ends; it takes one host, and no TLS.

What each file does: `_wire` and `_messages` say what goes over the wire; `_endpoints` which member it goes to; `_calls`
awaits calls of gRPC; `_requests` sends again what was not answered; `_watch` reads changes over streams that break;
`_lease` renews.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

from aiopg.errors import StoreUnreachableError
from aiopg.stores.etcd._endpoints import OPTIONS, Endpoints, check_endpoints, credentials, import_grpc
from aiopg.stores.etcd._errors import CompactedError
from aiopg.stores.etcd._lease import Lease, grant
from aiopg.stores.etcd._messages import (
    Compare,
    Delete,
    Deleted,
    Found,
    Get,
    KeyValue,
    Op,
    Put,
    PutDone,
    Span,
    Status,
    TxnResult,
    encode_txn,
)
from aiopg.stores.etcd._requests import Login, Requests
from aiopg.stores.etcd._watch import Watch
from aiopg.stores.etcd._wire import number
from aiopg.tls import Tls

__all__ = ["EtcdClient"]

RANGE: Final = "/etcdserverpb.KV/Range"
PUT: Final = "/etcdserverpb.KV/Put"
DELETE: Final = "/etcdserverpb.KV/DeleteRange"
TXN: Final = "/etcdserverpb.KV/Txn"
COMPACT: Final = "/etcdserverpb.KV/Compact"
STATUS: Final = "/etcdserverpb.Maintenance/Status"

VALUES_AT_ONCE: Final = 64
"""So many keys are read at a time. A value has at most 1.5 MiB, where etcd's operator has not allowed more."""

KEYS_AT_ONCE: Final = 4096
"""The same without their values."""


class EtcdClient:
    """A client, as `connect` makes it. It belongs to the event loop that made it.

    A request goes on until it is answered: an endpoint that refuses it, has no leader or does not answer is left for
    the next one, and the request is sent again there. It may then take effect twice, so it has to be one where twice is
    as good as once: a transaction whose compares fail the second time. Cancel a request to give it up; it leaves
    nothing behind, and may have taken effect.

    Besides what each method says, all raise AuthenticationError, RefusedError, ProtocolError, StoreFullError, and
    GroupClosedError once closed. Revisions are etcd's: each change of anything has the next one.
    """

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self._leases: set[Lease] = set()

    @classmethod
    async def connect(
        cls,
        endpoints: Sequence[str],
        *,
        timeout: float,
        tls: Tls | None = None,
        user: str | None = None,
        password: str | None = None,
    ) -> Self:
        """A client whose cluster answered.

        Args:
            endpoints: "host:port" of members of one cluster, any number of them; all are as good.
            timeout: seconds until one of them must have answered.
            tls: as for our own store. Its files are read now; an `ssl.SSLContext` is of no use to gRPC.
            user, password: of etcd, where it asks for them.

        Raises:
            StoreUnreachableError: none answered in time, or none has a leader.
            AuthenticationError: etcd does not take the user and password, or asks for some.
            ImportError: grpcio is not installed.
            ValueError, TypeError, UsageError: an argument makes no sense, or a file of `tls`.
        """
        dial = partial(_dial, import_grpc(), credentials(tls))
        requests = Requests(Endpoints(check_endpoints(endpoints), dial), Login(user, password))
        client = cls(requests)
        try:
            async with asyncio.timeout(timeout):
                if requests.login.is_wanted:
                    await requests.log_in("")
                await client.status()
        except TimeoutError:
            await client.close()
            raise StoreUnreachableError(f"etcd://{requests.endpoints}", requests.trouble) from None
        except BaseException:
            await client.close()
            raise
        return client

    def __repr__(self) -> str:
        return f"<EtcdClient of {self._requests.endpoints}, now at {self._requests.endpoints.current.address}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def endpoint(self) -> str:
        """The endpoint that requests go to now."""
        return self._requests.endpoints.current.address

    @property
    def trouble(self) -> str:
        """What the last attempt that failed has met."""
        return self._requests.trouble

    async def range(self, span: Span, revision: int = 0, *, keys_only: bool = False, page: int = 0) -> Found:
        """All keys there, in their order, as they all are at one revision: now, or the one given.

        However many there are: they are read some at a time (`page` of them, if it is known how large they are), all at
        the same revision. With `keys_only` their values are left out. Raises `CompactedError` if the revision is not
        kept any more.
        """
        page = page or (KEYS_AT_ONCE if keys_only else VALUES_AT_ONCE)
        while True:
            try:
                return await self._pages(Get(span, revision, page, keys_only))
            except CompactedError:
                if revision:
                    raise
                # Somebody compacted while we turned the pages: so read what is there now.

    async def _pages(self, page: Get) -> Found:
        entries: list[KeyValue] = []
        while True:
            answer, _ = await self._requests.send(RANGE, page.encode())
            found = Found.decode(answer)
            revision = page.revision or found.revision
            entries += found.entries
            if not found.more:
                return Found(revision, entries)
            left = Span(found.entries[-1].key + b"\0", page.span.end)
            page = Get(left, revision, page.limit, page.keys_only)

    async def put(self, key: bytes, value: bytes, lease: int = 0) -> int:
        """Write a key, whatever it was; the revision. Raises `LeaseGoneError`."""
        answer, _ = await self._requests.send(PUT, Put(key, value, lease).encode())
        return PutDone.decode(answer).revision

    async def delete(self, span: Span) -> Deleted:
        """Delete keys. (If it had to be sent again, the count is that of the last time.)"""
        answer, _ = await self._requests.send(DELETE, Delete(span).encode())
        return Deleted.decode(answer)

    async def txn(self, compares: Sequence[Compare], then: Sequence[Op], orelse: Sequence[Op] = ()) -> TxnResult:
        """Do `then` if all compares hold, else `orelse`, at one revision. No key may be written twice in it.

        Raises `LeaseGoneError`; `ValueError` where nothing would be written whatever holds: a member of etcd 3.5.0 to
        3.5.4 dies when such a transaction is cancelled.
        """
        if all(isinstance(op, Get) for op in (*then, *orelse)):
            raise ValueError("a transaction that only reads can kill etcd: use range")
        answer, resent = await self._requests.send(TXN, encode_txn(compares, then, orelse))
        return TxnResult.decode(answer, resent)

    async def lease(self, ttl: float, *, patience: float | None = None) -> Lease:
        """A lease that is renewed in the background, until it is closed or the client is.

        Args:
            ttl: seconds, rounded up to whole ones; etcd may make it longer (1.5 times its election timeout at least).
            patience: seconds without a renewal after which `Lease.lost` says so; if not given, `ttl` and enough for an
                etcd that has to elect a leader or is started again.
        """
        lease = await grant(self._requests, ttl, patience)
        self._leases.add(lease)
        lease.lost.add_done_callback(lambda _: self._leases.discard(lease))
        return lease

    def watch(self, span: Span, start_revision: int) -> Watch:
        """The changes of keys from that revision on, or with 0 from now on (`Watch.begin`).

        Nothing is asked for until somebody reads.
        """
        return Watch(self._requests, span, start_revision)

    async def compact(self, revision: int) -> None:
        """Let etcd forget what was before that revision, for everyone. For tests: it is its operator's business."""
        await self._requests.send(COMPACT, number(1, revision))

    async def status(self) -> Status:
        """How the endpoint that answers sees its cluster."""
        answer, _ = await self._requests.send(STATUS, b"")
        return Status.decode(answer)

    async def close(self) -> None:
        """End the connections. Leases are renewed no more, and expire. Requests under way raise `GroupClosedError`.

        Twice is fine. Cancelling it stops only the waiting for threads that end.
        """
        leases, self._leases = self._leases, set()
        for lease in leases:
            lease.let_go()
        self._requests.shut()
        for lease in leases:
            await lease.close()
        await self._requests.wait_closed()


def _dial(grpc: Any, tls_credentials: Any, address: str) -> Any:
    """A channel to it, which dials when it is used."""
    if tls_credentials is None:
        return grpc.insecure_channel(address, options=OPTIONS)
    return grpc.secure_channel(address, tls_credentials, options=OPTIONS)
