"""Blocking stores in processes that are interrupted, killed, forked, or end without a word."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from aiopg import KeyTimeoutError, StatelessGroup, Store
from tests.sync.processes import LONG, Program

Start = Callable[..., Program]

WAIT_IN = """
store = Store.connect(sys.argv[1], timeout=60)
def tell():
    while not store._store.link._calls:
        time.sleep(0.005)
    say("waiting")
threading.Thread(target=tell, daemon=True).start()
try:
    {call}
except KeyboardInterrupt:
    say("interrupted")
input()
{then}
"""


@pytest.mark.parametrize(
    ("call", "then", "said"),
    [
        ("store.get('key')", "say(store.get('key'))", "b'1'"),
        ("store.queue_pop('q')", "say(store.queue_pop('q'), store.queue_pop('q'))", "b'x' b'y'"),
    ],
)
def test_ctrl_c_takes_a_waiting_call_back(program: Start, served: str, call: str, then: str, said: str) -> None:
    """Ctrl-C ends a waiting call; nothing is lost, and the store stays usable."""
    with Store.connect(served, timeout=LONG) as store:
        other = program(WAIT_IN.format(call=call, then=then), served)
        assert other.line() == "waiting"
        other.interrupt()
        assert other.line() == "interrupted"
        store.set("key", "1")
        for item in "xy":  # the first one may meet the call that was given up, and come back
            store.queue_push("q", item)
        other.go_on()
        assert other.line() == said
        assert (other.end(), other.errors()) == (0, "")


HOLD = """
store = Store.connect(sys.argv[1], timeout=60)
for turn in range(int(sys.argv[2])):
    with store.lock("lock") as lock:
        store.append("log", f"+{os.getpid()} ")
        n = int(store.get("n"))
        store.set("n", str(n + 1))
        store.append("log", f"-{os.getpid()} ")
say("done")
"""


def test_a_lock_excludes_over_processes(program: Start, served: str) -> None:
    """Who reads, adds and writes under it loses no update, and nobody is inside with another one."""
    with Store.connect(served, timeout=LONG) as store:
        store.set("n", "0")
        programs = [program(HOLD, served, 50) for _ in range(3)]
        assert [each.line() for each in programs] == ["done"] * 3
        assert store.get("n") == b"150"
        log = store.get("log").decode().split()
        assert all(enter[1:] == leave[1:] for enter, leave in zip(log[::2], log[1::2], strict=True))


def test_what_was_a_killed_process_s_is_let_go(program: Start, served: str) -> None:
    """kill -9: its lock goes to the next one with a larger number, its session keys go, what it set else stays."""
    source = """
    store = Store.connect(sys.argv[1], timeout=60)
    store.set("mine", "1", session=True)
    store.set("everybody's", "1")
    number = store.lock("lock").acquire()
    say(number)
    input()
    """
    with Store.connect(served, timeout=LONG) as store, store.watch("mine") as watch:
        victim = program(source, served)
        number = int(victim.line())
        assert next(watch).kind == "set"
        with pytest.raises(KeyTimeoutError):
            store.lock("lock").acquire(timeout=0.05)
        victim.process.kill()
        with store.lock("lock", timeout=LONG) as lock:
            assert lock.number > number
        assert next(watch).kind == "ended"
        assert store.list_keys() == ["everybody's"]


def test_session_keys_of_a_group_go_with_a_member_that_dies(program: Start, served: str) -> None:
    """A real process, killed: the others see its keys end, and its place in the queue free."""
    source = """
    group = StatelessGroup.connect(sys.argv[1], rank=1, world_size=2)
    group.store.set("rank 1", "here", session=True)
    group.store.set("result", "1")
    say("set")
    group.store.queue_pop("work")
    """
    victim = program(source, served)
    with StatelessGroup.connect(served, rank=0, world_size=2, store_timeout=LONG) as group:
        assert victim.line() == "set"
        with group.store.watch() as watch:
            assert group.store.get("rank 1") == b"here"
            victim.process.kill()
            change = next(watch)
            assert (change.kind, change.key) == ("ended", "rank 1")
        assert group.store.list_keys() == ["result"]
        group.store.queue_push("work", "item")
        assert group.store.queue_pop("work") == b"item"


def test_a_program_that_ends_without_close_says_goodbye(program: Start, served: str) -> None:
    """Its session keys are gone at once, and it writes nothing on its standard error."""
    source = """
    store = Store.connect(sys.argv[1], timeout=60)
    store.set("mine", "1", session=True)
    watch = store.watch()
    lock = store.lock("lock")
    lock.acquire()
    """
    with Store.connect(served, timeout=LONG) as store, store.watch() as watch:
        store.check("mine")
        other = program(source, served)
        assert [next(watch).kind for _ in range(2)] == ["set", "ended"]
        assert (other.end(), other.errors()) == (0, "")


def test_a_forked_child_is_refused_and_does_not_disturb_its_parent(program: Start, served: str) -> None:
    """Every call raises ForkError there, close() is harmless, and so is the child's normal exit."""
    source = """
    store = Store.connect(sys.argv[1], timeout=60)
    watch = store.watch()
    lock = store.lock("lock")
    lock.acquire()
    child = os.fork()
    if child == 0:
        for call in (store.num_keys, store.watch, store.clone, lock.release, lambda: next(watch),
                     lambda: store.lock("x"), lambda: store.with_prefix("a").get("b")):
            try:
                call()
            except ForkError as error:
                assert str(os.getppid()) in str(error), error
            else:
                raise AssertionError(call)
        watch.close()
        store.close()
        sys.exit(7)
    say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    store.set("key", "1")
    say(next(watch).key)
    lock.release()
    store.close()
    """
    other = program(source, served, warnings="ignore")
    assert (other.line(), other.line()) == ("7", "key")
    assert (other.end(), other.errors()) == (0, "")
