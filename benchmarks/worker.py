"""One rank of one contestant: a process that takes orders as JSON lines and answers each with one line.

bind   take `count` loopback ports and listen on each; answers the ports (rank 0, which hosts the stores)
form   form the group and check that it answers right
check  broadcast one payload of `bytes` bytes and compare it
run    one timed block; answers starts and ends
close  leave the group; the process stays for the next one

Orders come over a unix socket that the coordinator listens on, in the folder that the environment names; the first
line tells it which rank this is. The process ends when the connection does. It does not catch what a contestant
raises: it dies with a traceback on standard error, and the coordinator reports that.
"""

import asyncio
import json
import os
import socket
import sys
from typing import Any

from benchmarks import contestants, operations, payload
from benchmarks.contestants.base import (
    AwaitableContestant,
    AwaitableGroup,
    BlockingContestant,
    BlockingGroup,
    Seat,
)
from benchmarks.orders import Answers, report_for_duty
from benchmarks.verify import check_sized, verify, verify_async

HOST = "127.0.0.1"
BACKLOG = 4096


class Place:
    """Where this process sits: the listening sockets that `bind` took, until they are handed on."""

    def __init__(self) -> None:
        self._listeners: list[socket.socket] = []

    def bind(self, count: int) -> list[int]:
        self._listeners = [socket.create_server((HOST, 0), backlog=BACKLOG) for _ in range(count)]
        return [listener.getsockname()[1] for listener in self._listeners]

    def seats(self, order: dict[str, Any]) -> list[Seat]:
        listeners: list[socket.socket | None] = [*self._listeners] or [None] * len(order["ports"])
        self._listeners = []
        return [
            Seat(HOST, port, order["rank"], order["world_size"], listener)
            for port, listener in zip(order["ports"], listeners, strict=True)
        ]


def block_of(order: dict[str, Any], contestant: BlockingContestant | AwaitableContestant) -> operations.Block:
    rank = order["rank"]
    if operations.OPERATIONS[order["operation"]].numbers:
        obj = contestant.numbers(rank)
    elif order["bytes"] is not None:
        obj = payload.sized(order["bytes"]) if rank == 0 else None
    else:
        obj = contestant.payload(rank)
    return operations.Block(rank, obj, order["count"])


def serve(contestant: BlockingContestant, answers: Answers) -> None:
    """Carry out orders until there are no more."""
    place = Place()
    group: BlockingGroup | None = None
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "bind":
            answers.send(ports=place.bind(order["count"]))
        elif order["do"] == "form":
            (seat,) = place.seats(order)
            group = contestant.form(seat)
            verify(contestant, group, order["rank"], order["world_size"])
            answers.send(formed=True)
        elif order["do"] == "check" and group is not None:
            sent = payload.sized(order["bytes"]) if order["rank"] == 0 else None
            check_sized(group.broadcast(sent, 0), order["bytes"])
            answers.send(checked=True)
        elif order["do"] == "run" and group is not None:
            contestant.tidy()
            starts, ends = _run(contestant, group, place, order)
            answers.send(starts=starts, ends=ends)
        elif order["do"] == "close":
            group = None
            contestant.close()
            answers.send(closed=True)


def _run(contestant: BlockingContestant, group: BlockingGroup, place: Place, order: dict[str, Any]) -> operations.Times:
    if order["operation"] == operations.JOIN:
        return operations.timed_joins(contestant, group, place.seats(order))
    return operations.timed(group, order["operation"], block_of(order, contestant))


async def serve_async(contestant: AwaitableContestant, answers: Answers) -> None:
    """Carry out orders until there are no more.

    Orders arrive on the loop itself: it runs on between blocks, as a program's would, so that a group can
    acknowledge what it received.
    """
    place = Place()
    group: AwaitableGroup | None = None
    orders = asyncio.StreamReader(limit=2**20)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(orders), os.fdopen(0, "rb", buffering=0)
    )
    async for line in orders:
        order = json.loads(line)
        if order["do"] == "bind":
            answers.send(ports=place.bind(order["count"]))
        elif order["do"] == "form":
            (seat,) = place.seats(order)
            group = await contestant.form(seat)
            await verify_async(contestant, group, order["rank"], order["world_size"])
            answers.send(formed=True)
        elif order["do"] == "check" and group is not None:
            sent = payload.sized(order["bytes"]) if order["rank"] == 0 else None
            check_sized(await group.broadcast(sent, 0), order["bytes"])
            answers.send(checked=True)
        elif order["do"] == "run" and group is not None:
            starts, ends = await _run_async(contestant, group, place, order)
            answers.send(starts=starts, ends=ends)
        elif order["do"] == "close":
            group = None
            await contestant.close()
            answers.send(closed=True)


async def _run_async(
    contestant: AwaitableContestant, group: AwaitableGroup, place: Place, order: dict[str, Any]
) -> operations.Times:
    if order["operation"] == operations.JOIN:
        return await operations.timed_joins_async(contestant, group, place.seats(order))
    return await operations.timed_async(group, order["operation"], block_of(order, contestant))


def prepare(name: str) -> None:
    """Import what the ranks of the named contestant need."""
    contestants.module(name)


def work(name: str, rank: int) -> None:
    """Be this rank of the named contestant until there are no more orders."""
    answers = report_for_duty(rank)
    contestant = contestants.load(name)
    answers.send(versions=contestant.versions())
    if isinstance(contestant, BlockingContestant):
        serve(contestant, answers)
    else:
        with asyncio.Runner(loop_factory=contestant.loop_factory) as runner:
            runner.run(serve_async(contestant, answers))


if __name__ == "__main__":
    # Started by mpirun, which tells each process its rank in this way.
    work(sys.argv[1], int(os.environ["OMPI_COMM_WORLD_RANK"]))
