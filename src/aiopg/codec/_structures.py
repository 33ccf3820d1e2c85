"""ctypes structures and unions: sent as their bytes, where these mean something in another process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from aiopg.codec._conversion import Conversion
from aiopg.codec._path import full_name

__all__ = ["structure_conversion"]

_ADDRESS_CODES = frozenset("PzZOX")
"""ctypes' codes of void, char and wchar_t pointers, Python objects and BSTRs."""


def structure_conversion(cls: Any) -> Conversion | None:
    """The conversion for a class of `ctypes.Structure` or `ctypes.Union`; None for any other class.

    Raises:
        ValueError: it has no fields yet, or some that hold addresses.
    """
    ctypes = sys.modules.get("ctypes")
    if ctypes is None or not issubclass(cls, ctypes.Structure | ctypes.Union):
        return None
    if not any(_fields(cls)):
        raise ValueError(f"{full_name(cls)} has no _fields_: register it when they are set")
    for path, kind in _addresses(ctypes, cls, ""):
        raise ValueError(
            f"{full_name(cls)}{path} is a {full_name(kind)}, an address, which means nothing in another process: "
            "give encode= and decode=, which send what is there"
        )
    size: int = ctypes.sizeof(cls)

    def decode(content: object) -> object:
        if type(content) is not bytes or len(content) != size:
            found = f"{len(content)} bytes" if isinstance(content, bytes) else "no bytes"
            raise ValueError(f"it has {size} bytes here, and {found} were sent")
        instance: object = cls.from_buffer_copy(content)
        return instance

    return Conversion(lambda value: memoryview(value).tobytes(), decode, by_fields=False)


def _fields(cls: type) -> Iterator[tuple[Any, ...]]:
    """Its fields and those of its bases: name, type, and perhaps the width in bits."""
    for base in cls.__mro__:
        yield from base.__dict__.get("_fields_", ())


def _addresses(ctypes: Any, kind: Any, path: str) -> Iterator[tuple[str, type]]:
    """What of a type is an address: where it lies and its type."""
    if issubclass(kind, ctypes.Array):
        yield from _addresses(ctypes, kind._type_, f"{path}[]")
    elif issubclass(kind, ctypes.Structure | ctypes.Union):
        for name, part, *_ in _fields(kind):
            yield from _addresses(ctypes, part, f"{path}.{name}")
    # A simple type has a code; pointers have the type that they lead to, and functions nothing.
    elif not isinstance(code := getattr(kind, "_type_", None), str) or code in _ADDRESS_CODES:
        yield path, kind
