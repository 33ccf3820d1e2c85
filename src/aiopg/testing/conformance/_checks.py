"""The list of checks, which the modules of `checks` fill."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import TypeAlias

from aiopg.testing.conformance._ground import Ground

__all__ = ["Check", "NotAskedError", "Run", "all_checks", "check", "chosen"]

Run: TypeAlias = Callable[[Ground], Awaitable[None]]


class NotAskedError(Exception):
    """Raised by a check that finds that the store does not offer what it is about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One rule, and how it is checked."""

    name: str
    rule: str
    run: Run
    keys: bool
    """Whether it is about keys, which a store may be without."""
    optional: str
    """What a store may be without that the check is about; its verbs then raise `NotImplementedError`."""


_checks: dict[str, Check] = {}


def check(rule: str, *, keys: bool = False, optional: str = "") -> Callable[[Run], Run]:
    """Make a coroutine a check; its name is that of its module and its own."""

    def add(run: Run) -> Run:
        name = f"{run.__module__.rpartition('.')[2]}.{run.__name__}"
        _checks[name] = Check(name=name, rule=rule, run=run, keys=keys, optional=optional)
        return run

    return add


def all_checks() -> list[Check]:
    """All of them, module by module."""
    package = importlib.import_module("aiopg.testing.conformance.checks")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return sorted(_checks.values(), key=lambda one: one.name.partition(".")[0])


def chosen(only: Collection[str] | None) -> list[Check]:
    """Those of these names, or of modules of these names. Raises `ValueError` for a name that is neither."""
    checks = all_checks()
    if only is None:
        return checks
    if isinstance(only, str):
        raise TypeError(f"only must be a collection of names, not the single {only!r}")
    known = {name for one in checks for name in (one.name, one.name.partition(".")[0])}
    if wrong := sorted(set(only) - known):
        raise ValueError(f"there is no check {', '.join(map(repr, wrong))}; there are {', '.join(sorted(known))}")
    return [one for one in checks if one.name in only or one.name.partition(".")[0] in only]
