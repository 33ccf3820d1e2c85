"""Tools for the tests of programs that use aiopg. docs/testing.md shows them at work.

- `FaultProxy`: a proxy on loopback that cuts, stalls, delays and tears what passes through it.
- `ManualClock`: time that stands still until the test moves it.
- `LocalStore`: a real store in a thread of this process.
- `check_store`: whether a store keeps what aiopg promises; for who writes a `StoreLink`.
- `GroupMaker`: all members of a group on one event loop. `ProcessMaker`: ranks as real processes.

With pytest, the fixtures `aiopg_store`, `aiopg_group` and `aiopg_processes` are there (`pytest_aiopg`): a `LocalStore`,
a `GroupMaker` and a `ProcessMaker`. None of this imports pytest.
"""

from __future__ import annotations

from aiopg.testing.clock import ManualClock
from aiopg.testing.conformance import CheckResult, NotConformingError, StoreReport, Verdict, check_store
from aiopg.testing.members import GroupMaker
from aiopg.testing.processes import ProcessMaker, RankFailedError, RankProcesses
from aiopg.testing.proxy import FaultProxy
from aiopg.testing.store import LocalStore

__all__ = [
    "CheckResult",
    "FaultProxy",
    "GroupMaker",
    "LocalStore",
    "ManualClock",
    "NotConformingError",
    "ProcessMaker",
    "RankFailedError",
    "RankProcesses",
    "StoreReport",
    "Verdict",
    "check_store",
]
