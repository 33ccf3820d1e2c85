"""The program asked for what cannot be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from aiopg.errors._root import AiopgError, Outcome, named

__all__ = [
    "UsageError",
    "GroupClosedError",
    "WrongThreadError",
    "ForkError",
    "RankConflictError",
    "FencedError",
    "WorldSizeMismatchError",
    "CollectiveMismatchError",
    "KeyOperationError",
    "CodecError",
    "PayloadTooLargeError",
]


class UsageError(AiopgError):
    """The program asked for something that cannot be. Nothing was changed."""

    _fields: ClassVar[tuple[str, ...]] = ("message",)

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class GroupClosedError(UsageError):
    """The group, or store, was closed, by `close()` or by leaving its `with` block, and the call needs it open."""


class WrongThreadError(UsageError):
    """A blocking call came from the thread that runs the group's own event loop: it would wait for itself.

    Or a call came from another event loop than the one that the group, or store, belongs to.
    """


class ForkError(UsageError):
    """The group, or store, belongs to the parent of a forked process. Make a new one in the child."""


class RankConflictError(UsageError):
    """The rank is held by another, live member of the group.

    Attributes:
        group: name of the group.
        rank: the rank that was asked for.
        holder: who holds it, as far as the store knows ("pid 4711 on host-a"), or "".
    """

    _fields = ("group", "rank", "holder")

    def __init__(self, group: str, rank: int, holder: str = "") -> None:
        by = f" by {holder}" if holder else ""
        super().__init__(
            f"rank {rank} of group {group!r} is held{by}, and that member lives; "
            "give each process its own rank, or the new group its own group= name"
        )
        self.group, self.rank, self.holder = group, rank, holder


class FencedError(UsageError):
    """Another process joined with `takeover=True` and has this rank now. This member's calls fail from here on.

    Attributes:
        group: name of the group.
        rank: the rank.
        holder: who has it now, as far as the store knows, or "".
    """

    _fields = ("group", "rank", "holder")

    def __init__(self, group: str, rank: int, holder: str = "") -> None:
        by = f" by {holder}" if holder else ""
        super().__init__(f"rank {rank} of group {group!r} was taken over{by}; close this group")
        self.group, self.rank, self.holder = group, rank, holder


class WorldSizeMismatchError(UsageError):
    """A live group has this name and another world_size.

    Attributes:
        group: name of the group.
        world_size: the size that was asked for.
        expected: the size the live group has.
    """

    _fields = ("group", "world_size", "expected")

    def __init__(self, group: str, world_size: int, expected: int) -> None:
        super().__init__(
            f"group {group!r} is live with world_size {expected}, not {world_size}; "
            "if this is to be another group, give it its own group= name"
        )
        self.group, self.world_size, self.expected = group, world_size, expected


class CollectiveMismatchError(UsageError):
    """Ranks called different collectives under the same number: their programs are out of step.

    Every rank that calls this number gets the error. The number is used up on all of them, so the next
    collective with the same tag starts level again.

    Attributes:
        group: name of the group.
        tag: tag of the collective.
        seq: its number among the collectives of this tag, from 1.
        calls: what each rank called, by rank: `{0: "barrier", 1: "broadcast(src=0)"}`; those seen so far.
        trace: the last happenings of the group that matter to the call, as the store saw them, oldest first: at most
            8 lines such as "3.2 s ago: rank 5 was lost: its process 4711 ended". Empty where the store keeps none.
    """

    _fields = ("group", "tag", "seq", "calls", "trace")
    outcome = Outcome.APPLIED

    def __init__(
        self, group: str, tag: int | str, seq: int, calls: Mapping[int, str], trace: Sequence[str] = ()
    ) -> None:
        by_call: dict[str, list[int]] = {}
        for rank, call in sorted(calls.items()):
            by_call.setdefault(call, []).append(rank)
        said = "; ".join(f"{named(ranks)} called {call}" for call, ranks in by_call.items())
        super().__init__(
            f"collective number {seq} (tag {tag!r}) of group {group!r} differs between ranks: {said}; "
            "every rank must call the same collectives in the same order"
        )
        self.group, self.tag, self.seq, self.calls = group, tag, seq, dict(calls)
        self.carry(trace)


class KeyOperationError(UsageError):
    """A key of a store holds what the call cannot work on. Nothing was changed.

    Attributes:
        op: name of the call ("add", "barrier", ...).
        key: the key.
        reason: what is wrong, and what to do.
    """

    _fields = ("op", "key", "reason")

    def __init__(self, op: str, key: str, reason: str) -> None:
        super().__init__(f"{op} of key {key!r}: {reason}")
        self.op, self.key, self.reason = op, key, reason


class CodecError(UsageError):
    """An object has no encoding, or bytes are no encoded object.

    Attributes:
        path: where in the object, from its root: `obj["peers"][3].sock`.
        type: full name of the type that was met, or what the bytes claimed to be.
        reason: what is wrong with it and what to do.
    """

    _fields = ("path", "type", "reason")

    def __init__(self, path: str, type: str, reason: str) -> None:
        super().__init__(f"{path}: {type}: {reason}")
        self.path, self.type, self.reason = path, type, reason


class PayloadTooLargeError(UsageError):
    """An encoded object, or what a rank is to get of all ranks together, is larger than one call may carry.

    Raised by the sender before a byte is sent, or by each reader of a collective whose parts are too large together.

    Attributes:
        size: the size in bytes.
        limit: the largest size allowed in bytes.
    """

    _fields = ("size", "limit")

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(
            f"{size} bytes in one call, and the limit is {limit}; send it in parts, or send where it lies "
            "instead of what it is"
        )
        self.size, self.limit = size, limit
