"""Bugs on purpose in what is done with keys; see `bugs`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from unittest import mock

from aiopg._core.engine import Engine
from aiopg._core.key_messages import FROM_NOW, AddKey, CompareSet
from aiopg._core.keys import requests
from aiopg._core.keys.changes import Changes
from aiopg._core.keys.locks import Locks
from aiopg._core.keys.queues import Queues, _Pop
from aiopg._core.keys.space import Space
from aiopg._core.keys.values import Values
from aiopg._core.parts import split_parts
from aiopg.server._sessions import Sessions
from aiopg.stores._engine_keys import EngineKeys, _EngineFollowing

__all__ = [
    "add_again_on_resume",
    "compare_with_nothing",
    "count_a_goodbye_for_nothing",
    "follow_anew_after_a_timeout",
    "follow_from_now_on",
    "keep_a_late_lock",
    "keep_a_late_item",
    "lock_beyond_the_session",
    "patched",
    "pop_without_receipt",
    "put_back_at_the_end",
    "session_keys_for_ever",
]


@contextmanager
def patched(owner: Any, **attributes: Any) -> Iterator[None]:
    """These in the place of a class's methods and other attributes."""
    with ExitStack() as stack:
        for name, attribute in attributes.items():
            stack.enter_context(mock.patch.object(owner, name, attribute))
        yield


def pop_without_receipt() -> AbstractContextManager[None]:
    """An item that was told is gone, whether it arrived or not."""

    def unconfirmed(self: _Pop) -> None:
        self.item = None

    return patched(_Pop, unconfirmed=unconfirmed)


def count_a_goodbye_for_nothing() -> AbstractContextManager[None]:
    """What a member acknowledges with its goodbye is not looked at: the store ends its session before that."""
    confirm = Sessions.confirm

    def confirm_members(self: Sessions, session: Any) -> bool:
        return session.line.id in self._members and confirm(self, session)

    return patched(Sessions, confirm=confirm_members)


def put_back_at_the_end() -> AbstractContextManager[None]:
    """An item that goes back is the last of its queue."""

    def put_back(self: Queues, key: str, number: int, value: bytes) -> int:
        return self.push(key, value)

    return patched(Queues, put_back=put_back)


def keep_a_late_item() -> AbstractContextManager[None]:
    """An item that came for a pop that was given up is dropped."""
    leave_behind = EngineKeys._leave_behind

    def drop(self: EngineKeys, pending: Any, late: Any) -> None:
        if late is not None and late.queue is not None:
            late = late._replace(undo=lambda _: None)
        leave_behind(self, pending, late)

    return patched(EngineKeys, _leave_behind=drop)


def keep_a_late_lock() -> AbstractContextManager[None]:
    """A lock that is granted to a call that was given up is held for as long as the session lives."""
    leave_behind = EngineKeys._leave_behind

    def keep(self: EngineKeys, pending: Any, late: Any) -> None:
        leave_behind(self, pending, late if late is not None and late.queue is not None else None)

    return patched(EngineKeys, _leave_behind=keep)


def lock_beyond_the_session() -> AbstractContextManager[None]:
    """A lock is let go by its holder only."""
    return patched(Locks, end_owner=lambda self, owner: None)


def session_keys_for_ever() -> AbstractContextManager[None]:
    """Keys stay when the session ends whose they are."""
    return patched(Values, end_owner=lambda self, owner: None)


@contextmanager
def add_again_on_resume() -> Iterator[None]:
    """When a session goes on over a new connection, the last thing that it added is added once more."""
    last: dict[tuple[int, Any], tuple[Space, AddKey]] = {}
    add, back = requests.REQUESTS[AddKey], Engine.back

    def add_and_remember(space: Space, session: Any, command: AddKey, now: float) -> None:
        add(space, session, command, now)
        last[id(space.replies), session] = space, command

    def add_again(self: Engine, session: Any, *now: Any) -> Any:
        space, command = last.pop((id(self._replies), session), (None, None))
        if space is not None and command is not None and command.key in space.values:
            held = int(space.values.get(command.key) or 0)
            space.values.change(command.key, b"%d" % (held + command.amount))
        return back(self, session, *now)

    with mock.patch.dict(requests.REQUESTS, {AddKey: add_and_remember}), patched(Engine, back=add_again):
        yield


def compare_with_nothing() -> AbstractContextManager[None]:
    """A key that is there holds what is expected, whatever that is."""

    def compare_set(space: Space, session: Any, command: CompareSet, now: float) -> None:
        desired = bytes(split_parts(command.body, 2)[1])
        held = space.values.get(command.key)
        done = (held is None) is command.absent
        if done:
            requests._change(space, command.key, desired)
        requests._answer(space, session, command.call, (done, desired if done else held))

    return mock.patch.dict(requests.REQUESTS, {CompareSet: compare_set})


def follow_from_now_on() -> AbstractContextManager[None]:
    """The store tells a follower of nothing that came between two of its questions."""

    follow = Changes.follow

    def forget(self: Changes, session: Any, asks: Any) -> None:
        follow(self, session, asks._replace(after=FROM_NOW))

    return patched(Changes, follow=forget)


def follow_anew_after_a_timeout() -> AbstractContextManager[None]:
    """A step of a watch that was given up takes what it had asked for with it."""
    changes = _EngineFollowing.changes

    async def ask_anew(self: _EngineFollowing, call: Any) -> Any:
        try:
            return await changes(self, call)
        except BaseException:
            self.close()
            self.__init__(self._calls, self._seat, self._prefix, -1)  # type: ignore[misc]
            raise

    return patched(_EngineFollowing, changes=ask_anew)
