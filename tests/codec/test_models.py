"""attrs classes and models of pydantic."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Generic, TypeVar

import attr
import attrs
import pydantic
import pytest

from aiopg.codec import MsgpackCodec, TypeRegistry
from aiopg.errors import CodecError

T = TypeVar("T")


# -------------------------------------------------------------------------------------------------- classes


def as_tuple(items: Any) -> tuple[Any, ...]:
    """For mypy, which takes the class for what it could make of anything."""
    return tuple(items)


@attrs.define
class Peer:
    host: str = attrs.field(validator=attrs.validators.instance_of(str))
    port: int = attrs.field(default=0, validator=attrs.validators.ge(0))
    _token: bytes = b""
    tags: Any = attrs.field(factory=tuple, converter=as_tuple, kw_only=True)


@attrs.frozen
class Digest:
    key: str
    length: int = attrs.field(init=False, validator=attrs.validators.ge(0))

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "length", len(self.key))


@attr.s(auto_attribs=True)
class Old:
    a: Any
    b: Any = None


class Address(pydantic.BaseModel):
    host: str
    port: Annotated[int, pydantic.Field(ge=1, le=65535)] = 1
    since: datetime | None = None


class Cluster(pydantic.BaseModel):
    name: str = pydantic.Field(alias="clusterName")
    peers: list[Address] = []
    by_rank: dict[int, Address] = {}
    digest: bytes = pydantic.Field(b"", exclude=True)
    _lock: object = pydantic.PrivateAttr(default_factory=object)


class Open(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    a: int


class Names(pydantic.RootModel[list[str]]):
    pass


class Box(pydantic.BaseModel, Generic[T]):
    content: T


class Checked(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True)
    low: int
    high: int

    @pydantic.model_validator(mode="after")
    def in_order(self) -> Checked:
        if self.low > self.high:
            raise ValueError("low is above high")
        return self


BOX = Box[int]
CLASSES = (Peer, Digest, Old, Address, Cluster, Open, Names, BOX, Checked)


def known(*classes: type) -> TypeRegistry:
    """A registry of these, or of all; the name on the wire is the class's."""
    registry = TypeRegistry()
    for cls in classes or CLASSES:
        registry.register(cls, name=cls.__name__)
    return registry


CODEC = MsgpackCodec(known())
ADDRESS = Address(host="h", port=80, since=datetime(2026, 1, 2, tzinfo=UTC))
SENT: list[Any] = [
    Peer("h", 80, b"secret", tags=("a", "b")), Peer("h"), Digest("key"), Old(1, "x"), Old(1, [Old(2)]), ADDRESS,
    Address(host="x"), Cluster(clusterName="c", peers=[ADDRESS], by_rank={3: Address(host="y")}, digest=b"\0"),
    Open.model_validate({"a": 1, "b": [2], "c": ADDRESS}),
    Names(["a", "b"]), BOX(content=5), Checked(low=1, high=2), Old(Peer("h"), ADDRESS),
]  # fmt: skip


class Sent:
    """What is sent under the name of a class and is none of it."""

    def __init__(self, content: object) -> None:
        self.content = content


def forged(name: str, content: object) -> bytes:
    """A payload that claims to be of a class."""
    registry = known(*(cls for cls in CLASSES if cls.__name__ != name))
    registry.register(Sent, name=name, encode=lambda sent: sent.content, decode=Sent)
    return MsgpackCodec(registry).encode(Sent(content))


def refusal(name: str, content: object) -> CodecError:
    """Why it is refused."""
    with pytest.raises(CodecError) as caught:
        CODEC.decode(forged(name, content))
    assert caught.value.type == name
    assert caught.value.path == "payload"
    return caught.value


# ---------------------------------------------------------------------------------------------------- tests


@pytest.mark.parametrize("value", SENT, ids=lambda value: type(value).__name__)
def test_instances_come_back_as_they_were(value: Any) -> None:
    """Every field, by its name and not by an alias, private ones of attrs and extra ones of pydantic too."""
    back: Any = CODEC.decode(CODEC.encode({"v": [value]}))["v"][0]  # type: ignore[index]
    assert type(back) is type(value)
    assert back == value or isinstance(value, Cluster)
    assert back is not value
    if isinstance(value, Cluster):  # private attributes are the receiver's own
        assert dict(back) == dict(value)
        assert type(back._lock) is object
    if isinstance(value, Open):
        assert back.model_extra == {"b": [2], "c": ADDRESS}


def test_a_value_in_a_field_has_its_path() -> None:
    """What cannot be sent is found in a model or attrs class as in any other."""
    with pytest.raises(CodecError) as caught:
        CODEC.encode([Old(1, b=[object()])])
    assert caught.value.path == "obj[0].b[0]"
    for cls, obj in ((Address, Cluster(clusterName="c", peers=[ADDRESS], digest=b"")), (Old, Old(1))):
        with pytest.raises(CodecError, match=rf"call aiopg\.register_type\({cls.__name__}\)"):
            MsgpackCodec(known(Cluster)).encode(obj)


@pytest.mark.parametrize("name", sorted({type(value).__name__ for value in SENT} - {"Names"}))
def test_other_fields_are_refused_by_name(name: str) -> None:
    """A peer with another version of the class is told which fields there are too many and too few."""
    value = next(value for value in SENT if type(value).__name__ == name)
    cls = type(value)
    names = [field.name for field in attrs.fields(cls)] if attrs.has(cls) else list(cls.model_fields)
    fields = {field: getattr(value, field) for field in names}
    assert CODEC.decode(forged(name, fields)) is not None
    first = names[0]
    assert f"fields missing: ['{first}']" in refusal(name, {key: fields[key] for key in names[1:]}).reason
    assert "fields missing" in refusal(name, {}).reason
    assert "fields unknown: ['1']" in refusal(name, fields | {1: 2}).reason
    for content in (None, [], [1], "x", list(fields.items())):
        assert "its fields are missing" in refusal(name, content).reason
    if cls is not Open:
        assert "fields unknown: ['later']" in refusal(name, fields | {"later": 1}).reason


def test_what_attrs_validates_is_validated() -> None:
    """By `__init__`, and by the validators of fields that `__init__` does not take."""
    peer = {"host": "h", "port": 1, "_token": b"", "tags": ("a",)}
    back: Any = CODEC.decode(forged("Peer", peer | {"tags": ["a", "b"]}))
    assert back.tags == ("a", "b")  # its converter makes sure of the type
    assert "'host' must be" in refusal("Peer", peer | {"host": b"h"}).reason
    assert "'port' must be" in refusal("Peer", peer | {"port": -1}).reason
    assert (
        "tuple" in refusal("Peer", peer | {"tags": 5}).reason
        or "iterable" in refusal("Peer", peer | {"tags": 5}).reason
    )
    sent: Any = CODEC.decode(forged("Digest", {"key": "abc", "length": 7}))
    assert (sent.key, sent.length) == ("abc", 7)
    assert "'length' must be" in refusal("Digest", {"key": "abc", "length": -1}).reason


def test_what_pydantic_validates_is_validated() -> None:
    """The error says where, and what is wrong; what was sent is not repeated."""
    address = {"host": "h", "port": 80, "since": None}
    reason = refusal("Address", address | {"port": "x" * 400, "host": 5}).reason
    assert ".port: Input should be a valid integer" in reason
    assert ".host: Input should be a valid string" in reason
    assert "xxx" not in reason
    assert ".port: Input should be less than or equal to 65535" in refusal("Address", address | {"port": 70000}).reason
    assert ".port: Input should be a valid integer" in refusal("Address", address | {"port": "80"}).reason
    assert "low is above high" in refusal("Checked", {"low": 2, "high": 1}).reason
    peers = {"name": "c", "peers": [ADDRESS, 5], "by_rank": {}, "digest": b""}
    assert ".peers[1]: Input should be" in refusal("Cluster", peers).reason
    assert '.by_rank["x"]' in refusal("Cluster", peers | {"peers": [], "by_rank": {"x": ADDRESS}}).reason
    assert "and 95 more" in refusal("Cluster", peers | {"peers": [5] * 100}).reason
    assert "[1]: Input should be a valid string" in refusal("Names", ["a", 1]).reason
    by_alias = {"clusterName": "c", "peers": [], "by_rank": {}, "digest": b""}
    assert "fields unknown: ['clusterName']" in refusal("Cluster", by_alias).reason


def test_pydantic_converts_nothing() -> None:
    """A Decimal is no int, which could take a billion digits; what is in a dict for a model is validated too."""
    huge = Decimal("1E+999999999")
    assert ".port: Input should be" in refusal("Address", {"host": "h", "port": huge, "since": None}).reason
    assert ".since: Input should be" in refusal("Address", {"host": "h", "port": 1, "since": 5}).reason
    cluster = {"name": "c", "peers": [{"host": "h", "port": huge}], "by_rank": {}, "digest": b""}
    assert '.peers[0]["port"]: Input should be' in refusal("Cluster", cluster).reason


def test_models_that_keep_what_they_would_refuse_need_functions() -> None:
    """It is found out when they are registered, and not by who receives them."""

    class Kept(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(use_enum_values=True)
        x: int

    with pytest.raises(ValueError, match=r"use_enum_values=True.*encode= and decode="):
        TypeRegistry().register(Kept)


def test_classes_with_an_init_of_their_own_need_functions() -> None:
    """What they need cannot be told from their fields."""

    @attrs.define
    class Mine:
        x: int

        def __init__(self, y: int) -> None:
            self.x = y

    with pytest.raises(ValueError, match="encode= and decode="):
        TypeRegistry().register(Mine)


def test_a_pydantic_dataclass_is_a_dataclass() -> None:
    """It is validated, and nothing is converted."""

    @pydantic.dataclasses.dataclass
    class Pair:
        x: int
        y: list[Address]
        z: int = dataclasses.field(init=False, default=3)

    registry = known(Address, Pair)
    codec = MsgpackCodec(registry)
    sent = Pair(1, [ADDRESS])
    sent.z = 5
    assert codec.decode(codec.encode(sent)) == sent
    for wrong in ("5", Decimal("1E+999999999"), 1.0):
        payload = codec.encode(Pair(1, [])).replace(b"\xa1x\x01", b"\xa1x" + codec.encode(wrong))
        with pytest.raises(CodecError, match=r"\.x: Input should be a valid integer"):
            codec.decode(payload)


def test_pydantic_and_attrs_are_not_imported_for_others() -> None:
    """Registering a dataclass or a structure brings in neither, nor does an object that cannot be sent."""
    program = """if True:
        import sys, ctypes
        from dataclasses import dataclass
        import aiopg

        @aiopg.register_type
        @dataclass
        class A:
            x: int

        @aiopg.register_type
        class S(ctypes.Structure):
            _fields_ = [("x", ctypes.c_int)]

        codec = aiopg.MsgpackCodec()
        codec.decode(codec.encode([A(1), S(2)]))
        for wrong in (lambda: codec.encode(object()), lambda: codec.decode(b"\\x93\\xd4\\x40\\x03\\xa1x\\x80")):
            try:
                wrong()
            except aiopg.CodecError:
                pass
        print([name for name in ("pydantic", "pydantic_core", "attr", "torch", "numpy") if name in sys.modules])
    """
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=30)
    assert (ran.stdout, ran.stderr) == ("[]\n", "")
