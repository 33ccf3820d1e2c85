"""Every error that aiopg raises.

The tree separates who can mend it: the program (`UsageError`), another rank (`PeerError`), or the
store and the road to it (`StoreError`)::

    AiopgError
    ├── UsageError                  the program asked for what cannot be
    │   ├── GroupClosedError            a call on a group that was closed
    │   ├── WrongThreadError            a blocking call from the thread that runs the group's own loop
    │   ├── ForkError                   a group made before a fork, used in the child
    │   ├── RankConflictError           the rank is held by a live member
    │   ├── FencedError                 another process took this rank over
    │   ├── WorldSizeMismatchError      a live group of that name has another size
    │   ├── CollectiveMismatchError     ranks called different collectives under one number
    │   ├── CodecError                  an object has no encoding, or bytes no object
    │   └── PayloadTooLargeError        an encoded object is over the limit
    ├── PeerError                   another rank did not do its part
    │   ├── GroupTimeoutError           the deadline passed; also a builtin TimeoutError
    │   ├── PeerLostError               a rank that the call needs has left or is lost
    │   └── GroupAbortedError           a rank called abort()
    └── StoreError                  the store, or the road to it
        ├── StoreUnreachableError       no store answers there; also a builtin ConnectionError
        ├── AddressInUseError           the port is held by something that is no aiopg store
        ├── StoreLostError              the link to the store ended
        ├── AuthenticationError         the store and this process do not share a token
        ├── StoreFullError              a limit of the store was reached
        ├── DataExpiredError            the data waited longer than data_expiration_seconds
        ├── JournalCorruptError         the journal on disk is damaged
        └── ProtocolError               the other end sent what the protocol does not allow

Errors carry fields, not only text. A field that is not known is `None`. `outcome` says what became of
the call that failed.

A plain bad argument (a rank out of range, a timeout of 0) is a builtin `ValueError` or `TypeError`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

__all__ = [
    "AddressInUseError",
    "AiopgError",
    "AuthenticationError",
    "CodecError",
    "CollectiveMismatchError",
    "DataExpiredError",
    "FencedError",
    "ForkError",
    "GroupAbortedError",
    "GroupClosedError",
    "GroupTimeoutError",
    "JournalCorruptError",
    "Outcome",
    "PayloadTooLargeError",
    "PeerError",
    "PeerLostError",
    "ProtocolError",
    "RankConflictError",
    "StoreError",
    "StoreFullError",
    "StoreLostError",
    "StoreUnreachableError",
    "UsageError",
    "WorldSizeMismatchError",
    "WrongThreadError",
]


class Outcome(enum.Enum):
    """What became of a call that raised."""

    NOT_APPLIED = "not applied"
    """The store holds no trace of the call; calling again is safe."""
    APPLIED = "applied"
    """The call took effect; only its result did not reach the caller."""
    UNKNOWN = "unknown"
    """The store did not say. Calling again *on the same group* is still safe: the group settles it first."""


class AiopgError(Exception):
    """The root of all errors of aiopg.

    Attributes:
        outcome: what became of the call, an `Outcome`.
    """

    outcome: Outcome = Outcome.NOT_APPLIED
    _fields: ClassVar[tuple[str, ...]] = ()

    def fields(self) -> dict[str, Any]:
        """The error's own fields by name, as given to its constructor. Plain values only."""
        return {name: getattr(self, name) for name in self._fields}

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors cross process borders (multiprocessing, concurrent.futures): rebuild them from their
        # fields, since their constructors do not take the message that Exception would hand over.
        return _rebuild, (type(self), self.fields(), self.outcome)


def _rebuild(cls: type[AiopgError], fields: dict[str, Any], outcome: Outcome) -> AiopgError:
    error = cls(**fields)
    error.outcome = outcome
    return error


def describe_ranks(ranks: Sequence[int]) -> str:
    """Ranks for people: sorted, with runs joined, at most ten runs ("0-3, 7 and 12 more")."""
    runs: list[list[int]] = []
    for rank in sorted(set(ranks)):
        if runs and rank == runs[-1][1] + 1:
            runs[-1][1] = rank
        else:
            runs.append([rank, rank])
    shown = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs[:10])
    hidden = sum(b - a + 1 for a, b in runs[10:])
    return f"{shown} and {hidden} more" if hidden else shown or "none"


def _named(ranks: Sequence[int]) -> str:
    return f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {describe_ranks(ranks)}"


# ---------------------------------------------------------------------------------------------------- you


class UsageError(AiopgError):
    """The program asked for something that cannot be. Nothing was changed."""

    _fields: ClassVar[tuple[str, ...]] = ("message",)

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class GroupClosedError(UsageError):
    """The group was closed, by `close()` or by leaving its `with` block, and the call needs it open."""


class WrongThreadError(UsageError):
    """A blocking call came from the thread that runs the group's own event loop: it would wait for itself."""


class ForkError(UsageError):
    """The group belongs to the parent of a forked process. Make a new group in the child."""


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
    """

    _fields = ("group", "tag", "seq", "calls")
    outcome = Outcome.APPLIED

    def __init__(self, group: str, tag: int | str, seq: int, calls: Mapping[int, str]) -> None:
        by_call: dict[str, list[int]] = {}
        for rank, call in sorted(calls.items()):
            by_call.setdefault(call, []).append(rank)
        said = "; ".join(f"{_named(ranks)} called {call}" for call, ranks in by_call.items())
        super().__init__(
            f"collective number {seq} (tag {tag!r}) of group {group!r} differs between ranks: {said}; "
            "every rank must call the same collectives in the same order"
        )
        self.group, self.tag, self.seq, self.calls = group, tag, seq, dict(calls)


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


# -------------------------------------------------------------------------------------------------- peers


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
    """

    _fields = ("op", "group", "tag", "seq", "arrived", "missing", "elapsed")

    def __init__(
        self,
        op: str,
        group: str,
        tag: int | str,
        seq: int,
        arrived: Sequence[int] | None,
        missing: Sequence[int] | None,
        elapsed: float,
    ) -> None:
        if missing is None:
            who = "the store did not say who is missing"
        else:
            who = f"missing: {_named(missing) if missing else 'no rank'}"
            who += f"; arrived: {describe_ranks(arrived or ())}"
        number = f" number {seq}" if seq else ""
        super().__init__(f"{op}{number} (tag {tag!r}) of group {group!r} timed out after {elapsed:.2f} s; {who}")
        self.op, self.group, self.tag, self.seq = op, group, tag, seq
        self.arrived = None if arrived is None else tuple(arrived)
        self.missing = None if missing is None else tuple(missing)
        self.elapsed = elapsed


class PeerLostError(PeerError):
    """A rank that the call needs has left the group or is lost.

    Calls that do not need it go on. Messages that it sent before can still be received.

    Attributes:
        group: name of the group.
        ranks: the ranks that are gone and that the call needs.
        reason: what happened to the first of them ("left", "connection lost", ...).
    """

    _fields = ("group", "ranks", "reason")

    def __init__(self, group: str, ranks: Sequence[int], reason: str) -> None:
        super().__init__(f"{_named(ranks)} of group {group!r} is gone: {reason}")
        self.group, self.ranks, self.reason = group, tuple(ranks), reason


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


# ---------------------------------------------------------------------------------------------- the store


class StoreError(AiopgError):
    """The store, or the road to it, is the trouble."""


class StoreUnreachableError(StoreError, ConnectionError):
    """No store could be reached.

    Attributes:
        address: where it was looked for.
        reason: what the last attempt met.
    """

    _fields = ("address", "reason")

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"no aiopg store reached at {address}: {reason}")
        self.address, self.reason = address, reason


class AddressInUseError(StoreError):
    """The address to serve on is held by something that is not an aiopg store.

    Attributes:
        address: the address.
        reason: what is known about the holder.
    """

    _fields = ("address", "reason")

    def __init__(self, address: str, reason: str) -> None:
        advice = "remove it if no server uses it" if address.startswith("unix:") else "choose another port"
        super().__init__(f"cannot serve on {address}: {reason}; {advice}")
        self.address, self.reason = address, reason


class StoreLostError(StoreError):
    """The link to the store ended, and with it this member's place in its groups.

    Attributes:
        address: the store's address.
        reason: how the link ended.
    """

    _fields = ("address", "reason")
    outcome = Outcome.UNKNOWN

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"the store at {address} is lost: {reason}")
        self.address, self.reason = address, reason


class AuthenticationError(StoreError):
    """The store and this process could not prove to each other that they share a token.

    Attributes:
        address: the store's address; empty where a login was good and not for this group.
        reason: which side refused, and what.
    """

    _fields = ("address", "reason")

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"login at {address} failed: {reason}" if address else f"not allowed: {reason}")
        self.address, self.reason = address, reason


class StoreFullError(StoreError):
    """A limit of the store was reached; the call was refused and nothing else was touched.

    Attributes:
        limit: name of the limit, as in the documentation.
        allowed: its value.
        holder: who holds what fills it ("group 'default'").
    """

    _fields = ("limit", "allowed", "holder")

    def __init__(self, limit: str, allowed: int, holder: str = "") -> None:
        at = f" for {holder}" if holder else ""
        super().__init__(f"the store's limit {limit} = {allowed} is reached{at}")
        self.limit, self.allowed, self.holder = limit, allowed, holder


class DataExpiredError(StoreError):
    """The data was there, and waited longer than the group's data_expiration_seconds.

    Attributes:
        group: name of the group.
        what: which data ("message from rank 3, tag 0", "broadcast number 7, tag 0").
    """

    _fields = ("group", "what")

    def __init__(self, group: str, what: str) -> None:
        super().__init__(f"{what} of group {group!r} expired before it was read")
        self.group, self.what = group, what


class JournalCorruptError(StoreError):
    """The journal on disk is damaged, and not only at its end: the server refuses to start from it.

    Attributes:
        file: the file that is damaged or missing.
        offset: where in it, in bytes from its beginning.
        reason: what is wrong there.
    """

    _fields = ("file", "offset", "reason")

    def __init__(self, file: str, offset: int, reason: str) -> None:
        super().__init__(
            f"the journal is damaged at byte {offset} of {file}: {reason}; "
            "restore it from a copy, or move it away to begin with an empty store"
        )
        self.file, self.offset, self.reason = file, offset, reason


class ProtocolError(StoreError):
    """The other end sent what the protocol does not allow. The connection is closed.

    Attributes:
        reason: the rule that was broken.
    """

    _fields = ("reason",)

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
