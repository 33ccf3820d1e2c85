"""Calls of gRPC, awaited: one with one answer, and one with a stream of them.

They are made with gRPC's classic interface, whose threads call us back, and not with `grpc.aio`. That keeps one queue
of events for all loops of a process: what comes for a loop that was closed meanwhile, the end of a call that was
cancelled as its last act, is an error in the log of whichever other loop picks it up. And a program may well have
several loops: each blocking group has one. Here such an end finds nobody, and that is all. (Both take the same time.)
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    import grpc

__all__ = ["CallFailedError", "Metadata", "Stream", "Unary", "in_loop"]

Metadata: TypeAlias = tuple[tuple[str, str], ...]

AHEAD: Final = 4
"""Messages of a stream that are held for who reads it. The others wait at the other end."""


class CallFailedError(Exception):
    """A call ended without an answer, or a stream ended.

    Attributes:
        code, details: gRPC's.
    """

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(f"{details or 'no more is known'} ({code.name})")
        self.code, self.details = code, details


class Unary:
    """One request with one answer; sent when it is made."""

    def __init__(self, method: Any, request: bytes, timeout: float, metadata: Metadata) -> None:
        loop = asyncio.get_running_loop()
        self._ended = ended = loop.create_future()
        self._rpc = method.future(request, timeout=timeout, metadata=metadata)
        self._rpc.add_done_callback(lambda _: in_loop(loop, _wake, ended))

    async def answer(self) -> bytes:
        """The answer. Cancelling it ends the call at the other end too. Raises `CallFailedError`."""
        rpc = self._rpc
        try:
            await self._ended
        except asyncio.CancelledError:
            rpc.cancel()
            raise
        if rpc.cancelled() or rpc.exception() is not None:
            raise CallFailedError(rpc.code(), rpc.details() or "")
        answer: bytes = rpc.result()
        return answer

    def cancel(self) -> None:
        """Give it up: `answer` raises `CallFailedError`, with the code CANCELLED."""
        self._rpc.cancel()


class Stream:
    """Answers to one request, read by a thread, some ahead.

    Args:
        rpc: the call, as gRPC returns it.
        name: of the thread.
    """

    def __init__(self, rpc: Any, name: str) -> None:
        self._rpc = rpc
        self._loop = asyncio.get_running_loop()
        self._messages: deque[bytes] = deque()
        self._end: CallFailedError | None = None
        self._reader: asyncio.Future[None] | None = None
        self._ended = asyncio.Event()
        self._closing = False
        self._room = threading.Semaphore(AHEAD)
        threading.Thread(target=self._run, name=name, daemon=True).start()

    async def read(self) -> bytes:
        """The next message. Cancelling it loses nothing. Raises `CallFailedError` when there is none any more."""
        while not self._messages:
            if self._end is not None:
                raise self._end
            self._reader = self._loop.create_future()
            await self._reader
        self._room.release()
        return self._messages.popleft()

    def close(self) -> None:
        """Give it back. A read that waits raises `CallFailedError`. Twice is fine."""
        self._closing = True
        self._messages.clear()
        self._rpc.cancel()
        self._room.release()  # for the thread, if it waits for room

    async def wait_closed(self) -> None:
        """Until the thread has nothing more to do."""
        await self._ended.wait()

    def _run(self) -> None:
        try:
            for message in self._rpc:
                in_loop(self._loop, self._received, message)
                self._room.acquire()
                if self._closing:
                    break
        except self._rpc_error():
            pass  # said by the code
        finally:
            # (Behind a break the call is cancelled, so its code is there at once.)
            in_loop(self._loop, self._over, CallFailedError(self._rpc.code(), self._rpc.details() or ""))

    @staticmethod
    def _rpc_error() -> type[Any]:
        import grpc

        error: type[Any] = grpc.RpcError
        return error

    def _received(self, message: bytes) -> None:
        if not self._closing:
            self._messages.append(message)
        _wake(self._reader)

    def _over(self, end: CallFailedError) -> None:
        self._end = end
        self._ended.set()
        _wake(self._reader)


def in_loop(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *arguments: object) -> None:
    """From another thread: call it in the loop, if that is still there."""
    try:
        loop.call_soon_threadsafe(function, *arguments)
    except RuntimeError:
        pass  # the loop was closed: nobody is left to be told


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
