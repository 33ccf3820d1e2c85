"""Values of the libraries that the codec knows and does not import."""

from __future__ import annotations

from typing import Any

from aiopg.codec import _numpy, _torch

__all__ = ["elements_bytes", "take_apart"]


def take_apart(value: object) -> list[object] | None:
    """The marked array for a value of numpy or torch; None for anything else.

    Its parts can be packed, but for the last, which may be `Elements` in the value's own memory.

    Raises:
        ValueError: it is a value of theirs that cannot be sent; the text says why and what to do.
    """
    parts = _numpy.take_apart(value)
    return _torch.take_apart(value) if parts is None else parts


def elements_bytes(value: Any) -> int:
    """Bytes of the elements of an array or a dense tensor; 0 for anything else."""
    return _numpy.array_bytes(value) or _torch.tensor_bytes(value)
