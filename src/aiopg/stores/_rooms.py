"""A store that is kept in rooms: each group in one of its own, with all that belongs to it, and the store's keys too.

Nothing is said from one room to another, so a room may lie wherever its engine likes: on another node of a cluster, or
in a state of its own. Only this process's link spans them: it numbers calls and seats through all its rooms.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from aiopg._core.key_messages import STORE
from aiopg._core.keys import NO_KEYS
from aiopg._core.messages import (
    Answer,
    Cancel,
    Command,
    Enlist,
    Event,
    Failed,
    Inquire,
    Join,
    Leave,
    Message,
    Reform,
    Vacate,
    Withdrawn,
    pack_error,
    pack_value,
)
from aiopg.errors import GroupClosedError
from aiopg.stores._calls import Calls

__all__ = ["BACKLOG", "COMMON", "Room", "RoomName", "Rooms", "put_together"]

RoomName: TypeAlias = "str | None"
"""Of a room: its group's name, or `COMMON`."""

COMMON = None
"""Names the room of the store's own keys."""

BACKLOG = 1024
"""While so many commands of a link are not yet taken by the engine, new calls wait."""

SUMS = ("rounds", "bytes", "members")
LISTS = ("groups", "lobbies")


class Room(ABC):
    """One room, as this link is in it. Its first command opens it; it retires when nothing of the link is left there.

    Each command gets exactly one event, which goes to the `Rooms` that the room belongs to (`Rooms.received`); when a
    command was taken by the engine, `Rooms.taken` is called.
    """

    @property
    @abstractmethod
    def backlog(self) -> int:
        """Commands that the engine has not taken yet."""

    @abstractmethod
    def send(self, command: Command) -> None:
        """Take a command; never waits. Commands take effect in this order, each once."""

    @abstractmethod
    def retire(self) -> None:
        """Nothing of this link is left in the room, no seat and no call: what stands for the link there may go.

        The room gets no command any more; a later one for the same group opens another `Room`.
        """


@dataclass(slots=True, eq=False)
class _Stay:
    """This link's stay in a room."""

    name: RoomName
    room: Room
    calls: int = 0
    """That have had no event."""
    seats: int = 0
    """That are taken or asked for."""


class Rooms:
    """The rooms that a link is in: which command goes to which. It is the link's gate as well (`_calls.Gate`)."""

    def __init__(self, open_room: Callable[[RoomName], Room]) -> None:
        """`open_room`: begins a stay in a room; called when the first command for it comes, and must not wait."""
        self._open_room = open_room
        self._stays: dict[RoomName, _Stay] = {}
        self._seats: dict[int, _Stay] = {}
        self._asked: dict[int, tuple[_Stay, Command]] = {}
        self._loop = asyncio.get_running_loop()
        self.calls: Calls
        """Whose commands these are; set by the link, which makes them with `send` of this."""

    def __iter__(self) -> Iterator[tuple[RoomName, Room]]:
        return iter([(stay.name, stay.room) for stay in self._stays.values()])

    # ------------------------------------------------------------------------------------------------ as a gate

    sent = 0

    @property
    def full(self) -> bool:
        """Whether new calls are to wait until the engine has taken older ones."""
        return sum(stay.room.backlog for stay in self._stays.values()) >= BACKLOG

    def replace(self, seq: int, message: Message) -> None:
        """A command that is on its way is not stopped: its `Cancel` goes behind it."""

    def taken(self) -> None:
        """The engine has taken a command: there may be room for more."""
        if self.calls.line:
            self.calls.let_in()

    # ------------------------------------------------------------------------------------------------- commands

    def send(self, command: Command) -> None:
        """Have a command carried to its room. Raises whatever `open_room` raises."""
        if type(command) is Cancel:
            if (asked := self._asked.get(command.call)) is not None:  # else it has had its event
                asked[0].room.send(command)
            return
        stay = self._stay_of(command)
        if stay is None:
            self._loop.call_soon(self._answer_here, command)
            return
        self._asked[command.call] = (stay, command)
        stay.calls += 1
        stay.room.send(command)

    def _answer_here(self, command: Any) -> None:
        """What no room has to be asked: whom a call waits for that has had its event, and what is of a seat no more."""
        if self.calls.is_lost:
            return
        if type(command) is Inquire:
            self.calls.received(Answer(command.call, False, pack_value(None)))
        else:
            gone = GroupClosedError(f"seat {command.seat} is not taken")
            self.calls.received(Failed(command.call, pack_error(gone)))

    def _stay_of(self, command: Any) -> _Stay | None:
        kind = type(command)
        if kind is Join or kind is Enlist:
            return self._sit(command.seat, self._enter(command.group))
        if kind is Inquire:
            asked = self._asked.get(command.about)
            return asked[0] if asked is not None else None
        if command.seat == STORE:
            return self._enter(COMMON)
        stay = self._seats.get(command.seat)
        return self._sit(command.new_seat, stay) if stay is not None and kind is Reform else stay

    def _enter(self, name: RoomName) -> _Stay:
        stay = self._stays.get(name)
        if stay is None:
            stay = self._stays[name] = _Stay(name, self._open_room(name))
        return stay

    def _sit(self, seat: int, stay: _Stay) -> _Stay:
        self._seats[seat] = stay
        stay.seats += 1
        return stay

    # --------------------------------------------------------------------------------------------------- events

    def received(self, event: Event) -> None:
        """A room's event for one call."""
        stay, command = self._asked.pop(event.call)
        stay.calls -= 1
        self._note_seat(command, event)
        self.calls.received(event)  # may send more, so it is asked behind it whether anything is left
        if not stay.calls and not stay.seats and stay.name is not COMMON and self._stays.get(stay.name) is stay:
            del self._stays[stay.name]
            stay.room.retire()

    def _note_seat(self, command: Any, event: Event) -> None:
        kind, over = type(command), type(event) is Failed or type(event) is Withdrawn
        if (kind is Join or kind is Enlist) and over:
            self._stand_up(command.seat)
        elif kind is Reform and over:
            self._stand_up(command.new_seat)
        elif kind is Leave or kind is Vacate:
            self._stand_up(command.seat)

    def _stand_up(self, seat: int) -> None:
        stay = self._seats.pop(seat, None)
        if stay is not None:
            stay.seats -= 1


def put_together(rooms: Iterable[dict[str, Any]]) -> dict[str, object]:
    """The description of a store from those of its rooms, each as `Engine.describe` has it."""
    whole: dict[str, Any] = dict.fromkeys(SUMS, 0) | {name: [] for name in LISTS} | {"keys": dict(NO_KEYS)}
    for described in rooms:
        for name in (*SUMS, *LISTS):
            whole[name] += described[name]
        for name in NO_KEYS:  # only the room of the store's own keys has some
            whole["keys"][name] += described["keys"][name]
    return whole
