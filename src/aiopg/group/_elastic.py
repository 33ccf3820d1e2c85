"""Groups of whoever comes, and anew of those who are left."""

from __future__ import annotations

import asyncio
from typing import Any, Self

from aiopg._core.limits import Limits
from aiopg.arguments import check_grace, check_timeout
from aiopg.codec import Codec, MsgpackCodec
from aiopg.errors import GroupClosedError
from aiopg.group._arguments import check_expiration, check_name
from aiopg.group._base import DEFAULT_TIMEOUT, GroupBase
from aiopg.stores import open_link
from aiopg.stores.base import Call, Place
from aiopg.tls import Encryption

__all__ = ["Elastic"]


class Elastic(GroupBase):
    """rendezvous and reform. See `AsyncStatelessGroup`."""

    @classmethod
    async def rendezvous(
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
        """Form a group of whoever comes, over a store that already runs. Ranks are given out in order of arrival.

        The group forms at once when `max_size` have come, else `last_call` seconds after the last one of at least
        `min_size`. There is one group of a name at a time: who comes while one is live waits until that has ended, or
        until its members call `reform()`, and is then one of them. They hear of it as an event "waiting" (`events`).

        Cancelling or a timeout takes this process out again. If the group had just formed, the others see it lost.

        Args:
            url: as for `connect`.
            min_size, max_size: how many ranks the group may have, the same for all; max_size is min_size if not given.
            timeout: seconds to wait for the store and for the group.
            metadata: what this process says of itself: any object that the codec encodes, to 4 KiB at most
                (`Limits.metadata_bytes`). Each rank has that of all in `metadata`, by rank.
            last_call: seconds; see above. The first one's word counts.
            group, token, ssl, data_expiration_seconds, store_timeout, codec, reconnect_grace: as for `connect`.

        Raises:
            ValueError, TypeError: an argument makes no sense.
            GroupTimeoutError: fewer than min_size came in time; `.missing` names the ranks that nobody has. It is empty
                where enough waited, and a group of that name was live all the time.
            UsageError: others wait for a group of this name with other sizes.
            PayloadTooLargeError: the metadata is too large.
            StoreUnreachableError, StoreLostError, StoreFullError, AuthenticationError.
        """
        most = min_size if max_size is None else max_size
        _check_sizes(min_size, most)
        check_name(group)
        check_expiration(data_expiration_seconds)
        check_timeout(store_timeout)
        if isinstance(last_call, bool) or not isinstance(last_call, int | float) or not last_call >= 0:
            raise ValueError(f"last_call must be 0 seconds or more, not {last_call!r}")
        grace = check_grace(reconnect_grace)
        loop = asyncio.get_running_loop()
        started = loop.time()
        deadline = started + check_timeout(timeout)
        codec = MsgpackCodec() if codec is None else codec
        said = bytes(codec.encode(metadata))
        link = await open_link(url, timeout=timeout, grace=grace, token=token, ssl=ssl)
        try:
            call = Call("rendezvous", group, -1, 0, 0, loop, started, deadline)
            place = await link.enlist(
                call, min_size, most, patience=last_call, ttl=data_expiration_seconds, metadata=said
            )
            made = cls(
                place.rank, place.world_size, link, None, data_expiration_seconds,
                group=group, codec=codec, store_timeout=store_timeout,
            )  # fmt: skip
            made._sit(place, loop)
        except BaseException:
            await link.close()
            raise
        made._owns_store = True
        return made

    async def reform(self, *, metadata: Any = None, timeout: float | None = None) -> Self:
        """A new group of the members that are left, and of those who wait to come in; this one is closed.

        For after a `PeerLostError` or an abort, or to let in who waits (`rendezvous`). Every member that is left calls
        it. Ranks are those of this group without the ones that are gone, then the newcomers'. It returns when all of
        them have called it; who is lost meanwhile is not waited for. All get the same answer: those who are in the new
        group all know the same ranks. (MPI's fault tolerance calls that shrink.)

        Cancelling and a timeout leave this group as it is; calling again is fine. If the new group had just formed, the
        others see this rank lost.

        Args:
            metadata: what this process says of itself, as for `rendezvous`.
            timeout: seconds; the group's store_timeout if not given.

        Raises:
            GroupClosedError: the group was closed, or not joined yet.
            GroupTimeoutError: some members did not call it in time; `.missing` names their ranks here.
            FencedError: this rank was taken over.
            CodecError: this process cannot read what another one says of itself; the others see this rank leave.
            PayloadTooLargeError, StoreFullError, StoreLostError.
        """
        call = self._new_call("reform", 0, timeout)
        member = self._member
        if member is None:
            raise GroupClosedError(f"group {self.name!r} was not joined yet, so it cannot form anew")
        said = bytes(self._encode(metadata))
        self._begin(call)
        try:
            place = await member.reform(call, ttl=self.data_expiration_seconds, metadata=said)
        except BaseException as error:
            self._end(call, error)
            raise
        self._end(call)
        try:
            made = type(self)(
                place.rank, place.world_size, self._link, self.socket, self.data_expiration_seconds,
                group=self.name, codec=self._codec, store_timeout=self.store_timeout,
            )  # fmt: skip
            made._sit(place, call.loop)
        except BaseException:
            await self._leave(place.member)  # the others are not to wait for who has no group to call
            raise
        made._leaves_last = self._leaves_last
        # The link, and the store if it is hosted here, go on with the new group.
        made._owns_store, self._owns_store = self._owns_store, False
        made._hosted, self._hosted = self._hosted, None
        try:
            await self.close()
        except BaseException:
            await made.close()
            raise
        return made

    def _sit(self, place: Place, loop: asyncio.AbstractEventLoop) -> None:
        """Take the place that the store gave."""
        self.metadata = tuple(self._decode(said) for said in place.metadata)
        self._member, self._loop = place.member, loop


def _check_sizes(least: int, most: int) -> None:
    for name, size in (("min_size", least), ("max_size", most)):
        if isinstance(size, bool) or not isinstance(size, int):
            raise TypeError(f"{name} must be an int, not {size!r}")
    limit = Limits().world_size
    if not 1 <= least <= most <= limit:
        raise ValueError(f"min_size must be 1 to max_size, and max_size at most {limit}, not {least} and {most}")
