"""Values of every type that can be sent, for hypothesis."""

from __future__ import annotations

import math
from datetime import UTC, timedelta, timezone
from pathlib import Path, PurePosixPath, PureWindowsPath
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from aiopg.codec import MsgpackCodec

from .types_for_tests import Colour, Frozen, Level, Mode, Peer, Point, Rights, full_registry

ZONES = st.sampled_from([None, UTC, timezone(timedelta(hours=-3, minutes=-30)), timezone(timedelta(0), "Z")]) | (
    st.sampled_from([ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York")])
)
TEXT = st.text(max_size=8) | st.text(st.characters(categories=["Cs", "L"]), max_size=4)
PLAIN_PATHS = st.text("abc/.:\\ ", max_size=8)
WINDOWS_PATHS = PLAIN_PATHS.map(PureWindowsPath).filter(lambda path: PureWindowsPath(str(path)) == path)

HASHABLE_LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.complex_numbers(),
    TEXT,
    st.binary(max_size=8),
    st.datetimes(timezones=ZONES),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.ip_addresses(),
    PLAIN_PATHS.map(Path) | PLAIN_PATHS.map(PurePosixPath) | WINDOWS_PATHS,
    st.sampled_from([*Colour, *Level, *Mode, Rights.READ, Rights.READ | Rights.WRITE]),
)
HASHABLE = st.recursive(
    HASHABLE_LEAVES.filter(lambda value: not isinstance(value, float | complex) or value == value),
    lambda inner: (
        st.lists(inner, max_size=3).map(tuple)
        | st.frozensets(inner, max_size=3)
        | st.builds(Frozen, st.lists(st.integers(), max_size=2).map(tuple))
        | st.builds(Point, inner, inner)
    ),
    max_leaves=4,
)
OBJECTS = st.recursive(
    HASHABLE_LEAVES | st.binary(max_size=8).map(bytearray),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(HASHABLE, inner, max_size=4)
        | st.sets(HASHABLE, max_size=3)
        | st.builds(Peer, TEXT, st.integers(), inner)
    ),
    max_leaves=12,
)


def same(left: object, right: object) -> bool:
    """Whether two values are equal down to the types, the sign of zero, the order of keys and the fold."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float) and isinstance(right, float):
        return (math.isnan(left) and math.isnan(right)) or repr(left) == repr(right)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return same(list(left.items()), list(right.items()))
    if isinstance(left, Peer) and isinstance(right, Peer):
        return same(vars(left), vars(right))
    return repr(left) == repr(right) if isinstance(left, complex) or hasattr(left, "fold") else left == right


def extension(code: int, data: bytes) -> bytes:
    """An extension as an attacker writes it: any code, and a length that is right."""
    return b"\xc9" + len(data).to_bytes(4, "big") + bytes([code]) + data


_CODEC = MsgpackCodec(full_registry())

TOKENS = st.one_of(
    st.sampled_from(
        [b"\x80", b"\x81", b"\x82", b"\x90", b"\x91", b"\x93", b"\x95", b"\xc0", b"\xc1", b"\x01", b"\xa1x"]
    ),
    st.sampled_from(
        [b"\xdc\x00\x02", b"\xdd\x00\x00\x00\x02", b"\xdc\xff\xff", b"\xdf\x7f\xff\xff\xff", b"\xde\x00\x01"]
    ),
    st.integers(0, 6).map(lambda kind: b"\xd4\x40" + bytes([kind])),
    st.builds(extension, st.sampled_from([*range(14), 63, 64, 65, 127, 128, 255]), st.binary(max_size=20)),
    st.builds(lambda head, tail: bytes([head]) + tail, st.integers(0xD4, 0xD8), st.binary(min_size=2, max_size=17)),
    OBJECTS.map(_CODEC.encode),
)
"""What hostile payloads are made of: heads that lie, marks, extensions of all codes, and whole values."""
HOSTILE = st.lists(TOKENS, max_size=12).map(b"".join)
