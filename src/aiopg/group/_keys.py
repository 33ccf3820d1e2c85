"""The keys of one incarnation of a group."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiopg.keys import LinkSpace, Space
from aiopg.keys._observed import told_of
from aiopg.stores.base import Call, Member, StoreLink
from aiopg.stores.keys import KeyCall, Keys

if TYPE_CHECKING:
    from aiopg.group._base import GroupBase

__all__ = ["GroupSpace"]


class GroupSpace(Space):
    """Keys that are private to a group's incarnation. The first call on them joins the group, as its other calls do."""

    def __init__(self, group: GroupBase, link: StoreLink) -> None:
        self.link = link
        self._group = group
        self._keys: Keys | None = None
        self._shared = LinkSpace(link)

    @property
    def shared(self) -> LinkSpace:
        return self._shared

    def check(self) -> None:
        self._group._check_usable()

    def keys(self) -> Keys | None:
        group = self._group
        if group._in_line:
            return None  # others wait for the join, and who comes now queues up behind them
        if self._keys is None and group._member is not None:
            self._keys = self._told_of(group._member)
        return self._keys

    async def enter(self, call: KeyCall) -> Keys:
        group = self._group
        join = Call(call.op, group.name, group.rank, 0, 0, call.loop, call.started, call.deadline)
        member = await group._join(join)
        if self._keys is None:
            self._keys = self._told_of(member)
        return self._keys

    def _told_of(self, member: Member) -> Keys:
        return told_of(self.link.keys(member), group=self._group.name, rank=self._group.rank)

    def describe(self) -> str:
        group = self._group
        return f"of group {group.name!r} rank {group.rank}"
