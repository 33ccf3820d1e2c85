"""What numpy arrays and torch tensors have in common: a shape, and elements in one piece of memory.

Their libraries are the program's: they are looked for among the modules that it has imported, and never imported
from here. To import one can take seconds, and no payload is to decide that it is done.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Protocol

from aiopg.codec._protocol import Buffer
from aiopg.errors import CodecError

__all__ = [
    "EMPTY_ELEMENTS",
    "VIEWED_BYTES",
    "Elements",
    "bin_head",
    "check_elements",
    "check_shape",
    "imported",
    "needed",
    "slices",
]

EMPTY_ELEMENTS = 65536
"""Elements of an array whose dtype takes no bytes: nothing in the payload answers for their number."""
_EMPTY_SHAPE = 2**32
_MOST_SIZES = 64

VIEWED_BYTES = 4096
"""Fewer bytes of elements are copied out when a value is taken apart: that is quicker than to make a view of them."""

SLICE_BYTES = 512 * 1024
"""As much is copied in one go: 0.1 to 0.4 ms in which no other thread of this process runs."""


class Elements(Protocol):
    """The bytes of an array's elements. The memory stays for as long as this object does."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> Buffer: ...


def slices(source: Elements) -> Iterator[Buffer]:
    """Elements in slices; other threads run in between."""
    for start in range(0, len(source), SLICE_BYTES):
        if start:
            time.sleep(0)  # lets go of the interpreter's lock
        yield source[start : start + SLICE_BYTES]


def bin_head(size: int) -> bytes:
    """What msgpack writes before so many bytes."""
    if size < 2**8:
        return b"\xc4" + size.to_bytes(1)
    return b"\xc5" + size.to_bytes(2) if size < 2**16 else b"\xc6" + size.to_bytes(4)


def imported(name: str, attribute: str) -> ModuleType | None:
    """A module that the program has imported; None if it has not, or is only about to.

    `attribute` is what a module that is still being imported does not have yet.
    """
    module = sys.modules.get(name)
    return module if hasattr(module, attribute) else None


def needed(name: str, attribute: str) -> ModuleType:
    """The same for a payload that has values of it.

    Raises:
        CodecError: the program has not imported it.
    """
    module = imported(name, attribute)
    if module is None:
        reason = (
            f"the object holds values of {name}, which this process has not imported; before receiving such, "
            f"import {name} (pip install {name})"
        )
        raise CodecError("payload", f"{name}.{attribute}", reason)
    return module


def check_shape(shape: object) -> None:
    """Raises `ValueError` for what is no list of sizes."""
    if type(shape) is not list or len(shape) > _MOST_SIZES:
        raise ValueError("a shape that is no list of sizes")
    if any(type(size) is not int or not 0 <= size < 2**63 for size in shape):
        raise ValueError("a shape that is no list of sizes")


def check_elements(data: object, shape: Sequence[int], item_bytes: int, dtype: object) -> None:
    """Raises `ValueError` unless the data are the elements of such an array: before room is made for it."""
    if not isinstance(data, bytes | memoryview):
        raise ValueError("elements that are no bytes")
    # With exact integers, which do not overflow.
    if math.prod(shape) * item_bytes != len(data):
        raise ValueError(f"shape {tuple(shape)} of {dtype} does not come to {len(data)} bytes")
    # numpy makes one byte of an S0 and four of a U0, and whoever gets the array may count on its sizes.
    if not data and math.prod(size or 1 for size in shape) > (_EMPTY_SHAPE if 0 in shape else EMPTY_ELEMENTS):
        raise ValueError(f"shape {tuple(shape)} of {dtype}, and no bytes")
