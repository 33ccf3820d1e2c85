"""One process of many ranks: takes orders as `benchmarks.worker` does.

bind     take a loopback port and listen on it; answers it (process 0)
host     make the store, where that is a process of its own (process 0)
join     connect the ranks from `first` up to `last`, and join the group with each
barrier  pass `count` barriers with each rank
leave    leave the group with each rank
"""

import gc
import json
import resource
import socket
import sys
import time
from collections.abc import Callable

from benchmarks import memory
from benchmarks.connections import PROCESSES
from benchmarks.contestants import crowds
from benchmarks.orders import report_for_duty
from benchmarks.worker import BACKLOG, HOST

YOUNG_OBJECTS = 50_000
"""So many objects more than before let Python look for garbage, and not 700: to go through the objects of thousands of
ranks again and again is what many ranks in a process cost, and not what they do. It is the number of
`aiopg.server.collecting`, which the peers' environment does not have."""


def prepare(name: str) -> None:
    """Import what the processes of the named crowd need."""
    crowds.module(name)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # Thousands of ranks may take more than there is: then the contestant shall fail, and not the machine.
    if (free := memory.available()) is not None:
        share = max(0, free - memory.SPARE_MEBIBYTES) * 2**20 // PROCESSES
        resource.setrlimit(resource.RLIMIT_DATA, (share, share))


def work(name: str, rank: int) -> None:
    """Be this process of the named crowd until there are no more orders."""
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])
    answers = report_for_duty(rank)
    crowd = crowds.load(name)
    answers.send(versions=crowd.versions())
    listener: socket.socket | None = None
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "bind":
            listener = socket.create_server((HOST, 0), backlog=BACKLOG)
            answers.send(ports=[listener.getsockname()[1]])
        elif order["do"] == "host" and listener is not None:
            crowd.host(listener, order["world_size"])
            answers.send(hosted=True)
        elif order["do"] == "join":
            ranks = range(order["first"], order["last"])
            crowd.prepare(len(ranks))
            answers.send(**_timed(lambda: crowd.join(order["port"], ranks, order["world_size"])))  # noqa: B023
        elif order["do"] == "barrier":
            answers.send(**_timed(lambda: crowd.barrier(order["count"])))  # noqa: B023
        elif order["do"] == "leave":
            crowd.leave()
            listener = None
            answers.send(left=True)


def _timed(call: Callable[[], None]) -> dict[str, list[int]]:
    start = time.monotonic_ns()
    call()
    return {"starts": [start], "ends": [time.monotonic_ns()]}
