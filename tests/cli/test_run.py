"""`aiopg run`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from aiopg import StoreServer, __version__
from tests.children import has_ended

from .programs import Program, StartAiopg

GROUP = """
import asyncio, os
from aiopg import AsyncStatelessGroup as Group
async def main():
    host, port, rank, size = (os.environ[name] for name in ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE"))
    async with await Group.from_env() as a, await Group.create(host, int(port), int(rank), int(size), group="b") as b:
        print(a.name, await a.all_gather(a.rank), await b.all_gather(b.rank))
        await a.barrier()
asyncio.run(main())
"""

HEED = """
import os, signal, sys
def note(signum, frame):
    print("got", signal.Signals(signum).name)
    sys.exit(0)
for signum in (signal.SIGINT, signal.SIGTERM):
    signal.signal(signum, note)
print(os.getpid())
signal.pause()
"""

IGNORE = """
import os, signal
for signum in (signal.SIGINT, signal.SIGTERM):
    signal.signal(signum, signal.SIG_IGN)
print(os.getpid())
while True:
    signal.pause()
"""


ONCE = """
import os, signal
signal.signal(signal.SIGINT, lambda signum, frame: print("once"))
print(os.getpid())
while True:
    signal.pause()
"""


def pids_of(program: Program, count: int) -> list[int]:
    """The pids that so many ranks print; when they are here, the ranks run."""
    return [int(program.line().split()[1]) for _ in range(count)]


def test_each_rank_has_its_place_in_the_environment(start: StartAiopg) -> None:
    """RANK, WORLD_SIZE and their local twins are set, and each line is marked with its rank."""
    code, stdout, stderr = start(
        "run", "-n", "3", "--", "sh", "-c", "echo $RANK $WORLD_SIZE $LOCAL_RANK $LOCAL_WORLD_SIZE $PYTHONUNBUFFERED"
    ).finish()
    assert (code, stderr) == (0, b"")
    assert sorted(stdout.splitlines()) == [b"[%d] %d 3 %d 3 1" % (rank, rank, rank) for rank in range(3)]


def test_the_ranks_meet_by_from_env_and_by_create(start_on_each_loop: StartAiopg) -> None:
    """AIOPG_URL and MASTER_ADDR with MASTER_PORT lead to the same store, which runs already."""
    code, stdout, stderr = start_on_each_loop(
        "run", "-n", "2", "--group", "crew", "--", sys.executable, "-c", GROUP
    ).finish()
    assert (code, stderr) == (0, b"")
    assert sorted(stdout.splitlines()) == [b"[%d] crew [0, 1] [0, 1]" % rank for rank in range(2)]


async def test_the_ranks_meet_at_a_store_that_runs_already(tmp_path: Path) -> None:
    """`--store URL` is the AIOPG_URL of all ranks; MASTER_ADDR is set only where a host and port lead to it."""
    script = "echo $AIOPG_URL $MASTER_ADDR"
    async with StoreServer() as server, StoreServer(path=str(tmp_path / "store")) as nearby:
        for store, told in ((server, f"{server.address} 127.0.0.1"), (nearby, nearby.address)):
            program = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "aiopg", "run", "-n", "2", "--store", store.address, "--", "sh", "-c", script,
                env={name: value for name, value in os.environ.items() if name != "MASTER_ADDR"},
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            )  # fmt: skip
            said, _ = await program.communicate()
            assert program.returncode == 0
            assert sorted(said.decode().splitlines()) == [f"[{rank}] {told}" for rank in range(2)]


def test_it_may_run_inside_of_other_launchers(start: StartAiopg, monkeypatch: pytest.MonkeyPatch) -> None:
    """What torchrun and Slurm say of our own process means nothing to the ranks."""
    for name, value in {
        "TORCHELASTIC_USE_AGENT_STORE": "True", "AIOPG_PORT": "1", "SLURM_PROCID": "7", "SLURM_NTASKS": "8",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    code, stdout, stderr = start("run", "-n", "2", "--", sys.executable, "-c", GROUP).finish()
    assert (code, stderr) == (0, b"")
    assert sorted(stdout.splitlines()) == [b"[%d] default [0, 1] [0, 1]" % rank for rank in range(2)]


def test_output_and_errors_stay_apart(start_on_each_loop: StartAiopg) -> None:
    """Both are marked; any bytes pass; a last line without an end is a line too."""
    code, stdout, stderr = start_on_each_loop(
        "run", "-n", "1", "--", "sh", "-c", r"printf 'a\000\377b\n\nend'; printf 'oops' >&2"
    ).finish()
    assert (code, stdout, stderr) == (0, b"[0] a\x00\xffb\n[0] \n[0] end\n", b"[0] oops\n")


def test_a_long_line_comes_in_parts_and_whole(start_on_each_loop: StartAiopg) -> None:
    """A line over the limit is cut, and nothing of it is lost."""
    code, stdout, _ = start_on_each_loop("run", "-n", "1", sys.executable, "-c", "print('x' * 1_000_000)").finish()
    assert code == 0
    assert b"".join(line.removeprefix(b"[0] ") for line in stdout.splitlines()) == b"x" * 1_000_000


def test_the_command_keeps_its_own_options(start: StartAiopg) -> None:
    """What follows the command is the command's, `-n` and `--` included."""
    _, stdout, _ = start("run", "-n", "1", "echo", "-x", "--", "-n", "5").finish()
    assert stdout == b"[0] -x -- -n 5\n"


def test_a_failing_rank_stops_the_others(start_on_each_loop: StartAiopg) -> None:
    """The others get SIGTERM, the exit code is that of the rank that failed, and one line says which."""
    # Rank 1 fails when the test says so: by then the others run.
    rank_1 = "trap 'exit 3' USR1; echo $$; sleep 100 & wait"
    program = start_on_each_loop(
        "run", "-n", "3", "--", "sh", "-c", f'test $RANK = 1 || exec "$0" -c "$1"; {rank_1}', sys.executable, HEED
    )
    pids = {int(rank[1]): int(pid) for rank, pid in (program.line().split() for _ in range(3))}
    os.kill(pids[1], signal.SIGUSR1)
    code, stdout, stderr = program.finish()
    assert code == 3
    assert sorted(stdout.splitlines()) == [b"[0] got SIGTERM", b"[2] got SIGTERM"]
    assert stderr == b"aiopg run: rank 1 exited with code 3; stopped the others\n"
    assert all(has_ended(pid) for pid in pids.values())


def test_a_rank_ended_by_a_signal_is_128_and_the_signal(start: StartAiopg) -> None:
    """As in a shell."""
    code, _, stderr = start("run", "-n", "2", "--", "sh", "-c", "test $RANK = 0 || kill -9 $$; sleep 100").finish()
    assert code == 128 + signal.SIGKILL
    assert b"rank 1 was ended by SIGKILL" in stderr


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_every_rank(start_on_each_loop: StartAiopg, signum: signal.Signals) -> None:
    """The ranks get the very signal that we got; the exit code is 128 and the signal; nobody is left."""
    program = start_on_each_loop("run", "-n", "2", "--", sys.executable, "-c", HEED)
    pids = pids_of(program, 2)
    program.send(signum)
    code, stdout, stderr = program.finish()
    assert (code, stderr) == (128 + signum, b"")
    assert sorted(stdout.splitlines()) == [b"[%d] got %s" % (rank, signum.name.encode()) for rank in range(2)]
    assert all(has_ended(pid) for pid in pids)


def test_a_rank_that_ignores_signals_is_killed(start: StartAiopg) -> None:
    """Five seconds after SIGTERM comes SIGKILL."""
    program = start("run", "-n", "2", "--", sys.executable, "-c", IGNORE)
    pids = pids_of(program, 2)
    began = time.monotonic()
    program.send(signal.SIGTERM)
    assert program.code() == 128 + signal.SIGTERM
    assert 5 <= time.monotonic() - began < 8
    assert all(has_ended(pid) for pid in pids)


def test_a_second_signal_kills_at_once(start_on_each_loop: StartAiopg) -> None:
    """Who presses Ctrl-C twice does not want to wait."""
    program = start_on_each_loop("run", "-n", "1", "--", sys.executable, "-c", ONCE)
    pids = pids_of(program, 1)
    program.send(signal.SIGINT)
    assert program.line() == "[0] once"
    began = time.monotonic()
    program.send(signal.SIGINT)
    assert program.code() == 128 + signal.SIGINT
    assert time.monotonic() - began < 4
    assert has_ended(pids[0])


def test_what_a_rank_starts_does_not_outlive_it(start_on_each_loop: StartAiopg) -> None:
    """A process that a rank leaves behind is ended, and does not keep the others waiting."""
    code, stdout, _ = start_on_each_loop("run", "-n", "1", "--", "sh", "-c", "sleep 1000 & echo $!").finish()
    assert code == 0
    assert has_ended(int(stdout.split()[1]))


def test_a_command_that_is_not_there_is_127(start_on_each_loop: StartAiopg) -> None:
    """One line says so, however many ranks there were to be."""
    code, stdout, stderr = start_on_each_loop("run", "-n", "3", "no-such-command").finish()
    assert (code, stdout) == (127, b"")
    assert stderr == b"aiopg run: cannot start no-such-command: No such file or directory\n"


def test_output_that_nobody_reads_any_more_ends_the_ranks(start_on_each_loop: StartAiopg) -> None:
    """`aiopg run ... | head -1` ends, as any command does."""
    program = start_on_each_loop(
        "run", "-n", "2", "--", "sh", "-c", "echo $$; while :; do echo more || sleep 100; done"
    )
    program.line()
    program.stdout.close()
    assert program.code() == 128 + signal.SIGPIPE


def test_a_reader_that_stands_still_does_not_keep_it_from_stopping(start_on_each_loop: StartAiopg) -> None:
    """With the pipe full and nobody reading, SIGTERM still ends everything."""
    program = start_on_each_loop("run", "-n", "2", "--", "sh", "-c", "echo $$; while :; do echo more; done")
    program.line()
    program.send(signal.SIGTERM)
    assert program.code(timeout=10) == 128 + signal.SIGTERM


@pytest.mark.parametrize("arguments", [("-n", "0", "true"), ("-n", "x", "true"), ("-n", "2"), ("true",)])
def test_bad_arguments_are_code_2(start: StartAiopg, arguments: tuple[str, ...]) -> None:
    """They are told without a traceback."""
    code, stdout, stderr = start("run", *arguments).finish()
    assert (code, stdout) == (2, b"")
    assert stderr
    assert b"Traceback" not in stderr


def test_version_and_help(start: StartAiopg) -> None:
    """--version is the package's; without arguments comes the help."""
    assert start("--version").finish() == (0, f"aiopg {__version__}\n".encode(), b"")
    code, stdout, _ = start().finish()
    assert code == 0
    assert stdout.startswith(b"usage: aiopg")
