"""The programs that run over our own store run over etcd with another URL: real processes, and blocking ones."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from aiopg import PeerLostError, StatelessGroup, Store

from .keys import own_path
from .servers import SLOW, EtcdServer

EXAMPLES = Path(__file__).parents[3] / "examples"
LONG = 50 * SLOW


@pytest.fixture
def url(etcd_server: EtcdServer) -> str:
    """A store of one's own: programs have names for their groups that others have too."""
    return etcd_server.url + own_path()


def run(*arguments: str) -> list[str]:
    """Python with these, to its good end; what it printed, sorted."""
    ran = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=LONG, check=False)
    assert (ran.returncode, ran.stderr) == (0, ""), ran
    return sorted(ran.stdout.splitlines())


def run_example(url: str, n: int, name: str) -> list[str]:
    """An example under `aiopg run --store`."""
    return run("-m", "aiopg", "run", "-n", str(n), "--store", url, "--", sys.executable, str(EXAMPLES / name))


def test_examples(url: str) -> None:
    """A blocking one, and one with groups that share members; as they are in the repository."""
    assert run_example(url, 3, "sync_script.py") == [
        f"[{rank}] my 10 numbers make {sum(range(rank, 30, 3))}, those of all 3 processes 435" for rank in range(3)
    ]
    lines = run_example(url, 4, "overlapping_groups.py")
    assert len(lines) == 10
    assert "[1] B: I am in AB, ABCD, BD" in lines


def test_the_demo(url: str) -> None:
    """Every step; each rank is told whom it misses, if not within 80 ms of the first deadline, then of another."""
    lines = run("-m", "aiopg", "demo", "-n", "3", "--store", url)
    assert any("missing: rank 2; arrived: 0-1" in line for line in lines)
    assert any(line.startswith("Every rank saw what it should.") for line in lines)


MEMBER = """
import os, signal, sys
from aiopg import StatelessGroup
group = StatelessGroup.connect(sys.argv[1], rank=1, world_size=2, group="g", reconnect_grace=2)
assert group.all_gather("member") == ["test", "member"]
assert group.recv(0) == b"x" * 100_000
group.send("last words", 0)
group.barrier()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_is_lost_when_its_lease_has_ended(url: str) -> None:
    """Blocking groups in two processes; what the dead one had sent is still received, and then the others are told."""
    with (
        subprocess.Popen([sys.executable, "-c", MEMBER, url]) as member,
        StatelessGroup.connect(url, rank=0, world_size=2, group="g", reconnect_grace=2) as group,
    ):
        assert group.all_gather("test") == ["test", "member"]
        group.send(b"x" * 100_000, 1)
        group.barrier()
        assert member.wait(LONG) == -signal.SIGKILL
        assert group.recv(1) == "last words"
        with pytest.raises(PeerLostError, match="its lease in etcd has ended") as lost:
            group.recv(1, timeout=LONG)
        assert lost.value.ranks == (1,)


FORKS = """
import os, sys, threading
from aiopg import Store, UsageError
store = Store.connect(sys.argv[1])
adding = threading.Thread(target=lambda: [store.add("sum", 1) for _ in range(100)])
adding.start()
while adding.is_alive():
    if not (child := os.fork()):
        try:
            Store.connect(sys.argv[1])
        except UsageError as error:
            os._exit(0 if "spawn" in str(error) else 1)
        os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
print(int(store.get("sum")))
store.close()
"""


def test_a_program_that_forks_goes_on(url: str) -> None:
    """Its standard error is its own. A child that wants a store of its own in etcd is told that it cannot have one."""
    assert run("-c", FORKS, url) == ["100"]


def test_the_blocking_key_store(url: str) -> None:
    """Two of them: values, counters, queues, locks."""
    with Store.connect(url) as one, Store.connect(url) as other:
        one.set("key", b"value")
        assert other.get("key") == b"value"
        assert [one.add("sum", 2), other.add("sum", 3)] == [2, 5]
        one.queue_push("queue", b"item")
        assert other.queue_pop("queue") == b"item"
        with one.lock("lock") as first:
            number = first.number
        with other.lock("lock") as second:
            assert second.number > number
        assert sorted(other.list_keys()) == ["key", "sum"]
