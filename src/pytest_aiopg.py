"""A plugin for pytest: stores, groups and processes as fixtures. docs/testing.md shows them at work.

- `aiopg_store`: a real store on loopback (`aiopg.testing.LocalStore`), a new one for each test.
- `aiopg_group`: makes all members of a group on the test's event loop (`aiopg.testing.GroupMaker`), closed on that loop
  when the test function has ended.
- `aiopg_processes`: runs a function or a script as real processes (`aiopg.testing.ProcessMaker`), all killed when the
  test ends.

pytest loads it wherever aiopg is installed (`-p no:aiopg` leaves it out), and most tests there are about something
else: so it imports aiopg only in a test that asks for a fixture, and is a module of its own, outside the package.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

try:
    import pytest
except ImportError as error:
    raise ImportError(
        "pytest_aiopg is a plugin for pytest, which is not installed; run: pip install 'aiopg-group[pytest]'"
    ) from error

if TYPE_CHECKING:
    from aiopg.testing import GroupMaker, LocalStore, ProcessMaker

__all__ = ["aiopg_group", "aiopg_processes", "aiopg_store"]

DEFAULT_TIMEOUT = "30"

GROUPS = pytest.StashKey["GroupMaker"]()
PROCESSES = pytest.StashKey["ProcessMaker"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the plugin."""
    parser.addini(
        "aiopg_timeout",
        "seconds that the groups of aiopg_group and aiopg_processes have to form, and that their calls may take; "
        "processes that run for longer than twice that are killed",
        default=DEFAULT_TIMEOUT,
    )


def pytest_configure(config: pytest.Config) -> None:
    """A wrong option is said before any test runs."""
    _timeout(config)


@pytest.fixture
def aiopg_store() -> Iterator[LocalStore]:
    """A real aiopg store on loopback, of this test alone: `.url` is where. See `aiopg.testing.LocalStore`."""
    from aiopg.testing import LocalStore

    with LocalStore() as store:
        yield store


@pytest.fixture
def aiopg_group(request: pytest.FixtureRequest, aiopg_store: LocalStore) -> GroupMaker:
    """`await aiopg_group(3)`: all members of a new group on aiopg_store. See `aiopg.testing.GroupMaker`.

    For tests that are coroutines, on asyncio. They are closed when the test function has ended, before any fixture is.
    """
    from aiopg.testing import GroupMaker

    if not inspect.iscoroutinefunction(_function(request.node)):
        pytest.fail(
            "aiopg_group is for tests that are coroutines (async def), as its members live on their event loop; "
            "elsewhere, connect a StatelessGroup in each thread (aiopg_store has the URL), or use aiopg_processes",
            pytrace=False,
        )
    groups = GroupMaker(aiopg_store.url, request.node.name, _timeout(request.config))
    request.node.stash[GROUPS] = groups
    return groups


@pytest.fixture
def aiopg_processes(request: pytest.FixtureRequest, aiopg_store: LocalStore) -> Iterator[ProcessMaker]:
    """`aiopg_processes(3, function)`: run it in 3 processes, with a group. See `aiopg.testing.ProcessMaker`.

    All are killed when the test ends. What they wrote to their standard errors is in the report of a test that failed.
    """
    from aiopg.testing import ProcessMaker

    processes = ProcessMaker(aiopg_store.url, request.node.name, _timeout(request.config))
    request.node.stash[PROCESSES] = processes
    try:
        yield processes
    finally:
        processes.close()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Have a test close its members on its own event loop, whichever plugin runs that; and tell what processes said.

    So nothing here knows of pytest-asyncio or anyio: a fixture that closes them would have to run on the test's loop,
    and each of the two has its own kind of fixture for that.
    """
    groups = item.stash.get(GROUPS, None)
    function = _function(item)
    if groups is not None and function is not None:
        item.obj = _closing(groups, function)  # type: ignore[attr-defined]
    try:
        return (yield)
    except BaseException:
        _report_processes(item)
        raise
    finally:
        if groups is not None:
            item.obj = function  # type: ignore[attr-defined]


def _report_processes(item: pytest.Item) -> None:
    processes = item.stash.get(PROCESSES, None)
    for made in processes.made if processes is not None else ():
        for rank in range(made.world_size):
            if said := made.stderr(rank):
                item.add_report_section("call", f"stderr of rank {rank} of {made.group}", said)


def _closing(groups: GroupMaker, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def run(*args: Any, **kwargs: Any) -> None:
        try:
            await function(*args, **kwargs)
        finally:
            await groups.close()

    return run


def _function(item: pytest.Item) -> Callable[..., Any] | None:
    """The test function; other plugins' items may have none."""
    return getattr(item, "obj", None)


def _timeout(config: pytest.Config) -> float:
    text = config.getini("aiopg_timeout")
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise pytest.UsageError(f"aiopg_timeout must be a number of seconds over 0, not {text!r}")
    return seconds
