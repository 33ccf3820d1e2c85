"""Queues: first in, first out, each item for one.

Rules:

- An item goes to who waited longest, else to the end of the queue.
- What was popped asks for a receipt. If the session that popped it ends before that, or says that it does not want it
  after all, it goes back to its place: items are numbered.
- A queue that holds nothing, and for which nobody waits, does not exist.
"""

from __future__ import annotations

import heapq
import struct
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from aiopg._core.key_messages import Pop
from aiopg._core.limits import Limits
from aiopg._core.replies import Replies, SessionId, Waiting
from aiopg.errors import AiopgError, ProtocolError, QueueEmptyError, StoreFullError

if TYPE_CHECKING:
    from aiopg._core.keys.waits import Waits

__all__ = ["ITEM_COSTS", "Queues"]

ITEM_COSTS = 64
"""Bytes that an item is counted with beside its own."""

_NUMBER = struct.Struct(">q")


class _Item(NamedTuple):
    number: int
    value: bytes


class _Queue:
    __slots__ = ("items", "pops", "returned")

    def __init__(self) -> None:
        self.items: deque[_Item] = deque()
        self.returned: list[_Item] = []  # a heap of those that were put back: thousands may be when a session ends
        self.pops: dict[_Pop, None] = {}  # in the order of asking; of thousands any one may give up

    def __len__(self) -> int:
        return len(self.items) + len(self.returned)

    def take(self) -> _Item:
        """Take the head out."""
        items, returned = self.items, self.returned
        if returned and not (items and items[0].number < returned[0].number):
            return heapq.heappop(returned)
        return items.popleft()


class _Pop(Waiting):
    __slots__ = ("_queues", "item", "key")

    def __init__(self, session: SessionId, pop: Pop, queues: Queues) -> None:
        super().__init__(session, pop.seat, pop.call)
        self._queues = queues
        self.key = pop.key
        self.item: _Item | None = None  # what it got; until it is known to have arrived

    def facts(self) -> tuple[list[int], list[int]]:
        return [], [0]

    def withdraw(self) -> bool:
        self._queues.remove_pop(self)
        return True

    def confirmed(self) -> None:
        self.item = None

    def unconfirmed(self) -> None:
        if self.item is not None:
            item, self.item = self.item, None
            self._queues.put_back(self.key, item.number, item.value)


class Queues:
    """All queues of one space."""

    __slots__ = ("_last", "_limits", "_queues", "_replies", "bytes", "waits")

    def __init__(self, limits: Limits, replies: Replies) -> None:
        self._limits = limits
        self._replies = replies
        self._queues: dict[str, _Queue] = {}
        self._last = 0  # number of the last item
        self.bytes = 0
        """Of items, and `ITEM_COSTS` for each; of their names, once for each item."""
        self.waits: Waits
        """Who waits for a queue to hold something; given by the space."""

    def __len__(self) -> int:
        return len(self._queues)

    def __iter__(self) -> Iterator[str]:
        """Names of those that hold something."""
        return (key for key, queue in self._queues.items() if len(queue))

    def __contains__(self, key: str) -> bool:
        """Whether such a queue holds something."""
        return self.length(key) > 0

    def is_known(self, key: str) -> bool:
        """Whether there is such a queue: it holds something, or is waited for."""
        return key in self._queues

    def length(self, key: str) -> int:
        """How many items a queue holds."""
        queue = self._queues.get(key)
        return 0 if queue is None else len(queue)

    def cost(self, key: str, size: int) -> int:
        """How many bytes more an item of `size` bytes is."""
        return len(key) + size + ITEM_COSTS

    def check(self, key: str, spare: int = 0) -> None:
        """Raises `StoreFullError` if no item may be added; `spare`: so many are, over the limit."""
        if self.length(key) >= self._limits.queue_items + spare:
            raise StoreFullError("queue_items", self._limits.queue_items, f"queue {key!r:.100}")

    def push(self, key: str, value: bytes) -> int:
        """Append an item; how many there are then."""
        self._last += 1
        item = _Item(self._last, value)
        if self._hand_on(key, item):
            return 0
        self._queues.setdefault(key, _Queue()).items.append(item)
        return self._added(key, item)

    def put_back(self, key: str, number: int, value: bytes) -> int:
        """An item that was popped goes back to its place. Raises `ProtocolError` if there was none of that number."""
        if not 0 < number <= self._last:
            raise ProtocolError(f"no item has number {number}, so none is put back")
        item = _Item(number, value)
        if self._hand_on(key, item):
            return 0
        heapq.heappush(self._queues.setdefault(key, _Queue()).returned, item)
        return self._added(key, item)

    def pop(self, session: SessionId, command: Pop) -> None:
        """Take the head, or wait for one. Raises `QueueEmptyError`, and as `Replies.check`."""
        self._replies.check(session, command.call)
        pop = _Pop(session, command, self)
        queue = self._queues.get(command.key)
        if queue is not None and len(queue):
            self._give(pop, self._take_out(command.key, queue))
            return
        if not command.waits:
            raise QueueEmptyError(command.key)
        if queue is None:
            queue = self._queues[command.key] = _Queue()
        self._replies.wait(pop)
        queue.pops[pop] = None

    def remove_pop(self, pop: _Pop) -> None:
        """One that waits no more."""
        queue = self._queues[pop.key]
        del queue.pops[pop]
        self._drop_if_idle(pop.key, queue)

    def delete(self, key: str) -> bool:
        """Drop what a queue holds; whether it held something."""
        queue = self._queues.get(key)
        if queue is None or not len(queue):
            return False
        values = sum(len(item.value) for items in (queue.items, queue.returned) for item in items)
        self.bytes -= values + len(queue) * self.cost(key, 0)
        del self._queues[key]
        return True

    def fail(self, error: AiopgError) -> None:
        """Fail all who wait."""
        for key, queue in list(self._queues.items()):
            self._replies.fail(queue.pops, error)
            queue.pops.clear()
            self._drop_if_idle(key, queue)

    def _hand_on(self, key: str, item: _Item) -> bool:
        """Give an item to who waited longest, if anybody waits."""
        queue = self._queues.get(key)
        if queue is None or not queue.pops:
            return False
        pop = next(iter(queue.pops))
        del queue.pops[pop]
        self._give(pop, item)
        self._drop_if_idle(key, queue)
        return True

    def _added(self, key: str, item: _Item) -> int:
        """The queue holds one more; how many there are."""
        self.bytes += self.cost(key, len(item.value))
        length = self.length(key)
        self.waits.came(key)
        return length

    def _give(self, pop: _Pop, item: _Item) -> None:
        pop.item = item
        self._replies.answer_all((pop,), (_NUMBER.pack(item.number) + item.value,), receipt=True)

    def _take_out(self, key: str, queue: _Queue) -> _Item:
        item = queue.take()
        self.bytes -= self.cost(key, len(item.value))
        self._drop_if_idle(key, queue)
        return item

    def _drop_if_idle(self, key: str, queue: _Queue) -> None:
        if not len(queue) and not queue.pops:
            self._queues.pop(key, None)
