"""How much a payload may unfold into, checked before it does.

A byte of msgpack can ask for a container of 64 to 232 bytes. So containers are counted before anything is
built. The count is made in three steps, each taken only if the one before could not tell: (1) the first few
tokens, which decides for a payload of few large values; (2) an upper bound at the speed of `bytes.translate`:
the number of bytes that *could* be the head of a container, wherever they lie; (3) token by token to the end.

A well-formed payload has at least one byte for each element that its containers declare. The parser
makes room for an array when it meets its head, so heads that declare more than that are refused as well.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from aiopg.errors import CodecError

__all__ = ["CONTAINER_HEADS", "DEFAULT_LIMITS", "Limits", "check_payload", "container_bound"]

_FREE_CONTAINERS = 65536
# With up to 232 bytes for a container (a dict of one entry), one in 16 bytes keeps an object within
# 16 times its payload, beside the 16 MiB that the free ones come to.
_BYTES_PER_CONTAINER = 16
# Below this size even heads that lie about their arrays cannot ask for more than 7 MiB at once.
_SMALL = 2048
_PARSER_DEPTH = 1024
_FIRST_TOKENS = 256
# The careful encoder takes up to three of Python's 1000 frames for a level.
_DEEPEST = 200

CONTAINER_HEADS = bytes([*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF])
"""The bytes that can begin a container."""
_SHORT_TOKENS = re.compile(
    rb"(?:[\x00-\x7f\xc0-\xc3\xe0-\xff]|\xcc.|\xcd..|[\xce\xca].{4}|[\xcf\xcb].{8}|\xd0.|\xd1..|\xd2.{4}|\xd3.{8}"
    rb"|\xd4..|\xd5.{3}|\xd6.{5}|\xd7.{9}|\xd8.{17}|"
    + b"|".join(b"%c.{%d}" % (0xA0 + size, size) for size in range(32))
    + rb")*+",
    re.DOTALL,
)
_LONG_TOKENS = {0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1)} | {
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
    """

    max_depth: int = 128
    max_containers: int = _FREE_CONTAINERS

    def __post_init__(self) -> None:
        if not 1 <= self.max_depth <= _DEEPEST:
            raise ValueError(f"max_depth must be 1 to {_DEEPEST}, not {self.max_depth}")
        if self.max_containers < 0:
            raise ValueError(f"max_containers must not be negative: {self.max_containers}")

    def containers(self, size: int) -> int:
        """How many containers a payload of `size` bytes may have."""
        return self.max_containers + size // _BYTES_PER_CONTAINER

    @property
    def harmless(self) -> int:
        """Payloads of up to so many bytes need no look at their containers."""
        return min(_SMALL, self.max_containers)

    def too_deep(self) -> str:
        """The reason in an error about depth."""
        return f"more than max_depth = {self.max_depth} containers lie in one another, or one in itself"

    def too_many(self, allowed: int) -> str:
        """The reason in an error about the number of containers."""
        return (
            f"more than {allowed} lists, dicts and other containers (max_containers = {self.max_containers}, "
            f"and one for every {_BYTES_PER_CONTAINER} bytes); send fewer and larger ones, or a numpy array"
        )


DEFAULT_LIMITS = Limits()


def container_bound(payload: bytes) -> int:
    """At least as many as the payload has containers."""
    return len(payload) - len(payload.translate(None, CONTAINER_HEADS))


def check_payload(payload: bytes, limits: Limits, path: str) -> None:
    """Refuse a payload that would unfold too far; takes time in proportion to its size.

    Raises:
        CodecError: there are more containers than allowed, or they declare more elements than can be there.
    """
    size = len(payload)
    if size <= limits.harmless:
        return
    allowed = limits.containers(size)
    scan = _Scan(payload)
    scan.run(steps=_FIRST_TOKENS, most=allowed)
    if scan.position < size and (scan.count + container_bound(payload) > allowed or _may_overclaim(payload)):
        scan.run(steps=size, most=allowed)
    if scan.count > allowed:
        raise CodecError(path, "msgpack", limits.too_many(allowed))
    if scan.declared > size:
        raise CodecError(path, "msgpack", "its containers declare more elements than it has bytes")


def _may_overclaim(payload: bytes) -> bool:
    # Only arrays that are not yet complete can have room without elements, and as many as the parser nests.
    heads = min(payload.count(b"\xdc") + payload.count(b"\xdd"), _PARSER_DEPTH)
    return heads * len(payload) * 8 > 16 * len(payload) + 2**24


class _Scan:
    """Counts containers and the elements that they declare, without building anything."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self.position = 0
        self.count = 0
        self.declared = 0

    def run(self, *, steps: int, most: int) -> None:
        """Go on for at most `steps` tokens of variable size; stop early beyond `most` or at nonsense."""
        payload, size, position = self._payload, len(self._payload), self.position
        skip = _SHORT_TOKENS.match
        for _ in range(steps):
            if (run := skip(payload, position)) is not None:
                position = run.end()
            if position >= size or self.count > most or self.declared > size:
                break
            position = self._token(position)
        self.position = position

    def _token(self, position: int) -> int:
        payload = self._payload
        head = payload[position]
        if (long := _LONG_TOKENS.get(head)) is not None:
            width, extra = long
            length = int.from_bytes(payload[position + 1 : position + 1 + width])
            return position + 1 + width + extra + length
        if 0x80 <= head < 0xA0:
            self.count += 1
            self.declared += (head & 15) * (2 if head < 0x90 else 1)
            return position + 1
        if head >= 0xDC:
            end = position + (3 if head in (0xDC, 0xDE) else 5)
            self.count += 1
            self.declared += int.from_bytes(payload[position + 1 : end]) * (1 if head < 0xDE else 2)
            return end
        # A short token that is cut off: the parser will say so.
        return len(payload)
