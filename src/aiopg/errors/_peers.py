"""Another rank did not do its part."""

from __future__ import annotations

from collections.abc import Sequence

from aiopg.errors._root import AiopgError, describe_ranks, named

__all__ = [
    "PeerError",
    "GroupTimeoutError",
    "KeyTimeoutError",
    "QueueEmptyError",
    "PeerLostError",
    "GroupAbortedError",
]


class PeerError(AiopgError):
    """Another rank did not do its part."""


class GroupTimeoutError(PeerError, TimeoutError):
    """The deadline of a call passed. The call's arrival was taken back, so calling again is the same call.

    Attributes:
        op: name of the call ("barrier", "recv", "join", ...).
        group: name of the group.
        tag: tag of the call.
        seq: number of the call among those of its kind and tag, from 1; 0 for a join.
        arrived: ranks that had arrived at the deadline, or `None` if the store did not say in time.
        missing: ranks that the call still needed, or `None` if the store did not say in time.
        elapsed: seconds since the call was made.
        trace: the last happenings of the group that matter to this call, as the store saw them, oldest first: at most
            8 lines such as "3.2 s ago: rank 5 was lost: its process 4711 ended". Empty where the store keeps none.
    """

    _fields = ("op", "group", "tag", "seq", "arrived", "missing", "elapsed", "trace")

    def __init__(
        self,
        op: str,
        group: str,
        tag: int | str,
        seq: int,
        arrived: Sequence[int] | None,
        missing: Sequence[int] | None,
        elapsed: float,
        trace: Sequence[str] = (),
    ) -> None:
        if missing is None:
            who = "the store did not say who is missing"
        else:
            who = f"missing: {named(missing) if missing else 'no rank'}"
            who += f"; arrived: {describe_ranks(arrived or ())}"
        number = f" number {seq}" if seq else ""
        super().__init__(f"{op}{number} (tag {tag!r}) of group {group!r} timed out after {elapsed:.2f} s; {who}")
        self.op, self.group, self.tag, self.seq = op, group, tag, seq
        self.arrived = None if arrived is None else tuple(arrived)
        self.missing = None if missing is None else tuple(missing)
        self.elapsed = elapsed
        self.carry(trace)


class KeyTimeoutError(PeerError, TimeoutError):
    """The deadline of a call on a store's keys passed; it was taken back, unless it had taken effect in that moment.

    `outcome` says so: where that is unknown, an `add`, `append` or `queue_push` that is made again may count twice.

    Attributes:
        op: name of the call ("get", "wait", "queue_pop", "lock", ...).
        keys: the keys that the call was about.
        missing: those of them that were not there, or `None` if the store did not say in time. Empty for `barrier`.
        arrived: how many had come to a `barrier`; `None` for other calls, or if the store did not say.
        expected: how many were to come to it; likewise.
        timeout: seconds that the call had.
        elapsed: seconds since the call was made.
    """

    _fields = ("op", "keys", "missing", "arrived", "expected", "timeout", "elapsed")

    def __init__(
        self,
        op: str,
        keys: Sequence[str],
        missing: Sequence[str] | None,
        arrived: int | None,
        expected: int | None,
        timeout: float,
        elapsed: float,
    ) -> None:
        self.op, self.keys = op, tuple(keys)
        self.missing = None if missing is None else tuple(missing)
        self.arrived, self.expected, self.timeout, self.elapsed = arrived, expected, timeout, elapsed
        spent = f"timed out after {elapsed:.2f} s (timeout {timeout:g} s)"
        super().__init__(f"{op} of {describe_keys(self.keys)} {spent}; {self._what_is_missing()}")

    def _what_is_missing(self) -> str:
        if self.expected is not None:
            return f"{self.arrived}/{self.expected} arrived"
        if self.missing is None:
            return "the store did not say what is missing"
        return f"missing: {describe_keys(self.missing)}" if len(self.keys) > 1 else "it was not to be had"


def describe_keys(keys: Sequence[str]) -> str:
    """Keys for people: at most five of them."""
    named = ", ".join(map(repr, keys[:5]))
    return named + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")


class QueueEmptyError(PeerError, LookupError):
    """Nothing is in the queue now, and the call was not to wait.

    Attributes:
        key: name of the queue.
    """

    _fields = ("key",)

    def __init__(self, key: str) -> None:
        super().__init__(f"queue {key!r} is empty")
        self.key = key


class PeerLostError(PeerError):
    """A rank that the call needs has left the group or is lost.

    Calls that do not need it go on. Messages that it sent before can still be received.

    Attributes:
        group: name of the group.
        ranks: the ranks that are gone and that the call needs.
        reason: what happened to the first of them ("left", "connection lost", ...).
        trace: the last happenings of the group that matter to the call, as the store saw them, oldest first: at most
            8 lines such as "3.2 s ago: rank 5 was lost: its process 4711 ended". Empty where the store keeps none.
    """

    _fields = ("group", "ranks", "reason", "trace")

    def __init__(self, group: str, ranks: Sequence[int], reason: str, trace: Sequence[str] = ()) -> None:
        super().__init__(f"{named(ranks)} of group {group!r} is gone: {reason}")
        self.group, self.ranks, self.reason = group, tuple(ranks), reason
        self.carry(trace)


class GroupAbortedError(PeerError):
    """A rank aborted the group. Every call on it fails with this error, now and later.

    Attributes:
        group: name of the group.
        origin: the rank that aborted.
        reason: the text it gave.
    """

    _fields = ("group", "origin", "reason")

    def __init__(self, group: str, origin: int, reason: str) -> None:
        super().__init__(f"group {group!r} was aborted by rank {origin}: {reason}")
        self.group, self.origin, self.reason = group, origin, reason
