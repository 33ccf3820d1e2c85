"""Web servers that serve only while all of them are there."""

from __future__ import annotations

import re
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import httpx
import pytest

from tests.system.ranks import free_port

from .programs import LONG, Program, example


class Server(Program):
    """One of two."""

    def __init__(self, rank: int, meeting_port: int, versions: str) -> None:
        place = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(meeting_port)}
        super().__init__(example("fastapi_service.py"), "0", environment=place | {"MODEL_VERSIONS": versions})
        self.port = 0
        self._heard: list[str] = []
        # Without connections that are kept: a server that ends closes them.
        self._http = httpx.Client(timeout=LONG, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))

    def listen(self) -> None:
        """Wait until it answers requests."""
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self.wait_for("Uvicorn running on"))
        assert found
        self.port = int(found[1])
        self._http.base_url = httpx.URL(found[0])

    def wait_for(self, text: str) -> str:
        """The first line of its log with this text that was not waited for before."""
        assert self.process.stderr is not None
        for line in self._heard:
            if text in line:
                self._heard.remove(line)
                return line
        for line in self.process.stderr:
            assert line.startswith(("INFO:", "ERROR:")), line
            if text in line:
                return line
            self._heard.append(line)
        raise AssertionError(f"it ended before it said {text!r}")

    def get(self, path: str) -> tuple[int, object]:
        """Status and body."""
        answer = self._http.get(path)
        return answer.status_code, answer.json()

    def generate(self, prompt: str) -> tuple[int, object]:
        """Status and body."""
        answer = self._http.post("/generate", content=prompt)
        return answer.status_code, answer.json()

    def close(self) -> None:
        """End it, if it still runs."""
        self._http.close()
        super().close()

    def end(self) -> None:
        """It must end well, and its last words are uvicorn's."""
        assert self.process.wait(LONG) == 0
        assert self.process.stderr is not None
        rest = self.process.stderr.readlines()
        assert all(line.startswith("INFO:") for line in rest), rest
        assert "Finished server process" in rest[-1]


Serve = Callable[[int, int, str], Server]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server and waits until it answers, ready or not; ends what the test leaves."""
    with ExitStack() as servers:

        def start(*arguments: Any) -> Server:
            server = servers.enter_context(closing(Server(*arguments)))
            server.listen()
            return server

        yield start


def test_ready_while_both_are_there(serve: Serve) -> None:
    """503 until both are there, and again from the moment when one is killed until there is another in its place."""
    meeting_port = free_port()
    first = serve(0, meeting_port, "6 7")
    assert first.get("/healthz") == (200, "alive")
    assert first.get("/readyz") == (503, {"detail": "waiting for the other servers"})
    assert first.generate("hello")[0] == 503

    second = serve(1, meeting_port, "7 6 8")
    for server in (first, second):
        server.wait_for("ready: all 2 servers have version 7")
        assert server.get("/readyz") == (200, {"version": 7})
        assert server.generate("hello") == (200, {"version": 7, "text": "HELLO"})

    second.process.kill()
    first.wait_for("not ready: rank 1 lost")
    status, why = first.get("/readyz")
    assert (status, "rank 1" in str(why)) == (503, True)
    assert first.generate("hello")[0] == 503
    assert first.get("/healthz") == (200, "alive")

    serve(1, meeting_port, "6")
    first.wait_for("ready: all 2 servers have version 6")
    assert first.get("/readyz") == (200, {"version": 6})


def test_servers_without_a_version_in_common_are_not_ready(serve: Serve) -> None:
    """/readyz says who has what."""
    meeting_port = free_port()
    first, _ = serve(0, meeting_port, "1"), serve(1, meeting_port, "2")
    first.wait_for("no version is everywhere")
    assert first.get("/readyz") == (503, {"detail": "no version is everywhere: [{1}, {2}]"})


def test_a_signal_drains(serve: Serve) -> None:
    """Not ready at once, what has begun is answered, the other learns that it left, and both end well."""
    meeting_port = free_port()
    first, second = serve(0, meeting_port, "1"), serve(1, meeting_port, "1")
    for server in (first, second):
        server.wait_for("ready: all 2 servers have version 1")
    with socket.create_connection(("127.0.0.1", first.port)) as request, request.makefile("rb") as answer:
        request.sendall(b"POST /generate HTTP/1.1\r\nHost: me\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        assert answer.readline() == b"HTTP/1.1 100 Continue\r\n"  # its handler waits for the prompt
        first.process.send_signal(signal.SIGTERM)
        first.wait_for("draining: 1 requests to finish")
        assert first.get("/readyz") == (503, {"detail": "draining"})
        assert first.generate("too late") == (503, {"detail": "draining"})
        assert second.get("/readyz") == (200, {"version": 1})
        request.sendall(b"hello")
        assert answer.read().endswith(b'{"version":1,"text":"HELLO"}')
    first.wait_for("left the group")
    first.end()

    second.wait_for("not ready: rank 0 left")
    assert second.get("/readyz")[0] == 503
    second.process.send_signal(signal.SIGINT)
    second.end()
