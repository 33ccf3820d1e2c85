"""What is said to etcd and what it answers: the part of its API (version 3) that we use, as plain records.

Requests know how to `encode` themselves; answers are made by `decode`. Field numbers are those of etcd's API.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Self, TypeAlias

from aiopg.errors import ProtocolError
from aiopg.stores.etcd._wire import Fields, flag, message, number, string, strings

__all__ = [
    "Answer",
    "Compare",
    "Delete",
    "Deleted",
    "Found",
    "Get",
    "KeyValue",
    "Op",
    "Put",
    "PutDone",
    "Span",
    "Status",
    "TxnResult",
    "absent",
    "created_at",
    "encode_txn",
    "modified_at",
    "one",
    "present",
    "unchanged_since",
    "under",
]

HEADER: Final = 1
"""Every answer begins with a header."""


def revision_of(answer: Fields) -> int:
    """The store's revision, from the header of an answer."""
    return Fields(answer.string(HEADER)).number(3)


# ------------------------------------------------------------------------------------------------------- keys


@dataclass(frozen=True, slots=True)
class Span:
    """One key, or all from `key` up to `end` without it."""

    key: bytes
    end: bytes = b""

    def encode(self) -> bytes:
        return string(1, self.key) + string(2, self.end)


def one(key: bytes) -> Span:
    """That key. Raises `ValueError` for an empty one."""
    if not key:
        raise ValueError("a key of etcd is not empty")
    return Span(key)


def under(prefix: bytes) -> Span:
    """All keys that begin so. Raises `ValueError` where nothing would come after them: an empty prefix, or all 0xff."""
    stem = prefix.rstrip(b"\xff")
    if not stem:
        raise ValueError(f"no prefix of keys of ours: {prefix!r}")
    return Span(prefix, stem[:-1] + bytes((stem[-1] + 1,)))


@dataclass(frozen=True, slots=True)
class KeyValue:
    """A key as it is at some revision."""

    key: bytes
    value: bytes
    mod_revision: int
    """When it was written last."""
    create_revision: int
    """When it was written first since it was deleted last."""
    version: int
    """How often it was written since then."""
    lease: int
    """The lease with which it goes; 0 if none."""

    @classmethod
    def decode(cls, data: bytes) -> Self:
        fields = Fields(data)
        return cls(
            fields.string(1), fields.string(5), fields.number(3), fields.number(2), fields.number(4), fields.number(6)
        )


# --------------------------------------------------------------------------------------------------- requests


@dataclass(frozen=True, slots=True)
class Get:
    """Read keys, in their order; as they are, or were at a revision. A limit of 0 is none."""

    span: Span
    revision: int = 0
    limit: int = 0
    keys_only: bool = False

    def encode(self) -> bytes:
        return self.span.encode() + number(3, self.limit) + number(4, self.revision) + flag(8, self.keys_only)


@dataclass(frozen=True, slots=True)
class Put:
    """Write a key, attached to a lease or to none (0)."""

    key: bytes
    value: bytes
    lease: int = 0

    def encode(self) -> bytes:
        return string(1, self.key) + string(2, self.value) + number(3, self.lease)


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete keys."""

    span: Span

    def encode(self) -> bytes:
        return self.span.encode()


Op: TypeAlias = Get | Put | Delete

OPS: Final[dict[type[Op], int]] = {Get: 1, Put: 2, Delete: 3}


@dataclass(frozen=True, slots=True)
class Compare:
    """What a transaction asks first, of every key in a span; of one that is not there all numbers are 0."""

    span: Span
    target: Literal["create", "mod"]
    relation: Literal["=", ">", "<"]
    revision: int

    def encode(self) -> bytes:
        target, field = (1, 5) if self.target == "create" else (2, 6)
        return b"".join(
            (
                number(1, {"=": 0, ">": 1, "<": 2}[self.relation]),
                number(2, target),
                string(3, self.span.key),
                number(field, self.revision),
                string(64, self.span.end),
            )
        )


def absent(span: Span) -> Compare:
    """There is no such key."""
    return Compare(span, "create", "=", 0)


def present(key: bytes) -> Compare:
    """There is that key."""
    return Compare(one(key), "create", ">", 0)


def created_at(key: bytes, revision: int) -> Compare:
    """That key is there since that revision."""
    return Compare(one(key), "create", "=", revision)


def modified_at(key: bytes, revision: int) -> Compare:
    """That key was written last at that revision; with 0: it is not there."""
    return Compare(one(key), "mod", "=", revision)


def unchanged_since(span: Span, revision: int) -> Compare:
    """No key there was written after that revision. (One that was deleted after it is not seen.)"""
    return Compare(span, "mod", "<", revision + 1)


def encode_txn(compares: Sequence[Compare], then: Sequence[Op], orelse: Sequence[Op]) -> bytes:
    return b"".join(
        (
            strings(1, (compare.encode() for compare in compares)),
            strings(2, (message(OPS[type(op)], op.encode()) for op in then)),
            strings(3, (message(OPS[type(op)], op.encode()) for op in orelse)),
        )
    )


# ---------------------------------------------------------------------------------------------------- answers


@dataclass(frozen=True, slots=True)
class Found:
    """What a `Get` found."""

    revision: int
    """The store's when it was read. What was read is all there is at this revision (or at that which was asked for)."""
    entries: list[KeyValue]
    more: bool = False
    """Whether the limit left some out."""

    @classmethod
    def decode(cls, data: bytes) -> Self:
        fields = Fields(data)
        return cls(revision_of(fields), [KeyValue.decode(kv) for kv in fields.strings(2)], fields.flag(3))


@dataclass(frozen=True, slots=True)
class PutDone:
    """A key was written."""

    revision: int

    @classmethod
    def decode(cls, data: bytes) -> Self:
        return cls(revision_of(Fields(data)))


@dataclass(frozen=True, slots=True)
class Deleted:
    """So many keys were deleted."""

    revision: int
    count: int

    @classmethod
    def decode(cls, data: bytes) -> Self:
        fields = Fields(data)
        return cls(revision_of(fields), fields.number(2))


Answer: TypeAlias = Found | PutDone | Deleted


@dataclass(frozen=True, slots=True)
class TxnResult:
    """What became of a transaction."""

    succeeded: bool
    """Whether all compares held, so that `then` was done; else `orelse` was."""
    revision: int
    answers: list[Answer]
    """To the operations that were done, in their order."""
    resent: bool
    """Whether it was sent more than once, since the answer to an earlier sending did not come. That may have taken
    effect then, and this is the answer to the last one: compares that no longer hold may say just that."""

    @property
    def found(self) -> list[KeyValue | None]:
        """The first key of what each `Get` found, in their order; None where it found none."""
        found = [answer.entries for answer in self.answers if isinstance(answer, Found)]
        return [entries[0] if entries else None for entries in found]

    @classmethod
    def decode(cls, data: bytes, resent: bool) -> Self:
        fields = Fields(data)
        return cls(fields.flag(2), revision_of(fields), [_decode_op(op) for op in fields.strings(3)], resent)


def _decode_op(data: bytes) -> Answer:
    fields = Fields(data)
    for field, kind in ((1, Found), (2, PutDone), (3, Deleted)):
        if fields.has(field):
            return kind.decode(fields.string(field))
    raise ProtocolError("etcd answered a transaction with an operation that we did not ask for")


@dataclass(frozen=True, slots=True)
class Status:
    """How the member that answered sees itself and its cluster."""

    version: str
    member: int
    leader: int
    """The member that leads; 0 where it knows of none."""
    term: int
    db_bytes: int
    db_bytes_used: int
    errors: list[str]

    @classmethod
    def decode(cls, data: bytes) -> Self:
        fields = Fields(data)
        header = Fields(fields.string(HEADER))
        return cls(
            version=fields.text(2),
            member=header.unsigned(2),
            leader=fields.unsigned(4),
            term=fields.unsigned(6),
            db_bytes=fields.number(3),
            db_bytes_used=fields.number(9),
            errors=[error.decode(errors="replace") for error in fields.strings(8)],
        )
