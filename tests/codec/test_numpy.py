"""numpy arrays and scalars."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from typing import Any, TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from aiopg.codec import MsgpackCodec
from aiopg.codec._numpy import take_apart
from aiopg.errors import CodecError

from .test_attacks import peak_of

Array: TypeAlias = np.ndarray[Any, Any]
CODEC = MsgpackCodec()
STRUCTURED = np.dtype([("a", "<i2"), ("b", "f8", (2, 3)), ("c", [("d", "S3"), ("e", "<M8[us]")])], align=True)
ODD = np.dtype({"names": ["x", "y"], "formats": ["u1", ">u4"], "offsets": [9, 2], "itemsize": 16})


def there_and_back(value: object) -> object:
    return CODEC.decode(CODEC.encode({"v": [value]}))["v"][0]  # type: ignore[index]


def assert_same(back: object, array: Array) -> None:
    assert type(back) is np.ndarray
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert back.tobytes() == array.tobytes()
    assert back.flags.owndata
    assert back.flags.writeable


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12).reshape(3, 4), np.asfortranarray(np.arange(12.0).reshape(3, 4)), np.arange(20)[::-3],
        np.array(3.5), np.empty((0, 3), ">i2"), np.array(["2026-01-01", "NaT"], "M8[D]"),
        np.array(["a", "öß"]),
        np.zeros((2, 2), STRUCTURED), np.ones(3, ODD), np.array([b"x"]), np.array([True]), np.array(["", ""]),
        np.array([1 + 2j], "c8"), np.array([5], "m8[25s]"), np.zeros(2, "V5"), np.array([1.5], "f2"),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}"[:40],
)  # fmt: skip
def test_arrays_come_back_exactly(array: Array) -> None:
    """dtype, shape and elements are the same, and the memory is the receiver's own."""
    assert_same(there_and_back(array), array)


@given(st.data())
@settings(max_examples=100, print_blob=True, deadline=None)
def test_any_plain_array_comes_back(data: st.DataObject) -> None:
    """Whatever dtype hypothesis thinks of."""
    dtype = data.draw(hnp.scalar_dtypes() | hnp.array_dtypes() | hnp.nested_dtypes())
    assert_same(there_and_back(array := data.draw(hnp.arrays(dtype, hnp.array_shapes(min_side=0)))), array)


def test_fortran_order_survives() -> None:
    """The receiver can hand the memory on to code that wants columns."""
    back = there_and_back(np.asfortranarray(np.ones((3, 4))))
    assert isinstance(back, np.ndarray)
    assert back.flags.f_contiguous
    assert not back.flags.c_contiguous


@pytest.mark.parametrize(
    "scalar",
    [np.float64(1.5), np.int8(-1), np.bool_(True), np.str_("ö"), np.bytes_(b"x"), np.datetime64("2026-01-01"),
     np.str_(""), np.complex64(1j), np.ones(1, ODD)[0]],
    ids=lambda scalar: type(scalar).__name__,
)  # fmt: skip
def test_scalars_keep_their_type(scalar: np.generic) -> None:
    """A numpy float is no Python float, though it is a subclass of it."""
    back = there_and_back(scalar)
    assert type(back) is type(scalar)
    assert back == scalar
    assert isinstance(back, np.generic)
    assert back.dtype == scalar.dtype


@pytest.mark.parametrize(
    ("array", "advice"),
    [
        (np.array([object()]), "tolist"),
        (np.zeros(2, [("a", "O")]), "tolist"),
        (np.ma.masked_array([1]), "numpy.array"),
        (np.rec.array([(1,)], dtype=[("a", "i4")]), "numpy.array"),
    ],
)
def test_arrays_of_other_kinds_are_refused(array: object, advice: str) -> None:
    """Objects are not sent as addresses, and subclasses do not lose what they add."""
    with pytest.raises(CodecError, match=advice) as caught:
        CODEC.encode([array])
    assert caught.value.path == "obj[0]"


@pytest.mark.parametrize(
    "parts",
    [
        ["|O", [1], "C", bytes(8)],
        ["<f8", [10**12], "C", b""],
        ["<f8", [1], "X", bytes(8)],
        ["<f8", [-1], "C", b""],
        ["<f8", [1], "C", "12345678"],
        ["<V999999999", [], "C", b""],
        [{"names": ["a"]}, [1], "C", b"x"],
        [[], [1], "C", b""],
        ["<f8", 1, "C", bytes(8)],
        ["i4,O", [1], "C", bytes(12)],
        ["<f8", [0] * 65, "C", b""],
        ["<f3", [1], "C", b"abc"],
        ["<M8[parsec]", [1], "C", bytes(8)],
        ["<f8"],
        [{"names": [1], "formats": ["<f8"]}, [1], "C", bytes(8)],
        [{"names": ["a"], "formats": ["<f8"], "offsets": [10**30]}, [1], "C", bytes(8)],
        ["|V0", [10**30], "C", b""],
    ],
    ids=lambda parts: str(parts)[:40],
)
def test_nonsense_arrays_are_refused(parts: list[object]) -> None:
    """No declared dtype or shape does more than raise CodecError."""
    payload = CODEC.encode([None, *parts]).replace(b"\xc0", b"\xd4\x40\x04", 1)
    with pytest.raises(CodecError):
        CODEC.decode(payload)


@given(st.sampled_from([0, 1, 2]), st.data())
@settings(max_examples=300, print_blob=True, deadline=None)
def test_damaged_arrays_give_a_value_or_a_codec_error(which: int, data: st.DataObject) -> None:
    """numpy's own errors for odd dtypes never come through."""
    damaged = bytearray(CODEC.encode([np.zeros(2, STRUCTURED), np.ones(2, ODD), np.array([1], "M8[s]")][which]))
    start = data.draw(st.integers(0, len(damaged)))
    damaged[start : start + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    with suppress(CodecError):
        CODEC.decode(damaged)


def test_a_process_that_has_not_imported_numpy_is_told_to() -> None:
    """numpy is not imported by a payload: a CodecError says to do it, and afterwards the payload is read."""
    program = """if True:
        import sys
        from aiopg.codec import MsgpackCodec
        from aiopg.errors import CodecError
        codec = MsgpackCodec()
        for payload in map(bytes.fromhex, sys.argv[1:]):
            try:
                codec.decode(payload)
            except CodecError as error:
                assert error.type.startswith("numpy."), error
                assert "import numpy (pip install numpy)" in error.reason, error
            else:
                raise AssertionError
        assert "numpy" not in sys.modules
        import numpy
        assert codec.decode(bytes.fromhex(sys.argv[1])).tolist() == [1, 2]
    """
    payloads = [CODEC.encode(value).hex() for value in (np.array([1, 2]), np.float32(1))]
    subprocess.run([sys.executable, "-c", program, *payloads], check=True, timeout=30)


# ------------------------------------------------------------------------------------------------- copies

MIB = 2**20
FLOATS = np.arange(MIB, dtype="f8")


def test_elements_are_read_where_they_lie() -> None:
    """What is taken apart is the array's own memory, in rows or in columns, also of one that cannot be written."""
    locked = np.frombuffer(bytes(MIB), "<i4")
    for array in (FLOATS, FLOATS.reshape(1024, -1).T, FLOATS[1000:], np.zeros(MIB // 16, STRUCTURED), locked):
        parts = take_apart(array)
        assert parts is not None
        elements: Any = parts[-1]
        assert np.shares_memory(np.frombuffer(elements, "u1"), array)
        assert len(elements) == array.nbytes


@pytest.mark.parametrize(
    "obj", [FLOATS, {"a": [FLOATS, "x"], "b": (1, {2})}, [np.asfortranarray(FLOATS.reshape(8, -1))]]
)
def test_an_array_is_copied_once_on_each_side(obj: Any) -> None:
    """Into the payload, and out of it: what the calls allocate is the payload, and the array."""
    size = FLOATS.nbytes
    assert peak_of(lambda: CODEC.encode(obj)) < size + MIB
    assert peak_of(lambda: CODEC.encode_large(obj)) < MIB  # whose payload is not counted: it is mapped
    payload = CODEC.encode(obj)
    for form in (payload, bytearray(payload), memoryview(payload)):
        assert size < peak_of(lambda form=form: CODEC.decode(form)) < size + MIB  # type: ignore[misc]


@pytest.mark.parametrize("size", [0, 1, 255, 256, 4095, 4096, 65535, 65536, 300_000])
def test_an_array_of_any_size_is_written_as_the_packer_would(size: int) -> None:
    """Where its elements go round the packer, their head is the one that msgpack writes."""
    array = np.arange(size, dtype="u1")
    payload = CODEC.encode([array, 1])
    assert payload.endswith(CODEC.encode(array.tobytes()) + b"\x01")
    assert_same(CODEC.decode(payload)[0], array)  # type: ignore[index]
