"""Ranks as real processes: their results, their errors, and that none is left."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aiopg import CodecError
from aiopg.testing import LocalStore, ProcessMaker, RankFailedError, RankProcesses
from tests.children import gone, has_ended
from tests.testing import ranks

ONE_LOOP = pytest.mark.asyncio(loop_factories=["asyncio"])
"""For tests that wait for processes, to which the loop is no matter."""


@pytest.fixture
def processes() -> Iterator[ProcessMaker]:
    """A maker with a store of its own; nothing of it is left."""
    with LocalStore() as store:
        maker = ProcessMaker(store.url, "t", timeout=15)
        yield maker
        maker.close()
    for made in maker.made:
        assert all(map(gone, made.pids))


def test_a_function_runs_in_every_process_with_a_group(processes: ProcessMaker) -> None:
    """Its results come back by rank."""
    assert processes(3, ranks.add_up, 10).wait() == [30, 30, 30]


async def test_a_coroutine_function_gets_an_asynchronous_group(processes: ProcessMaker) -> None:
    """Awaited while the test's loop goes on; arguments and results of registered types pass, and nothing is pickled."""
    ticks: list[int] = []

    async def tick() -> None:
        while True:
            await asyncio.sleep(0.01)
            ticks.append(1)

    ticking = asyncio.create_task(tick())
    assert await processes(2, ranks.shift, [ranks.Point(1), ranks.Point(2)]) == [ranks.Point(2), ranks.Point(1)]
    ticking.cancel()
    assert len(ticks) > 3


def test_every_process_has_its_place_in_its_environment(processes: ProcessMaker) -> None:
    """What a launcher sets; and they are real processes."""
    made = processes(2, ranks.place)
    first, second = made.wait()
    assert [p["RANK"] + p["WORLD_SIZE"] + p["LOCAL_RANK"] + p["LOCAL_WORLD_SIZE"] for p in (first, second)] == [
        "0202",
        "1212",
    ]
    assert {first["AIOPG_GROUP"], second["AIOPG_GROUP"], first["name"], made.group} == {made.group}
    assert [first["pid"], second["pid"]] == made.pids
    assert first["AIOPG_TIMEOUT"] == "15"


def test_a_script_s_result_is_what_it_prints(processes: ProcessMaker, tmp_path: Path) -> None:
    """It finds its group by from_env(), and create() works too."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
            import os, sys
            from aiopg import StatelessGroup

            with StatelessGroup.from_env() as group:
                print(group.all_gather(sys.argv[1] + str(group.rank)))
            host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
            with StatelessGroup.create(host, port, group.rank, group.world_size) as group:
                print(group.all_gather(group.rank))
        """)
    )
    assert processes(2, script, "rank ").wait() == ["['rank 0', 'rank 1']\n[0, 1]\n"] * 2


def test_an_error_has_the_rank_and_what_it_wrote(processes: ProcessMaker) -> None:
    """The rank that failed by itself is named, also where others failed because of it and ended before."""
    made = processes(3, ranks.fail, 1)
    with pytest.raises(RankFailedError, match="the weights are bad") as caught:
        made.wait()
    error = caught.value
    assert (error.rank, error.how) == (1, "exited with code 1")
    assert error.stderr.startswith("it goes wrong\nTraceback")
    assert "in fail" in str(error)
    assert "rank 0 exited with code 1" in str(error)
    assert set(error.failed) == {0, 1, 2}
    assert "GroupAbortedError" in made.stderr(0)
    with pytest.raises(RankFailedError):
        made.wait()


def test_ranks_that_do_not_end_are_named_and_killed(processes: ProcessMaker) -> None:
    """At the timeout."""
    made = processes(2, ranks.sleep, timeout=0.7)
    with pytest.raises(RankFailedError, match=r"did not end within 0\.7 s") as caught:
        made.wait()
    assert caught.value.failed == dict.fromkeys((0, 1), "did not end within 0.7 s")
    assert made.running() == []
    assert all(has_ended(pid) for pid in made.pids)


def test_a_rank_that_waits_in_vain_says_for_whom(processes: ProcessMaker) -> None:
    """It is named, and not the one that still runs, which is killed."""
    with pytest.raises(RankFailedError, match="missing: rank 1") as caught:
        processes(2, ranks.wait_in_vain).wait()
    assert caught.value.failed == {0: "exited with code 1", 1: "still ran 2 s after that, and was killed"}


async def joined(made: RankProcesses) -> list[Any]:
    return await made


async def wait_for_line(made: RankProcesses, rank: int, line: str) -> None:
    async with asyncio.timeout(20):
        while line not in made.stdout(rank):  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(0.01)


@ONE_LOOP
async def test_a_test_can_kill_a_rank(processes: ProcessMaker) -> None:
    """The others learn it; the killed one counts as None and not as failed."""
    made = processes(3, ranks.survive, 1)
    for rank in range(3):
        await wait_for_line(made, rank, "ready")
    made.kill(1)
    assert await made == ["lost (1,)", None, "lost (1,)"]
    made.kill(1)


@ONE_LOOP
async def test_a_test_can_stop_a_rank_and_have_it_go_on(processes: ProcessMaker) -> None:
    """Signals reach the process."""
    made = processes(2, ranks.survive)
    for rank in range(2):
        await wait_for_line(made, rank, "ready")
    made.signal(1, signal.SIGSTOP)
    made.signal(1, signal.SIGCONT)
    assert await made == ["met", "met"]
    made.signal(1, signal.SIGTERM)


def test_what_a_rank_started_ends_with_it(processes: ProcessMaker) -> None:
    """No process is left behind, nobody's child either."""
    (pid,) = processes(1, ranks.leave_a_child).wait()
    assert has_ended(pid)


@ONE_LOOP
async def test_what_still_runs_is_killed_by_close(processes: ProcessMaker) -> None:
    """Also while somebody waits, who is cancelled. What was printed can still be read."""
    made = processes(2, ranks.sleep)
    waiting = asyncio.create_task(joined(made))
    await wait_for_line(made, 1, "asleep")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert 1 in made.running()
    processes.close()
    assert made.running() == []
    assert all(map(gone, made.pids))
    assert made.stdout(1) == "asleep\n"


def test_ranks_end_with_the_process_that_started_them() -> None:
    """Also where that is killed and can do nothing more: no rank, and nothing that a rank started, goes on."""
    program = """
import time
from aiopg.testing import LocalStore, ProcessMaker
from tests.testing import ranks

with LocalStore() as store:
    made = ProcessMaker(store.url)(1, ranks.hang_with_a_child)
    while not made.stdout(0).endswith("\\n"):
        time.sleep(0.01)
    print(made.pids[0], made.stdout(0), flush=True)
    time.sleep(1000)
"""
    started = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    pids = [int(pid) for pid in started.stdout.readline().split()]
    started.kill()
    started.communicate()
    assert len(pids) == 2
    assert all(has_ended(pid, 20) for pid in pids)


def test_a_rank_that_ends_without_a_word_has_failed(processes: ProcessMaker) -> None:
    """Exit code 0 is not a result."""
    with pytest.raises(RankFailedError, match="rank 0 exited before its function returned"):
        processes(1, ranks.exit_early).wait()


def test_a_result_that_cannot_be_sent_is_an_error_of_its_rank(processes: ProcessMaker) -> None:
    """With where in the object it is."""
    with pytest.raises(RankFailedError, match="CodecError"):
        processes(1, ranks.return_a_lock).wait()


def test_what_cannot_be_started_is_refused_at_once(processes: ProcessMaker) -> None:
    """A function that another process would not find, an argument that cannot be sent, a script that is not there."""
    with pytest.raises(ValueError, match="top of a module"):
        processes(2, lambda group: None)
    with pytest.raises(CodecError):
        processes(2, ranks.add_up, object())
    with pytest.raises(FileNotFoundError):
        processes(2, "no/such/script.py")
    with pytest.raises(ValueError, match="not 0"):
        processes(0, ranks.add_up)
    assert processes.made == []
