"""The suite that every store has to pass: the promises of `stores.base` and `stores.keys`, asked of a running store.

`check_store(open_link)` runs it on any implementation of `StoreLink`, and gives a `StoreReport`: each check by name,
with the rule that it checks, and whether that holds. `python -m aiopg.testing.conformance URL` prints the report of a
store that `aiopg.stores.open_link` knows. docs/own-store.md shows it on a store of one's own. None of it needs pytest.

A check is a coroutine in one of the modules of `checks`, marked with its rule (`_checks.check`). It gets a `Ground`:
links to the store, and groups and keys under names that nobody else has; whatever the check leaves there is taken down
behind it.
"""

from __future__ import annotations

from aiopg.testing.conformance._report import CheckResult, NotConformingError, StoreReport, Verdict
from aiopg.testing.conformance._run import check_store

__all__ = ["CheckResult", "NotConformingError", "StoreReport", "Verdict", "check_store"]
