"""The codecs: payloads of strangers, and values that are sent and come back.

The first byte of an input says which codec reads the rest, or that a value is made of it. What is registered is a spy;
what Python itself is asked to do meanwhile (run, import, open something) is heard by an audit hook.
"""

from __future__ import annotations

import ctypes
import sys
from collections import Counter
from collections.abc import Hashable, Iterable
from contextlib import suppress
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import attrs
import numpy
import pydantic

from aiopg.codec import JsonCodec, MsgpackCodec, TypeRegistry
from aiopg.codec._extensions import ENCODERS, Code
from aiopg.codec._torch import memory_function
from aiopg.errors import CodecError
from tests.codec.strategies import same
from tests.codec.types_for_tests import Colour, Frozen, Level, Mode, Peer, Point, Rights
from tests.fuzz.target import PACKER, Target
from tests.fuzz.targets.values import Maker

__all__ = ["CodecTarget"]


class Structure(ctypes.Structure):
    """Four bytes and a number, in sixteen."""

    _fields_ = [("key", ctypes.c_byte * 4), ("number", ctypes.c_int64)]


def _as_tuple(items: Any) -> tuple[Any, ...]:
    return tuple(items)


@attrs.define(eq=False)
class Attrs:
    """With a converter, a validator, and a field that `__init__` does not take."""

    parts: Any = attrs.field(converter=_as_tuple, validator=attrs.validators.max_len(3))
    inner: object = None
    late: str = attrs.field(init=False, default="", validator=attrs.validators.instance_of(str))


class Model(pydantic.BaseModel):
    """With a value that is checked, and one of any type."""

    __hash__ = object.__hash__
    port: int = pydantic.Field(ge=0, le=65535)
    inner: object = None
    many: list[int] = []


REGISTERED = (Colour, Level, Mode, Rights, Peer, Frozen, Point, Structure, Attrs, Model)
_PLAIN = frozenset({type(None), bool, int, float, str, bytes, list, tuple, dict, set, frozenset})
_ZONES = ("/zoneinfo", "tzdata")
_HARMLESS = frozenset(
    {
        "object.__getattr__",
        "object.__setattr__",
        "object.__delattr__",
        "builtins.id",
        "os.listdir",
        "ctypes.cdata/buffer",
    }
)
"""Events that the audit hook may hear while a payload is read: numpy, zoneinfo and structures of ctypes cause them."""

_JSON, _MADE = 6, 7
_FOREIGN = b"\x93\xd4\x40\x03\xd9\x25tests.fuzz.targets.codec.Unregistered\xc0"
_NO_DIGITS = dict.fromkeys(range(48, 58))
_heard: list[str] | None = None


def _hear(event: str, args: tuple[object, ...]) -> None:
    """Note what Python does while a payload is read, but for looking a time zone up."""
    if _heard is not None and event not in _HARMLESS and not any(zones in str(args) for zones in _ZONES):
        _heard.append(f"{event} {args!r:.200}")


class Spy:
    """A class that only its own `decode=` may make."""

    made = 0
    decoded = 0

    def __init__(self, content: object) -> None:
        type(self).made += 1
        self.content = content

    def __repr__(self) -> str:
        return f"Spy({self.content!r})"


class Unregistered(Peer):
    """A class of this module that no payload may name."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise SystemError("a class that is not registered was made")


def _decode_spy(content: object) -> Spy:
    Spy.decoded += 1
    if type(content) is not int:
        raise ValueError("no spy")
    return Spy(content)


def _registry() -> TypeRegistry:
    registry = TypeRegistry()
    for cls in REGISTERED:
        registry.register(cls)
    registry.register(Spy, name="spy", encode=lambda spy: spy.content, decode=_decode_spy)
    return registry


class CodecTarget(Target):
    """A payload is a value or a `CodecError`, whatever its bytes are, and runs nothing but what is registered."""

    name = "codec"
    tokens = (
        *(bytes((0xD4, Code.MARK, kind)) for kind in range(9)),
        *(bytes((0xC7, size, code)) for code in Code for size in (0, 1, 4)),
        *(b"\xd8" + bytes((code,)) for code in Code),
        *(b"\x93\xd4\x40\x03\xa3spy", b"\xdd\xff\xff\xff\xff", b"\xdd\0\0\x0f\xff", b"\xdf\0\0\0\x10", b"\xdc\x0f\xff"),
        *(b"\x91" * 130, b"\x81\x01" * 40, b"\xd7\xff", b"\xc7\x0c\xff", b"\xa2<i", b"\xa3<U4", b"\xa3|V0", b"\xa1C"),
        *(b"__reduce__", b"__class__", _FOREIGN, b"Europe/Berlin", b"../../etc/passwd"),
        *(b"\x86\xa5names", b"\xa7formats", b"\xa7offsets", b"\xa6titles", b"\xa8itemsize", b"\xa7aligned"),
        *(b"\x94\xd4\x40\x06\xa5uint8\x91", b"\x93\xd4\x40\x07\xa5dtype", b"bfloat16", b"complex128"),
        *(b"\xa6device", b"\xa4Size"),
        *(b"1E+999999999", b"sNaN123", b"::ffff:1.2.3.4%1", b"[[[[[[[[", b'{"":', b"1e999", b"\\ud800"),
    )  # fmt: skip

    def __init__(self) -> None:
        global _heard
        self._codec = MsgpackCodec(_registry())
        self._narrow = MsgpackCodec(_registry(), max_depth=4, max_containers=8)
        self._json = JsonCodec(max_depth=20)
        self._allowed = _PLAIN | ENCODERS.keys() | set(REGISTERED) | {Spy, numpy.ndarray}
        if (torch := sys.modules.get("torch")) is not None:  # another test has imported it
            self._allowed |= {torch.Tensor, torch.dtype, torch.Size, torch.device}
        # What is found out once is found out now, when nobody listens.
        with suppress(ZoneInfoNotFoundError):
            ZoneInfo("Nowhere")  # where tzdata is installed, zoneinfo imports what it looks into packages with
        memory_function()
        _heard = None
        if _hear not in _installed:
            _installed.append(_hear)
            sys.addaudithook(_hear)

    def seeds(self) -> list[bytes]:
        """Values of all kinds, encoded; values to be made; JSON."""
        values = [Maker(bytes((kind, *range(3, 40)))).value(3) for kind in range(64)]
        fields = numpy.dtype(
            {"names": ["a", "b"], "formats": ["<i4", ("<f8", (2,))], "offsets": [0, 8], "itemsize": 32}
        )
        values += [
            *(numpy.arange(6, dtype="<i2").reshape(2, 3), numpy.zeros((2, 2), order="F"), numpy.float32(1.5)),
            *(numpy.zeros(2, fields), numpy.array(["2020-01-01"], "M8[D]"), numpy.array([b"ab"], "S4")),
            *(
                Structure((ctypes.c_byte * 4)(1, 2, 3, 4), -5),
                Attrs((5,), [1]),
                Model(port=80, inner=Attrs([]), many=[1, 2]),
            ),
            *(Spy(5), [Spy(1), Peer("h", 1, Spy(2))], {"k": {1: (Point(1.0, 2.0), {3}, frozenset((4,)))}}),
        ]
        payloads = [bytes(self._codec.encode(value)) for value in values]
        payloads += [b"\x94\xd4\x40\x06\xa8bfloat16\x92\x01\x02\xc4\x04abcd", b"\x93\xd4\x40\x07\xa4Size\x92\x02\x03"]
        texts = [b'{"a":[1,2.5,null,true],"b":{"c":"\xc3\xa9\\u00e9"}}', b"[[[[]]]]", b'"x"', b"-0.0", b"1e5"]
        made = [bytes((_MADE, kind)) + bytes(range(60)) for kind in range(0, 64, 3)]
        return [b"\0" + p for p in payloads] + [b"\1" + p for p in payloads[::3]] + [b"\6" + t for t in texts] + made

    def large(self) -> list[bytes]:
        """Bombs: depth, lying lengths at every depth, as many containers as there are bytes."""
        bombs = [b"\x91" * 60_000, b"\xdd\0\0\xea\x60" * 1000 + bytes(50_000), b"\x90" * 60_000, b"\x81\xc0" * 30_000]
        bombs += [
            b"\xdc\xea\x60" + b"\x80" * 60_000,
            b"\xdc\xea\x60" + b"\x81\xc0\xc0" * 20_000,
            b"\xdf\0\0\x75\x30" * 200,
        ]
        return [bytes((way,)) + bomb for bomb in bombs for way in (0, 1)] + [
            b"\6" + b"[" * 60_000,
            b"\6" + b"1" * 60_000,
        ]

    def run(self, data: bytes) -> Iterable[Hashable]:
        """See the class."""
        if not data:
            return ()
        way = data[0] & 7
        if way == _MADE:
            return (self._check_made(data[1:]),)
        value, came = self._decoded(way, data[1:])
        if came is not None:
            return (came,)
        if way == _JSON:
            return ("json", *_look(value, _PLAIN))
        types = _look(value, self._allowed)
        self._check_stable(value)
        return types

    def parse(self, data: bytes) -> object:
        """Reading, and nothing else."""
        if data:
            self._decoded(data[0] & 7 if data[0] & 7 != _MADE else 0, data[1:])
        return None

    def memory(self, size: int) -> int:
        """What the codec promises."""
        return 16 * size + 16 * 1024 * 1024 + PACKER

    def _decoded(self, way: int, payload: bytes) -> tuple[object, str | None]:
        """The value; or, where it is none, what came instead."""
        global _heard
        codec = self._json if way == _JSON else self._narrow if way & 1 else self._codec
        Spy.made = Spy.decoded = 0
        heard: list[str] = []
        _heard = heard
        try:
            value = codec.decode(payload)
        except CodecError as error:
            of = error.type if error.reason.startswith("malformed") else ""
            return None, f"{of} {error.reason:.17}".translate(_NO_DIGITS)
        finally:
            _heard = None
            assert not heard, f"while {payload!r:.200} was read: {heard}"
            assert Spy.made <= Spy.decoded <= payload.count(b"spy")
        if way & 1:
            assert self._written(value) == self._written(self._codec.decode(payload))
        return value, None

    def _written(self, value: object) -> bytes | str:
        """What stands for a value that may not be equal to itself, and whose text may be none (numpy has such)."""
        try:
            return bytes(self._codec.encode(value))
        except CodecError as error:
            return str(error)

    def _check_stable(self, value: object) -> None:
        """What was read can be sent, and is then always written alike (the members of a set in any order)."""
        try:
            payload = self._codec.encode(value)
        except CodecError:
            return  # what is legal in parts may be none in one: the text of a path that is another one's
        again = self._codec.encode(self._codec.decode(payload))
        assert again == payload or Counter(again) == Counter(payload), f"{payload!r} becomes {again!r}"

    def _check_made(self, data: bytes) -> Hashable:
        """What is sent comes back."""
        value = Maker(data).value(4)
        try:
            payload = self._codec.encode(value)
        except CodecError as error:
            return f"made {error.reason:.20}"
        back = self._codec.decode(payload)
        # By its text where a part of it is not equal to itself.
        assert same(back, value) or repr(back) == repr(value), f"{value!r} comes back as {back!r}"
        assert repr(self._codec.decode_many(payload * 2, [len(payload)] * 2)) == repr([back, back])
        return f"made {type(value).__name__}"


_installed: list[Any] = []


def _look(value: object, allowed: Iterable[type]) -> list[Hashable]:
    """The types in a value: no others than these."""
    found: set[type] = set()
    left = [value]
    while left:
        one: Any = left.pop()
        found.add(type(one))
        if isinstance(one, dict):
            left += [*one, *one.values()]
        elif isinstance(one, list | tuple | set | frozenset):
            left += one
        elif isinstance(one, Peer | Frozen):
            left += [getattr(one, name) for name in type(one).__dataclass_fields__]
        elif isinstance(one, Attrs):
            left += [one.parts, one.inner, one.late]
        elif isinstance(one, Model):
            left += [one.port, one.inner, one.many]
    assert all(cls in allowed or issubclass(cls, numpy.generic) for cls in found), found
    return [cls.__name__ for cls in found]
