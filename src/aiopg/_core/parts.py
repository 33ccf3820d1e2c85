"""Parts: several payloads in one body, so that a collective is one frame each way for every rank."""

from __future__ import annotations

import struct

from aiopg._core.frames import Body, Buffer, body_size
from aiopg.errors import ProtocolError

__all__ = ["join_parts", "pack_parts", "split_parts"]

VIEW_ABOVE = 64 * 1024
"""Parts of a body up to this size are copied out of it: a small copy is cheaper than a view of it."""

JOIN_BELOW = 1024 * 1024
"""Bodies up to this size are made one buffer once, for all ranks; of larger ones the ranks share the pieces."""


def join_parts(parts: list[Buffer]) -> Body:
    """Parts in one body: a table of u32 lengths, then the parts, uncopied."""
    return (struct.pack(f">{len(parts)}I", *map(len, parts)), *parts)


def pack_parts(parts: list[Buffer]) -> Body:
    """The same for a body that many ranks get: one buffer, unless it is large."""
    body = join_parts(parts)
    return (b"".join(body),) if body_size(body) <= JOIN_BELOW else body


def split_parts(body: Body, count: int) -> list[Buffer]:
    """The `count` parts of such a body; small ones are copied, large ones are views of it. Raises `ProtocolError`."""
    whole = body[0] if len(body) == 1 else b"".join(body)
    if len(whole) > VIEW_ABOVE:
        whole = memoryview(whole)
    if len(whole) < 4 * count:
        raise ProtocolError(f"body of {len(whole)} bytes holds no table of {count} lengths")
    lengths = struct.unpack_from(f">{count}I", whole)
    if 4 * count + sum(lengths) != len(whole):
        raise ProtocolError(f"body of {len(whole)} bytes does not hold {count} parts of {sum(lengths)} bytes")
    parts, start = [], 4 * count
    for length in lengths:
        parts.append(whole[start : start + length])
        start += length
    return parts
