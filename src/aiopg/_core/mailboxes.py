"""Mailboxes: point-to-point messages of one incarnation of a group.

Rules:

- A mailbox is one FIFO for (src, dst, tag). The source is part of the address, so two senders never meet.
- A message is held until it is handed to a `Take`; takes are served in the order in which they came.
- A take that is withdrawn leaves the mailbox as it was. A put can be taken back while nobody took it.
- A message not taken within its sender's `ttl` expires. It leaves a tombstone in its place, and the take that
  would have got it fails with `DataExpiredError`: a gap is told, once, and never becomes a wait.
- When a rank is gone: what it sent can still be taken; takes that wait for more from it fail; what was
  addressed to it is dropped.
- A mailbox with neither messages nor takes does not exist.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from typing import NamedTuple, TypeAlias

from aiopg._core.frames import Body, body_size
from aiopg._core.limits import Limits
from aiopg._core.messages import Tag, Take
from aiopg._core.recorder import Trail
from aiopg._core.replies import Replies, SessionId, Waiting
from aiopg.errors import AiopgError, DataExpiredError, PeerLostError, StoreFullError

__all__ = ["Address", "Mailboxes"]


Address: TypeAlias = tuple[int, int, Tag]
"""Names a mailbox: (src, dst, tag)."""


class _Letter(NamedTuple):
    """A message, or where one was: `body` is None for the tombstone of an expired one."""

    body: Body | None
    size: int
    expires: float
    put: int


def _number(letter: _Letter) -> int:
    return letter.put


class _Mailbox:
    __slots__ = ("letters", "takes")

    def __init__(self) -> None:
        self.letters: deque[_Letter] = deque()
        self.takes: deque[_Take] = deque()


class _Take(Waiting):
    __slots__ = ("_mailboxes", "address")

    def __init__(self, session: SessionId, seat: int, call: int, mailboxes: Mailboxes, address: Address) -> None:
        super().__init__(session, seat, call)
        self._mailboxes = mailboxes
        self.address = address

    def facts(self) -> tuple[list[int], list[int]]:
        return [], [self.address[0]]

    def withdraw(self) -> bool:
        self._mailboxes.remove_take(self)
        return True


class Mailboxes:
    """All mailboxes of one incarnation."""

    def __init__(self, group: str, limits: Limits, replies: Replies, trail: Trail) -> None:
        self.trail = trail
        self._group = group
        self._limits = limits
        self._replies = replies
        self._boxes: dict[Address, _Mailbox] = {}
        self.bytes = 0
        """Payload bytes waiting in all mailboxes."""
        self.messages = 0
        """Messages waiting in all mailboxes, tombstones included."""

    def __len__(self) -> int:
        return len(self._boxes)

    def put(self, address: Address, body: Body, put: int, expires: float) -> None:
        """Append a message, or hand it to the take that waits for it. Raises `StoreFullError`."""
        box = self._boxes.get(address)
        if box is not None and box.takes:
            self._note_put(address)
            self._note_taken(address)
            self._replies.answer(box.takes.popleft(), body)
            if not box.takes:
                del self._boxes[address]
            return
        if box is None:
            box = _Mailbox()
        elif len(box.letters) >= self._limits.mailbox_messages:
            src, dst, tag = address
            holder = f"messages from rank {src} to rank {dst}, tag {tag!r}, of group {self._group!r}"
            raise StoreFullError("mailbox_messages", self._limits.mailbox_messages, holder)
        if self.messages >= self._limits.group_messages:
            raise StoreFullError("group_messages", self._limits.group_messages, f"group {self._group!r}")
        self._note_put(address)
        letter = _Letter(body, body_size(body), expires, put)
        box.letters.append(letter)
        self.messages += 1
        self._boxes[address] = box
        self.bytes += letter.size

    def take_back(self, address: Address, put: int) -> bool:
        """Remove what call `put` of the mailbox's source put; False if it is not there any more."""
        box = self._boxes.get(address)
        if box is None:
            return False
        # A mailbox has one source, whose calls have rising numbers. (One that counts otherwise harms itself alone.)
        index = bisect_left(box.letters, put, key=_number)
        if index == len(box.letters) or (letter := box.letters[index]).put != put:
            return False
        del box.letters[index]
        self.messages -= 1
        self.bytes -= letter.size
        self._drop_if_empty(address, box)
        src, dst, tag = address
        self.trail.message("withdrawn", src, tag, dst)
        return True

    def take(self, session: SessionId, command: Take, address: Address, now: float, gone: AiopgError | None) -> None:
        """Take the head, or wait for one. `gone`: why nothing more will come from the source.

        Raises what `Replies.check` does.
        """
        box = self._boxes.get(address)
        if box is not None and box.letters:
            letter = box.letters.popleft()
            self.messages -= 1
            self.bytes -= letter.size
            self._drop_if_empty(address, box)
            if letter.body is None or letter.expires <= now:
                if letter.body is not None:
                    self._note_expired(address)
                self._replies.fail_now(session, command.call, self._expired(address))
            else:
                self._note_taken(address)
                self._replies.answer_now(session, command.call, letter.body)
            return
        if gone is not None:
            self._replies.fail_now(session, command.call, gone, self.trail.lines("lost"))
            return
        self._replies.check(session, command.call)
        if box is None:
            box = self._boxes[address] = _Mailbox()
        take = _Take(session, command.seat, command.call, self, address)
        box.takes.append(take)
        self._replies.wait(take)

    def remove_take(self, take: _Take) -> None:
        """A take that waits no more."""
        box = self._boxes[take.address]
        box.takes.remove(take)
        self._drop_if_empty(take.address, box)

    def lose(self, rank: int, error: PeerLostError) -> None:
        """A rank is gone."""
        for address, box in list(self._boxes.items()):
            src, dst, _ = address
            if src == rank and box.takes:
                self._replies.fail(box.takes, error, self.trail.lines("lost"))
                box.takes.clear()
            if dst == rank:
                self.bytes -= sum(letter.size for letter in box.letters)
                self.messages -= len(box.letters)
                box.letters.clear()
            self._drop_if_empty(address, box)

    def abort(self, error: AiopgError) -> None:
        """Fail every take and drop every message."""
        for box in self._boxes.values():
            self._replies.fail(box.takes, error)
        self._boxes.clear()
        self.bytes = self.messages = 0

    def expire(self, now: float) -> int:
        """Turn messages past their time into tombstones; how many."""
        count = 0
        for address, box in self._boxes.items():
            if not box.letters or box.letters[0].expires > now:
                continue  # one sender, one ttl: the first one goes first
            kept: deque[_Letter] = deque()
            for letter in box.letters:
                if letter.body is not None and letter.expires <= now:
                    self.bytes -= letter.size
                    count += 1
                    letter = letter._replace(body=None, size=0)
                kept.append(letter)
            box.letters = kept
            self._note_expired(address)
        return count

    def _note_put(self, address: Address) -> None:
        src, dst, tag = address
        self.trail.messages += 1
        self.trail.message("put", src, tag, dst)

    def _note_taken(self, address: Address) -> None:
        src, dst, tag = address
        self.trail.message("taken", dst, tag, src)

    def _note_expired(self, address: Address) -> None:
        src, dst, tag = address
        self.trail.message("expired", src, tag, dst)

    def _expired(self, address: Address) -> DataExpiredError:
        return DataExpiredError(self._group, f"the message from rank {address[0]}, tag {address[2]!r},")

    def _drop_if_empty(self, address: Address, box: _Mailbox) -> None:
        if not box.letters and not box.takes:
            self._boxes.pop(address, None)
