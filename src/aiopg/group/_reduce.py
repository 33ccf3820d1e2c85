"""Reducing the ranks' values to one, in rank order, so that every rank computes the very same result."""

from __future__ import annotations

import functools
import numbers
import operator
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeAlias, cast

__all__ = ["ReduceOp", "reduce_values", "reduce_name"]

ReduceOp: TypeAlias = str | Callable[[Any, Any], Any]
"""`"sum"`, `"prod"`, `"min"`, `"max"`, or a function of two values."""

_SCALAR: dict[str, Callable[[Any, Any], Any]] = {
    "sum": operator.add,
    "prod": operator.mul,
    # A NaN is the result on every rank, as in numpy; only a NaN differs from itself.
    "min": lambda a, b: a if a != a or a <= b else b,
    "max": lambda a, b: a if a != a or a >= b else b,
}
_NUMBERS = (numbers.Number, timedelta)
_ARRAY = {"sum": "add", "prod": "multiply", "min": "minimum", "max": "maximum"}


def reduce_name(op: ReduceOp) -> str:
    """What the ranks compare to see that they reduce alike. Raises `ValueError` for an unknown operation."""
    if callable(op):
        return str(getattr(op, "__qualname__", type(op).__qualname__))[:64]
    if op not in _SCALAR:
        raise ValueError(f"a reduce op is one of {', '.join(_SCALAR)} or a function of two values, not {op!r}")
    return op


def reduce_values(values: Sequence[Any], op: ReduceOp) -> Any:
    """All values as one: `op(op(values[0], values[1]), values[2])` and so on.

    A named op works on numbers, on numpy arrays and scalars, and on lists of numbers (element by element, lists of
    equal length). Raises `ValueError` where the ranks' values do not go together.
    """
    if callable(op):
        return functools.reduce(op, values)
    return functools.reduce(functools.partial(_named, op), values)


def _named(op: str, a: Any, b: Any) -> Any:
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return list(map(functools.partial(_two_numbers, op), a, b))
    numpy = sys.modules.get("numpy")
    if numpy is not None and (isinstance(a, numpy.ndarray) or isinstance(b, numpy.ndarray)):
        if numpy.shape(a) != numpy.shape(b):
            raise _mismatch(op, a, b)
        return getattr(numpy, _ARRAY[op])(a, b)
    return _two_numbers(op, a, b)


def _two_numbers(op: str, a: Any, b: Any) -> Any:
    if not (isinstance(a, _NUMBERS) and isinstance(b, _NUMBERS)):
        raise _mismatch(op, a, b)
    try:
        return _SCALAR[op](a, b)
    except TypeError as error:  # complex numbers have no order, Decimal and float no sum
        raise _mismatch(op, a, b) from error


def _mismatch(op: str, a: Any, b: Any) -> ValueError:
    return ValueError(f"cannot reduce {_shape(a)} with {_shape(b)} by {op!r}; give the same kind on every rank")


def _shape(value: Any) -> str:
    name = type(value).__qualname__
    if isinstance(value, list):
        return f"a list of {len(value)}"
    shape = getattr(value, "shape", None)
    return f"{name} of shape {cast(object, shape)}" if shape is not None else f"{name}"
