"""numpy arrays and scalars. numpy is looked for only when a value of it is met, on either side."""

from __future__ import annotations

import importlib
import math
import re
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from aiopg.codec._marks import MARKS, Kind
from aiopg.errors import CodecError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["DTYPE_DEPTH", "EMPTY_ELEMENTS", "build_array", "build_scalar", "flat_elements", "take_apart"]

# Only what numpy itself writes; among other things no "O", which would be addresses of this process.
_PLAIN_DTYPE = re.compile(r"[<>|][biufcmMSUV][0-9]{1,9}(\[[0-9]{0,9}[A-Za-z]{1,7}(/[0-9]{1,9})?\])?", re.ASCII)
DTYPE_DEPTH = 16
"""How many dtypes may lie inside one another."""
EMPTY_ELEMENTS = 65536
"""Elements of an array whose dtype takes no bytes: nothing in the payload answers for their number."""
_EMPTY_SHAPE = 2**32
_DTYPE_KEYS = {"names", "formats", "offsets", "titles", "itemsize", "aligned"}


def take_apart(value: object, elements: bytes | None = None) -> list[object] | None:
    """The marked array for a numpy array or scalar, of plain parts; `None` for anything else.

    `elements`: to stand in the place of an array's own.

    Raises:
        ValueError: it is numpy's and cannot be sent; the text says why and what to do.
    """
    numpy = sys.modules.get("numpy")
    # A module that is only just being imported has no values yet.
    if numpy is None or not hasattr(numpy, "ndarray") or not hasattr(numpy, "generic"):
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
    return [
        MARKS[Kind.ARRAY],
        _dtype_parts(value.dtype),
        list(value.shape),
        order,
        value.tobytes(order) if elements is None else elements,
    ]


def flat_elements(array: np.ndarray[Any, Any]) -> memoryview:
    """The elements as `take_apart` writes them; the array's own memory where they lie so."""
    flat = array.ravel("F" if array.flags.f_contiguous else "C")
    return memoryview(flat.view("u1").data)


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
        CodecError: numpy is not installed.
        ValueError, TypeError, OverflowError: the parts make no array.
    """
    numpy = _import("numpy.ndarray")
    _, dtype, shape, order, data = items
    _check_shape(shape)
    if order not in ("C", "F"):
        raise ValueError("an array order that is neither C nor F")
    return _filled(numpy, dtype, tuple(shape), order, data)


def build_scalar(items: list[Any]) -> object:
    """The scalar of a marked array.

    Raises:
        CodecError: numpy is not installed.
        ValueError, TypeError, OverflowError: the parts make no scalar.
    """
    numpy = _import("numpy.generic")
    _, dtype, data = items
    return _filled(numpy, dtype, (), "C", data)[()]


def _import(wanted: str) -> ModuleType:
    try:
        return importlib.import_module("numpy")
    except ImportError as error:
        reason = "numpy is not installed here, and the object holds values of it; run: pip install numpy"
        raise CodecError("payload", wanted, reason) from error


def _filled(numpy: ModuleType, parts: object, shape: tuple[int, ...], order: str, data: object) -> Any:
    dtype = _build_dtype(numpy, parts)
    if not isinstance(data, bytes | memoryview):
        raise ValueError("elements that are no bytes")
    # Checked with exact integers, before numpy makes room for what was only declared.
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"shape {shape} of {dtype} does not come to {len(data)} bytes")
    # numpy makes one byte of an S0 and four of a U0, and whoever gets the array may count on its sizes.
    if not data and math.prod(size or 1 for size in shape) > (_EMPTY_SHAPE if 0 in shape else EMPTY_ELEMENTS):
        raise ValueError(f"shape {shape} of {dtype}, and no bytes")
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
        _check_shape(shape)
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


def _check_shape(shape: object) -> None:
    if type(shape) is not list or len(shape) > 64 or any(type(n) is not int or not 0 <= n < 2**63 for n in shape):
        raise ValueError("a shape that is no list of sizes")
