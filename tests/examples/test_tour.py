"""The examples of what a group is: a pair, blocking, overlapping, and a service that waits."""

from __future__ import annotations

import signal
import socket

from tests.system.ranks import served

from .programs import StartProgram, example, under_run


def test_async_pair(start: StartProgram) -> None:
    """Two programs started by hand find each other: here on a store that holds its port already."""
    with served() as store:
        port = store.address.rpartition(":")[2]
        server, client = [start(example("async_pair.py"), str(rank), port) for rank in range(2)]
        assert server.lines() == ["server: the client says 'well done'"]
        assert client.lines() == ["client: it answers HELLO", "client: rank 0 offers shouter-7b"]


def test_sync_script(start: StartProgram) -> None:
    """Three blocking processes share work and learn the sum."""
    assert start(*under_run(3, "sync_script.py")).lines() == [
        "[0] my 10 numbers make 135, those of all 3 processes 435",
        "[1] my 10 numbers make 145, those of all 3 processes 435",
        "[2] my 10 numbers make 155, those of all 3 processes 435",
    ]


def test_overlapping_groups(start: StartProgram) -> None:
    """{A, B}, {A, B, C, D} and {B, D} work at once on one store."""
    lines = start(*under_run(4, "overlapping_groups.py")).lines()
    pairs = [f"[{rank}] {name}: the pair is AB" for rank, name in enumerate("AB")]
    all_four = [f"[{rank}] {name}: everyone is ABCD" for rank, name in enumerate("ABCD")]
    at_once = [
        "[0] A: I am in AB, ABCD",
        "[1] B: I am in AB, ABCD, BD",
        "[2] C: I am in ABCD",
        "[3] D: I am in ABCD, BD",
    ]
    assert lines == sorted(pairs + all_four + at_once)


def ask(port: int) -> str:
    """What a process of the service answers."""
    with socket.create_connection(("127.0.0.1", port)) as request, request.makefile() as answer:
        request.sendall(b"?\n")
        return answer.readline().strip()


def test_waiting_service(start: StartProgram) -> None:
    """Every process is ready when all are there, and drains on SIGTERM."""
    service = start(*under_run(3, "waiting_service.py"))
    ports, ready = [], 0
    while ready < 3:
        line = service.read()
        if "listening on port" in line:
            ports.append(int(line.split()[-1]))
        ready += "ready: all peers are there" in line
    assert [ask(port) for port in ports] == ["ready"] * 3
    service.process.send_signal(signal.SIGTERM)
    drained = [line for line in service.lines(128 + signal.SIGTERM) if "drained" in line]
    assert drained == [f"[{rank}] drained" for rank in range(3)]


def test_waiting_service_is_not_ready_without_a_peer(start: StartProgram) -> None:
    """When a peer is killed the other one says so, and drains as before."""
    with served() as store:
        place = {"WORLD_SIZE": "2", "AIOPG_URL": store.address}
        services = [start("-u", example("waiting_service.py"), environment=place | {"RANK": r}) for r in "01"]
        port = int(services[0].read().split()[-1])
        while services[0].read() != "ready: all peers are there":
            pass
        assert ask(port) == "ready"
        services[1].process.kill()
        assert services[0].read().startswith("not ready: rank 1 lost")
        assert ask(port) == "not ready"
        services[0].process.send_signal(signal.SIGTERM)
        assert services[0].lines()[:1] == ["drained"]


def test_waiting_service_names_who_it_waits_for(start: StartProgram) -> None:
    """While a peer is missing the service says which one, and is not ready."""
    with served() as store:
        place = {"RANK": "0", "WORLD_SIZE": "2", "AIOPG_URL": store.address}
        service = start("-u", example("waiting_service.py"), environment=place)
        port = int(service.read().split()[-1])
        assert service.read() == "waiting for ranks (1,)"
        assert ask(port) == "not ready"
        service.process.send_signal(signal.SIGTERM)
        assert service.lines()[:1] == ["drained"]
