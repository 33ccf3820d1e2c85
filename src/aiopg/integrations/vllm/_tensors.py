"""Tensors on their way: their bytes, with what makes a tensor of them again."""

from __future__ import annotations

import math
import re
from typing import Any, TypeGuard

import numpy as np
import torch
import torch.distributed

from aiopg.errors import CodecError

__all__ = [
    "MARK",
    "build_tensor",
    "check_tensor",
    "describe",
    "dtype_named",
    "is_packed",
    "pack_tensor",
    "reduce_tensors",
    "reduction",
]

Packed = tuple[str, str, tuple[int, ...], "np.ndarray[Any, Any]"]
"""A tensor as it is sent: `MARK`, dtype, shape, and its elements as they lie in memory.

Plain parts, so that the codec takes the elements of a large one piece by piece, off the event loop.
"""

MARK = "aiopg.integrations.vllm: a tensor"
"""What no object is likely to begin with."""

_DIMENSIONS = 64
"""More than any tensor has; what a peer sends may say anything."""

_PLAIN_DTYPE = re.compile(r"bool|u?int[0-9]+|b?float[0-9]\w*|complex[0-9]+", re.ASCII)
"""Names of dtypes whose elements are what their bytes say; not those that are quantized, which need a scale too."""


def check_tensor(tensor: Any) -> None:
    """Raises `TypeError` unless this is a tensor whose elements can be sent."""
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"a tensor is needed here, not {type(tensor).__name__}; objects go with the ..._obj methods")
    if tensor.layout is not torch.strided or tensor.is_quantized:
        raise TypeError(f"only dense tensors can be sent, not one of {tensor.layout} and {tensor.dtype}")


def pack_tensor(tensor: Any) -> Packed:
    """The parts of a tensor; the elements share its memory where they lie there in order. One on a device is copied
    to the host first. Raises what `check_tensor` does."""
    check_tensor(tensor)
    flat = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return MARK, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), flat.view(torch.uint8).numpy()


def is_packed(obj: object) -> TypeGuard[Packed]:
    """Whether a rank sent this with a method for tensors."""
    return type(obj) is tuple and len(obj) == 4 and obj[0] == MARK


def build_tensor(obj: object) -> Any:
    """The tensor, on the host, in memory of its own.

    Raises:
        CodecError: another rank sent no tensor, or parts that make none.
    """
    if not is_packed(obj):
        raise _refused(f"the rank that sent it sent an object of type {type(obj).__name__} where a tensor is due")
    _, name, shape, elements = obj
    dtype = dtype_named(name)
    if type(shape) is not tuple or len(shape) > _DIMENSIONS or any(type(n) is not int or n < 0 for n in shape):
        raise _refused("its shape is no tuple of sizes")
    if type(elements) is not np.ndarray or elements.dtype != np.uint8 or elements.ndim != 1:
        raise _refused("its elements are no bytes")
    if math.prod(shape) * dtype.itemsize != elements.size:
        raise _refused(f"shape {shape} of {dtype} does not come to {elements.size} bytes")
    if dtype is torch.bool and elements.size and elements.max() > 1:
        raise _refused("a bool that is neither 0 nor 1")  # compiled code may count it for more than one
    try:
        if not elements.size:
            return torch.empty(shape, dtype=dtype, device="cpu")  # not the device that is the default
        return torch.from_numpy(elements).view(dtype).reshape(shape)
    except (RuntimeError, TypeError, OverflowError) as error:  # a size that torch cannot hold, beside one of 0
        raise _refused(f"shape {shape} of {dtype} makes no tensor: {error}") from error


def dtype_named(name: object) -> Any:
    """The dtype of torch by this name. Raises `CodecError`."""
    plain = type(name) is str and _PLAIN_DTYPE.fullmatch(name)
    dtype = getattr(torch, str(name), None) if plain else None
    if not isinstance(dtype, torch.dtype):
        raise _refused(f"torch {torch.__version__} has no dtype {name!r:.80}")
    return dtype


def reduction(op: Any) -> Any:
    """The function of two tensors that a `ReduceOp` of torch stands for. Raises `ValueError`: one that is not known."""
    known = torch.distributed.ReduceOp
    for kind, function in (
        (known.SUM, torch.add),
        (known.PRODUCT, torch.mul),
        (known.MAX, torch.maximum),
        (known.MIN, torch.minimum),
    ):
        if op == kind:
            return function
    raise ValueError(f"op must be ReduceOp.SUM, PRODUCT, MAX or MIN, not {op!r}")


def reduce_tensors(tensors: list[Any], function: Any) -> Any:
    """All ranks' tensors reduced to one, in rank order. The first one's memory is used for it.

    Raises:
        ValueError: tensors of different dtypes or shapes.
    """
    first = tensors[0]
    for rank, tensor in enumerate(tensors):
        if (tensor.dtype, tensor.shape) != (first.dtype, first.shape):
            raise ValueError(
                "tensors of different dtypes or shapes cannot be reduced: "
                f"rank 0 gave {describe(first)}, rank {rank} gave {describe(tensor)}"
            )
    for tensor in tensors[1:]:
        function(first, tensor, out=first)
    return first


def describe(tensor: Any) -> str:
    """A tensor in an error's text."""
    return f"{tensor.dtype} of shape {tuple(tensor.shape)}"


def _refused(reason: str) -> CodecError:
    return CodecError("payload", "torch.Tensor", reason)
