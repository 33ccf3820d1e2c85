"""vLLM as it is installed here: looked at before anything is built on it."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from typing import Any

__all__ = ["KNOWN_VERSION", "find_group_class"]

KNOWN_VERSION = "0.33"
"""The vLLM whose group this is modelled on and tested against."""

_OLDEST_METHODS = frozenset(
    {"create", "send_obj", "recv_obj", "broadcast_obj", "all_gather_obj", "barrier", "expire_data"}
)
_METHODS = _OLDEST_METHODS | {"broadcast", "send", "recv", "all_reduce"}
"""What its group can do. All of it is done by aiopg: a method that is not would pickle into a store that has no such
keys."""

_CREATE = ["host", "port", "rank", "world_size", "data_expiration_seconds", "store_timeout", "listen_socket"]
_LATEST = {"listen_socket"}
"""What earlier versions of `create` do not have."""


def find_group_class() -> Any:
    """vLLM's `StatelessProcessGroup`.

    Raises:
        ImportError: vLLM cannot be imported, or its group is not the one that is known here; the text says which
            version it is and what is different.
    """
    try:
        module = importlib.import_module("vllm.distributed.utils")
    except ImportError as error:
        raise ImportError(
            f"aiopg.integrations.vllm needs vLLM, and it cannot be imported here ({error}); "
            "run: pip install 'aiopg-group[vllm]'",
            name=error.name,
        ) from error
    found = getattr(module, "StatelessProcessGroup", None)
    if (difference := _difference(found)) is not None:
        raise ImportError(
            f"aiopg.integrations.vllm knows the StatelessProcessGroup of vLLM {KNOWN_VERSION}, and that of "
            f"vLLM {_version()}, which is installed here, differs: {difference}"
        )
    return found


def _difference(found: Any) -> str | None:
    if not inspect.isclass(found) or not dataclasses.is_dataclass(found):
        return "it is no dataclass"
    methods = {name for name, value in vars(found).items() if not name.startswith("_") and _is_function(value)}
    if missing := _OLDEST_METHODS - methods:
        return f"it has no {', '.join(sorted(missing))}"
    if unknown := methods - _METHODS:
        return f"it also has {', '.join(sorted(unknown))}"
    parameters = _parameters(found)  # of vLLM's create, or of what `patch` put there, which takes the same
    if [name for name in _CREATE if name in parameters or name not in _LATEST] != parameters:
        return f"its create takes ({', '.join(parameters)}) and not ({', '.join(_CREATE)})"
    return None


def _parameters(found: Any) -> list[str]:
    return list(inspect.signature(found.create).parameters)


def _is_function(value: object) -> bool:
    return inspect.isfunction(value) or isinstance(value, staticmethod | classmethod)


def _version() -> str:
    try:
        version: str = importlib.import_module("vllm.version").__version__
    except (ImportError, AttributeError):
        return "of a version that it does not tell"
    return version
