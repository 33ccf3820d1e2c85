"""torch tensors in the processor's memory, and torch's dtypes, sizes and devices, where the program has imported torch.

numpy is not asked: it has no bfloat16, and torch does not need it. The elements are read and written where they lie.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from aiopg.codec._elements import VIEWED_BYTES, Elements, check_elements, check_shape, imported, needed, slices
from aiopg.codec._marks import MARKS, Kind
from aiopg.errors import CodecError

if TYPE_CHECKING:
    import torch

__all__ = ["ITEM_BYTES", "build_tensor", "build_torch_value", "memory_function", "take_apart", "tensor_bytes"]

ITEM_BYTES = {
    "bool": 1, "uint8": 1, "int8": 1, "uint16": 2, "int16": 2, "uint32": 4, "int32": 4, "uint64": 8, "int64": 8,
    "float16": 2, "bfloat16": 2, "float32": 4, "float64": 8, "complex64": 8, "complex128": 16,
    "float8_e4m3fn": 1, "float8_e5m2": 1, "float8_e4m3fnuz": 1, "float8_e5m2fnuz": 1, "float8_e8m0fnu": 1,
    "float4_e2m1fn_x2": 1,
}  # fmt: skip
"""The dtypes that can be sent, by the names that they have in torch. A torch may lack the later ones.

Not complex32: torch warns, to make one, that it can do little with it.
"""

# torch has eight bits for the index and does not say when it has more.
_DEVICE = re.compile(r"[a-z]{1,20}(:([0-9]{1,2}|1[01][0-9]|12[0-7]))?", re.ASCII)
_DTYPE, _SIZE, _DEVICE_KIND = "dtype", "Size", "device"
_READ, _WRITE = 0x100, 0x200  # PyBUF_READ, PyBUF_WRITE


def take_apart(value: Any) -> list[object] | None:
    """The marked array for a tensor, dtype, Size or device: plain parts, and the elements last; None for anything else.

    Raises:
        ValueError: it is torch's and cannot be sent; the text says why and what to do.
    """
    torch = imported("torch", "Tensor")
    if torch is None:
        return None
    if isinstance(value, torch.Tensor):
        if (reason := _refusal(torch, value)) is not None:
            raise ValueError(reason)
        return [MARKS[Kind.TENSOR], _name(value.dtype), list(value.shape), _elements(value)]
    kind = type(value)
    if kind is torch.dtype:
        return [MARKS[Kind.TORCH], _DTYPE, _name(value)]
    if kind is torch.Size:
        return [MARKS[Kind.TORCH], _SIZE, list(value)]
    if kind is torch.device:
        return [MARKS[Kind.TORCH], _DEVICE_KIND, str(value)]
    return None


def tensor_bytes(value: Any) -> int:
    """Bytes of the elements of a dense tensor, exactly of that class; 0 for anything else."""
    torch = imported("torch", "Tensor")
    # Of a sparse one torch does not say.
    if torch is None or type(value) is not torch.Tensor or value.layout is not torch.strided or value.is_nested:
        return 0
    size: int = value.nbytes
    return size


def _refusal(torch: ModuleType, tensor: torch.Tensor) -> str | None:
    """Why a tensor cannot be sent as what it is, and what to send."""
    kind, device = type(tensor), tensor.device
    if kind is torch.nn.Parameter:
        return "it would come back as a plain torch.Tensor; send parameter.detach()"
    if kind is not torch.Tensor:
        return "it would come back as a plain torch.Tensor; send tensor.as_subclass(torch.Tensor)"
    if tensor.is_nested:
        return "it is nested; send tensor.unbind()"
    if tensor.layout is not torch.strided:
        return f"its layout is {tensor.layout}; send tensor.to_dense(), or the tensors that it is made of"
    if device.type == "meta":
        return "it has no elements (device meta); send its shape and dtype"
    if device.type != "cpu":
        return f"it is on {device}; send tensor.cpu()"
    if getattr(tensor, "is_quantized", False):
        return "it is quantized; send tensor.dequantize(), or tensor.int_repr() with its scale and zero point"
    if tensor.requires_grad:
        return "it requires grad, which would be lost; send tensor.detach()"
    # torch 2.13 has no such tensors any more.
    if hasattr(tensor, "has_names") and tensor.has_names():
        return "its dimensions have names, which would be lost; send tensor.rename(None)"
    return None


def _name(dtype: torch.dtype) -> str:
    name = str(dtype).removeprefix("torch.")
    if name not in ITEM_BYTES:
        raise ValueError(f"{dtype} is not one of the dtypes that can be sent: {', '.join(ITEM_BYTES)}")
    return name


# -------------------------------------------------------------------------------------------------- memory


@functools.cache
def memory_function() -> Callable[[int, int, int], memoryview]:
    """What makes a view of memory: of an address, a size, and whether it may be written to."""
    import ctypes  # which torch has imported

    # A prototype of our own: that of ctypes.pythonapi belongs to all of the process.
    prototype = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int)
    return prototype(("PyMemoryView_FromMemory", ctypes.pythonapi))


class _TensorBytes:
    """The elements of a contiguous tensor, which stays while this does. Views are made when they are asked for."""

    __slots__ = ("_size", "_tensor")

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor
        self._size: int = tensor.nbytes

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice, /) -> memoryview:
        start, stop, _ = part.indices(self._size)
        # A program can let go of a tensor's memory and keep the tensor, as FSDP does; also from another thread.
        if not self.is_whole():
            raise CodecError("obj", "torch.Tensor", "its memory was let go of while it was sent")
        return memory_function()(self._tensor.data_ptr() + start, stop - start, _READ)

    def is_whole(self) -> bool:
        """Whether the memory is there that the tensor says it has."""
        tensor = self._tensor
        room: int = tensor.untyped_storage().nbytes() - tensor.storage_offset() * tensor.element_size()
        size: int = tensor.nbytes
        return self._size == size <= room


def _elements(tensor: torch.Tensor) -> Elements:
    if not tensor.nbytes:
        return b""
    flat = tensor
    if not tensor.is_contiguous() or tensor.is_conj() or tensor.is_neg():
        flat = tensor.resolve_conj().resolve_neg().contiguous()
    elements = _TensorBytes(flat)
    if not elements.is_whole():
        raise ValueError("it has no memory for its elements: its storage was resized")
    return bytes(elements[:]) if len(elements) < VIEWED_BYTES else elements


# ------------------------------------------------------------------------------------------------ decoding


def build_tensor(items: list[Any]) -> object:
    """The tensor of a marked array: contiguous, with memory of its own, and without grad.

    Raises:
        CodecError: torch is not imported.
        ValueError, TypeError, OverflowError: the parts make no tensor.
    """
    torch = needed("torch", "Tensor")
    _, name, shape, data = items
    dtype = _dtype(torch, name)
    check_shape(shape)
    check_elements(data, shape, ITEM_BYTES[name], dtype)
    if name == "bool":
        _check_bools(data)
    # Not the device and dtype that the program may have made the default.
    tensor = torch.empty(shape, dtype=dtype, device="cpu")
    # A mode of torch, for tensors without elements, may be on where the program receives.
    if type(tensor) is not torch.Tensor or tensor.nbytes != len(data):
        raise ValueError(f"torch made a {type(tensor).__qualname__} of {dtype}, and none of {len(data)} bytes")
    if data:
        _fill(memory_function()(tensor.data_ptr(), len(data), _WRITE), data)
    return tensor


def _fill(target: memoryview, data: Elements) -> None:
    start = 0
    for part in slices(data):
        target[start : start + len(part)] = part
        start += len(part)


def _check_bools(data: Elements) -> None:
    # Compiled code may take a bool of 2 for two bools, and count more than it has room for.
    for part in slices(data):
        if bytes(part).translate(None, b"\0\1"):
            raise ValueError("a bool that is neither 0 nor 1")


def _dtype(torch: ModuleType, name: object) -> Any:
    if type(name) is not str or name not in ITEM_BYTES:
        raise ValueError("a dtype that torch does not have")
    if not hasattr(torch, name):
        raise ValueError(f"torch {torch.__version__} has no {name}; the sender has a later version")
    return getattr(torch, name)


def build_torch_value(items: list[Any]) -> object:
    """The dtype, Size or device of a marked array.

    Raises:
        CodecError: torch is not imported.
        ValueError, TypeError: the parts make none.
    """
    torch = needed("torch", "Tensor")
    _, kind, content = items
    if kind == _DTYPE:
        return _dtype(torch, content)
    if kind == _SIZE:
        _check_sizes(content)
        return torch.Size(content)
    if kind == _DEVICE_KIND and type(content) is str and _DEVICE.fullmatch(content):
        try:
            return torch.device(content)
        except RuntimeError as error:
            raise ValueError(f"torch {torch.__version__} has no device {content!r}") from error
    raise ValueError("a value of torch that is no dtype, Size or device")


def _check_sizes(content: object) -> None:
    if type(content) is not list or any(type(size) is not int or not -(2**63) <= size < 2**63 for size in content):
        raise ValueError("a Size that is no list of ints")
