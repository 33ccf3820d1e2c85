"""Parts: several payloads in one body, so that a collective is one frame each way for every rank."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import overload

from aiopg._core.frames import Body, Buffer, body_size
from aiopg.errors import ProtocolError

__all__ = ["Parts", "join_parts", "pack_parts", "split_parts"]

VIEW_ABOVE = 64 * 1024
"""Parts of a body up to this size are copied out of it: a small copy is cheaper than a view of it."""

JOIN_BELOW = 1024 * 1024
"""Bodies up to this size are made one buffer once, for all ranks; of larger ones the ranks share the pieces, ..."""

LARGE_PART = 16 * 1024
"""... unless these are smaller than this: to write ten thousand pieces to each of ten thousand ranks takes minutes."""


def join_parts(parts: list[Buffer]) -> Body:
    """Parts in one body: a table of u32 lengths, then the parts, uncopied."""
    return (struct.pack(f">{len(parts)}I", *map(len, parts)), *parts)


def pack_parts(parts: list[Buffer]) -> Body:
    """The same for a body that many ranks get: one buffer, unless its parts are large, or lie elsewhere (`blobs`)."""
    body = join_parts(parts)
    if body_size(body) > max(JOIN_BELOW, LARGE_PART * len(parts)):
        return body
    try:
        return (b"".join(body),)
    except TypeError:  # to look for a reference beforehand would cost every round something
        return body


class Parts(Sequence[Buffer]):
    """The parts of a body, still behind one another; taken out when they are asked for, as `split_parts` does."""

    __slots__ = ("joined", "sizes")

    def __init__(self, body: Body, count: int) -> None:
        """A body that holds `count` parts. Raises `ProtocolError` if it does not."""
        whole = body[0] if len(body) == 1 else b"".join(body)
        size, start = len(whole), 4 * count
        if size > VIEW_ABOVE:
            whole = memoryview(whole)
        if size < start:
            raise ProtocolError(f"body of {size} bytes holds no table of {count} lengths")
        self.sizes: tuple[int, ...] = struct.unpack_from(f">{count}I", whole)
        if start + sum(self.sizes) != size:
            raise ProtocolError(f"body of {size} bytes does not hold {count} parts of {sum(self.sizes)} bytes")
        self.joined = whole[start:]
        """All of them; a view where they are large."""

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[Buffer]:
        joined, start = self.joined, 0
        for size in self.sizes:
            yield joined[start : start + size]
            start += size

    @overload
    def __getitem__(self, index: int) -> Buffer: ...
    @overload
    def __getitem__(self, index: slice) -> list[Buffer]: ...
    def __getitem__(self, index: int | slice) -> Buffer | list[Buffer]:
        return list(self)[index]


def split_parts(body: Body, count: int) -> list[Buffer]:
    """The same, each taken out; small ones are copied, large ones are views of the body.

    Where the body has them in pieces of their own (`join_parts`), those are the parts.
    """
    if len(body) == count + 1 and body[0] == struct.pack(f">{count}I", *map(len, body[1:])):
        return list(body[1:])
    return list(Parts(body, count))
