"""Large leaves of an object: bytes, bytearrays, numpy arrays and torch tensors that are not to pass through the packer.

Theory of operation. msgpack copies a value while it holds the interpreter's lock, 256 MiB in 0.1 to 0.3 s, as do the
checks that look at every byte: an event loop in another thread stands still meanwhile. So large leaves are taken out
beforehand, what is left is packed, or checked and parsed, as ever, and the leaves are copied slice by slice, between
which other threads run. The bytes on the wire are the same either way.

- *Encoding* (`take_leaves`, `join_leaves`): a leaf is replaced by a few bytes that are found again in what was packed.
- *Decoding* (`find_leaves`): the payload is walked through from its first token on, as long as that is cheap. A leaf is
  replaced by an extension that no payload may have, whose value is the leaf (`Leaves.next`).

Leaves are looked for where they are found without a search: at the top, and in short lists, tuples and dicts.
"""

from __future__ import annotations

import io
import mmap
import re
import secrets
from typing import Any

from msgpack import packb

from aiopg.codec._elements import SLICE_BYTES, Elements, slices
from aiopg.codec._extensions import Code
from aiopg.codec._foreign import elements_bytes, take_apart
from aiopg.codec._limits import LONG_TOKENS, SHORT_TOKENS
from aiopg.codec._marks import MARK_HEAD, Kind
from aiopg.codec._protocol import Buffer
from aiopg.codec._registry import TypeRegistry

__all__ = [
    "LEAF_BYTES",
    "LEAF_CODE",
    "Leaves",
    "copy_bytes",
    "find_leaves",
    "join_leaves",
    "leaves_size",
    "take_leaves",
]

LEAF_BYTES = 256 * 1024
"""A value of this size or more is a leaf of its own."""

LEAF_CODE = 127
"""Extension that stands for a leaf while its payload is parsed."""

WALKED_ITEMS = 16384
"""The encoder ends its walk after so many values."""

WALKED_DEPTH = 4
"""As many containers may lie round a leaf that the encoder finds."""

BYTES_PER_TOKEN = 4096
"""The decoder ends its walk after one token for so many bytes of the payload, short ones counted by runs: then
the walk costs a few hundredths of what parsing does, whatever the payload is."""

RUN_BYTES = 64 * 1024
"""As many bytes of short tokens are skipped in one go."""

HUGE_PAGES_FROM = 4 * 1024 * 1024
"""Memory of this size or more is asked for in pages of 2 MiB, where the kernel has them: it is filled faster."""

_ARRAY_KINDS = (Kind.ARRAY, Kind.TENSOR)
_ARRAY_HEADS = {
    b"\x95" + MARK_HEAD + bytes([Kind.ARRAY]): re.compile(rb"\xa1[CF]\xc6"),
    b"\x94" + MARK_HEAD + bytes([Kind.TENSOR]): re.compile(rb"\xc6"),
}
"""What the marked array of a numpy array or a tensor begins with, and what is between its shape and its elements."""
_HEAD_BYTES = 4
_ARRAY_STARTS = frozenset(head[0] for head in _ARRAY_HEADS)
_PLACEHOLDER_BYTES = 20  # 16 that nobody could have guessed, and a number
_PLACEHOLDER_HEAD = bytes([0xC4, _PLACEHOLDER_BYTES])
_INTEGER = re.compile(rb"[\x00-\x7f]|\xcc.|\xcd.{2}|\xce.{4}|\xcf.{8}", re.DOTALL)


# ------------------------------------------------------------------------------------------------ copies


def copy_bytes(source: memoryview) -> bytes:
    """The same bytes, copied once."""
    if len(source) <= SLICE_BYTES:
        return bytes(source)
    target = io.BytesIO(bytes(len(source)))  # zeros that the kernel has not yet made; nobody else's, so filled in place
    for part in slices(source):
        target.write(part)
    return target.getvalue()


def _copy_bytearray(source: memoryview) -> bytearray:
    target = bytearray()
    for part in slices(source):
        target += part
    return target


def _joined(pieces: list[Elements]) -> Buffer:
    size = sum(map(len, pieces))
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size >= HUGE_PAGES_FROM and hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    target = memoryview(memory)
    end = 0
    for piece in pieces:
        for part in slices(piece):
            start, end = end, end + len(part)
            target[start:end] = part
    return target.toreadonly()


# ---------------------------------------------------------------------------------------------- encoding


def take_leaves(obj: object, registry: TypeRegistry) -> tuple[object, list[tuple[bytes, Elements]], bytes]:
    """An object with placeholders for its leaves; each leaf as what the packer would write before it, and its bytes;
    and what every placeholder begins with.

    An object without leaves is returned as it is. What is registered is no leaf.

    Raises:
        ValueError: an array that cannot be sent; the careful encoder says where.
    """
    leaves: list[tuple[bytes, Elements]] = []
    secret = secrets.token_bytes(_PLACEHOLDER_BYTES - 4)

    left = WALKED_ITEMS

    def walk(value: Any, depth: int) -> Any:
        nonlocal left
        kind = type(value)
        if kind is list or kind is tuple or kind is dict:
            left -= len(value)
            if depth == WALKED_DEPTH or left < 0:
                return value
            found = len(leaves)
            if kind is dict:
                parts: Any = {key: walk(item, depth + 1) for key, item in value.items()}
            else:
                parts = kind(walk(item, depth + 1) for item in value)
            return parts if len(leaves) > found else value
        leaf = _leaf(value, registry)
        if leaf is None:
            return value
        leaves.append(leaf)
        return secret + (len(leaves) - 1).to_bytes(4)

    return walk(obj, 0), leaves, secret


def _leaf(value: Any, registry: TypeRegistry) -> tuple[bytes, Elements] | None:
    kind = type(value)
    if kind is bytes:
        size = len(value)
        return (b"\xc6" + size.to_bytes(4), memoryview(value)) if LEAF_BYTES <= size < 2**32 else None
    if kind is bytearray:
        size = len(value)
        head = b"\xc9" + size.to_bytes(4) + bytes([Code.BYTEARRAY])
        return (head, memoryview(value)) if LEAF_BYTES <= size < 2**32 else None
    if not LEAF_BYTES <= elements_bytes(value) < 2**32 or registry.of_class(kind) is not None:
        return None
    parts = take_apart(value)
    assert parts is not None
    elements: Any = parts.pop()
    head = packb([*parts, b""])[:-2] + b"\xc6" + len(elements).to_bytes(4)
    return head, elements


def leaves_size(leaves: list[tuple[bytes, Elements]]) -> int:
    """Bytes of all of them."""
    return sum(len(data) for _, data in leaves)


def join_leaves(packed: bytes, leaves: list[tuple[bytes, Elements]], secret: bytes) -> Buffer:
    """The payload: what was packed, with the leaves in the places of their placeholders."""
    pieces: list[Elements] = []
    view, start = memoryview(packed), 0
    mark = _PLACEHOLDER_HEAD + secret
    while (place := packed.find(mark, start)) >= 0:
        end = place + len(_PLACEHOLDER_HEAD) + _PLACEHOLDER_BYTES
        head, data = leaves[int.from_bytes(packed[end - 4 : end])]
        pieces += [view[start:place], memoryview(head), data]
        start = end
    pieces.append(view[start:])
    return _joined(pieces)


# ---------------------------------------------------------------------------------------------- decoding


class Leaves:
    """The leaves of one payload, and what is left of it."""

    def __init__(self) -> None:
        self.rest = b""
        """The payload with extensions of `LEAF_CODE` in the places of its leaves."""
        self.bytes = 0
        """What the leaves come to."""
        self._views: list[tuple[int, memoryview]] = []
        self._read = 0

    def __len__(self) -> int:
        return len(self._views)

    def add(self, kind: int, view: memoryview) -> bytes:
        """A leaf that was found; what is to stand for it."""
        self._views.append((kind, view))
        self.bytes += len(view)
        return b"\xd6" + bytes([LEAF_CODE]) + (len(self._views) - 1).to_bytes(4)

    def next(self, data: bytes) -> object:
        """The value of the extension with this content.

        Each leaf is asked for once, in order: one that came in the payload by itself takes the place of another.
        Raises `ValueError`.
        """
        if self._read >= len(self._views) or data != self._read.to_bytes(4):
            raise ValueError("a leaf out of its place")
        kind, view = self._views[self._read]
        self._read += 1
        if kind in _ARRAY_KINDS:
            return view  # which the array is made of at once: nobody else sees it
        return copy_bytes(view) if kind == 0xC6 else _copy_bytearray(view)


def find_leaves(payload: memoryview) -> Leaves:
    """Walk through a payload for leaves. Nonsense in it is left to the parser."""
    leaves = Leaves()
    pieces: list[Buffer] = []
    size, position, done = len(payload), 0, 0
    for _ in range(size // BYTES_PER_TOKEN):
        run = SHORT_TOKENS.match(payload, position, min(position + RUN_BYTES, size))
        if run is not None:
            position = run.end()
        if position >= size:
            break
        head = payload[position]
        if head in _ARRAY_STARTS and (elements := _elements_of(payload, position)):
            start, kind = elements, payload[position + _HEAD_BYTES - 1]
        elif head in LONG_TOKENS:
            start, kind = position, head
        else:
            position += 3 if head in (0xDC, 0xDE) else 5 if head in (0xDD, 0xDF) else 1
            continue
        width, extra = LONG_TOKENS[payload[start]]
        first = start + 1 + width + extra
        position = first + int.from_bytes(payload[start + 1 : start + 1 + width])
        if position > size:
            break
        is_bytearray = kind == 0xC9 and payload[first - 1] == Code.BYTEARRAY
        if position - first >= LEAF_BYTES and (kind == 0xC6 or kind in _ARRAY_KINDS or is_bytearray):
            pieces += [payload[done:start], leaves.add(kind, payload[first:position])]
            done = position
    if len(leaves):
        leaves.rest = b"".join((*pieces, payload[done:]))
    return leaves


def _elements_of(payload: memoryview, position: int) -> int:
    """Where the elements of an array or a tensor begin whose marked array begins at `position`; 0 if it is not plainly
    one.
    """
    before = _ARRAY_HEADS.get(bytes(payload[position : position + _HEAD_BYTES]))
    if before is None:
        return 0
    head = bytes(payload[position + _HEAD_BYTES : position + 1024])
    if not head or not 0xA0 <= head[0] < 0xC0:
        return 0
    at = 1 + head[0] - 0xA0  # behind the dtype
    if at >= len(head) or not 0x90 <= head[at] < 0xA0:
        return 0
    for _ in range(head[at] - 0x90):
        run = _INTEGER.match(head, at + 1)
        if run is None:
            return 0
        at = run.end() - 1
    end = before.match(head, at + 1)
    return position + _HEAD_BYTES + end.end() - 1 if end is not None else 0
