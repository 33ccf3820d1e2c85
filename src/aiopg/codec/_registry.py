"""Which classes of the program can be sent, under which name, and how."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from aiopg.codec._extensions import ENCODERS
from aiopg.codec._fields import conversion_for
from aiopg.codec._path import full_name
from aiopg.codec._survey import CONTAINERS

__all__ = ["Entry", "TypeRegistry", "register_type", "shared_registry"]

_T = TypeVar("_T")
_BUILT_IN = frozenset({type(None), bool, float, str, bytes, object, *CONTAINERS, *ENCODERS})


@dataclass(frozen=True, slots=True)
class Entry:
    """A registered class.

    Attributes:
        cls: the class.
        name: its name on the wire.
        encode: makes what is sent of an instance.
        decode: makes an instance of what was sent.
        by_fields: `encode` returns a dict of fields, and the path of a value in it is `.field`.
    """

    cls: type
    name: str
    encode: Callable[[Any], object]
    decode: Callable[[Any], object]
    by_fields: bool


class TypeRegistry:
    """Classes that a `MsgpackCodec` sends beside the types it knows.

    Only exact classes count: an instance of a subclass needs the subclass registered. Safe to use from
    several threads.
    """

    def __init__(self) -> None:
        self._by_class: dict[type, Entry] = {}
        self._by_name: dict[str, Entry] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(sorted(self._by_name))})"

    @overload
    def register(
        self,
        cls: type[_T],
        *,
        name: str | None = None,
        encode: Callable[[_T], object] | None = None,
        decode: Callable[[Any], _T] | None = None,
    ) -> type[_T]: ...

    @overload
    def register(
        self,
        cls: None = None,
        *,
        name: str | None = None,
        encode: Callable[[Any], object] | None = None,
        decode: Callable[[Any], Any] | None = None,
    ) -> Callable[[type[_T]], type[_T]]: ...

    def register(
        self,
        cls: type[_T] | None = None,
        *,
        name: str | None = None,
        encode: Callable[[Any], object] | None = None,
        decode: Callable[[Any], Any] | None = None,
    ) -> type[_T] | Callable[[type[_T]], type[_T]]:
        """Let instances of a class be sent; also a decorator, plain or with keywords.

        A dataclass and a NamedTuple are sent as their fields, by name, and rebuilt with the class's own
        `__init__`, after which every field has the value that was sent. Enum members are sent by name,
        those of a Flag by value.

        An attrs class and a model of pydantic 2 are sent as their fields, by name, and made anew with `__init__` or
        `model_validate`: what their converters and validators make of what was sent is what the fields have. A
        model's fields may be values that are registered themselves; its private attributes begin anew. A
        structure or union of ctypes is sent as its bytes; both sides must have the same layout of it.

        Both sides must have registered the class under the same name. Registering it again under its name
        replaces `encode` and `decode`; a class that was defined anew (same module, same qualified name) takes
        the place of the old one.

        Args:
            cls: the class.
            name: its name on the wire; by default its module and qualified name.
            encode: takes an instance and returns what is to be sent of it: anything that can be sent.
            decode: takes what `encode` returned and returns an instance. It is called with whatever a peer chose
                to send. An ArithmeticError, AttributeError, LookupError, RecursionError, TypeError or ValueError
                from it becomes a CodecError; others pass.

        Returns:
            The class, unchanged; without `cls`, a decorator.

        Raises:
            TypeError: `cls` is no class.
            ValueError: the name belongs to another class, or the class to another name; the class is one that
                the codec knows; it needs both `encode` and `decode`; or it is a structure that holds addresses.
        """
        if cls is None:
            return lambda decorated: self.register(decorated, name=name, encode=encode, decode=decode)
        if not isinstance(cls, type):
            raise TypeError(f"only a class can be registered, not {cls!r}")
        if cls in _BUILT_IN:
            raise ValueError(f"{full_name(cls)} is known to the codec and cannot be registered")
        wire_name = f"{cls.__module__}.{cls.__qualname__}" if name is None else name
        self._add(_entry(cls, wire_name, encode, decode))
        return cls

    def _add(self, entry: Entry) -> None:
        with self._lock:
            holder = self._by_name.get(entry.name)
            if holder is not None and holder.cls is not entry.cls:
                if _home(holder.cls) != _home(entry.cls):
                    raise ValueError(
                        f"the name {entry.name!r} belongs to {holder.cls!r}; give {entry.cls!r} another name="
                    )
                del self._by_class[holder.cls]
            mine = self._by_class.get(entry.cls)
            if mine is not None and mine.name != entry.name:
                raise ValueError(f"{entry.cls!r} is {mine.name!r} already and cannot be {entry.name!r} too")
            self._by_class[entry.cls] = self._by_name[entry.name] = entry

    def of_class(self, cls: type) -> Entry | None:
        """The entry of exactly this class, if it is registered."""
        return self._by_class.get(cls)

    def of_name(self, name: str) -> Entry | None:
        """The entry under this wire name, if there is one."""
        return self._by_name.get(name)


def _home(cls: type) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__


def _entry(cls: type, name: str, encode: Callable[[Any], object] | None, decode: Callable[[Any], Any] | None) -> Entry:
    if encode is not None and decode is not None:
        return Entry(cls, name, encode, decode, by_fields=False)
    if encode is not None or decode is not None:
        raise ValueError(f"{full_name(cls)} needs both encode= and decode=, or neither")
    conversion = conversion_for(cls)
    if conversion is None:
        raise ValueError(
            f"{full_name(cls)} is no Enum, NamedTuple, structure of ctypes or model of pydantic 2, and no dataclass or "
            "attrs class whose __init__ takes its fields: give encode= and decode="
        )
    return Entry(cls, name, conversion.encode, conversion.decode, conversion.by_fields)


shared_registry = TypeRegistry()
"""What `register_type` fills, and what a codec uses that is given no registry of its own."""

register_type = shared_registry.register
