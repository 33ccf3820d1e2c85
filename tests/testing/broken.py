"""Stores that break one rule each, and the checks that are to find them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from aiopg import CollectiveMismatchError, DataExpiredError, GroupTimeoutError, PeerLostError, RankConflictError
from aiopg.stores.base import Body, Buffer, Call, Capabilities, Member, Needs, NumberUsedError, Place, Tag
from aiopg.stores.keys import Following, KeyCall, KeyEvent

from .around import KeysAround, LinkAround, MemberAround

__all__ = ["PLANTED", "Planted", "Bare", "tidy_up"]


# -------------------------------------------------------------------------------------------------- members


class LosesOnCancel(MemberAround):
    """A message that a take has and does not hand on is gone."""

    async def take(self, call: Call, src: int) -> Buffer:
        payload = await self.inner.take(call, src)
        await asyncio.sleep(0)
        return payload


class MixesSenders(MemberAround):
    """One mailbox for all: what any rank has sent here is what comes."""

    async def put(self, call: Call, dst: int, payload: Body) -> None:
        await self.inner.put(call, dst, (b"%d " % call.rank, *payload))
        waiting[self.incarnation_of(call), dst, call.tag] = call.rank

    async def take(self, call: Call, src: int) -> Buffer:
        from_whom = waiting.pop((self.incarnation_of(call), call.rank, call.tag), src)
        return bytes(await self.inner.take(call, from_whom)).partition(b" ")[2]

    def incarnation_of(self, call: Call) -> tuple[str, int]:
        """Which group it is."""
        return call.group, self.incarnation


waiting: dict[tuple[tuple[str, int], int, Tag], int] = {}


class SendsTwice(MemberAround):
    """A put that was cancelled and is made again is there twice."""

    async def put(self, call: Call, dst: int, payload: Body) -> None:
        await asyncio.shield(asyncio.ensure_future(self.inner.put(call, dst, payload)))
        await asyncio.sleep(0)


class Reorders(MemberAround):
    """Every third message is overtaken by the next."""

    count = 0

    async def put(self, call: Call, dst: int, payload: Body) -> None:
        self.count += 1
        if self.count % 3 == 1:
            await asyncio.sleep(0.001)
        await self.inner.put(call, dst, payload)


class IgnoresWithdrawal(MemberAround):
    """Who was cancelled in a round is counted all the same."""

    async def round(self, call: Call, root: int, detail: str, parts: list[Buffer], needs: int) -> Sequence[Buffer]:
        arrival = asyncio.ensure_future(self.inner.round(call, root, detail, parts, needs))
        arrival.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(arrival)


class ForgetsUsedNumbers(MemberAround):
    """A round that was decided for a call that was given up is given to whatever call comes."""

    async def round(self, call: Call, root: int, detail: str, parts: list[Buffer], needs: int) -> Sequence[Buffer]:
        try:
            return await self.inner.round(call, root, detail, parts, needs)
        except NumberUsedError:
            return parts * 2


class HangsWhenLost(MemberAround):
    """A round that needs a rank that is lost waits until its deadline."""

    async def round(self, call: Call, root: int, detail: str, parts: list[Buffer], needs: int) -> Sequence[Buffer]:
        try:
            return await self.inner.round(call, root, detail, parts, needs)
        except PeerLostError:
            await asyncio.sleep(call.deadline - call.loop.time())
            raise call.timed_out(None, None) from None


class LiesAboutMissing(MemberAround):
    """Whoever asks is told that rank 0 is missing."""

    async def round(self, call: Call, root: int, detail: str, parts: list[Buffer], needs: int) -> Sequence[Buffer]:
        try:
            return await self.inner.round(call, root, detail, parts, needs)
        except GroupTimeoutError as error:
            raise call.withdrawn(error.arrived, (0,)) from None


class IsLate(MemberAround):
    """A deadline is kept 150 ms later."""

    async def take(self, call: Call, src: int) -> Buffer:
        return await self.inner.take(replace(call, deadline=call.deadline + 0.15), src)


class MismatchAtOne(MemberAround):
    """Rank 0 does not hear that the calls differ."""

    async def round(self, call: Call, root: int, detail: str, parts: list[Buffer], needs: int) -> Sequence[Buffer]:
        try:
            return await self.inner.round(call, root, detail, parts, needs)
        except CollectiveMismatchError:
            if call.rank:
                raise
            return parts


class AbortsSilently(MemberAround):
    """An abort without its reason."""

    async def abort(self, call: Call, reason: str) -> None:
        await self.inner.abort(call, "")


class ExpiresSilently(MemberAround):
    """What has expired was never there."""

    async def take(self, call: Call, src: int) -> Buffer:
        while True:
            try:
                return await self.inner.take(call, src)
            except DataExpiredError:
                continue


class ForgetsWhatIsGivenBack(MemberAround):
    """give_back and keep do nothing."""

    def give_back(self, src: int, tag: Tag, payload: Buffer) -> None:
        pass

    def keep(self, call: Call, root: int, detail: str, parts: list[Buffer], result: Sequence[Buffer]) -> None:
        pass


class TellsLossAsLeaving(MemberAround):
    """Whoever is gone has left."""

    async def happenings(self, call: Call, after: int) -> list[tuple[str, int, str]]:
        told = await self.inner.happenings(call, after)
        return [("left" if what == "lost" else what, rank, text) for what, rank, text in told]


class WaitsForAll(MemberAround):
    """The source of a broadcast waits for the others."""

    async def round(self, call: Call, root: int, detail: str, parts: list[Buffer], needs: int) -> Sequence[Buffer]:
        if needs != Needs.NOTHING:
            return await self.inner.round(call, root, detail, parts, needs)
        await self.inner.round(call, root, detail, parts, Needs.ALL)
        return []


class ReformsDifferently(MemberAround):
    """Each is told something else of what all said."""

    async def reform(self, call: Call, *, ttl: float, metadata: bytes) -> Place:
        place = await super().reform(call, ttl=ttl, metadata=metadata)
        return replace(place, metadata=place.metadata[place.rank :])


# ---------------------------------------------------------------------------------------------------- links


async def tidy_up() -> None:
    """Close and cancel what these stores have left behind."""
    for left in left_behind:
        if isinstance(left, asyncio.Future):
            left.cancel()
        else:
            await left.close()
    left_behind.clear()


class OneIncarnation(LinkAround):
    """Every life of a group has the same number."""

    async def join(self, call: Call, world_size: int, *, ttl: float, takeover: bool = False) -> Member:
        member = await super().join(call, world_size, ttl=ttl, takeover=takeover)
        member.incarnation = 1
        return member


class WaitsForHeldRanks(LinkAround):
    """A rank that is held is waited for."""

    async def join(self, call: Call, world_size: int, *, ttl: float, takeover: bool = False) -> Member:
        while True:
            try:
                return await super().join(call, world_size, ttl=ttl, takeover=takeover)
            except RankConflictError:
                if call.deadline < call.loop.time() + 20:
                    raise call.timed_out(None, None) from None
                raise TimeoutError from None


class LeavesSeats(LinkAround):
    """Closing it tells nobody: its members stay."""

    async def close(self) -> None:
        left_behind.append(self.inner)


left_behind: list[Any] = []
"""Links that are not closed and tasks that were not cancelled, for the test to do."""


class LeavesTasks(LinkAround):
    """A task of it goes on when it is closed."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.task = asyncio.ensure_future(asyncio.sleep(math.inf))

    async def close(self) -> None:
        await self.inner.close()
        left_behind.append(self.task)


# ----------------------------------------------------------------------------------------------------- keys


class PushesTwice(KeysAround):
    """Every push is there twice."""

    async def push(self, call: KeyCall, value: bytes) -> int:
        await self.inner.push(call, value)
        return await self.inner.push(call, value)


class LosesItems(KeysAround):
    """An item that a pop has and does not hand on is gone."""

    async def pop(self, call: KeyCall, *, wait: bool) -> bytes:
        item = await self.inner.pop(call, wait=wait)
        await asyncio.sleep(0)
        return item


class ForgetsSessions(KeysAround):
    """Every key stays."""

    async def set(self, call: KeyCall, items: Sequence[tuple[str, bytes]], *, ttl: float | None, session: bool) -> int:
        return await self.inner.set(call, items, ttl=ttl, session=False)


class ForgetsTimes(KeysAround):
    """Every key is kept for ever."""

    async def set(self, call: KeyCall, items: Sequence[tuple[str, bytes]], *, ttl: float | None, session: bool) -> int:
        return await self.inner.set(call, items, ttl=None, session=session)


class SetsOneByOne(KeysAround):
    """Who looks may see a part of what is set together."""

    async def set(self, call: KeyCall, items: Sequence[tuple[str, bytes]], *, ttl: float | None, session: bool) -> int:
        for item in items:
            revision = await self.inner.set(call, [item], ttl=ttl, session=session)
        return revision


class OneFencingNumber(KeysAround):
    """Every holder of a lock has the same number."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.numbers: list[int] = []

    async def lock(self, call: KeyCall) -> int:
        self.numbers.append(await self.inner.lock(call))
        return 1

    async def unlock(self, call: KeyCall, number: int) -> bool:
        return await self.inner.unlock(call, self.numbers.pop() if self.numbers else number)


class ComparesNothing(KeysAround):
    """compare_set sets."""

    async def compare_set(self, call: KeyCall, expected: bytes | None, desired: bytes) -> tuple[bool, bytes | None]:
        await self.inner.set(call, [(call.keys[0], desired)], ttl=None, session=False)
        return True, desired


class AddsInTwoSteps(KeysAround):
    """Two that add at once may get the same sum."""

    async def add(self, call: KeyCall, amount: int) -> int:
        total = await self.inner.add(call, 0) + amount
        await self.inner.set(call, [(call.keys[0], b"%d" % total)], ttl=None, session=False)
        return total


class SkipsChanges(KeysAround):
    """Of several changes that come together, the last is told."""

    def follow(self, prefix: str, after: int) -> Following:
        return _Skipping(self.inner.follow(prefix, after))


class _Skipping(Following):
    def __init__(self, inner: Following) -> None:
        self.inner = inner

    async def changes(self, call: KeyCall) -> list[KeyEvent]:
        return (await self.inner.changes(call))[-1:]

    def close(self) -> None:
        self.inner.close()


class OneSpace(LinkAround):
    """The keys of a group are the store's own."""

    def keys(self, member: Member | None = None) -> Any:
        return self.inner.keys()


# -------------------------------------------------------------------------------------------- all of them


class Planted(NamedTuple):
    """A store that breaks a rule, and the checks that are to say so."""

    link: type[LinkAround]
    found_by: tuple[str, ...]
    patience: float = 0.3
    """Enough for the check to say what is wrong, or to be seen to hang."""


def _of_members(kind: type[MemberAround]) -> type[LinkAround]:
    return type(kind.__name__, (LinkAround,), {"member_kind": kind})


def _of_keys(kind: type[KeysAround]) -> type[LinkAround]:
    return type(kind.__name__, (LinkAround,), {"keys_kind": kind})


PLANTED = [
    Planted(_of_members(LosesOnCancel), ("messages.cancelled_take", "sweeps.take")),
    Planted(_of_members(MixesSenders), ("messages.senders",)),
    Planted(_of_members(SendsTwice), ("sweeps.put", "sweeps.put_to_who_waits")),
    Planted(_of_members(Reorders), ("messages.fifo",)),
    Planted(_of_members(IgnoresWithdrawal), ("rounds.withdrawn",)),
    Planted(_of_members(ForgetsUsedNumbers), ("rounds.number_used",)),
    Planted(_of_members(HangsWhenLost), ("departures.left",)),
    Planted(_of_members(LiesAboutMissing), ("deadlines.names_the_missing",), patience=5.0),
    Planted(_of_members(IsLate), ("deadlines.kept",), patience=5.0),
    Planted(_of_members(MismatchAtOne), ("rounds.mismatch",)),
    Planted(_of_members(AbortsSilently), ("departures.aborted",)),
    Planted(_of_members(ExpiresSilently), ("expiry.message",), patience=5.0),
    Planted(_of_members(ForgetsWhatIsGivenBack), ("messages.give_back", "rounds.keep")),
    Planted(_of_members(TellsLossAsLeaving), ("happenings.in_order",)),
    Planted(_of_members(WaitsForAll), ("rounds.root_part",)),
    Planted(_of_members(ReformsDifferently), ("elastic.reform",)),
    Planted(OneIncarnation, ("joining.incarnations",)),
    Planted(WaitsForHeldRanks, ("joining.rank_conflict",)),
    Planted(LeavesSeats, ("departures.lost", "links.closed")),
    Planted(LeavesTasks, ("links.closed",)),
    Planted(_of_keys(PushesTwice), ("queues.fifo",)),
    Planted(_of_keys(LosesItems), ("queues.cancelled", "key_sweeps.pop")),
    Planted(_of_keys(ForgetsSessions), ("spaces.session", "spaces.session_of_a_member")),
    Planted(_of_keys(ForgetsTimes), ("spaces.ttl",)),
    Planted(_of_keys(SetsOneByOne), ("values.atomic",)),
    Planted(_of_keys(OneFencingNumber), ("meetings.lock",)),
    Planted(_of_keys(ComparesNothing), ("values.compare_set", "values.one_winner")),
    Planted(_of_keys(AddsInTwoSteps), ("values.add",)),
    Planted(_of_keys(SkipsChanges), ("watches.slow",)),
    Planted(OneSpace, ("spaces.of_a_group",)),
]


class Bare(LinkAround):
    """A store without all that one may be without. It breaks no rule."""

    class member_kind(MemberAround):
        async def reform(self, call: Call, *, ttl: float, metadata: bytes) -> Place:
            raise NotImplementedError("no reform")

    @property
    def capabilities(self) -> Capabilities:
        return replace(self.inner.capabilities, keys=False)

    async def join(self, call: Call, world_size: int, *, ttl: float, takeover: bool = False) -> Member:
        if takeover:
            raise NotImplementedError("no takeover")
        return await super().join(call, world_size, ttl=ttl)

    async def enlist(
        self, call: Call, min_size: int, max_size: int, *, patience: float, ttl: float, metadata: bytes
    ) -> Place:
        raise NotImplementedError("no enlist")

    def keys(self, member: Member | None = None) -> Any:
        raise NotImplementedError("no keys")
