"""The default codec as its users see it."""

from __future__ import annotations

import threading
import tracemalloc
from collections import OrderedDict, defaultdict
from contextlib import suppress
from datetime import datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from ipaddress import ip_interface, ip_network
from pathlib import PureWindowsPath
from typing import Any
from zoneinfo import ZoneInfo

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiopg.codec import MsgpackCodec, TypeRegistry
from aiopg.codec._limits import DEFAULT_LIMITS
from aiopg.codec._writer import write
from aiopg.errors import CodecError

from .strategies import OBJECTS, same
from .types_for_tests import Colour, Level, Lock, Peer, Point, full_registry

REGISTRY = full_registry()
CODEC = MsgpackCodec(REGISTRY)


def refusal(obj: object, codec: MsgpackCodec = CODEC) -> CodecError:
    with pytest.raises(CodecError) as caught:
        codec.encode(obj)
    return caught.value


def nested(depth: int, wrap: Any = lambda inner: [inner]) -> object:
    value: object = 1
    for _ in range(depth):
        value = wrap(value)
    return value


@given(OBJECTS)
@settings(max_examples=300, print_blob=True, deadline=None)
def test_every_value_comes_back_as_it_was(obj: object) -> None:
    """Round trip is exact, types included, whatever is inside what."""
    assert same(CODEC.decode(CODEC.encode(obj)), obj)


@given(OBJECTS)
@settings(max_examples=200, print_blob=True, deadline=None)
def test_the_quick_and_the_careful_way_write_the_same_bytes(obj: object) -> None:
    """Which way an object takes is nobody's business."""
    assert CODEC.encode(obj) == write(obj, REGISTRY, DEFAULT_LIMITS)


@pytest.mark.parametrize(
    "value",
    [
        2**64, -(2**63) - 1, 10**5000, float("inf"), -0.0, "\ud800x", bytearray(b"x"), (), [()],
        {(): []}, {(1, frozenset({2})): None, None: 1, b"k": 2, True: 3}, complex(-0.0, float("inf")),
        Decimal("-0E+7"),
        Decimal("1e999999"), ip_network("2001:db8::/32"), ip_interface("10.0.0.1/8"),
        [bytearray(b"y"), "\udfff"],
        datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=5, microseconds=1), "odd")),
        Level.HIGH, Colour.BLUE, Point(1.0, -0.0), {"deep": [Peer("h", 1, {"x": (1, bytearray(b"z"))})]},
    ],
    ids=lambda value: repr(value)[:30] if not isinstance(value, int) or value < 2**64 else "large",
)  # fmt: skip
def test_the_odd_values_come_back(value: object) -> None:
    """The corners of each type survive."""
    assert same(CODEC.decode(CODEC.encode(value)), value)


@pytest.mark.parametrize(
    "value",
    [OrderedDict(a=1), defaultdict(list), type("Text", (str,), {})("x"), type("Number", (int,), {})(1),
     memoryview(b"x"), msgpack.ExtType(1, b"\x01"), msgpack.Timestamp(1), threading.Lock(), print,
     object(), Lock],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_would_change_its_type_is_refused(value: object) -> None:
    """No value becomes another type without a word, alone or inside of others."""
    for obj in (value, [value], {"k": (1, value)}):
        assert refusal(obj).type.endswith(type(value).__qualname__)


@pytest.mark.parametrize(
    ("obj", "path"),
    [
        ({"peers": [0, 1, 2, Peer("h", 1, print)]}, 'obj["peers"][3].load'),
        ((1, {2: {(3, "x"): print}}), "obj[1][2][(3, 'x')]"),
        ({1, print}, "obj{...}"),
        ({print: 1}, "obj.keys()"),
        ({'it\'s "so"': Point(1, print)}, 'obj["it\'s \\"so\\""].y'),  # type: ignore[arg-type]
        (print, "obj"),
    ],
)
def test_the_error_leads_to_the_value(obj: object, path: str) -> None:
    """The path can be pasted behind the object's name."""
    error = refusal(obj)
    assert (error.path, error.type) == (path, "builtin_function_or_method")


def test_the_error_says_how_to_register() -> None:
    """The advice is a line to copy, different for classes that need functions."""
    codec = MsgpackCodec(TypeRegistry())
    assert "aiopg.register_type(Peer)" in refusal(Peer("h"), codec).reason
    assert "aiopg.register_type(Colour)" in refusal({Colour.RED: 1}, codec).reason
    assert "aiopg.register_type(Level)" in refusal([Level.LOW], codec).reason
    assert "aiopg.register_type(Lock, encode=..., decode=...)" in refusal([Lock(1)], codec).reason
    assert refusal(Peer("h"), codec).type == f"{Peer.__module__}.Peer"


def test_an_object_in_itself_is_refused() -> None:
    """A cycle is a CodecError about depth, however many branches it has."""
    loop: list[object] = []
    loop += [loop, loop]
    peer = Peer("h")
    peer.load = {"me": (peer,)}
    for obj in (loop, peer):
        assert "max_depth" in refusal(obj).reason


WRAPS = {
    "list": lambda inner: [inner],
    "tuple": lambda inner: (inner,),
    "dict": lambda inner: {"k": inner},
    "frozenset": lambda inner: frozenset({inner}),
    "object": lambda inner: Peer("h", 1, inner),
    "careful": lambda inner: (inner, bytearray()),
    "list in object": lambda inner: Peer("h", 1, [inner]),
}


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
@pytest.mark.parametrize("depth", [10, 200])
def test_both_directions_have_one_depth_limit(wrap: Any, depth: int) -> None:
    """What may be sent may be received, and one level more may be neither."""
    codec, deeper = (MsgpackCodec(REGISTRY, max_depth=limit) for limit in (depth, min(depth + 5, 200)))
    fits = nested(depth // 2 if wrap is WRAPS["list in object"] else depth, wrap)
    assert codec.encode(codec.decode(codec.encode(fits))) == codec.encode(fits)
    assert "max_depth" in refusal(wrap(fits), codec).reason
    if depth < 200:
        with pytest.raises(CodecError, match="max_depth"):
            codec.decode(deeper.encode(wrap(fits)))


@pytest.mark.parametrize("head", [b"\x80", b"\x90", b"\x91\xd4\x40\x01"], ids=["dict", "list", "set"])
def test_a_small_payload_does_not_unfold_into_a_large_object(head: bytes) -> None:
    """Containers are counted before they are built."""
    count = 2**21
    payload = b"\xdd" + count.to_bytes(4, "big") + head * count
    tracemalloc.start()
    with pytest.raises(CodecError, match="max_containers"):
        CODEC.decode(payload)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * len(payload) + 2**20


@pytest.mark.parametrize("head", [b"\xdd\x00\x01\x00\x00", b"\xdc\xff\xff"])
def test_declared_lengths_reserve_no_memory(head: bytes) -> None:
    """Arrays that declare what the payload cannot hold are refused before room is made for them."""
    payload = head * 1000 + bytes(70_000)
    tracemalloc.start()
    with pytest.raises(CodecError):
        CODEC.decode(payload)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


def test_the_container_limit_holds_when_encoding() -> None:
    """What the receiver would refuse is refused by the sender, and the limit can be raised."""
    obj: list[list[int]] = [[] for _ in range(80_000)]
    assert "max_containers" in refusal(obj).reason
    wide = MsgpackCodec(max_containers=100_000)
    assert wide.decode(wide.encode(obj)) == obj


def test_bytes_that_look_like_containers_are_not_counted() -> None:
    """A large blob counts as one value, whatever is in it."""
    obj = [b"\x80\xdd\xff" * 400_000, "x" * 300, *range(1000)]
    assert CODEC.decode(CODEC.encode(obj)) == obj


@given(st.binary(max_size=200))
@settings(max_examples=500, print_blob=True, deadline=None)
def test_any_bytes_give_a_value_or_a_codec_error(payload: bytes) -> None:
    """No payload has another outcome."""
    with suppress(CodecError):
        CODEC.decode(payload)


@given(OBJECTS.map(CODEC.encode), st.data())
@settings(max_examples=500, print_blob=True, deadline=None)
def test_damaged_payloads_give_a_value_or_a_codec_error(payload: bytes, data: st.DataObject) -> None:
    """Nor has one that was right, before bytes were changed, put in or cut out."""
    damaged = bytearray(payload)
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(damaged)))
        end = start + data.draw(st.integers(0, 2))
        damaged[start:end] = data.draw(st.binary(max_size=2))
    with suppress(CodecError):
        CODEC.decode(damaged)


def test_truncated_and_trailing_bytes_are_refused() -> None:
    """A payload is one whole value."""
    payload = CODEC.encode({"a": (1, "x", datetime(2026, 1, 1)), "b": Peer("h")})  # noqa: DTZ001
    for size in range(len(payload)):
        with pytest.raises(CodecError):
            CODEC.decode(payload[:size])
    with pytest.raises(CodecError):
        CODEC.decode(payload + b"\xc0")


@pytest.mark.parametrize(
    "payload",
    [
        b"\xd4\x40\x00", b"\x92\x01\xd4\x40\x00", b"\x81\xd4\x40\x00\x01", b"\x92\xd4\x40\x00\xd4\x40\x00",
        b"\x91\xc7\x01\x40\x00", b"\x91\xd4\x40\x63",
        b"\x91\xd5\x40\x00\x00",
        b"\x92\xd4\x40\x01\x90", b"\x92\xd4\x40\x03\xa1x", b"\x93\xd4\x40\x03\x01\x02",
    ],
    ids=bytes.hex,
)  # fmt: skip
def test_misplaced_marks_are_refused(payload: bytes) -> None:
    """A mark is the first of an array or an error, and is never seen by the caller."""
    with pytest.raises(CodecError):
        CODEC.decode(payload)


def test_an_unknown_class_is_named() -> None:
    """The receiver learns which class it has to register."""
    with pytest.raises(CodecError, match="register_type") as caught:
        MsgpackCodec(TypeRegistry()).decode(CODEC.encode([Peer("h")]))
    assert caught.value.type == f"{Peer.__module__}.Peer"


def test_a_time_zone_of_another_kind_is_refused() -> None:
    """Only zones that the other side can look up are sent."""

    class Odd(tzinfo):
        def utcoffset(self, moment: datetime | None) -> timedelta:
            return timedelta(0)

        def tzname(self, moment: datetime | None) -> str:
            return "odd"

        dst = utcoffset

    assert "zoneinfo.ZoneInfo" in refusal({"at": datetime(2026, 1, 1, tzinfo=Odd())}).reason


def test_a_path_that_its_text_does_not_tell_is_refused() -> None:
    """Where pathlib writes half a UNC path as another path, it is not sent."""
    path = PureWindowsPath("//a/")
    if PureWindowsPath(str(path)) != path:  # Python 3.11
        assert "parts" in refusal([path]).reason
    else:
        assert CODEC.decode(CODEC.encode(path)) == path


def test_every_buffer_decodes_and_is_not_kept() -> None:
    """A payload may lie in a bytearray or memoryview, and may be overwritten afterwards."""
    payload = bytearray(CODEC.encode({"a": b"1234"}))
    for view in (payload, memoryview(payload), memoryview(b"__" + payload)[2:]):
        assert CODEC.decode(view) == {"a": b"1234"}
    value = CODEC.decode(memoryview(payload))
    payload[:] = bytes(len(payload))
    assert value == {"a": b"1234"}


def test_an_encode_function_may_encode() -> None:
    """The codec is re-entrant."""
    registry = TypeRegistry()
    codec = MsgpackCodec(registry)
    registry.register(
        Lock,
        encode=lambda lock: codec.encode((lock.number,)),
        decode=lambda data: Lock(*codec.decode(data)),  # type: ignore[misc]
    )
    locks = codec.decode(codec.encode([(1, 2), Lock(7), Lock(8), "end"]))
    assert isinstance(locks, list)
    assert [lock.number for lock in locks[1:3]] == [7, 8]


def test_threads_share_a_codec() -> None:
    """Encoding in several threads at once mixes nothing up."""
    wrong: list[object] = []

    def work(number: int) -> None:
        obj = {"n": number, "t": tuple(range(number, number + 50))}
        wrong.extend(obj for _ in range(200) if CODEC.decode(CODEC.encode(obj)) != obj)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
