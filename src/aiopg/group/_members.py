"""What becomes of a group's members."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Literal, cast

from aiopg.errors import GroupClosedError
from aiopg.group._base import GroupBase

__all__ = ["MemberEvent", "Members"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberEvent:
    """Something happened to a member of the group.

    Attributes:
        what: "joined", "left" (it closed the group), "lost" (its process or connection ended), "aborted", or "waiting":
            somebody who called `rendezvous` waits for the members to call `reform`. That is told once, whoever comes
            behind.
        rank: who; -1 for "waiting".
        text: for "joined" and "waiting" who it is ("pid 4711 on host-a"), else why.
    """

    what: Literal["joined", "left", "lost", "aborted", "waiting"]
    rank: int
    text: str


class Members(GroupBase):
    """events. See `AsyncStatelessGroup`."""

    async def events(self) -> AsyncGenerator[MemberEvent, None]:
        """What happens to the members of this group, from its beginning on, in the order in which the store saw it.

        ::

            async for event in group.events():
                print(event.rank, event.what)

        Each iteration of it hears everything once, over broken connections too. It waits without a deadline, and ends
        when this rank closes the group. Cancelling it loses nothing that another iteration would not hear.

        Raises:
            StoreLostError: the link to the store ended.
            GroupTimeoutError, RankConflictError, WorldSizeMismatchError: the group was not joined yet, and joining
                failed.
        """
        call = self._new_call("events", 0, math.inf)
        try:
            member = self._member or await self._join(self._new_call("events", 0, None))
            heard = 0
            while True:
                happenings = await member.happenings(call, heard)
                heard += len(happenings)
                for what, rank, text in happenings:
                    kind = cast(Literal["joined", "left", "lost", "aborted", "waiting"], what)
                    yield MemberEvent(what=kind, rank=rank, text=text)
        except GroupClosedError:
            if not self._closed:
                raise
