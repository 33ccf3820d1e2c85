"""Output of many processes on one terminal: whole lines, each marked with where it comes from."""

from __future__ import annotations

import os
import stat

import anyio

__all__ = ["LINE_LIMIT", "Footer", "Lines", "Outlet", "pump"]

LINE_LIMIT = 64 * 1024
"""Bytes of one line that are held back until its end comes; a longer line is passed on in parts of this size."""

READ_SIZE = 64 * 1024

WRITE_SIZE = 4096
"""The kernel's PIPE_BUF on Linux: what a pipe that calls itself writable takes without making the writer wait."""


class Lines:
    """Bytes in, marked whole lines out. Bytes are passed on as they are, whatever they mean."""

    def __init__(self, prefix: bytes) -> None:
        self._prefix = prefix
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """The lines that `data` completes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        marked = [self._marked(line) for line in lines]
        if len(self._rest) > LINE_LIMIT:
            keep = len(self._rest) % LINE_LIMIT or LINE_LIMIT
            marked.append(self._marked(self._rest[:-keep]))
            self._rest = self._rest[-keep:]
        return b"".join(marked)

    def finish(self) -> bytes:
        """What came after the last line end, as a line."""
        rest, self._rest = self._rest, b""
        return self._marked(rest) if rest else b""

    def _marked(self, line: bytes) -> bytes:
        parts = [line[at : at + LINE_LIMIT] for at in range(0, len(line), LINE_LIMIT)] or [b""]
        return b"".join(b"%b%b\n" % (self._prefix, part) for part in parts)


CLEAR_LINE = b"\r\x1b[K"


class Footer:
    """The last line of a terminal, which stays below what is written there."""

    def __init__(self) -> None:
        self.text = b""


class Outlet:
    """A file descriptor to write to without ever making the event loop wait: a store may run on that loop.

    Setting O_NONBLOCK would do the same to every other process that shares the terminal, and a thread that waits in
    a write would keep the interpreter from ending.

    Args:
        fd: the file descriptor.
        lock: one for all outlets that may lead to the same place, so that what is written at once stays together.
        footer: likewise.
    """

    def __init__(self, fd: int, lock: anyio.Lock, footer: Footer) -> None:
        self._fd = fd
        self._lock = lock
        self._footer = footer
        self.is_terminal = os.isatty(fd)
        mode = os.fstat(fd).st_mode
        self._may_wait = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or self.is_terminal

    async def write(self, data: bytes) -> None:
        """Write all of these lines. Raises `OSError` if it cannot be, `BrokenPipeError` if nobody reads."""
        await self._write(data, self._footer.text)

    async def keep_below(self, text: str) -> None:
        """On a terminal: have this line below all others, cut to its width; an empty one goes. Raises as `write`."""
        if self.is_terminal and text.encode() != self._footer.text:
            columns = os.get_terminal_size(self._fd).columns
            before, self._footer.text = self._footer.text, text[: columns - 1].encode()
            await self._write(b"", before)

    async def _write(self, data: bytes, below: bytes) -> None:
        """`below`: what the last line is while we have not written."""
        async with self._lock:
            if self.is_terminal and (below or self._footer.text):
                data = CLEAR_LINE + data + self._footer.text
            left = memoryview(data)
            while left:
                if self._may_wait:
                    await anyio.wait_writable(self._fd)
                try:
                    left = left[os.write(self._fd, left[:WRITE_SIZE]) :]
                except BlockingIOError:
                    self._may_wait = True  # somebody else filled it first, and set O_NONBLOCK on it


async def pump(source: int, lines: Lines, outlet: Outlet) -> None:
    """Pass on everything that a pipe gives until its last writer has closed it, no faster than it is taken."""
    while True:
        await anyio.wait_readable(source)
        data = os.read(source, READ_SIZE)
        if not data:
            break
        await outlet.write(lines.feed(data))
    await outlet.write(lines.finish())
