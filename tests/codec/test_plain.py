"""The codecs for JSON and for bytes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiopg.codec import JsonCodec, RawCodec
from aiopg.errors import CodecError

from .types_for_tests import Level

JSON = JsonCodec()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )
)
@settings(print_blob=True, deadline=None)
def test_plain_json_comes_back(obj: object) -> None:
    """What JSON can hold is held exactly."""
    assert repr(JSON.decode(JSON.encode(obj))) == repr(obj)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ((1,), "obj[0]"), ({1: 2}, "obj[0].keys()"), (Level.LOW, "obj[0]"), (b"x", "obj[0]"),
        ({"a": [float("nan")]}, 'obj[0]["a"][0]'), (10**5000, "obj"), ("\ud83d\ude00", "obj"),
    ],
    ids=["tuple", "key", "enum", "bytes", "nan", "large", "surrogates"],
)  # fmt: skip
def test_json_changes_no_type(value: object, path: str) -> None:
    """Tuples, other keys and subclasses are refused, not turned into something else."""
    with pytest.raises(CodecError) as caught:
        JSON.encode([value])
    assert caught.value.path == path


@pytest.mark.parametrize(
    "payload",
    [b"", b"{", b"[1]x", b"NaN", b"\xff", b"[" * 150 + b"]" * 150, b"[" * 100_000, b"1" * 5000, b'{"a":1,}'],
    ids=lambda payload: repr(payload[:8]),
)
def test_bytes_that_are_no_json_are_refused(payload: bytes) -> None:
    """Text, encoding and depth are all checked."""
    with pytest.raises(CodecError):
        JSON.decode(payload)


def test_json_limits_containers_but_not_brackets_in_text() -> None:
    """Only what becomes an object counts."""
    assert JSON.decode(JSON.encode(['"[{' * 100_000])) == ['"[{' * 100_000]
    with pytest.raises(CodecError, match="max_containers"):
        JSON.decode(b"[" + b"[]," * 200_000 + b"1]")
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(CodecError, match="max_depth"):
        JSON.encode(loop)


def test_raw_passes_bytes_and_nothing_else() -> None:
    """Bytes-like in, bytes out, independent of the buffer that they came from."""
    raw = RawCodec()
    buffer = bytearray(b"abc")
    payload = raw.encode(memoryview(buffer))
    buffer[:] = b"xyz"
    assert raw.decode(memoryview(payload)) == b"abc"
    with pytest.raises(CodecError, match="raw codec"):
        raw.encode("abc")
