"""Containers that msgpack has no type for: an array whose first element is a mark that says what it is.

A mark is an extension of one byte (`fixext 1`). The marked array holds its parts as they are, so that nothing
is packed into something else, copied twice, or read by recursion.
"""

from __future__ import annotations

import enum

from msgpack import ExtType

from aiopg.codec._extensions import Code
from aiopg.errors import CodecError

__all__ = ["MARKS", "MARK_HEAD", "PICKLE_MARK", "Kind", "unsafe_peer"]


class Kind(enum.IntEnum):
    """What a marked array stands for, and what follows the mark. The numbers are on the wire."""

    TUPLE = 0
    """The items."""
    SET = 1
    """The members, in any order."""
    FROZENSET = 2
    """The members, in any order."""
    OBJECT = 3
    """The registered name (str), and what `encode=` returned (a map by field name where fields are sent)."""
    ARRAY = 4
    """numpy: dtype, shape (array of int), order ("C" or "F"), elements (bin)."""
    SCALAR = 5
    """numpy: dtype, element (bin)."""
    TENSOR = 6
    """torch: name of the dtype, shape (array of int), elements (bin, in the order of a contiguous tensor)."""
    TORCH = 7
    """torch: "dtype" and its name, "Size" and the sizes (array of int), or "device" and its text."""


MARKS = {kind: ExtType(Code.MARK, bytes([kind])) for kind in Kind}
"""The first element of the array, by kind."""

MARK_HEAD = bytes([0xD4, Code.MARK])
"""Bytes that every payload with a mark contains."""

PICKLE_MARK = b"\xc1aiopg pickle\n"
"""What every payload of `unsafe_pickle` begins with. Its first byte begins no msgpack, no UTF-8 and no pickle."""


def unsafe_peer() -> CodecError:
    """The error where a payload of `unsafe_pickle` comes to another codec."""
    reason = (
        "the peer uses aiopg.codec.unsafe_pickle and this rank does not; unpickling runs whatever code the sender "
        "chose, so it must be asked for by name on every rank: give all ranks the same codec="
    )
    return CodecError("payload", "pickle", reason)
