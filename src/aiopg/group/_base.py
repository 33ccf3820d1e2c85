"""What every group is: who it is, where its store is, and how one call of it runs."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections import Counter, deque
from collections.abc import Hashable, Sequence
from contextlib import suppress
from functools import lru_cache
from types import TracebackType
from typing import Any, Self

from aiopg import forks
from aiopg.arguments import check_timeout
from aiopg.codec import BulkCodec, Codec, LargeCodec, MsgpackCodec
from aiopg.errors import (
    AiopgError,
    CollectiveMismatchError,
    DataExpiredError,
    FencedError,
    ForkError,
    GroupAbortedError,
    GroupClosedError,
    GroupTimeoutError,
    PayloadTooLargeError,
    PeerLostError,
    StoreError,
    WrongThreadError,
)
from aiopg.group._arguments import (
    LARGEST_TAG,
    LEAST_TAG,
    check_expiration,
    check_name,
    check_place,
    check_tag,
)
from aiopg.group._aside import Aside, Decoded, Lanes
from aiopg.group._keys import GroupSpace
from aiopg.group._numbers import Numbers
from aiopg.keys import DEFAULT_TIMEOUT, AsyncStore
from aiopg.server.hosting import HostedStore
from aiopg.stores.base import Buffer, Call, Member, Parts, StoreLink, Tag
from aiopg.telemetry import Observed, find_telemetry

__all__ = ["DEFAULT_TIMEOUT", "GroupBase"]

logger = logging.getLogger("aiopg.group")

CLOSE_SECONDS = 2.0
"""How long close() waits for the store to say goodbye."""

RECENT_ENTRIES = 1024
"""How many of its last sends a group remembers in `entries`."""

_DECIDED = (CollectiveMismatchError, DataExpiredError, GroupAbortedError, PayloadTooLargeError, PeerLostError)
"""Errors that are the outcome of the call's number; after any other one, the number was not used."""


_running_loop = asyncio.get_running_loop


class GroupBase:
    """Identity, life cycle, and the running of calls. See `AsyncStatelessGroup`."""

    # CPython keeps the values of up to 30 attributes side by side, and those of a larger object in a dict of its own: a
    # call looks at twenty of these between two switches of processes, which took 5% of a collective.
    __slots__ = (
        "_aside",
        "_broadcasts_received",
        "_bulk_codec",
        "_calls",
        "_closed",
        "_codec",
        "_encode_large",
        "_forks",
        "_hosted",
        "_in_line",
        "_joiner",
        "_joining",
        "_lanes",
        "_leaves_last",
        "_link",
        "_loop",
        "_member",
        "_numbers",
        "_owns_store",
        "_payload_bytes",
        "_pid",
        "_received",
        "_sent",
        "_telemetry",
        "broadcast_send_counter",
        "data_expiration_seconds",
        "entries",
        "metadata",
        "name",
        "rank",
        "socket",
        "store",
        "store_timeout",
        "world_size",
    )

    def __init__(
        self,
        rank: int,
        world_size: int,
        store: AsyncStore | StoreLink,
        socket: socket.socket | None = None,
        data_expiration_seconds: float = 3600,
        *,
        group: str = "default",
        codec: Codec | None = None,
        store_timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        check_place(rank, world_size)
        self.rank = rank
        self.world_size = world_size
        self.name = check_name(group)
        if not isinstance(store, AsyncStore | StoreLink):
            raise TypeError(
                f"store must be an AsyncStore or a link to a store, not {store!r:.200}; see connect(url, ...)"
            )
        self._link = store.link if isinstance(store, AsyncStore) else store
        self.socket = socket
        self.data_expiration_seconds = check_expiration(data_expiration_seconds)
        self.store_timeout = check_timeout(store_timeout)
        self.store = AsyncStore._over(GroupSpace(self, self._link), self.store_timeout)
        # By rank, of those with which anything was: a number for each rank would make ten thousand groups 9 GB large.
        self._sent: Counter[int] = Counter()
        self._received: Counter[int] = Counter()
        self._broadcasts_received: Counter[int] = Counter()
        self.broadcast_send_counter = 0
        self.entries: deque[tuple[str, float]] = deque(maxlen=RECENT_ENTRIES)
        self.metadata: tuple[Any, ...] = ()
        self._codec: Codec = codec if codec is not None else MsgpackCodec()
        self._bulk_codec = self._codec if isinstance(self._codec, BulkCodec) else None
        self._encode_large = self._codec.encode_large if isinstance(self._codec, LargeCodec) else self._codec.encode
        self._aside = Aside()
        self._lanes = Lanes()
        self._payload_bytes = 0  # the store's limit, once it was asked
        self._member: Member | None = None
        self._joining = asyncio.Lock()
        self._in_line = 0  # calls that wait for the join, or for their turn behind it
        self._joiner: asyncio.Task[Any] | None = None  # who waits in the store's join; None once close() ended that
        self._numbers = Numbers()
        self._calls: dict[Call, Observed | None] = {}  # those under way, oldest first
        self._telemetry = find_telemetry()
        self._owns_store = False
        self._hosted: HostedStore | None = None
        self._leaves_last = False
        """The store is in this process, so this rank leaves barriers last."""
        self._closed = False
        self._pid = os.getpid()
        self._forks = forks.count
        self._loop: asyncio.AbstractEventLoop | None = None

    def __repr__(self) -> str:
        state = f"incarnation {self._member.incarnation}" if self._state == "joined" and self._member else self._state
        return (
            f"<{type(self).__name__} {self.name!r} rank {self.rank} of {self.world_size}, {state}, "
            f"{len(self._calls)} calls waiting, at {self._link.url}>"
        )

    @property
    def _state(self) -> str:
        if self._closed:
            return "closed"
        return "joined" if self._member else "joining" if self._in_line else "not joined"

    # ---------------------------------------------------------------------------------------------- life cycle

    async def join(self, *, timeout: float | None = None, takeover: bool = False) -> None:
        """Take this rank's place and wait until every rank has. The first call of a group does it by itself.

        Cancelling and a timeout take the join back; joining again is fine.

        Args:
            timeout: seconds; the group's store_timeout if not given.
            takeover: whether to put out a live member that holds this rank; its calls raise `FencedError`.

        Raises:
            GroupTimeoutError: some ranks did not join in time; `.missing` names them.
            RankConflictError: a live member holds this rank.
            WorldSizeMismatchError: a live group of this name has another size.
            GroupClosedError: the group was closed.
            StoreLostError: the link to the store ended.
        """
        await self._join(self._new_call("join", 0, timeout), takeover)

    async def _join(self, call: Call, takeover: bool = False) -> Member:
        join = Call("join", self.name, self.rank, 0, 0, call.loop, call.started, call.deadline)
        # While anybody is in here, whoever comes later queues up behind: call order is order before the join, too.
        self._in_line += 1
        try:
            async with join.within_deadline():
                await self._joining.acquire()
            try:
                if self._member is None:
                    self._member = await self._take_seat(join, takeover)
                return self._member
            finally:
                self._joining.release()
        except TimeoutError as error:
            if isinstance(error, GroupTimeoutError):
                raise
            raise join.timed_out(None, None) from None
        finally:
            self._in_line -= 1

    async def _take_seat(self, join: Call, takeover: bool) -> Member:
        self._check_open()
        self._loop = join.loop
        self._begin(join)
        task = self._joiner = asyncio.current_task()
        try:
            member = await self._link.join(join, self.world_size, ttl=self.data_expiration_seconds, takeover=takeover)
        except BaseException as error:
            self._end(join, error)
            # Like asyncio.timeout: a cancellation that was close()'s alone becomes close()'s error.
            was_cancelled = isinstance(error, asyncio.CancelledError)
            if was_cancelled and self._joiner is None and task is not None and task.uncancel() == 0:
                self._check_open()
            raise
        finally:
            self._joiner = None
        self._end(join)
        try:
            self._check_open()
        except GroupClosedError:
            await self._leave(member)  # the seat was taken in the very moment of close()
            raise
        return member

    def _check_open(self) -> None:
        if self._closed:
            raise GroupClosedError(f"group {self.name!r} was closed at rank {self.rank}")

    async def abort(self, reason: str) -> None:
        """Fail every call on this group at every rank, now and later, with `GroupAbortedError(rank, reason)`.

        The first abort of a group is the one that is told. The group can then only be closed. Cancelling it after
        it was sent does not undo it.

        Args:
            reason: text for the other ranks; over 1 KiB the rest is cut off.

        Raises:
            GroupClosedError: the group was closed, or was not joined yet: there is nobody to tell.
            StoreLostError: the link to the store ended; the other ranks see this rank as lost.
        """
        call = self._new_call("abort", 0, CLOSE_SECONDS)
        if self._member is None:
            raise GroupClosedError(f"group {self.name!r} was not joined yet, so there is nothing to abort")
        await self._member.abort(call, str(reason))

    async def close(self) -> None:
        """Leave the group and let go of the store. Closing twice is fine.

        Calls that wait on this group raise `GroupClosedError`; calls of other ranks that need this one and do not
        have what they need raise `PeerLostError`. Ends within about 2 s whatever the store does. A store that
        `create()` hosts in this process serves on until the other ranks have left, at most 2 s more.
        """
        if self._closed:
            return
        self._closed = True
        if self._forks != forks.count:
            return  # the connection is the parent's, and goes on
        try:
            if self._joiner is not None:
                joiner, self._joiner = self._joiner, None
                joiner.cancel()
            if self._member is not None:
                await self._leave(self._member)
        finally:
            if self._owns_store:
                await self._link.close()
            if self._hosted is not None:
                await self._hosted.close()

    async def _leave(self, member: Member) -> None:
        try:
            loop = asyncio.get_running_loop()
            now = loop.time()
            await member.leave(Call("leave", self.name, self.rank, 0, 0, loop, now, now + CLOSE_SECONDS))
        except (FencedError, StoreError, GroupClosedError, TimeoutError) as error:
            # The store sees the connection end and tells the others all the same.
            logger.info(
                "rank %d left group %r without the store's goodbye: %s",
                self.rank,
                self.name,
                error,
                extra={"group": self.name, "rank": self.rank, "reason": str(error)},
            )

    async def __aenter__(self) -> Self:
        await self.join()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        try:
            if exc is not None and not self._closed and not isinstance(exc, GroupAbortedError):
                with suppress(AiopgError):  # the exception that leaves the block is the one to be seen
                    await self.abort(f"{type(exc).__name__}: {exc}")
        finally:
            await self.close()

    async def expire_data(self) -> None:
        """Have the store drop what waited longer than data_expiration_seconds, now rather than soon.

        Who would have read it gets `DataExpiredError`. Also forgets old `entries`. The store looks at a group no more
        often than 20 times a second; a call that comes sooner does nothing there.
        """
        call = self._new_call("expire_data", 0, None)
        member = self._member or await self._join(call)
        await member.expire(call)
        while self.entries and self.entries[0][1] < time.monotonic() - self.data_expiration_seconds:
            self.entries.popleft()

    # ---------------------------------------------------------------------------------------------- one call

    def _check_place(self) -> None:
        """Raises unless this is the process and the event loop that the group belongs to."""
        if self._forks != forks.count:
            raise ForkError(
                f"group {self.name!r} belongs to process {self._pid}, and this is its forked child {os.getpid()}; "
                "make a new group here"
            )
        if self._loop is not None and self._loop is not asyncio.get_running_loop():
            raise WrongThreadError(f"group {self.name!r} belongs to another event loop than the one that runs here")

    def _check_usable(self) -> None:
        """Raises unless a call can be made here and now."""
        if self._closed:
            self._check_open()
        self._check_place()

    def _check_peer(self, what: str, rank: int) -> None:
        if isinstance(rank, bool) or not isinstance(rank, int):
            raise TypeError(f"{what} must be a rank, not {rank!r}")
        if not 0 <= rank < self.world_size:
            raise ValueError(f"{what} must be a rank from 0 to {self.world_size - 1}, not {rank}")

    def _new_call(self, op: str, tag: Tag, timeout: float | None, counted: Hashable = None) -> Call:
        """A call of this group that begins now. Raises what makes it impossible.

        `counted`: it is under way from here on, under the next number of that. To be asked for before the first await,
        so that call order is order; `_end` or `_give_up` is to follow.
        """
        if self._closed:
            self._check_open()
        if self._forks != forks.count:
            self._check_place()  # before the loop is asked for: a forked child has none
        loop = _running_loop()
        if loop is not self._loop:
            self._check_place()
        if type(tag) is not int or not LEAST_TAG <= tag <= LARGEST_TAG:
            check_tag(tag)
            tag = int(tag) if isinstance(tag, int) else str(tag)  # an IntEnum's member is the number that it is
        if timeout is None:
            seconds = self.store_timeout
        else:
            seconds = timeout if type(timeout) is float and timeout > 0 else check_timeout(timeout)
        now = loop.time()
        if counted is None:
            return Call(op, self.name, self.rank, tag, 0, loop, now, now + seconds)
        numbers, key = self._numbers, (counted, tag)
        seq = numbers.take(key) if numbers.free else next(numbers.fresh[key])
        call = Call(op, self.name, self.rank, tag, seq, loop, now, now + seconds)
        if self._telemetry is None:
            self._calls[call] = None
        else:
            self._begin(call)
        return call

    def _begin(self, call: Call) -> None:
        """The call is under way; `_end` is to follow."""
        telemetry, observed = self._telemetry, None
        if telemetry is not None:
            observed = telemetry.begin(
                call.op, group=self.name, rank=self.rank, world_size=self.world_size, tag=str(call.tag), seq=call.seq
            )
        self._calls[call] = observed

    def _end(self, call: Call, error: BaseException | None = None) -> None:
        """The call is over, and this is what it came to."""
        observed = self._calls.pop(call)
        if observed is not None:
            observed.end(error, seq=call.seq)  # it may have gone on under the next number

    def _give_up(self, counted: Hashable, call: Call, error: BaseException) -> None:
        """The call failed with this error; its number is given back if it left no trace."""
        self._end(call, error)
        if not isinstance(error, _DECIDED):
            self._numbers.give_back((counted, call.tag), call.seq)

    def _check_size(self, parts: Sequence[Buffer]) -> None:
        """Raises `PayloadTooLargeError` before anything is sent or counted."""
        size = sum(map(len, parts))
        if size > self._payload_bytes:
            self._payload_bytes = self._link.capabilities.payload_bytes
            if size > self._payload_bytes:
                raise PayloadTooLargeError(size, self._payload_bytes)

    def _encode(self, obj: object) -> Buffer:
        return flat(self._codec.encode(obj))

    async def _encode_aside(self, call: Call, counted: Hashable, objs: Sequence[object]) -> list[Buffer]:
        """Payloads of objects of which some are large. Raises what `_encode` and `_check_size` do, and on timeout."""
        parts: list[Buffer] = await self._aside.run(call, self._encode_each, objs)
        try:
            self._check_size(parts)
        except PayloadTooLargeError:
            # Of what was sent, that would be the outcome of its number (`_DECIDED`).
            self._numbers.give_back((counted, call.tag), call.seq)
            raise
        return parts

    def _encode_each(self, objs: Sequence[object]) -> list[Buffer]:
        return [flat(self._encode_large(obj)) for obj in objs]

    def _decode(self, payload: Buffer) -> Any:
        return self._codec.decode(payload)

    def _decode_one(self, payloads: Sequence[Buffer] | Decoded) -> Any:
        return payloads[0] if type(payloads) is Decoded else self._codec.decode(payloads[0])

    def _decode_all(self, payloads: Sequence[Buffer] | Decoded) -> list[Any]:
        if type(payloads) is Decoded:
            return list(payloads)
        if self._bulk_codec is not None and type(payloads) is Parts:
            return self._bulk_codec.decode_many(payloads.joined, payloads.sizes)
        return [self._codec.decode(payload) for payload in payloads]


@lru_cache(RECENT_ENTRIES)
def entry_text(what: str, tag: Tag) -> str:
    """What `entries` says of a call. Most calls are as others were, and to format a text costs some of a collective."""
    return f"{what}, tag {tag!r}"


def flat(payload: Buffer) -> Buffer:
    """A payload as bytes one behind the other."""
    return payload.cast("B") if isinstance(payload, memoryview) else payload
