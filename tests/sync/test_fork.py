"""A forked child that has its parent's group in hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.sync.processes import Program

Start = Callable[..., Program]

FORK = """
rank_1 = threading.Thread(target=lambda: globals().update(peer=make(1)))
def make(rank, group="default"):
    return StatelessGroup.create("127.0.0.1", int(sys.argv[1]), rank, 2, group=group, store_host=sys.argv[2])
rank_1.start()
group = make(0)
rank_1.join()

def works():
    group.send("x", 1)
    assert peer.recv(0, timeout=20) == "x"

def refused(call, *arguments):
    try:
        call(*arguments)
    except ForkError as error:
        assert str(os.getppid()) in str(error), error
    else:
        raise AssertionError(call)

def child_refuses():
    import inspect
    for name in [n for n in dir(group) if not n.startswith("_") and inspect.ismethod(getattr(group, n))]:
        if name not in ("create", "connect", "from_env", "rendezvous", "close"):
            required = [p for p in inspect.signature(getattr(group, name)).parameters.values() if p.default is p.empty]
            refused(getattr(group, name), *[1 for p in required if p.kind is not p.VAR_KEYWORD])
    refused(group.__enter__)
    group.close()
    assert (group.rank, group.world_size) == (0, 2)
    assert "rank 0" in repr(group)

def end_of(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""


@pytest.mark.parametrize("store_host", ["process", "thread", "loop"])
def test_a_child_is_refused_and_does_not_disturb_its_parent(program: Start, port: int, store_host: str) -> None:
    """Every method raises ForkError in the child, close() is harmless, and so is the child's normal exit."""
    source = """
    works()
    child = os.fork()
    if child == 0:
        child_refuses()
        sys.exit(7)  # exit handlers and the garbage collector run
    say(end_of(child))
    works()
    peer.close(), group.close()
    """
    other = program(FORK + _dedent(source), port, store_host, warnings="ignore")
    assert other.line() == "7"
    assert (other.end(), other.errors()) == (0, "")


def test_a_child_that_frees_the_group_does_not_disturb_its_parent(program: Start, port: int) -> None:
    """Sockets and selectors that the child inherited are its own to drop."""
    source = """
    child = os.fork()
    if child == 0:
        atexit._clear()
        del group, peer
        gc.collect()
        sys.exit(7)
    say(end_of(child))
    works()
    peer.close(), group.close()
    """
    other = program(FORK + _dedent(source), port, "thread", warnings="ignore")
    assert other.line() == "7"
    assert (other.end(), other.errors()) == (0, "")


def test_a_child_that_is_forked_behind_a_call_does_not_disturb_its_parent(program: Start, port: int) -> None:
    """Nobody runs the loop in that moment, so it looks like one that ended; the parent's still hears of calls."""
    source = """
    works()
    child = os.fork()
    if child == 0:
        atexit._clear()
        del group, peer
        gc.collect()
        sys.exit(7)
    say(end_of(child))
    for _ in range(3):
        time.sleep(0.05)  # so that the loop's own thread has it again, and must be told of the call
        works()
    peer.close(), group.close()
    """
    other = program(FORK + _dedent(source), port, "thread", warnings="ignore")
    assert other.line() == "7"
    assert (other.end(), other.errors()) == (0, "")


def test_a_multiprocessing_child_is_refused(program: Start, port: int) -> None:
    """The fork context of multiprocessing: as os.fork."""
    source = """
    import multiprocessing
    child = multiprocessing.get_context("fork").Process(target=child_refuses)
    child.start()
    child.join()
    say(child.exitcode)
    works()
    """
    other = program(FORK + _dedent(source), port, "process", warnings="ignore")
    assert other.line() == "0"
    assert (other.end(), other.errors()) == (0, "")


def test_a_child_that_leaves_a_with_block_does_not_abort_the_group(program: Start, port: int) -> None:
    """`with` in the parent, sys.exit in the child: the child's exit code is its own, the group goes on."""
    source = """
    with group:
        child = os.fork()
        if child == 0:
            sys.exit(7)
        say(end_of(child))
        works()
    """
    other = program(FORK + _dedent(source), port, "process", warnings="ignore")
    assert other.line() == "7"
    assert (other.end(), other.errors()) == (0, "")


def test_a_child_makes_a_group_of_its_own(program: Start, port: int) -> None:
    """What the error advises works: a new group in the child, with its own parent as the peer."""
    source = """
    child = os.fork()
    if child == 0:
        with make(1, "of both") as mine:
            assert mine.all_gather("child") == ["parent", "child"]
        sys.exit(7)
    with make(0, "of both") as ours:
        say(ours.all_gather("parent"))
    say(end_of(child))
    works()
    """
    other = program(FORK + _dedent(source), port, "process", warnings="ignore")
    assert other.line() == "['parent', 'child']"
    assert other.line() == "7"
    assert (other.end(), other.errors()) == (0, "")


def _dedent(source: str) -> str:
    return "\n".join(line.removeprefix("    ") for line in source.splitlines())
