"""The commands of a session that the server has not applied, as far as this side knows."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from aiopg._core.messages import Command
from aiopg.errors import ProtocolError
from aiopg.stores.redis._wording import Worded, word

__all__ = ["Outbox"]

COMMANDS_MOST = 256
BYTES_MOST = 1024 * 1024
"""What one call carries at the most; one command alone may be larger."""


class Outbox:
    """Numbered from 1, in order: those that were sent, and behind them those that were not."""

    def __init__(self) -> None:
        self.first = 1
        """The number of the first one."""
        self.sent: deque[tuple[Worded, Command]] = deque()
        self.queue: deque[tuple[Worded, Command]] = deque()
        self._unsure = 0  # so many of those that were sent the server may have applied and not said so
        self._settling: deque[tuple[int, asyncio.Future[None]]] = deque()

    def __len__(self) -> int:
        return len(self.sent) + len(self.queue)

    def add(self, command: Command) -> None:
        """Behind the others. Raises `UsageError` for one that cannot be sent."""
        self.queue.append((word(command), command))

    def batch(self, anew: bool) -> tuple[int, list[Worded]]:
        """What the next call carries, and the number of its first command: `anew` all that was sent, else new ones."""
        if anew and self.sent:
            return self.first, [worded for worded, _ in self.sent]
        first, size = self.first + len(self.sent), 0
        batch: list[Worded] = []
        while self.queue and len(batch) < COMMANDS_MOST:
            size += self.queue[0][0][2]
            if batch and size > BYTES_MOST:
                break
            self.sent.append(self.queue.popleft())
            batch.append(self.sent[-1][0])
        return first, batch

    def applied(self, last: int) -> bool:
        """The server has applied all up to this number; whether that is news. Raises `ProtocolError`."""
        count = last - self.first + 1
        if not 0 <= count <= len(self.sent):
            raise ProtocolError(f"it applied command {last}; {len(self.sent)} from {self.first} on were sent")
        for _ in range(count):
            self.sent.popleft()
        self.first += count
        self._unsure = max(self._unsure - count, 0)
        self._tell_settled()
        return count > 0

    def doubt(self) -> None:
        """Whether what was sent was applied is not known: it has its number for good."""
        self._unsure = len(self.sent)

    def refuse_payloads(self, carried: int) -> list[Any]:
        """Take out what has a body of the first so many that were sent, which a call carried that was refused. Return
        it: the server did not apply it and never will. What it may have applied before stays.
        """
        sent = list(self.sent)
        places = [place for place in range(self._unsure, min(carried, len(sent))) if sent[place][0][1]]
        self.sent = deque(one for place, one in enumerate(sent) if place not in places)
        # Those behind have smaller numbers now.
        self._settling = deque(
            (number - sum(self.first + place <= number for place in places), future)
            for number, future in self._settling
        )
        self._tell_settled()
        return [sent[place][1] for place in places]

    def _tell_settled(self) -> None:
        while self._settling and self._settling[0][0] < self.first:
            _wake(self._settling.popleft()[1])

    async def settled(self) -> None:
        """Wait until all commands up to now are applied, or nothing more is sent."""
        if len(self):
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._settling.append((self.first + len(self) - 1, future))
            await future

    def clear(self) -> None:
        """Nothing of it is sent any more."""
        self.sent.clear()
        self.queue.clear()
        while self._settling:
            _wake(self._settling.popleft()[1])


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
