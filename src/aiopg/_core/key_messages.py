"""What is said of keys: the commands of a key space. They belong to the closed set of `messages`.

`seat` names the space: `STORE` is the store's own, any other that of the incarnation in which the session has that
seat.
Several keys or values are the parts of the body (`parts`), one is a text of the head, or the body itself.
"""

from __future__ import annotations

from typing import Final, NamedTuple, TypeAlias, get_args

from aiopg._core.frames import Body

__all__ = [
    "FROM_NOW",
    "KEY_COMMANDS",
    "STORE",
    "AddKey",
    "AppendKey",
    "CheckKeys",
    "CompareSet",
    "CountKeys",
    "DeleteKeys",
    "Follow",
    "GetKeys",
    "KeyCommand",
    "ListKeys",
    "Lock",
    "Meet",
    "Pop",
    "Push",
    "PutBack",
    "QueueLength",
    "SetKeys",
    "Unlock",
    "WaitKeys",
]

STORE: Final = -1
"""As the seat: the store's own space."""

FROM_NOW: Final = -1
"""As the revision of a `Follow`: that of the moment in which the store hears of it."""


class SetKeys(NamedTuple):
    """Give `many` keys values, all at once. Body: key, value, key, value... Answered with the revision of the last."""

    call: int
    seat: int
    many: int
    ttl: float
    """Seconds; infinite for ever."""
    lasting: bool
    """Whether they stay when the session ends, or the seat is left."""
    body: Body = ()


class GetKeys(NamedTuple):
    """The values of `many` keys, when all are there. Body: the keys. Answered with the values as parts."""

    call: int
    seat: int
    many: int
    body: Body = ()


class WaitKeys(NamedTuple):
    """Wait until `many` names are keys, or queues that hold something. Body: the names."""

    call: int
    seat: int
    many: int
    body: Body = ()


class CheckKeys(NamedTuple):
    """Whether that is so now. Answered with a bool."""

    call: int
    seat: int
    many: int
    body: Body = ()


class AddKey(NamedTuple):
    """Add to the number that a key holds. Answered with the sum."""

    call: int
    seat: int
    amount: int
    key: str
    body: Body = ()


class AppendKey(NamedTuple):
    """Append the body to a key's value. Answered with the length."""

    call: int
    seat: int
    key: str
    body: Body = ()


class CompareSet(NamedTuple):
    """Give a key a value if it holds another, or (`absent`) if it is not there. Body: expected, desired.

    Answered with [whether it was done, what the key holds now or nil].
    """

    call: int
    seat: int
    absent: bool
    key: str
    body: Body = ()


class DeleteKeys(NamedTuple):
    """Delete `many` keys, and the queues of these names. Body: the names. Answered with how many there were."""

    call: int
    seat: int
    many: int
    body: Body = ()


class ListKeys(NamedTuple):
    """Names of the keys, and of the queues that hold something, that begin so. Answered with them as a list."""

    call: int
    seat: int
    prefix: str
    body: Body = ()


class CountKeys(NamedTuple):
    """How many those are. Answered with the number."""

    call: int
    seat: int
    prefix: str
    body: Body = ()


class Push(NamedTuple):
    """Append the body to a queue. Answered with how many it holds then."""

    call: int
    seat: int
    key: str
    body: Body = ()


class Pop(NamedTuple):
    """Take the head of a queue, and (`waits`) wait for one. Answered with eight bytes, the item's number, and the item.

    The answer asks for a receipt. If the session ends before that, the item is the queue's head again.
    """

    call: int
    seat: int
    waits: bool
    key: str
    body: Body = ()


class PutBack(NamedTuple):
    """What a `Pop` brought is not wanted after all: it goes back to its place in the queue."""

    call: int
    seat: int
    number: int
    """That which the item came with."""
    key: str
    body: Body = ()


class QueueLength(NamedTuple):
    """How many items a queue holds. Answered with the number."""

    call: int
    seat: int
    key: str
    body: Body = ()


class Meet(NamedTuple):
    """Come to the meeting of this name; answered when `expected` have."""

    call: int
    seat: int
    expected: int
    key: str
    body: Body = ()


class Lock(NamedTuple):
    """Hold the lock of this name alone. Answered with its number, when it is free and all who asked before had it."""

    call: int
    seat: int
    key: str
    body: Body = ()


class Unlock(NamedTuple):
    """Let go of the lock that was got with this number. Answered with whether it was held."""

    call: int
    seat: int
    number: int
    key: str
    body: Body = ()


class Follow(NamedTuple):
    """Ask for the changes after revision `after` of keys that begin so; waits for some.

    Answered with [revision, [[revision, kind, key, value or nil], ...]]: changes up to the first one are told.
    """

    call: int
    seat: int
    after: int
    prefix: str
    body: Body = ()


KeyCommand: TypeAlias = (
    SetKeys
    | GetKeys
    | WaitKeys
    | CheckKeys
    | AddKey
    | AppendKey
    | CompareSet
    | DeleteKeys
    | ListKeys
    | CountKeys
    | Push
    | Pop
    | PutBack
    | QueueLength
    | Meet
    | Lock
    | Unlock
    | Follow
)
KEY_COMMANDS: Final = frozenset(get_args(KeyCommand))
