"""What the methods for tensors ask of tensors, and make of them."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed

from aiopg.errors import CodecError

__all__ = ["check_tensor", "describe", "on_host", "received_tensor", "reduce_tensors", "reduction"]


def check_tensor(tensor: Any) -> None:
    """Raises `TypeError` unless this is a tensor whose elements can be sent."""
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"a tensor is needed here, not {type(tensor).__name__}; objects go with the ..._obj methods")
    if tensor.layout is not torch.strided or tensor.is_quantized:
        raise TypeError(f"only dense tensors can be sent, not one of {tensor.layout} and {tensor.dtype}")


def on_host(tensor: Any) -> Any:
    """The tensor as a plain one that the codec takes: its own memory, or a copy of what lies on a device.

    Raises what `check_tensor` does.
    """
    check_tensor(tensor)
    return tensor.detach().as_subclass(torch.Tensor).cpu()


def received_tensor(obj: Any) -> Any:
    """What came where a tensor is due. Raises `CodecError`: the rank that sent it sent something else."""
    if not isinstance(obj, torch.Tensor):
        reason = f"the rank that sent it sent an object of type {type(obj).__name__} where a tensor is due"
        raise CodecError("payload", "torch.Tensor", reason)
    return obj


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
