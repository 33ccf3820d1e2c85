"""The classes that vLLM sends through its groups, for the codec."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import torch

from aiopg.codec import MsgpackCodec, TypeRegistry
from aiopg.codec._registry import Entry, shared_registry
from aiopg.integrations.vllm._tensors import build_tensor, dtype_named, pack_tensor

__all__ = ["vllm_codec"]

_OF_VLLM = {
    "vllm.distributed.device_communicators.pynccl_wrapper.ncclUniqueId",
    "vllm.distributed.device_communicators.shm_broadcast.Handle",
    "vllm.distributed.parallel_state.TensorMetadata",
}
"""By module and name, as they are called on the wire: their modules are not imported for it."""


class _VllmTypes(TypeRegistry):
    """The classes of `aiopg.register_type`, those of torch that describe tensors, and vLLM's own.

    vLLM's are looked up where they are met: on the sender's side by their class, on the receiver's among the modules
    that it has imported. Nothing is imported because a peer says so.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register(torch.Tensor, name="torch.Tensor", encode=_pack_host_tensor, decode=build_tensor)
        self.register(torch.dtype, name="torch.dtype", encode=_dtype_name, decode=dtype_named)
        self.register(torch.device, name="torch.device", encode=str, decode=_build_device)
        self.register(torch.Size, name="torch.Size", encode=list, decode=torch.Size)

    def of_class(self, cls: type) -> Entry | None:
        """See `TypeRegistry.of_class`."""
        return shared_registry.of_class(cls) or super().of_class(cls) or self._learn(cls)

    def of_name(self, name: str) -> Entry | None:
        """See `TypeRegistry.of_name`."""
        if (entry := shared_registry.of_name(name) or super().of_name(name)) is not None or name not in _OF_VLLM:
            return entry
        module, _, qualified = name.rpartition(".")
        cls = getattr(sys.modules.get(module), qualified, None)
        return self._learn(cls) if isinstance(cls, type) else None

    def _learn(self, cls: type) -> Entry | None:
        name = f"{cls.__module__}.{cls.__qualname__}"
        if name not in _OF_VLLM:
            return None
        if issubclass(cls, ctypes.Structure):
            self.register(cls, name=name, encode=bytes, decode=_structure(cls))
        else:
            self.register(cls, name=name)
        return super().of_class(cls)


def _structure(cls: Any) -> Any:
    def build(content: Any) -> Any:
        if type(content) is not bytes or len(content) != ctypes.sizeof(cls):
            raise ValueError(f"a {cls.__name__} has {ctypes.sizeof(cls)} bytes")
        return cls.from_buffer_copy(content)

    return build


def _pack_host_tensor(tensor: Any) -> Any:
    if tensor.device.type != "cpu":
        raise ValueError(f"a tensor on {tensor.device} inside an object would come back on the host; send tensor.cpu()")
    return pack_tensor(tensor)


def _dtype_name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def _build_device(content: Any) -> Any:
    try:
        return torch.device(content)
    except RuntimeError as error:
        raise ValueError(f"no device of torch: {error}") from error


def vllm_codec() -> MsgpackCodec:
    """The default codec, with what vLLM sends."""
    return MsgpackCodec(_VllmTypes())
