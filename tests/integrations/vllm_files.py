"""The real files of vLLM, without the engine: `make test` fetches them into `benchmarks/.peers/`."""

from __future__ import annotations

import sys
import types

from benchmarks import peers


def enter() -> None:
    """Make `vllm.distributed.utils` and its neighbours importable.

    `vllm/__init__.py` and `vllm/distributed/__init__.py` pull in the whole engine and all it depends on. So these two
    packages are entered as plain folders; every module below them is the file of the wheel.
    """
    root = peers.VLLM_DIR / "vllm"
    if not root.exists():
        raise FileNotFoundError(f"{root} is not there; `make test` fetches it")
    for name, folder in (("vllm", root), ("vllm.distributed", root / "distributed")):
        package = types.ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    sys.modules["vllm"].distributed = sys.modules["vllm.distributed"]  # type: ignore[attr-defined]
