"""Payloads that were made to harm whoever reads them: each limit of the codec has a name, and holds."""

from __future__ import annotations

import struct
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiopg.codec import MsgpackCodec, TypeRegistry, _limits, _zones
from aiopg.codec._collisions import MAX_COLLISIONS
from aiopg.codec._elements import EMPTY_ELEMENTS
from aiopg.codec._extensions import Code
from aiopg.codec._fields import FLAG_BITS
from aiopg.codec._limits import DEFAULT_LIMITS, LONGEST_REASON, MEMBER_BYTES, VALUE_BYTES
from aiopg.codec._numpy import DTYPE_DEPTH
from aiopg.errors import CodecError

from .strategies import HOSTILE, extension
from .types_for_tests import Level, Point, full_registry

CODEC = MsgpackCodec(full_registry())
KIB, MIB = 2**10, 2**20
MODULUS = sys.hash_info.modulus


def array(item: bytes, count: int) -> bytes:
    return b"\xdd" + struct.pack(">I", count) + item * count


def refusal(payload: bytes, codec: MsgpackCodec = CODEC) -> CodecError:
    with pytest.raises(CodecError) as caught:
        codec.decode(payload)
    return caught.value


def peak_of(call: Callable[[], object]) -> int:
    """The most memory that the call had at once; it returns or raises CodecError."""
    tracemalloc.start()
    try:
        with suppress(CodecError):
            call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# ------------------------------------------------------------------------------------------------- memory

LITTLE = {
    "dict": b"\x80", "list": b"\x90", "dict of one": b"\x81\x01\xc0", "text": b"\xa2\xc4\x80", "long text": b"\xa2aa",
    "bytes": b"\xc4\x02ab", "int": b"\xcd\x12\x34", "float": b"\xca\x3f\x00\x00\x01", "large int": b"\xd4\x01\x01",
    "surrogate": b"\xd5\x02\xc4\x80", "bytearray": b"\xd4\x03a", "complex": b"\xd8\x04" + bytes(16),
    "date": b"\xd6\x06\x07\xe4\x01\x01", "timedelta": b"\xc7\x0c\x08" + bytes(12), "decimal": b"\xd4\x091",
    "uuid": b"\xd8\x0a" + bytes(16), "network": b"\xc7\x03\x0b\x03::", "interface": b"\xc7\x03\x0b\x05::",
    "IPv4 interface": b"\xd7\x0b\x041.1.1.1"[:10], "path": b"\xd4\x0c\x00", "Windows path": b"\xd4\x0c\x02",
    "tuple": b"\x92\xd4\x40\x00\x01", "set of 77": b"\xdc\x00\x4e\xd4\x40\x01" + bytes(range(77)),
    "set of 5": b"\x96\xd4\x40\x01" + bytes(range(5)),
    "frozenset of 19": b"\xdc\x00\x14\xd4\x40\x02" + bytes(range(19)),
    "set by another head": b"\xdc\x00\x4e\xc7\x01\x40\x01" + bytes(range(77)) + b"\x91\xd4\x40\x00",
    "dict of 43": b"\xde\x00\x2b" + b"".join(bytes([key, 0xC0]) for key in range(43)),
    "scalar": b"\x93\xd4\x40\x05\xa3|u1\xc4\x01a", "empty numpy array": b"\x95\xd4\x40\x04\xa3|u1\x91\x00\xa1C\xc4\x00",
    "enum": b"\x93\xd4\x40\x03\xa1L\xa3LOW", "named tuple": b"\x93\xd4\x40\x03\xa1P\x82\xa1x\x01\xa1y\x02",
}  # fmt: skip


@pytest.mark.parametrize("item", LITTLE.values(), ids=LITTLE)
def test_no_payload_takes_much_more_memory_than_its_size(item: bytes) -> None:
    """Whatever it repeats, it is refused, or takes at most 64 times its size and what the free allowances come to."""
    registry = TypeRegistry()
    registry.register(Level, name="L")
    registry.register(Point, name="P")
    codec = MsgpackCodec(registry, max_containers=500, max_memory=64 * KIB)
    payload = array(item, 1 + 256 * KIB // len(item))
    assert peak_of(lambda: codec.decode(payload)) < 64 * len(payload) + 500 * 232 + 64 * KIB


@pytest.mark.parametrize(
    "name", ["set of 5", "set of 77", "frozenset of 19", "interface", "path", "decimal", "set by another head"]
)
def test_dear_values_are_weighed_before_they_are_built(name: str) -> None:
    """Past max_memory a payload is refused by that name, and nothing was made of it."""
    item, codec = LITTLE[name], MsgpackCodec(max_memory=64 * KIB, max_containers=10**6)
    payload = array(item, 1 + 256 * KIB // len(item))
    peak = peak_of(lambda: refusal(payload, codec))
    assert "max_memory = 65536" in refusal(payload, codec).reason
    assert peak < 5 * len(payload)


@pytest.mark.parametrize(
    "payload",
    [b"\x80" * 8 * MIB, array(b"\x80", 8 * MIB), array(b"\x81\x01\x80", 2 * MIB)],
    ids=["bare", "list", "nested"],
)
def test_eight_mebibytes_of_dicts_are_refused_for_the_price_of_a_copy(payload: bytes) -> None:
    """The bomb that would come to 593 MiB comes to nothing."""
    assert peak_of(lambda: CODEC.decode(payload)) < 4 * len(payload)


def test_the_weights_are_what_values_take() -> None:
    """No dear value takes more than `VALUE_BYTES`, and no member of a set more than `MEMBER_BYTES`."""
    count = 500
    for code, values in {
        Code.DECIMAL: ["1", "-0E+7", "1e999999"],
        Code.ADDRESS: [
            "\x00" + "1.1.1.1",
            "\x01::",
            "\x02" + "1.1.1.1",
            "\x03::",
            "\x04" + "1.1.1.1",
            "\x05::",
        ],
        Code.PATH: ["\x00", "\x00a", "\x01/", "\x02a"],
    }.items():
        for text in values:
            payload = array(extension(code, text.encode()), count)
            assert peak_of(lambda payload=payload: CODEC.decode(payload)) < count * (VALUE_BYTES[code] + 64) + 8 * KIB  # type: ignore[misc]
    for size in range(5, 3000):
        assert sys.getsizeof(set(range(size))) <= sys.getsizeof(set()) + MEMBER_BYTES * size


@given(HOSTILE)
@settings(max_examples=500, print_blob=True, deadline=None)
def test_made_up_payloads_give_a_value_or_a_codec_error(payload: bytes) -> None:
    """Heads that lie, marks out of place, extensions of all codes: no other outcome, quick or careful."""
    for codec in (CODEC, MsgpackCodec(full_registry(), max_containers=3, max_memory=256)):
        with suppress(CodecError):
            codec.decode(payload)


@given(st.lists(HOSTILE, max_size=4))
@settings(max_examples=100, print_blob=True, deadline=None)
def test_many_made_up_payloads_give_values_or_a_codec_error(payloads: list[bytes]) -> None:
    """Nor when they are read together, as those of a collective are: it is what each of them says by itself."""
    try:
        apart: object = [CODEC.decode(payload) for payload in payloads]
    except CodecError as error:
        apart = str(error)
    try:
        together: object = CODEC.decode_many(b"".join(payloads), list(map(len, payloads)))
    except CodecError as error:
        together = str(error)
    assert repr(together) == repr(apart)


def test_what_one_rank_sends_does_not_reach_into_what_the_next_one_did() -> None:
    """One swallows its neighbour, and a second one makes up for it with two objects: no rank gets another's object."""
    honest, swallows, makes_up = b"\xa3yes", b"\x92\x01", b"\xa2no\xa2no"
    for payloads in ([swallows, honest, makes_up], [makes_up, swallows, honest], [honest, b"\x91", b"\x01\x02"]):
        with pytest.raises(CodecError):
            CODEC.decode_many(b"".join(payloads), list(map(len, payloads)))
    assert CODEC.decode_many(honest * 3, [4] * 3) == ["yes"] * 3  # and is of use after that


def test_max_memory_holds_in_both_directions() -> None:
    """What the receiver would refuse is refused by the sender, on both ways, and the limit can be raised."""
    objs: list[Any] = [
        [{1, number} for number in range(3000)], [ip_network("::/0")] * 1000, [Path("a")] * 1000, [Decimal(1)] * 8000,
        [ip_interface("1.1.1.1/8"), bytearray(b"x")] * 1000,
    ]  # fmt: skip
    narrow, wide = MsgpackCodec(max_memory=64 * KIB), MsgpackCodec(max_memory=4 * MIB)
    for obj in objs:
        with pytest.raises(CodecError, match="max_memory = 65536"):
            narrow.encode(obj)
        assert wide.decode(wide.encode(obj)) == obj
    with pytest.raises(CodecError, match="max_memory"):
        narrow.decode(wide.encode(objs[0]))


def test_honest_objects_pass() -> None:
    """The defaults leave room for large objects of any one kind."""
    numbers: list[Any] = [set(range(300_000)), {number: {number} for number in range(20_000)}, list(range(10**5))]
    for obj in (*numbers, [Decimal(number) / 100 for number in range(100_000)], [ip_network("10.0.0.0/8")] * 40_000):
        assert CODEC.decode(CODEC.encode(obj)) == obj


@given(st.binary(max_size=60), st.sampled_from([9, 11, 12, 64]), st.integers(1, 5))
@settings(max_examples=200, print_blob=True, deadline=None)
def test_no_dear_value_hides_from_the_bounds(noise: bytes, code: int, kind: int) -> None:
    """The quick bound is never below what the scan finds, whatever bytes lie round a value."""
    value = b"\x91\xd4\x40\x01" if code == 64 else extension(code, bytes([kind]) * kind)
    payload = b"\x92\xc4" + bytes([len(noise)]) + noise + value
    scan = _limits._Scan(payload)
    scan.run(steps=len(payload), most=len(payload), room=2**62)
    assert scan.position == len(payload)
    assert scan.memory == (MEMBER_BYTES if code == 64 else VALUE_BYTES[code])
    assert code == 64 or len(_limits._DEAR.findall(payload)) >= 1


# --------------------------------------------------------------------------------------------------- depth

OPENERS = {"list": b"\x91", "map": b"\x81\x01", "wide list": b"\xdd\x00\x00\x00\x01", "tuple": b"\x92\xd4\x40\x00",
           "frozenset": b"\x92\xd4\x40\x02", "key": b"\x81", "object": b"\x93\xd4\x40\x03\xa1P"}  # fmt: skip


@pytest.mark.parametrize("opener", OPENERS.values(), ids=OPENERS)
@pytest.mark.parametrize("depth", [129, 1023, 1025, 100_000])
@pytest.mark.parametrize("end", [b"\xc0", b"", b"\xc5\x10\x00" + bytes(4096)], ids=["nil", "cut off", "4 KiB"])
def test_depth_is_refused_however_great(opener: bytes, depth: int, end: bytes) -> None:
    """One level over max_depth or 100,000: a CodecError, and never a crash of the stack."""
    assert refusal(opener * depth + end).path == "payload"


def test_a_stack_that_is_nearly_full_gives_a_codec_error() -> None:
    """A payload within max_depth whose keys take more of Python's stack than is left."""

    @dataclass(frozen=True)
    class Nest:
        inside: object

    registry = TypeRegistry()
    registry.register(Nest)
    codec = MsgpackCodec(registry, max_depth=200)
    value: object = 1
    for _ in range(90):
        value = Nest((value,))
    payload = codec.encode({value})

    def below(frames: int) -> object:
        return below(frames - 1) if frames else codec.decode(payload)

    reasons: list[str] = []
    for frames in range(0, sys.getrecursionlimit(), 50):
        try:
            below(frames)
        except CodecError as error:
            reasons.append(error.reason)
        except RecursionError:
            break  # even a small payload would have found no room
    assert reasons
    assert all("recursion" in reason for reason in reasons)


# ---------------------------------------------------------------------------------------------- collisions


def same_hash(kind: str, index: int) -> bytes:
    """Values that differ and have one hash, which anybody can compute."""
    if kind == "int":
        return CODEC.encode(MODULUS * (index + 16))
    if kind == "uuid":
        return b"\xd8\x0a" + (MODULUS * (index + 16)).to_bytes(16)
    if kind == "complex":
        return b"\xd8\x04" + struct.pack(">dd", float(10**12 - sys.hash_info.imag * index), float(index))
    if kind == "decimal":
        return CODEC.encode(Decimal(MODULUS * (index + 16)))
    return b"\x92\xd4\x40\x00" + CODEC.encode(MODULUS * (index + 16))


@pytest.mark.parametrize("kind", ["int", "uuid", "complex", "decimal", "tuple"])
@pytest.mark.parametrize("padding", [0, 70_000], ids=["counted", "watched"])
def test_keys_that_were_chosen_to_collide_are_refused(kind: str, padding: int) -> None:
    """A dict or set of n keys with one hash takes n * n steps: more than MAX_COLLISIONS are refused."""
    keys = [same_hash(kind, index) for index in range(1000)]
    assert len({hash(CODEC.decode(key)) for key in keys}) == 1
    blob = b"\xc6" + struct.pack(">I", padding) + bytes(padding)
    maps = b"\xde" + struct.pack(">H", len(keys)) + b"".join(key + b"\xc0" for key in keys)
    members = b"\xdc" + struct.pack(">H", len(keys) + 1) + b"\xd4\x40\x01" + b"".join(keys)
    for payload in (maps, members, members.replace(b"\x40\x01", b"\x40\x02", 1)):
        assert f"more than {MAX_COLLISIONS} of 1000 keys have one hash" in refusal(b"\x92" + blob + payload).reason


def test_a_few_collisions_are_nothing() -> None:
    """Keys with one hash are refused for their number, not for being there."""
    few = {MODULUS * (index + 16): "x" * 100 for index in range(MAX_COLLISIONS)}
    assert CODEC.decode(CODEC.encode(few)) == few
    assert CODEC.decode(CODEC.encode(set(few))) == set(few)


@pytest.mark.parametrize("kinds", [int, float, str, "mixed"])
def test_large_honest_dicts_and_sets_pass_the_count(kinds: Any) -> None:
    """Of each kind of key, in payloads that are counted and in those that are watched."""
    for count in (300, 30_000):
        keys = [kinds(n) for n in range(count)] if kinds != "mixed" else [n if n % 2 else (n, -n) for n in range(count)]
        obj = [dict.fromkeys(keys, 2**70), set(keys)]
        assert CODEC.decode(CODEC.encode(obj)) == obj


def test_64_bit_numbers_do_not_come_to_many_collisions() -> None:
    """Why msgpack's own ints and floats are not counted: there are too few of them for any one hash."""
    ints = {h + MODULUS * k for h in (0, 1, 2**60) for k in range(9)}
    assert max(sum(hash(n) == h for n in ints if n < 2**64) for h in (0, 1, 2**60)) <= 9
    floats = [2.0**power for power in range(-1074, 1024)]
    assert max(sum(hash(x) == 1 << bit for x in floats) for bit in range(61)) < MAX_COLLISIONS


def test_of_a_key_that_comes_twice_the_last_value_counts() -> None:
    """Small or large, counted or not."""
    for padding in (b"\xa0", b"\xda\x0f\xff" + b"x" * 4095):
        twice = b"\x92" + padding + b"\x83\x01\x02\x01\x03\x01\x04"
        assert CODEC.decode(twice)[1] == {1: 4}  # type: ignore[index]


@pytest.mark.parametrize("key", [b"\x90", b"\x80", b"\xc7\x00\x03", b"\x91\xd4\x40\x01", b"\xc7\x04\x09sNaN"])
@pytest.mark.parametrize("padding", [b"\xa0", b"\xda\x0f\xff" + b"x" * 4095], ids=["small", "large"])
def test_keys_without_a_hash_are_refused(key: bytes, padding: bytes) -> None:
    """As keys of a dict and as members of a set."""
    refusal(b"\x92" + padding + b"\x81" + key + b"\xc0")
    refusal(b"\x92" + padding + b"\x92\xd4\x40\x01" + key)


# --------------------------------------------------------------------------------------------------- table


def test_the_table_of_limits_says_what_holds() -> None:
    """Every limit is in the table with its default."""
    table = (_limits.__doc__ or "").split("\n===")[0:4]
    text = " ".join("".join(table).split())
    for name, value in {
        "max_depth": DEFAULT_LIMITS.max_depth, "max_containers": DEFAULT_LIMITS.max_containers,
        "max_memory": f"{DEFAULT_LIMITS.max_memory // MIB} MiB", "MAX_COLLISIONS": MAX_COLLISIONS,
        "EMPTY_ELEMENTS": EMPTY_ELEMENTS, "DTYPE_DEPTH": DTYPE_DEPTH, "FLAG_BITS": FLAG_BITS, "ZONES": _zones.ZONES,
        "LONGEST_REASON": LONGEST_REASON,
    }.items():  # fmt: skip
        assert f"{name} {value}" in text
