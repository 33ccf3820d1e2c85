"""The collectives: calls that every rank of the group makes, in the same order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic
from typing import Any

from aiopg.codec import LARGE_BYTES, is_large
from aiopg.errors import GroupTimeoutError
from aiopg.group._aside import Decoded
from aiopg.group._base import GroupBase, entry_text, flat
from aiopg.group._reduce import ReduceOp, reduce_name, reduce_values
from aiopg.stores.base import Buffer, Needs, NumberUsedError, Parts, Tag

__all__ = ["Collectives"]

NO_ROOT = -1


class _Large(tuple[object, ...]):
    """Objects to be encoded off the event loop."""

    __slots__ = ()


class Collectives(GroupBase):
    """barrier, broadcast, all_gather, gather, scatter, all_to_all, all_reduce, reduce.

    The rules of all of them, beside each one's own:

    - *Order.* Per tag, every rank calls the same collectives in the same order, with the same root and reduce op.
      Where they differ, `CollectiveMismatchError` is raised on all ranks.
    - *Cancel and timeout* take this rank's arrival back: it is not counted. Calling again is the same call again.
      Where the others had already got theirs, the result is kept for that call; a call of another collective, or with
      other data, is then the next one, as it is for the others.
    - *Large objects* (`aiopg.codec.is_large`: over 4 MiB) are encoded and decoded in a worker thread: do not change an
      object that you gave until the call has returned. The memory of what was given and of what came is used once more
      each meanwhile.
    - `tag`: collectives of one tag are independent of those of another; an int or a short text. Each rank keeps a
      counter for every tag that it used, so tags are for kinds of calls and not for single ones.
    - `timeout`: seconds, the group's store_timeout if not given, `math.inf` for none. `GroupTimeoutError` names who
      arrived and who is missing.
    - *Raises*: `ValueError` (a root that is no rank, a timeout not over 0), `GroupTimeoutError`, `PeerLostError`
      (a rank that this call needs is gone), `CollectiveMismatchError`, `GroupAbortedError`, `DataExpiredError`,
      `CodecError`, `PayloadTooLargeError`, `StoreFullError`, `StoreLostError`, `GroupClosedError`.
      A `CodecError` about what another rank gave comes when the call is done: it is counted, and the group goes on.
    """

    async def barrier(self, timeout: float | None = 30.0, *, tag: Tag = 0) -> None:
        """Wait until every rank has called it.

        A barrier that returns on one rank returns on all that live. Where rank 0 hosts the store in its own process,
        rank 0 returns last, when every other rank has its release in hand; it waits at most `timeout` for that too.
        Polling with a short timeout works: an arrival that timed out is not counted.
        """
        needs = Needs.ALL_TOLD if self._leaves_last else Needs.ALL
        await self._round("barrier", NO_ROOT, [], needs, tag, timeout)

    async def broadcast(self, obj: Any = None, src: int = 0, *, tag: Tag = 0, timeout: float | None = None) -> Any:
        """Give rank `src`'s object to every rank; returns it. `obj` of the other ranks is ignored.

        `src` does not wait for the others and gets its own object back; the others wait for `src` alone.
        """
        self._check_peer("src", src)
        if self.rank == src:
            await self._round("broadcast", src, self._part(obj), Needs.NOTHING, tag, timeout)
            self.broadcast_send_counter += 1
            return obj
        parts = await self._round("broadcast", src, [], Needs.ROOT, tag, timeout)
        self._broadcasts_received[src] += 1
        return self._decode_one(parts)

    async def all_gather(self, obj: Any, *, tag: Tag = 0, timeout: float | None = None) -> list[Any]:
        """Every rank's object, in rank order, on every rank."""
        parts = await self._round("all_gather", NO_ROOT, self._part(obj), Needs.ALL, tag, timeout)
        return self._decode_all(parts)

    async def gather(self, obj: Any, dst: int = 0, *, tag: Tag = 0, timeout: float | None = None) -> list[Any] | None:
        """Every rank's object, in rank order, on rank `dst`; `None` on the others, which do not wait."""
        self._check_peer("dst", dst)
        needs = Needs.ALL if self.rank == dst else Needs.NOTHING
        parts = await self._round("gather", dst, self._part(obj), needs, tag, timeout)
        return self._decode_all(parts) if self.rank == dst else None

    async def scatter(
        self, objs: Sequence[Any] | None = None, src: int = 0, *, tag: Tag = 0, timeout: float | None = None
    ) -> Any:
        """Rank i gets `objs[i]` of rank `src`. `objs` of the other ranks is ignored.

        Raises `ValueError` at `src` if `objs` does not have world_size entries.
        """
        self._check_peer("src", src)
        parts = self._parts(objs) if self.rank == src else []
        return self._decode_one(await self._round("scatter", src, parts, Needs.ROOT, tag, timeout))

    async def all_to_all(self, objs: Sequence[Any], *, tag: Tag = 0, timeout: float | None = None) -> list[Any]:
        """Rank i gets `[objs[i] of rank 0, objs[i] of rank 1, ...]`.

        Raises `ValueError` if `objs` does not have world_size entries.
        """
        parts = await self._round("all_to_all", NO_ROOT, self._parts(objs), Needs.ALL, tag, timeout)
        return self._decode_all(parts)

    async def all_reduce(self, obj: Any, op: ReduceOp = "sum", *, tag: Tag = 0, timeout: float | None = None) -> Any:
        """All ranks' values reduced to one, on every rank.

        The values are reduced in rank order on each rank, so every rank gets the very same result, rounding included.

        Args:
            obj: a number, a numpy array or scalar, or a list of numbers (element by element); with a function as `op`,
                anything it takes.
            op: "sum", "prod", "min", "max", or a function of two values, the same on every rank.
            tag, timeout: see the class.

        Raises:
            ValueError: an unknown op, or values that do not go together, on every rank.
        """
        name = reduce_name(op)
        parts = await self._round("all_reduce", NO_ROOT, self._part(obj), Needs.ALL, tag, timeout, name)
        return reduce_values(self._decode_all(parts), op)

    async def reduce(
        self, obj: Any, dst: int = 0, op: ReduceOp = "sum", *, tag: Tag = 0, timeout: float | None = None
    ) -> Any:
        """`all_reduce` on rank `dst` alone; `None` on the others, which do not wait."""
        self._check_peer("dst", dst)
        name = reduce_name(op)
        needs = Needs.ALL if self.rank == dst else Needs.NOTHING
        parts = await self._round("reduce", dst, self._part(obj), needs, tag, timeout, name)
        return reduce_values(self._decode_all(parts), op) if self.rank == dst else None

    broadcast_obj = broadcast
    all_gather_obj = all_gather

    async def _round(
        self,
        op: str,
        root: int,
        given: list[Buffer] | _Large,
        needs: int,
        tag: Tag,
        timeout: float | None,
        detail: str = "",
    ) -> Sequence[Buffer] | Decoded:
        parts: list[Buffer] = given if type(given) is list else []
        if parts and (len(parts) > 1 or len(parts[0]) > self._payload_bytes):
            self._check_size(parts)
        call = self._new_call(op, tag, timeout, "round")
        try:
            if type(given) is not list:
                parts = await self._encode_aside(call, "round", given)
            while True:
                try:
                    member = self._member
                    if member is None or self._in_line:
                        member = await self._join(call)
                    result = await member.round(call, root, detail, parts, needs)
                    break
                except NumberUsedError:
                    call.seq = self._numbers.take(("round", call.tag))
        except BaseException as error:
            self._give_up("round", call, error)
            raise
        came = len(result.joined) if type(result) is Parts else sum(map(len, result)) if result else 0
        if came > LARGE_BYTES:
            try:
                decoded = Decoded(await self._aside.run(call, self._decode_all, result))
            except (asyncio.CancelledError, GroupTimeoutError) as error:
                member.keep(call, root, detail, parts, result)
                self._give_up("round", call, error)
                raise
            except BaseException as error:
                self._end(call, error)
                raise
        else:
            decoded = None
        if self._telemetry is None:
            del self._calls[call]
        else:
            self._end(call)
        if parts:
            self.entries.append((entry_text(op, tag), monotonic()))
        return result if decoded is None else decoded

    def _part(self, obj: object) -> list[Buffer] | _Large:
        """What a rank gives that gives one object; one that is large is not encoded yet."""
        if is_large(obj):
            return _Large((obj,))
        payload = self._codec.encode(obj)
        return [payload if type(payload) is bytes else flat(payload)]

    def _parts(self, objs: Sequence[Any] | None) -> list[Buffer] | _Large:
        if objs is None or isinstance(objs, str | bytes) or len(objs) != self.world_size:
            raise ValueError(f"objs must have one entry for each of the {self.world_size} ranks")
        return _Large(objs) if any(map(is_large, objs)) else [self._encode(obj) for obj in objs]
