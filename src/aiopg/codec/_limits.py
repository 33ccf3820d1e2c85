"""How much a payload may unfold into, checked before it does.

What whoever wrote a payload can make its reader do is limited; past each limit comes a CodecError that names it:

===================  ==========================  ================================================================
limit                default                     what it bounds
===================  ==========================  ================================================================
max_depth            128 (at most 200)           containers and registered objects that lie inside one another
max_containers       65536, and one for every    lists, tuples, dicts, sets and marked arrays of one payload
                     16 bytes of the payload
max_memory           32 MiB, and 16 bytes for    sets, frozensets, decimals, addresses and paths together, by
                     each byte of the payload    what they take in memory (`MEMBER_BYTES`, `VALUE_BYTES`)
container length     one byte of the payload     elements that the heads of containers declare, before room is
                     for each element            made for them
MAX_COLLISIONS       64                          keys of one dict, or members of one set, with one hash
EMPTY_ELEMENTS       65536; 2**32                elements of a numpy array that take no bytes; the other sizes of
                                                 an array or tensor that has a size of 0, multiplied
DTYPE_DEPTH          16                          dtypes of numpy inside one another
FLAG_BITS            64, or the class's own      bits of the value of a Flag
ZONES                1024                        time zones that are kept, so that each is read from disk once
LONGEST_REASON       500 characters              what an error repeats of the payload
===================  ==========================  ================================================================

All together: an object takes less than 48 MiB and 64 times its payload; a payload's own length is bounded by the
store (`aiopg.Limits.payload_bytes`). Not limited: what the registered classes and `decode=` functions do, and the
values of a Flag that Python keeps for good, which are up to one for each combination of its bits.

A byte of msgpack can ask for a container of 64 to 232 bytes. So containers are counted before anything is
built. The count is made in three steps, each taken only if the one before could not tell: (1) the first few
tokens, which decides for a payload of few large values; (2) an upper bound at the speed of `bytes.translate`:
the number of bytes that *could* be the head of a container, wherever they lie; (3) token by token to the end.
The values that take more than 32 bytes of memory for a byte of payload are weighed in the same steps.

A well-formed payload has at least one byte for each element that its containers declare. The parser
makes room for an array when it meets its head, so heads that declare more than that are refused as well.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from aiopg.codec._extensions import Code
from aiopg.errors import CodecError

__all__ = [
    "CONTAINER_HEADS",
    "DEFAULT_LIMITS",
    "LONGEST_REASON",
    "LONG_TOKENS",
    "MEMBER_BYTES",
    "SHORT_TOKENS",
    "VALUE_BYTES",
    "Limits",
    "check_payload",
    "container_bound",
    "extension_bound",
]

_FREE_CONTAINERS = 65536
# With up to 232 bytes for a container (a dict of one entry), one in 16 bytes keeps an object within
# 16 times its payload, beside the 16 MiB that the free ones come to.
_BYTES_PER_CONTAINER = 16
_FREE_MEMORY = 32 * 2**20
_BYTES_PER_BYTE = 16
# Below this size even heads that lie about their arrays cannot ask for more than 7 MiB at once.
_SMALL = 2048
_PARSER_DEPTH = 1024
_FIRST_TOKENS = 256
# The careful encoder takes up to three of Python's 1000 frames for a level.
_DEEPEST = 200

LONGEST_REASON = 500
"""Characters of an error's text that may be what the payload says."""

MEMBER_BYTES = 108
"""Most that a set takes for each of its members: just after its table has grown by four."""
_MANY_MEMBERS = 50000
_MANY_MEMBER_BYTES = 80
"""The same for a set of more members, whose table is doubled."""

VALUE_BYTES: dict[int, int] = {Code.DECIMAL: 128, Code.ADDRESS: 768, Code.PATH: 320}
"""By code: most that a short value takes which is written in a few bytes."""
_DEAREST = 128
"""Most that any of these takes for one byte of payload: a network written as `::`, in 6 bytes."""

CONTAINER_HEADS = bytes([*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF])
"""The bytes that can begin a container."""
_EXTENSION_HEADS = bytes([*range(0xC7, 0xCA), *range(0xD4, 0xD9)])
# Where an extension that is weighed could begin. A match is one byte, so that none hides in another.
_DEAR = re.compile(
    rb"[\xc7-\xc9\xd4-\xd8](?:(?<=[\xd4-\xd8])(?=%b)|(?<=\xc7)(?=.%b)|(?<=\xc8)(?=..%b)|(?<=\xc9)(?=.{4}%b))"
    % ((b"[\x09\x0b\x0c]",) * 4),
    re.DOTALL,
)
# Marks of sets, as they follow the head of an extension.
_SET_MARKS = (bytes([Code.MARK, 1]), bytes([Code.MARK, 2]))
_SETS = tuple(b"\xd4" + mark for mark in _SET_MARKS)
SHORT_TOKENS = re.compile(
    rb"(?:[\x00-\x7f\xc0-\xc3\xe0-\xff]|\xcc.|\xcd..|[\xce\xca].{4}|[\xcf\xcb].{8}|\xd0.|\xd1..|\xd2.{4}|\xd3.{8}"
    rb"|"
    + b"|".join(b"%c[^\x09\x0b\x0c].{%d}" % (0xD4 + power, 1 << power) for power in range(5))
    + b"|"
    + b"|".join(b"%c.{%d}" % (0xA0 + size, size) for size in range(32))
    + rb")*+",
    re.DOTALL,
)
LONG_TOKENS = {0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1)} | {
    0xD9: (1, 0),
    0xDA: (2, 0),
    0xDB: (4, 0),
}


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a codec, in both directions: what one side may send, the other may receive.

    Attributes:
        max_depth: how many containers (and registered objects) may lie inside one another.
        max_containers: how many containers a payload may have beside one for every 16 bytes of its size.
        max_memory: how many bytes its sets, decimals, addresses and paths may take beside 16 for each of its bytes.
    """

    max_depth: int = 128
    max_containers: int = _FREE_CONTAINERS
    max_memory: int = _FREE_MEMORY

    def __post_init__(self) -> None:
        if not 1 <= self.max_depth <= _DEEPEST:
            raise ValueError(f"max_depth must be 1 to {_DEEPEST}, not {self.max_depth}")
        if self.max_containers < 0:
            raise ValueError(f"max_containers must not be negative: {self.max_containers}")
        if self.max_memory < 0:
            raise ValueError(f"max_memory must not be negative: {self.max_memory}")

    def containers(self, size: int) -> int:
        """How many containers a payload of `size` bytes may have."""
        return self.max_containers + size // _BYTES_PER_CONTAINER

    def memory(self, size: int) -> int:
        """How many bytes the dear values of a payload of `size` bytes may take."""
        return self.max_memory + size * _BYTES_PER_BYTE

    def beside(self, size: int) -> Limits:
        """The limits of what is left of a payload from which `size` bytes were taken that hold nothing."""
        return Limits(self.max_depth, self.containers(size), self.memory(size))

    @property
    def harmless(self) -> int:
        """Payloads of up to so many bytes need no look at what they hold."""
        return min(_SMALL, self.max_containers, self.max_memory // _DEAREST)

    def too_deep(self) -> str:
        """The reason in an error about depth."""
        return f"more than max_depth = {self.max_depth} containers lie in one another, or one in itself"

    def too_many(self, allowed: int) -> str:
        """The reason in an error about the number of containers."""
        return (
            f"more than {allowed} lists, dicts and other containers (max_containers = {self.max_containers}, "
            f"and one for every {_BYTES_PER_CONTAINER} bytes); send fewer and larger ones, or a numpy array"
        )

    def too_large(self, room: int) -> str:
        """The reason in an error about memory."""
        return (
            f"its sets, decimals, addresses and paths take more than {room} bytes (max_memory = {self.max_memory}, "
            f"and {_BYTES_PER_BYTE} for each byte); send it in parts, or as lists, numbers and text"
        )


DEFAULT_LIMITS = Limits()


def container_bound(payload: bytes) -> int:
    """At least as many as the payload has containers."""
    return len(payload) - len(payload.translate(None, CONTAINER_HEADS))


def extension_bound(payload: bytes) -> int:
    """At least as many as the payload has extensions."""
    return len(payload) - len(payload.translate(None, _EXTENSION_HEADS))


def check_payload(payload: bytes, limits: Limits, path: str) -> int:
    """Refuse a payload that would unfold too far; takes time in proportion to its size.

    Returns a number that is at least that of its containers.

    Raises:
        CodecError: there are more containers than allowed, they declare more elements than can be there, or the
            values take too much memory.
    """
    size = len(payload)
    if size <= limits.harmless:
        return size
    allowed, room = limits.containers(size), limits.memory(size)
    scan = _Scan(payload)
    scan.run(steps=_FIRST_TOKENS, most=allowed, room=room)
    bound = scan.count
    if scan.position < size:
        bound += container_bound(payload)
        if bound > allowed or _may_overclaim(payload) or _may_be_dear(payload, room):
            scan.run(steps=size, most=allowed, room=room)
    if scan.count > allowed:
        raise CodecError(path, "msgpack", limits.too_many(allowed))
    if scan.declared > size:
        raise CodecError(path, "msgpack", "its containers declare more elements than it has bytes")
    if scan.memory > room:
        raise CodecError(path, "msgpack", limits.too_large(room))
    return bound


def _may_overclaim(payload: bytes) -> bool:
    # Only arrays that are not yet complete can have room without elements, and as many as the parser nests.
    heads = min(payload.count(b"\xdc") + payload.count(b"\xdd"), _PARSER_DEPTH)
    return heads * len(payload) * 8 > 16 * len(payload) + 2**24


def _may_be_dear(payload: bytes, room: int) -> bool:
    size = len(payload)
    if size * _DEAREST <= room:
        return False
    # A mark says nothing of how many members there are.
    if any(mark in payload for mark in _SET_MARKS):
        return True
    dearest = max(VALUE_BYTES.values())
    codes = sum(payload.count(code) * most for code, most in VALUE_BYTES.items())
    return (
        min(extension_bound(payload) * dearest, codes) > room
        and sum(1 for _ in _DEAR.finditer(payload)) * dearest > room
    )


class _Scan:
    """Counts containers, the elements that they declare and the memory of dear values, without building anything."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self.position = 0
        self.count = 0
        self.declared = 0
        self.memory = 0
        self._length = 0  # of the array whose head came last

    def run(self, *, steps: int, most: int, room: int) -> None:
        """Go on for at most `steps` tokens of variable size; stop early beyond `most` or `room`, or at nonsense."""
        payload, size, position = self._payload, len(self._payload), self.position
        skip = SHORT_TOKENS.match
        for _ in range(steps):
            if (run := skip(payload, position)) is not None:
                position = run.end()
            if position >= size or self.count > most or self.declared > size or self.memory > room:
                break
            position = self._token(position)
        self.position = position

    def _token(self, position: int) -> int:
        payload = self._payload
        head = payload[position]
        if (long := LONG_TOKENS.get(head)) is not None:
            width, extra = long
            start = position + 1 + width
            end = start + extra + int.from_bytes(payload[position + 1 : start])
            if extra:
                self._weigh(payload[start : start + 2])
            return end
        if 0xD4 <= head <= 0xD8:
            self._weigh(payload[position + 1 : position + 3])
            return position + 2 + (1 << (head - 0xD4))
        if 0x80 <= head < 0xA0:
            end, length = position + 1, head & 15
            is_map = head < 0x90
        elif head >= 0xDC:
            end = position + (3 if head in (0xDC, 0xDE) else 5)
            length = int.from_bytes(payload[position + 1 : end])
            is_map = head >= 0xDE
        else:
            # A short token that is cut off: the parser will say so.
            return len(payload)
        self.count += 1
        self.declared += length * 2 if is_map else length
        self._length = length
        if not is_map and payload.startswith(_SETS, end):
            self._weigh(payload[end + 1 : end + 3])
            return end + 3
        return end

    def _weigh(self, start: bytes) -> None:
        """Add what the extension takes that begins so: with its code and the first byte of its data."""
        if start in _SET_MARKS:
            # It follows the head of its array, or it is an error.
            self.memory += self._length * (MEMBER_BYTES if self._length <= _MANY_MEMBERS else _MANY_MEMBER_BYTES)
        elif start:
            self.memory += VALUE_BYTES.get(start[0], 0)
