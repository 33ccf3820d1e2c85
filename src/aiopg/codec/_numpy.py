"""numpy arrays and scalars, where the program has imported numpy."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from aiopg.codec._elements import VIEWED_BYTES, Elements, check_elements, check_shape, imported, needed
from aiopg.codec._marks import MARKS, Kind

if TYPE_CHECKING:
    import numpy as np

__all__ = ["DTYPE_DEPTH", "array_bytes", "build_array", "build_scalar", "take_apart"]

# Only what numpy itself writes; among other things no "O", which would be addresses of this process.
_PLAIN_DTYPE = re.compile(r"[<>|][biufcmMSUV][0-9]{1,9}(\[[0-9]{0,9}[A-Za-z]{1,7}(/[0-9]{1,9})?\])?", re.ASCII)
DTYPE_DEPTH = 16
"""How many dtypes may lie inside one another."""
_DTYPE_KEYS = {"names", "formats", "offsets", "titles", "itemsize", "aligned"}


def take_apart(value: object) -> list[object] | None:
    """The marked array for a numpy array or scalar: plain parts, and the elements last; None for anything else.

    Raises:
        ValueError: it is numpy's and cannot be sent; the text says why and what to do.
    """
    numpy = imported("numpy", "ndarray")
    # A module that is only just being imported has no values yet.
    if numpy is None or not hasattr(numpy, "generic"):
        return None
    if isinstance(value, numpy.generic):
        # As an array: the empty str has a dtype of size 0, and four bytes.
        element = numpy.asarray(value)
        return [MARKS[Kind.SCALAR], _dtype_parts(element.dtype), element.tobytes()]
    if not isinstance(value, numpy.ndarray):
        return None
    if type(value) is not numpy.ndarray:
        raise ValueError("it would come back as a plain numpy.ndarray; send numpy.array(value)")
    order = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
    return [MARKS[Kind.ARRAY], _dtype_parts(value.dtype), list(value.shape), order, _elements(value, order)]


def array_bytes(value: Any) -> int:
    """Bytes of the elements of a numpy array, exactly of that class; 0 for anything else."""
    numpy = sys.modules.get("numpy")
    if numpy is None or type(value) is not getattr(numpy, "ndarray", None):
        return 0
    size: int = value.nbytes
    return size


def _elements(array: np.ndarray[Any, Any], order: Any) -> Elements:
    # The array's own memory, where its elements lie in that order.
    return array.tobytes(order) if array.nbytes < VIEWED_BYTES else memoryview(array.ravel(order).view("u1").data)


def _dtype_parts(dtype: np.dtype[Any], depth: int = 0) -> object:
    if dtype.hasobject:
        raise ValueError("its dtype holds Python objects; send array.tolist()")
    if depth > DTYPE_DEPTH:
        raise ValueError(f"its dtype is nested more than {DTYPE_DEPTH} deep")
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return [_dtype_parts(base, depth + 1), list(shape)]
    if dtype.names is not None and dtype.fields is not None:
        fields = [dtype.fields[name] for name in dtype.names]
        return {
            "names": list(dtype.names),
            "formats": [_dtype_parts(field[0], depth + 1) for field in fields],
            "offsets": [field[1] for field in fields],
            "titles": [_title(field) for field in fields],
            "itemsize": dtype.itemsize,
            "aligned": dtype.isalignedstruct,
        }
    # A dtype of another package may call itself by the name of a plain one of the same size.
    if not _PLAIN_DTYPE.fullmatch(dtype.str) or sys.modules["numpy"].dtype(dtype.str) != dtype:
        raise ValueError(f"its dtype {dtype} is not one of numpy's fixed-size ones; send array.view() of one")
    return dtype.str


def _title(field: Sequence[object]) -> str | None:
    title = field[2] if len(field) > 2 else None
    if title is not None and type(title) is not str:
        raise ValueError("its dtype has a title that is no str")
    return title


def build_array(items: list[Any]) -> object:
    """The array of a marked array; it owns its memory and can be written to.

    Raises:
        CodecError: numpy is not imported.
        ValueError, TypeError, OverflowError: the parts make no array.
    """
    numpy = needed("numpy", "ndarray")
    _, dtype, shape, order, data = items
    check_shape(shape)
    if order not in ("C", "F"):
        raise ValueError("an array order that is neither C nor F")
    return _filled(numpy, dtype, tuple(shape), order, data)


def build_scalar(items: list[Any]) -> object:
    """The scalar of a marked array.

    Raises:
        CodecError: numpy is not imported.
        ValueError, TypeError, OverflowError: the parts make no scalar.
    """
    numpy = needed("numpy", "generic")
    _, dtype, data = items
    return _filled(numpy, dtype, (), "C", data)[()]


def _filled(numpy: ModuleType, parts: object, shape: tuple[int, ...], order: str, data: Any) -> Any:
    dtype = _build_dtype(numpy, parts)
    check_elements(data, shape, dtype.itemsize, dtype)
    array = numpy.empty(shape, dtype, order)
    if data:
        # Byte by byte, or the gaps in a structured dtype would be left to chance.
        array.ravel("K").view("u1")[:] = numpy.frombuffer(data, "u1")
    return array


def _build_dtype(numpy: ModuleType, parts: Any, depth: int = 0) -> Any:
    if depth > DTYPE_DEPTH:
        raise ValueError(f"a dtype nested more than {DTYPE_DEPTH} deep")
    if type(parts) is str and _PLAIN_DTYPE.fullmatch(parts):
        return numpy.dtype(parts)
    if type(parts) is list:
        base, shape = parts
        check_shape(shape)
        return numpy.dtype((_build_dtype(numpy, base, depth + 1), tuple(shape)))
    if type(parts) is dict and parts.keys() == _DTYPE_KEYS and type(parts["formats"]) is list:
        _check_texts(parts)
        formats = [_build_dtype(numpy, part, depth + 1) for part in parts["formats"]]
        return numpy.dtype({**parts, "formats": formats})
    raise ValueError("a dtype that numpy did not write")


def _check_texts(parts: dict[str, Any]) -> None:
    for key, kinds in (("names", {str}), ("titles", {str, type(None)})):
        if type(parts[key]) is not list or not kinds.issuperset(map(type, parts[key])):
            raise ValueError(f"{key} of a dtype that are no text")
