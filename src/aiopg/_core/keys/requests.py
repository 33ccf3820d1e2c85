"""What sessions ask of a key space: each command checked, carried out and answered.

A command that makes no sense is an error and changes nothing; limits are checked before anything is changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from aiopg._core.frames import Body
from aiopg._core.key_messages import (
    AddKey,
    AppendKey,
    CheckKeys,
    CompareSet,
    CountKeys,
    DeleteKeys,
    Follow,
    GetKeys,
    ListKeys,
    Lock,
    Meet,
    Pop,
    Push,
    PutBack,
    QueueLength,
    SetKeys,
    Unlock,
    WaitKeys,
)
from aiopg._core.keys.space import Space
from aiopg._core.messages import pack_value
from aiopg._core.parts import split_parts
from aiopg._core.replies import SessionId
from aiopg.errors import KeyOperationError, PayloadTooLargeError, ProtocolError, UsageError

__all__ = ["REQUESTS", "Request"]

Request: TypeAlias = Callable[[Space, SessionId, Any, float], None]

_WHOLE_NUMBER = re.compile(rb"-?[0-9]{1,19}\Z")
_LARGEST = 2**63 - 1


# ---------------------------------------------------------------------------------------------------- values


def _set(space: Space, session: SessionId, command: SetKeys, now: float) -> None:
    _, seat, many, ttl, lasting, _ = command
    if not ttl > 0:
        raise UsageError(f"ttl must be over 0 seconds, not {ttl}")
    parts = _parts(space, command.body, many, 2)
    items = dict(zip(_names(space, parts[::2]), [_value(space, part) for part in parts[1::2]], strict=True))
    values = space.values
    space.check_names(sum(key not in values for key in items))
    space.room.check_room(sum(values.cost(key, len(value)) for key, value in items.items()))
    owner = None if lasting else (session, seat)
    revision = 0
    for key, value in items.items():
        revision = values.set(key, value, now + ttl, owner)
    for key in items:
        space.waits.came(key)
    _answer(space, session, command.call, revision)


def _get(space: Space, session: SessionId, command: GetKeys, now: float) -> None:
    names = _names(space, _parts(space, command.body, command.many))
    values = space.waits.values_of(names)
    if values is not None:
        space.replies.answer_now(session, command.call, values)
        return
    _wait_for(space, session, command, names, wants_values=True)


def _wait(space: Space, session: SessionId, command: WaitKeys, now: float) -> None:
    names = _names(space, _parts(space, command.body, command.many))
    if _all_there(space, names):
        space.replies.answer_now(session, command.call)
        return
    _wait_for(space, session, command, names, wants_values=False)


def _check(space: Space, session: SessionId, command: CheckKeys, now: float) -> None:
    names = _names(space, _parts(space, command.body, command.many))
    _answer(space, session, command.call, _all_there(space, names))


def _add(space: Space, session: SessionId, command: AddKey, now: float) -> None:
    key = _name(space, command.key)
    held = space.values.get(key)
    if held is not None and not _WHOLE_NUMBER.match(held):
        raise KeyOperationError(
            "add", key, f"it holds {held[:40]!r}, which is no whole number; set it to one, or delete it"
        )
    total = int(held or 0) + command.amount
    if not -_LARGEST - 1 <= total <= _LARGEST:
        raise KeyOperationError("add", key, f"the sum {total} has more than 64 bits")
    _change(space, key, b"%d" % total)
    _answer(space, session, command.call, total)


def _append(space: Space, session: SessionId, command: AppendKey, now: float) -> None:
    key = _name(space, command.key)
    value = _sized(space, (space.values.get(key) or b"") + _whole(space, command.body))
    _change(space, key, value)
    _answer(space, session, command.call, len(value))


def _compare_set(space: Space, session: SessionId, command: CompareSet, now: float) -> None:
    key = _name(space, command.key)
    expected, desired = (_value(space, part) for part in _parts(space, command.body, 1, 2))
    held = space.values.get(key)
    done = held is None if command.absent else held == expected
    if done:
        _change(space, key, desired)
        held = desired
    _answer(space, session, command.call, (done, held))


def _delete(space: Space, session: SessionId, command: DeleteKeys, now: float) -> None:
    deleted = 0
    for name in _names(space, _parts(space, command.body, command.many)):
        deleted += space.values.delete(name) | space.queues.delete(name)
    _answer(space, session, command.call, deleted)


def _list(space: Space, session: SessionId, command: ListKeys, now: float) -> None:
    _answer(space, session, command.call, _found(space, command.prefix))


def _count(space: Space, session: SessionId, command: CountKeys, now: float) -> None:
    _answer(space, session, command.call, len(_found(space, command.prefix)))


# ---------------------------------------------------------------------------------------------------- queues


def _push(space: Space, session: SessionId, command: Push, now: float) -> None:
    key, value = _name(space, command.key), _whole(space, command.body)
    _check_item(space, key, value)
    length = space.queues.push(key, value)
    if length:
        space.waits.came(key)
    _answer(space, session, command.call, length)


def _put_back(space: Space, session: SessionId, command: PutBack, now: float) -> None:
    key, value = _name(space, command.key), _whole(space, command.body)
    # It was there before: it does not meet the limits in number, else it would be lost. Those of bytes hold.
    space.room.check_room(space.queues.cost(key, len(value)))
    if space.queues.put_back(key, command.number, value):
        space.waits.came(key)
    space.replies.answer_now(session, command.call)


def _pop(space: Space, session: SessionId, command: Pop, now: float) -> None:
    key = _name(space, command.key)
    if command.waits and key not in space.queues:
        space.check_names(1)
    space.queues.pop(session, command)


def _queue_length(space: Space, session: SessionId, command: QueueLength, now: float) -> None:
    _answer(space, session, command.call, space.queues.length(_name(space, command.key)))


# ------------------------------------------------------------------------------------- meetings, locks, changes


def _meet(space: Space, session: SessionId, command: Meet, now: float) -> None:
    _name(space, command.key)
    space.meetings.come(session, command)


def _lock(space: Space, session: SessionId, command: Lock, now: float) -> None:
    key = _name(space, command.key)
    space.room.check_room(len(key))
    space.locks.ask(session, command)


def _unlock(space: Space, session: SessionId, command: Unlock, now: float) -> None:
    _answer(space, session, command.call, space.locks.let_go((session, command.seat), command.key, command.number))


def _follow(space: Space, session: SessionId, command: Follow, now: float) -> None:
    _check_length(space, command.prefix)
    space.changes.follow(session, command)


REQUESTS: Final[dict[type[Any], Request]] = {
    SetKeys: _set,
    GetKeys: _get,
    WaitKeys: _wait,
    CheckKeys: _check,
    AddKey: _add,
    AppendKey: _append,
    CompareSet: _compare_set,
    DeleteKeys: _delete,
    ListKeys: _list,
    CountKeys: _count,
    Push: _push,
    PutBack: _put_back,
    Pop: _pop,
    QueueLength: _queue_length,
    Meet: _meet,
    Lock: _lock,
    Unlock: _unlock,
    Follow: _follow,
}
"""What carries each key command out, in its space."""


# ---------------------------------------------------------------------------------------------------- inside


def _answer(space: Space, session: SessionId, call: int, value: object) -> None:
    space.replies.answer_now(session, call, pack_value(value))


def _parts(space: Space, body: Body, many: int, each: int = 1) -> list[bytes]:
    most = space.limits.keys_per_call
    if not 1 <= many <= most:
        raise UsageError(f"one call takes 1 to {most} keys, not {many}")
    return [bytes(part) for part in split_parts(body, many * each)]


def _names(space: Space, parts: Sequence[bytes]) -> tuple[str, ...]:
    try:
        return tuple(_name(space, part.decode()) for part in parts)
    except UnicodeDecodeError as error:
        raise ProtocolError(f"the name of a key is no UTF-8: {error}") from error


def _name(space: Space, key: str) -> str:
    if not key:
        raise UsageError("the name of a key has at least one character")
    _check_length(space, key)
    return key


def _check_length(space: Space, name: str) -> None:
    if len(name.encode()) > space.limits.key_bytes:
        raise UsageError(f"the name of a key has at most {space.limits.key_bytes} bytes, not {name[:100]!r}...")


def _whole(space: Space, body: Body) -> bytes:
    return _sized(space, b"".join(body))


def _value(space: Space, value: bytes) -> bytes:
    return _sized(space, value)


def _sized(space: Space, value: bytes) -> bytes:
    if len(value) > space.limits.value_bytes:
        raise PayloadTooLargeError(len(value), space.limits.value_bytes)
    return value


def _change(space: Space, key: str, value: bytes) -> None:
    """Give a key another value, or make it, if there is room."""
    space.check_names(key not in space.values)
    space.room.check_room(space.values.cost(key, len(value)))
    space.values.change(key, value)
    space.waits.came(key)


def _check_item(space: Space, key: str, value: bytes) -> None:
    space.queues.check(key)
    if key not in space.queues:
        space.check_names(1)
    space.room.check_room(space.queues.cost(key, len(value)))


def _all_there(space: Space, names: Sequence[str]) -> bool:
    return all(space.waits.is_there(name, as_value=False) for name in names)


def _wait_for(
    space: Space, session: SessionId, command: GetKeys | WaitKeys, names: tuple[str, ...], *, wants_values: bool
) -> None:
    space.replies.check(session, command.call)
    space.room.check_room(space.waits.cost(names))
    space.waits.add(session, command.seat, command.call, names, wants_values=wants_values)


def _found(space: Space, prefix: str) -> list[str]:
    _check_length(space, prefix)
    values = space.values
    found = [key for key in values if key.startswith(prefix)]
    found += [key for key in space.queues if key.startswith(prefix) and key not in values]
    return found
