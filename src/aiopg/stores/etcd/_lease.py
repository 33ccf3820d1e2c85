"""A lease: while it is renewed, the keys attached to it stay; etcd deletes them when it expires.

A thread renews it, and not the event loop. Only a process that is dead, stopped or cut off may lose its lease; one
whose loop is blocked for a minute is none of these. (So it is with our own store: liveness is a matter of the process,
not of how busy it is.)

A renewal is a stream of one message: gRPC's simple call, on a method that would take a stream.
"""

from __future__ import annotations

import asyncio
import math
import random
import threading
import time
from typing import Any, Final

from aiopg.errors import AiopgError
from aiopg.stores.etcd._calls import in_loop
from aiopg.stores.etcd._endpoints import Endpoint, import_grpc
from aiopg.stores.etcd._errors import LeaseGoneError, RefusedError, Remedy, remedy
from aiopg.stores.etcd._requests import AUTHENTICATE, HAS_LEADER, Requests
from aiopg.stores.etcd._wire import Fields, number

__all__ = ["Lease", "grant"]

GRANT: Final = "/etcdserverpb.Lease/LeaseGrant"
REVOKE: Final = "/etcdserverpb.Lease/LeaseRevoke"
KEEP_ALIVE: Final = "/etcdserverpb.Lease/LeaseKeepAlive"

RENEWALS: Final = 4
"""Renewals in the time of a lease: one that finds an endpoint dead has time for another one."""

LONGEST_PAUSE: Final = 2.5
"""Seconds between renewals at most. They are also how a process that only watches learns that its endpoint is dead."""

LEAST_ATTEMPT: Final = 0.5
"""Seconds that an endpoint has for a renewal at least."""


OUTAGE_SECONDS: Final = 15.0
"""So much longer than its lease lasts a process hopes for an etcd that renews none. It may: without a leader no lease
expires, and a new leader gives every lease its whole time again. If it hopes too long nothing is wrong: whose lease has
expired writes nothing."""


async def grant(requests: Requests, ttl: float, patience: float | None) -> Lease:
    """Get a lease and begin to renew it."""
    # The number is ours: so when the answer is lost and the request sent again, it is the same lease.
    number_of = random.SystemRandom().getrandbits(62) | 1
    seconds = max(1, math.ceil(ttl))
    began = time.monotonic()
    try:
        answer, _ = await requests.send(GRANT, number(1, seconds) + number(2, number_of))
    except RefusedError as error:
        if "already exists" not in error.reason:
            raise
        granted = seconds
    else:
        granted = Fields(answer).number(3)
    keeper = Keeper(requests, number_of, granted, began, patience)
    return Lease(requests, keeper)


class Lease:
    """A lease that is renewed until `close` or `revoke`.

    Attributes:
        id: its number at etcd.
        ttl: seconds after its last renewal when it expires.
        lost: done, with the reason as its result, when it cannot be counted on any more: etcd says that it has expired
            or was revoked, or no renewal was answered for `patience` seconds.
    """

    def __init__(self, requests: Requests, keeper: Keeper) -> None:
        self._requests = requests
        self._keeper = keeper
        self.id = keeper.id
        self.ttl = keeper.ttl
        self.lost = keeper.lost

    async def revoke(self) -> None:
        """Give it up: etcd deletes its keys now. No error if it was gone already."""
        await self.close()
        try:
            await self._requests.send(REVOKE, number(1, self.id))
        except LeaseGoneError:
            pass  # which is what was asked for

    def let_go(self) -> None:
        """Renew it no more; it expires after `ttl` seconds."""
        self._keeper.stop()

    async def close(self) -> None:
        """The same, and wait until the thread has ended. Twice is fine."""
        self._keeper.stop()
        await self._keeper.ended.wait()


class Keeper:
    """The thread that renews."""

    def __init__(
        self,
        requests: Requests,
        number_of: int,
        ttl: int,
        began: float,
        patience: float | None,
    ) -> None:
        self.id, self.ttl = number_of, ttl
        self._patience = ttl + OUTAGE_SECONDS if patience is None else patience
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = self._loop.create_future()
        self._requests = requests
        self._endpoints = requests.endpoints.again(max(LEAST_ATTEMPT, ttl / RENEWALS))
        self._login = requests.login.again()
        self._rpc_error: type[Any] = import_grpc().RpcError
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self.ended = asyncio.Event()
        self._renewed = began
        self._thread = threading.Thread(target=self._run, name=f"lease {number_of:x}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._hurry()
        for channel in self._endpoints.channels():
            channel.close()  # ends a renewal under way

    def _hurry(self) -> None:
        """Let the thread do what it has to now."""
        self._wake.set()

    def _run(self) -> None:
        reason = "the thread that renews it failed; its log says how"
        try:
            reason = self._keep()
        finally:
            for channel in self._endpoints.channels():
                channel.close()
            in_loop(self._loop, self._end, reason)

    def _end(self, reason: str) -> None:
        if reason and not self.lost.done():
            self.lost.set_result(reason)
        self.ended.set()

    def _keep(self) -> str:
        """Renew until told to stop (nothing is returned then), or until the lease is lost (why)."""
        pause = usual = min(LONGEST_PAUSE, self.ttl / RENEWALS)
        while True:
            self._wake.wait(pause)
            self._wake.clear()
            if self._stopping.is_set() or self._loop.is_closed():
                return ""  # where the loop was closed and the client was not, its lease must not outlive it
            endpoint = self._endpoints.current
            began = time.monotonic()
            try:
                left = self._renew(endpoint)
            except AiopgError as error:
                return str(error)
            except (self._rpc_error, ValueError) as error:
                if self._stopping.is_set():
                    return ""  # its channel was closed
                if not isinstance(error, self._rpc_error):
                    raise
                try:
                    self._mend(error, endpoint.address)
                except (AiopgError, RefusedError) as refused:
                    return str(refused)
                if time.monotonic() - self._renewed > self._patience:
                    said = f"{endpoint.address} said: {error.details()} ({error.code().name})"
                    return f"its lease was not renewed for {self._patience:g} s; last, {said}"
                pause = max(0.02, self._endpoints.pause)
            else:
                if left <= 0:
                    return "etcd says that its lease has expired, or was revoked"
                self._endpoints.worked()
                self._renewed = began
                pause = usual

    def _renew(self, endpoint: Endpoint) -> int:
        """Seconds that the lease has from now on; 0 or less if it is gone."""
        seconds = self._endpoints.attempt_seconds
        if self._login.is_wanted:
            request = self._login.request(endpoint.address)
            self._login.granted(endpoint.unary(AUTHENTICATE)(request, timeout=seconds, metadata=(HAS_LEADER,)))
        answer: bytes = endpoint.unary(KEEP_ALIVE)(number(1, self.id), timeout=seconds, metadata=self._login.metadata)
        return Fields(answer).number(3)

    def _mend(self, error: Any, address: str) -> None:
        """Do what helps against a renewal that failed; raises as `remedy`."""
        if self._login.is_wanted and self._login.refused(error.details() or ""):
            return
        what = remedy(error.code(), error.details() or "", address, 0)
        if what is Remedy.LOGIN:
            self._login.token = ""
        elif what is Remedy.MOVE:
            self._endpoints.move(address, error.code())
            # What waits there in the loop, a watch perhaps, need not find out by itself.
            in_loop(self._loop, self._requests.endpoints.move, address, error.code())
