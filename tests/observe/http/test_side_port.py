"""`aiopg serve --http`: the side port as those who look have it, over real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from aiopg import AsyncStatelessGroup, StoreServer
from aiopg.cli._certs import write_certificates
from aiopg.observe.http import HttpAddress, SidePort, _side_port
from aiopg.observe.http._app import HEADERS
from tests.children import children, has_ended
from tests.cli.programs import Program

from .conftest import StartServed

ALL = "the-token-for-all-of-the-groups"
SOME = "the-token-for-some-groups"
NEXT = "the-token-that-comes-after-it"

GUARDED = ("/", "/readyz", "/metrics", "/api/status", "/api/trace", "/api/events", "/api/access", "/static/page.js")


def token_file(directory: Path, *lines: str) -> str:
    path = directory / "tokens"
    path.write_text("\n".join(lines) + "\n")
    path.chmod(0o600)
    return str(path)


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


async def form(url: str, *names: str) -> None:
    """Have groups of one at the store, which are left again."""
    for name in names:
        async with await AsyncStatelessGroup.connect(url, rank=0, world_size=1, group=name) as group:
            await group.barrier()


def test_the_second_line_is_what_to_open(serve: StartServed) -> None:
    """Behind the store's own address comes that of the side port, on loopback; the page is there."""
    served = serve()
    assert served.url.startswith("aiopg://127.0.0.1:")
    assert str(served.http.base_url).startswith("http://127.0.0.1:")
    answer = served.http.get("/")
    assert answer.status_code == 200
    assert "<title>aiopg</title>" in answer.text
    for path in ("/healthz", "/readyz", "/api/status", "/metrics", "/static/page.js", "/login.css", "/icon.svg"):
        assert served.http.get(path).status_code == 200, path
    for path in ("/static/nothing.js", "/static/..%2fchild.py", "/static/%2e%2e/child.py", "/nothing", "/api"):
        assert served.http.get(path).status_code == 404, path


def test_an_outsider_sees_nothing_but_that_it_is_there(serve: StartServed, tmp_path: Path) -> None:
    """Without a token /healthz answers, and a form that asks for one; all else is refused, and tells nothing."""
    served = serve("--token-file", token_file(tmp_path, ALL))
    assert served.http.get("/healthz").text == "ok\n"
    for path in GUARDED:
        for headers in ({}, bearer("a token of another store"), {"cookie": "aiopg_1=1.2"}, {"authorization": "Bearer"}):
            answer = served.http.get(path, headers=headers)
            if path == "/":
                assert (answer.status_code, answer.headers["location"]) == (303, "/login")
            else:
                assert answer.status_code in (401, 429), path  # these are many wrong tokens
            assert served.url not in answer.text
    for path in ("/", "/metrics", "/api/status"):
        assert served.http.post(path).status_code == 405
    assert served.http.get("/login").status_code == 200


def test_a_token_is_said_with_each_request_or_once_in_the_form(serve: StartServed, tmp_path: Path) -> None:
    """Tools say it as Bearer; a browser gets a cookie for it, which no script can read and no other site sends."""
    served = serve("--token-file", token_file(tmp_path, ALL))
    assert served.http.get("/api/status", headers=bearer(ALL)).status_code == 200
    wrong = served.http.post("/login", data={"token": "a token of another store"})
    assert wrong.status_code == 401
    assert "no such token" in wrong.text
    assert "set-cookie" not in wrong.headers
    assert served.http.post("/login", content=b"token=" + b"x" * 100_000).status_code == 401
    right = served.http.post("/login", data={"token": ALL})
    assert (right.status_code, right.headers["location"]) == (303, "/")
    cookie = right.headers["set-cookie"]
    assert "httponly" in cookie.lower()
    assert "samesite=strict" in cookie.lower()
    assert ALL not in cookie
    assert served.http.get("/api/status").status_code == 200  # the client has the cookie
    assert served.http.post("/logout").headers["location"] == "/login"
    assert served.http.get("/api/status").status_code == 401


def test_too_many_wrong_tokens_are_told_so_however_they_are_said(serve: StartServed, tmp_path: Path) -> None:
    """With each request or in the form; an address that a header claims is not that of who guesses; right ones pass."""
    served = serve("--token-file", token_file(tmp_path, ALL))
    assert served.http.get("/healthz").status_code == 200  # it is there, so that what follows is within a second
    codes = [
        served.http.get(
            "/api/status", headers=bearer(f"a token of another store, {n}") | {"x-forwarded-for": f"192.0.2.{n}"}
        ).status_code
        for n in range(60)
    ]
    assert codes[0] == 401
    assert 429 in codes
    assert served.http.get("/api/status", headers=bearer(ALL)).status_code == 200


def test_a_token_for_some_groups_shows_these(serve: StartServed, tmp_path: Path) -> None:
    """The state is that which a member with this token is told; metrics, trace and events have its groups only."""
    served = serve("--token-file", token_file(tmp_path, ALL, f"{SOME} train-*"))

    async def look(url: str) -> None:
        link = await AsyncStatelessGroup.connect(url, rank=0, world_size=1, group="train-1", token=SOME)
        async with (
            link,
            await AsyncStatelessGroup.connect(url, rank=0, world_size=1, group="secret", token=ALL) as other,
        ):
            await asyncio.gather(link.barrier(), other.barrier())
            its_own = await link.store.link.status()
            said = await asyncio.to_thread(served.http.get, "/api/status", headers=bearer(SOME))
            told = said.json()
            assert set(told) == set(its_own)
            assert [group["name"] for group in told["groups"]] == ["train-1"]
            for name in ("rounds", "bytes", "members", "lobbies", "keys", "done"):
                assert told[name] == its_own[name], name
            for path in ("/api/status", "/metrics", "/api/trace"):
                some = await asyncio.to_thread(served.http.get, path, headers=bearer(SOME))
                every = await asyncio.to_thread(served.http.get, path, headers=bearer(ALL))
                assert some.status_code == 200, path
                assert "train-1" in some.text, path
                assert "secret" not in some.text, path
                assert "secret" in every.text, path
            for token, is_seen in ((SOME, False), (ALL, True)):
                frame = await asyncio.to_thread(first_frame, served.http, token)
                assert ("secret" in json.dumps(frame)) is is_seen

    served.meet(look)


def test_the_trace_is_what_perfetto_opens(serve: StartServed) -> None:
    """What happened, as Chrome trace events; of one group, and of the last seconds, where that is asked for."""
    served = serve()
    served.meet(lambda url: form(url, "train", "eval"))
    events = served.http.get("/api/trace").json()["traceEvents"]
    assert {"train", "eval"} <= set(re.findall("train|eval", json.dumps(events)))
    one = served.http.get("/api/trace", params={"group": "train"}).text
    assert "train" in one
    assert "eval" not in one
    assert "train" not in served.http.get("/api/trace", params={"seconds": "0"}).text
    assert served.http.get("/api/trace", params={"seconds": "soon"}).status_code == 400


def first_frame(http: httpx.Client, token: str) -> dict[str, object]:
    with http.stream("GET", "/api/events", headers=bearer(token)) as events:
        assert events.headers["content-type"].startswith("text/event-stream")
        for line in events.iter_lines():
            if line.startswith("data: "):
                frame: dict[str, object] = json.loads(line.removeprefix("data: "))
                return frame
    raise AssertionError("there was no frame")


def test_tokens_that_are_replaced_are_replaced_here_too(serve: StartServed, tmp_path: Path) -> None:
    """SIGHUP reads the file again; a page that is open under the old token is told no more."""
    file = token_file(tmp_path, ALL)
    served = serve("--token-file", file)
    with served.http.stream("GET", "/api/events", headers=bearer(ALL)) as events:
        lines = events.iter_lines()
        next(lines)
        token_file(tmp_path, NEXT)
        served.program.send(signal.SIGHUP)
        assert "1 tokens" in served.program.error_line()
        served.meet(lambda url: form_with(url, NEXT))
        for _ in lines:
            pass  # to its end
    assert served.http.get("/api/status", headers=bearer(ALL)).status_code == 401
    assert served.http.get("/api/status", headers=bearer(NEXT)).status_code == 200


async def form_with(url: str, token: str) -> None:
    async with await AsyncStatelessGroup.connect(url, rank=0, world_size=1, token=token):
        pass


def test_every_answer_says_what_a_browser_may_do_with_it(serve: StartServed, tmp_path: Path) -> None:
    """Nothing but our own files, no framing, no guessing of types, nothing kept; also where the answer is a refusal."""
    served = serve("--token-file", token_file(tmp_path, ALL))
    for path in ("/healthz", "/login", "/", "/metrics", "/nothing", "/login.css"):
        for headers in ({}, bearer(ALL)):
            answer = served.http.get(path, headers=headers)
            assert {name: answer.headers[name] for name in HEADERS} == HEADERS, path
            assert "server" not in answer.headers
    policy = HEADERS["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


def test_without_tokens_a_page_of_strangers_reads_nothing(serve: StartServed) -> None:
    """A name that somebody has resolve to our address is refused, but for /healthz."""
    served = serve()
    for path in GUARDED:
        assert served.http.get(path, headers={"host": "evil.example"}).status_code == 421, path
    assert served.http.get("/healthz", headers={"host": "evil.example"}).status_code == 200


def test_a_side_port_that_is_killed_comes_again_and_the_store_goes_on(serve: StartServed) -> None:
    """Its end is told, its port stays, and members notice nothing."""
    served = serve()
    assert served.http.get("/readyz").status_code == 200
    (side,) = children(served.program.pid)

    async def kill_it_under_a_member(url: str) -> None:
        async with await AsyncStatelessGroup.connect(url, rank=0, world_size=1) as group:
            os.kill(side, signal.SIGKILL)
            await group.barrier()

    served.meet(kill_it_under_a_member)
    assert "the HTTP side port ended (exit code -9)" in served.program.error_line()
    with httpx.Client(base_url=served.http.base_url, timeout=30, trust_env=False) as again:
        # The socket listens all the while.
        assert again.get("/readyz").status_code == 200


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_the_side_port_ends_with_its_store(serve: StartServed, signum: signal.Signals) -> None:
    """However the store ends, and also while somebody looks; a clean end is without a word."""
    served = serve()
    with served.http.stream("GET", "/api/events") as events:
        next(events.iter_lines())
        (side,) = children(served.program.pid)
        served.program.send(signum)
        code, stdout, stderr = served.program.finish()
    assert (code, stdout, stderr) == (-signal.SIGKILL if signum == signal.SIGKILL else 0, b"", b"")
    assert has_ended(side)


def test_https_with_the_stores_certificate(serve: StartServed, tmp_path: Path) -> None:
    """A store with a certificate serves the page with it, asks nobody for one, and its cookie is for https only."""
    write_certificates(tmp_path / "certs", [])
    store, ca = tmp_path / "certs" / "store", tmp_path / "certs" / "ca.pem"
    files = ("--tls-cert", f"{store}.pem", "--tls-key", f"{store}.key", "--tls-ca", str(ca))
    served = serve(*files, "--token-file", token_file(tmp_path, ALL), verify=ssl.create_default_context(cafile=ca))
    assert str(served.http.base_url).startswith("https://127.0.0.1:")
    assert served.http.get("/healthz").text == "ok\n"
    assert "secure" in served.http.post("/login", data={"token": ALL}).headers["set-cookie"].lower()
    older = ssl.create_default_context(cafile=ca)
    older.maximum_version = ssl.TLSVersion.TLSv1_2
    where = urlsplit(str(served.http.base_url))
    with (
        socket.create_connection((where.hostname, where.port), 30) as sock,
        pytest.raises((ssl.SSLError, ConnectionError)),  # the connection ends in the middle of it
    ):
        older.wrap_socket(sock, server_hostname=where.hostname)


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("0.0.0.0:0", "can be reached from other hosts"),
        ("192.0.2.1:0", "cannot listen there"),
        ("nonsense", "an HTTP address is HOST:PORT"),
        ("127.0.0.1:70000", "an HTTP address is HOST:PORT"),
        ("::1:0", "an HTTP address is HOST:PORT"),
    ],
)
def test_an_address_that_cannot_be_is_one_complaint_and_code_2(address: str, what: str) -> None:
    """Also one that other hosts reach, where nothing keeps strangers out; the store is not served either."""
    started = Program("serve", "--http", address, environment={"AIOPG_TOKEN": ""})
    code, stdout, stderr = started.finish()
    started.close()
    assert (code, stdout) == (2, b"")
    assert what in stderr.decode()
    assert b"Traceback" not in stderr


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("9300", "127.0.0.1", 9300),
        (":9300", "127.0.0.1", 9300),
        ("[::1]:0", "::1", 0),
        ("store.example:80", "store.example", 80),
    ],
)
def test_an_address_is_a_port_or_a_host_and_a_port(text: str, host: str, port: int) -> None:
    """A port alone is on loopback: to be reached by others is to be asked for."""
    address = HttpAddress.parse(text)
    assert (address.host, address.port) == (host, port)


async def test_a_side_port_that_cannot_be_started_does_not_end_the_store(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A host without memory or descriptors for one more process: that is told, and tried again."""
    monkeypatch.setattr(_side_port, "RESTART_SECONDS", 0.01)
    start, refusals = asyncio.create_subprocess_exec, [OSError(12, "Cannot allocate memory")] * 2

    async def refused(*arguments: Any, **options: Any) -> asyncio.subprocess.Process:
        if refusals:
            raise refusals.pop()
        return await start(*arguments, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refused)
    async with StoreServer() as server:
        side = SidePort(server, HttpAddress("127.0.0.1", 0))
        await side.start()
        running = asyncio.create_task(side.run())
        async with httpx.AsyncClient(base_url=side.url, timeout=30, trust_env=False) as http:
            assert (await http.get("/readyz")).status_code == 200
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert caplog.text.count("cannot be started: [Errno 12] Cannot allocate memory") == 2


async def test_who_listens_and_reads_nothing_costs_others_nothing() -> None:
    """They are told of changes meanwhile. (That he is let go in the end: test_events.)"""
    async with StoreServer() as server:
        side = SidePort(server, HttpAddress("127.0.0.1", 0))
        await side.start()
        running = asyncio.create_task(side.run())
        where = urlsplit(side.url)
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(slow, (where.hostname, where.port))
            await loop.sock_sendall(slow, b"GET /api/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            async with httpx.AsyncClient(base_url=side.url, timeout=30, trust_env=False) as http:
                assert (await http.get("/readyz")).status_code == 200
                async with http.stream("GET", "/api/events") as events:
                    lines = events.aiter_lines()
                    async with await AsyncStatelessGroup.connect(server.address, rank=0, world_size=1, group="new"):
                        async with asyncio.timeout(20):
                            async for line in lines:
                                if '"new"' in line:
                                    break
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
