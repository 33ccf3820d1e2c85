"""Large messages on their way out: they go to the transport piece by piece, as it takes them.

asyncio's transport copies what the kernel does not take at once, and joins what `writelines` gets (Python 3.11): with
256 MiB either would keep the loop for a quarter of a second, for each member that gets them. So an `Outflow` takes the
place of the connection's transport while there is something large to write: whatever is written meanwhile stands in
line behind it, and it gives the transport no more than that says it has room for (`pause_writing`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["LARGE_WRITE", "Outflow"]

LARGE_WRITE = 256 * 1024
"""What is larger is written by an `Outflow`."""

PIECE_BYTES = 128 * 1024
"""What the transport is given in one go, and may keep a copy of: for each of a thousand ranks that do not read."""

PASS_BYTES = 1024 * 1024
"""What it is given before others have their turn, also when it could take more."""


class Outflow(asyncio.Transport):
    """In the place of `transport` until all is written; then `done` is called, and it is to be used itself again."""

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        done: Callable[[asyncio.Transport], None],
        paused: bool,
    ) -> None:
        """`paused`: the transport has enough already."""
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._done = done
        self._line: deque[memoryview] = deque()
        self._paused = paused
        self._closing = False
        self._next: asyncio.Handle | None = None

    def __repr__(self) -> str:
        return f"<Outflow {sum(map(len, self._line))} bytes to {self._transport!r}>"

    def write(self, data: Any) -> None:
        """Write this behind what is in line."""
        self.writelines((data,))

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        """Write these behind what is in line. They are kept, and not copied."""
        if self._closing:
            return
        self._line.extend(memoryview(data) for data in list_of_data if len(data))
        self._go_on_soon()

    def pause_writing(self) -> None:
        """The transport has enough."""
        self._paused = True

    def resume_writing(self) -> None:
        """It takes more: with the loop's next pass.

        asyncio ends a connection twice whose write fails within `resume_writing`, the second time with an exception.
        """
        self._paused = False
        self._go_on_soon()

    def is_closing(self) -> bool:
        """Whether nothing more is taken."""
        return self._closing or self._transport.is_closing()

    def close(self) -> None:
        """Close when all is written."""
        self._closing = True
        self._go_on_soon()

    def abort(self) -> None:
        """Close at once."""
        self._drop()
        self._transport.abort()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """The transport's."""
        return self._transport.get_extra_info(name, default)

    def get_write_buffer_size(self) -> int:
        """The transport's, in bytes: what is in line here is referred to, and no copy."""
        return self._transport.get_write_buffer_size()

    def pause_reading(self) -> None:
        """The transport's."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """The transport's."""
        self._transport.resume_reading()

    # ------------------------------------------------------------------------------------------------ inside

    def _go_on_soon(self) -> None:
        if self._next is None and not self._paused:
            self._next = self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._next = None
        line, left, transport = self._line, PASS_BYTES, self._transport
        # One that met an error is closing, and says so with its next pass only: asyncio would log each further write.
        while line and not self._paused and left > 0 and not transport.is_closing():
            piece = line.popleft()
            if len(piece) > PIECE_BYTES:
                line.appendleft(piece[PIECE_BYTES:])
                piece = piece[:PIECE_BYTES]
            left -= len(piece)
            transport.write(piece)
        if transport.is_closing():
            self._drop()
        elif line:
            self._go_on_soon()
        elif self._closing:
            transport.close()
        else:
            self._done(transport)

    def _drop(self) -> None:
        self._closing = True
        self._line.clear()
        if self._next is not None:
            self._next.cancel()
            self._next = None
