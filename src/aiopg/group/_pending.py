"""What one member of a group knows of itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from aiopg.group._base import GroupBase
from aiopg.stores.base import Tag

__all__ = ["Pending", "PendingCall"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingCall:
    """One call of this group that waits."""

    op: str
    """Name of the call ("barrier", "recv", "join", ...)."""
    tag: Tag
    """Its tag."""
    seq: int
    """Its number among the calls of its kind and tag, from 1; 0 for a join."""
    elapsed: float
    """Seconds since it was made."""
    remaining: float
    """Seconds until its deadline; `math.inf` without one."""

    def _fields(self) -> dict[str, object]:
        remaining = None if self.remaining == math.inf else self.remaining
        return {"op": self.op, "tag": self.tag, "seq": self.seq, "elapsed": self.elapsed, "remaining": remaining}


class Pending(GroupBase):
    """pending and describe. See `AsyncStatelessGroup`."""

    def pending(self) -> tuple[PendingCall, ...]:
        """The calls of this rank that wait right now, oldest first."""
        return tuple(
            PendingCall(
                op=call.op, tag=call.tag, seq=call.seq, elapsed=call.elapsed, remaining=call.deadline - call.loop.time()
            )
            for call in self._calls
        )

    def describe(self) -> dict[str, object]:
        """What this member knows of itself, in plain values, for logs and health checks. Asks nobody; never waits.

        `state` is "not joined", "joining", "joined" or "closed"; `incarnation` is None before the group was joined;
        `pending` are the calls of `pending()` (`remaining` None for no deadline). `sent`, `received` and
        `broadcasts_received` count what is done by the other rank, of ranks with which anything was.

        What the others do is told by the store: `aiopg status URL`.
        """
        capabilities = self._link.capabilities
        return {
            "name": self.name,
            "rank": self.rank,
            "world_size": self.world_size,
            "state": self._state,
            "incarnation": self._member.incarnation if self._member is not None else None,
            "store": self._link.url,
            "engine": capabilities.engine,
            "hosts_store": self._hosted is not None,
            "pid": self._pid,
            "pending": [call._fields() for call in self.pending()],
            "sent": dict(self._sent),
            "received": dict(self._received),
            "broadcasts_sent": self.broadcast_send_counter,
            "broadcasts_received": dict(self._broadcasts_received),
        }

    @property
    def send_dst_counter(self) -> dict[int, int]:
        """How many sends to each rank are done: a copy, with all ranks in it."""
        return self._of_all_ranks(self._sent)

    @property
    def recv_src_counter(self) -> dict[int, int]:
        """How many receives from each rank are done: a copy, with all ranks in it."""
        return self._of_all_ranks(self._received)

    @property
    def broadcast_recv_src_counter(self) -> dict[int, int]:
        """How many broadcasts from each rank are done: a copy, with all ranks in it."""
        return self._of_all_ranks(self._broadcasts_received)

    def _of_all_ranks(self, counter: Mapping[int, int]) -> dict[int, int]:
        return dict.fromkeys(range(self.world_size), 0) | dict(counter)
