"""Registering classes."""

from __future__ import annotations

import dataclasses
from dataclasses import InitVar, dataclass, make_dataclass

import pytest

from aiopg import codec as front
from aiopg.codec import MsgpackCodec, TypeRegistry, register_type
from aiopg.errors import CodecError

from .types_for_tests import Colour, Frozen, Level, Lock, Peer, Point, Rights, full_registry


def defined_anew() -> type:
    @dataclass
    class Cell:
        x: int = 0

    return Cell


def test_the_decorator_works_in_all_its_forms() -> None:
    """Plain, with keywords, and as a function; each returns the class itself."""
    registry = TypeRegistry()

    @registry.register
    @dataclass
    class One:
        x: int

    @registry.register(name="two")
    @dataclass
    class Two:
        x: int

    assert registry.register(One) is One
    codec = MsgpackCodec(registry)
    assert codec.decode(codec.encode([One(1), Two(2)])) == [One(1), Two(2)]
    assert b"two" in codec.encode(Two(2))


def test_the_shared_registry_is_the_default() -> None:
    """`register_type` serves every codec that has no registry of its own, and no other."""

    @register_type(name="tests.Shared")
    @dataclass
    class Shared:
        x: int

    payload = MsgpackCodec().encode(Shared(1))
    assert MsgpackCodec().decode(payload) == Shared(1)
    with pytest.raises(CodecError):
        MsgpackCodec(TypeRegistry()).decode(payload)


def test_a_taken_name_is_refused_with_both_owners() -> None:
    """Two classes never share a wire name."""
    registry = TypeRegistry()
    registry.register(Peer, name="x")
    with pytest.raises(ValueError, match=r"Peer.*Point"):
        registry.register(Point, name="x")
    with pytest.raises(ValueError, match="already"):
        registry.register(Peer, name="y")
    registry.register(Peer, name="x")


def test_a_class_defined_anew_takes_the_old_place() -> None:
    """A notebook cell may run twice."""
    registry = TypeRegistry()
    first, second = defined_anew(), defined_anew()
    codec = MsgpackCodec(registry)
    registry.register(first)
    payload = codec.encode(first(1))
    registry.register(second)
    assert codec.decode(payload) == second(1)
    with pytest.raises(CodecError):
        codec.encode(first(1))


def test_classes_that_do_not_state_their_fields_need_functions() -> None:
    """Both functions or none, and none only where they can be told from the class."""

    @dataclass
    class WithInitVar:
        x: InitVar[int]

    registry = TypeRegistry()
    for cls in (Lock, WithInitVar):
        with pytest.raises(ValueError, match="encode= and decode="):
            registry.register(cls)
    with pytest.raises(ValueError, match="both"):
        registry.register(Lock, encode=vars)
    with pytest.raises(ValueError, match="known to the codec"):
        registry.register(dict, encode=list, decode=dict)
    with pytest.raises(TypeError):
        registry.register(Peer("h"))  # type: ignore[call-overload]


def test_functions_of_its_own_carry_any_class() -> None:
    """`decode` gets what `encode` returned, and a subclass of a builtin keeps its type."""

    class Settings(dict[str, object]):
        pass

    registry = TypeRegistry()
    registry.register(Settings, encode=dict, decode=Settings)
    codec = MsgpackCodec(registry)
    back = codec.decode(codec.encode([Settings(a=(1, 2))]))
    assert back == [Settings(a=(1, 2))]
    assert isinstance(back, list)
    assert type(back[0]) is Settings


def test_every_field_has_the_value_that_was_sent() -> None:
    """Also those that `__post_init__` sets, in frozen classes with slots."""
    codec = MsgpackCodec(full_registry())
    value = Frozen((1, 2))
    object.__setattr__(value, "digest", 99)
    back = codec.decode(codec.encode(value))
    assert isinstance(back, Frozen)
    assert dataclasses.astuple(back) == ((1, 2), 99)


def test_other_fields_are_refused_before_the_class_runs() -> None:
    """A peer with another version of the class gets an error that names the fields."""
    made: list[object] = []

    @dataclass
    class Here:
        x: int

        def __post_init__(self) -> None:
            made.append(self)

    registry = TypeRegistry()
    registry.register(Here, name="v")
    for missing, unknown, fields in (("'x'", "'y'", ["y"]), ("", "'y'", ["x", "y"]), ("'x'", "", [])):
        there = TypeRegistry()
        cls = make_dataclass("There", fields)
        there.register(cls, name="v")
        payload = MsgpackCodec(there).encode(cls(*fields))
        with pytest.raises(CodecError, match=rf"missing: \[{missing}\]; fields unknown: \[{unknown}\]"):
            MsgpackCodec(registry).decode(payload)
    assert not made


def test_a_class_never_sees_a_mark() -> None:
    """What is wrong with the bytes is found before a class runs on them."""
    seen: list[object] = []
    registry = TypeRegistry()

    def decode(content: object) -> Lock:
        seen.append(content)
        return Lock(0)

    registry.register(Lock, name="l", encode=vars, decode=decode)
    codec = MsgpackCodec(registry)
    payload = codec.encode(Lock(1)).replace(b"\x01", b"\xd4\x40\x00")
    with pytest.raises(CodecError, match="mark"):
        codec.decode(payload)
    assert not seen


@pytest.mark.parametrize("error", [ValueError, KeyError, TypeError, ZeroDivisionError, AttributeError])
def test_a_decode_function_may_refuse(error: type[Exception]) -> None:
    """Its usual errors mean that the bytes are wrong."""

    def decode(content: object) -> Lock:
        raise error("no")

    registry = TypeRegistry()
    registry.register(Lock, encode=lambda lock: 1, decode=decode)
    codec = MsgpackCodec(registry)
    with pytest.raises(CodecError, match="no"):
        codec.decode(codec.encode([Lock(1)]))


def test_members_come_back_as_themselves() -> None:
    """Enum members are singletons; a Flag may be a combination; unknown names are refused."""
    codec = MsgpackCodec(full_registry())
    assert codec.decode(codec.encode([Level.LOW, Rights(3)])) == [Level.LOW, Rights.READ | Rights.WRITE]
    later, now = TypeRegistry(), TypeRegistry()
    later.register(Level, name="e")
    now.register(Rights, name="e")
    with pytest.raises(CodecError, match="no value"):
        MsgpackCodec(now).decode(MsgpackCodec(later).encode(Level.LOW))
    now = TypeRegistry()
    now.register(Colour, name="e")
    with pytest.raises(CodecError, match="no member 'LOW'"):
        MsgpackCodec(now).decode(MsgpackCodec(later).encode(Level.LOW))


def test_the_front_door_is_what_it_says() -> None:
    """Every public name exists and has a docstring."""
    assert all(getattr(front, name).__doc__ for name in front.__all__)
