"""The default codec. Both directions are one call into msgpack where the object allows it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

from msgpack import Packer, Unpacker, UnpackException, unpackb

from aiopg.codec._collisions import MAX_COLLISIONS, Tables, may_be_slow
from aiopg.codec._extensions import ENCODERS
from aiopg.codec._leaves import LEAF_BYTES, Leaves, copy_bytes, find_leaves, join_leaves, leaves_size, take_leaves
from aiopg.codec._limits import CONTAINER_HEADS, DEFAULT_LIMITS, Limits, check_payload, extension_bound
from aiopg.codec._marks import MARK_HEAD, MARKS, PICKLE_MARK, Kind, unsafe_peer
from aiopg.codec._protocol import Buffer
from aiopg.codec._reader import (
    ManyExtensionsError,
    Reader,
    malformed,
    noted_extensions,
    read_extension,
    watched_extensions,
)
from aiopg.codec._registry import TypeRegistry, shared_registry
from aiopg.codec._survey import CONTAINERS, survey
from aiopg.codec._writer import write
from aiopg.errors import CodecError

__all__ = ["MsgpackCodec"]

# The packer writes bytearray, memoryview and its own ExtType and Timestamp as something else without asking,
# so an object with any type but these goes the careful way.
_FLAT = frozenset({type(None), bool, int, float, str, bytes})
_QUICK_KINDS = (_FLAT | CONTAINERS | ENCODERS.keys()) - {bytearray}

# A packer keeps the buffer of the largest payload that it made.
_KEPT_BUFFER = 1 << 20

# To translate and look for a byte takes a third of the time that it takes to delete bytes and count the rest.
_HEAD, _BINARY = 1, 2
_BINARY_HEADS = bytes([*range(0xC4, 0xCA), *range(0xD4, 0xD9)])
"""What begins bytes or an extension: what the packer writes for a type that it should not take begins so."""
_LOOKS = bytes(_HEAD if byte in CONTAINER_HEADS else _BINARY if byte in _BINARY_HEADS else 0 for byte in range(256))

# Up to this size it is quicker to count what could be extensions than to begin anew.
_COUNTED = 1 << 16

# As many bytes of small payloads are read in one go.
_ROW = 1 << 16

_MARK_BYTE = MARK_HEAD[0]
_TUPLE, _SET, _FROZENSET = MARKS[Kind.TUPLE], MARKS[Kind.SET], MARKS[Kind.FROZENSET]


class MsgpackCodec:
    """Python objects as msgpack, each back as the type that it was.

    What can be sent is listed in `aiopg.codec`; everything else is refused with the path to it. Reading a
    payload runs no code but the `decode=` functions and classes that this process registered, and for
    whatever bytes it either returns a value or raises CodecError. What a payload can unfold into is limited, see
    `aiopg.codec._limits`: in any case to 48 MiB and 64 times its size, in time that grows as its size does.

    One codec may be used by several threads at once.

    Args:
        registry: the classes that can be sent; by default those of `register_type`.
        max_depth: how many containers and registered objects may lie inside one another, 1 to 200.
        max_containers: how many containers a payload may have, beside one for every 16 bytes of its size.
        max_memory: how many bytes its sets, decimals, addresses and paths may take, beside 16 for each of its bytes.
    """

    name = "msgpack"

    def __init__(
        self,
        registry: TypeRegistry | None = None,
        *,
        max_depth: int = DEFAULT_LIMITS.max_depth,
        max_containers: int = DEFAULT_LIMITS.max_containers,
        max_memory: int = DEFAULT_LIMITS.max_memory,
    ) -> None:
        self._registry = shared_registry if registry is None else registry
        self._limits = Limits(max_depth, max_containers, max_memory)
        self._max_depth = max_depth
        self._harmless = self._limits.harmless
        # A packer is not re-entrant, for threads or for an encode= that encodes: each call takes one.
        self._packers: list[Packer] = []
        self._unpackers: list[Unpacker] = []  # each at the end of what it was fed

    def __repr__(self) -> str:
        limits = self._limits
        return (
            f"{type(self).__name__}(max_depth={limits.max_depth}, max_containers={limits.max_containers}, "
            f"max_memory={limits.max_memory})"
        )

    def encode(self, obj: object) -> bytes:
        """The payload of an object.

        Raises:
            CodecError: something in it has no encoding, or lies too deep (`path` leads to it), or a limit is passed.
        """
        try:
            packer = self._packers.pop()
        except IndexError:
            packer = Packer(strict_types=True, default=_default)
        try:
            payload: bytes = packer.pack(obj)
        except (TypeError, ValueError, OverflowError):
            return self._checked(write(obj, self._registry, self._limits))
        if len(payload) <= _KEPT_BUFFER:
            self._packers.append(packer)
        if len(payload) <= self._harmless:
            # Small payloads tell by themselves, wherever such bytes lie in them, that nothing is to be looked at.
            looks = payload.translate(_LOOKS)
            if _BINARY not in looks and looks.count(_HEAD) <= self._max_depth:
                return payload
        return self._checked(payload if self._is_quick(obj) else write(obj, self._registry, self._limits))

    def encode_large(self, obj: object) -> Buffer:
        """`encode` for an object that `is_large`, for a worker thread: other threads run while it is at work.

        That holds for bytes, bytearrays, numpy arrays and torch tensors that lie at the top or in a few containers,
        which are copied once and slice by slice. The rest is packed in one go, in which no other thread runs.
        """
        try:
            rest, leaves, secret = take_leaves(obj, self._registry)
        except ValueError:
            return self.encode(obj)  # which says where it lies that has no encoding
        if not leaves:
            return self.encode(obj)
        return join_leaves(self._beside(leaves_size(leaves)).encode(rest), leaves, secret)

    def _beside(self, size: int) -> MsgpackCodec:
        """The same codec for what is left of a payload from which `size` bytes were taken out."""
        limits = self._limits.beside(size)
        return MsgpackCodec(
            self._registry,
            max_depth=limits.max_depth,
            max_containers=limits.max_containers,
            max_memory=limits.max_memory,
        )

    def _is_quick(self, obj: object) -> bool:
        """Whether the packer has written all of an object as it should."""
        if self._max_depth >= 2 and _is_shallow(obj):
            return True
        # Only now: an object that contains itself has no end, and the packer is what finds out.
        kinds, depth = survey(obj)
        return kinds <= _QUICK_KINDS and depth <= self._max_depth

    def _checked(self, payload: bytes) -> bytes:
        if len(payload) > self._harmless:
            check_payload(payload, self._limits, "obj")
        return payload

    def decode(self, payload: Buffer) -> object:
        """The object of a payload.

        Of one that is large, what `encode_large` does not pack is copied slice by slice, while other threads run.

        Raises:
            CodecError: the bytes are not what `encode` makes, they pass a limit, or they need a class (or
                numpy or torch, or a time zone) that this process does not have.
        """
        if type(payload) is bytes:
            data = payload
        elif len(payload) <= LEAF_BYTES:
            data = bytes(memoryview(payload))
        else:
            return self._decode_view(memoryview(payload))
        if large := (size := len(data)) > self._harmless:
            if size > LEAF_BYTES and len(leaves := find_leaves(memoryview(data))):
                return self._decode_leaves(leaves)
            containers = _check_large(data, self._limits)
        else:
            containers = size if size <= self._max_depth else data.translate(_LOOKS).count(_HEAD)
        measures = containers > self._max_depth  # most payloads have too few to be too deep
        try:
            # The search for one byte, given as a number, is ten times as fast and mostly enough.
            if _MARK_BYTE in data and MARK_HEAD in data:
                return self._decode_marked(data, measures, large)
            if large:
                value: object = _decode_large(data)
            else:
                value = unpackb(data, strict_map_key=False, timestamp=3, ext_hook=read_extension)
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise _refusal(data, error) from error
        if measures and survey(value)[1] > self._max_depth:
            raise malformed("msgpack", self._limits.too_deep())
        return value

    def decode_many(self, payloads: Buffer, sizes: Sequence[int]) -> list[object]:
        """`decode` for payloads that lie behind one another, in order; small ones in one go. Raises as that."""
        if (
            type(payloads) is not bytes
            or len(payloads) > _ROW
            or _MARK_BYTE in payloads
            or (len(payloads) > self._harmless and max(sizes, default=0) > self._harmless)
            or payloads.translate(_LOOKS).count(_HEAD) > self._max_depth
        ):
            return self._decode_each(payloads, sizes)
        try:
            unpacker = self._unpackers.pop()
        except IndexError:
            unpacker = self._new_unpacker()
        end, row = unpacker.tell(), []
        unpacker.feed(payloads)
        try:
            for size in sizes:
                row.append(unpacker.unpack())
                end += size
                if unpacker.tell() != end:
                    # What one rank sent must not reach into what the next one did.
                    return self._decode_each(payloads, sizes)
        except (ValueError, TypeError, OverflowError, UnpackException, CodecError):
            return self._decode_each(payloads, sizes)  # the one that is malformed says so by itself
        self._unpackers.append(unpacker)
        return row

    def _decode_each(self, payloads: Buffer, sizes: Sequence[int]) -> list[object]:
        starts = accumulate(sizes, initial=0)
        return [self.decode(payloads[start : start + size]) for start, size in zip(starts, sizes, strict=False)]

    def _new_unpacker(self) -> Unpacker:
        """For harmless payloads without marks."""
        most = self._harmless
        return Unpacker(
            strict_map_key=False, timestamp=3, ext_hook=read_extension, max_buffer_size=_ROW, max_str_len=most,
            max_bin_len=most, max_array_len=most, max_map_len=most, max_ext_len=most,
        )  # fmt: skip

    def _decode_view(self, payload: memoryview) -> object:
        leaves = find_leaves(payload)
        return self._decode_leaves(leaves) if len(leaves) else self.decode(copy_bytes(payload))

    def _decode_leaves(self, leaves: Leaves) -> object:
        rest, limits = leaves.rest, self._limits.beside(leaves.bytes)
        measures = _check_large(rest, limits) > self._max_depth
        reader = Reader(self._registry, limits, measures=measures)
        reader.read_leaves(leaves)
        try:
            return _read_with(reader, rest, limits, measures=measures, large=True)
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise _refusal(rest, error) from error

    def _decode_marked(self, data: bytes, measures: bool, large: bool) -> object:
        reader = Reader(self._registry, self._limits, measures=measures)
        return _read_with(reader, data, self._limits, measures=measures, large=large)


def _read_with(reader: Reader, data: bytes, limits: Limits, *, measures: bool, large: bool) -> object:
    value: object = unpackb(
        data, strict_map_key=False, timestamp=3, ext_hook=reader.extension, list_hook=reader.array,
        object_pairs_hook=reader.tables.make_map if large else None,
    )  # fmt: skip
    reader.finish()
    if measures and survey(value, reader.depths)[1] > limits.max_depth:
        raise malformed("msgpack", limits.too_deep())
    return value


def _check_large(data: bytes, limits: Limits) -> int:
    """See `check_payload`."""
    if data.startswith(PICKLE_MARK):
        raise unsafe_peer()
    return check_payload(data, limits, "payload")


def _decode_large(data: bytes) -> Any:
    """The object of a payload without marks that is large enough for its keys to collide."""
    if not may_be_slow(data) and (len(data) > _COUNTED or extension_bound(data) <= MAX_COLLISIONS):
        try:
            return unpackb(data, strict_map_key=False, timestamp=3, ext_hook=watched_extensions())
        except ManyExtensionsError:
            pass  # they may be keys, and few of them came before it was known
    tables = Tables()
    return unpackb(
        data, strict_map_key=False, timestamp=3, ext_hook=noted_extensions(tables), object_pairs_hook=tables.make_map
    )


def _refusal(data: bytes, error: Exception) -> CodecError:
    if data.startswith(PICKLE_MARK):
        return unsafe_peer()
    return malformed("msgpack", f"malformed: {error or type(error).__name__}")


def _is_shallow(obj: object) -> bool:
    """Whether an object is a dict or list of harmless values and of dicts, lists and tuples of such."""
    if type(obj) is dict:
        if not _FLAT.issuperset(map(type, obj)):
            return False
        parts: Iterable[Any] = obj.values()
    elif type(obj) is list:
        parts = obj
    else:
        return type(obj) in _FLAT
    for part in parts:
        kind = type(part)
        if kind in _FLAT:
            continue
        if kind is dict:
            if not (_FLAT.issuperset(map(type, part)) and _FLAT.issuperset(map(type, part.values()))):
                return False
        elif not ((kind is list or kind is tuple) and _FLAT.issuperset(map(type, part))):
            return False
    return True


def _default(value: object) -> object:
    """What the packer writes for a value that it does not know; it asks for the parts in turn."""
    kind = type(value)
    if kind is tuple:
        return [_TUPLE, *value]  # type: ignore[misc]
    if (encoder := ENCODERS.get(kind)) is not None:
        return encoder(value)
    if kind is set:
        return [_SET, *value]  # type: ignore[misc]
    if kind is frozenset:
        return [_FROZENSET, *value]  # type: ignore[misc]
    raise TypeError(kind)
