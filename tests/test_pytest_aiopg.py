"""The plugin for pytest, in inner runs of pytest that load it as any project does: by its entry point."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aiopg.address import Address
from tests.children import has_ended

pytest_plugins = ["pytester"]

STRICT = ("-W", "error", "--strict-config", "--strict-markers")


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """pytest in a process of its own, with all its strictness."""
    return pytester.runpytest_subprocess(*STRICT, "-p", "no:cacheprovider", *arguments)


ASYNC_TESTS = """
import asyncio
import pytest
from aiopg import StatelessGroup

{mark}

async def test_members_on_one_loop(aiopg_group):
    first, second = await aiopg_group(2)
    assert await asyncio.gather(first.all_gather("a"), second.all_gather("b")) == [["a", "b"]] * 2

@pytest.mark.parametrize("n", [1, 3])
async def test_any_number(aiopg_group, aiopg_store, n):
    group = await aiopg_group(n)
    other = await aiopg_group(n)
    assert len({{member.name for member in group + other}}) == 2
    assert all(member.store.url == aiopg_store.url for member in group)

class TestInAClass:
    async def test_methods_too(self, aiopg_group):
        self.member, = await aiopg_group(1)
        assert await self.member.all_reduce(4) == 4

def work(group):
    return group.all_reduce(group.rank)

async def test_processes(aiopg_processes):
    assert await aiopg_processes(2, work) == [1, 1]

async def test_here_and_in_a_thread(aiopg_store, aiopg_group):
    # The store is no matter of this loop: a blocking member can be met from here.
    def member(rank):
        with StatelessGroup.connect(aiopg_store.url, rank=rank, world_size=2, group="threads") as group:
            group.barrier()
            return rank
    await aiopg_group(1)
    assert await asyncio.gather(*(asyncio.to_thread(member, rank) for rank in range(2))) == [0, 1]

async def test_no_member_of_another_test_is_left(aiopg_store, aiopg_group):
    assert aiopg_store.describe()["groups"] == []
"""

MARKS = {
    "asyncio-strict": ("pytestmark = pytest.mark.asyncio", "asyncio_mode = strict"),
    "asyncio-auto": ("", "asyncio_mode = auto"),
    "anyio": ("pytestmark = pytest.mark.anyio\n@pytest.fixture\ndef anyio_backend(): return 'asyncio'", ""),
    "anyio-auto": ("@pytest.fixture\ndef anyio_backend(): return 'asyncio'", "anyio_mode = auto"),
}


@pytest.mark.parametrize("kind", MARKS)
def test_coroutines_have_groups_on_their_own_loop(pytester: pytest.Pytester, kind: str) -> None:
    """Under pytest-asyncio in both its modes and under anyio's plugin: functions, parameters, methods, threads."""
    mark, option = MARKS[kind]
    pytester.makeini(f"[pytest]\nasyncio_default_fixture_loop_scope = function\n{option}\n")
    pytester.makepyfile(ASYNC_TESTS.format(mark=mark))
    run(pytester).assert_outcomes(passed=7)


def test_a_fixture_can_make_the_group(pytester: pytest.Pytester) -> None:
    """An asynchronous fixture of the project, on the same loop, in a project of strict mode; and one of anyio's."""
    pytester.makeini("[pytest]\nasyncio_mode = strict\nasyncio_default_fixture_loop_scope = function\n")
    body = """
        import asyncio, pytest, pytest_asyncio

        @{fixture}
        async def pair(aiopg_group):
            yield await aiopg_group(2)

        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        @pytest.mark.{mark}
        async def test_the_pair(pair):
            assert await asyncio.gather(*(member.all_gather(member.rank) for member in pair)) == [[0, 1]] * 2
    """
    pytester.makepyfile(
        test_asyncio=body.format(fixture="pytest_asyncio.fixture", mark="asyncio"),
        test_anyio=body.format(fixture="pytest.fixture", mark="anyio"),
    )
    run(pytester).assert_outcomes(passed=2)


def test_a_loop_that_lasts_for_a_module_is_fine(pytester: pytest.Pytester) -> None:
    """Members are closed at the end of each test and not of the loop; no task of theirs is left on it."""
    pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = module\n")
    pytester.makepyfile("""
        import asyncio, pytest
        pytestmark = pytest.mark.asyncio(loop_scope="module")
        kept = []

        async def test_one(aiopg_group):
            kept.extend(await aiopg_group(2))

        async def test_two():
            assert all("closed" in repr(member) for member in kept)
            assert asyncio.all_tasks() == {asyncio.current_task()}
    """)
    run(pytester).assert_outcomes(passed=2)


SYNC_TESTS = """
import json, os, pathlib, sys
from aiopg import StatelessGroup

def work(group, factor):
    return group.all_reduce(group.rank * factor)

def test_the_store(aiopg_store):
    with StatelessGroup.connect(aiopg_store.url, rank=0, world_size=1) as group:
        assert group.all_gather(1) == [1]
        assert aiopg_store.address == aiopg_store.url

def test_a_function(aiopg_processes):
    assert aiopg_processes(3, work, 2).wait() == [6, 6, 6]

def test_a_script(aiopg_processes, tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import os; print(os.environ['RANK'], os.environ['AIOPG_TIMEOUT'])")
    assert aiopg_processes(2, script).wait() == ["0 17\\n", "1 17\\n"]
"""


@pytest.mark.parametrize("mode", ["prepend", "importlib"])
def test_blocking_tests_have_stores_and_processes(pytester: pytest.Pytester, mode: str) -> None:
    """However pytest imports the module that the function is in. `aiopg_timeout` is the groups' timeout."""
    pytester.makeini("[pytest]\naiopg_timeout = 17\n")
    pytester.mkdir("deep").joinpath("test_sync.py").write_text(SYNC_TESTS)
    run(pytester, f"--import-mode={mode}", "-p", "no:asyncio").assert_outcomes(passed=3)


FAILING = """
import asyncio, json, os, pathlib, subprocess, sys, time

def note(**what):
    with open("notes", "a") as file:
        file.write(json.dumps(what) + "\\n")

def hang(group):
    child = subprocess.Popen(["sleep", "1000"])
    note(pid=os.getpid(), url=group.store.url)
    note(pid=child.pid, url=group.store.url)
    group.barrier()
    time.sleep(1000)

def wait_for(lines):
    path = pathlib.Path("notes")
    while not path.exists() or len(path.read_text().splitlines()) < lines:
        time.sleep(0.01)

async def test_fails_with_all_at_work(aiopg_group, aiopg_processes, aiopg_store):
    pair = await aiopg_group(2)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(pair[0].barrier())
        aiopg_processes(2, hang)
        await asyncio.to_thread(wait_for, 4)
        assert False, "this is wrong"

def fail(group):
    print("on rank", group.rank, file=sys.stderr)
    if group.rank == 1:
        raise ValueError("the weights are bad")
    group.barrier()

def test_a_rank_fails(aiopg_processes):
    aiopg_processes(2, fail).wait()

def test_nobody_waits_for_the_rank(aiopg_processes):
    processes = aiopg_processes(1, fail)
    while processes.running():
        time.sleep(0.01)
    assert processes.world_size == 2

def test_an_interrupted_one_leaves_nothing_either(aiopg_processes):
    aiopg_processes(2, hang)
    wait_for(8)
    raise KeyboardInterrupt
"""


def test_tests_that_fail_leave_nothing_behind(pytester: pytest.Pytester) -> None:
    """No process, no process of a process, no socket; also when the run is interrupted. What ranks wrote is told."""
    pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makepyfile(FAILING)
    result = run(pytester)
    result.assert_outcomes(failed=3)
    notes: list[dict[str, Any]] = [json.loads(line) for line in Path("notes").read_text().splitlines()]
    assert len(notes) == 8
    assert all(has_ended(note["pid"]) for note in notes)
    for url in {note["url"] for note in notes}:
        address = Address.parse(url)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address.host, address.port))
    result.stdout.fnmatch_lines(
        [
            "*AssertionError: this is wrong",
            "*RankFailedError: rank 1 exited with code 1; its standard error:",
            "*ValueError: the weights are bad",
            "*stderr of rank 0 of test_a_rank_fails-1-*",
            "*stderr of rank 0 of test_nobody_waits_for_the_rank-1-*",
            "on rank 0",
            "*KeyboardInterrupt*",
        ]
    )


def test_a_group_for_a_test_without_a_loop_says_what_to_do(pytester: pytest.Pytester) -> None:
    """At the test that asked for it, and without a traceback through the plugin."""
    pytester.makepyfile("def test_sync(aiopg_group): pass")
    result = run(pytester, "-p", "no:asyncio")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*aiopg_group is for tests that are coroutines*aiopg_processes*"])
    result.stdout.no_fnmatch_line("*pytest_aiopg.py*")


@pytest.mark.parametrize("value", ["soon", "-1", "inf"])
def test_a_wrong_timeout_is_said_before_any_test(pytester: pytest.Pytester, value: str) -> None:
    """With the value."""
    pytester.makeini(f"[pytest]\naiopg_timeout = {value}\n")
    pytester.makepyfile("def test_nothing(): pass")
    result = run(pytester, "-p", "no:asyncio")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*aiopg_timeout must be a number of seconds over 0, not '{value}'"])


def test_without_the_plugin_the_fixtures_are_not_there(pytester: pytest.Pytester) -> None:
    """`-p no:aiopg`: other tests run as ever, the options are not known, and the library is as it was."""
    pytester.makepyfile("""
        def test_the_library():
            from aiopg.testing import LocalStore
            with LocalStore() as store:
                assert store.url

        def test_the_fixture(aiopg_store):
            pass
    """)
    result = run(pytester, "-p", "no:aiopg", "-p", "no:asyncio")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*fixture 'aiopg_store' not found"])


def test_a_project_that_does_not_use_it_pays_nothing(pytester: pytest.Pytester) -> None:
    """The plugin is loaded, by its entry point, and nothing of aiopg is imported, at collection and in tests."""
    pytester.makepyfile("""
        import sys

        def test_nothing(request):
            assert request.config.pluginmanager.has_plugin("aiopg")
            assert "pytest_aiopg" in sys.modules
            assert [name for name in sys.modules if name.partition(".")[0] in ("aiopg", "msgpack")] == []
    """)
    run(pytester, "-p", "no:asyncio").assert_outcomes(passed=1)


def test_the_fixtures_say_what_they_are(pytester: pytest.Pytester) -> None:
    """`pytest --fixtures` lists them with their docstrings, `--help` the option."""
    result = run(pytester, "--fixtures", "-p", "no:asyncio")
    for name in ("aiopg_store", "aiopg_group", "aiopg_processes"):
        result.stdout.fnmatch_lines([f"{name}*"])
    result.stdout.no_fnmatch_line("*no docstring available*aiopg*")
    run(pytester, "--help", "-p", "no:asyncio").stdout.fnmatch_lines(["*aiopg_timeout*"])


def test_without_pytest_it_says_what_to_install() -> None:
    """The module is there in every installation; importing it where pytest is not has a clear end."""
    code = "import sys; sys.modules['pytest'] = None; import pytest_aiopg"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "pip install 'aiopg-group[pytest]'" in ran.stderr
