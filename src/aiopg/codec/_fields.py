"""How classes that state their own fields or members are sent without being told."""

from __future__ import annotations

import dataclasses
import enum
import inspect
from collections.abc import Callable
from typing import Any

from aiopg.codec._conversion import Conversion, checked
from aiopg.codec._models import attrs_conversion, dataclass_maker, pydantic_conversion
from aiopg.codec._structures import structure_conversion

__all__ = ["FLAG_BITS", "conversion_for", "sent_by_itself"]

FLAG_BITS = 64
"""Bits that the value of a Flag may have where the members of its class have none beyond them."""

_MAKERS: tuple[Callable[[Any], Conversion | None], ...] = (structure_conversion, attrs_conversion, pydantic_conversion)


def sent_by_itself(cls: type) -> bool:
    """Whether the class can be registered without `encode=` and `decode=`."""
    try:
        return conversion_for(cls) is not None
    except ValueError:
        return False


def conversion_for(cls: type) -> Conversion | None:
    """The conversion for a class that states what it is made of; None for any other.

    It is one for an Enum, a NamedTuple, a dataclass or attrs class whose `__init__` takes its fields, a model of
    pydantic, a structure of ctypes.

    Raises:
        ValueError: it is such a class, and what it states cannot be sent as it is.
    """
    if issubclass(cls, enum.Flag):
        # Python makes a text of each bit of a value that is none, and keeps for good each one that is.
        bits = max([FLAG_BITS, *(member.value.bit_length() for member in cls.__members__.values())])
        return Conversion(lambda member: member.value, lambda value: _flag(cls, bits, value), by_fields=False)
    if issubclass(cls, enum.Enum):
        return Conversion(lambda member: member.name, lambda name: _member(cls, name), by_fields=False)
    if dataclasses.is_dataclass(cls):
        return _dataclass_conversion(cls)
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return _named_tuple_conversion(cls)
    for make in _MAKERS:
        if (conversion := make(cls)) is not None:
            return conversion
    return None


def _flag(cls: type[enum.Flag], bits: int, value: object) -> enum.Flag:
    if type(value) is not int or value.bit_length() > bits:
        raise ValueError(f"{value!r} is no value of this Flag")
    return cls(value)


def _member(cls: type[enum.Enum], name: object) -> enum.Enum:
    if type(name) is not str or name not in cls.__members__:
        raise ValueError(f"it has no member {name!r}; the two sides have different versions of it")
    return cls[name]


def _dataclass_conversion(cls: type) -> Conversion | None:
    names = [field.name for field in dataclasses.fields(cls)]
    init_names = {field.name for field in dataclasses.fields(cls) if field.init}
    if inspect.signature(cls).parameters.keys() != init_names:
        return None  # InitVar, or an __init__ of its own: what it needs cannot be told from the fields.
    # __init__ validates; but what __post_init__ computed on this side must give way to what was sent.
    settles = len(names) != len(init_names) or hasattr(cls, "__post_init__")

    make = dataclass_maker(cls)

    def encode(value: object) -> object:
        return {name: getattr(value, name) for name in names}

    def decode(content: object) -> object:
        values = checked(content, frozenset(names))
        instance = make(**{name: value for name, value in values.items() if name in init_names})
        if settles:
            for name, value in values.items():
                object.__setattr__(instance, name, value)
        return instance

    return Conversion(encode, decode, by_fields=True)


def _named_tuple_conversion(cls: Any) -> Conversion:
    names = frozenset(cls._fields)
    return Conversion(
        lambda value: dict(zip(cls._fields, value, strict=True)),
        lambda content: cls(**checked(content, names)),
        by_fields=True,
    )
