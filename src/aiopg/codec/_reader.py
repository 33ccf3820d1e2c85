"""What msgpack's parser calls for extensions and arrays: from the leaves up, so nothing here recurses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiopg.codec._collisions import MAX_COLLISIONS, Tables, is_long
from aiopg.codec._extensions import DECODERS, MALFORMED, Code
from aiopg.codec._leaves import LEAF_CODE, Leaves
from aiopg.codec._limits import LONGEST_REASON, Limits
from aiopg.codec._marks import Kind
from aiopg.codec._numpy import build_array, build_scalar
from aiopg.codec._registry import TypeRegistry
from aiopg.codec._survey import survey
from aiopg.codec._torch import build_tensor, build_torch_value
from aiopg.errors import CodecError

__all__ = ["ManyExtensionsError", "Reader", "malformed", "noted_extensions", "read_extension", "watched_extensions"]

# What a decode= function may raise for content that it cannot use. Anything else is trouble of its own.
_REFUSALS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def malformed(claimed: str, reason: str) -> CodecError:
    """The error for bytes that claim to be something and are not."""
    return CodecError("payload", _shortened(claimed), _shortened(reason))


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 3] + "..."


def read_extension(code: int, data: bytes) -> object:
    """The value of an extension that is no mark.

    Raises:
        CodecError: there is no such extension, or the bytes are none of it.
    """
    decoder = DECODERS.get(code)
    if decoder is None:
        reason = "not part of this format; the sender may have a later version, or another codec"
        raise malformed(f"msgpack extension {code}", reason)
    try:
        return decoder(data)
    except MALFORMED as error:
        raise malformed(Code(code).name.lower(), f"malformed: {error}") from error


class ManyExtensionsError(ValueError):
    """A payload has extensions enough for its keys to collide: its maps are to be made by `Tables`."""


def watched_extensions() -> Callable[[int, bytes], object]:
    """`read_extension` for one payload, which gives up where keys could collide.

    Raises:
        ManyExtensionsError: there are more than `MAX_COLLISIONS`, or one is a long int.
    """
    left = MAX_COLLISIONS

    def extension(code: int, data: bytes) -> object:
        nonlocal left
        left -= 1
        if left < 0 or (code == Code.INT and is_long(data)):
            raise ManyExtensionsError
        return read_extension(code, data)

    return extension


def noted_extensions(tables: Tables) -> Callable[[int, bytes], object]:
    """`read_extension` for one payload, whose tables are told of long ints."""

    def extension(code: int, data: bytes) -> object:
        if code == Code.INT and is_long(data):
            tables.has_long_ints = True
        return read_extension(code, data)

    return extension


class _Mark:
    """A mark where it was met. Each is an object of its own, so that each is matched with its own array."""

    __slots__ = ("kind",)

    def __init__(self, kind: int) -> None:
        self.kind = kind


class Reader:
    """The hooks for one payload that has marks.

    The parser meets a mark when its array opens and calls `array` when it closes. So the open marks are a
    stack, its height is how deep marked arrays lie in one another, and a mark that is not the first of an
    array is still on the stack when the array round it, or the payload, ends.

    Args:
        registry: where to look for registered classes.
        limits: what to refuse.
        measures: whether the objects must be measured as they are built; `depths` has the result by `id`.
    """

    def __init__(self, registry: TypeRegistry, limits: Limits, *, measures: bool) -> None:
        self._registry = registry
        self._limits = limits
        self._measures = measures
        self._open: list[_Mark] = []
        self.tables = Tables()
        self._read_extension = noted_extensions(self.tables)
        self.depths: dict[int, int] = {}

    def read_leaves(self, leaves: Leaves) -> None:
        """The payload is the rest of one whose leaves were taken out."""
        read_extension = self._read_extension
        self._read_extension = lambda code, data: leaves.next(data) if code == LEAF_CODE else read_extension(code, data)

    def extension(self, code: int, data: bytes) -> object:
        """The value of an extension; for a mark, what `array` will look for."""
        if code != Code.MARK:
            return self._read_extension(code, data)
        if len(data) != 1 or data[0] not in _BUILDERS:
            raise malformed("mark", "not part of this format; the sender may have a later version")
        if len(self._open) >= self._limits.max_depth:
            raise malformed("msgpack", self._limits.too_deep())
        mark = _Mark(data[0])
        self._open.append(mark)
        return mark

    def array(self, items: list[Any]) -> object:
        """The value of an array: the list itself, or what its mark says."""
        if not items or type(items[0]) is not _Mark:
            return items
        mark = items[0]
        if self._open.pop() is not mark:
            raise malformed("mark", "a mark that is not the first of its array")
        kind = Kind(mark.kind)
        try:
            return _BUILDERS[kind](self, items)
        except (TypeError, *MALFORMED) as error:
            raise malformed(kind.name.lower(), f"malformed: {error}") from error

    def finish(self) -> None:
        """Check that every mark was the first of its array.

        Raises:
            CodecError: one was not.
        """
        if self._open:
            raise malformed("mark", "a mark that is not the first of an array")

    def build_object(self, items: list[Any]) -> object:
        """The instance of a registered class."""
        _, name, content = items
        if type(name) is not str:
            raise ValueError("a registered name that is no str")
        entry = self._registry.of_name(name)
        if entry is None:
            raise malformed(name, "no class has that name here; call aiopg.register_type on it before receiving")
        try:
            instance = entry.decode(content)
        except _REFUSALS as error:
            raise malformed(name, f"its class refused what was sent: {error}") from error
        if self._measures:
            depth = survey(content, self.depths)[1] + (0 if entry.by_fields else 1)
            if depth > self._limits.max_depth:
                raise malformed("msgpack", self._limits.too_deep())
            self.depths[id(instance)] = depth
        return instance


_BUILDERS: dict[int, Callable[[Reader, list[Any]], object]] = {
    Kind.TUPLE: lambda _, items: tuple(items[1:]),
    Kind.SET: lambda reader, items: reader.tables.make_set(items[1:]),
    Kind.FROZENSET: lambda reader, items: frozenset(reader.tables.make_set(items[1:])),
    Kind.OBJECT: Reader.build_object,
    Kind.ARRAY: lambda _, items: build_array(items),
    Kind.SCALAR: lambda _, items: build_scalar(items),
    Kind.TENSOR: lambda _, items: build_tensor(items),
    Kind.TORCH: lambda _, items: build_torch_value(items),
}
