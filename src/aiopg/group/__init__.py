"""Process groups for asyncio programs."""

from aiopg.group._group import AsyncStatelessGroup
from aiopg.group._members import MemberEvent
from aiopg.group._pending import PendingCall
from aiopg.group._reduce import ReduceOp

__all__ = ["AsyncStatelessGroup", "MemberEvent", "PendingCall", "ReduceOp"]
