"""Structures of ctypes, sent as their bytes."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from aiopg.codec import MsgpackCodec, TypeRegistry
from aiopg.errors import CodecError


class UniqueId(ctypes.Structure):
    """As vLLM declares the id of an NCCL communicator."""

    _fields_ = [("internal", ctypes.c_byte * 128)]


class Point(ctypes.Structure):
    _fields_ = [("x", ctypes.c_int32), ("y", ctypes.c_int32)]


class Number(ctypes.Union):
    _fields_ = [("whole", ctypes.c_int64), ("real", ctypes.c_double)]


class Record(ctypes.BigEndianStructure):
    _pack_ = 1
    _fields_ = [
        ("kind", ctypes.c_uint8),
        ("low", ctypes.c_uint16, 4),
        ("high", ctypes.c_uint16, 12),
        ("name", ctypes.c_char * 7),
    ]


class Corner(Point):
    _fields_ = [("z", ctypes.c_int32), ("numbers", Number * 3), ("on", ctypes.c_bool)]


def codec(*classes: type) -> MsgpackCodec:
    """One that knows these."""
    registry = TypeRegistry()
    for cls in classes:
        registry.register(cls)
    return MsgpackCodec(registry)


def test_a_structure_comes_back_as_itself() -> None:
    """Every byte of it, in memory of its own: nested, packed, inherited, a union, with bits and in a byte order."""
    unique = UniqueId.from_buffer_copy(bytes(range(128)))
    record = Record(7, 5, 4000, b"abc\0\xff\0z")
    corner = Corner(1, -2, 3, (Number * 3)(Number(-5), Number(real=1.5)), True)
    mine = codec(UniqueId, Point, Number, Record, Corner)
    for value in (unique, Point(-1, 2**31 - 1), Number(real=-0.0), record, corner):
        payload = mine.encode([value, 1])
        back: Any = mine.decode(payload)[0]  # type: ignore[index]
        assert type(back) is type(value)
        assert bytes(back) == bytes(value)
        assert ctypes.addressof(back) != ctypes.addressof(value)
        ctypes.memset(ctypes.addressof(back), 255, ctypes.sizeof(back))
        assert mine.encode([value, 1]) == payload
    again: Any = mine.decode(mine.encode(record))
    assert (again.kind, again.low, again.high, again.name) == (7, 5, 4000, b"abc")


class Opaque(ctypes.Structure):
    """Its fields were not set yet."""


class Inner(ctypes.Structure):
    _fields_ = [("handles", ctypes.c_void_p * 2)]


class Outer(ctypes.Structure):
    _fields_ = [("inner", Inner * 3), ("n", ctypes.c_int)]


class Text(ctypes.Structure):
    _fields_ = [("text", ctypes.c_char_p)]


class Leads(ctypes.Structure):
    _fields_ = [("next", ctypes.POINTER(Point))]


class Calls(ctypes.Union):
    _fields_ = [("f", ctypes.CFUNCTYPE(ctypes.c_int)), ("n", ctypes.c_long)]


class Holds(ctypes.Structure):
    _fields_ = [("o", ctypes.py_object)]


class Wide(ctypes.Structure):
    _fields_ = [("text", ctypes.c_wchar_p)]


class Below(Text):
    _fields_ = [("more", ctypes.c_int)]


@pytest.mark.parametrize(
    ("cls", "what"),
    [
        (Outer, r"Outer\.inner\[\]\.handles\[\] is a ctypes\.c_void_p, an address"),
        (Text, r"\.text is a ctypes\.c_char_p"),
        (Leads, r"\.next is a "),
        (Calls, r"\.f is a "),
        (Holds, r"\.o is a ctypes\.py_object"),
        (Wide, r"\.text is a ctypes\.c_wchar_p"),
        (Below, r"Below\.text is a"),
        (Opaque, "no _fields_"),
        (ctypes.Structure, "no _fields_"),
    ],
)
def test_a_structure_that_holds_addresses_is_refused_when_it_is_registered(cls: type, what: str) -> None:
    """They mean nothing in another process, or worse; the error says which field it is."""
    with pytest.raises(ValueError, match=what):
        codec(cls)


def test_a_program_can_send_what_its_addresses_lead_to() -> None:
    """With functions of its own, as the error says."""
    registry = TypeRegistry()
    registry.register(Text, encode=lambda value: value.text, decode=Text)
    mine = MsgpackCodec(registry)
    assert mine.decode(mine.encode(Text(b"abc"))).text == b"abc"  # type: ignore[attr-defined]


@pytest.mark.parametrize("content", [b"", bytes(7), bytes(9), "12345678", list(range(8)), None, bytearray(8), 8])
def test_only_as_many_bytes_as_it_has_make_a_structure(content: object) -> None:
    """Others are a CodecError: too few bytes are not filled up, and too many not cut off."""
    sender = TypeRegistry()
    sender.register(Exception, name="P", encode=lambda _: content, decode=Exception)
    registry = TypeRegistry()
    registry.register(Point, name="P")
    with pytest.raises(CodecError, match="it has 8 bytes here") as caught:
        MsgpackCodec(registry).decode(MsgpackCodec(sender).encode(Exception()))
    assert caught.value.type == "P"


def test_what_is_not_registered_is_refused_and_the_error_says_how() -> None:
    """Also where it could not be registered by itself."""
    for cls, call in ((Point, r"call aiopg\.register_type\(Point\)"), (Text, r"register_type\(Text, encode=")):
        with pytest.raises(CodecError, match=call):
            codec().encode(cls())


def test_a_class_of_its_own_size_alone_counts() -> None:
    """Not what a subclass says are its bytes, and no `__init__` is run on what came."""

    class Odd(Point):
        def __init__(self) -> None:
            raise AssertionError("made by its __init__")

        def __bytes__(self) -> bytes:
            return b"other"

    mine = codec(Odd)
    value = Odd.from_buffer_copy(bytes(range(8)))
    assert (mine.decode(mine.encode(value))).y == value.y  # type: ignore[attr-defined]
