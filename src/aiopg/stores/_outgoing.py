"""Messages of this member to one mailbox whose `put` was cancelled: did they go, or not?

A cancelled put is taken back. If the receiver had taken it by then, it went, and the next put of the same payload
to the same mailbox is the same call again: it is done already. A cancelled put's number is given to the next put; if
that one's payload is another, the caller has moved on, and nobody will ask for the cancelled one again.

While the store has not yet said what became of a cancelled put, later puts to the mailbox wait here in line, so that
they cannot overtake a put that is called again.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from aiopg._core.frames import Body, Buffer
from aiopg._core.messages import Answer, unpack_value
from aiopg.stores._calls import Calls, Pending
from aiopg.stores.base import Call

__all__ = ["Outgoing", "digest"]


class Outgoing:
    """The writer's side of one mailbox; exists only while some cancelled put matters."""

    def __init__(self, calls: Calls, take_back: tuple[Any, ...], on_idle: Callable[[], None]) -> None:
        """`take_back`: the command and its fields, less the number of the put, that take a put back.

        `on_idle` is called when `idle` comes true by itself.
        """
        self._calls = calls
        self._take_back = take_back
        self._line = asyncio.Lock()  # first come, first served
        self._in_line = 0
        self._unsettled = 0
        self._settled = asyncio.Event()
        self._gone: dict[int, bytes] = {}  # cancelled puts that went all the same: number of the call -> digest
        self._on_idle = on_idle

    @property
    def idle(self) -> bool:
        """Whether nothing here matters any more."""
        return not self._unsettled and not self._gone and not self._in_line

    def cancelled(self, put: Pending, seq: int, payload: Body) -> None:
        """The caller of `put`, whose call had number `seq`, waits no more: take it back."""
        if self._calls.is_lost or not (put.outcome is None or type(put.outcome) is Answer):
            return  # it failed, so it never went; or the link did, and nothing will be asked of it again
        gone = digest(payload)

        def settled(back: Pending) -> None:
            self._unsettled -= 1
            accepted = type(put.outcome) is Answer
            if accepted and type(back.outcome) is Answer and unpack_value(back.outcome.body):
                self._gone[seq] = gone
            if not self._unsettled:
                self._settled.set()
            if self.idle:
                self._on_idle()

        self._unsettled += 1
        self._settled.clear()
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
        except TimeoutError:
            raise call.timed_out(None, None) from None
        finally:
            self._in_line -= 1
        if self._gone:
            wanted = digest(payload)
            for seq, gone in self._gone.items():
                if gone == wanted:
                    del self._gone[seq]
                    return True
            self._gone.pop(call.seq, None)
        return False


def digest(pieces: Sequence[Buffer]) -> bytes:
    """Tells payloads apart."""
    whole = hashlib.sha256()
    for piece in pieces:
        whole.update(len(piece).to_bytes(8))
        whole.update(piece)
    return whole.digest()
