"""A program that ends without closing its group."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from aiopg import GroupAbortedError, PeerLostError, StatelessGroup
from tests.sync.processes import HOST, LONG, Program

Start = Callable[..., Program]

CREATE = """
rank, port, store_host = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
group = StatelessGroup.create("127.0.0.1", port, rank, 2, store_host=store_host)
"""


def peer_of(rank: int, port: int) -> StatelessGroup:
    """The other rank of two, in this process."""
    return StatelessGroup.create(HOST, port, 1 - rank, 2, store_host="thread", store_timeout=LONG)


@pytest.mark.parametrize("store_host", ["process", "thread", "loop"])
def test_rank_0_may_end_without_closing(program: Start, port: int, store_host: str) -> None:
    """Wherever the store is, a rank 0 that just ends does not hang, and its peer is told that it left."""
    other = program(CREATE, 0, port, store_host)
    with peer_of(0, port) as group:
        began = time.monotonic()
        with pytest.raises(PeerLostError, match="left") as caught:
            group.recv(0)
        assert time.monotonic() - began < 5.0
        assert caught.value.ranks == (0,)
    assert (other.end(), other.errors()) == (0, "")


@pytest.mark.parametrize(
    ("ending", "code", "said"),
    [
        ("", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("1 / 0", 1, "ZeroDivisionError"),
        ("threading.Thread(target=group.recv, args=(0,), daemon=True).start()", 0, ""),
        ("atexit.register(lambda: sys.exit(4))", 0, "SystemExit"),
        ("group.subgroup([1])", 0, ""),
        ("del group; gc.collect()", 0, ""),
    ],
)
def test_however_a_program_ends_it_says_goodbye(program: Start, port: int, ending: str, code: int, said: str) -> None:
    """The end, sys.exit, an exception, a thread in a call: the exit code is kept and the peer is told."""
    other = program(CREATE + ending, 1, port, "process")
    with peer_of(1, port) as group:
        with pytest.raises(PeerLostError, match="left"):
            group.recv(1)
        assert other.end() == code
    assert said in (errors := other.errors())
    assert said or not errors


def test_an_exception_out_of_the_with_block_is_told_to_the_peer(program: Start, port: int) -> None:
    """`with` knows why the program ends: the peer's call fails with that."""
    other = program(CREATE + "with group: raise ValueError('bad weights')", 1, port, "process")
    with peer_of(1, port) as group:
        with pytest.raises(GroupAbortedError, match="ValueError: bad weights") as caught:
            group.recv(1)
        assert caught.value.origin == 1
    assert other.end() == 1


def test_a_store_in_rank_0_waits_for_the_others_to_leave(program: Start, port: int) -> None:
    """A store that ends with rank 0 gives the other ranks time to take what is theirs."""
    other = program(CREATE + "group.send('last words', 1)", 0, port, "thread")
    with peer_of(0, port) as group:
        assert group.recv(0) == "last words"
    assert (other.end(), other.errors()) == (0, "")


def test_a_group_made_at_exit_and_never_closed_does_not_hang(program: Start, port: int) -> None:
    """Even the last moment of a program may make a group."""
    source = "atexit.register(lambda: StatelessGroup.connect('memory://x', rank=0, world_size=1).barrier())"
    other = program(source)
    assert (other.end(), other.errors()) == (0, "")
