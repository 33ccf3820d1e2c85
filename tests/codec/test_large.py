"""Large values go round the packer: what is written and read is the same."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from aiopg.codec import LARGE_BYTES, MsgpackCodec, TypeRegistry, is_large
from aiopg.codec._leaves import LEAF_CODE
from aiopg.errors import CodecError

MIB = 2**20
DATA = bytes(range(256)) * (5 * MIB // 256)
FLOATS = numpy.arange(MIB, dtype="f8")


class Held:
    """A registered class with something large in it."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Held) and self.data == other.data

    __hash__ = None  # type: ignore[assignment]


REGISTRY = TypeRegistry()
REGISTRY.register(Held, encode=lambda held: held.data, decode=Held)
CODEC = MsgpackCodec(REGISTRY)

OBJECTS: dict[str, Any] = {
    "bytes": DATA,
    "bytearray": bytearray(DATA),
    "array": FLOATS,
    "array of two orders": [FLOATS.reshape(1024, 1024), numpy.asfortranarray(FLOATS.reshape(1024, 1024))],
    "array with gaps": FLOATS.reshape(1024, 1024)[:, ::2],
    "array of 5 dimensions": FLOATS.reshape(2, 2, 2, 2, -1),
    "array of structures": numpy.ones(MIB // 2, dtype=[("a", "i4"), ("b", "f8")]),
    "array of times": numpy.arange(0, MIB, dtype="M8[s]"),
    "in containers": {"a": [DATA, (bytearray(DATA), {"x": FLOATS})], 1: DATA, "small": {1, 2}, "n": None},
    "as a key": {DATA: 1},
    "in a set": {DATA, b"x"},
    "in a class": [Held(DATA), DATA],
    "that looks like an array": [["C", DATA], [4, "<f8", [1], "C", DATA], ("F", DATA)],
    "text": "x" * 5 * MIB,
    "many": list(range(200_000)),
}


def same(a: Any, b: Any) -> bool:
    """Whether one came back as the other."""
    if type(a) is not type(b):
        return False
    if isinstance(a, numpy.ndarray):
        order = a.flags.f_contiguous == b.flags.f_contiguous
        return bool(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() and order)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@pytest.mark.parametrize("name", OBJECTS)
def test_what_is_written_round_the_packer_is_what_the_packer_writes(name: str) -> None:
    """And it comes back as it was, from bytes, a bytearray and a view."""
    obj = OBJECTS[name]
    payload = CODEC.encode_large(obj)
    plain = CODEC.encode(obj)
    assert payload == plain
    for given in (payload, plain, bytearray(plain), memoryview(plain)):
        back = CODEC.decode(given)
        assert same(obj, back)
        if isinstance(back, numpy.ndarray):
            assert back.flags.writeable
            assert not numpy.shares_memory(back, numpy.frombuffer(given, "u1"))


@pytest.mark.parametrize("at", ["before", "behind", "instead", "inside an array"])
def test_a_payload_cannot_ask_for_a_leaf(at: str) -> None:
    """The extension that stands for one while it is parsed is refused in what came."""
    leaf = b"\xc6" + len(DATA).to_bytes(4) + DATA
    forged = b"\xd6" + bytes([LEAF_CODE]) + bytes(4)
    array = b"\x95\xd4\x40\x04\xa3<f8\x91\xce" + (len(DATA) // 8).to_bytes(4) + b"\xa1C"
    payload = {
        "before": b"\x92" + forged + leaf,
        "behind": b"\x92" + leaf + forged,
        "instead": b"\x91" + forged + bytes(LARGE_BYTES),
        "inside an array": b"\x92" + array + leaf + forged,
    }[at]
    with pytest.raises(CodecError):
        CODEC.decode(payload)


@pytest.mark.parametrize("cut", [1, 5, 9, 100, 5 * MIB - 1])
def test_a_large_payload_that_is_cut_off_is_refused(cut: int) -> None:
    """Wherever, and so is one with something behind it."""
    payload = CODEC.encode({"a": DATA, "b": FLOATS})
    with pytest.raises(CodecError):
        CODEC.decode(payload[:-cut])
    with pytest.raises(CodecError):
        CODEC.decode(payload + b"\x00")


def test_an_array_that_claims_another_size_is_refused() -> None:
    """Before room is made for it."""
    elements = b"\xc6" + len(DATA).to_bytes(4) + DATA
    with pytest.raises(CodecError, match="does not come to"):
        CODEC.decode(b"\x95\xd4\x40\x04\xa3<f8\x91\xce\xff\xff\xff\xff\xa1C" + elements)


def test_what_cannot_be_sent_is_refused_with_its_place() -> None:
    """Beside a large value too."""
    with pytest.raises(CodecError, match=r'obj\["b"\]\[1\]'):
        CODEC.encode_large({"a": DATA, "b": [1, object()]})
    with pytest.raises(CodecError, match="Python objects"):
        CODEC.encode_large([DATA, numpy.array([object()] * LARGE_BYTES)])


def test_what_is_large_is_seen_at_a_glance() -> None:
    """At the top and one level down."""
    for large in (DATA, bytearray(DATA), FLOATS, [1, DATA], {"a": FLOATS}, (DATA[:MIB],) * 5, list(range(200_000))):
        assert is_large(large)
    for small in (None, 1, "x", b"x", [1, "x"], {"a": b"x" * MIB}, Held(DATA), [[DATA]], FLOATS[:10]):
        assert not is_large(small)
