"""The counting of containers."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiopg.codec._limits import Limits, _Scan, container_bound

from .strategies import OBJECTS
from .test_msgpack import CODEC

ROOM = 2**62


def containers(payload: bytes) -> int:
    """The slow and certain way: what the parser itself opens."""
    count = 0

    def counted(value: object) -> object:
        nonlocal count
        count += 1
        return 0

    msgpack.unpackb(
        payload,
        list_hook=counted,
        object_hook=counted,
        strict_map_key=False,
        ext_hook=lambda *_: 0,
        timestamp=1,
    )
    return count


@given(OBJECTS.map(CODEC.encode))
@settings(max_examples=300, print_blob=True, deadline=None)
def test_the_scan_counts_what_the_parser_opens(payload: bytes) -> None:
    """The scan is exact, it declares no more than there is, and the bound is never below it."""
    scan = _Scan(payload)
    scan.run(steps=len(payload), most=len(payload), room=ROOM)
    assert scan.count == containers(payload) <= container_bound(payload)
    assert scan.position == len(payload)
    assert scan.declared < len(payload)


@given(st.binary(max_size=300))
@settings(max_examples=300, print_blob=True, deadline=None)
def test_the_scan_ends_on_any_bytes(payload: bytes) -> None:
    """Damage never takes it out of the payload or round in circles."""
    scan = _Scan(payload)
    scan.run(steps=len(payload) + 1, most=len(payload), room=ROOM)
    assert scan.position >= len(payload) or scan.declared > len(payload)


def test_limits_are_checked_when_they_are_set() -> None:
    """A limit that cannot be kept is refused at once."""
    for wrong in ({"max_depth": 0}, {"max_depth": 201}, {"max_containers": -1}):
        with pytest.raises(ValueError, match="max_"):
            Limits(**wrong)
