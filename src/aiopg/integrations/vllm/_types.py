"""The classes of vLLM's own that it sends through its groups, for the codec."""

from __future__ import annotations

import sys

from aiopg.codec import MsgpackCodec, TypeRegistry
from aiopg.codec._registry import Entry, shared_registry

__all__ = ["vllm_codec"]

_OF_VLLM = {
    "vllm.distributed.device_communicators.pynccl_wrapper.ncclUniqueId",
    "vllm.distributed.device_communicators.shm_broadcast.Handle",
    "vllm.distributed.parallel_state.TensorMetadata",
}
"""By module and name, as they are called on the wire: their modules are not imported for it."""


class _VllmTypes(TypeRegistry):
    """The classes of `aiopg.register_type`, and vLLM's own.

    vLLM's are looked up where they are met: on the sender's side by their class, on the receiver's among the modules
    that it has imported. Nothing is imported because a peer says so.
    """

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
        self.register(cls, name=name)
        return super().of_class(cls)


def vllm_codec() -> MsgpackCodec:
    """The default codec, with what vLLM sends."""
    return MsgpackCodec(_VllmTypes())
