"""The careful way to encode: value by value, with the path at hand.

`MsgpackCodec` comes here with what the quick way could not do or must not do, which is either an object
with something in it that the packer does not tell from another type, or one that cannot be sent. Both ways
write the same bytes.
"""

from __future__ import annotations

from typing import Any

from msgpack import Packer

from aiopg.codec._elements import Elements, bin_head
from aiopg.codec._extensions import ENCODERS, encode_text
from aiopg.codec._fields import sent_by_itself
from aiopg.codec._foreign import take_apart
from aiopg.codec._limits import Limits
from aiopg.codec._marks import MARKS, Kind
from aiopg.codec._path import ROOT, Step, full_name, how_to_register
from aiopg.codec._registry import Entry, TypeRegistry
from aiopg.codec._survey import CONTAINERS

__all__ = ["write"]

_NATIVE = frozenset({type(None), bool, int, float, bytes})
_MARK_OF: dict[type, Kind] = {tuple: Kind.TUPLE, set: Kind.SET, frozenset: Kind.FROZENSET}


def write(obj: object, registry: TypeRegistry, limits: Limits) -> bytes:
    """The payload of an object.

    Raises:
        CodecError: something in it has no encoding, or lies too deep; with the path to it.
    """
    writer = _Writer(registry, limits)
    writer.value(obj, ROOT, 1)
    return writer.payload()


class _Writer:
    def __init__(self, registry: TypeRegistry, limits: Limits) -> None:
        self._registry = registry
        self._limits = limits
        self.packer = Packer(strict_types=True, autoreset=False, default=ENCODERS[int])
        # What was packed, and elements that need not pass through the packer: they are copied once, at the end.
        self._pieces: list[Elements] = []

    def payload(self) -> bytes:
        """All that was written."""
        if not self._pieces:
            packed: bytes = self.packer.bytes()
            return packed
        return b"".join([*(piece[:] for piece in self._pieces), self.packer.bytes()])

    def value(self, value: Any, path: Step, depth: int) -> None:
        """Write one value; `depth` is what a container here would have."""
        kind = type(value)
        if kind in _NATIVE:
            self.packer.pack(value)
        elif kind is str:
            self._text(value)
        elif kind in CONTAINERS:
            self._container(value, path, depth)
        elif (encoder := ENCODERS.get(kind)) is not None:
            try:
                self.packer.pack(encoder(value))
            except ValueError as error:
                raise path.refuse(value, str(error)) from error
        elif (entry := self._registry.of_class(kind)) is not None:
            self._registered(entry, value, path, depth)
        else:
            self._foreign(value, path)

    def _text(self, value: str) -> None:
        # Found out beforehand: a packer that raises forgets what it holds.
        try:
            value.encode()
        except UnicodeEncodeError:
            self.packer.pack(encode_text(value))
        else:
            self.packer.pack(value)

    def _container(self, value: Any, path: Step, depth: int) -> None:
        if depth > self._limits.max_depth:
            raise path.refuse(value, self._limits.too_deep())
        kind = type(value)
        if kind is dict:
            self._map(value, path, depth)
            return
        if kind is list:
            if _NATIVE.issuperset(map(type, value)):
                self.packer.pack(value)
                return
            self.packer.pack_array_header(len(value))
        else:
            self.packer.pack_array_header(len(value) + 1)
            self.packer.pack(MARKS[_MARK_OF[kind]])
        ordered = kind in (list, tuple)
        for index, item in enumerate(value):
            self.value(item, path.item(index) if ordered else path.member(), depth + 1)

    def _map(self, value: dict[object, object], path: Step, depth: int) -> None:
        self.packer.pack_map_header(len(value))
        for key, item in value.items():
            self.value(key, path.keys(), depth + 1)
            self.value(item, path.item(key), depth + 1)

    def _registered(self, entry: Entry, value: object, path: Step, depth: int) -> None:
        if depth > self._limits.max_depth:
            raise path.refuse(value, self._limits.too_deep())
        self.packer.pack_array_header(3)
        self.packer.pack(MARKS[Kind.OBJECT])
        self._text(entry.name)
        content = entry.encode(value)
        if entry.by_fields and isinstance(content, dict):
            self.packer.pack_map_header(len(content))
            for name, item in content.items():
                self._text(name)
                self.value(item, path.field(name), depth + 1)
        else:
            self.value(content, path.encoded(), depth + 1)

    def _foreign(self, value: object, path: Step) -> None:
        try:
            parts = take_apart(value)
        except ValueError as error:
            raise path.refuse(value, str(error)) from error
        if parts is None:
            raise path.refuse(value, _advice(type(value)))
        elements: Any = parts.pop()
        self.packer.pack_array_header(len(parts) + 1)
        for part in parts:
            self.packer.pack(part)
        if isinstance(elements, bytes | list | str):
            self.packer.pack(elements)
        elif len(elements) < 2**32:
            self._pieces += [self.packer.bytes() + bin_head(len(elements)), elements]
            self.packer.reset()
        else:
            raise path.refuse(value, "its elements come to 4 GiB or more; send it in parts")


def _advice(cls: type) -> str:
    by_fields = sent_by_itself(cls)
    call = how_to_register(cls, by_fields=by_fields)
    if by_fields:
        return f"its class is not registered; on both sides, call {call}"
    for base in cls.__mro__[1:]:
        if base in _NATIVE or base in CONTAINERS or base in ENCODERS or base is str:
            known = full_name(base)
            return f"it would come back as {known}; send it as {known}, or on both sides call {call}"
    return f"it has no encoding; send what it is made of, or on both sides call {call}"
