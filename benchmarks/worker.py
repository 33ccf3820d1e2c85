"""One rank of one contestant: a process that takes orders as JSON lines and answers each with one line.

bind   take a loopback port and listen on it; answers the port (rank 0, which hosts the store)
form   form the group and check that it answers right
run    one timed block; answers start and end
close  leave the group; the process stays for the next one

The process ends when its standard input does. It does not catch what a contestant raises: it dies with a
traceback on standard error, and the coordinator reports that.
"""

import asyncio
import json
import os
import socket
import sys
from typing import Any

from benchmarks import contestants, operations
from benchmarks.contestants.base import (
    AwaitableContestant,
    AwaitableGroup,
    BlockingContestant,
    BlockingGroup,
    Seat,
)
from benchmarks.verify import verify, verify_async

HOST = "127.0.0.1"
BACKLOG = 1024


class Answers:
    """The line back to the coordinator: the real standard output, which nothing else may write to."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)  # whatever a library prints goes to standard error

    def send(self, **answer: Any) -> None:
        self._out.write(json.dumps(answer) + "\n")


class Place:
    """Where this process sits: the listening socket that `bind` took, until `form` hands it on."""

    def __init__(self) -> None:
        self._listener: socket.socket | None = None

    def bind(self) -> int:
        self._listener = socket.create_server((HOST, 0), backlog=BACKLOG)
        port: int = self._listener.getsockname()[1]
        return port

    def seat(self, order: dict[str, Any]) -> Seat:
        listener, self._listener = self._listener, None
        return Seat(HOST, order["port"], order["rank"], order["world_size"], listener)


def block_of(order: dict[str, Any], contestant: BlockingContestant | AwaitableContestant) -> operations.Block:
    return operations.Block(order["rank"], contestant.payload(order["rank"]), order["count"])


def serve(contestant: BlockingContestant, answers: Answers) -> None:
    """Carry out orders until standard input ends."""
    place = Place()
    group: BlockingGroup | None = None
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "bind":
            answers.send(port=place.bind())
        elif order["do"] == "form":
            group = contestant.form(place.seat(order))
            verify(group, order["rank"], order["world_size"], contestant.payload)
            answers.send(formed=True)
        elif order["do"] == "run" and group is not None:
            contestant.tidy()
            start, end = operations.timed(group, order["operation"], block_of(order, contestant))
            answers.send(start=start, end=end)
        elif order["do"] == "close":
            group = None
            contestant.close()
            answers.send(closed=True)


async def serve_async(contestant: AwaitableContestant, answers: Answers) -> None:
    """Carry out orders until standard input ends.

    Orders arrive on the loop itself: it runs on between blocks, as a program's would, so that a group can
    acknowledge what it received.
    """
    place = Place()
    group: AwaitableGroup | None = None
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(orders), os.fdopen(0, "rb", buffering=0)
    )
    async for line in orders:
        order = json.loads(line)
        if order["do"] == "bind":
            answers.send(port=place.bind())
        elif order["do"] == "form":
            group = await contestant.form(place.seat(order))
            await verify_async(group, order["rank"], order["world_size"], contestant.payload)
            answers.send(formed=True)
        elif order["do"] == "run" and group is not None:
            start, end = await operations.timed_async(group, order["operation"], block_of(order, contestant))
            answers.send(start=start, end=end)
        elif order["do"] == "close":
            group = None
            await contestant.close()
            answers.send(closed=True)


def main() -> None:
    answers = Answers()
    contestant = contestants.load(sys.argv[1])
    answers.send(versions=contestant.versions())
    if isinstance(contestant, BlockingContestant):
        serve(contestant, answers)
    else:
        with asyncio.Runner(loop_factory=contestant.loop_factory) as runner:
            runner.run(serve_async(contestant, answers))


if __name__ == "__main__":
    main()
