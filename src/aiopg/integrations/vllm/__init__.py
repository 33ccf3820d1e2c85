"""aiopg under the face of vLLM's `StatelessProcessGroup`.

- `stateless_group(host, port, rank, world_size, ...)` makes a group that *is a* `StatelessProcessGroup` of vLLM, so
  that `PyNcclCommunicator(group, device)` and everything else takes it, and that does all its work with aiopg.
- `StatelessProcessGroup` is its class, for programs that import vLLM's: change the import line.
- `patch()` makes vLLM's own `StatelessProcessGroup.create` return such groups, for programs that are not to be changed.
  With AIOPG_PATCH_VLLM=1 in the environment vLLM's engine and workers do so by themselves: `plugin` is what they call.

Importing this module does not import vLLM; the first use of one of these does.

What a program gains: deadlines that are kept and name who is missing, `PeerLostError` in place of a hang when a rank
dies, memory that is freed when it was read, one message for each that was sent, and no unpickling. What it has to know:

- Objects are sent as `aiopg.MsgpackCodec` sends them. A class of the program's own is registered first, on all ranks,
  with `aiopg.register_type`. Tensors, dtypes and devices of torch, and vLLM's `ncclUniqueId`, `Handle` and
  `TensorMetadata` are known.
- Errors are aiopg's (`GroupTimeoutError`, `PeerLostError`, ...), not the `RuntimeError` of vLLM's barrier.
- All ranks call collectives in one order (`CollectiveMismatchError`).
- Where other hosts can reach the address, rank 0 wants a token: AIOPG_TOKEN in the environment of all ranks, or
  `token=`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiopg.integrations.vllm._patch import group_class, patch, plugin, stateless_group, unpatch

__all__ = ["StatelessProcessGroup", "patch", "plugin", "stateless_group", "unpatch"]

if TYPE_CHECKING:
    from aiopg.integrations.vllm._group import StatelessProcessGroup as StatelessProcessGroup
else:

    def __getattr__(name: str) -> Any:
        # A subclass of vLLM's class: made when somebody asks for it, because that imports vLLM.
        if name == "StatelessProcessGroup":
            return group_class()
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
