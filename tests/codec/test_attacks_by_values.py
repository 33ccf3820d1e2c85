"""Single values that were made to harm whoever reads them: extensions, registered classes, arrays, JSON."""

from __future__ import annotations

import enum
import struct
import time
from collections.abc import Callable, Hashable
from contextlib import suppress
from datetime import datetime
from decimal import Decimal

import numpy as np
import pytest

from aiopg.codec import JsonCodec, MsgpackCodec, TypeRegistry, _zones
from aiopg.codec._elements import EMPTY_ELEMENTS
from aiopg.codec._fields import FLAG_BITS
from aiopg.codec._limits import LONGEST_REASON
from aiopg.codec._numpy import DTYPE_DEPTH
from aiopg.errors import CodecError

from .strategies import extension
from .test_attacks import CODEC, MIB, array, peak_of, refusal
from .types_for_tests import Level, Point

# ---------------------------------------------------------------------------------------- single extensions


@pytest.mark.parametrize("code", [0, 13, 63, 65, 127, 128, 200])
@pytest.mark.parametrize("size", [0, 1, 16, 5000])
def test_extensions_of_other_codes_are_refused(code: int, size: int) -> None:
    """No type comes out that the format does not name."""
    assert refusal(extension(code, bytes(size))).reason.startswith("not part of this format")


@pytest.mark.parametrize("size", [*range(17), 100])
def test_timestamps_of_any_length_give_a_datetime_or_a_codec_error(size: int) -> None:
    """Extension -1 is msgpack's own: 4, 8 or 12 bytes."""
    for fill in (b"\x00", b"\x7f", b"\xff"):
        with suppress(CodecError):
            assert isinstance(CODEC.decode(extension(255, fill * size)), datetime)


def test_what_an_error_repeats_of_a_payload_is_short() -> None:
    """A log line stays a line, whatever name, zone, address or field was sent."""
    long = b"\xda\xff\xff" + b"x" * 65535
    registry = TypeRegistry()
    registry.register(Level, name="L")
    registry.register(Point, name="P")
    codec = MsgpackCodec(registry)
    head = struct.pack(">HBBBBBIB", 2026, 1, 1, 0, 0, 0, 0, 0)
    payloads = [
        b"\x93\xd4\x40\x03" + long + b"\xc0", b"\x93\xd4\x40\x03\xa1L" + long,
        b"\x93\xd4\x40\x03\xa1P\x81" + long + b"\xc0", extension(11, b"\x01" + b"x" * 65535),
        extension(5, head + b"\x04" + b"x" * 65535), b"\x95\xd4\x40\x04\xa3<f8" + array(b"\x01", 65) + b"\xa1C\xc4\x00",
    ]  # fmt: skip
    for payload in payloads:
        assert len(str(refusal(payload, codec))) < 2 * LONGEST_REASON + 50


def test_zones_are_read_from_disk_once() -> None:
    """A payload that goes round in time zones does not read a file for each datetime."""
    names = ["Europe/Berlin", "Asia/Tokyo", "Europe/Paris", "Asia/Kolkata", "Africa/Cairo", "Europe/Rome",
             "Europe/Madrid", "Asia/Seoul", "Asia/Dubai", "Europe/London", "Europe/Oslo", "America/Lima"]  # fmt: skip
    head = struct.pack(">HBBBBBIB", 2026, 1, 1, 0, 0, 0, 0, 0)
    before = _zones._zone_of_key.cache_info().misses
    entries = b"".join(b"\x01" + extension(5, head + b"\x04" + names[n % 12].encode()) for n in range(600))
    assert CODEC.decode(b"\xde\x02\x58" + entries)
    assert _zones._zone_of_key.cache_info().misses - before <= len(names)
    assert _zones._zone_of_key.cache_info().maxsize == _zones.ZONES


@pytest.mark.parametrize("key", ["../../etc/passwd", "/etc/passwd", "a/../b", "Europe", "posixrules\x00", "a" * 70, ""])
def test_zone_names_do_not_leave_the_zone_directories(key: str) -> None:
    """A zone is a plain relative name."""
    refusal(extension(5, struct.pack(">HBBBBBIB", 2026, 1, 1, 0, 0, 0, 0, 0) + b"\x04" + key.encode()))


def test_huge_numbers_are_read_in_linear_time() -> None:
    """A mebibyte of int or Decimal, also as a key; the exponent of a Decimal is bounded by Python."""
    for value in (int.from_bytes(b"\x7f" * MIB), Decimal("9" * MIB)):
        assert CODEC.decode(CODEC.encode({value: 1})) == {value: 1}
    refusal(extension(9, b"1e9999999999999999999999"))
    refusal(extension(8, b"\x7f" * 12))


# ------------------------------------------------------------------------------------------ registered classes


class Wide(enum.IntFlag):
    A = 1
    B = 2


@pytest.mark.parametrize("wrap", [lambda key: key, lambda key: (key,), lambda key: (1, frozenset([key]))])
def test_a_long_int_and_a_decimal_of_one_hash_are_not_compared(wrap: Callable[[object], Hashable]) -> None:
    """That takes the square of its length: 1 MB would take a minute and a half. By themselves both can be keys."""
    number = 1 << (8 * MIB - 2)
    keys = [wrap(number), wrap(Decimal(hash(number)))]
    assert hash(keys[0]) == hash(keys[1])
    for made in (b"\x82" + b"".join(CODEC.encode(key) + b"\xc0" for key in keys), members(*keys)):
        started = time.thread_time()
        assert "have one hash" in str(refusal(made))
        assert time.thread_time() - started < 1.0
    for honest in ({keys[0]: 1, wrap(Decimal(1)): 2, "text": 3}, {keys[0], wrap(-1), wrap(Decimal(7))}):
        assert CODEC.decode(CODEC.encode(honest)) == honest


def members(*values: object) -> bytes:
    """A set of these, which need not be different."""
    return bytes([0x91 + len(values)]) + b"\xd4\x40\x01" + b"".join(map(CODEC.encode, values))


def test_ints_that_lead_one_another_through_a_table_are_given_up() -> None:
    """A tenth of 44,000 keys walk over all others, one after the other: 0.4 s for 200 KB, and 16 times that for 800."""
    keys = ints_in_a_chain(16)
    pairs = b"\xdf" + struct.pack(">I", len(keys)) + b"".join(CODEC.encode(key) + b"\xc0" for key in keys)
    assert "too long to tell apart" in str(refusal(pairs))
    honest = dict.fromkeys(range(0, 2**20, 2**4))
    assert CODEC.decode(CODEC.encode(honest)) == honest


def test_a_mark_in_a_longer_form_is_no_mark() -> None:
    """Also where maps are large enough to be looked at: nothing of the reader's own gets into a value."""
    pairs = b"\xde\x10\x01" + b"".join(CODEC.encode(key) + b"\xc0" for key in range(4097))
    assert "not part of this format" in str(refusal(b"\x92\xc7\x01\x40\x01" + pairs))


def ints_in_a_chain(bits: int) -> list[int]:
    """Keys that fill places 0, 1, 6, 31, ... of a dict of 2**bits, and keys that come upon those and follow them."""
    size = 1 << bits
    chain, place = np.empty(int(size * 0.6), np.uint64), 0
    for number in range(len(chain)):
        chain[number] = place
        place = (5 * place + 1) % size
    taken = np.zeros(size, bool)
    taken[chain.astype(np.int64)] = True
    chance, found, wanted = np.random.default_rng(1), list[int](), 2 * size // 3 - len(chain)
    while len(found) < wanted:
        keys = chance.integers(2**40, 2**61 - 2, 1_000_000, dtype=np.uint64)
        rest, at = keys.copy(), keys % size
        for _ in range(14):
            stays = taken[at.astype(np.int64)]
            keys, rest = keys[stays], rest[stays] >> np.uint64(5)
            at = (at[stays] * np.uint64(5) + rest + np.uint64(1)) % size
        found += keys.tolist()
    return chain.tolist() + found[:wanted]


def test_the_value_of_a_flag_is_of_limited_length() -> None:
    """Python keeps each value that a Flag was made of, and makes a text of each bit: a huge one is refused."""
    registry = TypeRegistry()
    registry.register(Wide, name="W")
    codec = MsgpackCodec(registry)
    kept = Wide(2 ** (FLAG_BITS - 1) | 1)
    assert codec.decode(codec.encode(kept)) is kept
    before = len(Wide._value2member_map_)
    error = refusal(b"\x93\xd4\x40\x03\xa1W" + CODEC.encode(2**100_000), codec)
    assert (error.type, len(Wide._value2member_map_)) == ("W", before)


@pytest.mark.parametrize("content", [b"\x80", b"\x81\xa1x\x01", b"\x83\xa1x\x01\xa1y\x02\xa1z\x03", b"\x92\x01\x02",
                                     b"\x93\xd4\x40\x00\x01\x02", b"\x82\xa1x\x01\x01\x02", b"\xc0"])  # fmt: skip
def test_named_tuples_of_wrong_arity_are_refused(content: bytes) -> None:
    """Their fields come by name, all of them and no others."""
    registry = TypeRegistry()
    registry.register(Point, name="P")
    refusal(b"\x93\xd4\x40\x03\xa1P" + content, MsgpackCodec(registry))


def test_only_what_is_registered_is_ever_called() -> None:
    """The name on the wire is looked up in the registry and nowhere else."""
    for name in ("os.system", "builtins.eval", "builtins.object", "subprocess.Popen", f"{__name__}.Wide", ""):
        payload = b"\x93\xd4\x40\x03" + CODEC.encode(name) + b"\xa4true"
        error = refusal(payload)
        assert (error.type, "no class has that name here" in error.reason) == (name, True)


# -------------------------------------------------------------------------------------------------- numpy


def numpy_array(*parts: object) -> bytes:
    return CODEC.encode([None, *parts]).replace(b"\xc0", b"\xd4\x40\x04", 1)


@pytest.mark.parametrize("dtype", ["|S0", "<U0", "|V0", ["<f8", [0]]], ids=str)
@pytest.mark.parametrize("count", [EMPTY_ELEMENTS + 1, 10**9, 10**12, 2**62])
def test_arrays_of_elements_without_bytes_have_limited_sizes(dtype: object, count: int) -> None:
    """numpy makes a byte or four of an element of size 0: a 22-byte payload could ask for a terabyte."""
    payload = numpy_array(dtype, [count], "C", b"")
    assert peak_of(lambda: refusal(payload)) < MIB


def test_sizes_of_an_array_that_are_no_sizes_are_not_multiplied() -> None:
    """To multiply long ints takes the square of their length."""
    shape = b"\xdc\x00\x40" + CODEC.encode(1 << (8 * MIB // 64)) * 64
    made = b"\x95\xd4\x40\x04" + CODEC.encode("|u1") + shape + CODEC.encode("C") + CODEC.encode(b"")
    assert "no list of sizes" in str(refusal(made))


def test_empty_arrays_have_limited_sizes() -> None:
    """A size of 0 does not excuse the others; a large honest one is no trouble."""
    honest = CODEC.decode(numpy_array("<f4", [0, 151_936], "C", b""))
    assert honest.shape == (0, 151_936)  # type: ignore[attr-defined]
    for shape in ([0, 2**33], [2**20, 0, 2**20], [0, 2**62, 2**62]):
        refusal(numpy_array("<f8", shape, "C", b""))


@pytest.mark.parametrize(
    "changed",
    [{"titles": [(1, 2)]}, {"titles": [b"x"]}, {"titles": 1}, {"names": [b"a"]}, {"names": "a"}, {"offsets": [-8]},
     {"offsets": [2**40]}, {"itemsize": -8}, {"itemsize": 2**40}, {"aligned": {}}, {"aligned": "yes"},
     {"formats": ["|O"]}, {"formats": [["<f8", [2**40]]]}, {"formats": []}, {"extra": 1}],
    ids=str,
)  # fmt: skip
def test_structured_dtypes_are_what_numpy_writes(changed: dict[str, object]) -> None:
    """No objects, no titles but text, no field outside of the element."""
    dtype: dict[str, object] = {"names": ["a"], "formats": ["<f8"], "offsets": [0], "titles": [None]}
    dtype |= {"itemsize": 8, "aligned": False}
    assert CODEC.decode(numpy_array(dtype, [1], "C", bytes(8))) is not None
    refusal(numpy_array(dtype | changed, [1], "C", bytes(8)))


def test_dtypes_lie_in_one_another_to_a_limit() -> None:
    """`DTYPE_DEPTH`, which is well under max_depth."""
    dtype: object = "|u1"
    for _ in range(DTYPE_DEPTH):
        dtype = [dtype, [1]]
    assert CODEC.decode(numpy_array(dtype, [1], "C", b"x")) is not None
    assert "nested" in refusal(numpy_array([dtype, [1]], [1], "C", b"x")).reason


# ---------------------------------------------------------------------------------------------------- JSON


def test_a_json_number_that_is_too_large_is_no_inf() -> None:
    """What cannot be sent cannot be received."""
    with pytest.raises(CodecError, match="too large for a float"):
        JsonCodec().decode(b"[1e999]")


def test_a_json_text_without_end_is_read_once() -> None:
    """A string that is never closed is not tried again at each quote in it."""
    text = b"[" * 200_000 + b'"' + rb"\"" * 500_000
    for tail in (b"", b"\\"):
        with pytest.raises(CodecError):
            JsonCodec().decode(text + tail)
