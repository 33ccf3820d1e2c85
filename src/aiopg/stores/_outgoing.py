"""Messages of this member to one mailbox whose `put` was cancelled: did they go, or not?

A cancelled put is taken back. If the receiver had taken it by then, it went, and the next put of the same payload
to the same mailbox is the same call again: it is done already. As many puts as were cancelled may be such calls, in
whatever order; after that the caller has moved on, and an equal payload is a new message.

While the store has not yet said what became of a cancelled put, later puts to the mailbox wait here in line, so that
they cannot overtake a put that is called again.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiopg._core.frames import Body
from aiopg._core.messages import Answer, unpack_value
from aiopg.stores._calls import Calls, Pending
from aiopg.stores._fingerprint import Fingerprint
from aiopg.stores.base import Call

__all__ = ["Outgoing"]


class Outgoing:
    """The writer's side of one mailbox; exists only while some cancelled put matters."""

    def __init__(self, calls: Calls, take_back: tuple[Any, ...]) -> None:
        """`take_back`: the command and its fields, less the number of the put, that take a put back."""
        self._calls = calls
        self._take_back = take_back
        self._line = asyncio.Lock()  # first come, first served
        self._in_line = 0
        self._unsettled = 0
        self._settled = asyncio.Event()
        self._gone: list[Fingerprint] = []  # cancelled puts that went all the same
        self._again = 0  # how many of the next puts may be cancelled ones called again

    @property
    def idle(self) -> bool:
        """Whether nothing here matters any more."""
        return not self._unsettled and not self._again and not self._in_line

    def cancelled(self, put: Pending, payload: Body) -> None:
        """The caller of `put` waits no more: take it back."""
        if self._calls.is_lost or not (put.outcome is None or type(put.outcome) is Answer):
            return  # it failed, so it never went; or the link did, and nothing will be asked of it again
        gone = Fingerprint(payload)

        def settled(back: Pending) -> None:
            self._unsettled -= 1
            accepted = type(put.outcome) is Answer
            if accepted and type(back.outcome) is Answer and unpack_value(back.outcome.body):
                self._gone.append(gone)
            if not self._unsettled:
                self._settled.set()

        self._unsettled += 1
        self._again += 1
        self._settled.clear()
        self._calls.recall(put)
        self._calls.submit(*self._take_back, put.number, then=settled)

    async def went(self, call: Call, payload: Body) -> bool:
        """Whether putting `payload` now is a cancelled put called again that went; waits for its turn.

        Raises `GroupTimeoutError` if the store does not say so by the deadline.
        """
        self._in_line += 1
        try:
            async with call.within_deadline(), self._line:
                while self._unsettled:
                    await self._settled.wait()
                went = await self._find(payload)
        except TimeoutError:
            raise call.timed_out(None, None) from None
        finally:
            self._in_line -= 1
        self._again = max(self._again - 1, 0)
        if not self._again:
            self._gone.clear()
        return went

    async def _find(self, payload: Body) -> bool:
        """Whether this went, and was not yet told so."""
        for place, gone in enumerate(self._gone):
            if await gone.is_of(payload):
                del self._gone[place]
                return True
        return False
